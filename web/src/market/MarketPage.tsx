// Prices and use of a GPU model over time.
import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { lazy, Suspense } from "react";
import type { MarketHistory, Money } from "../api/types";
import { offersQuery } from "../booking/queries";
import { Loaded, SafePanel } from "../design/Loaded";
import { Empty, Field, MoneyText, Skeleton, TableScroll, Time } from "../design/parts";
import { historyQuery } from "./queries";
import { marketSearch, SPANS, type MarketSearch, type Span } from "./search";
import "./market.css";

// The figures and the page around them do not wait for the drawing.
const Chart = lazy(() => import("./Chart").then((module) => ({ default: module.Chart })));

const SPAN_WORDS: Record<Span, string> = { day: "24 hours", week: "7 days", month: "30 days" };

export function MarketPage() {
  const { org } = useParams({ from: "/o/$org/market" });
  const search = useSearch({ from: "/o/$org/market" });
  const navigate = useNavigate({ from: "/o/$org/market" });
  const offers = useQuery(offersQuery(undefined, "model"));
  const models = [...new Set((offers.data ?? []).map((offer) => offer.gpu_model))].sort();
  const model = search.model ?? models[0];
  const regions = [...new Set((offers.data ?? []).filter((offer) => offer.gpu_model === model).map((offer) => offer.region))].sort();
  const set = (change: { [Name in keyof MarketSearch]?: MarketSearch[Name] | undefined }) => void navigate({ search: (previous) => marketSearch({ ...previous, ...change }), replace: true });
  return (
    <div className="page">
      <div className="page-head">
        <h1>Market</h1>
        {model !== undefined && (
          <Link className="button" to="/o/$org/new" params={{ org }} search={{ model, ...(search.region === undefined ? {} : { regions: [search.region] }) }}>
            Book {model}
          </Link>
        )}
      </div>
      <div className="line market-choice">
        <Choice label="GPU model" value={model ?? ""} options={model === undefined || models.includes(model) ? models : [model, ...models]} onChange={(chosen) => set({ model: chosen, region: undefined })} />
        <Choice label="Region" value={search.region ?? ""} all="all regions" options={search.region === undefined || regions.includes(search.region) ? regions : [search.region, ...regions]} onChange={(chosen) => set({ region: chosen === "" ? undefined : chosen })} />
        <fieldset className="stack" data-gap="tiny">
          <legend className="legend">Over the last</legend>
          <div className="chips">
            {SPANS.map((span) => (
              <label key={span} className="chip">
                <input type="radio" name="span" checked={(search.span ?? "day") === span} onChange={() => set({ span: span === "day" ? undefined : span })} />
                {SPAN_WORDS[span]}
              </label>
            ))}
          </div>
        </fieldset>
      </div>
      {model === undefined ? (
        <Loaded query={offers}>{() => <Empty>No host offers a GPU yet. Prices are kept from the first one on.</Empty>}</Loaded>
      ) : (
        <History model={model} region={search.region} span={search.span ?? "day"} />
      )}
    </div>
  );
}

function Choice({ label, value, options, all, onChange }: { label: string; value: string; options: string[]; all?: string; onChange: (value: string) => void }) {
  return (
    <Field label={label}>
      {(props) => (
        <select {...props} className="input" value={value} onChange={(event) => onChange(event.target.value)}>
          {all !== undefined && <option value="">{all}</option>}
          {options.map((option) => (
            <option key={option} value={option}>
              {option}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

function History({ model, region, span }: { model: string; region: string | undefined; span: Span }) {
  const query = useQuery(historyQuery(model, region, span));
  return (
    <Loaded query={query} skeleton={<Skeleton height={320} />}>
      {(history) =>
        history.points.length === 0 ? (
          <Empty>No sample of {model} in this time yet: one is taken every minute while a host offers it.</Empty>
        ) : (
          <div className="charts" data-stale={query.isPlaceholderData ? "" : undefined}>
            <SafePanel title={`Price per GPU-hour, ${currencyOf(history)}`} aside={<span className="muted">cheapest free, median dashed; times in UTC</span>}>
              <Suspense fallback={<Skeleton height={200} />}>
              <Chart
                label={`Price of ${model} over the last ${SPAN_WORDS[span]}; the figures are in a table below`}
                times={history.points.map((point) => point.at)}
                series={[
                  { label: "Cheapest", values: history.points.map((point) => figure(point.price_min)) },
                  { label: "Median", values: history.points.map((point) => figure(point.price_median)), dashed: true },
                ]}
                format={priceTick}
              />
              </Suspense>
            </SafePanel>
            <SafePanel title="Leased, percent of the offered GPUs">
              <Suspense fallback={<Skeleton height={200} />}>
                <Chart label={`Use of ${model} over the last ${SPAN_WORDS[span]}; the figures are in the table below`} times={history.points.map((point) => point.at)} series={[{ label: "Leased", values: history.points.map((point) => point.utilisation_percent) }]} max={100} format={percentTick} />
              </Suspense>
            </SafePanel>
            <details>
              <summary>Figures</summary>
              <SafePanel title="Newest first" flush>
                <Figures history={history} />
              </SafePanel>
            </details>
          </div>
        )
      }
    </Loaded>
  );
}

function currencyOf(history: MarketHistory): string {
  return history.points.find((point) => point.price_min !== undefined)?.price_min?.currency ?? "tokens";
}

/** For the height of a line only: amounts that are read or paid never pass through a float. */
function figure(money: Money | undefined): number | null {
  return money === undefined ? null : Number(money.text);
}

const priceTick = (value: number) => value.toFixed(2);
const percentTick = (value: number) => `${value} %`;

const MOST_ROWS = 200;

function Figures({ history }: { history: MarketHistory }) {
  const rows = [...history.points].reverse().slice(0, MOST_ROWS);
  return (
    <TableScroll label="Figures, newest first">
      <table>
        <thead>
          <tr>
            <th scope="col">From</th>
            <th scope="col" className="number">
              Cheapest
            </th>
            <th scope="col" className="number">
              Median
            </th>
            <th scope="col" className="number">
              Leased
            </th>
            <th scope="col" className="number">
              Use
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map((point) => (
            <tr key={point.at}>
              <th scope="row">
                <Time at={point.at} />
              </th>
              <td className="number">{point.price_min === undefined ? <span className="muted">none free</span> : <MoneyText of={point.price_min} />}</td>
              <td className="number">{point.price_median === undefined ? <span className="muted">none free</span> : <MoneyText of={point.price_median} />}</td>
              <td className="number">
                {point.leased} of {point.gpus}
              </td>
              <td className="number">{point.utilisation_percent.toFixed(1)} %</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
