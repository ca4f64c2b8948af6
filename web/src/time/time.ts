// Times and durations. Instants are shown in the viewer's zone with its name, and in UTC on hover; finance pages show UTC.

const TENTH_MS = 100;
const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

export interface InstantOptions {
  utc?: boolean;
  locale?: string;
  zone?: string;
}

/** "22 Nov 2026, 14:03:05 CET" */
export function formatInstant(iso: string, options: InstantOptions = {}): string {
  return new Intl.DateTimeFormat(options.locale, {
    day: "numeric",
    month: "short",
    year: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hourCycle: "h23",
    timeZoneName: "short",
    ...zone(options),
  }).format(new Date(iso));
}

/** "14:03:05 CET", for lists whose day is known. */
export function formatClock(iso: string, options: InstantOptions = {}): string {
  return new Intl.DateTimeFormat(options.locale, {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hourCycle: "h23",
    timeZoneName: "short",
    ...zone(options),
  }).format(new Date(iso));
}

function zone(options: InstantOptions): Intl.DateTimeFormatOptions {
  if (options.utc) return { timeZone: "UTC" };
  return options.zone === undefined ? {} : { timeZone: options.zone };
}

/** "2026-11-22 13:03:05 UTC" */
export function utcText(iso: string): string {
  return `${new Date(iso).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** Two units at most: "4.2 s", "2 min 5 s", "6 h 30 min", "3 d 4 h". */
export function formatDuration(ms: number): string {
  const positive = Math.max(0, ms);
  if (positive < TENTH_MS) return "0 s";
  if (positive < 10 * SECOND_MS) return `${(Math.floor(positive / TENTH_MS) / 10).toFixed(1)} s`;
  if (positive < MINUTE_MS) return `${Math.floor(positive / SECOND_MS)} s`;
  if (positive < HOUR_MS) return pair(positive, MINUTE_MS, "min", SECOND_MS, "s");
  if (positive < DAY_MS) return pair(positive, HOUR_MS, "h", MINUTE_MS, "min");
  return pair(positive, DAY_MS, "d", HOUR_MS, "h");
}

function pair(ms: number, large: number, largeUnit: string, small: number, smallUnit: string): string {
  const first = Math.floor(ms / large);
  const second = Math.floor((ms % large) / small);
  return second === 0 ? `${first} ${largeUnit}` : `${first} ${largeUnit} ${second} ${smallUnit}`;
}

/** Hours, in the API's notation, of a Go duration such as "2h30m"; null when it is none. */
export function durationMs(text: string): number | null {
  if (!/^(\d+h)?(\d+m)?(\d+s)?$/.test(text) || text === "") return null;
  const part = (unit: string) => Number(new RegExp(`(\\d+)${unit}`).exec(text)?.[1] ?? 0);
  return part("h") * HOUR_MS + part("m") * MINUTE_MS + part("s") * SECOND_MS;
}

/** "1 h", "2 h 30 min" of the API's "1h", "2h30m"; the text itself when it is none. */
export function durationWords(text: string): string {
  const ms = durationMs(text);
  return ms === null ? text : formatDuration(ms).replace(/^(\d+)\.0 s$/, "$1 s");
}
