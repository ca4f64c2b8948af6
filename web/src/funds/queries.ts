import { queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import { paged } from "../api/paged";

const POLL_MS = 5_000;

export const walletQuery = (org: string) =>
  queryOptions({
    queryKey: ["wallet", org, "balance"],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/wallet", { params: { query: { org } }, signal })),
    refetchInterval: POLL_MS,
  });

export const runwayQuery = (org: string) =>
  queryOptions({
    queryKey: ["wallet", org, "runway"],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/wallet/runway", { params: { query: { org } }, signal })),
    refetchInterval: POLL_MS,
  });

export const linesQuery = (org: string) => ({
  ...paged(["wallet", org, "lines"], (page, signal) => unwrap(client.GET("/v1/wallet/lines", { params: { query: { org, ...page } }, signal }))),
  refetchInterval: POLL_MS,
});

export const withdrawalsQuery = (org: string) => ({
  ...paged(["wallet", org, "withdrawals"], (page, signal) => unwrap(client.GET("/v1/wallet/withdrawals", { params: { query: { org, ...page } }, signal }))),
  refetchInterval: POLL_MS,
});

export const depositsQuery = (org: string) => ({
  ...paged(["wallet", org, "deposits"], (page, signal) => unwrap(client.GET("/v1/wallet/deposits", { params: { query: { org, ...page } }, signal }))),
  refetchInterval: POLL_MS,
});
