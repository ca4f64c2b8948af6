import { describe, expect, it } from "vitest";
import { batchSteps } from "./steps";

const created_at = "2026-11-22T12:00:00Z";
const words = (batch: Parameters<typeof batchSteps>[0]) => batchSteps(batch).map((step) => step.status);

describe("batchSteps", () => {
  it("walks from draft to finalized", () => {
    expect(words({ state: "draft", created_at })).toEqual(["now", "to come", "to come", "to come", "to come"]);
    expect(words({ state: "sent", created_at })).toEqual(["done", "done", "done", "now", "to come"]);
    expect(words({ state: "finalized", created_at })).toEqual(["done", "done", "done", "done", "done"]);
  });

  it("leaves a frozen batch where it stopped", () => {
    expect(words({ state: "frozen", created_at, approved_at: created_at, signature: "5x" })).toEqual(["done", "done", "now", "to come", "to come"]);
    expect(words({ state: "frozen", created_at, approved_at: created_at, sent_at: created_at })).toEqual(["done", "done", "done", "now", "to come"]);
    expect(words({ state: "failed", created_at, approved_at: created_at, sent_at: created_at })).toEqual(["done", "done", "done", "now", "not reached"]);
    expect(words({ state: "cancelled", created_at })).toEqual(["now", "not reached", "not reached", "not reached", "not reached"]);
  });
});
