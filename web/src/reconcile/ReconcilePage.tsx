import { useInfiniteQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams } from "@tanstack/react-router";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Reconciliation } from "../api/types";
import { ActionError, LoadedList, SafePanel } from "../design/Loaded";
import { Button, Empty, ShortId, State, TableScroll, Time } from "../design/parts";
import { Holdings } from "./Holdings";
import { reconciliationsQuery } from "./queries";
import { WorkItems } from "./WorkItems";

export function ReconcilePage() {
  const { org } = useParams({ from: "/o/$org/finance/reconcile" });
  const runs = useInfiniteQuery(reconciliationsQuery(org));
  const navigate = useNavigate();
  const run = useAction({
    run: (_: undefined, header) => unwrap(client.POST("/v1/finance/reconciliations", { params: { query: { org }, header } })),
    invalidates: [
      ["reconciliations", org],
      ["differences", org],
      ["holdings", org],
      ["sol-journal", org],
    ],
    done: "Reconciliation finished",
    onDone: ({ id }) => void navigate({ to: "/o/$org/finance/reconcile/$id", params: { org, id } }),
  });
  return (
    <div className="page">
      <div className="page-head">
        <h1>Reconcile</h1>
        <Button look="primary" busy={run.isPending} onClick={() => run.mutate(undefined)}>
          {run.isPending ? "Walking the chain" : "Reconcile now"}
        </Button>
      </div>
      <p className="muted">
        Follows every token account's history without a gap and compares each movement with the ledger, both ways. What the treasury spends in SOL is in{" "}
        <Link to="/o/$org/finance/sol" params={{ org }}>
          a journal of its own
        </Link>
        .
      </p>
      <ActionError error={run.error} />
      <SafePanel title="Runs" flush>
        <LoadedList query={runs} empty={<Empty>No run yet. “Reconcile now” makes the first.</Empty>}>
          {(items) => <Runs org={org} runs={items} />}
        </LoadedList>
      </SafePanel>
      <WorkItems org={org} />
      <Holdings org={org} />
    </div>
  );
}

function Runs({ org, runs }: { org: string; runs: Reconciliation[] }) {
  return (
    <TableScroll label="Runs">
      <table>
        <thead>
          <tr>
            <th scope="col">Started</th>
            <th scope="col">Result</th>
            <th scope="col" className="number">
              Matched
            </th>
            <th scope="col" className="number">
              Differences
            </th>
            <th scope="col" className="number">
              Up to slot
            </th>
            <th scope="col">Run</th>
          </tr>
        </thead>
        <tbody>
          {runs.map((run) => (
            <tr key={run.id}>
              <th scope="row">
                <Link to="/o/$org/finance/reconcile/$id" params={{ org, id: run.id }} className="row-link">
                  <Time at={run.started_at} utc />
                </Link>
              </th>
              <td>
                <State machine="reconciliation" state={run.state} />
              </td>
              <td className="number">{run.matched}</td>
              <td className="number">{run.difference_count}</td>
              <td className="number">{run.slot.toLocaleString()}</td>
              <td>
                <ShortId id={run.id} what="Run id" keep={4} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
