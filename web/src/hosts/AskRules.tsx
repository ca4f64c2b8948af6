// An ask's rules, with what they would do before they are saved.
import { useQuery } from "@tanstack/react-query";
import { lazy, Suspense, useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import { asApiError } from "../api/problem";
import type { AskPreview, AskRules, Host } from "../api/types";
import { ActionError, Failure } from "../design/Loaded";
import { Button, Dialog, Field, MoneyText, Skeleton } from "../design/parts";
import { plainText } from "../money/money";
import { formatDuration } from "../time/time";
import { previewQuery, type AskBody } from "./queries";

const Chart = lazy(() => import("../market/Chart").then((module) => ({ default: module.Chart })));

/** The whole of an ask in one dialog; the host's one price has its own field on the page. */
export function AskRulesButton({ org, host }: { org: string; host: Host }) {
  const [open, setOpen] = useState(false);
  if (host.ask === undefined) return null;
  return (
    <>
      <Button size="small" onClick={() => setOpen(true)}>
        Rules
      </Button>
      <Dialog open={open} title={`Price rules of ${host.name}`} onClose={() => setOpen(false)}>
        <Editing org={org} host={host} ask={host.ask} onDone={() => setOpen(false)} />
      </Dialog>
    </>
  );
}

interface Form {
  price: string;
  floor: string;
  spot: string;
  auction: string;
  daily: string;
  weekly: string;
  monthly: string;
  busyAbove: string;
  busyPercent: string;
  nightFrom: string;
  nightTo: string;
  nightPercent: string;
  weekendPercent: string;
}

const WEEKEND = ["sat", "sun"];
const WHOLE_DAY = { from: "00:00", to: "24:00" };

function formOf(ask: NonNullable<Host["ask"]>): Form {
  const { rules } = ask;
  const off = (from: string) => textOf(rules.discounts?.find((one) => one.from === from)?.percent);
  const busy = rules.utilisation?.find((step) => step.above !== undefined);
  const night = rules.calendar?.find((period) => (period.days ?? []).length === 0);
  const weekend = rules.calendar?.find((period) => (period.days ?? []).join() === WEEKEND.join());
  return {
    price: plainText(ask.price_per_gpu_hour),
    floor: ask.floor === undefined ? "" : plainText(ask.floor),
    spot: textOf(rules.spot_percent),
    auction: textOf(rules.auction_percent),
    daily: off("daily"),
    weekly: off("weekly"),
    monthly: off("monthly"),
    busyAbove: textOf(busy?.above),
    busyPercent: textOf(busy?.percent),
    nightFrom: night?.from ?? "",
    nightTo: night?.to ?? "",
    nightPercent: textOf(night?.percent),
    weekendPercent: textOf(weekend?.percent),
  };
}

/** Whether rules have more than the form shows: those come from the CLI or the API and must not be lost by saving here. */
function isBeyondForm(rules: AskRules): boolean {
  const shown = rules.calendar?.filter((period) => (period.days ?? []).length === 0 || (period.days ?? []).join() === WEEKEND.join()).length ?? 0;
  return (rules.calendar?.length ?? 0) > shown || shown > 2 || (rules.utilisation?.length ?? 0) > 1 || rules.utilisation?.some((step) => step.below !== undefined) === true;
}

function bodyOf(form: Form, active: boolean): AskBody {
  const rules: AskRules = {};
  const discounts = (["daily", "weekly", "monthly"] as const).flatMap((from) => (form[from] === "" ? [] : [{ from, percent: Number(form[from]) }]));
  if (discounts.length > 0) rules.discounts = discounts;
  if (form.busyPercent !== "") rules.utilisation = [{ above: Number(form.busyAbove === "" ? "80" : form.busyAbove), percent: Number(form.busyPercent) }];
  const calendar: NonNullable<AskRules["calendar"]> = [];
  if (form.nightPercent !== "") calendar.push({ from: form.nightFrom === "" ? "22:00" : form.nightFrom, to: form.nightTo === "" ? "06:00" : form.nightTo, percent: Number(form.nightPercent) });
  if (form.weekendPercent !== "") calendar.push({ days: WEEKEND, ...WHOLE_DAY, percent: Number(form.weekendPercent) });
  if (calendar.length > 0) rules.calendar = calendar;
  if (form.spot !== "") rules.spot_percent = Number(form.spot);
  if (form.auction !== "") rules.auction_percent = Number(form.auction);
  return { price_per_gpu_hour: form.price, active, ...(form.floor === "" ? {} : { floor: form.floor }), rules };
}

function Editing({ org, host, ask, onDone }: { org: string; host: Host; ask: NonNullable<Host["ask"]>; onDone: () => void }) {
  const [form, setForm] = useState(() => formOf(ask));
  const [asked, setAsked] = useState(form);
  const preview = useQuery(previewQuery(org, host.id, bodyOf(asked, ask.active)));
  const save = useAction({
    run: (body: AskBody, header) => unwrap(client.PUT("/v1/hosts/{id}/ask", { params: { path: { id: host.id }, query: { org }, header }, body })),
    invalidates: [
      ["hosts", org],
      ["host", org, host.id],
    ],
    done: "Price rules saved",
    onDone,
  });
  const cause = save.error ?? preview.error;
  const fields = cause === null ? [] : asApiError(cause).fields;
  const mistake = (...names: string[]) => fields.find((field) => names.some((name) => field.path.includes(name)))?.message;
  const input = (name: keyof Form, label: string, hint?: string, error?: string) => (
    <Field label={label} error={error} hint={hint}>
      {(props) => <input {...props} className="input input-number" inputMode="decimal" placeholder="none" value={form[name]} onChange={(event) => setForm({ ...form, [name]: event.target.value.trim() })} onBlur={() => setAsked(form)} />}
    </Field>
  );
  if (isBeyondForm(ask.rules)) return <p>These rules have more parts than this form. Change them with <code>muster host ask</code>, which takes them as a file, or through the API.</p>;
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate(bodyOf(form, ask.active));
      }}
    >
      <div className="two">
        {input("price", "Price per GPU-hour", undefined, mistake("price_per_gpu_hour"))}
        {input("floor", "Never below", "No rule goes under it", mistake("floor"))}
        {input("daily", "From 24 h, % off", undefined, mistake("discounts"))}
        {input("weekly", "From 7 days, % off")}
        {input("monthly", "30 days, % off")}
        {input("spot", "Spot, % off", "Empty: takes no spot bookings", mistake("spot_percent"))}
        {input("auction", "Auctions, at most % off", undefined, mistake("auction_percent"))}
        {input("busyAbove", "When more than this % is leased", undefined, mistake("utilisation"))}
        {input("busyPercent", "then % on top")}
        {input("nightFrom", "Daily from, UTC", "22:00", mistake("calendar"))}
        {input("nightTo", "to, UTC", "06:00")}
        {input("nightPercent", "% on top, or off with a minus")}
        {input("weekendPercent", "Saturday and Sunday, %")}
      </div>
      {preview.data === undefined ? preview.error === null ? <Skeleton height={240} /> : fields.length === 0 && <Failure error={preview.error} onRetry={() => void preview.refetch()} busy={preview.isFetching} /> : <Preview preview={preview.data} />}
      {fields.length === 0 && <ActionError error={save.error} />}
      <div className="dialog-actions">
        <Button onClick={onDone}>Close</Button>
        <Button onClick={() => setAsked(form)} busy={preview.isFetching}>
          Preview
        </Button>
        <Button type="submit" look="primary" busy={save.isPending}>
          Save
        </Button>
      </div>
    </form>
  );
}

function textOf(percent: number | undefined): string {
  return percent === undefined || percent === 0 ? "" : String(percent);
}

const CLASS_WORDS = { hourly: "under 24 h", daily: "from 24 h", weekly: "from 7 days", monthly: "30 days", spot: "spot" } as const;

function Preview({ preview }: { preview: AskPreview }) {
  return (
    <section className="stack" data-gap="small" aria-label="What these rules would do">
      <dl className="pairs">
        {(Object.keys(CLASS_WORDS) as (keyof typeof CLASS_WORDS)[]).map((name) => {
          const price = preview.now[name];
          return (
            <div key={name}>
              <dt>Now, {CLASS_WORDS[name]}</dt>
              <dd>{price === undefined ? "not offered" : <MoneyText of={price} />}</dd>
            </div>
          );
        })}
        <div>
          <dt>Among open hosts of its kind here</dt>
          <dd>
            {preview.rank} of {preview.peers}, cheapest first
          </dd>
        </div>
        {preview.past !== undefined && (
          <div>
            <dt>Would have earned in the last {formatDuration(preview.past.sampled_ms)}</dt>
            <dd>
              about <MoneyText of={preview.past.earned} />, hired {preview.past.hired_percent.toFixed(0)} % of the time
            </dd>
          </div>
        )}
      </dl>
      <Suspense fallback={<Skeleton height={200} />}>
        <Chart
          label="The hourly price over the coming week"
          times={preview.hours.map((hour) => hour.at)}
          // The line's height only: no amount is computed from it.
          series={[{ label: "Price", values: preview.hours.map((hour) => Number(hour.price.text)) }]}
          format={priceTick}
        />
      </Suspense>
    </section>
  );
}

const priceTick = (value: number) => value.toFixed(2);
