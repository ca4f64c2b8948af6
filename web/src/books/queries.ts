import { queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import { paged } from "../api/paged";
import type { ClosedPeriod } from "../api/types";
import { auditFilter, type BooksSearch } from "./search";

export const periodsQuery = (org: string) =>
  queryOptions({
    queryKey: ["periods", org],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/periods", { params: { query: { org } }, signal })),
  });

export const periodQuery = (org: string, month: string) =>
  queryOptions({
    queryKey: ["periods", org, month],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/periods/{month}", { params: { path: { month }, query: { org } }, signal })),
  });

export const auditQuery = (org: string, search: BooksSearch) =>
  paged(["audit-log", org, search], ({ cursor }, signal) => unwrap(client.GET("/v1/finance/audit-log", { params: { query: { org, ...auditFilter(search), ...(cursor === undefined ? {} : { before: Number(cursor) }) } }, signal })));

export type FileForm = "cryptio" | "quickbooks" | "xero" | "quickbooks-sol" | "xero-sol";

/** Where the browser gets a month's file from. */
export function periodFile(org: string, month: string, form: FileForm | "report"): string {
  const path = `/v1/finance/periods/${month}/${form === "report" ? form : `files/${form}`}`;
  return `${path}?${new URLSearchParams({ org }).toString()}`;
}

/** Where the browser gets the audit log's lines that are shown, as a file. */
export function auditFile(org: string, search: BooksSearch): string {
  return `/v1/finance/audit-log/file?${new URLSearchParams({ org, ...auditFilter(search) }).toString()}`;
}

/** The month before a moment's, in UTC: the one that is to be closed. */
export function monthBefore(now: Date): string {
  return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - 1, 1)).toISOString().slice(0, 7);
}

const MOST_OPEN = 12;

/** The months up to now whose figures are not frozen, newest first: since the newest closed one, and those that were opened again. */
export function openMonths(periods: Pick<ClosedPeriod, "month" | "state">[], now: Date): string[] {
  const closed = periods.filter(({ state }) => state === "closed").map(({ month }) => month);
  const reopened = periods.map(({ month }) => month).filter((month) => !closed.includes(month));
  const newest = closed.reduce((a, b) => (a > b ? a : b), "");
  const since: string[] = [];
  for (let back = 0; back < (newest === "" ? 2 : MOST_OPEN); back++) {
    const month = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - back, 1)).toISOString().slice(0, 7);
    if (month <= newest) break;
    since.push(month);
  }
  return [...new Set([...since, ...reopened])].sort().reverse();
}
