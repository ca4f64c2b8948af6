// Calendar months in UTC, as statements have them: "2026-11".

const SHOWN = 24;
const MONTH = /^20\d{2}-(0[1-9]|1[0-2])$/;

export const SIDES = ["customer", "owner"] as const;
export type Side = (typeof SIDES)[number];

export interface StatementsSearch {
  month?: string;
  as?: Side;
}

export function statementsSearch(raw: Record<string, unknown>): StatementsSearch {
  const search: StatementsSearch = {};
  if (typeof raw.month === "string" && MONTH.test(raw.month)) search.month = raw.month;
  const side = SIDES.find((one) => one === raw.as);
  if (side !== undefined) search.as = side;
  return search;
}

/** The month of an instant. */
export function monthOf(at: number): string {
  return new Date(at).toISOString().slice(0, 7);
}

/** The month that comes some months later, or earlier. */
export function shifted(month: string, by: number): string {
  const [year = 0, number = 1] = month.split("-").map(Number);
  return monthOf(Date.UTC(year, number - 1 + by, 1));
}

/** Its first day, and the day after its last one. */
export function daysOf(month: string): { from: string; to: string } {
  return { from: `${month}-01`, to: `${shifted(month, 1)}-01` };
}

/** The months to choose from, the newest first; one that was asked for and is older comes last. */
export function choices(newest: string, chosen: string): string[] {
  const months = Array.from({ length: SHOWN }, (_, index) => shifted(newest, -index));
  return months.includes(chosen) ? months : [...months, chosen];
}

/** "November 2026" */
export function monthWords(month: string, locale?: string): string {
  return new Intl.DateTimeFormat(locale, { month: "long", year: "numeric", timeZone: "UTC" }).format(new Date(`${month}-01T00:00:00Z`));
}

const SHOWN_DECIMALS = 4;

/** GPU-hours with four decimals; files have nine. */
export function shortHours(hours: string): string {
  const [whole = "0", fraction = ""] = hours.split(".");
  return `${whole}.${fraction.slice(0, SHOWN_DECIMALS).padEnd(SHOWN_DECIMALS, "0")}`;
}
