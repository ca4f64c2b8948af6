// What becomes of an idle cluster, in two stages, and the way back from the first.
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Cluster } from "../api/types";
import { ActionError, SafePanel } from "../design/Loaded";
import { Button, Field, Notice, Time } from "../design/parts";
import { durationWords } from "../time/time";
import { clusterQuery } from "./queries";

const PARK_CHOICES = ["15m", "30m", "1h", "3h"];
const RELEASE_CHOICES = ["1h", "24h", "72h"];

export function AutoStopPanel({ org, cluster }: { org: string; cluster: Cluster }) {
  const set = useAction({
    run: (body: Cluster["auto_stop"], header) => unwrap(client.PUT("/v1/clusters/{id}/auto-stop", { params: { path: { id: cluster.id }, query: { org }, header }, body })),
    invalidates: [clusterQuery(org, cluster.id).queryKey],
    done: "Auto-stop saved",
  });
  const { park_after: park, release_after: release } = cluster.auto_stop;
  return (
    <SafePanel title="When idle">
      <div className="stack">
        <div className="two">
          <Choice
            label="Park after"
            known={PARK_CHOICES}
            value={park}
            busy={set.isPending}
            onChange={(chosen) => set.mutate(chosen === undefined ? {} : { park_after: chosen, ...(release === undefined ? {} : { release_after: release }) })}
          />
          <Choice
            label="Release when parked for"
            known={RELEASE_CHOICES}
            value={release}
            busy={set.isPending || park === undefined}
            onChange={(chosen) => set.mutate({ ...(park === undefined ? {} : { park_after: park }), ...(chosen === undefined ? {} : { release_after: chosen }) })}
          />
        </div>
        <ActionError error={set.error} />
        {cluster.parks_at !== undefined && (
          <p>
            Idle: parks at <Time at={cluster.parks_at} clock /> unless something runs.
          </p>
        )}
        <p className="hint">Idle is without a running job, a busy task or an open session. Parked, the GPUs are given back and nothing is billed; the head and its job history stay.</p>
      </div>
    </SafePanel>
  );
}

function Choice({ label, known, value, busy, onChange }: { label: string; known: string[]; value: string | undefined; busy: boolean; onChange: (value: string | undefined) => void }) {
  const choices = value === undefined || known.includes(value) ? known : [...known, value];
  return (
    <Field label={label}>
      {(props) => (
        <select {...props} className="input" disabled={busy} value={value ?? ""} onChange={(event) => onChange(event.target.value === "" ? undefined : event.target.value)}>
          <option value="">never</option>
          {choices.map((choice) => (
            <option key={choice} value={choice}>
              {durationWords(choice)}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

/** A parked cluster: what that means, and how to get its GPUs again. */
export function Parked({ org, cluster }: { org: string; cluster: Cluster }) {
  const resume = useAction({
    run: (_: undefined, header) => unwrap(client.POST("/v1/clusters/{id}/resume", { params: { path: { id: cluster.id }, query: { org }, header } })),
    invalidates: [clusterQuery(org, cluster.id).queryKey, ["clusters", org]],
    done: "Resuming",
  });
  return (
    <Notice tone="warn">
      <p>
        <span className="strong">Parked.</span> It was idle, so its GPUs were given back and nothing is billed. The head still runs.
        {cluster.releases_at !== undefined && (
          <>
            {" "}
            It is released at <Time at={cluster.releases_at} />.
          </>
        )}
      </p>
      <p className="muted">Resuming takes GPUs at no more than their old price, if there are any; its remaining time is kept.</p>
      <ActionError error={resume.error} />
      <div className="line">
        <Button look="primary" busy={resume.isPending} onClick={() => resume.mutate(undefined)}>
          Resume
        </Button>
      </div>
    </Notice>
  );
}
