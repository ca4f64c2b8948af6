import { describe, expect, it } from "vitest";
import { clusterSearch, clustersSearch } from "./search";
import { stepsOf } from "./timeline";

const at = "2026-11-22T12:00:00Z";

describe("stepsOf", () => {
  it("shows what is still to come while a cluster is made", () => {
    const steps = stepsOf({ state: "preparing", phases: [{ state: "reserved", entered_at: at, duration_ms: 40 }, { state: "preparing", entered_at: at }] });
    expect(steps.map((step) => `${step.state} ${step.status}`)).toEqual(["reserved done", "preparing now", "head_up to come", "joining to come", "ready to come"]);
  });

  it("promises nothing once it is ready, degraded or over", () => {
    const ready = { state: "ready", entered_at: at };
    expect(stepsOf({ state: "ready", phases: [ready] })).toHaveLength(1);
    expect(stepsOf({ state: "failed", phases: [{ state: "reserved", entered_at: at, duration_ms: 1 }, { state: "failed", entered_at: at }] }).map((step) => step.status)).toEqual(["done", "done"]);
    expect(stepsOf({ state: "degraded", phases: [{ ...ready, duration_ms: 9 }, { state: "degraded", entered_at: at }] }).at(-1)?.status).toBe("now");
  });

  it("starts with everything to come", () => {
    expect(stepsOf({ state: "reserved" })).toHaveLength(5);
  });
});

describe("the addresses of cluster pages", () => {
  it("drop what they do not know", () => {
    expect(clustersSearch({ state: "live" })).toEqual({ state: "live" });
    expect(clustersSearch({ state: "odd" })).toEqual({});
    expect(clusterSearch({ connect: "python", job: "raysubmit_1" })).toEqual({ connect: "python", job: "raysubmit_1" });
    expect(clusterSearch({ connect: 1, job: "../../keys" })).toEqual({});
  });
});
