// What is idle now: one row a model and region, filtered by the small query language that the API and the CLI share.
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { asApiError } from "../api/problem";
import type { Offer } from "../api/types";
import { Failure } from "../design/Loaded";
import { Button, Empty, Field, MoneyText, Skeleton, TableScroll } from "../design/parts";
import { offersQuery } from "./queries";
import { SORTS, type BookingChange, type BookingSearch, type Sort } from "./search";

const SORT_WORDS: Record<Sort, string> = { price: "Cheapest", "-free": "Most free", "-reliability": "Most reliable", spot: "Cheapest spot", model: "GPU model" };
const EXAMPLE = "gpu=H100 vram>=80GB region=eu price<2.5";

export function Offers({ org, search, set }: { org: string; search: BookingSearch; set: (change: BookingChange) => void }) {
  const query = useQuery(offersQuery(search.q, search.sort));
  const mistake = query.error === null ? null : mistakeOf(query.error);
  return (
    <>
      <Finder key={search.q ?? ""} search={search} set={set} mistake={mistake} busy={query.isFetching && query.isPlaceholderData} />
      {query.data === undefined && query.error === null && <OfferSkeleton />}
      {query.error !== null && mistake === null && query.data === undefined && (
        <div className="panel-body">
          <Failure error={query.error} onRetry={() => void query.refetch()} busy={query.isFetching} />
        </div>
      )}
      {query.data !== undefined && mistake === null && <Table org={org} offers={query.data} search={search} onPick={set} />}
    </>
  );
}

interface Mistake {
  message: string;
  position: number;
}

/** What the API says is wrong with the query, and where. */
function mistakeOf(error: unknown): Mistake | null {
  const field = asApiError(error).fields.find((one) => one.path === "query.q");
  return field === undefined ? null : { message: field.message, position: field.position ?? 0 };
}

function Finder({ search, set, mistake, busy }: { search: BookingSearch; set: (change: BookingChange) => void; mistake: Mistake | null; busy: boolean }) {
  const [draft, setDraft] = useState(search.q ?? "");
  const apply = () => set({ q: draft.trim() === "" ? undefined : draft.trim() });
  return (
    <form
      className="finder"
      role="search"
      aria-label="Offers"
      onSubmit={(event) => {
        event.preventDefault();
        apply();
      }}
    >
      <Field
        label="Find"
        error={mistake?.message}
        hint={
          <>
            Try <code>{EXAMPLE}</code>
          </>
        }
      >
        {(props) => <input {...props} className="input mono" type="search" spellCheck={false} autoCapitalize="none" maxLength={500} placeholder="every offer" value={draft} onChange={(event) => setDraft(event.target.value)} onBlur={apply} />}
      </Field>
      <Field label="Sort">
        {(props) => (
          <select {...props} className="input" value={search.sort ?? "price"} onChange={(event) => set({ sort: SORTS.find((one) => one === event.target.value && one !== "price") })}>
            {SORTS.map((sort) => (
              <option key={sort} value={sort}>
                {SORT_WORDS[sort]}
              </option>
            ))}
          </select>
        )}
      </Field>
      <Button type="submit" busy={busy} className="finder-go">
        Find
      </Button>
      {mistake !== null && (
        <pre className="finder-mistake mono" aria-hidden="true">
          {search.q}
          {"\n"}
          {" ".repeat(mistake.position)}^
        </pre>
      )}
    </form>
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

function Table({ org, offers, search, onPick }: { org: string; offers: Offer[]; search: BookingSearch; onPick: (change: BookingChange) => void }) {
  if (offers.length === 0) {
    return search.q === undefined ? (
      <Empty>No host offers a GPU right now. The list refreshes by itself.</Empty>
    ) : (
      <Empty action={<Button onClick={() => onPick({ q: undefined })}>Show every offer</Button>}>Nothing on offer matches this query.</Empty>
    );
  }
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
              Reliability
            </th>
            <th scope="col" className="number">
              Per GPU-hour from
            </th>
            <th scope="col" className="tight">
              <span className="visually-hidden">Choose</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {offers.map((offer) => (
            <tr key={`${offer.gpu_model} ${offer.region}`} data-selected={isPicked(offer, search) ? "" : undefined}>
              <th scope="row">
                <Link className="nowrap" to="/o/$org/market" params={{ org }} search={{ model: offer.gpu_model, region: offer.region }} title={`Price and use of ${offer.gpu_model} in ${offer.region} over time`}>
                  {offer.gpu_model}
                </Link>
                <div className="line" data-gap="small" data-nowrap>
                  <span className="muted nowrap">{memory(offer.memory_mib)}</span> {offer.simulated && <span className="tag">simulated</span>}
                </div>
              </th>
              <td className="nowrap">{offer.region}</td>
              <td className="number not-narrow">
                {offer.free_gpus} of {offer.total_gpus}
                {offer.largest_node > 0 && <div className="muted nowrap">up to {offer.largest_node} a node</div>}
              </td>
              <td className="number not-narrow">{offer.reliability_percent.toFixed(1)} %</td>
              <td className="number">
                {offer.free_gpus === 0 ? <span className="muted">none free</span> : <MoneyText of={offer.price_from} />}
                {offer.spot_from !== undefined && (
                  <div className="muted nowrap">
                    spot <MoneyText of={offer.spot_from} />
                  </div>
                )}
              </td>
              <td className="tight">
                <Button size="small" aria-pressed={isPicked(offer, search)} disabled={offer.free_gpus === 0} onClick={() => onPick({ model: offer.gpu_model, vram: undefined, regions: [offer.region] })}>
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
