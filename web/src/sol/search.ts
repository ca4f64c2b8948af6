// Which part of the SOL journal is shown, as it stands in the address.

export const SOL_KINDS = ["base_fee", "priority_fee", "rent_out", "rent_back", "top_up", "sent"] as const;

export interface SolSearch {
  month?: string;
  kind?: (typeof SOL_KINDS)[number];
  signature?: string;
}

const MONTH = /^20\d{2}-(0[1-9]|1[0-2])$/;
const SIGNATURE = /^[1-9A-HJ-NP-Za-km-z]{64,88}$/;

/** Drops what the journal cannot be filtered by. */
export function solSearch({ month, kind, signature }: Record<string, unknown>): SolSearch {
  const known = SOL_KINDS.find((one) => one === kind);
  const whole = typeof signature === "string" ? signature.trim() : "";
  return {
    ...(typeof month === "string" && MONTH.test(month) ? { month } : {}),
    ...(known === undefined ? {} : { kind: known }),
    ...(SIGNATURE.test(whole) ? { signature: whole } : {}),
  };
}
