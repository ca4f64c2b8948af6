// When runs begin by themselves.
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { asApiError } from "../api/problem";
import { useAction } from "../api/useAction";
import type { Money, PayoutSchedule } from "../api/types";
import { ActionError, Loaded, SafePanel } from "../design/Loaded";
import { Button, Dialog, Field, MoneyText, Skeleton, Time } from "../design/parts";
import { plainText } from "../money/money";
import { scheduleQuery } from "./queries";
import { scheduleWords, WEEKDAYS } from "./words";

export function Schedule({ org, minimum }: { org: string; minimum: Money | undefined }) {
  const schedule = useQuery(scheduleQuery(org));
  const [open, setOpen] = useState(false);
  return (
    <SafePanel
      title="Schedule"
      aside={
        <Button size="small" disabled={schedule.data === undefined} onClick={() => setOpen(true)}>
          Change
        </Button>
      }
    >
      <Loaded query={schedule} skeleton={<Skeleton height={140} />}>
        {(loaded) => (
          <div className="stack">
            <p>{scheduleWords(loaded)}</p>
            <dl className="pairs">
              <div>
                <dt>Next by the clock</dt>
                <dd>{loaded.next_at === undefined ? <span className="muted">none</span> : <Time at={loaded.next_at} utc />}</dd>
              </div>
              {minimum !== undefined && (
                <div>
                  <dt>Smallest payout</dt>
                  <dd>
                    <MoneyText of={minimum} />
                    <div className="hint">set in the configuration, payouts.minimum</div>
                  </dd>
                </div>
              )}
              {loaded.updated_at !== undefined && (
                <div>
                  <dt>Last changed</dt>
                  <dd>
                    {loaded.updated_by !== undefined && loaded.updated_by !== "" && `${loaded.updated_by}, `}
                    <Time at={loaded.updated_at} utc />
                  </dd>
                </div>
              )}
            </dl>
            <Dialog open={open} title="When payout runs begin" onClose={() => setOpen(false)}>
              <Editing org={org} schedule={loaded} onDone={() => setOpen(false)} />
            </Dialog>
          </div>
        )}
      </Loaded>
    </SafePanel>
  );
}

type Rhythm = "weekdays" | "days" | "none";

const RHYTHMS: { id: Rhythm; word: string }[] = [
  { id: "weekdays", word: "On weekdays" },
  { id: "days", word: "Every few days" },
  { id: "none", word: "Not by the clock" },
];

interface Form {
  enabled: boolean;
  rhythm: Rhythm;
  weekdays: number[];
  everyDays: string;
  startsOn: string;
  at: string;
  threshold: string;
}

function formOf(schedule: PayoutSchedule): Form {
  const everyDays = schedule.every_days ?? 0;
  const weekdays = schedule.weekdays ?? [];
  return {
    enabled: schedule.enabled,
    rhythm: weekdays.length > 0 ? "weekdays" : everyDays > 0 ? "days" : "none",
    weekdays,
    everyDays: everyDays > 0 ? String(everyDays) : "7",
    startsOn: schedule.starts_on,
    at: schedule.at,
    threshold: schedule.threshold === undefined ? "" : plainText(schedule.threshold),
  };
}

function bodyOf(form: Form) {
  return {
    enabled: form.enabled,
    at: form.at,
    ...(form.rhythm === "weekdays" ? { weekdays: [...form.weekdays].sort() } : {}),
    ...(form.rhythm === "days" ? { every_days: Number(form.everyDays), starts_on: form.startsOn } : {}),
    ...(form.threshold === "" ? {} : { threshold: form.threshold }),
  };
}

// Monday first, as weeks are planned.
const MONDAY_FIRST = [1, 2, 3, 4, 5, 6, 0];

function Editing({ org, schedule, onDone }: { org: string; schedule: PayoutSchedule; onDone: () => void }) {
  const [form, setForm] = useState(() => formOf(schedule));
  const save = useAction({
    run: (body: ReturnType<typeof bodyOf>, header) => unwrap(client.PUT("/v1/finance/payout-schedule", { params: { query: { org }, header }, body })),
    invalidates: [["finance", org, "schedule"]],
    done: "Schedule saved",
    onDone,
  });
  const fields = save.error === null ? [] : asApiError(save.error).fields;
  const mistake = (name: string) => fields.find((field) => field.path.includes(name))?.message;
  const known = fields.filter((field) => ["at", "starts_on", "threshold", "every_days"].some((name) => field.path.includes(name)));
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate(bodyOf(form));
      }}
    >
      <label className="line">
        <input type="checkbox" checked={form.enabled} onChange={(event) => setForm({ ...form, enabled: event.target.checked })} />
        Runs begin by themselves
      </label>
      {form.enabled && <When form={form} onChange={setForm} mistake={mistake} />}
      <p className="muted">A run only drafts. What it drafts waits for approval like any other.</p>
      {known.length === 0 && <ActionError error={save.error} />}
      <div className="dialog-actions">
        <Button onClick={onDone}>Close</Button>
        <Button type="submit" look="primary" busy={save.isPending} disabled={form.enabled && form.rhythm === "weekdays" && form.weekdays.length === 0}>
          Save
        </Button>
      </div>
    </form>
  );
}

/** The rhythm and the threshold; a schedule that is off keeps what it had. */
function When({ form, onChange, mistake }: { form: Form; onChange: (form: Form) => void; mistake: (name: string) => string | undefined }) {
  return (
    <>
      <fieldset>
        <legend className="legend">By the clock</legend>
        <div className="chips">
          {RHYTHMS.map(({ id, word }) => (
            <label key={id} className="chip">
              <input type="radio" name="rhythm" checked={form.rhythm === id} onChange={() => onChange({ ...form, rhythm: id })} />
              {word}
            </label>
          ))}
        </div>
      </fieldset>
      {form.rhythm === "weekdays" && (
        <fieldset>
          <legend className="legend">Days</legend>
          <div className="chips">
            {MONDAY_FIRST.map((day) => (
              <label key={day} className="chip">
                <input
                  type="checkbox"
                  checked={form.weekdays.includes(day)}
                  onChange={(event) => onChange({ ...form, weekdays: event.target.checked ? [...form.weekdays, day] : form.weekdays.filter((one) => one !== day) })}
                />
                {WEEKDAYS[day]}
              </label>
            ))}
          </div>
        </fieldset>
      )}
      <div className="two">
        {form.rhythm === "days" && (
          <>
            <Field label="Every, days" error={mistake("every_days")}>
              {(props) => <input {...props} className="input input-number" type="number" min={1} max={366} required value={form.everyDays} onChange={(event) => onChange({ ...form, everyDays: event.target.value })} />}
            </Field>
            <Field label="Counted from, UTC" error={mistake("starts_on")}>
              {(props) => <input {...props} className="input" type="date" required value={form.startsOn} onChange={(event) => onChange({ ...form, startsOn: event.target.value })} />}
            </Field>
          </>
        )}
        {form.rhythm !== "none" && (
          <Field label="At, UTC" error={mistake("at")}>
            {(props) => <input {...props} className="input" type="time" required value={form.at} onChange={(event) => onChange({ ...form, at: event.target.value.slice(0, "00:00".length) })} />}
          </Field>
        )}
        <Field label="Also once this much is payable" hint="Empty: not by amount. At most once an hour" error={mistake("threshold")}>
          {(props) => <input {...props} className="input input-number" inputMode="decimal" placeholder="none" value={form.threshold} onChange={(event) => onChange({ ...form, threshold: event.target.value.trim() })} />}
        </Field>
      </div>
    </>
  );
}
