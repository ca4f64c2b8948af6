// The booking form's state, kept in the address: it survives a reload, can be shared, and Back undoes a choice.
import type { BookingSpec } from "../api/types";

export const KINDS = ["market", "auction", "spot"] as const;
export type Kind = (typeof KINDS)[number];
export const TIERS = ["proven", "trusted"] as const;
export const SORTS = ["price", "-free", "-reliability", "spot", "model"] as const;
export type Sort = (typeof SORTS)[number];

export interface BookingSearch {
  /** Which offers are listed; it does not change what is booked. */
  q?: string;
  sort?: Sort;
  kind?: Kind;
  model?: string;
  vram?: number;
  regions?: string[];
  nodes?: number;
  gpus?: number;
  hours?: string;
  max?: string;
  name?: string;
  site?: true;
  rtt?: number;
  cpus?: number;
  memory?: number;
  disk?: number;
  reliability?: number;
  tier?: (typeof TIERS)[number];
  start?: string;
  window?: string;
  choose?: "manual";
  park?: string;
  release?: string;
}

/** A change to the form; undefined clears a field. */
export type BookingChange = { [Field in keyof BookingSearch]?: BookingSearch[Field] | undefined };

export const DEFAULTS = { nodes: 2, gpus: 1, hours: "1h", window: "10s" } as const;
export const DURATIONS = ["30m", "1h", "3h", "6h", "12h", "24h"] as const;
export const WINDOWS = ["5s", "10s", "30s", "60s"] as const;
export const PARK_AFTER = ["15m", "30m", "1h"] as const;
export const RELEASE_AFTER = ["1h", "24h", "72h"] as const;
export const MOST_NODES = 64;
export const MOST_GPUS = 16;
const MOST_REGIONS = 32;
const MOST_QUERY = 500;
const MOST_COUNT = 1_000_000;

/** Reads the address; what is malformed is left out rather than guessed. */
export function bookingSearch(raw: Record<string, unknown>): BookingSearch {
  const search: BookingSearch = {};
  const put = <Field extends keyof BookingSearch>(field: Field, value: BookingSearch[Field] | undefined) => {
    if (value !== undefined) search[field] = value;
  };
  put("q", text(raw.q, MOST_QUERY));
  put("sort", oneOf(SORTS, raw.sort));
  put("kind", oneOf(KINDS, raw.kind));
  put("model", text(raw.model, 40));
  put("vram", count(raw.vram, 10_000));
  put("regions", regionsOf(raw.regions));
  put("nodes", count(raw.nodes, MOST_NODES));
  put("gpus", count(raw.gpus, MOST_GPUS));
  put("hours", duration(raw.hours));
  const max = typeof raw.max === "number" ? String(raw.max) : text(raw.max, 20);
  if (max !== undefined && /^\d+(\.\d+)?$/.test(max)) search.max = max;
  put("name", text(raw.name, 80));
  if (raw.site === true) search.site = true;
  put("rtt", count(raw.rtt, 10_000));
  put("cpus", count(raw.cpus, MOST_COUNT));
  put("memory", count(raw.memory, MOST_COUNT));
  put("disk", count(raw.disk, MOST_COUNT));
  if (typeof raw.reliability === "number" && raw.reliability > 0 && raw.reliability <= 100) search.reliability = raw.reliability;
  put("tier", oneOf(TIERS, raw.tier));
  if (typeof raw.start === "string" && !Number.isNaN(Date.parse(raw.start))) search.start = raw.start;
  put("window", duration(raw.window));
  if (raw.choose === "manual") search.choose = "manual";
  put("park", duration(raw.park));
  put("release", duration(raw.release));
  return search;
}

/** What the address asks for, null while neither a GPU model nor a size of memory is chosen. */
export function specOf(search: BookingSearch): BookingSpec | null {
  if (search.model === undefined && search.vram === undefined) return null;
  if (search.kind === "spot" && search.max === undefined) return null;
  const spec: BookingSpec = {
    kind: search.kind ?? "market",
    node_count: search.nodes ?? DEFAULTS.nodes,
    gpus_per_node: search.gpus ?? DEFAULTS.gpus,
    duration: search.hours ?? DEFAULTS.hours,
  };
  if (search.model !== undefined) spec.gpu_model = search.model;
  if (search.vram !== undefined) spec.min_vram_gb = search.vram;
  if (search.regions !== undefined) spec.regions = search.regions;
  if (search.max !== undefined) spec.max_price_per_gpu_hour = search.max;
  if (search.name !== undefined) spec.cluster_name = search.name;
  if (search.site === true) spec.same_site = true;
  if (search.rtt !== undefined && search.site !== true) spec.max_rtt_ms = search.rtt;
  if (search.cpus !== undefined) spec.cpus = search.cpus;
  if (search.memory !== undefined) spec.memory_gib = search.memory;
  if (search.disk !== undefined) spec.disk_gib = search.disk;
  if (search.reliability !== undefined) spec.min_reliability_percent = search.reliability;
  if (search.tier !== undefined) spec.min_tier = search.tier;
  if (search.start !== undefined) spec.starts_at = new Date(search.start).toISOString();
  if (search.kind === "auction") {
    spec.bid_window = search.window ?? DEFAULTS.window;
    if (search.choose !== undefined) spec.choose = search.choose;
  }
  if (search.park !== undefined) spec.auto_stop = { park_after: search.park, ...(search.release === undefined ? {} : { release_after: search.release }) };
  return spec;
}

/** The form's state for a spec, as a counter-offer carries one: what the spec leaves open is cleared. */
export function changeTo(spec: BookingSpec): BookingChange {
  return {
    kind: oneOf(KINDS, spec.kind),
    model: spec.gpu_model,
    vram: spec.min_vram_gb,
    regions: spec.regions,
    nodes: spec.node_count,
    gpus: spec.gpus_per_node,
    hours: spec.duration,
    max: spec.max_price_per_gpu_hour,
    site: spec.same_site === true ? true : undefined,
    rtt: spec.max_rtt_ms,
    cpus: spec.cpus,
    memory: spec.memory_gib,
    disk: spec.disk_gib,
    reliability: spec.min_reliability_percent,
    tier: oneOf(TIERS, spec.min_tier),
    start: spec.starts_at,
  };
}

function text(value: unknown, longest: number): string | undefined {
  return typeof value === "string" && value !== "" && value.length <= longest ? value : undefined;
}

function count(value: unknown, most: number): number | undefined {
  return typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= most ? value : undefined;
}

function duration(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" && /^(\d+h)?(\d+m)?(\d+s)?$/.test(value) ? value : undefined;
}

function oneOf<T extends string>(known: readonly T[], value: unknown): T | undefined {
  return known.find((one) => one === value);
}

function regionsOf(value: unknown): string[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const regions = value.filter((region): region is string => text(region, 40) !== undefined).slice(0, MOST_REGIONS);
  return regions.length > 0 ? regions : undefined;
}
