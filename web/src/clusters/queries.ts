import { queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import { paged } from "../api/paged";
import type { Cluster, ClusterEvent } from "../api/types";
import type { Filter } from "./search";

export const clustersQuery = (org: string, state: Filter | undefined) =>
  paged(["clusters", org, state ?? "all"], (page, signal) =>
    unwrap(client.GET("/v1/clusters", { params: { query: { org, ...page, ...(state === undefined ? {} : { state }) } }, signal })),
  );

export const clusterQuery = (org: string, id: string) =>
  queryOptions({
    queryKey: ["cluster", org, id, "detail"],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/clusters/{id}", { params: { path: { id }, query: { org } }, signal })),
  });

const MOST_SCHEDULED = 50;

/** Bookings that wait for their start. */
export const scheduledQuery = (org: string) =>
  queryOptions({
    queryKey: ["bookings", org, "scheduled"],
    queryFn: async ({ signal }) => (await unwrap(client.GET("/v1/bookings", { params: { query: { org, state: "scheduled", limit: MOST_SCHEDULED } }, signal }))).items,
    refetchInterval: SCHEDULED_POLL_MS,
  });

const SCHEDULED_POLL_MS = 15_000;
const EVENTS_PAGE = 200;
const MOST_EVENT_PAGES = 10;

/** The timeline, oldest first. It is read whole: an event may commit after one with a greater number. */
export const eventsQuery = (org: string, id: string) =>
  queryOptions({
    queryKey: ["cluster", org, id, "events"],
    queryFn: async ({ signal }) => {
      const events: ClusterEvent[] = [];
      for (let page = 0; page < MOST_EVENT_PAGES; page++) {
        const after = events.at(-1)?.seq ?? 0;
        const { items } = await unwrap(client.GET("/v1/clusters/{id}/events", { params: { path: { id }, query: { org, after, limit: EVENTS_PAGE } }, signal }));
        events.push(...items);
        if (items.length < EVENTS_PAGE) break;
      }
      return events;
    },
  });

const JOBS_POLL_MS = 3_000;

/** Ray's jobs: Ray pushes nothing, so they are asked for while they can change. */
export const jobsQuery = (org: string, id: string, running: boolean) =>
  queryOptions({
    queryKey: ["cluster", org, id, "jobs"],
    queryFn: async ({ signal }) => (await unwrap(client.GET("/v1/clusters/{id}/jobs", { params: { path: { id }, query: { org } }, signal }))).items,
    refetchInterval: running ? JOBS_POLL_MS : false,
  });

const LOGS_POLL_MS = 2_000;

export const logsQuery = (org: string, id: string, job: string, follow: boolean) =>
  queryOptions({
    queryKey: ["cluster-logs", org, id, job],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/clusters/{id}/jobs/{job}/logs", { params: { path: { id, job }, query: { org } }, signal })),
    refetchInterval: follow ? LOGS_POLL_MS : false,
  });

const ENDED = new Set(["released", "failed"]);

export function hasEnded(cluster: Cluster): boolean {
  return ENDED.has(cluster.state);
}

/** Whether Ray's head answers for its jobs. */
export function takesJobs(cluster: Cluster): boolean {
  return cluster.state === "ready" || cluster.state === "degraded";
}
