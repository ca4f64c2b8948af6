import type { SolSearch } from "./search";

/** What the kinds of line are called. */
export const KIND_WORDS: Record<NonNullable<SolSearch["kind"]>, string> = {
  base_fee: "Base fees",
  priority_fee: "Priority fees",
  rent_out: "Rent set aside",
  rent_back: "Rent that came back",
  top_up: "Top-ups",
  sent: "Sent away",
};
