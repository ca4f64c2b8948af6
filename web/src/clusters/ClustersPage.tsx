import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import type { Cluster } from "../api/types";
import { LoadedList, SafePanel } from "../design/Loaded";
import { Empty, State, TableScroll, Time } from "../design/parts";
import { usePoll } from "../live/link";
import { hasRole, meQuery } from "../session/session";
import { formatDuration } from "../time/time";
import { useNow } from "../time/useNow";
import { clustersQuery, hasEnded } from "./queries";
import { Scheduled } from "./Scheduled";
import { FILTERS, type Filter } from "./search";

const WORDS: Record<Filter, string> = { live: "Running", released: "Released", failed: "Failed" };
const RUNWAY_TICK_MS = 10_000;

export function ClustersPage() {
  const { org } = useParams({ from: "/o/$org/clusters" });
  const { state } = useSearch({ from: "/o/$org/clusters" });
  const navigate = useNavigate({ from: "/o/$org/clusters" });
  const refetchInterval = usePoll();
  const query = useInfiniteQuery({ ...clustersQuery(org, state), refetchInterval });
  const membership = useQuery(meQuery).data?.organisations.find((one) => one.org_id === org);
  const engineer = membership !== undefined && hasRole(membership, "engineer"); // others may look, and not book
  const book = engineer && (
    <Link className="button" data-look="primary" to="/o/$org/new" params={{ org }}>
      New cluster
    </Link>
  );
  return (
    <div className="page">
      <div className="page-head">
        <h1>Clusters</h1>
        {book}
      </div>
      <fieldset>
        <legend className="visually-hidden">Show</legend>
        <div className="chips">
          {[undefined, ...FILTERS].map((filter) => (
            <label key={filter ?? "all"} className="chip">
              <input type="radio" name="state" checked={state === filter} onChange={() => void navigate({ search: filter === undefined ? {} : { state: filter } })} />
              {filter === undefined ? "All" : WORDS[filter]}
            </label>
          ))}
        </div>
      </fieldset>
      {state === undefined && engineer && <Scheduled org={org} />}
      <SafePanel title={state === undefined ? "All clusters" : WORDS[state]} flush>
        <LoadedList
          query={query}
          empty={<Empty action={state === undefined ? undefined : <Link to="/o/$org/clusters" params={{ org }}>Show all</Link>}>{state === undefined ? "No clusters yet. A booked cluster is ready within a minute or so." : `No cluster is ${WORDS[state].toLowerCase()}.`}</Empty>}
        >
          {(clusters) => <Table org={org} clusters={clusters} />}
        </LoadedList>
      </SafePanel>
    </div>
  );
}

function Table({ org, clusters }: { org: string; clusters: Cluster[] }) {
  const now = useNow(RUNWAY_TICK_MS);
  return (
    <TableScroll label="Clusters">
      <table>
        <thead>
          <tr>
            <th scope="col">Cluster</th>
            <th scope="col">State</th>
            <th scope="col">GPUs</th>
            <th scope="col" className="number">
              Time left
            </th>
            <th scope="col">Booked</th>
          </tr>
        </thead>
        <tbody>
          {clusters.map((cluster) => (
            <tr key={cluster.id}>
              <th scope="row">
                <Link to="/o/$org/clusters/$id" params={{ org, id: cluster.id }} className="row-link">
                  {cluster.name}
                </Link>
              </th>
              <td>
                <State machine="cluster" state={cluster.state} /> {cluster.kind !== "market" && <span className="tag">{cluster.kind}</span>}
              </td>
              <td className="nowrap">
                {cluster.node_count} × {cluster.gpus_per_node} {cluster.gpu_model} {cluster.simulated && <span className="tag">simulated</span>}
              </td>
              <td className="number">{cluster.ends_at !== undefined && !hasEnded(cluster) ? formatDuration(Date.parse(cluster.ends_at) - now) : <span className="muted">{hasEnded(cluster) ? "ended" : cluster.state === "parked" ? "parked" : "not started"}</span>}</td>
              <td>
                <Time at={cluster.created_at} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
