/**
 * LiteSVM behind plain values: addresses are base58 strings, accounts are plain objects.
 *
 * The VM verifies neither signatures nor lifetimes: the chain does both before it calls `execute`,
 * and puts its own blockhash into the bytes, because LiteSVM derives the next nonce value from the
 * blockhash of the transaction and knows only one valid blockhash.
 *
 * Not safe for bytes that `parseTransaction` has not accepted: LiteSVM aborts the process on them.
 */

import internal from "litesvm/dist/internal.js";
import { U64_MAX, decodeBase58, encodeBase58, encodeBase64 } from "./bytes.js";
import { RECENT_BLOCKHASHES_SYSVAR, SLOT_HASHES_SYSVAR, SYSVAR_OWNER } from "./programs.js";
import { fromVm } from "./txerrors.js";

export const SLOTS_PER_EPOCH = 432_000;
/** Lamports that a validator charges per signature. */
export const LAMPORTS_PER_SIGNATURE = 5000n;
/** Blockhashes that a transaction may refer to: the latest and 150 before it. */
export const MAX_BLOCKHASH_AGE = 150;
const SLOT_HASHES = 512;
const SLOT_HASHES_BYTES = 8 + SLOT_HASHES * 40;

/**
 * @typedef {object} Account
 * @property {bigint} lamports
 * @property {string} owner
 * @property {boolean} executable
 * @property {bigint} rentEpoch
 * @property {Uint8Array} data
 */

/**
 * @typedef {{index: number, instructions: {programIdIndex: number, accounts: number[], data: string, stackHeight: number}[]}} InnerInstructions
 * @typedef {{programId: string, data: [string, "base64"]}} ReturnData
 */

/**
 * @typedef {object} Outcome
 * @property {import("./txerrors.js").TxError | null} err
 * @property {string[]} logs
 * @property {number} unitsConsumed
 * @property {InnerInstructions[]} innerInstructions
 * @property {ReturnData | null} returnData
 */

export class Vm {
  /** @param {{lamportsPerByte: number}} options */
  constructor({ lamportsPerByte }) {
    const fresh = new internal.LiteSvm();
    // LiteSVM starts at mainnet's slot, and a program is visible only from the slot that it was
    // loaded in: reload every program at slot 0 by a round trip through a snapshot.
    fresh.setEpochSchedule(new internal.EpochSchedule(BigInt(SLOTS_PER_EPOCH), BigInt(SLOTS_PER_EPOCH), false, 0n, 0n));
    fresh.setClock(new internal.Clock(0n, 0n, 0n, 0n, 0n));
    fresh.withNativeMints();
    this.svm = internal.LiteSvm.fromBytes(fresh.toBytes());
    this.svm.setSigverify(false);
    this.svm.setBlockhashCheck(false);
    this.svm.setTransactionHistory(0n);
    this.svm.setRent(new internal.Rent(BigInt(lamportsPerByte), 1, 50));
  }

  /**
   * @param {string} address
   * @returns {Account | null}
   */
  account(address) {
    const found = this.svm.getAccount(decodeBase58(address));
    return found ? plain(found) : null;
  }

  /**
   * @param {string} address
   * @returns {bigint} 0 for an account that does not exist
   */
  balance(address) {
    return this.svm.getBalance(decodeBase58(address)) ?? 0n;
  }

  /**
   * @param {string} address
   * @param {Account | null} account null removes it
   */
  setAccount(address, account) {
    const { lamports, data, owner, executable, rentEpoch } = account ?? NO_ACCOUNT;
    this.svm.setAccount(decodeBase58(address), new internal.Account(lamports, data, decodeBase58(owner), executable, rentEpoch));
  }

  /**
   * @param {string} owner
   * @returns {[string, Account][]}
   */
  programAccounts(owner) {
    return this.svm.getProgramAccounts(decodeBase58(owner)).map((found) => [encodeBase58(found.address), plain(found.account())]);
  }

  /**
   * @param {number} bytes
   * @returns {bigint}
   */
  rentExemption(bytes) {
    return this.svm.minimumBalanceForRentExemption(BigInt(bytes));
  }

  /**
   * Sets what programs see of the block: clock, slot hashes and recent blockhashes.
   * @param {number} slot
   * @param {number} unixTimestamp
   * @param {number} epochStart unix time of the epoch's first slot
   * @param {(slot: number) => Uint8Array} blockhash of an earlier slot
   */
  setBlock(slot, unixTimestamp, epochStart, blockhash) {
    const epoch = BigInt(Math.floor(slot / SLOTS_PER_EPOCH));
    this.svm.setClock(new internal.Clock(BigInt(slot), BigInt(epochStart), epoch, epoch + 1n, BigInt(unixTimestamp)));
    const hashes = Buffer.alloc(SLOT_HASHES_BYTES);
    const known = Math.min(slot, SLOT_HASHES);
    hashes.writeBigUInt64LE(BigInt(known), 0);
    const valid = Math.min(slot, MAX_BLOCKHASH_AGE);
    const recent = Buffer.alloc(8 + valid * 40);
    recent.writeBigUInt64LE(BigInt(valid), 0);
    for (let i = 0; i < known; i++) {
      const at = 8 + i * 40;
      const hash = blockhash(slot - 1 - i);
      hashes.writeBigUInt64LE(BigInt(slot - 1 - i), at);
      hashes.set(hash, at + 8);
      if (i >= valid) continue;
      recent.set(hash, at);
      recent.writeBigUInt64LE(LAMPORTS_PER_SIGNATURE, at + 32);
    }
    this.setSysvar(SLOT_HASHES_SYSVAR, hashes);
    this.setSysvar(RECENT_BLOCKHASHES_SYSVAR, recent);
  }

  /**
   * @param {string} address
   * @param {Uint8Array} data
   */
  setSysvar(address, data) {
    this.setAccount(address, { lamports: 1n, owner: SYSVAR_OWNER, executable: false, rentEpoch: 0n, data });
  }

  /**
   * Executes and commits.
   * @param {Uint8Array} wire
   * @returns {Outcome}
   */
  execute(wire) {
    const result = this.svm.sendVersionedTransaction(wire);
    return result instanceof internal.FailedTransactionMetadata ? outcome(result.meta(), fromVm(result.err())) : outcome(result, null);
  }

  /**
   * Executes without committing.
   * @param {Uint8Array} wire
   * @returns {Outcome & {postAccounts: Map<string, Account>}}
   */
  simulate(wire) {
    const result = this.svm.simulateVersionedTransaction(wire);
    if (result instanceof internal.FailedTransactionMetadata) {
      return { ...outcome(result.meta(), fromVm(result.err())), postAccounts: new Map() };
    }
    /** @type {Map<string, Account>} */
    const postAccounts = new Map(result.postAccounts().map((post) => [encodeBase58(post.address), plain(post.account())]));
    return { ...outcome(result.meta(), null), postAccounts };
  }
}

/** @type {Account} */
const NO_ACCOUNT = { lamports: 0n, data: new Uint8Array(), owner: "11111111111111111111111111111111", executable: false, rentEpoch: U64_MAX };

/**
 * @param {internal.Account} account
 * @returns {Account}
 */
function plain(account) {
  return {
    lamports: account.lamports(),
    owner: encodeBase58(account.owner()),
    executable: account.executable(),
    rentEpoch: account.rentEpoch(),
    data: account.data(),
  };
}

/**
 * @param {internal.TransactionMetadata} meta
 * @param {import("./txerrors.js").TxError | null} err
 * @returns {Outcome}
 */
function outcome(meta, err) {
  const returned = meta.returnData();
  const data = returned.data();
  return {
    err,
    logs: meta.logs(),
    unitsConsumed: Number(meta.computeUnitsConsumed()),
    innerInstructions: meta
      .innerInstructions()
      .map((list, index) => ({ index, instructions: list.map(plainInner) }))
      .filter(({ instructions }) => instructions.length > 0),
    returnData: data.length > 0 ? { programId: encodeBase58(returned.programId()), data: [encodeBase64(data), "base64"] } : null,
  };
}

/** @param {internal.InnerInstruction} inner */
function plainInner(inner) {
  const compiled = inner.instruction();
  return {
    programIdIndex: compiled.programIdIndex(),
    accounts: [...compiled.accounts()],
    data: encodeBase58(compiled.data()),
    stackHeight: inner.stackHeight(),
  };
}
