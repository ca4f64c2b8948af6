import { Link } from "@tanstack/react-router";
import type { Batch } from "../api/types";
import { MoneyText, shortened, State, TableScroll, Time } from "../design/parts";

export function Batches({ org, batches }: { org: string; batches: Batch[] }) {
  return (
    <TableScroll label="Batches">
      <table>
        <thead>
          <tr>
            <th scope="col">Batch</th>
            <th scope="col">State</th>
            <th scope="col" className="number">
              Payees
            </th>
            <th scope="col" className="number">
              Total
            </th>
            <th scope="col">Drafted</th>
            <th scope="col">Final</th>
          </tr>
        </thead>
        <tbody>
          {batches.map((batch) => (
            <tr key={batch.id}>
              <th scope="row">
                <Link to="/o/$org/finance/payouts/$id" params={{ org, id: batch.id }} className="row-link mono">
                  {shortened(batch.id)}
                </Link>
              </th>
              <td>
                <State machine="batch" state={batch.state} />
                {batch.state !== "finalized" && batch.state_reason !== undefined && batch.state_reason !== "" && <div className="muted wide">{batch.state_reason}</div>}
              </td>
              <td className="number">{batch.payee_count}</td>
              <td className="number">
                <MoneyText of={batch.total} />
              </td>
              <td>
                <Time at={batch.created_at} utc />
              </td>
              <td>{batch.finalized_at === undefined ? <span className="muted">not yet</span> : <Time at={batch.finalized_at} utc />}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
