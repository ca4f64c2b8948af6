// What cancelling does depends on how far a batch has come, so the dialog says it before anybody confirms.
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Batch } from "../api/types";
import { ActionError } from "../design/Loaded";
import { Button, Dialog, Field, MoneyText } from "../design/parts";

const MOST_CHARS = 500;

/** Whether somebody may ask for it: the server has the last word. */
export function canCancel(batch: Batch): boolean {
  if (batch.state === "frozen") return batch.nonce_consumed_at === undefined && batch.cancellation === undefined;
  return ["draft", "approved", "signed", "sent"].includes(batch.state);
}

export function CancelBatch({ org, batch }: { org: string; batch: Batch }) {
  const [open, setOpen] = useState(false);
  const frozen = batch.state === "frozen";
  return (
    <>
      <Button look={frozen ? undefined : "danger"} onClick={() => setOpen(true)}>
        {frozen ? "Consume its nonce" : "Cancel"}
      </Button>
      <Dialog open={open} title={frozen ? "Consume the nonce of this batch?" : "Cancel this payout?"} onClose={() => setOpen(false)}>
        <Confirm org={org} batch={batch} onDone={() => setOpen(false)} />
      </Dialog>
    </>
  );
}

function Confirm({ org, batch, onDone }: { org: string; batch: Batch; onDone: () => void }) {
  const [reason, setReason] = useState("");
  const cancel = useAction({
    run: (body: { reason: string }, header) => unwrap(client.POST("/v1/finance/batches/{id}/cancel", { params: { path: { id: batch.id }, query: { org }, header }, body })),
    invalidates: [["finance", org]],
    done: "Cancellation asked for",
    onDone,
  });
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        cancel.mutate({ reason: reason.trim() });
      }}
    >
      <Meaning batch={batch} />
      <Field label="Why" hint="Kept with the batch and in the audit log">
        {(props) => <textarea {...props} className="input" rows={2} maxLength={MOST_CHARS} required value={reason} onChange={(event) => setReason(event.target.value)} />}
      </Field>
      <ActionError error={cancel.error} />
      <div className="dialog-actions">
        <Button onClick={onDone}>Keep it</Button>
        <Button type="submit" look="danger" busy={cancel.isPending} disabled={reason.trim() === ""}>
          {batch.state === "frozen" ? "Consume nonce" : "Cancel payout"}
        </Button>
      </div>
    </form>
  );
}

function Meaning({ batch }: { batch: Batch }) {
  switch (batch.state) {
    case "draft":
    case "approved":
      return (
        <p>
          Nothing was signed yet, so the batch is dropped at once. <MoneyText of={batch.total} /> are payable again and go into the next run.
        </p>
      );
    case "frozen":
      return <p>A transaction that moves nothing (a bare nonce advance) uses up the nonce that the batch lives by, so that nothing of it can land any more. The batch stays frozen until two people have said how it ended.</p>;
    default:
      return (
        <>
          <p>Its signed transaction could land as long as its nonce lives, so it is not enough to stop sending it. A second transaction, which moves nothing (a bare nonce advance), uses the nonce up: of the two only one can land.</p>
          <ul className="points">
            <li>
              If the advance lands, <MoneyText of={batch.total} /> are payable again, as soon as the chain calls that final.
            </li>
            <li>If the payment was faster, the batch is paid and stays so.</li>
          </ul>
        </>
      );
  }
}
