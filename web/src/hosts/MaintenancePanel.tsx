// Planned absences: customers are told, no booking reaches into them, and the host drains and opens again by itself.
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import { asApiError } from "../api/problem";
import type { Host, Maintenance } from "../api/types";
import { ActionError, SafePanel } from "../design/Loaded";
import { Button, Empty, Field, Time, Toned } from "../design/parts";

export function MaintenancePanel({ org, host }: { org: string; host: Host }) {
  const [planning, setPlanning] = useState(false);
  return (
    <SafePanel
      title="Maintenance"
      aside={
        !planning && (
          <Button size="small" onClick={() => setPlanning(true)}>
            Plan
          </Button>
        )
      }
    >
      <div className="stack">
        {planning && <Planning org={org} host={host} onDone={() => setPlanning(false)} />}
        {host.maintenance.length === 0 ? !planning && <Empty>Nothing is planned.</Empty> : host.maintenance.map((window) => <Window key={window.id} org={org} host={host} window={window} />)}
      </div>
    </SafePanel>
  );
}

function Window({ org, host, window }: { org: string; host: Host; window: Maintenance }) {
  const cancel = useAction({
    run: (_: undefined, header) => unwrap(client.POST("/v1/hosts/{id}/maintenance/{window}/cancel", { params: { path: { id: host.id, window: window.id }, query: { org }, header } })),
    invalidates: [["host", org, host.id]],
    done: "Maintenance cancelled",
  });
  const begun = window.state === "begun";
  return (
    <div className="stack" data-gap="tiny">
      <div className="line" data-spread>
        <span>
          <Toned tone={begun ? "warn" : "busy"}>{begun ? "Under way" : "Planned"}</Toned>
        </span>
        <Button size="small" busy={cancel.isPending} onClick={() => cancel.mutate(undefined)}>
          {begun ? "End now" : "Cancel"}
        </Button>
      </div>
      <p>
        <Time at={window.starts_at} /> to <Time at={window.ends_at} />
      </p>
      {window.note !== undefined && window.note !== "" && <p className="muted">{window.note}</p>}
      <ActionError error={cancel.error} />
    </div>
  );
}

function Planning({ org, host, onDone }: { org: string; host: Host; onDone: () => void }) {
  const [form, setForm] = useState({ starts: "", ends: "", note: "" });
  const plan = useAction({
    run: (body: { starts_at: string; ends_at: string; note: string }, header) => unwrap(client.POST("/v1/hosts/{id}/maintenance", { params: { path: { id: host.id }, query: { org }, header }, body })),
    invalidates: [["host", org, host.id]],
    done: "Maintenance planned",
    onDone,
  });
  const fields = plan.error === null ? [] : asApiError(plan.error).fields;
  const mistake = (name: string) => fields.find((field) => field.path.endsWith(name))?.message;
  const complete = form.starts !== "" && form.ends !== "";
  const set = (change: Partial<typeof form>) => setForm({ ...form, ...change });
  return (
    <form
      className="stack"
      data-gap="small"
      onSubmit={(event) => {
        event.preventDefault();
        if (complete) plan.mutate({ starts_at: new Date(form.starts).toISOString(), ends_at: new Date(form.ends).toISOString(), note: form.note.trim() });
      }}
    >
      <Field label="From" error={mistake("starts_at")}>
        {(props) => <input {...props} className="input" type="datetime-local" required value={form.starts} onChange={(event) => set({ starts: event.target.value })} />}
      </Field>
      <Field label="To" error={mistake("ends_at")}>
        {(props) => <input {...props} className="input" type="datetime-local" required value={form.ends} onChange={(event) => set({ ends: event.target.value })} />}
      </Field>
      <Field label="What customers are told" error={mistake("note")}>
        {(props) => <input {...props} className="input" maxLength={200} placeholder="new power supply" value={form.note} onChange={(event) => set({ note: event.target.value })} />}
      </Field>
      {fields.length === 0 && <ActionError error={plan.error} />}
      <div className="line" data-gap="small">
        <Button type="submit" size="small" look="primary" busy={plan.isPending} disabled={!complete}>
          Plan it
        </Button>
        <Button size="small" onClick={onDone}>
          Cancel
        </Button>
      </div>
      <p className="hint">Bookings that would reach into it are not offered this host. Customers who are on it then are told at once.</p>
    </form>
  );
}
