import { queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import { paged } from "../api/paged";

// Payouts are not on the live stream: while one moves, it is asked for often.
const IDLE_POLL_MS = 10_000;
const MOVING_POLL_MS = 1_500;
const MOVING = new Set(["approved", "signed", "sent"]);

export const payableQuery = (org: string) =>
  queryOptions({
    queryKey: ["finance", org, "payable"],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/payable", { params: { query: { org } }, signal })),
    refetchInterval: IDLE_POLL_MS,
  });

export const batchesQuery = (org: string) => ({
  ...paged(["finance", org, "batches"], (page, signal) => unwrap(client.GET("/v1/finance/batches", { params: { query: { org, ...page } }, signal }))),
  refetchInterval: IDLE_POLL_MS,
});

export const batchQuery = (org: string, id: string) =>
  queryOptions({
    queryKey: ["finance", org, "batch", id],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/finance/batches/{id}", { params: { path: { id }, query: { org } }, signal })),
    refetchInterval: ({ state }) => (state.data !== undefined && MOVING.has(state.data.state) ? MOVING_POLL_MS : IDLE_POLL_MS),
  });
