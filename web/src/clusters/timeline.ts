// The assembly as the page shows it: the steps that were, the one that lasts, and those still to come.
import type { Cluster, Phase } from "../api/types";

export interface Step {
  state: string;
  enteredAt: string | null;
  durationMs: number | null;
  status: "done" | "now" | "to come";
}

const ASSEMBLY = ["reserved", "preparing", "head_up", "joining", "ready"] as const;
const ENDS = new Set(["released", "failed"]);

export function stepsOf(cluster: Pick<Cluster, "state" | "phases">): Step[] {
  const phases = cluster.phases ?? [];
  const steps = phases.map((phase) => stepOf(phase, cluster.state));
  const reachedReady = phases.some((phase) => phase.state === "ready");
  if (reachedReady || ENDS.has(cluster.state) || cluster.state === "draining") return steps;
  const reached = Math.max(-1, ...phases.map((phase) => ASSEMBLY.findIndex((state) => state === phase.state)));
  const toCome = ASSEMBLY.slice(reached + 1).map((state): Step => ({ state, enteredAt: null, durationMs: null, status: "to come" }));
  return [...steps, ...toCome];
}

function stepOf(phase: Phase, current: string): Step {
  const over = phase.duration_ms !== undefined || ENDS.has(phase.state);
  return {
    state: phase.state,
    enteredAt: phase.entered_at,
    durationMs: phase.duration_ms ?? null,
    status: !over && phase.state === current ? "now" : "done",
  };
}
