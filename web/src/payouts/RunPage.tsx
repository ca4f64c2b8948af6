import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { useEffect, useRef } from "react";
import type { PayoutRun } from "../api/types";
import { announce } from "../design/announce";
import { Loaded, SafePanel } from "../design/Loaded";
import { Empty, MoneyText, Notice, ShortId, shortened, Skeleton, State, TableScroll, Time } from "../design/parts";
import { ApproveRun } from "./Approve";
import { Batches } from "./Batches";
import { runQuery } from "./queries";
import { count, KIND_WORDS, payeesPaid, PURPOSE_WORDS, runSteps, solText } from "./words";
import "./payouts.css";

export function RunPage() {
  const { org, run } = useParams({ from: "/o/$org/finance/payouts/runs/$run" });
  const query = useQuery(runQuery(org, run));
  return (
    <div className="page">
      <Loaded
        query={query}
        skeleton={
          <div className="stack">
            <Skeleton height={40} width={320} />
            <Skeleton height={110} />
            <Skeleton height={260} />
          </div>
        }
      >
        {(loaded) => <Content org={org} run={loaded} />}
      </Loaded>
      <p>
        <Link to="/o/$org/finance/payouts" params={{ org }} className="row-link">
          All payouts
        </Link>
      </p>
    </div>
  );
}

function Content({ org, run }: { org: string; run: PayoutRun }) {
  const progress = run.progress ?? [];
  const { paid, all } = payeesPaid(progress);
  const ended = useRef(paid);
  useEffect(() => {
    if (paid > ended.current && paid === all) announce("Every payee of this run is paid");
    ended.current = paid;
  }, [paid, all]);
  const heldBack = (run.payees ?? []).filter((payee) => payee.batch_id === undefined);
  const drafted = (run.payees ?? []).filter((payee) => payee.batch_id !== undefined);
  return (
    <>
      <div className="page-head">
        <div className="line">
          <h1>
            Payout run of <MoneyText of={run.total} />
          </h1>
          <State machine="run" state={run.state} />
        </div>
        <div className="line">
          <ApproveRun org={org} run={run} />
        </div>
      </div>
      {run.state !== "done" && run.reason !== undefined && run.reason !== "" && (
        <Notice tone={run.state === "failed" ? "bad" : "busy"}>
          <p>
            {run.state === "failed" ? "It ended: " : "It goes on by itself: "}
            {run.reason}
          </p>
        </Notice>
      )}
      <Progress run={run} paid={paid} all={all} />
      <div className="columns">
        <div className="stack">
          {heldBack.length > 0 && (
            <SafePanel title={`Held back, ${count(run.left_out_count, "payee")}`} aside={<span className="muted">the others are paid all the same</span>} flush>
              <HeldBack payees={heldBack} />
            </SafePanel>
          )}
          <SafePanel title="Batches" aside={<span className="muted">one chain transaction each</span>} flush>
            {(run.batches ?? []).length === 0 ? <Empty>{run.state === "drafting" ? "Nothing is drafted yet." : "Nobody could be paid."}</Empty> : <Batches org={org} batches={run.batches ?? []} drafted={false} />}
          </SafePanel>
          {drafted.length > 0 && (
            <SafePanel title={`Drafted, ${count(run.payee_count, "payee")}`} aside={drafted.length < run.payee_count ? <span className="muted">the largest {drafted.length.toLocaleString()}</span> : undefined} flush>
              <Drafted org={org} payees={drafted} run={run} />
            </SafePanel>
          )}
        </div>
        <SafePanel title="Run">
          <Facts run={run} />
        </SafePanel>
      </div>
    </>
  );
}

/** How many payees are where on the way from draft to final. */
function Progress({ run, paid, all }: { run: PayoutRun; paid: number; all: number }) {
  if (all === 0 && (run.progress ?? []).length === 0) return null;
  return (
    <section className="progress" aria-label="Progress">
      <div className="line" data-spread>
        <span className="strong">
          {paid.toLocaleString()} of {count(all, "payee")} paid
        </span>
        {run.state === "drafting" && <span className="muted">more are being drafted</span>}
      </div>
      <progress max={Math.max(all, 1)} value={paid} aria-label="Payees paid" />
      <ol className="way" data-plain>
        {runSteps(run.progress ?? []).map(({ state, step }) => (
          <li key={state} data-none={step === undefined ? "" : undefined}>
            {step === undefined ? <span className="muted">{STEP_WORDS[state] ?? state}</span> : <State machine="batch" state={state} />}
            {step === undefined ? <span className="muted">none</span> : <span>{count(step.payee_count, "payee")}</span>}
            {step !== undefined && (
              <span className="muted">
                <MoneyText of={step.total} />
              </span>
            )}
          </li>
        ))}
      </ol>
    </section>
  );
}

const STEP_WORDS: Partial<Record<string, string>> = { draft: "Draft", approved: "Approved", signed: "Signed", sent: "Sent", finalized: "Finalized" };

type RunPayees = NonNullable<PayoutRun["payees"]>;

function HeldBack({ payees }: { payees: RunPayees }) {
  return (
    <TableScroll label="Held back">
      <table>
        <thead>
          <tr>
            <th scope="col">Payee</th>
            <th scope="col" className="not-narrow">
              For
            </th>
            <th scope="col">Why</th>
            <th scope="col" className="number">
              Amount
            </th>
          </tr>
        </thead>
        <tbody>
          {payees.map((payee, index) => (
            <tr key={`${payee.org_id} ${payee.purpose} ${index}`}>
              <th scope="row">{payee.name}</th>
              <td className="not-narrow">{PURPOSE_WORDS[payee.purpose]}</td>
              <td>{payee.reason}</td>
              <td className="number">
                <MoneyText of={payee.amount} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

function Drafted({ org, payees, run }: { org: string; payees: RunPayees; run: PayoutRun }) {
  const states = new Map((run.batches ?? []).map((batch) => [batch.id, batch.state]));
  return (
    <TableScroll label="Drafted payees">
      <table>
        <thead>
          <tr>
            <th scope="col">Payee</th>
            <th scope="col" className="not-narrow">
              For
            </th>
            <th scope="col" className="not-narrow">
              Batch
            </th>
            <th scope="col">State</th>
            <th scope="col" className="number">
              Amount
            </th>
          </tr>
        </thead>
        <tbody>
          {payees.map((payee, index) => {
            const state = payee.batch_id === undefined ? undefined : states.get(payee.batch_id);
            return (
              <tr key={`${payee.org_id} ${payee.purpose} ${index}`}>
                <th scope="row">{payee.name}</th>
                <td className="not-narrow">{PURPOSE_WORDS[payee.purpose]}</td>
                <td className="not-narrow">
                  {payee.batch_id !== undefined && (
                    <Link to="/o/$org/finance/payouts/$id" params={{ org, id: payee.batch_id }} className="row-link mono">
                      {shortened(payee.batch_id, 4)}
                    </Link>
                  )}
                </td>
                <td>{state !== undefined && <State machine="batch" state={state} />}</td>
                <td className="number">
                  <MoneyText of={payee.amount} />
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </TableScroll>
  );
}

function Facts({ run }: { run: PayoutRun }) {
  const sum = (pick: (step: NonNullable<PayoutRun["progress"]>[number]) => number) => (run.progress ?? []).reduce((total, step) => total + pick(step), 0);
  return (
    <dl className="pairs">
      <div>
        <dt>Run</dt>
        <dd>
          <ShortId id={run.id} what="Run id" keep={4} />
        </dd>
      </div>
      <div>
        <dt>Begun</dt>
        <dd>
          {KIND_WORDS[run.kind]}
          {run.requested_by !== undefined && run.requested_by !== "" && `, ${run.requested_by}`}
        </dd>
      </div>
      {run.scheduled_for !== undefined && (
        <div>
          <dt>Planned for</dt>
          <dd>
            <Time at={run.scheduled_for} utc />
          </dd>
        </div>
      )}
      <div>
        <dt>At</dt>
        <dd>
          <Time at={run.started_at} utc />
        </dd>
      </div>
      <div>
        <dt>All drafted</dt>
        <dd>{run.finished_at === undefined ? <span className="muted">not yet</span> : <Time at={run.finished_at} utc />}</dd>
      </div>
      <div>
        <dt>Fees</dt>
        <dd className="nowrap">{solText(sum((step) => step.fee_lamports))}</dd>
      </div>
      <div>
        <dt>Rent for payees&apos; accounts</dt>
        <dd className="nowrap">{solText(sum((step) => step.rent_lamports))}</dd>
      </div>
    </dl>
  );
}
