import { describe, expect, it } from "vitest";
import { monthBefore, periodFile } from "./queries";

describe("months to close", () => {
  it("offers the month before, over the turn of a year too", () => {
    expect(monthBefore(new Date("2026-03-31T23:59:59Z"))).toBe("2026-02");
    expect(monthBefore(new Date("2026-01-01T00:00:00Z"))).toBe("2025-12");
  });

  it("names each file's place", () => {
    expect(periodFile("org_1", "2026-11", "report")).toBe("/v1/finance/periods/2026-11/report?org=org_1");
    expect(periodFile("org_1", "2026-11", "xero")).toBe("/v1/finance/periods/2026-11/files/xero?org=org_1");
  });
});
