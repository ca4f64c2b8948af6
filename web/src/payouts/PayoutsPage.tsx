import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import type { PayableSummary, PayoutRun } from "../api/types";
import { Loaded, LoadedList, SafePanel } from "../design/Loaded";
import { Empty, MoneyText, Notice, Skeleton, State, TableScroll, Time } from "../design/parts";
import { isZero } from "../money/money";
import { Batches } from "./Batches";
import { Nonces } from "./Nonces";
import { Payees } from "./Payees";
import { batchesQuery, payableQuery, runsQuery } from "./queries";
import { Schedule } from "./Schedule";
import { StartRun } from "./StartRun";
import { count, KIND_WORDS } from "./words";
import "./payouts.css";

export function PayoutsPage() {
  const { org } = useParams({ from: "/o/$org/finance/payouts" });
  const payable = useQuery(payableQuery(org));
  const runs = useInfiniteQuery(runsQuery(org));
  const batches = useInfiniteQuery(batchesQuery(org));
  const frozen = (batches.data ?? []).filter((batch) => batch.state === "frozen");
  return (
    <div className="page">
      <div className="page-head">
        <h1>Payouts</h1>
        <div className="line">
          <StartRun org={org} obstacle={obstacleOf(payable.data, runs.data)} />
        </div>
      </div>
      {frozen.map((batch) => (
        <Notice key={batch.id} tone="bad">
          <p>
            <span className="strong">
              A payout of <MoneyText of={batch.total} /> is frozen.
            </span>{" "}
            Two people decide how it ended.{" "}
            <Link to="/o/$org/finance/payouts/$id" params={{ org, id: batch.id }}>
              Look at it
            </Link>
          </p>
        </Notice>
      ))}
      <Loaded query={payable} skeleton={<PayableSkeleton />}>
        {(loaded) => <Payable payable={loaded} />}
      </Loaded>
      <SafePanel title="Runs" flush>
        <LoadedList query={runs} empty={<Empty>No payout run has begun yet.</Empty>}>
          {(items) => <Runs org={org} runs={items} />}
        </LoadedList>
      </SafePanel>
      <SafePanel title="Batches" aside={<span className="muted">one chain transaction each</span>} flush>
        <LoadedList query={batches} empty={<Empty>No payout has been drafted yet.</Empty>}>
          {(items) => <Batches org={org} batches={items} />}
        </LoadedList>
      </SafePanel>
      <div className="two">
        <Schedule org={org} minimum={payable.data?.minimum} />
        <Nonces org={org} />
      </div>
    </div>
  );
}

/** Why a run cannot be begun now; what is not known yet is no reason to say anything. */
function obstacleOf(payable: PayableSummary | undefined, runs: PayoutRun[] | undefined): string | undefined {
  if (runs?.[0]?.state === "drafting") return "A run is under way.";
  if (payable?.payees.length === 0) return "Nobody can be paid now.";
  return undefined;
}

function PayableSkeleton() {
  return (
    <div className="stack" role="status">
      <span className="visually-hidden">Loading what is payable</span>
      <Skeleton height={68} />
      <Skeleton height={160} />
    </div>
  );
}

function Payable({ payable }: { payable: PayableSummary }) {
  return (
    <>
      <dl className="figures">
        <div className="figure">
          <dt>Payable now</dt>
          <dd>
            <MoneyText of={payable.total} />
          </dd>
          <dd className="hint">{count(payable.payees.length, "payee")}</dd>
        </div>
        <div className="figure">
          <dt>Held back</dt>
          <dd>{count(payable.left_out.length, "payee")}</dd>
          <dd className="hint">{payable.left_out.length === 0 ? "nobody waits" : "with the reason below"}</dd>
        </div>
        <div className="figure">
          <dt>Treasury on chain</dt>
          <dd>{payable.treasury === undefined ? "unknown" : <MoneyText of={payable.treasury} />}</dd>
          <dd className="hint">{payable.treasury === undefined ? "the chain cannot be read now" : "read live"}</dd>
        </div>
        <div className="figure">
          <dt>Smallest payout</dt>
          <dd>
            <MoneyText of={payable.minimum} />
          </dd>
          <dd className="hint">smaller balances wait</dd>
        </div>
      </dl>
      <div className="two">
        <SafePanel title="Payees of the next run" flush>
          {payable.payees.length === 0 ? <Empty>{isZero(payable.total) ? "Nothing is payable: nobody has earned or withdrawn since the last payout." : "Nobody can be paid yet."}</Empty> : <Payees payees={payable.payees} label="Payees" reasons={false} />}
        </SafePanel>
        <SafePanel title="Held back" flush>
          {payable.left_out.length === 0 ? <Empty>Nobody is held back.</Empty> : <Payees payees={payable.left_out} label="Held back" reasons />}
        </SafePanel>
      </div>
    </>
  );
}

function Runs({ org, runs }: { org: string; runs: PayoutRun[] }) {
  return (
    <TableScroll label="Runs">
      <table>
        <thead>
          <tr>
            <th scope="col">Begun</th>
            <th scope="col" className="not-narrow">
              How
            </th>
            <th scope="col">State</th>
            <th scope="col" className="number not-narrow">
              Batches
            </th>
            <th scope="col" className="number not-narrow">
              Payees
            </th>
            <th scope="col" className="number not-narrow">
              Held back
            </th>
            <th scope="col" className="number">
              Total
            </th>
          </tr>
        </thead>
        <tbody>
          {runs.map((run) => (
            <tr key={run.id}>
              <th scope="row">
                <Link to="/o/$org/finance/payouts/runs/$run" params={{ org, run: run.id }} className="row-link">
                  <Time at={run.started_at} utc />
                </Link>
              </th>
              <td className="not-narrow">
                {KIND_WORDS[run.kind]}
                {run.requested_by !== undefined && run.requested_by !== "" && <span className="muted">, {run.requested_by}</span>}
              </td>
              <td>
                <State machine="run" state={run.state} />
                {run.state !== "done" && run.reason !== undefined && run.reason !== "" && <div className="muted">{run.reason}</div>}
              </td>
              <td className="number not-narrow">{run.batch_count}</td>
              <td className="number not-narrow">{run.payee_count}</td>
              <td className="number not-narrow">{run.left_out_count}</td>
              <td className="number">
                <MoneyText of={run.total} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
