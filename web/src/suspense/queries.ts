import { client, unwrap } from "../api/client";
import { paged } from "../api/paged";

const POLL_MS = 15_000;

export const suspenseQuery = (org: string) => ({
  ...paged(["suspense", org], (page, signal) => unwrap(client.GET("/v1/finance/suspense", { params: { query: { org, ...page } }, signal }))),
  refetchInterval: POLL_MS,
});

export const sweepsQuery = (org: string) => ({
  ...paged(["sweeps", org], (page, signal) => unwrap(client.GET("/v1/finance/sweeps", { params: { query: { org, ...page } }, signal }))),
  refetchInterval: POLL_MS,
});
