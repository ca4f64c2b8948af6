import { describe, expect, it } from "vitest";
import { auditFile, monthBefore, openMonths, periodFile } from "./queries";

describe("months to close", () => {
  it("offers the month before, over the turn of a year too", () => {
    expect(monthBefore(new Date("2026-03-31T23:59:59Z"))).toBe("2026-02");
    expect(monthBefore(new Date("2026-01-01T00:00:00Z"))).toBe("2025-12");
  });

  it("knows which months are not final", () => {
    const now = new Date("2026-02-10T00:00:00Z");
    expect(openMonths([], now)).toEqual(["2026-02", "2026-01"]);
    const periods = [
      { month: "2025-12", state: "closed" },
      { month: "2025-11", state: "reopened" },
      { month: "2025-10", state: "closed" },
      { month: "2025-10", state: "reopened" },
    ] as const;
    expect(openMonths([...periods], now)).toEqual(["2026-02", "2026-01", "2025-11"]);
    expect(openMonths([{ month: "2026-02", state: "closed" }], now)).toEqual([]);
  });

  it("names each file's place", () => {
    expect(periodFile("org_1", "2026-11", "report")).toBe("/v1/finance/periods/2026-11/report?org=org_1");
    expect(periodFile("org_1", "2026-11", "xero")).toBe("/v1/finance/periods/2026-11/files/xero?org=org_1");
  });

  it("asks for the log's file with the page's filter", () => {
    expect(auditFile("org_1", {})).toBe("/v1/finance/audit-log/file?org=org_1");
    expect(auditFile("org_1", { person: "Ada L", to: "2026-10-31" })).toBe("/v1/finance/audit-log/file?org=org_1&person=Ada+L&to=2026-11-01T00%3A00%3A00.000Z");
  });
});
