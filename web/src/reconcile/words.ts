/** What the classes of difference are called. */
export const CLASS_WORDS: Record<string, string> = {
  ledger_only: "Only in the ledger",
  chain_only: "Only on chain",
  amount_mismatch: "Amounts differ",
  duplicate: "Twice",
  unresolved_nonce: "Nonce not resolved",
};
