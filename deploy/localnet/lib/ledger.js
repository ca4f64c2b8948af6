/**
 * Landed transactions in memory, by signature, by slot and by address.
 *
 * Invariants: entries are in order of (slot, index); an entry is in all three indexes or in none.
 * At most `limit` entries are kept beyond the slots that still matter for duplicates; older ones are
 * dropped in bulk, oldest first, and `firstSlot` moves up.
 */

/**
 * @typedef {object} Entry
 * @property {string} signature
 * @property {number} slot
 * @property {number} index position in its block
 * @property {import("./txerrors.js").TxError | null} err
 * @property {string | null} memo
 * @property {string[]} keys every account of the transaction, loaded ones too
 * @property {{writable: string[], readonly: string[]}} loaded addresses from lookup tables
 * @property {Buffer} wire
 * @property {Buffer} meta JSON text of the RPC's meta object, without loadedAddresses: text, because
 *   its lamports may exceed what a parsed number holds
 */

/** Entries are dropped once this many times the limit is reached, so that it happens rarely. */
const SLACK = 1.25;

export class Ledger {
  /** @param {number} limit */
  constructor(limit) {
    this.limit = limit;
    /** @type {Entry[]} */
    this.entries = [];
    this.reindex();
    this.firstSlot = 0;
    this.total = 0;
  }

  reindex() {
    /** @type {Map<string, Entry>} */
    this.bySignature = new Map();
    /** @type {Map<number, Entry[]>} */
    this.bySlot = new Map();
    /** @type {Map<string, Entry[]>} */
    this.byAddress = new Map();
    for (const entry of this.entries) this.index(entry);
  }

  /** @param {Entry} entry */
  index(entry) {
    this.bySignature.set(entry.signature, entry);
    push(this.bySlot, entry.slot, entry);
    for (const key of entry.keys) push(this.byAddress, key, entry);
  }

  /**
   * @param {Entry} entry
   * @param {number} keepFrom slots from here on are never dropped
   */
  add(entry, keepFrom) {
    this.entries.push(entry);
    this.index(entry);
    this.total++;
    if (this.entries.length > this.limit * SLACK) this.prune(keepFrom);
  }

  /**
   * Drops whole slots until the limit holds.
   * @param {number} keepFrom
   */
  prune(keepFrom) {
    const cut = this.entries[this.entries.length - this.limit].slot;
    const from = Math.min(cut, keepFrom);
    if (this.entries[0].slot >= from) return;
    this.entries = this.entries.filter((entry) => entry.slot >= from);
    this.firstSlot = from;
    this.reindex();
  }

  /**
   * @param {number} slot
   * @returns {Entry[]}
   */
  block(slot) {
    return this.bySlot.get(slot) ?? [];
  }
}

/**
 * @template K
 * @param {Map<K, Entry[]>} map
 * @param {K} key
 * @param {Entry} entry
 */
function push(map, key, entry) {
  const list = map.get(key);
  if (list) list.push(entry);
  else map.set(key, [entry]);
}
