// What the audit log is filtered by, as it stands in the address.

export interface BooksSearch {
  person?: string;
  action?: string;
  subject?: string;
  /** Days in UTC, the last one included. */
  from?: string;
  to?: string;
}

const MOST_CHARS = 100;
const DAY = /^20\d{2}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$/;
const DAY_MS = 86_400_000;

function textOf(value: unknown): string | undefined {
  if (typeof value !== "string") return undefined;
  const text = value.trim();
  return text === "" || text.length > MOST_CHARS ? undefined : text;
}

function dayOf(value: unknown): string | undefined {
  return typeof value === "string" && DAY.test(value) ? value : undefined;
}

/** Drops what the log cannot be filtered by. */
export function booksSearch(raw: Record<string, unknown>): BooksSearch {
  const read = { person: textOf(raw.person), action: textOf(raw.action), subject: textOf(raw.subject), from: dayOf(raw.from), to: dayOf(raw.to) };
  return Object.fromEntries(Object.entries(read).filter(([, value]) => value !== undefined));
}

/** The same as the API asks for it: whole days become moments. */
export function auditFilter({ from, to, ...rest }: BooksSearch): BooksSearch {
  return { ...rest, ...(from === undefined ? {} : { from: `${from}T00:00:00Z` }), ...(to === undefined ? {} : { to: new Date(Date.parse(`${to}T00:00:00Z`) + DAY_MS).toISOString() }) };
}
