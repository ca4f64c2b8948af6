import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import type { ClosedPeriod, PeriodAccount } from "../api/types";
import { Loaded, SafePanel } from "../design/Loaded";
import { MoneyText, ShortId, Skeleton, TableScroll, Time } from "../design/parts";
import { Files } from "./Files";
import { Intact } from "./Intact";
import { periodQuery } from "./queries";
import { monthWords } from "./words";

/** A closed month: its frozen figures, account by account. */
export function MonthPage() {
  const { org, month } = useParams({ from: "/o/$org/finance/books/$month" });
  const query = useQuery(periodQuery(org, month));
  return (
    <div className="page">
      <Loaded
        query={query}
        skeleton={
          <div className="stack">
            <Skeleton height={40} width={320} />
            <Skeleton height={260} />
          </div>
        }
      >
        {(period) => <Content org={org} period={period} />}
      </Loaded>
      <p>
        <Link to="/o/$org/finance/books" params={{ org }} className="row-link">
          All months
        </Link>
      </p>
    </div>
  );
}

function Content({ org, period }: { org: string; period: ClosedPeriod }) {
  return (
    <>
      <div className="page-head">
        <div className="line">
          <h1>{monthWords(period.month)}</h1>
          <Intact intact={period.intact} />
        </div>
        <Files org={org} month={period.month} final />
      </div>
      <SafePanel title="Frozen figures" flush>
        <Figures period={period} accounts={period.accounts ?? []} />
      </SafePanel>
      <SafePanel title="Closing">
        <Facts org={org} period={period} />
      </SafePanel>
    </>
  );
}

function Figures({ period, accounts }: { period: ClosedPeriod; accounts: PeriodAccount[] }) {
  return (
    <TableScroll label="Frozen figures">
      <table>
        <thead>
          <tr>
            <th scope="col">Account</th>
            <th scope="col" className="number">
              Opening
            </th>
            <th scope="col" className="number">
              Debits
            </th>
            <th scope="col" className="number">
              Credits
            </th>
            <th scope="col" className="number">
              Closing
            </th>
          </tr>
        </thead>
        <tbody>
          {accounts.map((account) => (
            <tr key={account.code}>
              <th scope="row">
                {account.name}
                <div className="muted">
                  {account.code}
                  {account.organisations > 0 && `, of ${account.organisations.toLocaleString()} ${account.organisations === 1 ? "organisation" : "organisations"}`}
                </div>
              </th>
              {[account.opening, account.debits, account.credits, account.closing].map((amount, index) => (
                <td key={index} className="number">
                  <MoneyText of={amount} />
                </td>
              ))}
            </tr>
          ))}
          <tr>
            <th scope="row">All accounts</th>
            <td />
            <td className="number strong">
              <MoneyText of={period.debits} />
            </td>
            <td className="number strong">
              <MoneyText of={period.credits} />
            </td>
            <td />
          </tr>
        </tbody>
      </table>
    </TableScroll>
  );
}

function Facts({ org, period }: { org: string; period: ClosedPeriod }) {
  return (
    <dl className="pairs">
      <div>
        <dt>Closed</dt>
        <dd>
          <Time at={period.closed_at} utc />, {period.closed_by}
        </dd>
      </div>
      <div>
        <dt>On</dt>
        <dd>
          <Link to="/o/$org/finance/reconcile/$id" params={{ org, id: period.reconciliation_id }}>
            this reconciliation
          </Link>
        </dd>
      </div>
      <div>
        <dt>Entries</dt>
        <dd>{period.entries.toLocaleString()}</dd>
      </div>
      <div>
        <dt>SHA-256</dt>
        <dd>
          <ShortId id={period.sha256} what="SHA-256 of the figures" keep={4} />
        </dd>
      </div>
    </dl>
  );
}
