// A frozen batch: its records disagree with the chain, so people decide, with a transaction as evidence, and two of them.
import { useState, type ReactNode } from "react";
import { client, unwrap } from "../api/client";
import { asApiError } from "../api/problem";
import { useAction } from "../api/useAction";
import type { Batch } from "../api/types";
import { ActionError, SafePanel } from "../design/Loaded";
import { Button, Dialog, Field, MoneyText, Notice, ShortId, Time, Toned } from "../design/parts";
import { TransactionLink } from "../design/TransactionLink";
import { canCancel, CancelBatch } from "./Cancel";

const MOST_CHARS = 500;

const OUTCOMES = {
  paid: { word: "It was paid", evidence: "Signature of the transaction that paid exactly these payees and amounts" },
  not_paid: { word: "It was not paid", evidence: "Signature of the transaction that consumed the nonce and gave these payees nothing" },
} as const;

type Outcome = keyof typeof OUTCOMES;

/** The runbook of docs/settlement.md, with what has been done of it. */
export function Runbook({ org, batch }: { org: string; batch: Batch }) {
  const { resolution } = batch;
  return (
    <div id="runbook">
      <SafePanel title="What to do" aside={<span className="muted">docs/settlement.md, “When a batch is frozen”</span>}>
        <ol className="runbook">
          <Step title="Compare the nonce account's history on the chain with the signer's log">
            {batch.nonce_account !== undefined && batch.nonce_account !== "" && (
              <p className="line" data-gap="small">
                Nonce account <ShortId id={batch.nonce_account} what="Nonce account" keep={8} />
              </p>
            )}
            <p className="muted">If a transaction consumed it that nobody of you sent, somebody has the treasury&apos;s key: stop the signer and move the treasury to a new one, before anything else.</p>
          </Step>
          <Step title="See to it that nothing of the batch can land any more" done={batch.nonce_consumed_at !== undefined}>
            {batch.nonce_consumed_at !== undefined ? (
              <p>
                Its nonce is consumed, seen <Time at={batch.nonce_consumed_at} utc />.
              </p>
            ) : batch.cancellation !== undefined ? (
              <Toned tone="busy">Its nonce is being consumed</Toned>
            ) : (
              canCancel(batch) && <CancelBatch org={org} batch={batch} />
            )}
          </Step>
          <Step title="Find out whether the payees got the money">
            <p className="muted">
              Look for a transaction that took <MoneyText of={batch.total} /> out of the treasury. After a restore from a backup its memo names a batch that this database does not know.
            </p>
          </Step>
          <Step title="Say what you found, with the transaction; a second person confirms it" done={resolution?.confirmed_at !== undefined}>
            {resolution !== undefined && <Proposal resolution={resolution} />}
            <Resolve org={org} batch={batch} />
          </Step>
        </ol>
      </SafePanel>
    </div>
  );
}

function Step({ title, done = false, children }: { title: string; done?: boolean; children: ReactNode }) {
  return (
    <li>
      <div className="stack" data-gap="small">
        <span className="line" data-spread>
          <span className="strong">{title}</span>
          {done && <Toned tone="ok">Done</Toned>}
        </span>
        {children}
      </div>
    </li>
  );
}

function Proposal({ resolution }: { resolution: NonNullable<Batch["resolution"]> }) {
  return (
    <dl className="pairs">
      <div>
        <dt>Proposed</dt>
        <dd>{OUTCOMES[resolution.outcome].word}</dd>
      </div>
      <div>
        <dt>By</dt>
        <dd>
          {resolution.proposed_by}, <Time at={resolution.proposed_at} utc />
        </dd>
      </div>
      <div>
        <dt>Transaction</dt>
        <dd>
          <TransactionLink signature={resolution.signature} />
        </dd>
      </div>
      <div>
        <dt>Found</dt>
        <dd className="prose">{resolution.note}</dd>
      </div>
      {resolution.confirmed_by !== undefined && resolution.confirmed_at !== undefined && (
        <div>
          <dt>Confirmed</dt>
          <dd>
            {resolution.confirmed_by}, <Time at={resolution.confirmed_at} utc />
          </dd>
        </div>
      )}
    </dl>
  );
}

function Resolve({ org, batch }: { org: string; batch: Batch }) {
  const [open, setOpen] = useState<"no" | "propose" | "confirm">("no");
  const { resolution } = batch;
  const close = () => setOpen("no");
  return (
    <div className="stack" data-gap="small">
      {resolution?.own === true && <p className="muted">You proposed this: somebody else must confirm it.</p>}
      <div className="line">
        {resolution !== undefined && (
          <Button look="primary" disabled={resolution.own} onClick={() => setOpen("confirm")}>
            Confirm
          </Button>
        )}
        <Button look={resolution === undefined ? "primary" : undefined} onClick={() => setOpen("propose")}>
          {resolution === undefined ? "Resolve" : "Propose something else"}
        </Button>
      </div>
      <Dialog open={open === "propose"} title="How did this batch end?" onClose={close}>
        <Propose org={org} batch={batch} onDone={close} />
      </Dialog>
      <Dialog open={open === "confirm"} title="Confirm how this batch ended?" onClose={close}>
        {resolution !== undefined && <Confirm org={org} batch={batch} resolution={resolution} onDone={close} />}
      </Dialog>
    </div>
  );
}

interface Evidence {
  outcome: Outcome;
  signature: string;
  note: string;
}

function useResolve(org: string, batch: Batch, done: string, onDone: () => void) {
  return useAction({
    run: (body: Evidence, header) => unwrap(client.POST("/v1/finance/batches/{id}/resolve", { params: { path: { id: batch.id }, query: { org }, header }, body })),
    invalidates: [["finance", org]],
    done,
    onDone,
  });
}

function Propose({ org, batch, onDone }: { org: string; batch: Batch; onDone: () => void }) {
  const [form, setForm] = useState<Evidence>({ outcome: "paid", signature: "", note: "" });
  const propose = useResolve(org, batch, "Proposed", onDone);
  const fields = propose.error === null ? [] : asApiError(propose.error).fields;
  const mistake = (name: string) => fields.find((field) => field.path.includes(name))?.message;
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        propose.mutate({ ...form, signature: form.signature.trim(), note: form.note.trim() });
      }}
    >
      <fieldset>
        <legend className="legend">What the chain shows</legend>
        <div className="chips">
          {(Object.keys(OUTCOMES) as Outcome[]).map((outcome) => (
            <label key={outcome} className="chip">
              <input type="radio" name="outcome" checked={form.outcome === outcome} onChange={() => setForm({ ...form, outcome })} />
              {OUTCOMES[outcome].word}
            </label>
          ))}
        </div>
      </fieldset>
      <Consequence outcome={form.outcome} batch={batch} />
      <Field label="Transaction" hint={OUTCOMES[form.outcome].evidence} error={mistake("signature")}>
        {(props) => <input {...props} className="input mono" required minLength={64} maxLength={88} autoComplete="off" spellCheck={false} value={form.signature} onChange={(event) => setForm({ ...form, signature: event.target.value })} />}
      </Field>
      <Field label="What you found" hint="For the second person and the audit log" error={mistake("note")}>
        {(props) => <textarea {...props} className="input" rows={3} required maxLength={MOST_CHARS} value={form.note} onChange={(event) => setForm({ ...form, note: event.target.value })} />}
      </Field>
      {fields.length === 0 && <ActionError error={propose.error} />}
      <div className="dialog-actions">
        <Button onClick={onDone}>Close</Button>
        <Button type="submit" look="primary" busy={propose.isPending}>
          Propose
        </Button>
      </div>
    </form>
  );
}

function Confirm({ org, batch, resolution, onDone }: { org: string; batch: Batch; resolution: NonNullable<Batch["resolution"]>; onDone: () => void }) {
  const confirm = useResolve(org, batch, "Batch resolved", onDone);
  const { outcome, signature, note } = resolution;
  return (
    <div className="stack">
      <Proposal resolution={resolution} />
      <Consequence outcome={outcome} batch={batch} />
      <p className="muted">Look the transaction up yourself before you confirm.</p>
      <ActionError error={confirm.error} />
      <div className="dialog-actions">
        <Button onClick={onDone}>Not yet</Button>
        <Button look="primary" busy={confirm.isPending} onClick={() => confirm.mutate({ outcome, signature, note })}>
          Confirm
        </Button>
      </div>
    </div>
  );
}

function Consequence({ outcome, batch }: { outcome: Outcome; batch: Batch }) {
  return (
    <Notice tone={outcome === "paid" ? "unknown" : "warn"}>
      <p>
        {outcome === "paid" ? (
          <>
            The payment of <MoneyText of={batch.total} /> is booked with that transaction.
          </>
        ) : (
          <>
            <MoneyText of={batch.total} /> are payable again: the next run pays them.
          </>
        )}{" "}
        Muster reads the transaction from the chain and refuses what it does not show. Nothing is booked before a second person has confirmed.
      </p>
    </Notice>
  );
}
