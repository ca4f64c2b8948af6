import { expect, it } from "vitest";
import { choices, daysOf, monthOf, monthWords, shifted, shortHours, statementsSearch } from "./month";

it("knows months in UTC", () => {
  expect(monthOf(Date.parse("2026-11-30T23:59:59Z"))).toBe("2026-11");
  expect(monthOf(Date.parse("2026-12-01T00:00:00+02:00"))).toBe("2026-11");
  expect(shifted("2026-01", -1)).toBe("2025-12");
  expect(shifted("2026-12", 1)).toBe("2027-01");
  expect(daysOf("2026-12")).toEqual({ from: "2026-12-01", to: "2027-01-01" });
  expect(daysOf("2028-02")).toEqual({ from: "2028-02-01", to: "2028-03-01" });
  expect(monthWords("2026-11", "en")).toBe("November 2026");
});

it("offers two years, and what was asked for", () => {
  const months = choices("2026-11", "2026-03");
  expect(months).toHaveLength(24);
  expect(months[0]).toBe("2026-11");
  expect(months.at(-1)).toBe("2024-12");
  expect(choices("2026-11", "2023-05").at(-1)).toBe("2023-05");
});

it("drops what an address cannot mean", () => {
  expect(statementsSearch({ month: "2026-11", as: "owner" })).toEqual({ month: "2026-11", as: "owner" });
  expect(statementsSearch({ month: "2026-13", as: "finance" })).toEqual({});
  expect(statementsSearch({ month: 202611 })).toEqual({});
});

it("shortens hours without rounding them up", () => {
  expect(shortHours("0.266299999")).toBe("0.2662");
  expect(shortHours("12")).toBe("12.0000");
});
