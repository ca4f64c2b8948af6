import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { ClosedPeriod } from "../api/types";
import { Loaded, SafePanel } from "../design/Loaded";
import { Empty, MoneyText, ShortId, Skeleton, TableScroll, Time, Toned } from "../design/parts";
import { Files } from "./Files";
import { Intact } from "./Intact";
import { openMonths, periodQuery, periodsQuery } from "./queries";
import { Reopen } from "./Reopen";

export function Months({ org }: { org: string }) {
  const periods = useQuery(periodsQuery(org));
  return (
    <>
      <SafePanel title="Closed months" flush>
        <Loaded query={periods} skeleton={<Skeleton height={40} />}>
          {({ items }) => (items.length === 0 ? <Empty>No month is closed yet.</Empty> : <Table org={org} periods={items} />)}
        </Loaded>
      </SafePanel>
      {periods.data !== undefined && (
        <SafePanel title="Open months" aside={<Toned tone="warn">Not final</Toned>} flush>
          <OpenMonths org={org} months={openMonths(periods.data.items, new Date())} />
        </SafePanel>
      )}
    </>
  );
}

/** The files of months that can still change, as far as the months have come. */
function OpenMonths({ org, months }: { org: string; months: string[] }) {
  if (months.length === 0) return <Empty>Every month so far is closed.</Empty>;
  return (
    <TableScroll label="Open months">
      <table>
        <thead>
          <tr>
            <th scope="col">Month</th>
            <th scope="col">Files, as of now</th>
          </tr>
        </thead>
        <tbody>
          {months.map((month) => (
            <tr key={month}>
              <th scope="row" className="nowrap">
                {month}
              </th>
              <td className="wide">
                <Files org={org} month={month} final={false} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

function Table({ org, periods }: { org: string; periods: ClosedPeriod[] }) {
  return (
    <TableScroll label="Closed months">
      <table>
        <thead>
          <tr>
            <th scope="col">Month</th>
            <th scope="col">State</th>
            <th scope="col">Closed</th>
            <th scope="col" className="number">
              Debits and credits
            </th>
            <th scope="col">SHA-256</th>
            <th scope="col">Files</th>
          </tr>
        </thead>
        <tbody>
          {periods.map((period) => (
            <tr key={`${period.month} ${period.closed_at}`}>
              <th scope="row" className="nowrap">
                {period.state === "closed" ? (
                  <Link to="/o/$org/finance/books/$month" params={{ org, month: period.month }} className="row-link">
                    {period.month}
                  </Link>
                ) : (
                  period.month
                )}
              </th>
              <td className="wide">
                {period.state === "closed" ? (
                  <span className="line">
                    <Standing org={org} month={period.month} />
                    <Reopen org={org} period={period} />
                  </span>
                ) : (
                  <Opened period={period} />
                )}
              </td>
              <td>
                <Time at={period.closed_at} utc />
                <div className="muted nowrap">
                  by {period.closed_by}, on{" "}
                  <Link to="/o/$org/finance/reconcile/$id" params={{ org, id: period.reconciliation_id }}>
                    this reconciliation
                  </Link>
                </div>
              </td>
              <td className="number">
                <MoneyText of={period.debits} />
                <div className="muted nowrap">in {period.entries.toLocaleString()} entries</div>
              </td>
              <td>
                <ShortId id={period.sha256} what="SHA-256 of the figures" keep={4} />
              </td>
              <td>
                {period.state === "closed" && <Files org={org} month={period.month} final />}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

/** Whether the ledger still says what was frozen: asked month by month, as the server adds it all up anew. */
function Standing({ org, month }: { org: string; month: string }) {
  const { data } = useQuery(periodQuery(org, month));
  return <Intact intact={data?.intact} />;
}

function Opened({ period }: { period: ClosedPeriod }) {
  return (
    <>
      <Toned tone="warn">Opened again</Toned>
      <div className="muted">
        {period.reopened_at !== undefined && <Time at={period.reopened_at} utc />} by {period.reopen_asked_by} and {period.reopened_by}: {period.reopen_reason}
      </div>
    </>
  );
}
