import { queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import { paged } from "../api/paged";

const RUNNING_POLL_MS = 1_000;
const IDLE_POLL_MS = 15_000;

export const reconciliationsQuery = (org: string) => ({
  ...paged(["reconciliations", org], (page, signal) => unwrap(client.GET("/v1/finance/reconciliations", { params: { query: { org, ...page } }, signal }))),
  refetchInterval: IDLE_POLL_MS,
});

export const reconciliationQuery = (org: string, id: string) =>
  queryOptions({
    queryKey: ["reconciliation", org, id],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/reconciliations/{id}", { params: { path: { id }, query: { org } }, signal })),
    refetchInterval: ({ state }) => (state.data?.state === "running" ? RUNNING_POLL_MS : false),
  });

export const suspenseQuery = (org: string) => paged(["suspense", org], (page, signal) => unwrap(client.GET("/v1/finance/suspense", { params: { query: { org, ...page } }, signal })));

export const differencesQuery = (org: string) => ({
  ...paged(["differences", org], (page, signal) => unwrap(client.GET("/v1/finance/differences", { params: { query: { org, ...page, state: "open" } }, signal }))),
  refetchInterval: IDLE_POLL_MS,
});

export const periodsQuery = (org: string) =>
  queryOptions({
    queryKey: ["periods", org],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/periods", { params: { query: { org } }, signal })),
  });

/** Where the browser gets a month's file from. */
export function periodFile(org: string, month: string, form: "cryptio" | "quickbooks" | "xero" | "report"): string {
  const path = `/v1/finance/periods/${month}/${form === "report" ? form : `files/${form}`}`;
  return `${path}?${new URLSearchParams({ org }).toString()}`;
}

export function auditFile(org: string): string {
  return `/v1/finance/audit-log/file?${new URLSearchParams({ org }).toString()}`;
}

/** The month before a moment's, in UTC: the one that is to be closed. */
export function monthBefore(now: Date): string {
  return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - 1, 1)).toISOString().slice(0, 7);
}
