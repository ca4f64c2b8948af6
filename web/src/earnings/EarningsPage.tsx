import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { client, unwrap } from "../api/client";
import { paged } from "../api/paged";
import type { Earnings, Payout } from "../api/types";
import { Loaded, LoadedList, SafePanel } from "../design/Loaded";
import { Empty, MoneyText, Notice, ShortId, Skeleton, State, TableScroll, Time } from "../design/parts";
import { TransactionLink } from "../design/TransactionLink";
import { PayoutAddressButton } from "../funds/PayoutAddress";
import { formatMoney } from "../money/money";
import { hasRole, meQuery } from "../session/session";
import { shares } from "./bars";
import { PayoutProof } from "./PayoutProof";
import "./earnings.css";

const POLL_MS = 5_000;

export function EarningsPage() {
  const { org } = useParams({ from: "/o/$org/earnings" });
  const me = useQuery(meQuery);
  const membership = me.data?.organisations.find((one) => one.org_id === org);
  const earnings = useQuery({
    queryKey: ["earnings", org],
    queryFn: ({ signal }) => unwrap(client.GET("/v1/earnings", { params: { query: { org } }, signal })),
    refetchInterval: POLL_MS,
  });
  const payouts = useInfiniteQuery({
    ...paged(["payouts", org], (page, signal) => unwrap(client.GET("/v1/payouts", { params: { query: { org, ...page } }, signal }))),
    refetchInterval: POLL_MS,
  });
  return (
    <div className="page">
      <div className="page-head">
        <h1>Earnings</h1>
        {membership !== undefined && (
          <span className="line muted" data-gap="small">
            {membership.payout_address !== undefined && membership.payout_address !== "" && (
              <>
                Paid to <ShortId id={membership.payout_address} what="Payout address" />
              </>
            )}
            <PayoutAddressButton org={org} current={membership.payout_address} />
          </span>
        )}
      </div>
      {membership !== undefined && (membership.payout_address === undefined || membership.payout_address === "") && (
        <Notice tone="warn">
          <p>Your organisation has no payout address. Earnings add up, and are paid out once it has one.</p>
        </Notice>
      )}
      <Loaded query={earnings} skeleton={<EarningsSkeleton />}>
        {(loaded) => <Content org={org} earnings={loaded} owner={membership !== undefined && hasRole(membership, "owner")} />}
      </Loaded>
      <SafePanel title="Payouts" flush>
        <LoadedList query={payouts} empty={<Empty>Nothing has been paid out yet. Payable amounts go into the next payout run.</Empty>}>
          {(items) => <Payouts org={org} payouts={items} />}
        </LoadedList>
      </SafePanel>
    </div>
  );
}

function EarningsSkeleton() {
  return (
    <div className="stack" role="status">
      <span className="visually-hidden">Loading the earnings</span>
      <Skeleton height={84} />
      <Skeleton height={240} />
    </div>
  );
}

function Content({ org, earnings, owner }: { org: string; earnings: Earnings; owner: boolean }) {
  return (
    <>
      <dl className="figures">
        <div className="figure">
          <dt>Payable</dt>
          <dd>
            <MoneyText of={earnings.payable} />
          </dd>
          <dd className="hint">Earned, not yet in a payout</dd>
        </div>
        <div className="figure">
          <dt>In flight</dt>
          <dd>
            <MoneyText of={earnings.in_flight} />
          </dd>
          <dd className="hint">In a payout that is not final</dd>
        </div>
        <div className="figure">
          <dt>Paid</dt>
          <dd>
            <MoneyText of={earnings.paid} />
          </dd>
          <dd className="hint">Final on chain</dd>
        </div>
      </dl>
      <div className="two">
        <SafePanel title="Per day, UTC">
          <Days days={earnings.days} />
        </SafePanel>
        <SafePanel title="Per host" flush>
          <Hosts org={org} hosts={earnings.hosts} owner={owner} />
        </SafePanel>
      </div>
    </>
  );
}

const MOST_BARS = 30;

function Days({ days }: { days: Earnings["days"] }) {
  if (days.length === 0) return <Empty>A bar appears on the first day with earnings.</Empty>;
  // Newest first from the server; time runs to the right in a chart.
  const shown = [...days].sort((a, b) => a.day.localeCompare(b.day)).slice(-MOST_BARS);
  const heights = shares(shown.map((day) => day.earned));
  return (
    <figure className="stack" data-gap="small">
      <div className="days" aria-hidden="true">
        {shown.map((day, index) => (
          <span key={day.day} className="day" style={{ height: `${(heights[index] ?? 0) * 100}%` }} title={`${day.day}: ${formatMoney(day.earned)}`} />
        ))}
      </div>
      <figcaption className="line muted" data-spread>
        <span>{shown[0]?.day}</span>
        {shown.length > 1 && <span>{shown.at(-1)?.day}</span>}
      </figcaption>
      <details>
        <summary>Show as a table</summary>
        <TableScroll label="Earned and paid per day">
          <table>
            <thead>
              <tr>
                <th scope="col">Day</th>
                <th scope="col" className="number">
                  Earned
                </th>
                <th scope="col" className="number">
                  Paid
                </th>
              </tr>
            </thead>
            <tbody>
              {[...shown].reverse().map((day) => (
                <tr key={day.day}>
                  <th scope="row">{day.day}</th>
                  <td className="number">
                    <MoneyText of={day.earned} />
                  </td>
                  <td className="number">
                    <MoneyText of={day.paid} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableScroll>
      </details>
    </figure>
  );
}

function Hosts({ org, hosts, owner }: { org: string; hosts: Earnings["hosts"]; owner: boolean }) {
  if (hosts.length === 0) return <Empty>No host has earned yet.</Empty>;
  return (
    <TableScroll label="Earnings per host">
      <table>
        <thead>
          <tr>
            <th scope="col">Host</th>
            <th scope="col" className="number">
              GPU-hours
            </th>
            <th scope="col" className="number">
              Earned
            </th>
          </tr>
        </thead>
        <tbody>
          {hosts.map((host) => (
            <tr key={host.host_id}>
              <th scope="row">
                {owner ? (
                  <Link to="/o/$org/hosts/$id" params={{ org, id: host.host_id }} className="row-link">
                    {host.name}
                  </Link>
                ) : (
                  host.name
                )}
              </th>
              <td className="number">{host.gpu_hours}</td>
              <td className="number">
                <MoneyText of={host.earned} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

function Payouts({ org, payouts }: { org: string; payouts: Payout[] }) {
  return (
    <TableScroll label="Payouts">
      <table>
        <thead>
          <tr>
            <th scope="col">Payout</th>
            <th scope="col">State</th>
            <th scope="col" className="number">
              Amount
            </th>
            <th scope="col">To</th>
            <th scope="col">Transaction</th>
            <th scope="col">Final</th>
            <th scope="col">
              <span className="visually-hidden">Proof</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {payouts.map((payout) => (
            <tr key={payout.id}>
              <th scope="row">
                <ShortId id={payout.id} what="Payout id" keep={4} />
              </th>
              <td>
                <State machine="batch" state={payout.state} />
              </td>
              <td className="number">
                <MoneyText of={payout.amount} />
              </td>
              <td>
                <ShortId id={payout.address} what="Wallet address" keep={4} />
              </td>
              <td>{payout.signature === undefined || payout.signature === "" ? <span className="muted">not yet</span> : <TransactionLink signature={payout.signature} />}</td>
              <td>{payout.finalized_at === undefined ? <span className="muted">not yet</span> : <Time at={payout.finalized_at} />}</td>
              <td>{payout.finalized_at !== undefined && <PayoutProof org={org} payout={payout} />}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
