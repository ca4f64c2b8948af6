import { describe, expect, it } from "vitest";
import type { Money, PayoutSchedule } from "../api/types";
import { payeesPaid, runSteps, scheduleWords, solText } from "./words";

const usdc = (base_units: string): Money => ({ base_units, text: "", currency: "USDC", decimals: 6 });
const schedule = (change: Partial<PayoutSchedule>): PayoutSchedule => ({ enabled: true, at: "06:00", starts_on: "2026-11-01", ...change });

describe("solText", () => {
  it("is exact and without trailing zeros", () => {
    expect([0, 5_800, 2_039_280, 1_000_000_000, 12_300_000_000].map(solText)).toEqual(["0 SOL", "0.0000058 SOL", "0.00203928 SOL", "1 SOL", "12.3 SOL"]);
  });
});

describe("scheduleWords", () => {
  it.each([
    [{ enabled: false, weekdays: [1] }, "Off: runs begin by hand only."],
    [{ weekdays: [1, 4] }, "Mon, Thu at 06:00 UTC."],
    [{ every_days: 1 }, "Every day at 06:00 UTC."],
    [{ every_days: 14, threshold: usdc("5000000000") }, "Every 14 days from 2026-11-01 at 06:00 UTC, and as soon as 5,000.00 USDC are payable."],
    [{ threshold: usdc("1500000") }, "As soon as 1.50 USDC are payable."],
    [{}, "On, but with neither days nor a threshold: no run begins."],
  ] satisfies [Partial<PayoutSchedule>, string][])("%j", (change, words) => {
    expect(scheduleWords(schedule(change))).toBe(words);
  });
});

describe("a run's progress", () => {
  const step = (state: string, payee_count: number) => ({ state, payee_count, batch_count: 1, total: usdc("1"), fee_lamports: 0, rent_lamports: 0 });
  it("shows every step of the way, and the others only where they are", () => {
    expect(runSteps([step("sent", 1), step("frozen", 2)]).map((one) => [one.state, one.step?.payee_count])).toEqual([
      ["draft", undefined],
      ["approved", undefined],
      ["signed", undefined],
      ["sent", 1],
      ["finalized", undefined],
      ["frozen", 2],
    ]);
  });
  it("does not wait for payees whose batch paid nothing", () => {
    expect(payeesPaid([step("finalized", 56), step("sent", 4), step("frozen", 2), step("cancelled", 7), step("failed", 5)])).toEqual({ paid: 56, all: 62 });
  });
});
