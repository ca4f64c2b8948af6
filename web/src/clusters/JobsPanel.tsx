import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { useEffect, useLayoutEffect, useRef, useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Cluster, Job } from "../api/types";
import { ActionError, Loaded, SafePanel } from "../design/Loaded";
import { Button, Empty, ShortId, SkeletonRows, State, TableScroll, Time } from "../design/parts";
import { formatDuration } from "../time/time";
import { useNow } from "../time/useNow";
import { plainLogs } from "./logs";
import { jobsQuery, logsQuery, takesJobs } from "./queries";
import { clusterSearch } from "./search";

const DURATION_TICK_MS = 1_000;
const UNFINISHED = new Set(["PENDING", "RUNNING"]);

export function JobsPanel({ org, cluster }: { org: string; cluster: Cluster }) {
  const running = takesJobs(cluster);
  const query = useQuery({ ...jobsQuery(org, cluster.id, running), enabled: running });
  const { job: selected } = useSearch({ from: "/o/$org/clusters/$id" });
  if (!running && query.data === undefined) {
    return (
      <SafePanel title="Jobs">
        <Empty>Jobs and their logs live on the cluster and ended with it.</Empty>
      </SafePanel>
    );
  }
  return (
    <>
      <SafePanel title="Jobs" flush>
        <Loaded
          query={query}
          skeleton={
            <div className="panel-body">
              <SkeletonRows rows={2} />
            </div>
          }
        >
          {(jobs) => (jobs.length === 0 ? <Empty>No job has been submitted. “Connect” above has the command.</Empty> : <Jobs org={org} cluster={cluster} jobs={jobs} selected={selected} running={running} />)}
        </Loaded>
      </SafePanel>
      {selected !== undefined && running && <Logs key={selected} org={org} cluster={cluster} id={selected} job={query.data?.find((job) => job.id === selected)} />}
    </>
  );
}

function Jobs({ org, cluster, jobs, selected, running }: { org: string; cluster: Cluster; jobs: Job[]; selected: string | undefined; running: boolean }) {
  const navigate = useNavigate({ from: "/o/$org/clusters/$id" });
  const now = useNow(DURATION_TICK_MS, jobs.some((job) => UNFINISHED.has(job.status)));
  const stop = useAction({
    run: (job: string, header) => unwrap(client.POST("/v1/clusters/{id}/jobs/{job}/stop", { params: { path: { id: cluster.id, job }, query: { org }, header } })),
    invalidates: [jobsQuery(org, cluster.id, true).queryKey],
    done: "Job stopped",
  });
  const show = (job: string) => void navigate({ search: (previous) => clusterSearch({ ...previous, job: job === selected ? undefined : job }), replace: true, resetScroll: false });
  return (
    <>
      <TableScroll label="Jobs">
        <table>
          <thead>
            <tr>
              <th scope="col">Job</th>
              <th scope="col">Status</th>
              <th scope="col">Entrypoint</th>
              <th scope="col">Started</th>
              <th scope="col" className="tight">
                <span className="visually-hidden">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {jobs.map((job) => (
              <tr key={job.id} data-selected={job.id === selected ? "" : undefined}>
                <th scope="row">
                  <ShortId id={job.id} what="Job id" keep={4} />
                </th>
                <td>
                  <State machine="job" state={job.status} />
                </td>
                <td className="mono entrypoint">
                  <div title={job.entrypoint}>{job.entrypoint}</div>
                </td>
                <td className="nowrap">
                  {job.started_at === undefined ? (
                    <span className="muted">not yet</span>
                  ) : (
                    <>
                      <Time at={job.started_at} clock />
                      <div className="muted">for {formatDuration((job.ended_at === undefined ? now : Date.parse(job.ended_at)) - Date.parse(job.started_at))}</div>
                    </>
                  )}
                </td>
                <td className="tight">
                  <span className="line" data-gap="small" data-nowrap>
                    <Button size="small" aria-expanded={job.id === selected} onClick={() => show(job.id)}>
                      Logs<span className="visually-hidden"> of {job.id}</span>
                    </Button>
                    {running && UNFINISHED.has(job.status) && (
                      <Button size="small" look="danger" busy={stop.isPending && stop.variables === job.id} onClick={() => stop.mutate(job.id)}>
                        Stop<span className="visually-hidden"> {job.id}</span>
                      </Button>
                    )}
                  </span>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </TableScroll>
      <ActionError error={stop.error} />
    </>
  );
}

function download(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}

/** How near to the end counts as being at the end. */
const END_PX = 24;

function Logs({ org, cluster, id, job }: { org: string; cluster: Cluster; id: string; job: Job | undefined }) {
  const changing = job === undefined || UNFINISHED.has(job.status);
  const query = useQuery(logsQuery(org, cluster.id, id, changing));
  const { refetch } = query;
  const changed = useRef(changing);
  useEffect(() => {
    if (changed.current && !changing) void refetch(); // it may have printed since its logs were read last
    changed.current = changing;
  }, [changing, refetch]);
  const [following, setFollowing] = useState(true);
  const box = useRef<HTMLPreElement>(null);
  const logs = query.data === undefined ? undefined : plainLogs(query.data.logs);
  useLayoutEffect(() => {
    if (following && box.current !== null) box.current.scrollTop = box.current.scrollHeight;
  }, [logs, following]);
  return (
    <SafePanel
      title={
        <>
          Logs of <span className="mono">{id}</span>
        </>
      }
      flush
      aside={
        <span className="line" data-gap="small">
          {changing && <span className="muted">{following ? "following" : "not following"}</span>}
          {!following && (
            <Button size="small" onClick={() => setFollowing(true)}>
              Follow
            </Button>
          )}
          {logs !== undefined && (
            <Button size="small" onClick={() => download(`${id}.log`, logs)}>
              Download
            </Button>
          )}
        </span>
      }
    >
      <Loaded
        query={query}
        skeleton={
          <div className="panel-body">
            <SkeletonRows rows={8} />
          </div>
        }
      >
        {(loaded) => (
          <>
            {loaded.truncated && <p className="panel-body hint">The beginning is left out; the download has what is shown.</p>}
            {/* A region that scrolls must be reachable by keyboard. */}
            <pre
              className="logs"
              role="log"
              aria-live="off"
              aria-label={`Logs of ${id}`}
              // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
              tabIndex={0}
              ref={box}
              onScroll={(event) => {
                const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
                setFollowing(scrollHeight - scrollTop - clientHeight < END_PX);
              }}
            >
              {logs === undefined || logs === "" ? "Nothing printed yet." : logs}
            </pre>
          </>
        )}
      </Loaded>
    </SafePanel>
  );
}
