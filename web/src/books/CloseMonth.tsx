import { useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import { ActionError } from "../design/Loaded";
import { Button, Dialog, Field } from "../design/parts";
import { monthBefore } from "./queries";

export function CloseMonth({ org }: { org: string }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button look="primary" onClick={() => setOpen(true)}>
        Close a month
      </Button>
      <Dialog open={open} title="Close a month?" onClose={() => setOpen(false)}>
        <Closing org={org} onDone={() => setOpen(false)} />
      </Dialog>
    </>
  );
}

function Closing({ org, onDone }: { org: string; onDone: () => void }) {
  const [month, setMonth] = useState(() => monthBefore(new Date()));
  const close = useAction({
    run: (_: undefined, header) => unwrap(client.POST("/v1/finance/periods", { params: { query: { org }, header }, body: { month } })),
    invalidates: [
      ["periods", org],
      ["audit-log", org],
    ],
    done: "Month closed",
    onDone,
  });
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        close.mutate(undefined);
      }}
    >
      <Field label="Month" hint="Year and month, in UTC. It must be over, and the newest reconciliation clean or explained.">
        {(props) => <input {...props} className="input" pattern="[0-9]{4}-[0-9]{2}" placeholder="2026-10" required value={month} onChange={(event) => setMonth(event.target.value)} />}
      </Field>
      <p>Every account&apos;s opening, movements and closing are frozen, with the reconciliation that they rest on. To open it again takes two people.</p>
      <ActionError error={close.error} />
      <div className="dialog-actions">
        <Button onClick={onDone}>Not now</Button>
        <Button type="submit" look="primary" busy={close.isPending}>
          Close it
        </Button>
      </div>
    </form>
  );
}
