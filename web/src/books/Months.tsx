import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { ClosedPeriod } from "../api/types";
import { Loaded, SafePanel } from "../design/Loaded";
import { Empty, MoneyText, ShortId, Skeleton, TableScroll, Time, Toned } from "../design/parts";
import { periodFile, periodQuery, periodsQuery } from "./queries";
import { Reopen } from "./Reopen";

const FILES = [
  ["report", "Report"],
  ["cryptio", "Cryptio"],
  ["quickbooks", "QuickBooks"],
  ["xero", "Xero"],
] as const;

export function Months({ org }: { org: string }) {
  const periods = useQuery(periodsQuery(org));
  return (
    <SafePanel title="Closed months" flush>
      <Loaded query={periods} skeleton={<Skeleton height={40} />}>
        {({ items }) => (items.length === 0 ? <Empty>No month is closed yet.</Empty> : <Table org={org} periods={items} />)}
      </Loaded>
    </SafePanel>
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
                {period.month}
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
                {period.state === "closed" && (
                  <span className="stack" data-gap="tiny">
                    {FILES.map(([form, name]) => (
                      <a key={form} className="nowrap" href={periodFile(org, period.month, form)} {...(form === "report" ? { target: "_blank", rel: "noreferrer" } : { download: true })}>
                        {name}
                      </a>
                    ))}
                  </span>
                )}
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
  if (data?.intact === false) return <Toned tone="bad">The ledger says otherwise now</Toned>;
  return <Toned tone="ok">{data?.intact === true ? "Closed, still the same" : "Closed"}</Toned>;
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
