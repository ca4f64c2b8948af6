import { describe, expect, it } from "vitest";
import { monthChoices, solFile } from "./queries";
import { solSearch } from "./search";

describe("the SOL journal's search", () => {
  it("keeps what the journal can be filtered by, and drops the rest", () => {
    const signature = "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW";
    expect(solSearch({ month: "2026-11", kind: "rent_out", signature: ` ${signature} ` })).toEqual({ month: "2026-11", kind: "rent_out", signature });
    expect(solSearch({ month: "2026-13", kind: "tip", signature: "0OIl", other: 1 })).toEqual({});
  });

  it("offers the last year's months, and an older one that is asked for", () => {
    const now = new Date("2026-02-10T00:00:00Z");
    expect(monthChoices(now, undefined).slice(0, 3)).toEqual(["2026-02", "2026-01", "2025-12"]);
    expect(monthChoices(now, "2024-05").at(-1)).toBe("2024-05");
    expect(monthChoices(now, "2026-01")).toHaveLength(12);
  });

  it("names the place of a month's file", () => {
    expect(solFile("org_1", "2026-11")).toBe("/v1/finance/sol-journal/file?org=org_1&month=2026-11");
    expect(solFile("org_1", undefined)).toBe("/v1/finance/sol-journal/file?org=org_1");
  });
});
