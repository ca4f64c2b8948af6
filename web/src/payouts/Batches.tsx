import { Link } from "@tanstack/react-router";
import type { Batch } from "../api/types";
import { MoneyText, shortened, State, TableScroll, Time } from "../design/parts";

/** A list of batches; those of one run were drafted together, which it then does not repeat. */
export function Batches({ org, batches, drafted = true }: { org: string; batches: Batch[]; drafted?: boolean }) {
  return (
    <TableScroll label="Batches">
      <table>
        <thead>
          <tr>
            <th scope="col">Batch</th>
            <th scope="col">State</th>
            <th scope="col" className="number not-narrow">
              Payees
            </th>
            <th scope="col" className="number">
              Total
            </th>
            {drafted && (
              <th scope="col" className="not-narrow">
                Drafted
              </th>
            )}
            <th scope="col" className="not-narrow">
              Final
            </th>
          </tr>
        </thead>
        <tbody>
          {batches.map((batch) => (
            <tr key={batch.id}>
              <th scope="row">
                <Link to="/o/$org/finance/payouts/$id" params={{ org, id: batch.id }} className="row-link mono">
                  {shortened(batch.id, drafted ? undefined : 4)}
                </Link>
              </th>
              <td>
                <State machine="batch" state={batch.state} />
                {batch.state !== "finalized" && batch.state_reason !== undefined && batch.state_reason !== "" && <div className="muted anywhere">{batch.state_reason}</div>}
              </td>
              <td className="number not-narrow">{batch.payee_count}</td>
              <td className="number">
                <MoneyText of={batch.total} />
              </td>
              {drafted && (
                <td className="not-narrow">
                  <Time at={batch.created_at} utc />
                </td>
              )}
              <td className="not-narrow">{batch.finalized_at === undefined ? <span className="muted">{batch.state === "failed" || batch.state === "cancelled" ? "never" : "not yet"}</span> : <Time at={batch.finalized_at} utc />}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
