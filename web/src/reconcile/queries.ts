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

export type ItemState = "open" | "resolved" | "gone";

export const differencesQuery = (org: string, state: ItemState) => ({
  ...paged(["differences", org, state], (page, signal) => unwrap(client.GET("/v1/finance/differences", { params: { query: { org, ...page, state } }, signal }))),
  refetchInterval: IDLE_POLL_MS,
});

/** One difference with what people and runs did about it. */
export const differenceQuery = (org: string, id: string) =>
  queryOptions({
    queryKey: ["differences", org, "one", id],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/differences/{id}", { params: { path: { id }, query: { org } }, signal })),
  });

export type HoldingKind = "settlement" | "foreign";

export const holdingsQuery = (org: string, kind: HoldingKind | undefined) => ({
  ...paged(["holdings", org, kind], (page, signal) => unwrap(client.GET("/v1/finance/holdings", { params: { query: { org, ...page, ...(kind === undefined ? {} : { kind }) } }, signal }))),
  refetchInterval: IDLE_POLL_MS,
});
