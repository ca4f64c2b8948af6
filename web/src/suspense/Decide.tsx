// What becomes of tokens in suspense. Each choice says what it moves before anybody confirms.
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Deposit } from "../api/types";
import { ActionError } from "../design/Loaded";
import { Button, Dialog, Field } from "../design/parts";

const MOST_CHARS = 500;

type Outcome = "credited" | "refunded" | "kept" | "held";

/** Whether another decision can follow: tokens that were credited or kept, or are in a payout, stay where they are. */
function isOpen({ outcome, refund }: Deposit): boolean {
  return outcome === undefined || outcome === "held" || (outcome === "refunded" && refund?.state === "requested");
}

export function Decide({ org, deposit }: { org: string; deposit: Deposit }) {
  const [open, setOpen] = useState(false);
  if (!isOpen(deposit)) return null;
  return (
    <>
      <Button size="small" onClick={() => setOpen(true)}>
        {deposit.outcome === undefined ? "Decide" : "Decide anew"}
      </Button>
      <Dialog open={open} title={`What becomes of ${deposit.amount}?`} onClose={() => setOpen(false)}>
        <Deciding org={org} deposit={deposit} onDone={() => setOpen(false)} />
      </Dialog>
    </>
  );
}

function choices({ customer, sender }: Deposit): { id: Outcome; word: string; means: string }[] {
  return [
    { id: "credited", word: customer === undefined ? "Credit it to an organisation" : `Credit it to ${customer}, or another`, means: "It is in that organisation's balance at once, and cannot be taken back." },
    {
      id: "refunded",
      word: "Send it back",
      means: sender === undefined ? "The wallet that it came from is not known, so this is refused: hold it or credit it." : `It goes to ${sender} with the next payout run, which other people approve as always. Until a batch has it, you can decide anew.`,
    },
    { id: "kept", word: "Keep it as the platform's own", means: "It becomes capital of the platform at once, and cannot be given back from here." },
    { id: "held", word: "Hold it", means: "Nothing moves. The note says why, and another decision may follow." },
  ];
}

function Deciding({ org, deposit, onDone }: { org: string; deposit: Deposit; onDone: () => void }) {
  const [outcome, setOutcome] = useState<Outcome>("held");
  const [whom, setWhom] = useState("");
  const [note, setNote] = useState(deposit.note ?? "");
  const decide = useAction({
    run: (body: { outcome: Outcome; org_id?: string; note: string }, header) =>
      unwrap(client.POST("/v1/finance/suspense/{id}/decision", { params: { path: { id: deposit.id }, query: { org }, header }, body })),
    invalidates: [
      ["suspense", org],
      ["finance", org],
    ],
    done: "Decided",
    onDone,
  });
  const offered = choices(deposit);
  const asksWhom = outcome === "credited" || (outcome === "refunded" && deposit.customer === undefined);
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        decide.mutate({ outcome, note: note.trim(), ...(asksWhom && whom.trim() !== "" ? { org_id: whom.trim() } : {}) });
      }}
    >
      <p>{deposit.reason}</p>
      <Field label="Decision" hint={offered.find(({ id }) => id === outcome)?.means}>
        {(props) => (
          <select {...props} className="input" value={outcome} onChange={(event) => setOutcome(event.target.value as Outcome)}>
            {offered.map(({ id, word }) => (
              <option key={id} value={id}>
                {word}
              </option>
            ))}
          </select>
        )}
      </Field>
      {asksWhom && (
        <Field label="Organisation's id" hint={deposit.customer === undefined ? "It came to the treasury, so say whose it is" : `Empty: ${deposit.customer}`}>
          {(props) => <input {...props} className="input mono" placeholder="org_…" required={deposit.customer === undefined} value={whom} onChange={(event) => setWhom(event.target.value)} />}
        </Field>
      )}
      <Field label="Why" hint="Kept with the deposit and in the audit log">
        {(props) => <textarea {...props} className="input" rows={3} maxLength={MOST_CHARS} required value={note} onChange={(event) => setNote(event.target.value)} />}
      </Field>
      <ActionError error={decide.error} />
      <div className="dialog-actions">
        <Button onClick={onDone}>Not now</Button>
        <Button type="submit" look="primary" busy={decide.isPending} disabled={note.trim() === ""}>
          Decide
        </Button>
      </div>
    </form>
  );
}
