import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Host } from "../api/types";
import { GpuTiles } from "../design/GpuTiles";
import { ActionError, Loaded, SafePanel } from "../design/Loaded";
import { Button, Dialog, Empty, ShortId, Skeleton, State, TableScroll, Time, Toned } from "../design/parts";
import { AskForm } from "./AskForm";
import { AskRulesButton } from "./AskRules";
import { EarningPanel } from "./EarningPanel";
import { GatesPanel } from "./GatesPanel";
import { Connection } from "./HostsPage";
import { MaintenancePanel } from "./MaintenancePanel";
import { gpuFills, hostQuery } from "./queries";
import "./hosts.css";

export function HostPage() {
  const { org, id } = useParams({ from: "/o/$org/hosts/$id" });
  const query = useQuery(hostQuery(org, id));
  return (
    <div className="page">
      <Loaded
        query={query}
        skeleton={
          <div className="stack">
            <Skeleton height={40} width={320} />
            <Skeleton height={220} />
          </div>
        }
      >
        {(host) => <Content org={org} host={host} />}
      </Loaded>
      <p>
        <Link to="/o/$org/hosts" params={{ org }} className="row-link">
          All hosts
        </Link>
      </p>
    </div>
  );
}

function Content({ org, host }: { org: string; host: Host }) {
  return (
    <>
      <div className="page-head">
        <div className="line">
          <h1>{host.name}</h1>
          <State machine="host" state={host.state} />
          {host.simulated && <span className="tag">simulated GPUs</span>}
          <Connection host={host} />
        </div>
        <Actions org={org} host={host} />
      </div>
      <div className="columns">
        <div className="stack">
          {host.kind === "gpu" && host.state !== "retired" && <EarningPanel org={org} id={host.id} />}
          <SafePanel title="GPUs" aside={<GpuTiles fills={gpuFills(host)} />} flush>
            <Gpus host={host} />
          </SafePanel>
          <GatesPanel org={org} host={host} />
        </div>
        <div className="stack">
          {host.kind === "gpu" && (
            <SafePanel title="Ask, per GPU-hour" aside={<AskRulesButton org={org} host={host} />}>
              <AskForm org={org} host={host} />
              <p className="hint">A new price counts for new bookings. Running clusters keep theirs.</p>
            </SafePanel>
          )}
          {host.state !== "retired" && <MaintenancePanel org={org} host={host} />}
          <SafePanel title="Machine">
            <Facts host={host} />
          </SafePanel>
        </div>
      </div>
    </>
  );
}

const MIB_PER_GIB = 1024;
const BYTES_PER_GIB = 1024 ** 3;

function Gpus({ host }: { host: Host }) {
  if (host.gpus.length === 0) return <Empty>{host.kind === "head" ? "This host runs Ray heads and needs no GPU." : "The agent has reported no GPU. Is the NVIDIA driver installed?"}</Empty>;
  return (
    <TableScroll label="GPUs">
      <table>
        <thead>
          <tr>
            <th scope="col">GPU</th>
            <th scope="col">State</th>
            <th scope="col" className="number">
              Memory
            </th>
            <th scope="col">UUID</th>
          </tr>
        </thead>
        <tbody>
          {host.gpus.map((gpu) => (
            <tr key={gpu.id}>
              <th scope="row" className="wide">
                {gpu.product}
              </th>
              <td>
                {!gpu.healthy ? <Toned tone="bad">Unhealthy</Toned> : gpu.leased ? <Toned tone="ok">Leased</Toned> : <Toned tone="unknown">Free</Toned>}
                {gpu.health_note !== undefined && gpu.health_note !== "" && <div className="muted">{gpu.health_note}</div>}
              </td>
              <td className="number">{Math.round(gpu.memory_mib / MIB_PER_GIB)} GiB</td>
              <td>
                <ShortId id={gpu.uuid} what="GPU UUID" keep={8} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

const TIER_WORDS: Record<string, string> = { new: "new", proven: "proven by its history", trusted: "trusted" };

function Facts({ host }: { host: Host }) {
  const facts: [string, React.ReactNode][] = [
    ["Host id", <ShortId key="id" id={host.id} what="Host id" />],
    ["Region", host.site === undefined || host.site === "" ? host.region : `${host.region}, ${host.site}`],
    ["Standing", TIER_WORDS[host.tier] ?? host.tier],
    ["Reliability", `${host.reliability_percent.toFixed(2)} %`],
    ["Round trip", host.rtt_ms === undefined ? undefined : `${host.rtt_ms < 1 ? "under 1" : Math.round(host.rtt_ms)} ms`],
    ["CPUs", host.cpus],
    ["Memory", host.memory_bytes === undefined ? undefined : `${Math.round(host.memory_bytes / BYTES_PER_GIB)} GiB`],
    ["Driver", host.driver_version],
    ["CUDA", host.cuda_version],
    ["Agent", host.agent_version],
    ["Enrolled", <Time key="enrolled" at={host.enrolled_at} />],
    ["Last seen", host.last_seen_at === undefined ? undefined : <Time key="seen" at={host.last_seen_at} />],
    ["Certificate until", host.certificate_expires_at === undefined ? undefined : <Time key="certificate" at={host.certificate_expires_at} />],
  ];
  return (
    <dl className="pairs">
      {facts
        .filter(([, value]) => value !== undefined && value !== "")
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

type Verb = "drain" | "undrain" | "retire";

function Actions({ org, host }: { org: string; host: Host }) {
  const [retiring, setRetiring] = useState(false);
  const act = useAction({
    run: (verb: Verb, header) => {
      const params = { path: { id: host.id }, query: { org }, header };
      if (verb === "drain") return unwrap(client.POST("/v1/hosts/{id}/drain", { params }));
      if (verb === "undrain") return unwrap(client.POST("/v1/hosts/{id}/undrain", { params }));
      return unwrap(client.POST("/v1/hosts/{id}/retire", { params }));
    },
    invalidates: [["hosts", org], ["host", org, host.id]],
    done: "Done",
    onDone: () => setRetiring(false),
  });
  if (host.state === "retired") return null;
  return (
    <div className="stack" data-gap="small">
      <div className="line" data-gap="small">
        {host.state === "draining" ? (
          <Button busy={act.isPending} onClick={() => act.mutate("undrain")}>
            Take bookings again
          </Button>
        ) : (
          <Button busy={act.isPending} onClick={() => act.mutate("drain")}>
            Drain
          </Button>
        )}
        <Button look="danger" onClick={() => setRetiring(true)}>
          Retire
        </Button>
      </div>
      {!retiring && <ActionError error={act.error} />}
      <Dialog open={retiring} title={`Retire ${host.name}?`} onClose={() => setRetiring(false)}>
        <p>It leaves Muster for good: its certificate is revoked and to come back it must be enrolled anew. What it has earned stays yours. Drain it first if a cluster runs on it.</p>
        <ActionError error={act.error} />
        <div className="dialog-actions">
          <Button onClick={() => setRetiring(false)}>Keep it</Button>
          <Button look="danger" busy={act.isPending} onClick={() => act.mutate("retire")}>
            Retire host
          </Button>
        </div>
      </Dialog>
    </div>
  );
}
