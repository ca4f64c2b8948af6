import { queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import type { EarningsStatement, Statement } from "../api/types";
import { daysOf, type Side } from "./month";

// The current month goes on; past months do not change.
const POLL_MS = 30_000;

/** The JSON form of an answer that has others too. */
function document<T>(answer: T | string): T {
  if (typeof answer === "string") throw new TypeError("the statement came as text");
  return answer;
}

export const statementQuery = (org: string, month: string) =>
  queryOptions({
    queryKey: ["statement", org, month],
    queryFn: async ({ signal }): Promise<Statement> => document(await unwrap(client.GET("/v1/statements", { params: { query: { org, ...daysOf(month), format: "json" } }, signal }))),
    refetchInterval: ({ state }) => (state.data?.open === true ? POLL_MS : false),
  });

export const earningsStatementQuery = (org: string, month: string) =>
  queryOptions({
    queryKey: ["earnings-statement", org, month],
    queryFn: async ({ signal }): Promise<EarningsStatement> =>
      document(await unwrap(client.GET("/v1/earnings/statement", { params: { query: { org, ...daysOf(month), format: "json" } }, signal }))),
    refetchInterval: ({ state }) => (state.data?.open === true ? POLL_MS : false),
  });

/** Where the browser gets a file from. */
export function fileAddress(kind: Side | "focus", org: string, month: string): string {
  const { from, to } = daysOf(month);
  const path = { customer: "/v1/statements", owner: "/v1/earnings/statement", focus: "/v1/statements/focus" }[kind];
  const query = new URLSearchParams({ org, from, to, ...(kind === "focus" ? {} : { format: "csv" }) });
  return `${path}?${query.toString()}`;
}
