// How long the clusters go on: when each stops, what it still holds, and what the balance would pay for.
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { Runway } from "../api/types";
import { SafePanel } from "../design/Loaded";
import { MoneyText, Notice, State, TableScroll, Time } from "../design/parts";
import { formatDuration } from "../time/time";
import { runwayQuery } from "./queries";

/** Nothing is shown while no cluster is alive and nothing is wrong. */
export function RunwayPanel({ org }: { org: string }) {
  const query = useQuery(runwayQuery(org));
  const runway = query.data;
  if (runway === undefined || (runway.clusters.length === 0 && runway.warnings.length === 0)) return null;
  return (
    <SafePanel title="Runway" aside={<Hours runway={runway} />} flush>
      {runway.warnings.length > 0 && (
        <div className="panel-body">
          <Notice tone="warn">
            {runway.warnings.map((warning) => (
              <p key={warning}>{warning}</p>
            ))}
          </Notice>
        </div>
      )}
      {runway.clusters.length > 0 && <Clusters org={org} runway={runway} />}
    </SafePanel>
  );
}

const HOUR_MS = 3_600_000;

function Hours({ runway }: { runway: Runway }) {
  if (runway.hours_left === undefined) return null;
  return (
    <span className="muted">
      <MoneyText of={runway.burn_per_hour} /> an hour; the balance pays {formatDuration(runway.hours_left * HOUR_MS)} more
    </span>
  );
}

function Clusters({ org, runway }: { org: string; runway: Runway }) {
  return (
    <TableScroll label="Clusters and when they stop">
      <table>
        <thead>
          <tr>
            <th scope="col">Cluster</th>
            <th scope="col">State</th>
            <th scope="col">Stops</th>
            <th scope="col" className="number">
              Per hour
            </th>
            <th scope="col" className="number">
              Back if released now
            </th>
          </tr>
        </thead>
        <tbody>
          {runway.clusters.map((cluster) => (
            <tr key={cluster.cluster_id}>
              <th scope="row">
                <Link to="/o/$org/clusters/$id" params={{ org, id: cluster.cluster_id }} className="row-link">
                  {cluster.name}
                </Link>
              </th>
              <td>
                <State machine="cluster" state={cluster.state} />
              </td>
              <td>
                {cluster.stops_at === undefined ? <span className="muted">does not run down</span> : <Time at={cluster.stops_at} />}
                {cluster.parks_at !== undefined && (
                  <div className="muted">
                    idle: parks <Time at={cluster.parks_at} clock />
                  </div>
                )}
              </td>
              <td className="number">
                <MoneyText of={cluster.per_hour} />
              </td>
              <td className="number">
                <MoneyText of={cluster.hold_left} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
