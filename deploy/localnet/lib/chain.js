/**
 * The bank: slots, lifetimes, commitment and the execution of transactions, on top of the VM.
 *
 * - A transaction is executed when it is accepted and lands in the current slot (`processed`). A slot
 *   is `confirmed` once the next one has begun, `finalized` `finalizeSlots` later. There are no forks.
 * - Reads at a commitment see the accounts as of that slot: the state before each change is kept
 *   until the change is final.
 * - The blockhash of a slot is a function of the genesis hash and the slot, so the queue of 150 needs
 *   no storage and survives a restart.
 * - Every landed transaction is in the journal, with the accounts it wrote, before its promise
 *   resolves. Restarting applies those writes; nothing is executed again.
 *
 * Single-threaded: no method yields between reading state and changing it.
 */

import { createHash, createPrivateKey, sign } from "node:crypto";
import { EventEmitter } from "node:events";
import { PUBKEY_BYTES, U64_MAX, decodeBase58, decodeBase64, encodeBase58, encodeBase64 } from "./bytes.js";
import { StateError } from "./journal.js";
import { stringify } from "./json.js";
import { fee, memo, tokenBalances } from "./meta.js";
import { NONCE_VALUE_OFFSET, SYSTEM_PROGRAM, decodeLookupTable, decodeNonce } from "./programs.js";
import { durableNonce, isWritable, parseTransaction, wireWithBlockhash } from "./transaction.js";
import { FEES_ONLY_ERRORS } from "./txerrors.js";
import { LAMPORTS_PER_SIGNATURE, MAX_BLOCKHASH_AGE, SLOTS_PER_EPOCH } from "./vm.js";

/** How long a validator's status cache answers without searching the history. */
export const STATUS_CACHE_SLOTS = 300;
/** Slots behind the tip at which a slot is confirmed. */
const CONFIRM_SLOTS = 1;
/** Drift of the chain's clock from the wall clock that is corrected. */
const MAX_DRIFT_MS = 1000;
/** Size at which the journal is rewritten without what is no longer kept. */
const COMPACT_BYTES = 128 * 1024 * 1024;
/** Version of the journal's records. */
const FORMAT = 1;
const NONCE_FEE_OFFSET = 72;
const HASH_CACHE = 1024;

/** @typedef {import("./vm.js").Account} Account */
/** @typedef {import("./vm.js").Outcome} Outcome */
/** @typedef {import("./ledger.js").Entry} Entry */
/** @typedef {import("./transaction.js").Transaction} Transaction */
/** @typedef {import("./transaction.js").Message} Message */
/** @typedef {import("./txerrors.js").TxError} TxError */
/** @typedef {"processed" | "confirmed" | "finalized"} Commitment */
/** @typedef {{genesisHash: string, faucetSeed: string, identity: string, createdAt: string}} Genesis */
/** @typedef {{slot: number, ms: number, slotMs: number}} Anchor */
/** @typedef {{nonce: string | null}} Lifetime */
/** @typedef {[address: string, account: Account | null][]} Writes */

export class Chain extends EventEmitter {
  /**
   * @param {object} options
   * @param {import("./vm.js").Vm} options.vm
   * @param {import("./journal.js").Journal} options.journal
   * @param {import("./ledger.js").Ledger} options.ledger
   * @param {number} options.slotMs
   * @param {number} options.finalizeSlots
   * @param {() => number} [options.now] wall clock in milliseconds
   */
  constructor({ vm, journal, ledger, slotMs, finalizeSlots, now = Date.now }) {
    super();
    this.setMaxListeners(0);
    this.vm = vm;
    this.journal = journal;
    this.ledger = ledger;
    this.slotMs = slotMs;
    this.finalizeSlots = finalizeSlots;
    this.now = now;
    this.slot = 0;
    this.compactAt = COMPACT_BYTES;
    /** @type {Anchor[]} */
    this.anchors = [];
    /** State before each change that is not final yet, oldest first. @type {Map<string, {slot: number, before: Account | null}[]>} */
    this.undo = new Map();
    /** @type {Map<number, Set<string>>} */
    this.touched = new Map();
    /** Every address written since genesis. @type {Set<string>} */
    this.written = new Set();
    /** @type {Map<number, Uint8Array>} */
    this.hashes = new Map();
    /** @type {Map<string, number>} */
    this.hashSlots = new Map();
    /** @type {Genesis} */
    this.genesis = { genesisHash: "", faucetSeed: "", identity: "", createdAt: "" };
  }

  // ---- start ----

  /**
   * Takes over a stored chain, or begins a new one.
   * @param {Genesis} fresh used when the journal is empty
   * @param {(genesis: Genesis) => [string, Account][]} accounts of the genesis
   */
  async start(fresh, accounts) {
    const records = [...this.journal.records()];
    const last = records.reduce((slot, record) => Math.max(slot, record.slot ?? 0), this.journal.lastSlot());
    this.genesis = records.length > 0 ? readGenesis(records[0]) : fresh;
    if (records.length === 0) await this.journal.append({ k: "genesis", format: FORMAT, ...fresh });
    for (const [address, account] of accounts(this.genesis)) this.vm.setAccount(address, account);
    this.restore(records, last - this.finalizeSlots);
    for (let slot = Math.max(0, last - HASH_CACHE); slot <= last; slot++) this.rememberHash(slot);
    this.slot = last;
    this.tick();
  }

  /**
   * @param {import("./journal.js").Record[]} records
   * @param {number} root writes up to this slot are final
   */
  restore(records, root) {
    for (const record of records) {
      if (record.k === "anchor") this.anchors.push({ slot: record.slot, ms: record.ms, slotMs: record.slotMs });
      if (record.k === "floor") {
        this.ledger.firstSlot = record.first;
        this.ledger.total = record.total;
      }
      if (record.k === "accounts") this.applyWrites(record.w.map(decodeWrite), -1, root);
      if (record.k !== "tx") continue;
      this.applyWrites(record.w.map(decodeWrite), record.slot, root);
      this.ledger.add(decodeEntry(record), record.slot - STATUS_CACHE_SLOTS);
    }
  }

  /**
   * @param {Writes} writes
   * @param {number} slot
   * @param {number} root
   */
  applyWrites(writes, slot, root) {
    // An executable account is loaded when it is set and needs its program data to be there.
    const ordered = [...writes].sort((a, b) => Number(a[1]?.executable ?? false) - Number(b[1]?.executable ?? false));
    for (const [address, account] of ordered) {
      this.written.add(address);
      if (slot > root) this.touch(address, slot, this.vm.account(address));
      this.vm.setAccount(address, account);
    }
  }

  // ---- slots and commitment ----

  /** Begins the next slot. */
  tick() {
    this.rememberHash(this.slot);
    this.slot++;
    this.journal.markSlot(this.slot);
    this.keepTime();
    const epochStart = this.slot - (this.slot % SLOTS_PER_EPOCH);
    this.vm.setBlock(this.slot, this.blockTime(this.slot), this.blockTime(epochStart), (slot) => this.blockhash(slot));
    const root = this.slotAt("finalized");
    const event = { slot: this.slot, parent: this.slot - 1, root, confirmed: this.slotAt("confirmed"), rooted: this.touched.get(root) ?? new Set() };
    this.settle(root);
    this.emit("slot", event);
    if (this.journal.size > this.compactAt) void this.compact();
  }

  /**
   * Forgets what was needed to undo slots up to `root`.
   * @param {number} root
   */
  settle(root) {
    for (const [slot, addresses] of this.touched) {
      if (slot > root) break;
      this.touched.delete(slot);
      for (const address of addresses) {
        const left = (this.undo.get(address) ?? []).filter((change) => change.slot > root);
        if (left.length > 0) this.undo.set(address, left);
        else this.undo.delete(address);
      }
    }
  }

  /**
   * @param {Commitment} commitment
   * @returns {number}
   */
  slotAt(commitment) {
    const lag = commitment === "processed" ? 0 : commitment === "confirmed" ? CONFIRM_SLOTS : this.finalizeSlots;
    return Math.max(0, this.slot - lag);
  }

  /**
   * @param {number} slot
   * @returns {Commitment}
   */
  commitmentOf(slot) {
    if (slot <= this.slotAt("finalized")) return "finalized";
    return slot <= this.slotAt("confirmed") ? "confirmed" : "processed";
  }

  /** Ties the chain's clock to the wall clock where they have drifted apart. */
  keepTime() {
    const now = this.now();
    if (this.anchors.length > 0 && now - this.millis(this.slot) <= MAX_DRIFT_MS) return;
    const anchor = { slot: this.slot, ms: now, slotMs: this.slotMs };
    this.anchors.push(anchor);
    void this.journal.append({ k: "anchor", ...anchor });
  }

  /**
   * @param {number} slot
   * @returns {number}
   */
  millis(slot) {
    let i = this.anchors.length - 1;
    while (i > 0 && this.anchors[i].slot > slot) i--;
    const { slot: from, ms, slotMs } = this.anchors[i];
    return ms + (slot - from) * slotMs;
  }

  /**
   * @param {number} slot
   * @returns {number} unix time in seconds
   */
  blockTime(slot) {
    return Math.floor(this.millis(slot) / 1000);
  }

  // ---- lifetimes ----

  /**
   * @param {number} slot
   * @returns {Uint8Array}
   */
  blockhash(slot) {
    const known = this.hashes.get(slot);
    if (known) return known;
    const genesis = decodeBase58(this.genesis.genesisHash);
    if (slot === 0) return genesis;
    const number = Buffer.alloc(8);
    number.writeBigUInt64LE(BigInt(slot));
    return createHash("sha256").update("localnet-block").update(genesis).update(number).digest();
  }

  /** @param {number} slot */
  rememberHash(slot) {
    const hash = this.blockhash(slot);
    this.hashes.set(slot, hash);
    this.hashSlots.set(encodeBase58(hash), slot);
    const gone = this.hashes.get(slot - HASH_CACHE);
    if (!gone) return;
    this.hashes.delete(slot - HASH_CACHE);
    this.hashSlots.delete(encodeBase58(gone));
  }

  /**
   * @param {Commitment} commitment
   * @param {number} [age] blocks before the latest
   */
  latestBlockhash(commitment, age = 0) {
    const slot = this.slotAt(commitment);
    const from = Math.max(0, slot - 1 - age);
    return { blockhash: encodeBase58(this.blockhash(from)), lastValidBlockHeight: from + 1 + MAX_BLOCKHASH_AGE };
  }

  /**
   * @param {string} blockhash
   * @param {number} slot of the bank that is asked
   * @returns {boolean}
   */
  isRecent(blockhash, slot) {
    const from = this.hashSlots.get(blockhash);
    if (from === undefined) return false;
    const age = Math.max(0, slot - 1) - from;
    return age >= 0 && age <= MAX_BLOCKHASH_AGE;
  }

  /** The value that every nonce advanced in this slot gets. */
  nextNonce() {
    return createHash("sha256").update("DURABLE_NONCE").update(this.blockhash(this.slot - 1)).digest();
  }

  /**
   * @param {Message} message
   * @returns {Lifetime | null} null when it has expired or never was
   */
  lifetime(message) {
    if (this.isRecent(message.blockhash, this.slot)) return { nonce: null };
    const advance = durableNonce(message);
    const stored = advance && decodeNonce(this.vm.account(advance.address));
    if (!advance || !stored || stored.value !== message.blockhash) return null;
    if (!advance.signers.includes(stored.authority)) return null;
    // Advanced in this very slot: the next value would be the same one again.
    if (stored.value === encodeBase58(this.nextNonce())) return null;
    return { nonce: advance.address };
  }

  /**
   * @param {Transaction} transaction
   * @returns {{lifetime: Lifetime} | {err: TxError}}
   */
  admit(transaction) {
    const lifetime = this.lifetime(transaction.message);
    if (!lifetime) return { err: "BlockhashNotFound" };
    if (this.ledger.bySignature.has(transaction.signature)) return { err: "AlreadyProcessed" };
    return { lifetime };
  }

  // ---- execution ----

  /**
   * Executes a transaction whose signatures are verified, in the current slot.
   * @param {Transaction} transaction
   * @returns {{err: TxError | null, entry: Entry | null, stored: Promise<void>}} `entry` is null when
   *   it did not land; `stored` resolves when it is on disk
   */
  submit(transaction) {
    const admitted = this.admit(transaction);
    if ("err" in admitted) return { err: admitted.err, entry: null, stored: Promise.resolve() };
    const { message } = transaction;
    const loaded = this.loadedAddresses(message);
    const keys = [...message.keys, ...loaded.writable, ...loaded.readonly];
    const before = this.snapshot(message, keys);
    const outcome = this.vm.execute(wireWithBlockhash(transaction, this.blockhash(this.slot - 1)));
    const err = outcome.err && this.preciseError(outcome.err, message);
    if (err && !this.landsFailed(err, message, before)) return { err, entry: null, stored: Promise.resolve() };
    if (err && admitted.lifetime.nonce) this.advanceNonce(admitted.lifetime.nonce);
    const after = this.snapshot(message, keys);
    return this.record(transaction, keys, loaded, before, after, { ...outcome, err });
  }

  /**
   * Whether a failed transaction is part of the block, its fee charged.
   * @param {TxError} err
   * @param {Message} message
   * @param {Snapshot} before
   * @returns {boolean}
   */
  landsFailed(err, message, before) {
    const payer = message.keys[0];
    if (this.vm.balance(payer) < before.balances[0]) return true;
    if (typeof err !== "string" || !FEES_ONLY_ERRORS.has(err)) return false;
    // The runtime charges for a transaction whose programs cannot be loaded; LiteSVM does not.
    const account = this.vm.account(payer);
    const cost = fee(message);
    if (!account || account.lamports < cost) return false;
    this.vm.setAccount(payer, { ...account, lamports: account.lamports - cost });
    return true;
  }

  /**
   * LiteSVM reports one error for a missing program and for one that is not executable.
   * @param {TxError} err
   * @param {Message} message
   * @returns {TxError}
   */
  preciseError(err, message) {
    if (err !== "InvalidProgramForExecution") return err;
    const missing = message.instructions.some(({ programIdIndex }) => this.vm.balance(message.keys[programIdIndex]) === 0n);
    return missing ? "ProgramAccountNotFound" : err;
  }

  /**
   * What a bank does to the nonce of a transaction that failed: it is used up all the same.
   * @param {string} address
   */
  advanceNonce(address) {
    const account = this.vm.account(address);
    if (!account) return;
    const data = Buffer.from(account.data);
    data.set(this.nextNonce(), NONCE_VALUE_OFFSET);
    data.writeBigUInt64LE(LAMPORTS_PER_SIGNATURE, NONCE_FEE_OFFSET);
    this.vm.setAccount(address, { ...account, data });
  }

  /**
   * Addresses from lookup tables; none when a table cannot be resolved, which the VM then reports.
   * @param {Message} message
   */
  loadedAddresses(message) {
    /** @type {string[]} */
    const writable = [];
    /** @type {string[]} */
    const readonly = [];
    for (const lookup of message.lookups) {
      const addresses = decodeLookupTable(this.vm.account(lookup.accountKey))?.addresses ?? [];
      for (const i of lookup.writableIndexes) writable.push(addresses[i]);
      for (const i of lookup.readonlyIndexes) readonly.push(addresses[i]);
    }
    const complete = writable.every(Boolean) && readonly.every(Boolean);
    return complete ? { writable, readonly } : { writable: [], readonly: [] };
  }

  /**
   * @typedef {{balances: bigint[], accounts: (Account | null)[], tokens: import("./meta.js").TokenBalance[]}} Snapshot
   * @param {Message} message
   * @param {string[]} keys
   * @returns {Snapshot}
   */
  snapshot(message, keys) {
    // Programs are large and hold no tokens: their data is not copied.
    const programs = new Set(message.instructions.map(({ programIdIndex }) => programIdIndex));
    const accounts = keys.map((key, i) => (programs.has(i) ? null : this.vm.account(key)));
    const balances = keys.map((key, i) => accounts[i]?.lamports ?? this.vm.balance(key));
    return { balances, accounts, tokens: tokenBalances(accounts, (mint) => this.vm.account(mint)) };
  }

  /**
   * @param {Transaction} transaction
   * @param {string[]} keys
   * @param {{writable: string[], readonly: string[]}} loaded
   * @param {Snapshot} before
   * @param {Snapshot} after
   * @param {Outcome} outcome
   */
  record(transaction, keys, loaded, before, after, outcome) {
    const { message, signature, wire } = transaction;
    /** @type {Writes} */
    const writes = [];
    keys.forEach((key, i) => {
      if (!isWritable(message, i) || sameAccount(before.accounts[i], after.accounts[i])) return;
      writes.push([key, after.accounts[i]]);
      this.written.add(key);
      this.touch(key, this.slot, before.accounts[i]);
    });
    // Nothing pays the fee to anybody here, so it is what the accounts lost together.
    const charged = sum(before.balances) - sum(after.balances);
    const meta = Buffer.from(stringify(metaOf(before, after, outcome, charged)));
    const index = this.ledger.block(this.slot).length;
    /** @type {Entry} */
    const entry = { signature, slot: this.slot, index, err: outcome.err, memo: memo(message), keys, loaded, wire: Buffer.from(wire), meta };
    this.ledger.add(entry, this.slot - STATUS_CACHE_SLOTS);
    const stored = this.journal.append(encodeEntry(entry, writes));
    this.emit("transaction", entry, outcome.logs, writes.map(([address]) => address));
    return { err: outcome.err, entry, stored };
  }

  /**
   * Keeps the state that `address` had before this slot.
   * @param {string} address
   * @param {number} slot
   * @param {Account | null} before
   */
  touch(address, slot, before) {
    const changes = this.undo.get(address) ?? [];
    if (changes.length === 0) this.undo.set(address, changes);
    if (changes.at(-1)?.slot !== slot) changes.push({ slot, before });
    const set = this.touched.get(slot);
    if (set) set.add(address);
    else this.touched.set(slot, new Set([address]));
  }

  /**
   * Executes on the current state without changing it.
   * @param {Transaction} transaction
   * @param {boolean} replaceBlockhash
   */
  simulate(transaction, replaceBlockhash) {
    const { message } = transaction;
    const admitted = replaceBlockhash ? { lifetime: { nonce: null } } : this.admit(transaction);
    const loaded = this.loadedAddresses(message);
    const keys = [...message.keys, ...loaded.writable, ...loaded.readonly];
    if ("err" in admitted) return { err: admitted.err, executed: null, keys, loaded };
    const before = this.snapshot(message, keys);
    const outcome = this.vm.simulate(wireWithBlockhash(transaction, this.blockhash(this.slot - 1)));
    const err = outcome.err && this.preciseError(outcome.err, message);
    const accounts = keys.map((key, i) => (err ? before.accounts[i] : (outcome.postAccounts.get(key) ?? before.accounts[i])));
    const after = {
      balances: keys.map((_, i) => accounts[i]?.lamports ?? (before.accounts[i] ? 0n : before.balances[i])),
      accounts,
      tokens: tokenBalances(accounts, (mint) => outcome.postAccounts.get(mint) ?? this.vm.account(mint)),
    };
    return { err, executed: { ...outcome, err, before, after }, keys, loaded };
  }

  /**
   * Pays from the genesis faucet by an ordinary transaction. Equal airdrops in one slot differ in the
   * blockhash they use, so that each is a transaction of its own.
   * @param {string} to
   * @param {bigint} lamports
   */
  airdrop(to, lamports) {
    for (let age = 0; age < MAX_BLOCKHASH_AGE; age++) {
      const transaction = parseTransaction(faucetTransfer(this.genesis.faucetSeed, to, lamports, this.latestBlockhash("processed", age).blockhash));
      if (!this.ledger.bySignature.has(transaction.signature)) return { transaction, ...this.submit(transaction) };
    }
    throw new Error("too many equal airdrops in one slot");
  }

  // ---- reads ----

  /**
   * @param {string} address
   * @param {number} slot
   * @returns {Account | null} as of the end of that slot
   */
  accountAt(address, slot) {
    const change = this.undo.get(address)?.find((candidate) => candidate.slot > slot);
    return change ? change.before : this.vm.account(address);
  }

  /**
   * @param {string} owner
   * @param {number} slot
   * @returns {[string, Account][]} in order of address
   */
  programAccountsAt(owner, slot) {
    const current = new Map(this.vm.programAccounts(owner));
    for (const address of this.undo.keys()) {
      const then = this.accountAt(address, slot);
      if (then?.owner === owner) current.set(address, then);
      else current.delete(address);
    }
    return [...current].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  // ---- storage ----

  /**
   * Rewrites the journal: the accounts as of a finalized slot, the transactions that are kept, and
   * the writes of those that were not final when it began. The next rewrite waits until the size has doubled.
   */
  async compact() {
    this.compactAt = Number.POSITIVE_INFINITY;
    await this.journal.rewrite(this.storedRecords());
    this.compactAt = Math.max(COMPACT_BYTES, 2 * this.journal.size);
  }

  /**
   * They are drawn while the chain goes on. An account may be later than the first record was, and so may be what an entry wrote: what was
   * written after that is in later records, which are restored after it.
   * @returns {Generator<import("./journal.js").Record>}
   */
  *storedRecords() {
    const root = this.slotAt("finalized");
    const [anchors, entries, touched] = [[...this.anchors], [...this.ledger.entries], new Map(this.touched)];
    const floor = { first: this.ledger.firstSlot, total: this.ledger.total - entries.length };
    yield { k: "genesis", format: FORMAT, ...this.genesis };
    for (const anchor of anchors) yield { k: "anchor", ...anchor };
    yield { k: "floor", ...floor };
    for (const address of this.written) yield { k: "accounts", w: [encodeWrite([address, this.accountAt(address, this.slotAt("finalized"))])] };
    for (const entry of entries) {
      const writes = entry.slot > root ? this.writesOf(entry, touched.get(entry.slot) ?? new Set()) : [];
      yield encodeEntry(entry, writes);
    }
  }

  /**
   * The writes of a recent entry, as of the end of its slot or of the finalized one: later entries of the same slot repeat
   * them, which changes nothing.
   * @param {Entry} entry
   * @param {Set<string>} touched in its slot
   * @returns {Writes}
   */
  writesOf(entry, touched) {
    const slot = Math.max(entry.slot, this.slotAt("finalized"));
    return entry.keys.filter((key) => touched.has(key)).map((key) => [key, this.accountAt(key, slot)]);
  }
}

/**
 * @param {import("./journal.js").Record} record the journal's first
 * @returns {Genesis}
 */
function readGenesis({ k, format, genesisHash, faucetSeed, identity, createdAt }) {
  if (k !== "genesis" || format !== FORMAT) throw new StateError(`this state was written in format ${format}, this program reads format ${FORMAT}`);
  return { genesisHash, faucetSeed, identity, createdAt };
}

/**
 * @param {Snapshot} before
 * @param {Snapshot} after
 * @param {Outcome} outcome
 * @param {bigint} charged
 */
function metaOf(before, after, outcome, charged) {
  return {
    err: outcome.err,
    status: outcome.err === null ? { Ok: null } : { Err: outcome.err },
    fee: charged,
    preBalances: before.balances,
    postBalances: after.balances,
    innerInstructions: outcome.innerInstructions,
    logMessages: outcome.logs,
    preTokenBalances: before.tokens,
    postTokenBalances: after.tokens,
    rewards: [],
    computeUnitsConsumed: outcome.unitsConsumed,
    ...(outcome.returnData ? { returnData: outcome.returnData } : {}),
  };
}

/**
 * @param {bigint[]} values
 * @returns {bigint}
 */
function sum(values) {
  return values.reduce((total, value) => total + value, 0n);
}

/**
 * @param {Account | null} a
 * @param {Account | null} b
 * @returns {boolean}
 */
function sameAccount(a, b) {
  if (!a || !b) return a === b;
  return a.lamports === b.lamports && a.owner === b.owner && a.executable === b.executable && Buffer.compare(a.data, b.data) === 0;
}

/**
 * @param {[string, Account | null]} write
 * @returns {unknown[]}
 */
function encodeWrite([address, account]) {
  if (!account) return [address];
  return [address, account.lamports.toString(), account.owner, account.executable, encodeBase64(account.data)];
}

/**
 * @param {any[]} stored
 * @returns {[string, Account | null]}
 */
function decodeWrite([address, lamports, owner, executable, data]) {
  if (lamports === undefined) return [address, null];
  return [address, { lamports: BigInt(lamports), owner, executable, rentEpoch: U64_MAX, data: decodeBase64(data) }];
}

/**
 * @param {Entry} entry
 * @param {Writes} writes
 * @returns {import("./journal.js").Record}
 */
function encodeEntry(entry, writes) {
  const { slot, index, err, memo: text, loaded, wire, meta } = entry;
  return { k: "tx", slot, index, err, memo: text, loaded, wire: encodeBase64(wire), meta: meta.toString(), w: writes.map(encodeWrite) };
}

/**
 * @param {import("./journal.js").Record} record
 * @returns {Entry}
 */
function decodeEntry(record) {
  const { slot, index, err, memo: text, loaded } = record;
  const { signature, message } = parseTransaction(decodeBase64(record.wire));
  const keys = [...message.keys, ...loaded.writable, ...loaded.readonly];
  const wire = Buffer.from(record.wire, "base64");
  return { signature, slot, index, err, memo: text, keys, loaded, wire, meta: Buffer.from(record.meta) };
}

const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");

/**
 * @param {string} seed base58 of 32 secret bytes
 */
export function signingKey(seed) {
  return createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, decodeBase58(seed)]), format: "der", type: "pkcs8" });
}

/**
 * @param {string} seed
 * @returns {Uint8Array}
 */
export function publicKey(seed) {
  const jwk = signingKey(seed).export({ format: "jwk" });
  return new Uint8Array(Buffer.from(/** @type {string} */ (jwk.x), "base64url"));
}

/**
 * @param {string} seed
 * @param {string} to
 * @param {bigint} lamports
 * @param {string} blockhash
 * @returns {Uint8Array} a signed legacy transfer
 */
function faucetTransfer(seed, to, lamports, blockhash) {
  const data = Buffer.alloc(12);
  data.writeUInt32LE(2, 0);
  data.writeBigUInt64LE(lamports, 4);
  const keys = [publicKey(seed), decodeBase58(to), decodeBase58(SYSTEM_PROGRAM)];
  if (keys.some((key) => key.length !== PUBKEY_BYTES)) throw new Error("a key must be 32 bytes");
  const message = Buffer.concat([Buffer.from([1, 0, 1, 3]), ...keys, decodeBase58(blockhash), Buffer.from([1, 2, 2, 0, 1, data.length]), data]);
  return new Uint8Array(Buffer.concat([Buffer.from([1]), sign(null, message, signingKey(seed)), message]));
}
