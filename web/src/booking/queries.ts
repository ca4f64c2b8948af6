import { queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import type { BookingSpec, Explanation, Shortfall } from "../api/types";
import { ApiError } from "../api/problem";

const OFFERS_POLL_MS = 15_000;
const MOST_OFFERS = 200;

export const offersQuery = queryOptions({
  queryKey: ["offers"],
  queryFn: async ({ signal }) => (await unwrap(client.GET("/v1/offers", { params: { query: { limit: MOST_OFFERS } }, signal }))).items,
  refetchInterval: OFFERS_POLL_MS,
});

/** A quote for a spec. It is read anew when it expires; the answer carries how long that is. */
export function quoteQuery(org: string, spec: BookingSpec | null) {
  return queryOptions({
    queryKey: ["quote", org, spec],
    queryFn: ({ signal }) => {
      if (spec === null) throw new Error("a quote needs a GPU model");
      return unwrap(client.POST("/v1/quotes", { params: { query: { org } }, body: spec, signal }));
    },
    enabled: spec !== null,
    staleTime: Infinity,
    gcTime: 0,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
  });
}

export function explain(spec: BookingSpec): Promise<Explanation> {
  return unwrap(client.POST("/v1/explain", { body: spec }));
}

/** The explanation that a no_capacity problem carries. */
export function explanationOf(error: unknown): Explanation | null {
  if (!(error instanceof ApiError) || error.code !== "no_capacity") return null;
  const details = error.details as Explanation | undefined;
  return Array.isArray(details?.funnel) ? details : null;
}

/** What an insufficient_funds problem says is missing. */
export function shortfallOf(error: unknown): Shortfall | null {
  if (!(error instanceof ApiError) || error.code !== "insufficient_funds") return null;
  const details = error.details as Partial<Shortfall> | undefined;
  return details?.short === undefined ? null : (details as Shortfall);
}
