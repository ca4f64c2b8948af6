// The server's clock, as far as the Date header tells it. A viewer's clock that is minutes off must not expire quotes early
// or make a meter run backwards; the header's one-second resolution does not matter beside that.

const TOLERATED_SKEW_MS = 2_000;

let offsetMs = 0;

/** Learns from one answer: its Date header, and when it was asked for and received here. */
export function learnServerTime(dateHeader: string | null, askedAt: number, receivedAt: number): void {
  const server = dateHeader === null ? Number.NaN : Date.parse(dateHeader);
  if (Number.isNaN(server)) return;
  const measured = server - (askedAt + receivedAt) / 2;
  offsetMs = Math.abs(measured) > TOLERATED_SKEW_MS ? measured : 0;
}

/** Milliseconds since the epoch by the server's clock. */
export function serverNow(): number {
  return Date.now() + offsetMs;
}
