import { keepPreviousData, queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import { paged } from "../api/paged";
import type { components } from "../api/schema";
import type { Host } from "../api/types";
import type { Fill } from "../design/GpuTiles";

// Hosts are not on the live stream: they are asked for, at the pace of their heartbeats.
const HOSTS_POLL_MS = 5_000;
const JOIN_POLL_MS = 2_000;

export const hostsQuery = (org: string) => ({
  ...paged(["hosts", org], (page, signal) => unwrap(client.GET("/v1/hosts", { params: { query: { org, ...page } }, signal }))),
  refetchInterval: HOSTS_POLL_MS,
});

export const hostQuery = (org: string, id: string) =>
  queryOptions({
    queryKey: ["host", org, id],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/hosts/{id}", { params: { path: { id }, query: { org } }, signal })),
    refetchInterval: HOSTS_POLL_MS,
  });

const EARNING_POLL_MS = 30_000;

export const earningQuery = (org: string, id: string) =>
  queryOptions({
    queryKey: ["host", org, id, "earning"],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/hosts/{id}/earning-check", { params: { path: { id }, query: { org } }, signal })),
    refetchInterval: EARNING_POLL_MS,
  });

export type AskBody = components["schemas"]["AskPut"];

/** What an ask would do; it saves nothing. */
export const previewQuery = (org: string, id: string, body: AskBody) =>
  queryOptions({
    queryKey: ["ask-preview", org, id, body],
    queryFn: ({ signal }) => unwrap(client.POST("/v1/hosts/{id}/ask/preview", { params: { path: { id }, query: { org } }, body, signal })),
    placeholderData: keepPreviousData,
    gcTime: 0,
  });

export const joinTokensQuery = (org: string) => ({
  ...paged(["join-tokens", org], (page, signal) => unwrap(client.GET("/v1/join-tokens", { params: { query: { org, ...page } }, signal }))),
  refetchInterval: JOIN_POLL_MS,
});

export function gpuFills(host: Host): Fill[] {
  return host.gpus.map((gpu) => {
    if (!host.connected) return "none";
    if (!gpu.healthy) return "bad";
    return gpu.leased ? "leased" : "free";
  });
}

export function gpuWords(host: Host): string {
  const models = [...new Set(host.gpus.map((gpu) => gpu.model))];
  return host.gpus.length === 0 ? "no GPUs" : `${host.gpus.length} × ${models.join(", ")}`;
}
