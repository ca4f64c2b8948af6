import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Cluster } from "../api/types";
import { ActionError } from "../design/Loaded";
import { Button, Dialog, MoneyText } from "../design/parts";
import { clusterQuery, jobsQuery, takesJobs } from "./queries";

export function Release({ org, cluster }: { org: string; cluster: Cluster }) {
  const [open, setOpen] = useState(false);
  const release = useAction({
    run: (_: undefined, header) => unwrap(client.POST("/v1/clusters/{id}/release", { params: { path: { id: cluster.id }, query: { org }, header } })),
    invalidates: [clusterQuery(org, cluster.id).queryKey, ["clusters", org], ["wallet", org]],
    done: "Release started",
    onDone: () => setOpen(false),
  });
  return (
    <>
      <Button look="danger" onClick={() => setOpen(true)}>
        Release
      </Button>
      <Dialog open={open} title={`Release ${cluster.name}?`} onClose={() => setOpen(false)}>
        <Consequences org={org} cluster={cluster} />
        <ActionError error={release.error} />
        <div className="dialog-actions">
          <Button onClick={() => setOpen(false)}>Keep it</Button>
          <Button look="danger" busy={release.isPending} onClick={() => release.mutate(undefined)}>
            Release cluster
          </Button>
        </div>
      </Dialog>
    </>
  );
}

const UNFINISHED = new Set(["PENDING", "RUNNING"]);

function Consequences({ org, cluster }: { org: string; cluster: Cluster }) {
  const asked = takesJobs(cluster);
  const jobs = useQuery({ ...jobsQuery(org, cluster.id, false), enabled: asked });
  const unfinished = (jobs.data ?? []).filter((job) => UNFINISHED.has(job.status));
  return (
    <div className="stack">
      <div className="stack" data-gap="tiny">
        <h3>Lost</h3>
        <ul className="bullets">
          {asked && jobs.data !== undefined && <li>{unfinished.length === 0 ? "No job is running" : `${unfinished.length} unfinished ${unfinished.length === 1 ? "job" : "jobs"}: ${unfinished.map((job) => job.id).join(", ")}`}</li>}
          {asked && jobs.data === undefined && <li>Any job that is still running</li>}
          <li>Files on the nodes, Ray’s object store and the logs of its jobs</li>
          <li>The GPUs: a new cluster gets a new price</li>
        </ul>
      </div>
      {cluster.cost !== undefined && (
        <div className="stack" data-gap="tiny">
          <h3>Returned</h3>
          <p>
            About <MoneyText of={cluster.cost.refund_now} /> of the <MoneyText of={cluster.cost.hold} /> hold. Billing stops when you confirm.
          </p>
        </div>
      )}
    </div>
  );
}
