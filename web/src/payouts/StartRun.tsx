// A run by hand, with what it would pay and whom it would hold back before it begins.
import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { PayableSummary } from "../api/types";
import { ActionError, Loaded } from "../design/Loaded";
import { Button, Dialog, MoneyText, Notice, Skeleton } from "../design/parts";
import { compareMoney, minus } from "../money/money";
import { Payees } from "./Payees";
import { payableQuery } from "./queries";
import { count } from "./words";

export function StartRun({ org, obstacle }: { org: string; obstacle: string | undefined }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      {obstacle !== undefined && (
        <span id="start-run-obstacle" className="muted">
          {obstacle}
        </span>
      )}
      <Button look="primary" disabled={obstacle !== undefined} aria-describedby={obstacle === undefined ? undefined : "start-run-obstacle"} onClick={() => setOpen(true)}>
        Start a payout run
      </Button>
      <Dialog open={open} title="Start a payout run?" onClose={() => setOpen(false)}>
        <Preview org={org} onClose={() => setOpen(false)} />
      </Dialog>
    </>
  );
}

function Preview({ org, onClose }: { org: string; onClose: () => void }) {
  const payable = useQuery({ ...payableQuery(org), refetchOnMount: "always" });
  const navigate = useNavigate();
  const start = useAction({
    run: (_: undefined, header) => unwrap(client.POST("/v1/finance/runs", { params: { query: { org }, header } })),
    invalidates: [["finance", org]],
    done: "Payout run started",
    onDone: (run) => void navigate({ to: "/o/$org/finance/payouts/runs/$run", params: { org, run: run.id } }),
  });
  return (
    <div className="stack">
      <Loaded query={payable} skeleton={<Skeleton height={180} />}>
        {(loaded) => <Outlook payable={loaded} />}
      </Loaded>
      <p className="muted">Each payee&apos;s account is looked at on the chain again now; whom that speaks against is left out with the reason, the others are drafted. Nothing is signed or sent before another person has approved it.</p>
      <ActionError error={start.error} />
      <div className="dialog-actions">
        <Button onClick={onClose}>Close</Button>
        <Button look="primary" busy={start.isPending} disabled={payable.data === undefined || payable.data.payees.length === 0} onClick={() => start.mutate(undefined)}>
          Start the run
        </Button>
      </div>
    </div>
  );
}

function Outlook({ payable }: { payable: PayableSummary }) {
  const { treasury, total } = payable;
  return (
    <div className="stack">
      <dl className="pairs">
        <div data-total="">
          <dt>Would be paid, to {count(payable.payees.length, "payee")}</dt>
          <dd>
            <MoneyText of={total} />
          </dd>
        </div>
        {treasury !== undefined && (
          <div>
            <dt>In the treasury</dt>
            <dd>
              <MoneyText of={treasury} />
            </dd>
          </div>
        )}
        <div>
          <dt>Held back</dt>
          <dd>{count(payable.left_out.length, "payee")}</dd>
        </div>
      </dl>
      {treasury !== undefined && compareMoney(treasury, total) < 0 && (
        <Notice tone="warn">
          <p>
            The treasury is <MoneyText of={minus(total, treasury)} /> short. What it cannot pay waits, approved, until it is filled.
          </p>
        </Notice>
      )}
      {payable.left_out.length > 0 && (
        <details open={payable.left_out.length <= FEW}>
          <summary>Who is held back, and why</summary>
          <Payees payees={payable.left_out} label="Held back" reasons />
        </details>
      )}
    </div>
  );
}

const FEW = 5;
