import { keepPreviousData, queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import type { Span } from "./search";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const HISTORY_POLL_MS = 60_000;

/** How far back a span reaches, and how long a point of it is. */
const SPANS: Record<Span, { ms: number; step: string }> = {
  day: { ms: DAY_MS, step: "10m" },
  week: { ms: 7 * DAY_MS, step: "1h" },
  month: { ms: 30 * DAY_MS, step: "6h" },
};

export const historyQuery = (model: string, region: string | undefined, span: Span) =>
  queryOptions({
    queryKey: ["market-history", model, region ?? "", span],
    queryFn: ({ signal }) => {
      const to = new Date();
      const from = new Date(to.getTime() - SPANS[span].ms);
      return unwrap(client.GET("/v1/market/history", { params: { query: { gpu_model: model, ...(region === undefined ? {} : { region }), from: from.toISOString(), to: to.toISOString(), step: SPANS[span].step } }, signal }));
    },
    refetchInterval: HISTORY_POLL_MS,
    placeholderData: keepPreviousData,
  });
