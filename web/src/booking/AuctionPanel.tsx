// An auction: opened on request, sealed while hosts bid, then a quote whose bids may be chosen by hand.
import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { asApiError } from "../api/problem";
import type { Bid, BookingSpec, Quote } from "../api/types";
import { ActionError, Failure, Loaded } from "../design/Loaded";
import { Button, Empty, MoneyText, ShortId, TableScroll, Toned } from "../design/parts";
import { durationWords } from "../time/time";
import { useNow } from "../time/useNow";
import { NoMatch } from "./NoMatch";
import { auctionQuery, bidsQuery } from "./queries";
import { QuoteCard } from "./QuoteCard";
import type { BookingChange } from "./search";

export function AuctionPanel({ org, spec, set }: { org: string; spec: BookingSpec; set: (change: BookingChange) => void }) {
  const open = useMutation({ mutationFn: () => unwrap(client.POST("/v1/quotes", { params: { query: { org } }, body: spec })) });
  if (open.data !== undefined) return <Opened key={open.data.id} org={org} opened={open.data} onAgain={() => open.mutate()} busy={open.isPending} />;
  if (open.error !== null && asApiError(open.error).code === "no_capacity") return <NoMatch spec={spec} error={open.error} onRetry={() => open.mutate()} busy={open.isPending} set={set} />;
  return (
    <div className="stack">
      <p>
        {spec.node_count} × {spec.gpus_per_node} {spec.gpu_model ?? "GPUs"} for {durationWords(spec.duration)}. Eligible hosts bid for {durationWords(spec.bid_window ?? "10s")}; nobody sees a bid before the window has closed, and you pay nothing unless you book.
      </p>
      <ActionError error={open.error} />
      <Button look="primary" size="large" busy={open.isPending} onClick={() => open.mutate()}>
        Open the auction
      </Button>
    </div>
  );
}

function Opened({ org, opened, onAgain, busy }: { org: string; opened: Quote; onAgain: () => void; busy: boolean }) {
  const query = useQuery(auctionQuery(org, opened));
  const quote = query.data ?? opened;
  const again = (
    <Button busy={busy} onClick={onAgain}>
      Open another
    </Button>
  );
  if (query.error !== null && query.data === undefined) return <Failure error={query.error} onRetry={() => void query.refetch()} busy={query.isFetching} />;
  if (quote.state === "bidding") return <Bidding quote={quote} />;
  if (quote.state === "quoted") return <Closed org={org} quote={quote} again={again} />;
  return <Empty action={again}>{quote.state === "expired" ? "Too few hosts bid, or the result was not booked in time. Nothing was held." : "This auction is over."}</Empty>;
}

const TICK_MS = 250;
const MS_PER_SECOND = 1_000;

function Bidding({ quote }: { quote: Quote }) {
  const now = useNow(TICK_MS);
  const left = Math.max(0, Date.parse(quote.bids_close_at ?? quote.expires_at) - now);
  return (
    <div className="stack" role="status">
      <Toned tone="busy">Hosts are bidding</Toned>
      <p className="meter">{Math.ceil(left / MS_PER_SECOND)} s</p>
      <p className="muted">The bids are sealed until then.</p>
    </div>
  );
}

function Closed({ org, quote, again }: { org: string; quote: Quote; again: React.ReactNode }) {
  const bids = useQuery(bidsQuery(org, quote.id));
  const manual = quote.spec.choose === "manual";
  const [chosen, setChosen] = useState<string[] | null>(null);
  const now = useNow(MS_PER_SECOND);
  if (Date.parse(quote.expires_at) <= now) return <Empty action={again}>The bids have expired. Nothing was booked.</Empty>;
  const quoted = (bids.data ?? []).filter((bid) => bid.quoted).map((bid) => bid.id);
  const taken = chosen ?? quoted;
  const complete = taken.length === quote.spec.node_count;
  const isQuoted = complete && taken.every((id) => quoted.includes(id));
  return (
    <QuoteCard org={org} quote={quote} requote={() => Promise.resolve(undefined)} requoting={!complete} failed={null} {...(isQuoted ? {} : { bids: taken })}>
      <Loaded query={bids}>
        {(loaded) => (
          <>
            <BidTable bids={loaded} taken={taken} manual={manual} onToggle={(id, on) => setChosen(on ? [...taken, id] : taken.filter((one) => one !== id))} />
            {manual && !complete && (
              <p className="field-error">
                Choose {quote.spec.node_count} {quote.spec.node_count === 1 ? "bid" : "bids"}, one a node: {taken.length} chosen.
              </p>
            )}
            {complete && !isQuoted && <p className="hint">The figures below are those of the cheapest bids; yours are held at their own prices when you book.</p>}
          </>
        )}
      </Loaded>
    </QuoteCard>
  );
}

function BidTable({ bids, taken, manual, onToggle }: { bids: Bid[]; taken: string[]; manual: boolean; onToggle: (id: string, on: boolean) => void }) {
  return (
    <TableScroll label="Bids, cheapest first">
      <table className="funnel">
        <thead>
          <tr>
            <th scope="col">Bid of host</th>
            <th scope="col">Region</th>
            <th scope="col" className="number">
              Per GPU-hour
            </th>
            <th scope="col" className="tight">
              {manual ? "Take" : <span className="visually-hidden">Part of the quote</span>}
            </th>
          </tr>
        </thead>
        <tbody>
          {bids.map((bid) => (
            <tr key={bid.id} data-selected={taken.includes(bid.id) ? "" : undefined}>
              <th scope="row">
                <ShortId id={bid.host_id} what="Host id" keep={4} />
              </th>
              <td className="nowrap">{bid.region}</td>
              <td className="number">
                <MoneyText of={bid.price_per_gpu_hour} />
              </td>
              <td className="tight">
                {manual ? <input type="checkbox" aria-label={`Take the bid of ${bid.host_id}`} checked={taken.includes(bid.id)} onChange={(event) => onToggle(bid.id, event.target.checked)} /> : bid.quoted && <Toned tone="ok">wins</Toned>}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
