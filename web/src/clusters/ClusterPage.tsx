import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { useEffect, useRef } from "react";
import type { Cluster, Node } from "../api/types";
import { announce } from "../design/announce";
import { GpuTiles, type Fill } from "../design/GpuTiles";
import { Loaded, SafePanel } from "../design/Loaded";
import { Empty, LongText, MoneyText, Notice, ShortId, Skeleton, State, TableScroll, Time, Toned } from "../design/parts";
import { lookOf } from "../design/state";
import { usePoll } from "../live/link";
import { formatDuration } from "../time/time";
import { useNow } from "../time/useNow";
import { AutoStopPanel, Parked } from "./AutoStop";
import { ConnectPanel } from "./ConnectPanel";
import { CostPanel } from "./CostPanel";
import { GrowPanel, RemoveNode } from "./Grow";
import { JobsPanel } from "./JobsPanel";
import { ReceiptPanel } from "./ReceiptPanel";
import { Release } from "./Release";
import { clusterQuery, eventsQuery, hasEnded, takesJobs } from "./queries";
import { stepsOf, type Step } from "./timeline";
import "./cluster.css";

const BILLING_POLL_MS = 10_000;

export function ClusterPage() {
  const { org, id } = useParams({ from: "/o/$org/clusters/$id" });
  const fallback = usePoll();
  const query = useQuery({
    ...clusterQuery(org, id),
    // The meter's anchor moves with each posting, which is no event.
    refetchInterval: ({ state }) => (state.data?.billing === true ? BILLING_POLL_MS : fallback),
  });
  return (
    <div className="page">
      <Loaded query={query} skeleton={<ClusterSkeleton />}>
        {(cluster) => <Content org={org} cluster={cluster} />}
      </Loaded>
      <p>
        <Link to="/o/$org/clusters" params={{ org }} className="row-link">
          All clusters
        </Link>
      </p>
    </div>
  );
}

function ClusterSkeleton() {
  return (
    <div className="stack" role="status">
      <span className="visually-hidden">Loading the cluster</span>
      <Skeleton height={40} width={320} />
      <div className="columns">
        <div className="stack">
          <Skeleton height={244} />
          <Skeleton height={180} />
        </div>
        <Skeleton height={340} />
      </div>
    </div>
  );
}

function Content({ org, cluster }: { org: string; cluster: Cluster }) {
  useAnnouncedState(cluster);
  return (
    <>
      <div className="page-head">
        <div className="line">
          <h1>{cluster.name}</h1>
          <State machine="cluster" state={cluster.state} />
          {!cluster.billing && !hasEnded(cluster) && <span className="tag">not billing {cluster.ready_at === undefined ? "yet" : "now"}</span>}
          {cluster.kind !== "market" && <span className="tag">{cluster.kind}</span>}
          {cluster.simulated && <span className="tag">simulated GPUs</span>}
        </div>
        {!hasEnded(cluster) && cluster.state !== "draining" && <Release org={org} cluster={cluster} />}
      </div>
      <p className="line muted">
        <ShortId id={cluster.id} what="Cluster id" />
        <span>
          {cluster.node_count} × {cluster.gpus_per_node} {cluster.gpu_model}
        </span>
        <span>Ray {cluster.ray_version}</span>
        <span>
          booked <Time at={cluster.created_at} />
        </span>
      </p>
      {hasEnded(cluster) && <Ended cluster={cluster} />}
      {cluster.state === "parked" && <Parked org={org} cluster={cluster} />}
      {cluster.preempt_at !== undefined && !hasEnded(cluster) && (
        <Notice tone="warn">
          <p>
            A market booking needs these GPUs: this spot cluster stops at <Time at={cluster.preempt_at} clock />. Save what you need.
          </p>
        </Notice>
      )}
      {cluster.state === "degraded" && (
        <Notice tone="warn">
          <p>A node is missing. {cluster.billing ? "Only the nodes that are there are billed." : "Nothing is billed"} until it is replaced.</p>
        </Notice>
      )}
      <div className="columns">
        <div className="stack">
          {takesJobs(cluster) && <ConnectPanel org={org} cluster={cluster} />}
          <SafePanel title="Assembly" aside={<AssemblyTotal cluster={cluster} />}>
            <Timeline steps={stepsOf(cluster)} />
          </SafePanel>
          <SafePanel title="Nodes" flush>
            <Nodes org={org} cluster={cluster} />
          </SafePanel>
          {cluster.ready_at !== undefined && <JobsPanel org={org} cluster={cluster} />}
          <EventsPanel org={org} id={cluster.id} />
        </div>
        <div className="stack">
          <CostPanel cluster={cluster} />
          {takesJobs(cluster) && <GrowPanel org={org} cluster={cluster} />}
          {!hasEnded(cluster) && cluster.state !== "draining" && <AutoStopPanel org={org} cluster={cluster} />}
          {cluster.receipt !== undefined && <ReceiptPanel receipt={cluster.receipt} />}
        </div>
      </div>
    </>
  );
}

/** Tells a screen reader about a new state, once, and not about the one that the page opened with. */
function useAnnouncedState(cluster: Cluster) {
  const last = useRef(cluster.state);
  useEffect(() => {
    if (last.current === cluster.state) return;
    last.current = cluster.state;
    announce(`${cluster.name}: ${lookOf("cluster", cluster.state).word}`);
  }, [cluster.state, cluster.name]);
}

const FAULT_WORDS: Record<string, string> = {
  customer: "you released it",
  owner: "the owner of a host",
  platform: "Muster",
  funds: "the balance was used up",
  preempted: "it was pre-empted",
};

function Ended({ cluster }: { cluster: Cluster }) {
  return (
    <Notice tone={cluster.state === "failed" ? "bad" : "unknown"}>
      <div>
        <span className="strong">{cluster.state === "failed" ? "This cluster failed" : "This cluster was released"}</span>
        {cluster.ended_at !== undefined && (
          <>
            {" "}
            at <Time at={cluster.ended_at} />
          </>
        )}
        {cluster.end_reason !== undefined && cluster.end_reason !== "" && <>: <LongText text={cluster.end_reason} /></>}
      </div>
      <p className="muted">
        {cluster.fault_party !== undefined && <>On whose account: {FAULT_WORDS[cluster.fault_party] ?? cluster.fault_party}. </>}
        {cluster.settled_at !== undefined ? "Settled: what was not used is back in your balance." : "What was not used returns to your balance shortly."}
      </p>
    </Notice>
  );
}

function AssemblyTotal({ cluster }: { cluster: Cluster }) {
  if (cluster.ready_at === undefined) return null;
  return <span className="muted">Ready after {formatDuration(Date.parse(cluster.ready_at) - Date.parse(cluster.created_at))}</span>;
}

const STEP_HELP: Record<string, string> = {
  reserved: "GPUs leased, hold set aside",
  preparing: "Hosts prepare Ray",
  head_up: "The Ray head answers; nodes start",
  joining: "Nodes join the head",
  ready: "Ray reports exactly the booked nodes and GPUs",
  degraded: "A node is missing and is being replaced",
  parked: "Idle: the GPUs were given back, the head stays",
  draining: "Nodes are stopping",
};

const STEP_TICK_MS = 100;

function Timeline({ steps }: { steps: Step[] }) {
  const now = useNow(STEP_TICK_MS, steps.some((step) => step.status === "now" && step.state !== "ready"));
  return (
    <ol className="timeline">
      {steps.map((step, index) => (
        <li key={`${step.state} ${step.enteredAt ?? index}`} data-status={step.status} aria-current={step.status === "now" ? "step" : undefined}>
          <StepState step={step} />
          <span className="muted timeline-help">{STEP_HELP[step.state]}</span>
          <span className="timeline-time">
            {step.enteredAt !== null && (
              <span className="muted">
                <Time at={step.enteredAt} clock />
              </span>
            )}
            <span className="timeline-duration">{durationOf(step, now)}</span>
          </span>
        </li>
      ))}
    </ol>
  );
}

function StepState({ step }: { step: Step }) {
  const look = lookOf("cluster", step.state);
  if (step.status === "to come") return <Toned tone="unknown">{look.word}</Toned>;
  if (step.status === "now") return <Toned tone={look.tone}>{look.word}</Toned>;
  return <Toned tone={look.tone === "busy" ? "ok" : look.tone}>{look.word}</Toned>;
}

function durationOf(step: Step, now: number): string {
  if (step.durationMs !== null) return formatDuration(step.durationMs);
  if (step.status === "now" && step.enteredAt !== null && step.state !== "ready") return formatDuration(now - Date.parse(step.enteredAt));
  return "";
}

const NODE_FILLS: Record<string, Fill> = { planned: "none", starting: "starting", running: "starting", alive: "leased", stopping: "starting", stopped: "none", failed: "bad" };

const LIVE_NODES = new Set<string>(["planned", "starting", "running", "alive"]);

function Nodes({ org, cluster }: { org: string; cluster: Cluster }) {
  const nodes: Node[] = cluster.nodes ?? [];
  const removable = takesJobs(cluster) && nodes.filter((node) => node.role === "gpu" && LIVE_NODES.has(node.state)).length > 1;
  if (nodes.length === 0) return <Empty>No nodes are planned yet.</Empty>;
  return (
    <TableScroll label="Nodes">
      <table>
        <thead>
          <tr>
            <th scope="col">Node</th>
            <th scope="col">State</th>
            <th scope="col">GPUs</th>
            <th scope="col">Host</th>
            <th scope="col" className="number">
              Per GPU-hour
            </th>
            {removable && (
              <th scope="col" className="tight">
                <span className="visually-hidden">Remove</span>
              </th>
            )}
          </tr>
        </thead>
        <tbody>
          {nodes.map((node) => (
            <tr key={node.id}>
              <th scope="row" className="nowrap">
                {node.role === "head" ? "Head" : `GPU node ${node.ordinal}`}
                <div className="muted mono">{node.address}</div>
              </th>
              <td>
                <State machine="node" state={node.state} />
                {node.reason !== undefined && node.reason !== "" && (
                  <div className="muted reason">
                    <LongText text={node.reason} />
                  </div>
                )}
              </td>
              <td className="nowrap">{node.gpus === 0 ? <span className="muted">CPU only</span> : <GpuTiles fills={Array.from({ length: node.gpus }, () => NODE_FILLS[node.state] ?? "none")} titles={Array.from({ length: node.gpus }, () => cluster.gpu_model)} />}</td>
              <td className="nowrap">
                <ShortId id={node.host_id} what="Host id" keep={4} />
                <div className="muted">{node.region}</div>
              </td>
              <td className="number">{node.price_per_gpu_hour === undefined ? <span className="muted">free</span> : <MoneyText of={node.price_per_gpu_hour} />}</td>
              {removable && <td className="tight">{node.role === "gpu" && LIVE_NODES.has(node.state) && <RemoveNode org={org} cluster={cluster} node={node} />}</td>}
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

function EventsPanel({ org, id }: { org: string; id: string }) {
  const refetchInterval = usePoll();
  const query = useQuery({ ...eventsQuery(org, id), refetchInterval });
  return (
    <SafePanel title="Events" aside={<span className="muted">newest first</span>}>
      <Loaded query={query}>
        {(events) =>
          events.length === 0 ? (
            <Empty>Nothing has happened yet.</Empty>
          ) : (
            // A region that scrolls must be reachable by keyboard.
            // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
            <div className="events" role="region" aria-label="Events, newest first" tabIndex={0}>
            <ol>
              {[...events].reverse().map((event) => (
                <li key={event.seq}>
                  <span className="muted">
                    <Time at={event.at} clock />
                  </span>
                  <div><LongText text={event.message} /></div>
                </li>
              ))}
            </ol>
            </div>
          )
        }
      </Loaded>
    </SafePanel>
  );
}
