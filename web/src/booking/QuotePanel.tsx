// The price of what is chosen: a quote, asked for anew when it expires, an auction, or why nothing fits.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useState } from "react";
import { asApiError } from "../api/problem";
import type { BookingSpec, Quote } from "../api/types";
import { Boundary, Failure } from "../design/Loaded";
import { Empty, Panel } from "../design/parts";
import { AuctionPanel } from "./AuctionPanel";
import { NoMatch } from "./NoMatch";
import { quoteQuery } from "./queries";
import { QuoteCard, QuoteSkeleton } from "./QuoteCard";
import type { BookingChange } from "./search";

export function QuotePanel({ org, spec, waitsForPrice, set }: { org: string; spec: BookingSpec | null; waitsForPrice: boolean; set: (change: BookingChange) => void }) {
  const steady = useSettled(spec);
  return (
    <Panel title={steady?.kind === "auction" ? "Auction" : "Quote"}>
      <Boundary>
        <div className="quote">
          {steady === null ? (
            <Empty>{waitsForPrice ? "Name the most you pay per GPU-hour: a spot booking needs a limit." : "Choose a row to see its price. Nothing is booked before you confirm."}</Empty>
          ) : steady.kind === "auction" ? (
            <AuctionPanel key={JSON.stringify(steady)} org={org} spec={steady} set={set} />
          ) : (
            <Quoted org={org} spec={steady} set={set} />
          )}
        </div>
      </Boundary>
    </Panel>
  );
}

const SETTLE_MS = 200;

/** The spec, once it has stopped changing: five clicks on a stepper ask for one quote. The first choice is quoted at once. */
function useSettled(spec: BookingSpec | null): BookingSpec | null {
  const [steady, setSteady] = useState(spec);
  const text = JSON.stringify(spec);
  const first = steady === null;
  useEffect(() => {
    const timer = setTimeout(() => setSteady(JSON.parse(text) as BookingSpec | null), first ? 0 : SETTLE_MS);
    return () => clearTimeout(timer);
  }, [text, first]);
  return spec === null ? null : steady;
}

function Quoted({ org, spec, set }: { org: string; spec: BookingSpec; set: (change: BookingChange) => void }) {
  const query = useQuery(quoteQuery(org, spec));
  if (query.error !== null && query.data === undefined) {
    if (asApiError(query.error).code === "no_capacity") return <NoMatch spec={spec} error={query.error} onRetry={() => void query.refetch()} busy={query.isFetching} set={set} />;
    return <Failure error={query.error} onRetry={() => void query.refetch()} busy={query.isFetching} />;
  }
  if (query.data === undefined) return <QuoteSkeleton />;
  return <Requoted key={JSON.stringify(spec)} org={org} spec={spec} quote={query.data} requoting={query.isFetching} failed={query.error} />;
}

/** A quote that is asked for anew when it expires. */
function Requoted({ org, spec, quote, requoting, failed }: { org: string; spec: BookingSpec; quote: Quote; requoting: boolean; failed: Error | null }) {
  const queries = useQueryClient();
  const { queryKey } = quoteQuery(org, spec);
  const requote = useCallback(async () => {
    await queries.refetchQueries({ queryKey });
    return queries.getQueryData<Quote>(queryKey);
  }, [queries, queryKey]);
  return <QuoteCard org={org} quote={quote} requote={requote} requoting={requoting} failed={failed} />;
}
