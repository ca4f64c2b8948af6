import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { useEffect, useRef, type ReactNode } from "react";
import type { Batch, Payout } from "../api/types";
import { announce } from "../design/announce";
import { SafePanel } from "../design/Loaded";
import { Empty, MoneyText, Notice, ShortId, State, TableScroll, Time, Toned } from "../design/parts";
import { lookOf } from "../design/state";
import { TransactionLink } from "../design/TransactionLink";
import { ApproveBatch } from "./Approve";
import { CancelBatch, canCancel } from "./Cancel";
import { Frame } from "./Frame";
import { Runbook } from "./Frozen";
import { batchQuery } from "./queries";
import { batchSteps } from "./steps";
import { count, PURPOSE_WORDS, sentence, solText } from "./words";
import "./payouts.css";

export function BatchPage() {
  const { org, id } = useParams({ from: "/o/$org/finance/payouts/$id" });
  const query = useQuery(batchQuery(org, id));
  return (
    <Frame org={org} query={query}>
      {(batch) => <Content org={org} batch={batch} />}
    </Frame>
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
        <div className="line">
          {batch.state !== "frozen" && canCancel(batch) && <CancelBatch org={org} batch={batch} />}
          {batch.state === "draft" && <ApproveBatch org={org} batch={batch} />}
        </div>
      </div>
      <Situation batch={batch} />
      <ol className="way">
        {batchSteps(batch).map((step) => (
          <li key={step.state} aria-current={step.status === "now" ? "step" : undefined}>
            <Toned tone={step.status === "done" ? "ok" : step.status === "now" ? lookOf("batch", batch.state).tone : "unknown"}>{lookOf("batch", step.state).word}</Toned>
            <span className="muted">{step.at !== null ? <Time at={step.at} clock utc /> : step.status === "to come" || step.status === "not reached" ? step.status : ""}</span>
          </li>
        ))}
      </ol>
      {batch.state === "frozen" && <Runbook org={org} batch={batch} />}
      <div className="columns">
        <SafePanel title={count(batch.payee_count, "payee")} flush>
          <Payees payouts={batch.payouts ?? []} />
        </SafePanel>
        <div className="stack">
          <SafePanel title="Transaction">
            <Facts batch={batch} />
          </SafePanel>
          <SafePanel title="People">
            <People org={org} batch={batch} />
          </SafePanel>
        </div>
      </div>
    </>
  );
}

/** What holds a batch up or has ended it, in words. */
function Situation({ batch }: { batch: Batch }) {
  const reason = batch.state_reason === undefined || batch.state_reason === "" ? "" : sentence(batch.state_reason);
  switch (batch.state) {
    case "frozen":
      return (
        <Notice tone="bad">
          <p>
            <span className="strong">Frozen: nothing more is sent, and nobody in it is paid anew, until two people have said how it ended.</span> {reason}
          </p>
          <p>
            <a href="#runbook">What to do</a>
          </p>
        </Notice>
      );
    case "failed":
      return (
        <Notice tone="bad">
          <p>
            <span className="strong">Failed: no token moved, and all of it is payable again.</span> {reason}
          </p>
        </Notice>
      );
    case "cancelling":
      return (
        <Notice tone="busy">
          <p>
            <span className="strong">Being cancelled: its nonce is being used up.</span> The money is payable again once the chain calls that final. If the payment was faster, the batch is paid. {reason !== "" && `Reason: ${reason}`}
          </p>
        </Notice>
      );
    case "cancelled":
      return (
        <Notice tone="unknown">
          <p>
            <span className="strong">Cancelled: no token moved, and all of it is payable again.</span> {reason !== "" && `Reason: ${reason}`}
          </p>
        </Notice>
      );
    default:
      return reason === "" ? null : (
        <Notice tone="warn">
          <p>{reason} It is tried again by itself.</p>
        </Notice>
      );
  }
}

/** Who drafted, approved and cancelled it: never one person alone. */
function People({ org, batch }: { org: string; batch: Batch }) {
  const { cancellation, resolution } = batch;
  const approvals = batch.approvals ?? [];
  return (
    <dl className="pairs">
      <div>
        <dt>Drafted</dt>
        <dd>
          {batch.drafted_by === undefined || batch.drafted_by === "" ? "by the clock" : batch.drafted_by}, <Time at={batch.created_at} utc />
          {batch.run_id !== undefined && (
            <div>
              <Link to="/o/$org/finance/payouts/runs/$run" params={{ org, run: batch.run_id }} className="row-link">
                Its run
              </Link>
            </div>
          )}
        </dd>
      </div>
      {approvals.map((approval) => (
        <div key={approval.at + approval.by}>
          <dt>Approved</dt>
          <dd>
            {approval.by}, <Time at={approval.at} utc />
          </dd>
        </div>
      ))}
      {batch.state === "draft" && (
        <div>
          <dt>Approvals</dt>
          <dd>
            {approvals.length} of {batch.approvals_needed}
          </dd>
        </div>
      )}
      {cancellation !== undefined && (
        <div>
          <dt>Cancellation asked for</dt>
          <dd>
            {cancellation.asked_by}, <Time at={cancellation.asked_at} utc />
            {cancellation.signature !== undefined && cancellation.signature !== "" && (
              <div>
                <TransactionLink signature={cancellation.signature} />
              </div>
            )}
          </dd>
        </div>
      )}
      {resolution !== undefined && (
        <div>
          <dt>{resolution.confirmed_at === undefined ? "Resolution proposed" : resolution.outcome === "paid" ? "Resolved as paid" : "Resolved as not paid"}</dt>
          <dd>
            {resolution.proposed_by}
            {resolution.confirmed_by !== undefined && resolution.confirmed_by !== "" && `, confirmed by ${resolution.confirmed_by}`}
          </dd>
        </div>
      )}
    </dl>
  );
}

function Payees({ payouts }: { payouts: Payout[] }) {
  if (payouts.length === 0) return <Empty>This batch has no payees.</Empty>;
  return (
    <TableScroll label="Payees">
      <table>
        <thead>
          <tr>
            <th scope="col">Payee</th>
            <th scope="col">For</th>
            <th scope="col">Wallet</th>
            <th scope="col" className="not-narrow">
              Token account
            </th>
            <th scope="col" className="number">
              Amount
            </th>
          </tr>
        </thead>
        <tbody>
          {payouts.map((payout) => (
            <tr key={payout.id}>
              <th scope="row">{payout.payee}</th>
              <td>{PURPOSE_WORDS[payout.purpose]}</td>
              <td>
                <ShortId id={payout.address} what="Wallet address" keep={4} />
              </td>
              <td className="not-narrow">
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
    ["Signature", batch.signature === undefined || batch.signature === "" ? undefined : <TransactionLink key="signature" signature={batch.signature} />],
    ["Slot", batch.slot?.toLocaleString()],
    ["Fee", batch.fee_lamports === undefined ? undefined : <span key="fee" className="nowrap">{solText(batch.fee_lamports)}</span>],
    ["Rent for payees' accounts", batch.rent_lamports === undefined ? undefined : <span key="rent" className="nowrap">{solText(batch.rent_lamports)}</span>],
    ["Memo", batch.memo === undefined || batch.memo === "" ? undefined : <ShortId key="memo" id={batch.memo} what="Memo" keep={8} />],
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
