import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import type { ClosedPeriod } from "../api/types";
import { useAction } from "../api/useAction";
import { ActionError, Loaded, SafePanel } from "../design/Loaded";
import { Button, Empty, MoneyText, ShortId, Skeleton, TableScroll, Time, Toned } from "../design/parts";
import { auditFile, monthBefore, periodFile, periodsQuery } from "./queries";

const FORMS = [
  ["cryptio", "Cryptio"],
  ["quickbooks", "QuickBooks"],
  ["xero", "Xero"],
  ["report", "Report"],
] as const;

/** Closed months, with their files. */
export function Periods({ org }: { org: string }) {
  const [month, setMonth] = useState(() => monthBefore(new Date()));
  const periods = useQuery(periodsQuery(org));
  const close = useAction({
    run: (_: undefined, header) => unwrap(client.POST("/v1/finance/periods", { params: { query: { org }, header }, body: { month } })),
    invalidates: [["periods", org]],
    done: "Month closed",
  });
  return (
    <SafePanel title="Closed months">
      <form
        className="line"
        onSubmit={(event) => {
          event.preventDefault();
          close.mutate(undefined);
        }}
      >
        <input aria-label="Month to close" pattern="[0-9]{4}-[0-9]{2}" required size={8} value={month} onChange={(event) => setMonth(event.target.value)} />
        <Button type="submit" size="small" busy={close.isPending}>
          Close month
        </Button>
        <a className="button" data-size="small" href={auditFile(org)} download>
          Audit log
        </a>
      </form>
      <ActionError error={close.error} />
      <Loaded query={periods} skeleton={<Skeleton height={40} />}>
        {({ items }) => (items.length === 0 ? <Empty>No month is closed yet.</Empty> : <Months org={org} periods={items} />)}
      </Loaded>
    </SafePanel>
  );
}

function Months({ org, periods }: { org: string; periods: ClosedPeriod[] }) {
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
              <th scope="row">{period.month}</th>
              <td>{period.state === "closed" ? <Toned tone="ok">Closed</Toned> : "Opened again"}</td>
              <td>
                <Time at={period.closed_at} utc /> {period.closed_by}
              </td>
              <td className="number">
                <MoneyText of={period.debits} />
              </td>
              <td>
                <ShortId id={period.sha256} what="SHA-256 of the figures" keep={6} />
              </td>
              <td>
                {period.state === "closed" && (
                  <span className="line">
                    {FORMS.map(([form, name]) => (
                      <a key={form} className="button" data-size="small" href={periodFile(org, period.month, form)} download>
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
