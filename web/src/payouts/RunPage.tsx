import { useQuery } from "@tanstack/react-query";
import { useParams } from "@tanstack/react-router";
import { useEffect, useRef } from "react";
import type { PayoutRun } from "../api/types";
import { announce } from "../design/announce";
import { SafePanel } from "../design/Loaded";
import { MoneyText, Notice, ShortId, State, Time } from "../design/parts";
import { ApproveRun } from "./Approve";
import { Frame } from "./Frame";
import { runQuery } from "./queries";
import { HeldBack, RunBatches, RunPayees } from "./RunLists";
import { count, KIND_WORDS, payeesPaid, runSteps, solText } from "./words";
import "./payouts.css";

export function RunPage() {
  const { org, run } = useParams({ from: "/o/$org/finance/payouts/runs/$run" });
  const query = useQuery(runQuery(org, run));
  return (
    <Frame org={org} query={query}>
      {(loaded) => <Content org={org} run={loaded} />}
    </Frame>
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
          {run.left_out_count > 0 && <HeldBack org={org} run={run} />}
          <RunBatches org={org} run={run} />
          {run.payee_count > 0 && <RunPayees org={org} run={run} />}
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
