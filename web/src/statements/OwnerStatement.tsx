import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { EarningsStatement } from "../api/types";
import { Loaded, SafePanel } from "../design/Loaded";
import { Empty, MoneyText, TableScroll, Time } from "../design/parts";
import { TransactionLink } from "../design/TransactionLink";
import { shortHours } from "./month";
import { Credits, Movements, StatementSkeleton, Sum } from "./parts";
import { earningsStatementQuery } from "./queries";

export function OwnerStatement({ org, month, owner }: { org: string; month: string; owner: boolean }) {
  const statement = useQuery(earningsStatementQuery(org, month));
  return (
    <Loaded query={statement} skeleton={<StatementSkeleton />}>
      {(loaded) => <Content org={org} statement={loaded} owner={owner} />}
    </Loaded>
  );
}

function Content({ org, statement, owner }: { org: string; statement: EarningsStatement; owner: boolean }) {
  const { opening, closing, totals, hosts, payouts, movements } = statement;
  const credits = hosts.flatMap((host) => host.credits.map((credit) => ({ ...credit, name: host.name })));
  return (
    <>
      <dl className="figures">
        <div className="figure">
          <dt>Earned</dt>
          <dd>
            <MoneyText of={totals.net} />
          </dd>
          <dd className="hint">{shortHours(totals.gpu_hours)} GPU-hours</dd>
        </div>
        <div className="figure">
          <dt>Not earned</dt>
          <dd>
            <MoneyText of={totals.not_earned} />
          </dd>
          <dd className="hint">not delivered</dd>
        </div>
        <div className="figure">
          <dt>Paid out</dt>
          <dd>
            <MoneyText of={totals.paid} />
          </dd>
          <dd className="hint">final on chain</dd>
        </div>
      </dl>
      <div className="two">
        <SafePanel title="What is owed to you">
          <Sum
            lines={[
              { word: "Opening", amount: opening.total, total: true },
              { word: "Charged to customers", amount: totals.gross, sign: "+" },
              { word: "The platform's fee", amount: totals.fee, sign: "−" },
              { word: "Paid out on chain", amount: totals.paid, sign: "−", optional: true },
              { word: "Other", amount: totals.other, optional: true },
              { word: statement.open ? "Now" : "Closing", amount: closing.total, total: true },
              { word: "of it in payouts under way", amount: closing.in_flight, part: true, optional: true },
            ]}
          />
        </SafePanel>
        <SafePanel title="Hosts" flush>
          {hosts.length === 0 ? <Empty>No host was rented in this month.</Empty> : <Hosts org={org} hosts={hosts} owner={owner} />}
        </SafePanel>
      </div>
      {credits.length > 0 && (
        <SafePanel title="Not delivered, and so not earned" flush>
          <Credits head="Host" amount="Would have been charged" credits={credits} />
        </SafePanel>
      )}
      <SafePanel title="Payouts" flush>
        {payouts.length === 0 ? <Empty>No payout moved in this month.</Empty> : <Payouts payouts={payouts} />}
      </SafePanel>
      {movements.length > 0 && (
        <SafePanel title="Other movements" flush>
          <Movements label="Other movements" movements={movements} />
        </SafePanel>
      )}
    </>
  );
}

function Hosts({ org, hosts, owner }: { org: string; hosts: EarningsStatement["hosts"]; owner: boolean }) {
  return (
    <TableScroll label="Earnings per host">
      <table>
        <thead>
          <tr>
            <th scope="col">Host</th>
            <th scope="col" className="number">
              Gross
            </th>
            <th scope="col" className="number">
              Fee
            </th>
            <th scope="col" className="number">
              Net
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
                <div className="muted nowrap">{shortHours(host.gpu_hours)} GPU-hours</div>
              </th>
              <td className="number">
                <MoneyText of={host.gross} />
              </td>
              <td className="number">
                <MoneyText of={host.fee} />
              </td>
              <td className="number">
                <MoneyText of={host.net} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

const WORDS: Record<EarningsStatement["payouts"][number]["kind"], string> = {
  payout_reserve: "Put into a payout",
  payout_paid: "Paid on chain",
  payout_return: "Taken back: it did not happen",
};

function Payouts({ payouts }: { payouts: EarningsStatement["payouts"] }) {
  return (
    <TableScroll label="Payouts">
      <table>
        <thead>
          <tr>
            <th scope="col">When</th>
            <th scope="col">What</th>
            <th scope="col" className="number">
              Amount
            </th>
            <th scope="col">Transaction</th>
          </tr>
        </thead>
        <tbody>
          {payouts.map((payout) => (
            <tr key={`${payout.at} ${payout.kind} ${payout.batch_id ?? ""}`}>
              <th scope="row">
                <Time at={payout.at} utc />
              </th>
              <td className="statement-words">{WORDS[payout.kind]}</td>
              <td className="number">
                <MoneyText of={payout.amount} />
              </td>
              <td>{payout.signature === undefined || payout.signature === "" ? <span className="muted">none</span> : <TransactionLink signature={payout.signature} />}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
