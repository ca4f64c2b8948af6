import { keepPreviousData, queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import type { BookingSpec, Explanation, Quote, Shortfall } from "../api/types";
import { ApiError } from "../api/problem";
import type { Sort } from "./search";

const OFFERS_POLL_MS = 15_000;
const MOST_OFFERS = 200;

/** What the query language matches, all of it without a query. While another query loads, the last answer stays. */
export const offersQuery = (q?: string, sort: Sort = "price") =>
  queryOptions({
    queryKey: ["offers", q ?? "", sort],
    queryFn: async ({ signal }) => (await unwrap(client.GET("/v1/offers", { params: { query: { limit: MOST_OFFERS, sort, ...(q === undefined ? {} : { q }) } }, signal }))).items,
    refetchInterval: OFFERS_POLL_MS,
    placeholderData: keepPreviousData,
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

const BIDDING_POLL_MS = 500;

/** An auction, until its window has closed: then it is a quote like any other, or has found too few bids. */
export const auctionQuery = (org: string, opened: Quote) =>
  queryOptions({
    queryKey: ["auction", org, opened.id],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/quotes/{id}", { params: { path: { id: opened.id }, query: { org } }, signal })),
    refetchInterval: ({ state }) => ((state.data ?? opened).state === "bidding" ? BIDDING_POLL_MS : false),
    refetchOnWindowFocus: false,
    gcTime: 0,
  });

export const bidsQuery = (org: string, quote: string) =>
  queryOptions({
    queryKey: ["bids", org, quote],
    queryFn: async ({ signal }) => (await unwrap(client.GET("/v1/quotes/{id}/bids", { params: { path: { id: quote }, query: { org } }, signal }))).items,
    staleTime: Infinity,
    gcTime: 0,
  });

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
