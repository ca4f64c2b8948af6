import { useInfiniteQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import type { Deposit, Sweep } from "../api/types";
import { LoadedList, SafePanel } from "../design/Loaded";
import { Empty, MoneyText, ShortId, State, TableScroll, Time, Toned } from "../design/parts";
import { TransactionLink } from "../design/TransactionLink";
import { Decide } from "./Decide";
import { suspenseQuery, sweepsQuery } from "./queries";

/** What came to a deposit address or the treasury and belongs to nobody yet, and deposits on their way to the treasury. */
export function SuspensePage() {
  const { org } = useParams({ from: "/o/$org/finance/deposits" });
  const suspense = useInfiniteQuery(suspenseQuery(org));
  const sweeps = useInfiniteQuery(sweepsQuery(org));
  return (
    <div className="page">
      <div className="page-head">
        <h1>Deposits</h1>
      </div>
      <p className="muted">What customers send is credited by itself. What could not be credited waits in suspense until somebody decides about it.</p>
      <SafePanel title="In suspense" flush>
        <LoadedList query={suspense} rows={1} empty={<Empty>Nothing is in suspense: every deposit belongs to somebody.</Empty>}>
          {(items) => <Suspense org={org} deposits={items} />}
        </LoadedList>
      </SafePanel>
      <SafePanel title="Sweeps to the treasury" flush>
        <LoadedList query={sweeps} rows={1} empty={<Empty>No sweep yet. Deposits are swept once enough of them lie at an address.</Empty>}>
          {(items) => <Sweeps sweeps={items} />}
        </LoadedList>
      </SafePanel>
    </div>
  );
}

function Suspense({ org, deposits }: { org: string; deposits: Deposit[] }) {
  return (
    <TableScroll label="In suspense">
      <table>
        <thead>
          <tr>
            <th scope="col">When</th>
            <th scope="col">Why</th>
            <th scope="col">Sent to</th>
            <th scope="col" className="number">
              Amount
            </th>
            <th scope="col">Transaction</th>
            <th scope="col">Decision</th>
          </tr>
        </thead>
        <tbody>
          {deposits.map((deposit) => (
            <tr key={deposit.id}>
              <td>
                <Time at={deposit.at} utc />
              </td>
              <td className="wide">{deposit.reason}</td>
              <td className="nowrap">{deposit.customer ?? <span className="muted">the treasury</span>}</td>
              <td className="number">
                {deposit.amount}
                <div className="muted nowrap">
                  of <ShortId id={deposit.mint} what="Mint" keep={4} />
                </div>
              </td>
              <td>
                <TransactionLink signature={deposit.signature} />
              </td>
              <td className="wide">
                <span className="line">
                  <span>
                    <Outcome org={org} deposit={deposit} />
                  </span>
                  <Decide org={org} deposit={deposit} />
                </span>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

const OUTCOMES = {
  credited: { tone: "ok", word: "Credited" },
  kept: { tone: "ok", word: "Kept" },
  refunded: { tone: "busy", word: "Goes back" },
  held: { tone: "warn", word: "Held" },
} as const;

function Outcome({ org, deposit: { outcome, note, decided_by: who, decided_at: when, refund } }: { org: string; deposit: Deposit }) {
  if (outcome === undefined) return <Toned tone="warn">Waits</Toned>;
  const sentBack = outcome === "refunded" && refund?.state === "paid";
  const look = sentBack ? ({ tone: "ok", word: "Sent back" } as const) : OUTCOMES[outcome];
  return (
    <>
      <Toned tone={look.tone}>{look.word}</Toned>
      {note !== undefined && <div className="muted">{note}</div>}
      {who !== undefined && when !== undefined && (
        <div className="muted">
          by {who}, <Time at={when} utc />
        </div>
      )}
      {refund?.attention !== undefined && <div className="muted">{refund.attention}</div>}
      {refund?.batch_id !== undefined && (
        <Link to="/o/$org/finance/payouts/$id" params={{ org, id: refund.batch_id }}>
          Its payout
        </Link>
      )}
    </>
  );
}

function Sweeps({ sweeps }: { sweeps: Sweep[] }) {
  return (
    <TableScroll label="Sweeps to the treasury">
      <table>
        <thead>
          <tr>
            <th scope="col">Planned</th>
            <th scope="col">From the address of</th>
            <th scope="col">State</th>
            <th scope="col" className="number">
              Amount
            </th>
            <th scope="col">Transaction</th>
          </tr>
        </thead>
        <tbody>
          {sweeps.map((sweep) => (
            <tr key={sweep.id}>
              <td>
                <Time at={sweep.planned_at} utc />
              </td>
              <th scope="row">{sweep.customer}</th>
              <td className="wide">
                <State machine="sweep" state={sweep.state} />
                {[sweep.reason, sweep.attention].map((text) => text !== undefined && text !== "" && <div key={text} className="muted">{text}</div>)}
              </td>
              <td className="number">
                <MoneyText of={sweep.amount} />
              </td>
              <td>{sweep.signature === undefined || sweep.signature === "" ? <span className="muted">not sent yet</span> : <TransactionLink signature={sweep.signature} />}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
