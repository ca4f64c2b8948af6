// How the words of the API's state machines look. Five tones for everything; a word that this console does not know is shown
// as it is, in the tone of the unknown.

export type Tone = "ok" | "busy" | "warn" | "bad" | "unknown";

export interface Look {
  tone: Tone;
  word: string;
}

const LOOKS = {
  cluster: {
    reserved: { tone: "busy", word: "Reserved" },
    preparing: { tone: "busy", word: "Preparing" },
    head_up: { tone: "busy", word: "Head up" },
    joining: { tone: "busy", word: "Joining" },
    ready: { tone: "ok", word: "Ready" },
    degraded: { tone: "warn", word: "Degraded" },
    parked: { tone: "warn", word: "Parked" },
    draining: { tone: "busy", word: "Draining" },
    released: { tone: "unknown", word: "Released" },
    failed: { tone: "bad", word: "Failed" },
  },
  node: {
    planned: { tone: "busy", word: "Planned" },
    starting: { tone: "busy", word: "Starting" },
    running: { tone: "busy", word: "Running" },
    alive: { tone: "ok", word: "Alive" },
    stopping: { tone: "busy", word: "Stopping" },
    stopped: { tone: "unknown", word: "Stopped" },
    failed: { tone: "bad", word: "Failed" },
  },
  job: {
    PENDING: { tone: "busy", word: "Pending" },
    RUNNING: { tone: "busy", word: "Running" },
    SUCCEEDED: { tone: "ok", word: "Succeeded" },
    FAILED: { tone: "bad", word: "Failed" },
    STOPPED: { tone: "unknown", word: "Stopped" },
  },
  host: {
    enrolled: { tone: "busy", word: "Enrolled" },
    verifying: { tone: "busy", word: "Verifying" },
    idle: { tone: "ok", word: "Idle" },
    leased: { tone: "ok", word: "Leased" },
    draining: { tone: "warn", word: "Draining" },
    quarantined: { tone: "bad", word: "Quarantined" },
    lost: { tone: "bad", word: "Lost" },
    retired: { tone: "unknown", word: "Retired" },
  },
  token: {
    open: { tone: "busy", word: "Waiting for the host" },
    used: { tone: "ok", word: "Used" },
    expired: { tone: "unknown", word: "Expired" },
    revoked: { tone: "unknown", word: "Revoked" },
  },
  batch: {
    draft: { tone: "warn", word: "Draft" },
    approved: { tone: "busy", word: "Approved" },
    signed: { tone: "busy", word: "Signed" },
    sent: { tone: "busy", word: "Sent" },
    finalized: { tone: "ok", word: "Finalized" },
    failed: { tone: "bad", word: "Failed" },
    frozen: { tone: "bad", word: "Frozen" },
    cancelling: { tone: "busy", word: "Cancelling" },
    cancelled: { tone: "unknown", word: "Cancelled" },
  },
  run: {
    drafting: { tone: "busy", word: "Drafting" },
    done: { tone: "ok", word: "Drafted" },
    failed: { tone: "bad", word: "Failed" },
  },
  withdrawal: {
    requested: { tone: "warn", word: "Waits for a payout" },
    drafted: { tone: "busy", word: "In a payout" },
    paid: { tone: "ok", word: "Paid" },
    cancelled: { tone: "unknown", word: "Given up" },
  },
  nonce: {
    free: { tone: "ok", word: "Free" },
    held: { tone: "busy", word: "In use" },
    unusable: { tone: "bad", word: "Unusable" },
  },
  reconciliation: {
    running: { tone: "busy", word: "Running" },
    clean: { tone: "ok", word: "Clean" },
    differences: { tone: "bad", word: "Differences" },
    behind: { tone: "warn", word: "Behind" },
    failed: { tone: "bad", word: "Failed" },
  },
  sweep: {
    planned: { tone: "busy", word: "Planned" },
    signed: { tone: "busy", word: "Signed" },
    finalized: { tone: "ok", word: "Finalized" },
    failed: { tone: "bad", word: "Failed" },
    frozen: { tone: "bad", word: "Frozen" },
  },
  deposit: {
    credited: { tone: "ok", word: "Credited" },
    suspense: { tone: "warn", word: "In suspense" },
    capital: { tone: "ok", word: "Capital" },
  },
} satisfies Record<string, Record<string, Look>>;

export type Machine = keyof typeof LOOKS;

export function lookOf(machine: Machine, state: string): Look {
  const looks: Partial<Record<string, Look>> = LOOKS[machine];
  return looks[state] ?? { tone: "unknown", word: state };
}
