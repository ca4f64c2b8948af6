// What the API would answer on a small local network. The types are the generated ones, so a drift fails to compile.
import { generateKeyPairSync, verify } from "node:crypto";
import type * as api from "../../src/api/types";
import { decimalText } from "../../src/money/money";
import { base58 } from "../../src/wallet/base58";
import { Refusal, type Answer } from "./stage";

export const usdc = (text: string): api.Money => {
  const [whole = "0", fraction = ""] = text.split(".");
  const base_units = String(BigInt(`${whole}${fraction.padEnd(6, "0")}`));
  return { base_units, text: decimalText(BigInt(base_units), 6), currency: "USDC", decimals: 6 };
};

const id = (prefix: string, n: number) => `${prefix}_${String(n).padStart(26, "01kq8z3v9d7m5x2wrp4t6y")}`;
const ago = (seconds: number) => new Date(Date.now() - seconds * 1_000).toISOString();
const ahead = (seconds: number) => ago(-seconds);

function without<T, K extends keyof T>(whole: T, ...fields: K[]): Omit<T, K> {
  const rest = { ...whole };
  // The fields are named by the type, not by input.
  // eslint-disable-next-line @typescript-eslint/no-dynamic-delete
  for (const field of fields) delete rest[field];
  return rest;
}

export const ORG = id("org", 1);
export const CLUSTER = id("cl", 1);
export const HOST = id("host", 1);
export const BATCH = id("bat", 1);
export const PAYOUT_RUN = id("run", 1);
export const RUN = id("rec", 1);
export const QUOTE = id("bk", 1);
export const WALLET = "7Yb3ZkQn5mVd9sXwPq2Lr8TfGhJ4cKuEaNvBt6MyDxRo";
const SIGNATURE = "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW";

export const network: api.Network = {
  name: "local",
  genesis_hash: "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG",
  mint: "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU",
  symbol: "USDC",
  decimals: 6,
  treasury: "9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin",
  sign_in_domain: "localhost",
  sign_in_chain: "solana:localnet",
  version: "0.1.0",
};

const keyPairs = ["Ada, ML engineer", "Omar, GPU owner", "Grace, finance"].map((name, index) => {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const raw = publicKey.export({ format: "der", type: "spki" }).subarray(-32);
  const seed = privateKey.export({ format: "der", type: "pkcs8" }).subarray(-32);
  const role = (["engineer", "owner", "finance"] as const)[index] ?? "engineer";
  return { publicKey, wallet: { name, role, address: base58(raw), secret_key: Buffer.concat([seed, raw]).toString("base64") } };
});

export const burners: api.BurnerWallet[] = keyPairs.map((pair) => pair.wallet);

/** Whether a burner's signature of a message is genuine. */
export function isSigned(body: { address: string; signed_message: string; signature: string }): boolean {
  const pair = keyPairs.find((one) => one.wallet.address === body.address);
  return pair !== undefined && verify(null, Buffer.from(body.signed_message, "base64"), pair.publicKey, Buffer.from(body.signature, "base64"));
}

export const signedOut: Answer = () => {
  throw new Refusal(401, "unauthenticated", "Sign in first.");
};

export const me = (platform: boolean, ...roles: string[]): api.Me => ({
  user_id: id("usr", 1),
  name: "Ada, ML engineer",
  wallet_address: WALLET,
  organisations: [{ org_id: ORG, name: platform ? "Muster platform" : "Lovelace Lab", platform, roles, payout_address: WALLET }],
});

/** Somebody of all roles, signed in with the first burner wallet, whose organisation has no payout address. */
export const homeless = (): api.Me => {
  const person = me(true, "engineer", "owner", "finance");
  return { ...person, wallet_address: burners[0]?.address ?? WALLET, organisations: person.organisations.map((one) => without(one, "payout_address")) };
};

export const offers: api.Offer[] = [
  { gpu_model: "H100", region: "eu-west", memory_mib: 81_559, free_gpus: 2, total_gpus: 4, hosts: 2, largest_node: 1, price_from: usdc("1.90"), price_median: usdc("2.05"), spot_from: usdc("1.14"), utilisation_percent: 50, reliability_percent: 99.4, simulated: true },
  { gpu_model: "H100", region: "us-east", memory_mib: 81_559, free_gpus: 8, total_gpus: 8, hosts: 1, largest_node: 8, price_from: usdc("2.15"), price_median: usdc("2.15"), utilisation_percent: 0, reliability_percent: 97.1, simulated: true },
  { gpu_model: "A100-40GB", region: "eu-central", memory_mib: 40_960, free_gpus: 1_024, total_gpus: 2_048, hosts: 300, largest_node: 8, price_from: usdc("1.0101"), price_median: usdc("1.2"), spot_from: usdc("1.056"), utilisation_percent: 50, reliability_percent: 97.1, simulated: true },
  { gpu_model: "L40S", region: "eu-west", memory_mib: 46_068, free_gpus: 0, total_gpus: 4, hosts: 0, largest_node: 0, price_from: usdc("0"), utilisation_percent: 100, reliability_percent: 99.9, simulated: false },
];

export const quote = (change: Partial<api.Quote> = {}): api.Quote => ({
  id: QUOTE,
  kind: "market",
  purpose: "cluster",
  state: "quoted",
  gpu_model: "H100",
  price_class: "hourly",
  preempts: false,
  worst_rtt_ms: 0,
  items: [
    { kind: "owner", owner_id: id("org", 2), text: "2 GPUs for 1h on 2 hosts", gpu_hours: "2.0000", amount: usdc("3.42") },
    { kind: "fee", text: "Platform fee", amount: usdc("0.38") },
  ],
  spec: { kind: "market", gpu_model: "H100", node_count: 2, gpus_per_node: 1, duration: "1h", regions: ["eu-west"] },
  lines: [1, 2].map((n) => ({ host_id: id("host", n), region: "eu-west", site: "lab", gpu_model: "H100", gpus: 1, owner_id: id("org", 2), amount: usdc("1.90"), price_per_gpu_hour: usdc("1.90") })),
  price_per_hour: usdc("3.80"),
  hold: usdc("3.80"),
  owners_receive: usdc("3.42"),
  platform_fee: usdc("0.38"),
  refund_halfway: usdc("1.90"),
  available: usdc("100"),
  simulated: true,
  quoted_at: ago(2),
  expires_at: ahead(58),
  ...change,
});

export const explanation: api.Explanation = {
  blocking: "region",
  summary: "9 nodes wanted, each on a host of its own, but only 2 of those are in eu-west.",
  funnel: [
    { condition: "gpu_model", hosts: 3, gpus: 10, excludes: 4 },
    { condition: "region", hosts: 2, gpus: 2, excludes: 8 },
    { condition: "open", hosts: 2, gpus: 2, excludes: 0 },
    { condition: "free", hosts: 2, gpus: 2, excludes: 0 },
    { condition: "price", hosts: 2, gpus: 2, excludes: 0 },
    { condition: "gpus_per_node", hosts: 2, gpus: 2, excludes: 0 },
  ],
  changes: [
    { kind: "region", summary: "In eu-west, us-east", spec: { kind: "market", gpu_model: "H100", node_count: 9, gpus_per_node: 1, duration: "1h", regions: ["eu-west", "us-east"] }, price_per_hour: usdc("18.20"), quote_id: id("bk", 8), expires_at: ahead(55) },
    { kind: "node_count", summary: "2 nodes instead of 9", spec: { kind: "market", gpu_model: "H100", node_count: 2, gpus_per_node: 1, duration: "1h", regions: ["eu-west"] }, price_per_hour: usdc("3.80"), quote_id: id("bk", 9), expires_at: ahead(55) },
    { kind: "combination", summary: "In eu-west, us-east and with H200", spec: { kind: "market", gpu_model: "H200", node_count: 9, gpus_per_node: 1, duration: "1h", regions: ["eu-west", "us-east"] }, price_per_hour: usdc("21.40"), quote_id: id("bk", 7), expires_at: ahead(55) },
  ],
};

const cost: api.ClusterCost = {
  hold: usdc("3.80"),
  charged: usdc("0.25"),
  per_hour: usdc("3.80"),
  refund_now: usdc("3.54"),
  refunded: usdc("0"),
  as_of: ago(4),
  billed_ms: 240_000,
  duration_ms: 3_600_000,
};

export const cluster = (change: Partial<api.Cluster> = {}): api.Cluster => ({
  id: CLUSTER,
  org_id: ORG,
  booking_id: QUOTE,
  name: "brisk-heron",
  kind: "market",
  auto_stop: { park_after: "30m", release_after: "24h" },
  ray_reachable: true,
  state: "ready",
  version: 9,
  gpu_model: "H100",
  node_count: 2,
  gpus_per_node: 1,
  ray_version: "2.60.0",
  simulated: true,
  billing: true,
  created_at: ago(260),
  ready_at: ago(244),
  ends_at: ahead(3_356),
  replacements: 0,
  nodes: [
    { id: id("node", 1), host_id: id("host", 9), role: "head", ordinal: 0, state: "alive", address: "127.18.0.2", region: "eu-west", gpus: 0, created_at: ago(260), alive_at: ago(250) },
    { id: id("node", 2), host_id: id("host", 1), role: "gpu", ordinal: 1, state: "alive", address: "127.18.0.3", region: "eu-west", gpus: 1, price_per_gpu_hour: usdc("1.90"), created_at: ago(260), alive_at: ago(245) },
    { id: id("node", 3), host_id: id("host", 2), role: "gpu", ordinal: 2, state: "alive", address: "127.18.0.4", region: "eu-west", gpus: 1, price_per_gpu_hour: usdc("1.90"), created_at: ago(260), alive_at: ago(245) },
  ],
  phases: [
    { state: "reserved", entered_at: ago(260), duration_ms: 210 },
    { state: "preparing", entered_at: ago(259.8), duration_ms: 1_400 },
    { state: "head_up", entered_at: ago(258.4), duration_ms: 6_300 },
    { state: "joining", entered_at: ago(252), duration_ms: 7_800 },
    { state: "ready", entered_at: ago(244) },
  ],
  cost,
  receipt: { made_at: ago(244), sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", document: '{"cluster":"brisk-heron","nodes":[{"gpus":1},{"gpus":1}]}' },
  ...change,
});

export const assembling = (): api.Cluster => {
  const whole = without(cluster(), "ready_at", "ends_at", "receipt");
  return {
    ...whole,
    state: "head_up",
    version: 4,
    billing: false,
    created_at: ago(6),
    phases: [
      { state: "reserved", entered_at: ago(6), duration_ms: 210 },
      { state: "preparing", entered_at: ago(5.8), duration_ms: 1_400 },
      { state: "head_up", entered_at: ago(4.4) },
    ],
    nodes: (whole.nodes ?? []).map((node, index) => ({ ...node, state: index === 0 ? "alive" : "starting" })),
    cost: { ...cost, charged: usdc("0"), per_hour: usdc("0"), refund_now: usdc("3.80"), billed_ms: 0 },
  };
};

/** Ended by a program's complaint of many lines. */
export const failed = (): api.Cluster => {
  const complaint = `ray ended by itself: exit status 1\n${Array.from({ length: 12 }, (_, n) => `  File "/opt/ray/lib/python3.11/site-packages/ray/_private/node.py", line ${n}, in start_head_processes`).join("\n")}`;
  const whole = cluster({ state: "failed", billing: false, ended_at: ago(5), settled_at: ago(4), fault_party: "platform", end_reason: `The Ray head ended: ${complaint}` });
  return { ...whole, nodes: (whole.nodes ?? []).map((node, n) => (n === 0 ? { ...node, state: "failed", reason: complaint } : { ...node, state: "stopped" })) };
};

export const jobs: api.Job[] = [
  { id: "raysubmit_mP4xWq2LrTfGhJ4c", status: "RUNNING", entrypoint: "python train.py --epochs 3", started_at: ago(65) },
  { id: "raysubmit_9sXwPq2Lr8TfGhJ4", status: "SUCCEEDED", entrypoint: 'python -c "import ray; ray.init(); print(ray.nodes())"', started_at: ago(190), ended_at: ago(170) },
];

const manyEvents = (): api.ClusterEvent[] => Array.from({ length: 30 }, (_, n) => ({ seq: n + 10, cluster_id: CLUSTER, at: ago(200 - n), kind: "node", message: `Node changed, ${n}` }));

export const events: api.ClusterEvent[] = [
  { seq: 1, cluster_id: CLUSTER, at: ago(260), kind: "state", state: "reserved", message: "2 nodes reserved in eu-west; 3.80 USDC held" },
  { seq: 2, cluster_id: CLUSTER, at: ago(258), kind: "state", state: "head_up", message: "The Ray head answers" },
  { seq: 3, cluster_id: CLUSTER, at: ago(244), kind: "state", state: "ready", message: "Ray reports 2 nodes with 2 GPUs: ready, billing starts" },
];

export const host = (change: Partial<api.Host> = {}): api.Host => ({
  id: HOST,
  name: "atlas-1",
  kind: "gpu",
  state: "leased",
  region: "eu-west",
  site: "lab",
  connected: true,
  liveness: "live",
  reliability_percent: 99.37,
  tier: "proven",
  rtt_ms: 11.4,
  gates: [
    { gate: "ecc", state: "fail", closes: true, measured: "77 uncorrected errors on GPU 6", required: "none since the driver was loaded", fix: "Reset the GPU or exchange it, then check again.", since: ago(500) },
    { gate: "clock", state: "pass", closes: true, measured: "0.2 s fast", required: "within 5 s", since: ago(90_000) },
    { gate: "throttle", state: "fail", closes: false, measured: "hw_thermal_slowdown on GPU 2", required: "no slowdown", fix: "Check the fans and the air in front of the machine.", since: ago(300) },
    { gate: "udp", state: "unknown", closes: false, required: "datagrams come back", since: ago(90_000) },
  ],
  maintenance: [{ id: id("mw", 1), host_id: HOST, state: "planned", starts_at: ahead(90_000), ends_at: ahead(97_200), note: "New power supply", created_at: ago(400) }],
  simulated: true,
  last_seen_at: ago(2),
  enrolled_at: ago(90_000),
  agent_version: "0.1.0",
  driver_version: "580.159.03",
  cuda_version: "13.0",
  cpus: 64,
  memory_bytes: 540_000_000_000,
  gpus: Array.from({ length: 8 }, (_, n) => ({ id: id("gpu", n + 1), uuid: `GPU-5f2c1d0e-7a3b-4c6d-9e8f-00000000000${n}`, model: "H100", product: "NVIDIA H100 80GB HBM3", memory_mib: 81_559, compute_capability: "9.0", healthy: n !== 6, ...(n === 6 ? { health_note: "77 uncorrected ECC errors" } : {}), leased: n < 3 })),
  ask: {
    price_per_gpu_hour: usdc("1.90"),
    floor: usdc("1.20"),
    rules: { discounts: [{ from: "weekly", percent: 10 }], calendar: [{ days: ["sat", "sun"], from: "00:00", to: "24:00", percent: -20 }], spot_percent: 40 },
    now: { hourly: usdc("1.90"), daily: usdc("1.90"), weekly: usdc("1.71"), monthly: usdc("1.71"), spot: usdc("1.20") },
    active: true,
    updated_at: ago(4_000),
  },
  certificate_expires_at: ahead(9_000),
  ...change,
});

export const hosts: api.Host[] = [
  host(),
  without(host({ id: id("host", 2), name: "atlas-2", state: "idle", why_not_earning: "It has no price: set one to take bookings.", gpus: host().gpus.slice(0, 2).map((gpu) => ({ ...gpu, leased: false })) }), "ask"),
  host({ id: id("host", 3), name: "basement", state: "lost", connected: false, liveness: "lost", simulated: false, last_seen_at: ago(4_000), why_not_earning: "It has not been heard of for 66 minutes: check that muster-worker runs and can reach Muster.", gpus: host().gpus.slice(0, 4) }),
];

export const token: api.JoinTokenCreated = {
  id: id("jt", 1),
  state: "open",
  kind: "gpu",
  region: "eu-west",
  created_at: ago(1),
  expires_at: ahead(899),
  secret: "mjt_2f9d",
  command: "muster-worker join --server https://muster.example:8443 --token mjt_2f9dQx7Lr8TfGhJ4cKuEaNvBt6MyDxRo --region eu-west",
};

export const earnings: api.Earnings = {
  payable: usdc("12.840000"),
  in_flight: usdc("0"),
  paid: usdc("231.507312"),
  days: Array.from({ length: 14 }, (_, n) => ({ day: ago(n * 86_400).slice(0, 10), earned: usdc(String(4 + ((n * 7) % 11))), paid: usdc(n % 7 === 0 ? "40" : "0") })),
  hosts: [
    { host_id: HOST, name: "atlas-1", earned: usdc("201.44"), gpu_hours: "117.8000" },
    { host_id: id("host", 2), name: "atlas-2", earned: usdc("42.907312"), gpu_hours: "25.1000" },
  ],
};

const credit: api.StatementCredit = {
  lease_id: id("lse", 2),
  from: "2026-10-12T09:31:04Z",
  to: "2026-10-12T09:33:10Z",
  gpu_ms: 126_000,
  amount: usdc("0.071750"),
  fault_party: "owner",
  reason: "Node 2 failed. Its host is lost.",
};

const october = { org_id: ORG, name: "Lovelace Lab", from: "2026-10-01T00:00:00Z", to: "2026-11-01T00:00:00Z", made_at: ago(1), open: false };

export const statement: api.Statement = {
  ...october,
  opening: { available: usdc("20"), held: usdc("0"), total: usdc("20") },
  closing: { available: usdc("108.184511"), held: usdc("3.8"), total: usdc("111.984511") },
  totals: {
    deposits: usdc("100"),
    withdrawals: usdc("0"),
    charges: usdc("8.015489"),
    credits: usdc("0"),
    other: usdc("0"),
    not_charged: usdc("0.071750"),
    gpu_ms: 15_187_242,
    gpu_hours: "4.218678333",
  },
  clusters: [
    {
      cluster_id: CLUSTER,
      name: "brisk-heron",
      gpu_model: "H100",
      gpu_ms: 15_187_242,
      gpu_hours: "4.218678333",
      charged: usdc("8.015489"),
      not_charged: usdc("0.071750"),
      leases: [{ lease_id: id("lse", 1), host_id: HOST, region: "eu-west", price_per_gpu_hour: usdc("1.90"), gpu_ms: 15_187_242, gpu_hours: "4.218678333", charged: usdc("8.015489") }],
      credits: [credit],
    },
  ],
  movements: [{ id: id("tr", 1), at: "2026-10-10T08:00:00Z", kind: "deposit", text: "Deposit received", amount: usdc("100"), signature: SIGNATURE }],
  holds: [{ id: id("tr", 2), at: "2026-10-12T08:00:00Z", kind: "hold", text: "Set aside for a booking", amount: usdc("11.815489"), cluster_id: CLUSTER }],
  charge_days: 2,
};

export const earningsStatement: api.EarningsStatement = {
  ...october,
  opening: { payable: usdc("31.25"), in_flight: usdc("0"), total: usdc("31.25") },
  closing: { payable: usdc("7.815102"), in_flight: usdc("0"), total: usdc("7.815102") },
  totals: {
    gross: usdc("8.015489"),
    fee: usdc("0.200387"),
    net: usdc("7.815102"),
    paid: usdc("31.25"),
    other: usdc("0"),
    not_earned: usdc("0.071750"),
    gpu_ms: 15_187_242,
    gpu_hours: "4.218678333",
  },
  hosts: [
    {
      host_id: HOST,
      name: "atlas-1",
      gpu_ms: 15_187_242,
      gpu_hours: "4.218678333",
      gross: usdc("8.015489"),
      fee: usdc("0.200387"),
      net: usdc("7.815102"),
      not_earned: usdc("0.071750"),
      leases: [],
      credits: [credit],
    },
  ],
  payouts: [
    { batch_id: BATCH, at: "2026-10-05T10:00:00Z", kind: "payout_reserve", amount: usdc("31.25") },
    { batch_id: BATCH, at: "2026-10-05T10:02:00Z", kind: "payout_paid", amount: usdc("31.25"), signature: SIGNATURE },
  ],
  movements: [],
};

export const batch = (change: Partial<api.Batch> = {}): api.Batch => ({
  id: BATCH,
  state: "finalized",
  total: usdc("40.120000"),
  payee_count: 2,
  created_at: ago(600),
  drafted_by: "Grace, finance",
  approved_by: "Grace, finance",
  approved_at: ago(500),
  sent_at: ago(498),
  finalized_at: ago(484),
  signature: SIGNATURE,
  slot: 48_213,
  fee_lamports: 10_000,
  approvals_needed: 1,
  nonce_account: "3nHp4Zt6MyDxRo7Yb3ZkQn5mVd9sXwPq2Lr8TfGhJ4cK",
  nonce_value: "DxRo7Yb3ZkQn5mVd9sXwPq2Lr8TfGhJ4cKuEaNvBt6My",
  payouts: [1, 2].map((n) => ({ id: id("pay", n), batch_id: BATCH, org_id: id("org", n + 1), payee: n === 1 ? "Atlas Compute" : "Basement GPUs", address: WALLET, token_account: "8TfGhJ4cKuEaNvBt6MyDxRo7Yb3ZkQn5mVd9sXwPq2Lr", amount: usdc(n === 1 ? "30.08" : "10.04"), purpose: "earnings", state: "finalized", signature: SIGNATURE, finalized_at: ago(484) })),
  ...change,
});

/** Frozen, proposed to have been paid by somebody else than the viewer. */
export const frozen = (change: Partial<api.Batch> = {}): api.Batch => ({
  ...without(batch(), "finalized_at", "slot", "fee_lamports"),
  state: "frozen",
  state_reason: "the nonce was consumed, but not by this batch's transaction: somebody else holds the treasury's key, or the endpoint hides history",
  cancellation: { asked_by: "Grace, finance", asked_at: ago(200) },
  nonce_consumed_at: ago(180),
  ...change,
});

export const resolution = { outcome: "paid" as const, signature: SIGNATURE, note: "The backup of 03:00 did not know it; the treasury's history does.", proposed_by: "Grace, finance", proposed_at: ago(60), own: false };

export const payoutRun = (change: Partial<api.PayoutRun> = {}): api.PayoutRun => ({
  id: PAYOUT_RUN,
  kind: "manual",
  state: "done",
  requested_by: "Grace, finance",
  started_at: ago(700),
  finished_at: ago(690),
  rounds: 2,
  batch_count: 4,
  payee_count: 118,
  left_out_count: 2,
  total: usdc("4012.50"),
  progress: [
    { state: "draft", batch_count: 1, payee_count: 2, total: usdc("40.12"), fee_lamports: 0, rent_lamports: 0 },
    { state: "sent", batch_count: 1, payee_count: 56, total: usdc("1980.00"), fee_lamports: 0, rent_lamports: 0 },
    { state: "finalized", batch_count: 1, payee_count: 56, total: usdc("1952.26"), fee_lamports: 5_800, rent_lamports: 2_039_280 },
    { state: "failed", batch_count: 1, payee_count: 4, total: usdc("40.12"), fee_lamports: 5_800, rent_lamports: 0 },
  ],
  ...change,
});

export const heldBack: api.RunPayee[] = [
  { org_id: id("org", 4), name: "New Owner", purpose: "earnings", amount: usdc("8.40"), state: "left_out", reason: "the token account is frozen" },
  { org_id: id("org", 5), name: "Handed Over GmbH", purpose: "earnings", amount: usdc("17.25"), state: "left_out", reason: "the token account belongs to another owner" },
];

export const drafted: api.RunPayee[] = [
  { org_id: id("org", 2), name: "Atlas Compute", purpose: "earnings", amount: usdc("30.08"), batch_id: BATCH, state: "finalized", address: WALLET, token_account: SIGNATURE.slice(0, 44), signature: SIGNATURE },
  { org_id: id("org", 1), name: "Lovelace Lab", purpose: "withdrawal", amount: usdc("10.04"), batch_id: id("bat", 2), state: "draft", address: WALLET, token_account: SIGNATURE.slice(0, 44) },
];

const runBatches = () => [draft(), batch({ id: id("bat", 2) }), { ...without(batch({ id: id("bat", 3), payee_count: 4 }), "finalized_at"), state: "failed", state_reason: "the chain executed it with the error InsufficientFundsForRent" }];

export const schedule: api.PayoutSchedule = { enabled: true, weekdays: [1, 4], at: "06:00", starts_on: "2026-11-01", threshold: usdc("5000"), next_at: ahead(90_000), updated_by: "Grace, finance", updated_at: ago(90_000) };

const NONCE_ACCOUNT = "3nHp4Zt6MyDxRo7Yb3ZkQn5mVd9sXwPq2Lr8TfGhJ4c";

export const nonces: api.NoncePool = {
  free: 2,
  held: 1,
  unusable: 1,
  warning: "1 of the policy's nonces cannot be used: look at each one's problem",
  rent_lamports: 5_790_720,
  fee_payer: { address: WALLET, lamports: 81_240_120, days: 30, fee_lamports: 1_218_000, rent_lamports: 24_471_360, warning: "the treasury's wallet has 0.0812 SOL left for fees and token accounts: send it some, or payouts stop" },
  nonces: [
    { account: `${NONCE_ACCOUNT}K`, state: "held", batch_id: BATCH, checked_at: ago(20) },
    { account: `${NONCE_ACCOUNT}L`, state: "free", checked_at: ago(20) },
    { account: `${NONCE_ACCOUNT}M`, state: "free", checked_at: ago(20) },
    { account: `${NONCE_ACCOUNT}N`, state: "unusable", problem: "the account is no initialized durable nonce", checked_at: ago(20) },
  ],
};

export const withdrawal = (change: Partial<api.Withdrawal> = {}): api.Withdrawal => ({
  id: id("wd", 1),
  purpose: "withdrawal",
  state: "requested",
  amount: usdc("25.50"),
  address: WALLET,
  requested_by: "Ada, ML engineer",
  requested_at: ago(300),
  ...change,
});

export const paidWithdrawal = withdrawal({ id: id("wd", 2), state: "paid", amount: usdc("40"), ended_at: ago(80_000), requested_at: ago(90_000), batch_id: BATCH, signature: SIGNATURE });

export const draft = (): api.Batch => ({ ...without(batch(), "approved_at", "approved_by", "sent_at", "finalized_at", "signature", "slot", "fee_lamports"), state: "draft" });

export const payable: api.PayableSummary = {
  total: usdc("40.12"),
  minimum: usdc("1"),
  treasury: usdc("1840.55"),
  payees: [
    { org_id: id("org", 2), name: "Atlas Compute", purpose: "earnings", address: WALLET, amount: usdc("30.08") },
    { org_id: id("org", 3), name: "Basement GPUs", purpose: "earnings", address: WALLET, amount: usdc("10.04") },
  ],
  left_out: [{ org_id: id("org", 4), name: "New Owner", purpose: "earnings", amount: usdc("0.40"), reason: "Below the smallest payout" }],
};

export const run = (change: Partial<api.Reconciliation> = {}): api.Reconciliation => ({
  id: RUN,
  started_at: ago(60),
  finished_at: ago(59),
  state: "clean",
  slot: 48_390,
  matched: 14,
  difference_count: 0,
  differences: [],
  accounts: [
    { name: "Treasury", address: network.treasury, in: usdc("2071.657312"), out: usdc("231.107312"), chain_closing: usdc("1840.55"), ledger_closing: usdc("1840.55"), transactions: 12, continuous: true },
    { name: "Lovelace Lab, deposits", address: WALLET, in: usdc("100"), out: usdc("100"), chain_closing: usdc("0"), ledger_closing: usdc("0"), transactions: 2, continuous: true },
  ],
  holdings: { wallets: 1_204, asked: 501, settlement: 1, foreign: 1, left_out: 0, too_many: 0 },
  wallets: [{ name: "treasury", address: WALLET, balance: sol(9_979_594_700n), journal: sol(9_979_594_700n), transactions: 4, continuous: true, behind: false }],
  ...change,
});

export const wallet: api.Wallet = {
  available: usdc("96.20"),
  held: usdc("3.80"),
  spend_per_hour: usdc("3.80"),
  deposit_address: WALLET,
  deposit_token_account: "8TfGhJ4cKuEaNvBt6MyDxRo7Yb3ZkQn5mVd9sXwPq2Lr",
  solana_pay_url: `solana:${WALLET}?spl-token=${network.mint}&label=Muster`,
  minimum_deposit: usdc("1"),
  minimum_withdrawal: usdc("1"),
};

export const runway: api.Runway = {
  as_of: ago(1),
  available: usdc("96.20"),
  burn_per_hour: usdc("3.80"),
  hours_left: 25.3,
  hold_left: usdc("3.54"),
  clusters: [{ cluster_id: CLUSTER, name: "brisk-heron", state: "ready", per_hour: usdc("3.80"), hold_left: usdc("3.54"), stops_at: ahead(3_356) }],
  warnings: [],
};

export const scheduled: api.Booking = {
  id: id("bk", 4),
  kind: "market",
  purpose: "cluster",
  state: "scheduled",
  spec: { kind: "market", gpu_model: "H100", node_count: 4, gpus_per_node: 8, duration: "12h" },
  gpu_model: "H100",
  price_per_hour: usdc("60.80"),
  hold: usdc("729.60"),
  starts_at: ahead(40_000),
  created_at: ago(100),
  expires_at: ago(60),
};

export const bids: api.Bid[] = [1, 2, 3].map((n) => ({ id: id("bid", n), host_id: id("host", n), owner_id: id("org", n + 1), region: "eu-west", price_per_gpu_hour: usdc(`1.6${n}`), state: "open", quoted: n < 3, simulated: true, made_at: ago(3) }));

export const history: api.MarketHistory = {
  gpu_model: "H100",
  from: ago(86_400),
  to: ago(0),
  step_ms: 600_000,
  // An hour without a sample, so that the gap shows.
  points: Array.from({ length: 144 }, (_, n) => ({ at: ago((144 - n) * 600), gpus: 12, leased: 4 + (n % 7), utilisation_percent: Math.round(((4 + (n % 7)) / 12) * 10_000) / 100, ...(n % 50 === 0 ? {} : { price_min: usdc(`1.${90 + (n % 9)}`), price_median: usdc(`2.${10 + (n % 9)}`) }) })).filter((_, n) => n < 60 || n > 66),
};

export const earning: api.EarningCheck = {
  earning: true,
  summary: "3 of 8 GPUs earn; a failed GPU keeps one from being leased.",
  checks: [
    { check: "connected", state: "pass", measured: "heard of 2 s ago" },
    { check: "gates", state: "fail", measured: "ecc", required: "every health check passed", fix: "Reset the GPU or exchange it, then check again.", since: ago(500) },
    { check: "price", state: "pass", measured: "1.90 USDC; hired peers ask 2.05 in the middle" },
    { check: "demand", state: "unknown", measured: "no sample of the market yet" },
  ],
};

export const preview: api.AskPreview = {
  now: { hourly: usdc("1.90"), daily: usdc("1.90"), weekly: usdc("1.71"), monthly: usdc("1.71"), spot: usdc("1.20") },
  hours: Array.from({ length: 168 }, (_, n) => ({ at: ahead(n * 3_600), price: usdc(n % 24 < 6 ? "1.52" : "1.90") })),
  rank: 3,
  peers: 14,
  past: { sampled_ms: 12 * 86_400_000, earned: usdc("402.10"), hired_percent: 61.5 },
};

const lines: api.WalletLine[] = [
  { id: id("tr", 3), at: ago(244), kind: "charge", text: "brisk-heron, 4 minutes", account: "held", amount: usdc("-0.253333"), balance: usdc("3.546667"), cluster_id: CLUSTER },
  { id: id("tr", 2), at: ago(260), kind: "hold", text: "Hold for brisk-heron", account: "available", amount: usdc("-3.80"), balance: usdc("96.20"), cluster_id: CLUSTER },
  { id: id("tr", 1), at: ago(900), kind: "deposit", text: "Deposit", account: "available", amount: usdc("100"), balance: usdc("100"), signature: SIGNATURE },
];

const deposits: api.Deposit[] = [
  { id: id("dep", 2), at: ago(500), amount: "5.000000", mint: "So11111111111111111111111111111111111111112", state: "suspense", reason: "Another token than USDC", signature: SIGNATURE },
  { id: id("dep", 1), at: ago(900), amount: "100.000000", mint: network.mint, state: "credited", signature: SIGNATURE },
];

export const closed = (over: Partial<api.ClosedPeriod> = {}): api.ClosedPeriod => ({
  month: "2026-10", state: "closed", closed_at: ago(900), closed_by: "Ada", reconciliation_id: RUN, sha256: "5f".repeat(32), entries: 12, debits: usdc("2071.657312"), credits: usdc("2071.657312"), ...over,
});

const periodAccounts: api.PeriodAccount[] = [
  { code: "1010", name: "Tokens in the treasury", organisations: 0, opening: usdc("50000"), debits: usdc("1200"), credits: usdc("871.657312"), closing: usdc("50328.342688") },
  { code: "2010", name: "Customer balances", organisations: 41, opening: usdc("12000.50"), debits: usdc("871.657312"), credits: usdc("1200"), closing: usdc("12328.842688") },
  { code: "4010", name: "Platform fees", organisations: 0, opening: usdc("210.25"), debits: usdc("0"), credits: usdc("0"), closing: usdc("210.25") },
];

const sol = (lamports: bigint): api.Money => ({ base_units: String(lamports), text: decimalText(lamports, 9), currency: "SOL", decimals: 9 });

const solJournal: api.SOLJournal = {
  wallet: WALLET, opening: sol(0n), closing: sol(9_979_594_700n), transactions: 4, failed: 1,
  totals: [
    { kind: "base_fee", amount: sol(-15_000n), lines: 3 },
    { kind: "rent_out", amount: sol(-20_390_300n), lines: 2 },
    { kind: "top_up", amount: sol(10_000_000_000n), lines: 1 },
  ],
};

const solLines: api.SOLLine[] = [
  { at: ago(300), slot: 40, signature: SIGNATURE, kind: "rent_out", amount: sol(-2_039_280n), account: WALLET, balance: sol(9_979_594_700n), purpose: "batch", batch_id: BATCH },
  { at: ago(300), slot: 40, signature: SIGNATURE, kind: "base_fee", amount: sol(-5_000n), balance: sol(9_979_594_700n), purpose: "batch", batch_id: BATCH },
  { at: ago(500), slot: 30, signature: SIGNATURE, kind: "base_fee", failed: true, amount: sol(-5_000n), balance: sol(9_981_638_980n), purpose: "sweep", sweep_id: id("swp", 1) },
  { at: ago(900), slot: 10, signature: SIGNATURE, kind: "top_up", amount: sol(10_000_000_000n), account: SIGNATURE.slice(0, 44), balance: sol(10_000_000_000n) },
];

const holdings: api.TokenHolding[] = [
  { id: id("hld", 2), kind: "settlement", account: SIGNATURE.slice(0, 44), wallet: WALLET, mint: network.mint, program: "token", decimals: 6, amount: "12.500000", in_suspense: "12.500000", deposits: [id("dep", 3)], present: true, frozen: false, first_seen: ago(900), last_seen: ago(60), note: "It is the platform's token in an account that the ledger does not mirror: move it to the treasury's account, or waive the difference." },
  { id: id("hld", 1), kind: "foreign", account: SIGNATURE.slice(1, 45), wallet: WALLET, org_id: ORG, customer: "Basement GPUs", mint: "So11111111111111111111111111111111111111112", program: "token_2022", decimals: 0, amount: "1000000", in_suspense: "0", deposits: [], present: true, frozen: true, delegate: WALLET, first_seen: ago(900), last_seen: ago(60), changed_at: ago(100), note: "Another token: anybody can send one, and nobody is owed it." },
];

export const difference = (over: Partial<api.DifferenceItem> = {}): api.DifferenceItem => ({
  id: id("dif", 1), class: "chain_only", account: SIGNATURE.slice(0, 44), signature: SIGNATURE, chain: usdc("5"), at: ago(300), state: "open", present: true,
  text: "the chain moved 5000000 base units and the ledger has no entry for it", first_seen: ago(300), last_seen: ago(60), ...over,
});

const auditLines: api.AuditLine[] = [
  { seq: 3, at: ago(300), by: "Ada", action: "suspense.refunded", subject: id("dep", 4), details: '{"outcome":"refunded","note":"Ticket 1207."}', hash: "a1".repeat(32) },
  { seq: 2, at: ago(400), by: "Omar", action: "batch.approve", subject: BATCH, details: "null", hash: "b2".repeat(32) },
  { seq: 1, at: ago(900), action: "run.start", subject: PAYOUT_RUN, details: '{"kind":"scheduled"}', hash: "c3".repeat(32) },
];

const sweeps: api.Sweep[] = [
  { id: id("swp", 2), org_id: ORG, customer: "Ada's lab", amount: usdc("120"), state: "planned", attention: "the signer does not answer; it is tried again", planned_at: ago(60) },
  { id: id("swp", 1), org_id: ORG, customer: "Basement GPUs", amount: usdc("400.25"), state: "finalized", signature: SIGNATURE, planned_at: ago(4_000), ended_at: ago(3_990), fee_lamports: 10_000 },
];

const keys: api.Key[] = [{ id: id("key", 1), name: "laptop", hint: "mst_3fQ", scopes: ["read", "book", "jobs"], created_at: ago(90_000), expires_at: ahead(2_000_000), last_used_at: ago(300) }];

const list = <T>(items: T[]) => ({ items });

/** Everything that a signed-in person of all roles can be shown. */
export function fullAnswers(person: api.Me): Record<string, Answer> {
  return {
    "GET /v1/network": () => network,
    "GET /v1/me": () => person,
    "GET /v1/offers": () => list(offers),
    "POST /v1/quotes": () => quote(),
    "POST /v1/explain": () => explanation,
    "GET /v1/market/history": () => history,
    "GET /v1/quotes/*/bids": () => list(bids),
    "GET /v1/bookings": () => list([scheduled]),
    "POST /v1/clusters/*/extension-quote": () => quote({ purpose: "extension", cluster_id: CLUSTER, id: id("bk", 5) }),
    "POST /v1/clusters/*/addition-quote": () => quote({ purpose: "addition", cluster_id: CLUSTER, id: id("bk", 6), spec: { kind: "market", gpu_model: "H100", node_count: 1, gpus_per_node: 1, duration: "56m" } }),
    "GET /v1/wallet/runway": () => runway,
    "GET /v1/hosts/*/earning-check": () => earning,
    "POST /v1/hosts/*/ask/preview": () => preview,
    "GET /v1/clusters": () => list([cluster(), cluster({ id: id("cl", 2), name: "calm-otter", state: "released", billing: false })]),
    "GET /v1/clusters/*": () => cluster(),
    "GET /v1/clusters/*/events": () => list([...events, ...manyEvents()]),
    "GET /v1/clusters/*/jobs": () => list(jobs),
    "GET /v1/clusters/*/jobs/*/logs": (): api.JobLogs => ({ logs: Array.from({ length: 60 }, (_, n) => `epoch 1 step ${n + 1} loss ${(2 / (n + 1)).toFixed(4)}`).join("\n"), truncated: false }),
    "POST /v1/clusters/*/ray-token": (): api.RayToken => ({ token: "mrt_secret", expires_at: ahead(3_600), env: { RAY_API_SERVER_ADDRESS: `http://localhost:8080/v1/clusters/${CLUSTER}/ray`, RAY_AUTH_MODE: "token", RAY_AUTH_TOKEN: "mrt_secret" } }),
    "GET /v1/wallet": () => wallet,
    "GET /v1/wallet/lines": () => list(lines),
    "GET /v1/wallet/deposits": () => list(deposits),
    "GET /v1/keys": () => list(keys),
    "GET /v1/hosts": () => list(hosts),
    "GET /v1/hosts/*": () => host(),
    "GET /v1/join-tokens": () => list([token]),
    "POST /v1/join-tokens": () => token,
    "GET /v1/earnings": () => earnings,
    "GET /v1/statements": () => statement,
    "GET /v1/earnings/statement": () => earningsStatement,
    "GET /v1/payouts": () => list(batch().payouts ?? []),
    "GET /v1/finance/payable": () => payable,
    "GET /v1/wallet/withdrawals": () => list([paidWithdrawal, withdrawal({ id: id("wd", 3), purpose: "refund", state: "cancelled", amount: usdc("5"), ended_at: ago(100_000), requested_at: ago(110_000) })]),
    "GET /v1/finance/runs": () => list([payoutRun(), payoutRun({ id: id("run", 2), kind: "scheduled", requested_by: "", started_at: ago(90_000) })]),
    "GET /v1/finance/runs/*": () => payoutRun(),
    "GET /v1/finance/payout-schedule": () => schedule,
    "GET /v1/finance/nonces": () => nonces,
    "GET /v1/finance/runs/*/payees": ({ query }) => list(query.get("state") === "left_out" ? heldBack : drafted.filter(({ name }) => name.toLowerCase().includes((query.get("q") ?? "").toLowerCase()))),
    "GET /v1/finance/batches": ({ query }) => list(query.get("run") === null ? [draft(), batch({ id: id("bat", 2) })] : runBatches()),
    "GET /v1/finance/batches/*": () => batch(),
    "GET /v1/finance/reconciliations": () => list([run(), run({ id: id("rec", 2), state: "differences", difference_count: 1 })]),
    "GET /v1/finance/reconciliations/*": () => run(),
    "GET /v1/finance/differences": () => list([difference()]),
    "GET /v1/finance/differences/*": () => difference({ changes: [{ at: ago(300), what: "found", reconciliation_id: RUN }, { at: ago(200), by: "Ada", what: "taken on" }] }),
    "GET /v1/finance/periods": () => list([closed(), closed({ month: "2026-09", reopen_asked_by: "Ada", reopen_reason: "An invoice came late." }), closed({ month: "2026-08", state: "reopened", reopen_asked_by: "Ada", reopened_by: "Omar", reopened_at: ago(300), reopen_reason: "A fee was wrong." })]),
    "GET /v1/finance/periods/*": () => closed({ intact: true, accounts: periodAccounts }),
    "GET /v1/finance/holdings": () => list(holdings),
    "GET /v1/finance/sol-journal": () => solJournal,
    "GET /v1/finance/sol-journal/lines": () => list(solLines),
    "GET /v1/finance/audit-log": () => list(auditLines),
    "GET /v1/finance/suspense": () =>
      list([
        ...deposits.slice(0, 1),
        { id: id("dep", 3), at: ago(800), amount: "12.500000", mint: network.mint, state: "suspense", reason: "Sent to the treasury by a wallet that is nobody's", signature: SIGNATURE, sender: "So11111111111111111111111111111111111111112" },
        { id: id("dep", 4), at: ago(900), amount: "7.000000", mint: network.mint, state: "suspense", reason: "Its account was frozen when it came", customer: "Handed Over GmbH", signature: SIGNATURE, outcome: "refunded", note: "Ticket 1207.", decided_by: "Ada", decided_at: ago(300), refund: { id: id("wd", 4), address: SIGNATURE.slice(0, 44), state: "drafted", batch_id: BATCH } },
      ]),
    "GET /v1/finance/sweeps": () => list(sweeps),
  };
}
