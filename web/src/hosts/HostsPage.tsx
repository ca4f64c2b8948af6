import { useInfiniteQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import type { Host } from "../api/types";
import { GpuTiles } from "../design/GpuTiles";
import { LoadedList, SafePanel } from "../design/Loaded";
import { Empty, State, TableScroll, Time, Toned } from "../design/parts";
import { AskForm } from "./AskForm";
import { gpuFills, gpuWords, hostsQuery } from "./queries";
import "./hosts.css";

export function HostsPage() {
  const { org } = useParams({ from: "/o/$org/hosts" });
  const query = useInfiniteQuery(hostsQuery(org));
  return (
    <div className="page">
      <div className="page-head">
        <h1>Hosts</h1>
        <Link className="button" data-look="primary" to="/o/$org/hosts/new" params={{ org }}>
          Add a host
        </Link>
      </div>
      <SafePanel title="Your hosts" aside={<Legend />} flush>
        <LoadedList
          query={query}
          empty={
            <Empty action={<Link to="/o/$org/hosts/new" params={{ org }}>Add the first one</Link>}>No hosts yet. One command on a machine with an NVIDIA GPU makes it earn.</Empty>
          }
        >
          {(hosts) => <Table org={org} hosts={hosts} />}
        </LoadedList>
      </SafePanel>
    </div>
  );
}

function Legend() {
  return (
    <span className="line muted" data-gap="small" aria-hidden="true">
      <span className="gpu" data-fill="leased" /> leased <span className="gpu" data-fill="free" /> free <span className="gpu" data-fill="bad" /> unhealthy <span className="gpu" data-fill="none" /> no data
    </span>
  );
}

function Table({ org, hosts }: { org: string; hosts: Host[] }) {
  return (
    <TableScroll label="Hosts">
      <table>
        <thead>
          <tr>
            <th scope="col">Host</th>
            <th scope="col">State</th>
            <th scope="col">GPUs</th>
            <th scope="col">Region</th>
            <th scope="col">Ask, per GPU-hour</th>
            <th scope="col">Why it is not earning</th>
          </tr>
        </thead>
        <tbody>
          {hosts.map((host) => (
            <tr key={host.id}>
              <th scope="row">
                <Link to="/o/$org/hosts/$id" params={{ org, id: host.id }} className="row-link">
                  {host.name}
                </Link>
              </th>
              <td>
                <div className="stack" data-gap="tiny">
                  <State machine="host" state={host.state} />
                  <Connection host={host} />
                </div>
              </td>
              <td className="nowrap">
                <div className="line" data-gap="small">
                  <GpuTiles fills={gpuFills(host)} titles={host.gpus.map((gpu) => `${gpu.product} ${gpu.uuid}`)} /> <span className="muted">{gpuWords(host)}</span> {host.simulated && <span className="tag">simulated</span>}
                </div>
              </td>
              <td className="nowrap">
                {host.region}
                {host.site !== undefined && host.site !== "" && <span className="muted"> {host.site}</span>}
              </td>
              <td>{host.kind === "head" ? <span className="muted">runs Ray heads</span> : <AskForm org={org} host={host} />}</td>
              <td className="wide">{host.why_not_earning === undefined || host.why_not_earning === "" ? <Toned tone="ok">Earning</Toned> : <span className="why">{host.why_not_earning}</span>}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

export function Connection({ host }: { host: Host }) {
  if (host.liveness === "suspect" && host.state !== "retired") return <Toned tone="warn">Silent</Toned>;
  if (host.connected || host.state === "retired") return null;
  return (
    <span className="muted">
      not connected
      {host.last_seen_at !== undefined && (
        <>
          {" "}
          since <Time at={host.last_seen_at} clock />
        </>
      )}
    </span>
  );
}
