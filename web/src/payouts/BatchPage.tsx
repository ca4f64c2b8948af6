import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { useEffect, useRef, useState, type ReactNode } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Batch, Payout } from "../api/types";
import { announce } from "../design/announce";
import { ActionError, Loaded, SafePanel } from "../design/Loaded";
import { Button, Dialog, Empty, MoneyText, Notice, ShortId, Skeleton, State, TableScroll, Time, Toned } from "../design/parts";
import { lookOf } from "../design/state";
import { TransactionLink } from "../design/TransactionLink";
import { batchQuery } from "./queries";
import { batchSteps } from "./steps";
import "./payouts.css";

export function BatchPage() {
  const { org, id } = useParams({ from: "/o/$org/finance/payouts/$id" });
  const query = useQuery(batchQuery(org, id));
  return (
    <div className="page">
      <Loaded
        query={query}
        skeleton={
          <div className="stack">
            <Skeleton height={40} width={320} />
            <Skeleton height={66} />
            <Skeleton height={260} />
          </div>
        }
      >
        {(batch) => <Content org={org} batch={batch} />}
      </Loaded>
      <p>
        <Link to="/o/$org/finance/payouts" params={{ org }} className="row-link">
          All payouts
        </Link>
      </p>
    </div>
  );
}

function Content({ org, batch }: { org: string; batch: Batch }) {
  const last = useRef(batch.state);
  useEffect(() => {
    if (last.current === batch.state) return;
    last.current = batch.state;
    announce(`Payout: ${lookOf("batch", batch.state).word}`);
  }, [batch.state]);
  return (
    <>
      <div className="page-head">
        <div className="line">
          <h1>
            Payout of <MoneyText of={batch.total} />
          </h1>
          <State machine="batch" state={batch.state} />
        </div>
        {batch.state === "draft" && <Approve org={org} batch={batch} />}
      </div>
      {(batch.state === "frozen" || batch.state === "failed") && (
        <Notice tone="bad">
          <p>
            <span className="strong">{batch.state === "frozen" ? "Frozen: nothing more is sent until somebody has looked." : "Failed: no token moved."}</span> {batch.state_reason}
          </p>
        </Notice>
      )}
      <ol className="way">
        {batchSteps(batch).map((step) => (
          <li key={step.state} aria-current={step.status === "now" ? "step" : undefined}>
            <Toned tone={step.status === "done" ? "ok" : step.status === "now" ? lookOf("batch", batch.state).tone : "unknown"}>{lookOf("batch", step.state).word}</Toned>
            <span className="muted">{step.at !== null ? <Time at={step.at} clock utc /> : step.status === "to come" ? "to come" : ""}</span>
          </li>
        ))}
      </ol>
      <div className="columns">
        <SafePanel title={`${batch.payee_count} ${batch.payee_count === 1 ? "payee" : "payees"}`} flush>
          <Payees payouts={batch.payouts ?? []} />
        </SafePanel>
        <SafePanel title="Transaction">
          <Facts batch={batch} />
        </SafePanel>
      </div>
    </>
  );
}

function Payees({ payouts }: { payouts: Payout[] }) {
  if (payouts.length === 0) return <Empty>This batch has no payees.</Empty>;
  return (
    <TableScroll label="Payees">
      <table>
        <thead>
          <tr>
            <th scope="col">Owner</th>
            <th scope="col">Wallet</th>
            <th scope="col">Token account</th>
            <th scope="col" className="number">
              Amount
            </th>
          </tr>
        </thead>
        <tbody>
          {payouts.map((payout) => (
            <tr key={payout.id}>
              <th scope="row">{payout.payee}</th>
              <td>
                <ShortId id={payout.address} what="Wallet address" keep={4} />
              </td>
              <td>
                <ShortId id={payout.token_account} what="Token account" keep={4} />
              </td>
              <td className="number">
                <MoneyText of={payout.amount} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

function Facts({ batch }: { batch: Batch }) {
  const facts: [string, ReactNode][] = [
    ["Batch", <ShortId key="id" id={batch.id} what="Batch id" />],
    ["Drafted by", batch.drafted_by],
    ["Approved by", batch.approved_by],
    ["Signature", batch.signature === undefined || batch.signature === "" ? undefined : <TransactionLink key="signature" signature={batch.signature} />],
    ["Slot", batch.slot?.toLocaleString()],
    ["Fee", batch.fee_lamports === undefined ? undefined : `${batch.fee_lamports.toLocaleString()} lamports`],
    ["Nonce account", batch.nonce_account === undefined || batch.nonce_account === "" ? undefined : <ShortId key="nonce" id={batch.nonce_account} what="Nonce account" />],
    ["Nonce", batch.nonce_value === undefined || batch.nonce_value === "" ? undefined : <ShortId key="value" id={batch.nonce_value} what="Nonce" />],
    ["Final", batch.finalized_at === undefined ? undefined : <Time key="final" at={batch.finalized_at} utc />],
  ];
  return (
    <dl className="pairs">
      {facts
        .filter(([, value]) => value !== undefined && value !== "")
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

function Approve({ org, batch }: { org: string; batch: Batch }) {
  const [open, setOpen] = useState(false);
  const approve = useAction({
    run: (_: undefined, header) => unwrap(client.POST("/v1/finance/batches/{id}/approve", { params: { path: { id: batch.id }, query: { org }, header } })),
    invalidates: [["finance", org]],
    done: "Payout approved",
    onDone: () => setOpen(false),
  });
  return (
    <>
      <Button look="primary" onClick={() => setOpen(true)}>
        Approve
      </Button>
      <Dialog open={open} title="Approve this payout?" onClose={() => setOpen(false)}>
        <p>
          <MoneyText of={batch.total} /> to {batch.payee_count} {batch.payee_count === 1 ? "payee" : "payees"}, in one transaction. Once approved it is signed and sent by itself and cannot be called back.
        </p>
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
