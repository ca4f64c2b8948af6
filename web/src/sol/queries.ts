import { queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import { paged } from "../api/paged";
import type { SolSearch } from "./search";

export const solJournalQuery = (org: string, month: string | undefined) =>
  queryOptions({
    queryKey: ["sol-journal", org, month],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/sol-journal", { params: { query: { org, ...(month === undefined ? {} : { month }) } }, signal })),
  });

export const solLinesQuery = (org: string, search: SolSearch) =>
  paged(["sol-journal", org, "lines", search], (page, signal) => unwrap(client.GET("/v1/finance/sol-journal/lines", { params: { query: { org, ...page, ...search } }, signal })));

/** Where the browser gets the journal as a file from. */
export function solFile(org: string, month: string | undefined): string {
  return `/v1/finance/sol-journal/file?${new URLSearchParams({ org, ...(month === undefined ? {} : { month }) }).toString()}`;
}

const MONTHS_OFFERED = 12;

/** The months to choose from, newest first: the last year's, and an older one that is shown. */
export function monthChoices(now: Date, shown: string | undefined): string[] {
  const months = Array.from({ length: MONTHS_OFFERED }, (_, back) => new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - back, 1)).toISOString().slice(0, 7));
  return shown === undefined || months.includes(shown) ? months : [...months, shown];
}
