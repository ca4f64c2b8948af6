// A batch's way: draft, approved, signed, sent, finalized. Frozen, failed and cancelled end it elsewhere.
import type { Batch } from "../api/types";

export const WAY = ["draft", "approved", "signed", "sent", "finalized"] as const;

const ENDED_ASIDE = new Set(["cancelled", "failed"]);

export interface BatchStep {
  state: (typeof WAY)[number];
  status: "done" | "now" | "to come" | "not reached";
  at: string | null;
}

export function batchSteps(batch: Pick<Batch, "state" | "created_at" | "approved_at" | "sent_at" | "finalized_at" | "signature">): BatchStep[] {
  const at: Record<BatchStep["state"], string | null> = {
    draft: batch.created_at,
    approved: batch.approved_at ?? null,
    signed: null,
    sent: batch.sent_at ?? null,
    finalized: batch.finalized_at ?? null,
  };
  const reached = reachedIndex(batch);
  const ahead = ENDED_ASIDE.has(batch.state) ? "not reached" : "to come";
  return WAY.map((state, index) => ({
    state,
    at: at[state],
    status: index < reached || (index === reached && state === "finalized") ? "done" : index === reached ? "now" : ahead,
  }));
}

/** How far it came; a frozen, failed or cancelled batch stands where its traces end. */
function reachedIndex(batch: Parameters<typeof batchSteps>[0]): number {
  const index = WAY.findIndex((state) => state === batch.state);
  if (index !== -1) return index;
  if (batch.sent_at !== undefined) return WAY.indexOf("sent");
  if (batch.signature !== undefined && batch.signature !== "") return WAY.indexOf("signed");
  return batch.approved_at === undefined ? WAY.indexOf("draft") : WAY.indexOf("approved");
}
