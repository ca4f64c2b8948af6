import { queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import { paged } from "../api/paged";

// Payouts are not on the live stream: while one moves, it is asked for often.
const IDLE_POLL_MS = 10_000;
const MOVING_POLL_MS = 1_500;
const POOL_POLL_MS = 30_000;
const MOVING = new Set(["approved", "signed", "sent", "cancelling"]);

export const payableQuery = (org: string) =>
  queryOptions({
    queryKey: ["finance", org, "payable"],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/payable", { params: { query: { org } }, signal })),
    refetchInterval: IDLE_POLL_MS,
  });

export const runsQuery = (org: string) => ({
  ...paged(["finance", org, "runs"], (page, signal) => unwrap(client.GET("/v1/finance/runs", { params: { query: { org, ...page } }, signal }))),
  refetchInterval: IDLE_POLL_MS,
});

export const runQuery = (org: string, id: string) =>
  queryOptions({
    queryKey: ["finance", org, "run", id],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/runs/{id}", { params: { path: { id }, query: { org } }, signal })),
    refetchInterval: ({ state: { data } }) => (data !== undefined && (data.state === "drafting" || (data.progress ?? []).some((step) => MOVING.has(step.state))) ? MOVING_POLL_MS : IDLE_POLL_MS),
  });

export const batchesQuery = (org: string) => ({
  ...paged(["finance", org, "batches"], (page, signal) => unwrap(client.GET("/v1/finance/batches", { params: { query: { org, ...page } }, signal }))),
  refetchInterval: IDLE_POLL_MS,
});

export const batchQuery = (org: string, id: string) =>
  queryOptions({
    queryKey: ["finance", org, "batch", id],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/batches/{id}", { params: { path: { id }, query: { org } }, signal })),
    refetchInterval: ({ state: { data } }) => (data !== undefined && (MOVING.has(data.state) || isRetiring(data)) ? MOVING_POLL_MS : IDLE_POLL_MS),
  });

/** Whether a frozen batch's nonce is being consumed. */
function isRetiring(batch: { state: string; cancellation?: unknown; nonce_consumed_at?: string }): boolean {
  return batch.state === "frozen" && batch.cancellation !== undefined && batch.nonce_consumed_at === undefined;
}

export const scheduleQuery = (org: string) =>
  queryOptions({
    queryKey: ["finance", org, "schedule"],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/payout-schedule", { params: { query: { org } }, signal })),
  });

export const noncesQuery = (org: string) =>
  queryOptions({
    queryKey: ["finance", org, "nonces"],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/nonces", { params: { query: { org } }, signal })),
    refetchInterval: POOL_POLL_MS,
  });
