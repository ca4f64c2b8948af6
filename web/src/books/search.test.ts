import { expect, it } from "vitest";
import { auditFilter, booksSearch } from "./search";

it("keeps what the audit log can be filtered by, and drops the rest", () => {
  expect(booksSearch({ person: " Ada ", action: "period.close", subject: "bat_1", from: "2026-11-01", to: "2026-11-30" })).toEqual({
    person: "Ada",
    action: "period.close",
    subject: "bat_1",
    from: "2026-11-01",
    to: "2026-11-30",
  });
  expect(booksSearch({ person: " ", action: 3, subject: "x".repeat(101), from: "2026-13-01", to: "yesterday", other: "x" })).toEqual({});
});

it("asks for whole days, the last one included", () => {
  expect(auditFilter({ person: "Ada", from: "2026-11-01", to: "2026-11-30" })).toEqual({ person: "Ada", from: "2026-11-01T00:00:00Z", to: "2026-12-01T00:00:00.000Z" });
  expect(auditFilter({})).toEqual({});
});
