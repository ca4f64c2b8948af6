import { useQuery } from "@tanstack/react-query";
import { useNavigate, useParams, useSearch } from "@tanstack/react-router";
import type { Offer } from "../api/types";
import { Loaded, SafePanel } from "../design/Loaded";
import { Button, Empty, Field, MoneyText, Skeleton, TableScroll } from "../design/parts";
import { compareMoney, isDecimalAmount } from "../money/money";
import { networkQuery } from "../session/session";
import { durationWords } from "../time/time";
import { offersQuery } from "./queries";
import { QuotePanel } from "./QuotePanel";
import { bookingSearch, DEFAULTS, DURATIONS, MOST_GPUS, MOST_NODES, specOf, type BookingChange, type BookingSearch } from "./search";
import "./booking.css";

export function BookPage() {
  const { org } = useParams({ from: "/o/$org/new" });
  const search = useSearch({ from: "/o/$org/new" });
  const navigate = useNavigate({ from: "/o/$org/new" });
  const offers = useQuery(offersQuery);
  const set = (change: BookingChange) => void navigate({ search: (previous) => bookingSearch({ ...previous, ...change }), replace: true, resetScroll: false });
  return (
    <div className="page">
      <div className="page-head">
        <h1>Find and book</h1>
      </div>
      <div className="columns">
        <div className="stack">
          <SafePanel title="Idle now" flush>
            <Loaded query={offers} skeleton={<OfferSkeleton />}>
              {(loaded) => <Offers offers={loaded} search={search} onPick={set} />}
            </Loaded>
          </SafePanel>
          <SafePanel title="Cluster">
            <Shape offers={offers.data ?? []} search={search} set={set} />
          </SafePanel>
        </div>
        <div className="sticky">
          <QuotePanel org={org} spec={specOf(search)} set={set} />
        </div>
      </div>
    </div>
  );
}

function OfferSkeleton() {
  return (
    <div className="panel-body stack" data-gap="small" role="status">
      <span className="visually-hidden">Loading</span>
      {[0, 1, 2].map((row) => (
        <Skeleton key={row} height={33} />
      ))}
    </div>
  );
}

function isPicked(offer: Offer, search: BookingSearch): boolean {
  return offer.gpu_model === search.model && (search.regions === undefined || search.regions.includes(offer.region));
}

function Offers({ offers, search, onPick }: { offers: Offer[]; search: BookingSearch; onPick: (change: BookingChange) => void }) {
  if (offers.length === 0) return <Empty>No host offers a GPU right now. The list refreshes by itself.</Empty>;
  const sorted = [...offers].sort((a, b) => a.gpu_model.localeCompare(b.gpu_model) || compareMoney(a.price_from, b.price_from));
  return (
    <TableScroll label="Idle GPUs by model and region">
      <table>
        <thead>
          <tr>
            <th scope="col">GPU</th>
            <th scope="col">Region</th>
            <th scope="col" className="number not-narrow">
              Free
            </th>
            <th scope="col" className="number not-narrow">
              Largest node
            </th>
            <th scope="col" className="number">
              From, per GPU-hour
            </th>
            <th scope="col" className="tight">
              <span className="visually-hidden">Choose</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {sorted.map((offer) => (
            <tr key={`${offer.gpu_model} ${offer.region}`} data-selected={isPicked(offer, search) ? "" : undefined}>
              <th scope="row">
                <span className="line" data-gap="small">
                  {offer.gpu_model} <span className="muted nowrap">{memory(offer.memory_mib)}</span> {offer.simulated && <span className="tag">simulated</span>}
                </span>
              </th>
              <td className="nowrap">{offer.region}</td>
              <td className="number not-narrow">
                {offer.free_gpus} of {offer.total_gpus}
              </td>
              <td className="number not-narrow">
                {offer.largest_node} {offer.largest_node === 1 ? "GPU" : "GPUs"}
              </td>
              <td className="number">
                <MoneyText of={offer.price_from} />
              </td>
              <td className="tight">
                <Button size="small" aria-pressed={isPicked(offer, search)} disabled={offer.free_gpus === 0} onClick={() => onPick({ model: offer.gpu_model, regions: [offer.region] })}>
                  {offer.free_gpus === 0 ? "Taken" : "Book"}
                  <span className="visually-hidden">
                    {" "}
                    {offer.gpu_model} in {offer.region}
                  </span>
                </Button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

const MIB_PER_GIB = 1024;

function memory(mib: number): string {
  return `${Math.round(mib / MIB_PER_GIB)} GiB`;
}

function Shape({ offers, search, set }: { offers: Offer[]; search: BookingSearch; set: (change: BookingChange) => void }) {
  const network = useQuery(networkQuery);
  const models = [...new Set(offers.map((offer) => offer.gpu_model))].sort();
  const regions = [...new Set(offers.filter((offer) => search.model === undefined || offer.gpu_model === search.model).map((offer) => offer.region))].sort();
  const hours = search.hours ?? DEFAULTS.hours;
  const durations: string[] = [...DURATIONS];
  if (!durations.includes(hours)) durations.push(hours);
  const max = search.max ?? "";
  const badMax = max !== "" && !isDecimalAmount(max, network.data?.decimals ?? 6);
  return (
    <div className="stack">
      <fieldset className="stack" data-gap="tiny">
        <legend className="legend">GPU model</legend>
        <div className="chips">
          {models.length === 0 && <span className="muted">None on offer</span>}
          {models.map((model) => (
            <label key={model} className="chip">
              <input type="radio" name="model" checked={search.model === model} onChange={() => set({ model })} />
              {model} <span className="muted">{freeOf(offers, model)} free</span>
            </label>
          ))}
        </div>
      </fieldset>
      <div className="shape">
        <CountField label="GPU nodes" value={search.nodes ?? DEFAULTS.nodes} most={MOST_NODES} onChange={(nodes) => set({ nodes })} />
        <span className="times" aria-hidden="true">
          ×
        </span>
        <CountField label="GPUs per node" value={search.gpus ?? DEFAULTS.gpus} most={MOST_GPUS} onChange={(gpus) => set({ gpus })} />
      </div>
      <fieldset className="stack" data-gap="tiny">
        <legend className="legend">For how long, from ready</legend>
        <div className="chips">
          {durations.map((duration) => (
            <label key={duration} className="chip">
              <input type="radio" name="hours" checked={hours === duration} onChange={() => set({ hours: duration })} />
              {durationWords(duration)}
            </label>
          ))}
        </div>
      </fieldset>
      <details>
        <summary>More: region, price limit, name</summary>
        <div className="stack more">
          <fieldset className="stack" data-gap="tiny">
            <legend className="legend">Regions (any when none is chosen)</legend>
            <div className="chips">
              {regions.map((region) => (
                <label key={region} className="chip">
                  <input type="checkbox" checked={search.regions?.includes(region) ?? false} onChange={(event) => set(toggled(search, region, event.target.checked))} />
                  {region}
                </label>
              ))}
            </div>
          </fieldset>
          <div className="two">
            <Field label={`Most per GPU-hour${network.data === undefined ? "" : `, ${network.data.symbol}`}`} error={badMax ? `A positive amount with at most ${network.data?.decimals ?? 6} decimals` : undefined}>
              {(props) => (
                <input
                  {...props}
                  className="input input-number"
                  inputMode="decimal"
                  placeholder="no limit"
                  defaultValue={max}
                  onBlur={(event) => set({ max: event.target.value.trim() === "" ? undefined : event.target.value.trim() })}
                />
              )}
            </Field>
            <Field label="Cluster name">
              {(props) => <input {...props} className="input" maxLength={80} placeholder="chosen for you" defaultValue={search.name ?? ""} onBlur={(event) => set({ name: event.target.value.trim() === "" ? undefined : event.target.value.trim() })} />}
            </Field>
          </div>
        </div>
      </details>
    </div>
  );
}

function freeOf(offers: Offer[], model: string): number {
  return offers.filter((offer) => offer.gpu_model === model).reduce((sum, offer) => sum + offer.free_gpus, 0);
}

function toggled(search: BookingSearch, region: string, on: boolean): BookingChange {
  const others = (search.regions ?? []).filter((one) => one !== region);
  const regions = on ? [...others, region] : others;
  return { regions: regions.length === 0 ? undefined : regions };
}

function CountField({ label, value, most, onChange }: { label: string; value: number; most: number; onChange: (value: number) => void }) {
  return (
    <Field label={label}>
      {(props) => (
        <span className="stepper">
          <button type="button" className="button" disabled={value <= 1} onClick={() => onChange(value - 1)} aria-label={`Fewer ${label}`}>
            −
          </button>
          <input
            {...props}
            className="input"
            inputMode="numeric"
            value={value}
            onChange={(event) => {
              const typed = Number.parseInt(event.target.value, 10);
              if (Number.isInteger(typed) && typed >= 1 && typed <= most) onChange(typed);
            }}
          />
          <button type="button" className="button" disabled={value >= most} onClick={() => onChange(value + 1)} aria-label={`More ${label}`}>
            +
          </button>
        </span>
      )}
    </Field>
  );
}
