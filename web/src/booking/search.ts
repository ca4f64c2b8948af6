// The booking form's state, kept in the address: it survives a reload, can be shared, and Back undoes a choice.
import type { BookingSpec } from "../api/types";

export interface BookingSearch {
  model?: string;
  regions?: string[];
  nodes?: number;
  gpus?: number;
  hours?: string;
  max?: string;
  name?: string;
}

/** A change to the form; undefined clears a field. */
export type BookingChange = { [Field in keyof BookingSearch]?: BookingSearch[Field] | undefined };

export const DEFAULTS = { nodes: 2, gpus: 1, hours: "1h" } as const;
export const DURATIONS = ["30m", "1h", "3h", "6h", "12h", "24h"] as const;
export const MOST_NODES = 64;
export const MOST_GPUS = 16;
const MOST_REGIONS = 32;

/** Reads the address; what is malformed is left out rather than guessed. */
export function bookingSearch(raw: Record<string, unknown>): BookingSearch {
  const search: BookingSearch = {};
  const model = text(raw.model, 40);
  if (model !== undefined) search.model = model;
  if (Array.isArray(raw.regions)) {
    const regions = raw.regions.filter((region): region is string => text(region, 40) !== undefined).slice(0, MOST_REGIONS);
    if (regions.length > 0) search.regions = regions;
  }
  const nodes = count(raw.nodes, MOST_NODES);
  if (nodes !== undefined) search.nodes = nodes;
  const gpus = count(raw.gpus, MOST_GPUS);
  if (gpus !== undefined) search.gpus = gpus;
  if (typeof raw.hours === "string" && /^(\d+h)?(\d+m)?(\d+s)?$/.test(raw.hours) && raw.hours !== "") search.hours = raw.hours;
  const max = typeof raw.max === "number" ? String(raw.max) : text(raw.max, 20);
  if (max !== undefined && /^\d+(\.\d+)?$/.test(max)) search.max = max;
  const name = text(raw.name, 80);
  if (name !== undefined) search.name = name;
  return search;
}

/** What the address asks for, null while no GPU model is chosen. */
export function specOf(search: BookingSearch): BookingSpec | null {
  if (search.model === undefined) return null;
  return {
    gpu_model: search.model,
    node_count: search.nodes ?? DEFAULTS.nodes,
    gpus_per_node: search.gpus ?? DEFAULTS.gpus,
    duration: search.hours ?? DEFAULTS.hours,
    ...(search.regions === undefined ? {} : { regions: search.regions }),
    ...(search.max === undefined ? {} : { max_price_per_gpu_hour: search.max }),
    ...(search.name === undefined ? {} : { cluster_name: search.name }),
  };
}

function text(value: unknown, longest: number): string | undefined {
  return typeof value === "string" && value !== "" && value.length <= longest ? value : undefined;
}

function count(value: unknown, most: number): number | undefined {
  return typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= most ? value : undefined;
}
