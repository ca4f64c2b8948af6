// Token amounts. The server sends exact decimal text and base units as text; nothing here ever becomes a Number, whose 53
// bits do not hold every amount. Intl.NumberFormat formats decimal text exactly.
import type { Money } from "../api/types";

export interface Amount {
  baseUnits: bigint;
  currency: string;
  decimals: number;
}

const SHOWN_FRACTION_DIGITS = 2;
const RATE_FRACTION_DIGITS = 4;
const MAX_DECIMALS = 18;

export function amountOf(money: Money): Amount {
  return { baseUnits: BigInt(money.base_units), currency: money.currency, decimals: money.decimals };
}

/** Whole tokens as exact decimal text: 41280000 of 6 decimals is "41.280000". */
export function decimalText(baseUnits: bigint, decimals: number): string {
  if (!Number.isInteger(decimals) || decimals < 0 || decimals > MAX_DECIMALS) {
    throw new RangeError(`a token has 0 to ${MAX_DECIMALS} decimals, not ${decimals}`);
  }
  const negative = baseUnits < 0n;
  const digits = (negative ? -baseUnits : baseUnits).toString().padStart(decimals + 1, "0");
  const whole = digits.slice(0, digits.length - decimals);
  const fraction = decimals === 0 ? "" : `.${digits.slice(-decimals)}`;
  return `${negative ? "-" : ""}${whole}${fraction}`;
}

/** As a person would type it: "1.90" of "1.900000". */
export function plainText(money: Money): string {
  return decimalText(BigInt(money.base_units), money.decimals).replace(/(\.\d\d\d*?)0+$/, "$1");
}

/** The number alone, in the viewer's notation, with as many digits as it takes to be exact and at least two. */
export function formatAmount(amount: Amount, locale?: string): string {
  return format(decimalText(amount.baseUnits, amount.decimals), SHOWN_FRACTION_DIGITS, amount.decimals, locale);
}

/** The number with its unit: "41.28 USDC". */
export function formatMoney(money: Money | Amount, locale?: string): string {
  const amount = "base_units" in money ? amountOf(money) : money;
  return `${formatAmount(amount, locale)} ${amount.currency}`;
}

/** As formatMoney, with a fixed number of digits, so that a ticking figure does not change its width. It rounds down. */
export function formatTicking(amount: Amount, locale?: string): string {
  const digits = Math.min(RATE_FRACTION_DIGITS, amount.decimals);
  const step = 10n ** BigInt(amount.decimals - digits);
  const floored = (amount.baseUnits / step) * step;
  return `${format(decimalText(floored, amount.decimals), digits, digits, locale)} ${amount.currency}`;
}

/** a - b, of one token. */
export function minus(a: Money, b: Money): Amount {
  sameToken(a, b);
  return { ...amountOf(a), baseUnits: BigInt(a.base_units) - BigInt(b.base_units) };
}

/** Negative, zero or positive as a is less than, equal to or more than b. */
export function compareMoney(a: Money, b: Money): number {
  sameToken(a, b);
  const difference = BigInt(a.base_units) - BigInt(b.base_units);
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

export function isZero(money: Money): boolean {
  return BigInt(money.base_units) === 0n;
}

export function isNegative(money: Money): boolean {
  return BigInt(money.base_units) < 0n;
}

const MS_PER_HOUR = 3_600_000n;

/**
 * What a running cluster has cost by now: the server's figure at the anchor and its rate since then, never more than the
 * hold. The next answer of the server replaces it.
 */
export function ticking(anchor: { charged: Money; perHour: Money; hold: Money }, elapsedMs: number): Amount {
  sameToken(anchor.charged, anchor.perHour);
  const elapsed = BigInt(Math.max(0, Math.floor(elapsedMs)));
  const now = BigInt(anchor.charged.base_units) + (BigInt(anchor.perHour.base_units) * elapsed) / MS_PER_HOUR;
  const most = BigInt(anchor.hold.base_units);
  return { ...amountOf(anchor.charged), baseUnits: now < most ? now : most };
}

/** Whether text is a positive decimal that the token can express; the server has the last word. */
export function isDecimalAmount(text: string, decimals: number): boolean {
  const match = /^(\d{1,18})(?:\.(\d+))?$/.exec(text);
  return match !== null && (match[2]?.length ?? 0) <= decimals && /[1-9]/.test(text);
}

function format(text: string, minDigits: number, maxDigits: number, locale?: string): string {
  return new Intl.NumberFormat(locale, {
    minimumFractionDigits: Math.min(minDigits, maxDigits),
    maximumFractionDigits: maxDigits,
  }).format(text as Intl.StringNumericLiteral);
}

function sameToken(a: Money, b: Money): void {
  if (a.currency !== b.currency || a.decimals !== b.decimals) {
    throw new RangeError(`amounts of two tokens, ${a.currency} and ${b.currency}, cannot be compared`);
  }
}
