import type { HoldingsSurvey } from "../api/types";

/** What the classes of difference are called. */
export const CLASS_WORDS: Record<string, string> = {
  ledger_only: "Only in the ledger",
  chain_only: "Only on chain",
  amount_mismatch: "Amounts differ",
  duplicate: "Twice",
  unresolved_nonce: "Nonce not resolved",
};

/** How many accounts of which kind a survey found, in words. */
export function surveyFindings({ settlement, foreign }: Pick<HoldingsSurvey, "settlement" | "foreign">): string {
  const parts: string[] = [];
  if (settlement > 0) parts.push(`${settlement.toLocaleString("en")} of the platform's token`);
  if (foreign > 0) parts.push(`${foreign.toLocaleString("en")} of other tokens`);
  return `Accounts that hold something: ${parts.join(", ")}`;
}
