export const SPANS = ["day", "week", "month"] as const;
export type Span = (typeof SPANS)[number];

export interface MarketSearch {
  model?: string;
  region?: string;
  span?: Span;
}

export function marketSearch(raw: Record<string, unknown>): MarketSearch {
  const search: MarketSearch = {};
  if (isName(raw.model)) search.model = raw.model;
  if (isName(raw.region)) search.region = raw.region;
  const span = SPANS.find((one) => one === raw.span);
  if (span !== undefined) search.span = span;
  return search;
}

const LONGEST_NAME = 40;

function isName(value: unknown): value is string {
  return typeof value === "string" && value !== "" && value.length <= LONGEST_NAME;
}
