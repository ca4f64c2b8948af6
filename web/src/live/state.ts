// What the page knows about its live connection, and which cached objects an event makes out of date.

export interface ClusterSignal {
  id: string;
  version: number;
  seq: number;
  message: string;
}

export type Link = { kind: "connecting" } | { kind: "live" } | { kind: "reconnecting"; since: number } | { kind: "stale"; since: number };

export interface LiveState {
  link: Link;
  /** Where to resume from: the id of the last event taken. */
  lastEventId: string;
  /** The newest that was seen of each cluster. */
  seen: ReadonlyMap<string, { version: number; seq: number }>;
}

export const INITIAL: LiveState = { link: { kind: "connecting" }, lastEventId: "", seen: new Map() };

/** A connection that stays away longer is called stale: what the page shows may be wrong by now. */
export const STALE_AFTER_MS = 15_000;

export type LiveAction =
  | { kind: "opened" }
  | { kind: "lost"; at: number }
  | { kind: "waited"; at: number }
  | { kind: "signal"; eventId: string; signal: ClusterSignal };

export function reduce(state: LiveState, action: LiveAction): LiveState {
  switch (action.kind) {
    case "opened":
      return { ...state, link: { kind: "live" } };
    case "lost":
      return state.link.kind === "live" || state.link.kind === "connecting" ? { ...state, link: { kind: "reconnecting", since: action.at } } : state;
    case "waited":
      return state.link.kind === "reconnecting" && action.at - state.link.since >= STALE_AFTER_MS
        ? { ...state, link: { kind: "stale", since: state.link.since } }
        : state;
    case "signal": {
      const { signal, eventId } = action;
      const next = { ...state, lastEventId: eventId === "" ? state.lastEventId : eventId };
      if (!isNews(state, signal)) return next;
      const known = state.seen.get(signal.id) ?? { version: 0, seq: 0 };
      const newest = { version: Math.max(known.version, signal.version), seq: Math.max(known.seq, signal.seq) };
      return { ...next, seen: new Map(state.seen).set(signal.id, newest) };
    }
  }
}

/** Whether a signal says anything that an earlier one has not: events may be repeated after a reconnect. */
export function isNews(state: LiveState, signal: ClusterSignal): boolean {
  const known = state.seen.get(signal.id);
  return known === undefined || signal.version > known.version || signal.seq > known.seq;
}

/** The signal of an event's data, null for anything else: a newer server may send kinds that this console does not know. */
export function parseSignal(type: string, data: string): ClusterSignal | null {
  if (type !== "cluster") return null;
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch {
    return null;
  }
  if (typeof value !== "object" || value === null) return null;
  const { id, version, seq, message } = value as Record<string, unknown>;
  if (typeof id !== "string" || typeof version !== "number") return null;
  return { id, version, seq: typeof seq === "number" ? seq : 0, message: typeof message === "string" ? message : "" };
}
