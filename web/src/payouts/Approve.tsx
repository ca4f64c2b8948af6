// Approval by another person than the maker: of one batch, or of all drafts of a run.
import { useId, useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Batch, Money, PayoutRun } from "../api/types";
import { announce } from "../design/announce";
import { ActionError } from "../design/Loaded";
import { Button, Dialog, MoneyText } from "../design/parts";
import { count, sentence } from "./words";

export function ApproveBatch({ org, batch }: { org: string; batch: Batch }) {
  const missing = batch.approvals_needed - (batch.approvals?.length ?? 0);
  return (
    <Approve
      word="Approve"
      obstacle={batch.approve_obstacle}
      total={batch.total}
      what={`to ${count(batch.payee_count, "payee")}, in one transaction`}
      more={missing > 1}
      org={org}
      run={(header) => unwrap(client.POST("/v1/finance/batches/{id}/approve", { params: { path: { id: batch.id }, query: { org }, header } })).then(({ state }) => (state === "draft" ? "Approved. Another person must approve it too" : "Payout approved"))}
    />
  );
}

/** Of a run that has drafts; nothing without any. */
export function ApproveRun({ org, run }: { org: string; run: PayoutRun }) {
  const drafts = (run.progress ?? []).find((step) => step.state === "draft");
  if (drafts === undefined) return null;
  return (
    <Approve
      word={`Approve ${count(drafts.batch_count, "draft")}`}
      obstacle={run.approve_obstacle}
      total={drafts.total}
      what={`to ${count(drafts.payee_count, "payee")}, in ${count(drafts.batch_count, "transaction")}`}
      more={(run.batches ?? []).some((batch) => batch.state === "draft" && batch.approvals_needed > 1)}
      org={org}
      run={(header) =>
        unwrap(client.POST("/v1/finance/runs/{id}/approve", { params: { path: { id: run.id }, query: { org }, header } })).then(
          ({ approved, waiting }) => `${count(approved, "batch", "batches")} approved${waiting === 0 ? "" : `, ${waiting} wait for another person`}`,
        )
      }
    />
  );
}

interface Asked {
  word: string;
  obstacle: string | undefined;
  total: Money;
  what: string;
  more: boolean;
  org: string;
  run: (header: { "Idempotency-Key": string }) => Promise<string>;
}

function Approve({ word, obstacle, total, what, more, org, run }: Asked) {
  const [open, setOpen] = useState(false);
  const id = useId();
  const approve = useAction({
    run: (_: undefined, header) => run(header),
    invalidates: [["finance", org]],
    onDone: (outcome) => {
      setOpen(false);
      announce(outcome);
    },
  });
  return (
    <>
      {obstacle !== undefined && (
        <span id={id} className="muted">
          {sentence(obstacle)}
        </span>
      )}
      <Button look="primary" disabled={obstacle !== undefined} aria-describedby={obstacle === undefined ? undefined : id} onClick={() => setOpen(true)}>
        {word}
      </Button>
      <Dialog open={open} title="Approve this payout?" onClose={() => setOpen(false)}>
        <p>
          <span className="strong">
            <MoneyText of={total} />
          </span>{" "}
          {what}. Your name and the time are kept.
        </p>
        <p>{more ? "It is large enough to need two people: after you, somebody else approves, and then it is signed and sent by itself." : "It is signed and sent by itself then. Until a transaction has landed it can be cancelled, after that nobody can call it back."}</p>
        <ActionError error={approve.error} />
        <div className="dialog-actions">
          <Button onClick={() => setOpen(false)}>Not yet</Button>
          <Button look="primary" busy={approve.isPending} onClick={() => approve.mutate(undefined)}>
            Approve payout
          </Button>
        </div>
      </Dialog>
    </>
  );
}
