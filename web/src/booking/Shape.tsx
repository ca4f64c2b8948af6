// The cluster's shape: what is booked, for how long, of which kind, and under which constraints.
import { useQuery } from "@tanstack/react-query";
import { useId, type ReactNode } from "react";
import type { Offer } from "../api/types";
import { Field } from "../design/parts";
import { isDecimalAmount } from "../money/money";
import { networkQuery } from "../session/session";
import { durationWords } from "../time/time";
import { useNow } from "../time/useNow";
import {
  DEFAULTS,
  DURATIONS,
  KINDS,
  MOST_GPUS,
  MOST_NODES,
  PARK_AFTER,
  RELEASE_AFTER,
  TIERS,
  WINDOWS,
  type BookingChange,
  type BookingSearch,
  type Kind,
} from "./search";

type Set = (change: BookingChange) => void;

const KIND_WORDS: Record<Kind, string> = { market: "Market", auction: "Auction", spot: "Spot" };
const KIND_HELP: Record<Kind, string> = {
  market: "At the owners' asks, at once.",
  auction: "Hosts bid below their asks for a few seconds, sealed. You take the cheapest cluster or choose the bids yourself.",
  spot: "Cheaper, and given up within 60 s when a market booking needs the GPUs. Needs a most per GPU-hour.",
};

export function Shape({ offers, search, set }: { offers: Offer[]; search: BookingSearch; set: Set }) {
  const models = [...new Set(offers.map((offer) => offer.gpu_model))].sort();
  const kind = search.kind ?? "market";
  return (
    <div className="stack">
      <fieldset className="stack" data-gap="tiny">
        <legend className="legend">GPU model</legend>
        <div className="chips">
          {models.length === 0 && <span className="muted">None on offer</span>}
          {models.map((model) => (
            <Chip key={model} type="radio" name="model" checked={search.model === model} onChange={() => set({ model, vram: undefined })}>
              {model} <span className="muted">{freeOf(offers, model)} free</span>
            </Chip>
          ))}
          {search.vram !== undefined && (
            <Chip type="radio" name="model" checked={search.model === undefined} onChange={() => set({ model: undefined })}>
              Any with {search.vram} GB
            </Chip>
          )}
        </div>
      </fieldset>
      <div className="shape">
        <CountField label="GPU nodes" value={search.nodes ?? DEFAULTS.nodes} most={MOST_NODES} onChange={(nodes) => set({ nodes })} />
        <span className="times" aria-hidden="true">
          ×
        </span>
        <CountField label="GPUs per node" value={search.gpus ?? DEFAULTS.gpus} most={MOST_GPUS} onChange={(gpus) => set({ gpus })} />
      </div>
      <Choices legend="For how long, from ready" name="hours" known={DURATIONS} value={search.hours ?? DEFAULTS.hours} onChange={(hours) => set({ hours })} />
      <fieldset className="stack" data-gap="tiny">
        <legend className="legend">How it is priced</legend>
        <div className="chips">
          {KINDS.map((one) => (
            <Chip key={one} type="radio" name="kind" checked={kind === one} onChange={() => set({ kind: one === "market" ? undefined : one })}>
              {KIND_WORDS[one]}
            </Chip>
          ))}
        </div>
        <p className="hint">{KIND_HELP[kind]}</p>
      </fieldset>
      {kind === "auction" && <Auction search={search} set={set} />}
      {kind === "spot" && <PriceLimit key="spot" search={search} set={set} needed />}
      <details open={hasMore(search)}>
        <summary>More: region, price limit, start, constraints, auto-stop</summary>
        <More offers={offers} search={search} set={set} />
      </details>
    </div>
  );
}

/** Whether a choice is made in the folded part: it must not be hidden. */
function hasMore(search: BookingSearch): boolean {
  return [search.start, search.park, search.site, search.rtt, search.cpus, search.memory, search.disk, search.reliability, search.tier].some((choice) => choice !== undefined);
}

function Auction({ search, set }: { search: BookingSearch; set: Set }) {
  return (
    <div className="two">
      <Choices legend="Hosts bid for" name="window" known={WINDOWS} value={search.window ?? DEFAULTS.window} onChange={(window) => set({ window })} />
      <fieldset className="stack" data-gap="tiny">
        <legend className="legend">Who picks the bids</legend>
        <div className="chips">
          <Chip type="radio" name="choose" checked={search.choose === undefined} onChange={() => set({ choose: undefined })}>
            The cheapest win
          </Chip>
          <Chip type="radio" name="choose" checked={search.choose === "manual"} onChange={() => set({ choose: "manual" })}>
            I choose
          </Chip>
        </div>
      </fieldset>
    </div>
  );
}

function More({ offers, search, set }: { offers: Offer[]; search: BookingSearch; set: Set }) {
  const regions = [...new Set(offers.filter((offer) => search.model === undefined || offer.gpu_model === search.model).map((offer) => offer.region))].sort();
  return (
    <div className="stack more">
      <fieldset className="stack" data-gap="tiny">
        <legend className="legend">Regions (any when none is chosen)</legend>
        <div className="chips">
          {regions.map((region) => (
            <Chip key={region} type="checkbox" checked={search.regions?.includes(region) ?? false} onChange={(on) => set(toggled(search, region, on))}>
              {region}
            </Chip>
          ))}
        </div>
      </fieldset>
      <div className="two">
        {search.kind === "spot" ? <StartField search={search} set={set} /> : <PriceLimit key="market" search={search} set={set} />}
        <TextField label="Cluster name" placeholder="chosen for you" value={search.name} onChange={(name) => set({ name })} />
        {search.kind !== "spot" && <StartField search={search} set={set} />}
        <NumberField label="Memory of a GPU, GB at least" value={search.vram} onChange={(vram) => set({ vram })} />
      </div>
      <fieldset className="stack" data-gap="tiny">
        <legend className="legend">Network between nodes</legend>
        <div className="chips">
          <Chip type="radio" name="network" checked={search.site !== true} onChange={() => set({ site: undefined })}>
            Any
          </Chip>
          <Chip type="radio" name="network" checked={search.site === true} onChange={() => set({ site: true, rtt: undefined })}>
            One site
          </Chip>
        </div>
      </fieldset>
      <div className="two">
        {search.site !== true && <NumberField label="Slowest link, ms at most" value={search.rtt} onChange={(rtt) => set({ rtt })} />}
        <NumberField label="CPUs per node, at least" value={search.cpus} onChange={(cpus) => set({ cpus })} />
        <NumberField label="Memory per node, GiB at least" value={search.memory} onChange={(memory) => set({ memory })} />
        <NumberField label="Disk per node, GiB at least" value={search.disk} onChange={(disk) => set({ disk })} />
        <NumberField label="Reliability, percent at least" value={search.reliability} decimals onChange={(reliability) => set({ reliability })} />
      </div>
      <fieldset className="stack" data-gap="tiny">
        <legend className="legend">Standing of the hosts</legend>
        <div className="chips">
          <Chip type="radio" name="tier" checked={search.tier === undefined} onChange={() => set({ tier: undefined })}>
            Any
          </Chip>
          {TIERS.map((tier) => (
            <Chip key={tier} type="radio" name="tier" checked={search.tier === tier} onChange={() => set({ tier })}>
              {tier === "proven" ? "Proven or trusted" : "Trusted"}
            </Chip>
          ))}
        </div>
      </fieldset>
      <Choices legend="Park it when idle for" name="park" known={PARK_AFTER} value={search.park} none="never" onChange={(park) => set({ park, ...(park === undefined ? { release: undefined } : {}) })} />
      {search.park !== undefined && <Choices legend="Release it when parked for" name="release" known={RELEASE_AFTER} value={search.release} none="never" onChange={(release) => set({ release })} />}
      <p className="hint">A parked cluster has no GPUs and costs nothing; its head keeps the job history. Idle is without a running job, a busy task or an open session.</p>
    </div>
  );
}

function Chip({ type, name, checked, onChange, children }: { type: "radio" | "checkbox"; name?: string; checked: boolean; onChange: (on: boolean) => void; children: ReactNode }) {
  return (
    <label className="chip">
      <input type={type} name={name} checked={checked} onChange={(event) => onChange(event.target.checked)} />
      {children}
    </label>
  );
}

/** Durations to choose one of; a value that is none of them, from a link, is listed too. */
function Choices({ legend, name, known, value, none, onChange }: { legend: string; name: string; known: readonly string[]; value: string | undefined; none?: string; onChange: (value: string | undefined) => void }) {
  const choices = value === undefined || known.includes(value) ? known : [...known, value];
  return (
    <fieldset className="stack" data-gap="tiny">
      <legend className="legend">{legend}</legend>
      <div className="chips">
        {none !== undefined && (
          <Chip type="radio" name={name} checked={value === undefined} onChange={() => onChange(undefined)}>
            {none}
          </Chip>
        )}
        {choices.map((choice) => (
          <Chip key={choice} type="radio" name={name} checked={value === choice} onChange={() => onChange(choice)}>
            {durationWords(choice)}
          </Chip>
        ))}
      </div>
    </fieldset>
  );
}

function PriceLimit({ search, set, needed = false }: { search: BookingSearch; set: Set; needed?: boolean }) {
  const network = useQuery(networkQuery);
  const decimals = network.data?.decimals ?? 6;
  const max = search.max ?? "";
  const bad = max !== "" && !isDecimalAmount(max, decimals);
  const missing = needed && max === "";
  return (
    <Field label={`Most per GPU-hour${network.data === undefined ? "" : `, ${network.data.symbol}`}`} error={bad ? `A positive amount with at most ${decimals} decimals` : undefined} hint={missing ? "The spot price is asked for once you name it." : undefined}>
      {(props) => <input {...props} className="input input-number" inputMode="decimal" placeholder={needed ? "2.00" : "no limit"} defaultValue={max} onBlur={(event) => set({ max: event.target.value.trim() === "" ? undefined : event.target.value.trim() })} />}
    </Field>
  );
}

const START_TICK_MS = 10_000;

/** Local time of the viewer, as the browser's own picker gives it. */
function StartField({ search, set }: { search: BookingSearch; set: Set }) {
  const now = useNow(START_TICK_MS, search.start !== undefined);
  const past = search.start !== undefined && Date.parse(search.start) <= now;
  return (
    <Field label="Start" hint="In your time zone; empty: at once" error={past ? "This time has passed: choose a later one, or clear it to start at once" : undefined}>
      {(props) => <input {...props} className="input" type="datetime-local" value={localInput(search.start)} onChange={(event) => set({ start: event.target.value === "" ? undefined : event.target.value })} />}
    </Field>
  );
}

/** An instant as a datetime-local input wants it: wall time without a zone. */
function localInput(start: string | undefined): string {
  if (start === undefined) return "";
  if (/^\d{4}-\d\d-\d\dT\d\d:\d\d$/.test(start)) return start;
  const at = new Date(start);
  return new Date(at.getTime() - at.getTimezoneOffset() * MS_PER_MINUTE).toISOString().slice(0, "2026-11-22T22:00".length);
}

const MS_PER_MINUTE = 60_000;

function TextField({ label, placeholder, value, onChange }: { label: string; placeholder: string; value: string | undefined; onChange: (value: string | undefined) => void }) {
  return <Field label={label}>{(props) => <input {...props} className="input" maxLength={80} placeholder={placeholder} defaultValue={value ?? ""} onBlur={(event) => onChange(event.target.value.trim() === "" ? undefined : event.target.value.trim())} />}</Field>;
}

function NumberField({ label, value, decimals = false, onChange }: { label: string; value: number | undefined; decimals?: boolean; onChange: (value: number | undefined) => void }) {
  const id = useId();
  return (
    <Field label={label}>
      {(props) => (
        <input
          {...props}
          key={`${id} ${value ?? ""}`}
          className="input input-number"
          inputMode={decimals ? "decimal" : "numeric"}
          placeholder="any"
          defaultValue={value ?? ""}
          onBlur={(event) => {
            const typed = Number(event.target.value.trim());
            onChange(event.target.value.trim() === "" || Number.isNaN(typed) || typed <= 0 ? undefined : decimals ? typed : Math.ceil(typed));
          }}
        />
      )}
    </Field>
  );
}

function freeOf(offers: Offer[], model: string): number {
  return offers.filter((offer) => offer.gpu_model === model).reduce((sum, offer) => sum + offer.free_gpus, 0);
}

function toggled(search: BookingSearch, region: string, on: boolean): BookingChange {
  const others = (search.regions ?? []).filter((one) => one !== region);
  const regions = on ? [...others, region] : others;
  return { regions: regions.length === 0 ? undefined : regions };
}

function CountField({ label, value, most, onChange }: { label: string; value: number; most: number; onChange: (value: number) => void }) {
  return (
    <Field label={label}>
      {(props) => (
        <span className="stepper">
          <button type="button" className="button" disabled={value <= 1} onClick={() => onChange(value - 1)} aria-label={`Fewer ${label}`}>
            −
          </button>
          <input
            {...props}
            className="input"
            inputMode="numeric"
            value={value}
            onChange={(event) => {
              const typed = Number.parseInt(event.target.value, 10);
              if (Number.isInteger(typed) && typed >= 1 && typed <= most) onChange(typed);
            }}
          />
          <button type="button" className="button" disabled={value >= most} onClick={() => onChange(value + 1)} aria-label={`More ${label}`}>
            +
          </button>
        </span>
      )}
    </Field>
  );
}
