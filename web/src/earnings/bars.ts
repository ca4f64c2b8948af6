// Bar heights from exact amounts: the share of the greatest, in thousandths, by integer arithmetic.
import type { Money } from "../api/types";

const FULL = 1_000n;

export function shares(amounts: readonly Money[]): number[] {
  const units = amounts.map((amount) => BigInt(amount.base_units));
  const greatest = units.reduce((most, one) => (one > most ? one : most), 0n);
  if (greatest === 0n) return units.map(() => 0);
  return units.map((one) => Number(((one > 0n ? one : 0n) * FULL) / greatest) / Number(FULL));
}
