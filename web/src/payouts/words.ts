// What the payout pages say of the API's words and numbers.
import type { PayoutRun, PayoutSchedule } from "../api/types";
import { decimalText, formatMoney } from "../money/money";

const SOL_DECIMALS = 9;

/** Lamports as SOL, exactly: 5800 is "0.0000058 SOL". */
export function solText(lamports: number): string {
  return `${decimalText(BigInt(lamports), SOL_DECIMALS).replace(/\.?0+$/, "")} SOL`;
}

export const KIND_WORDS = { manual: "By hand", scheduled: "By the clock", threshold: "By the threshold" } as const;

export const PURPOSE_WORDS = { earnings: "Earnings", withdrawal: "Withdrawal", refund: "Refund" } as const;

export const count = (n: number, word: string, plural = `${word}s`) => `${n.toLocaleString()} ${n === 1 ? word : plural}`;

/** The server's reasons begin small, as parts of a sentence, and end without a full stop. */
export const sentence = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;

export const WEEKDAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"] as const;

/** When runs begin by themselves, in a sentence. */
export function scheduleWords(schedule: PayoutSchedule): string {
  if (!schedule.enabled) return "Off: runs begin by hand only.";
  const days = (schedule.weekdays ?? []).map((day) => WEEKDAYS[day] ?? "").join(", ");
  const every = schedule.every_days === undefined || schedule.every_days === 0 ? "" : schedule.every_days === 1 ? "every day" : `every ${schedule.every_days} days from ${schedule.starts_on}`;
  const clock = days === "" && every === "" ? "" : `${days === "" ? every : days} at ${schedule.at} UTC`;
  const threshold = schedule.threshold === undefined ? "" : `as soon as ${formatMoney(schedule.threshold)} are payable`;
  const words = [clock, threshold].filter((part) => part !== "").join(", and ");
  return words === "" ? "On, but with neither days nor a threshold: no run begins." : `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
}

type Step = NonNullable<PayoutRun["progress"]>[number];

const MAIN = ["draft", "approved", "signed", "sent", "finalized"];

/** A run's batches along their way; the ways that end elsewhere follow, where there are any. */
export function runSteps(progress: Step[]): { state: string; step: Step | undefined }[] {
  const of = (state: string) => progress.find((step) => step.state === state);
  const aside = progress.filter((step) => !MAIN.includes(step.state)).map((step) => ({ state: step.state, step }));
  return [...MAIN.map((state) => ({ state, step: of(state) })), ...aside];
}

/** How many payees are in batches that are not given up, and how many of them are paid. */
export function payeesPaid(progress: Step[]): { paid: number; all: number } {
  const sum = (steps: Step[]) => steps.reduce((total, step) => total + step.payee_count, 0);
  return { paid: sum(progress.filter((step) => step.state === "finalized")), all: sum(progress.filter((step) => step.state !== "cancelled" && step.state !== "failed")) };
}
