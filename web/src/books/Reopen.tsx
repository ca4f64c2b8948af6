// A closed month opens again when two people say so; the first one's reason is what the second agrees with.
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { ClosedPeriod } from "../api/types";
import { ActionError } from "../design/Loaded";
import { Button, Dialog, Field } from "../design/parts";

const MOST_CHARS = 2_000;

export function Reopen({ org, period }: { org: string; period: ClosedPeriod }) {
  const [open, setOpen] = useState(false);
  const asked = period.reopen_asked_by !== undefined;
  return (
    <>
      <Button size="small" look={asked ? undefined : "quiet"} onClick={() => setOpen(true)}>
        {asked ? "Agree to open again" : "Open again"}
      </Button>
      <Dialog open={open} title={`Open ${period.month} again?`} onClose={() => setOpen(false)}>
        <Asking org={org} period={period} onDone={() => setOpen(false)} />
      </Dialog>
    </>
  );
}

function Asking({ org, period, onDone }: { org: string; period: ClosedPeriod; onDone: () => void }) {
  const asked = period.reopen_asked_by !== undefined;
  const [reason, setReason] = useState(period.reopen_reason ?? "");
  const reopen = useAction({
    run: (body: { reason: string }, header) => unwrap(client.POST("/v1/finance/periods/{month}/reopen", { params: { path: { month: period.month }, query: { org }, header }, body })),
    invalidates: [
      ["periods", org],
      ["audit-log", org],
    ],
    done: asked ? "Month opened again" : "Asked for: another person must agree",
    onDone,
  });
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        reopen.mutate({ reason: reason.trim() });
      }}
    >
      <p>{asked ? `${period.reopen_asked_by} has asked for it. If you agree, it opens at once; whoever asked cannot agree.` : "Its figures can change then, and it has to be closed anew. Another person has to agree before it opens."}</p>
      <Field label="Why" hint="Kept with the month and in the audit log">
        {(props) => <textarea {...props} className="input" rows={3} maxLength={MOST_CHARS} required value={reason} onChange={(event) => setReason(event.target.value)} />}
      </Field>
      <ActionError error={reopen.error} />
      <div className="dialog-actions">
        <Button onClick={onDone}>Keep it closed</Button>
        <Button type="submit" look="danger" busy={reopen.isPending} disabled={reason.trim() === ""}>
          {asked ? "Open it" : "Ask for it"}
        </Button>
      </div>
    </form>
  );
}
