import { queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import { paged } from "../api/paged";
import type { PayoutRun, RunPayee } from "../api/types";

// Payouts are not on the live stream: while one moves, it is asked for often.
const IDLE_POLL_MS = 10_000;
const MOVING_POLL_MS = 1_500;
const LIST_POLL_MS = 3_000; // each poll asks for every page that was read
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

/** Whether a run's batches change by themselves. */
export function isMoving(run: PayoutRun): boolean {
  return run.state === "drafting" || (run.progress ?? []).some((step) => MOVING.has(step.state));
}

/** A run without its payees and batches: those have lists of their own. */
export const runQuery = (org: string, id: string) =>
  queryOptions({
    queryKey: ["finance", org, "run", id],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/runs/{id}", { params: { path: { id }, query: { org, brief: true } }, signal })),
    refetchInterval: ({ state: { data } }) => (data !== undefined && isMoving(data) ? MOVING_POLL_MS : IDLE_POLL_MS),
  });

export type BatchState = Exclude<RunPayee["state"], "left_out">;

interface PayeeFilter {
  state: BatchState | "left_out" | "drafted";
  q?: string;
}

export const runBatchesQuery = (org: string, run: string, state: BatchState | undefined, moving: boolean) => ({
  ...paged(["finance", org, "run", run, "batches", state], (page, signal) =>
    unwrap(client.GET("/v1/finance/batches", { params: { query: { org, ...page, run, ...(state === undefined ? {} : { state }) } }, signal })),
  ),
  refetchInterval: moving ? LIST_POLL_MS : IDLE_POLL_MS,
});

export const runPayeesQuery = (org: string, run: string, filter: PayeeFilter, moving: boolean) => ({
  ...paged(["finance", org, "run", run, "payees", filter], (page, signal) =>
    unwrap(client.GET("/v1/finance/runs/{id}/payees", { params: { path: { id: run }, query: { org, ...page, ...filter } }, signal })),
  ),
  refetchInterval: moving ? LIST_POLL_MS : IDLE_POLL_MS,
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
