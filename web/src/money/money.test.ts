import { describe, expect, it } from "vitest";
import type { Money } from "../api/types";
import { compareMoney, decimalText, formatMoney, formatTicking, isDecimalAmount, minus, ticking } from "./money";

const usdc = (baseUnits: string): Money => ({ base_units: baseUnits, text: decimalText(BigInt(baseUnits), 6), currency: "USDC", decimals: 6 });

describe("decimalText", () => {
  it.each([
    [0n, 6, "0.000000"],
    [1n, 6, "0.000001"],
    [41_280_000n, 6, "41.280000"],
    [-1_500_000n, 6, "-1.500000"],
    [7n, 0, "7"],
    [18_446_744_073_709_551_615n, 6, "18446744073709.551615"],
  ])("writes %s with %s decimals as %s", (units, decimals, text) => {
    expect(decimalText(units, decimals)).toBe(text);
  });

  it("refuses impossible decimals", () => {
    expect(() => decimalText(1n, -1)).toThrow(RangeError);
  });
});

describe("formatMoney", () => {
  it("keeps two digits, and more only where they are needed", () => {
    expect(formatMoney(usdc("41280000"), "en")).toBe("41.28 USDC");
    expect(formatMoney(usdc("41000000"), "en")).toBe("41.00 USDC");
    expect(formatMoney(usdc("41000001"), "en")).toBe("41.000001 USDC");
  });

  it("is exact beyond the 53 bits of a Number", () => {
    expect(formatMoney(usdc("9007199254740993000001"), "en")).toBe("9,007,199,254,740,993.000001 USDC");
  });

  it("follows the viewer's notation", () => {
    expect(formatMoney(usdc("1234500000"), "de")).toBe("1.234,50 USDC");
  });
});

describe("ticking", () => {
  const anchor = { charged: usdc("1000000"), perHour: usdc("3600000"), hold: usdc("2000000") };

  it("adds the rate since the anchor", () => {
    expect(ticking(anchor, 1_500).baseUnits).toBe(1_001_500n);
  });

  it("never passes the hold, nor runs backwards when the clock does", () => {
    expect(ticking(anchor, 86_400_000).baseUnits).toBe(2_000_000n);
    expect(ticking(anchor, -5_000).baseUnits).toBe(1_000_000n);
  });

  it("keeps the width of the figure", () => {
    expect(formatTicking(ticking(anchor, 1_550), "en")).toBe("1.0015 USDC");
    expect(formatTicking(ticking(anchor, 0), "en")).toBe("1.0000 USDC");
  });
});

describe("comparing", () => {
  it("orders and subtracts amounts of one token", () => {
    expect(compareMoney(usdc("9007199254740993"), usdc("9007199254740992"))).toBe(1);
    expect(minus(usdc("5"), usdc("7")).baseUnits).toBe(-2n);
  });

  it("refuses two tokens", () => {
    expect(() => compareMoney(usdc("1"), { ...usdc("1"), currency: "EURC" })).toThrow(/two tokens/);
  });
});

describe("isDecimalAmount", () => {
  it.each(["1", "0.5", "1.900000", "10000"])("accepts %s", (text) => {
    expect(isDecimalAmount(text, 6)).toBe(true);
  });
  it.each(["", "0", "0.000", "-1", "1e3", "1.0000001", "1,5", " 1"])("refuses %j", (text) => {
    expect(isDecimalAmount(text, 6)).toBe(false);
  });
});
