/**
 * Sending, simulating and reading transactions and blocks.
 */

import { DecodeError, decodeBase64, encodeBase58, encodeBase64 } from "../bytes.js";
import { STATUS_CACHE_SLOTS } from "../chain.js";
import { RawJson, stringify } from "../json.js";
import { fee } from "../meta.js";
import { parseMessage, parseTransaction, verifySignatures } from "../transaction.js";
import { SANITIZE_ERRORS, describe } from "../txerrors.js";
import { encodeAccount } from "./accounts.js";
import {
  BLOCK_CLEANED_UP,
  BLOCK_NOT_AVAILABLE,
  PREFLIGHT_FAILURE,
  RpcError,
  SIGNATURE_VERIFICATION_FAILURE,
  UNSUPPORTED_TRANSACTION_VERSION,
  invalid,
} from "./errors.js";
import { commitment, contextSlot, historyCommitment, pubkey, signature, transaction, wholeNumber } from "./params.js";

const MAX_STATUSES = 256;
const MAX_HISTORY = 1000;
const MAX_BLOCK_RANGE = 500_000;
const MAX_SIMULATED_ACCOUNTS = 64;

/** @typedef {import("../chain.js").Chain} Chain */
/** @typedef {import("../chain.js").Commitment} Commitment */
/** @typedef {import("../ledger.js").Entry} Entry */
/** @typedef {import("../transaction.js").Message} Message */
/** @typedef {import("./params.js").Params} Params */
/** @typedef {import("./params.js").Config} Config */

const VERSION_RANK = { legacy: -1, 0: 0, 1: 1 };

/**
 * @param {Entry} entry
 * @param {Config} config
 */
export function encodeEntry(entry, config) {
  const { message, signatures } = parseTransaction(new Uint8Array(entry.wire));
  const version = supported(message.version, config);
  return { transaction: encodeTransaction(entry, message, signatures, config.encoding ?? "json"), meta: metaJson(entry, version !== undefined), version };
}

/**
 * The version to report: none when the caller names no version and so knows only legacy ones.
 * @param {"legacy" | 0 | 1} version
 * @param {Config} config
 */
function supported(version, config) {
  const max = config.maxSupportedTransactionVersion;
  if (max === undefined || max === null) {
    if (version === "legacy") return undefined;
  } else if (VERSION_RANK[version] <= wholeNumber(max, "maxSupportedTransactionVersion")) return version;
  throw new RpcError(
    UNSUPPORTED_TRANSACTION_VERSION,
    `Transaction version (${version}) is not supported by the requesting client. Please try the request again with the following configuration parameter: "maxSupportedTransactionVersion": ${version}`,
  );
}

/**
 * @param {Entry} entry
 * @param {Message} message
 * @param {Uint8Array[]} signatures
 * @param {unknown} encoding
 */
function encodeTransaction(entry, message, signatures, encoding) {
  if (encoding === "base64") return [encodeBase64(entry.wire), "base64"];
  if (encoding === "base58") return [encodeBase58(entry.wire), "base58"];
  if (encoding === "jsonParsed") throw invalid("jsonParsed transactions are not supported by this development chain; use json, base64 or base58");
  if (encoding !== "json") throw invalid(`Invalid params: unknown encoding ${JSON.stringify(encoding)}`);
  return { signatures: signatures.map(encodeBase58), message: encodeMessage(message) };
}

/** @param {Message} message */
function encodeMessage(message) {
  const { header, keys, blockhash, instructions, lookups, config, version } = message;
  return {
    header,
    accountKeys: keys,
    recentBlockhash: blockhash,
    instructions: instructions.map(({ programIdIndex, accounts, data }) => ({
      programIdIndex,
      accounts: [...accounts],
      data: encodeBase58(data),
      stackHeight: 1,
    })),
    ...(version === 0 ? { addressTableLookups: lookups.map(encodeLookup) } : {}),
    ...(config ? { transactionConfig: config } : {}),
  };
}

/** @param {import("../transaction.js").Lookup} lookup */
function encodeLookup({ accountKey, writableIndexes, readonlyIndexes }) {
  return { accountKey, writableIndexes: [...writableIndexes], readonlyIndexes: [...readonlyIndexes] };
}

/**
 * @param {Entry} entry
 * @param {boolean} withLoaded
 */
function metaJson(entry, withLoaded) {
  const text = entry.meta.toString();
  return new RawJson(withLoaded ? `${text.slice(0, -1)},"loadedAddresses":${stringify(entry.loaded)}}` : text);
}

/**
 * @param {Chain} chain
 * @param {(line: string) => void} log
 * @returns {{[method: string]: (params: Params) => unknown}}
 */
export function transactionMethods(chain, log) {
  /** @param {number} slot */
  const context = (slot) => ({ slot, apiVersion: "4.2.0" });

  /**
   * @param {string} id
   * @param {Commitment} level
   * @returns {Entry | null}
   */
  const entryAt = (id, level) => {
    const entry = chain.ledger.bySignature.get(id);
    return entry && entry.slot <= chain.slotAt(level) ? entry : null;
  };

  /** @param {Entry} entry */
  const status = (entry) => {
    const level = chain.commitmentOf(entry.slot);
    return {
      slot: entry.slot,
      confirmations: level === "finalized" ? null : chain.slot - entry.slot,
      err: entry.err,
      status: entry.err === null ? { Ok: null } : { Err: entry.err },
      confirmationStatus: level,
    };
  };

  /** @param {import("../transaction.js").Transaction} tx @param {Config} config */
  const simulation = (tx, config) => {
    const replace = config.replaceRecentBlockhash === true;
    const { err, executed, keys, loaded } = chain.simulate(tx, replace);
    const replacement = replace ? chain.latestBlockhash("processed") : null;
    const before = executed?.before ?? null;
    const after = executed?.after ?? null;
    return {
      err,
      logs: executed ? executed.logs : null,
      accounts: simulatedAccounts(config, keys, after),
      unitsConsumed: executed ? executed.unitsConsumed : 0,
      loadedAccountsDataSize: executed ? executed.before.accounts.reduce((n, account) => n + (account?.data.length ?? 0), 0) : 0,
      returnData: executed ? executed.returnData : null,
      innerInstructions: executed && config.innerInstructions === true ? executed.innerInstructions : null,
      replacementBlockhash: replacement,
      fee: executed ? fee(tx.message) : null,
      preBalances: before && before.balances,
      postBalances: after && after.balances,
      preTokenBalances: before && before.tokens,
      postTokenBalances: after && after.tokens,
      loadedAddresses: executed ? loaded : null,
    };
  };

  /**
   * @param {Config} config
   * @param {string[]} keys
   * @param {{accounts: (import("../vm.js").Account | null)[]} | null} after
   */
  const simulatedAccounts = (config, keys, after) => {
    if (!config.accounts) return null;
    const { addresses, encoding } = config.accounts;
    if (!Array.isArray(addresses) || addresses.length > MAX_SIMULATED_ACCOUNTS) throw invalid("Invalid params: accounts.addresses must be a short array");
    if (!after) return addresses.map(() => null);
    /** @param {string} address */
    const lookup = (address) => {
      const i = keys.indexOf(address);
      return i >= 0 ? after.accounts[i] : chain.vm.account(address);
    };
    return addresses.map((address) => {
      const account = lookup(pubkey(address));
      return account && encodeAccount(account, { encoding: encoding ?? "base64" }, lookup);
    });
  };

  /** @param {import("../transaction.js").Transaction} tx */
  const verify = (tx) => {
    if (!verifySignatures(tx)) throw new RpcError(SIGNATURE_VERIFICATION_FAILURE, "Transaction signature verification failure");
  };

  /** @param {import("../txerrors.js").TxError | null} err */
  const refuseUnsanitary = (err) => {
    if (typeof err === "string" && SANITIZE_ERRORS.has(err)) throw invalid(`invalid transaction: ${describe(err)}`);
  };

  /** @param {Config} config */
  const checkSendConfig = (config) => {
    commitment(config.preflightCommitment);
    if (config.maxRetries !== undefined && config.maxRetries !== null) wholeNumber(config.maxRetries, "maxRetries");
    contextSlot(chain, config, config.skipPreflight === true ? "processed" : commitment(config.preflightCommitment));
  };

  /** @param {Params} params */
  const readBlockRange = (params) => {
    const start = params.count(0, "the start slot");
    const given = typeof params.list[1] === "number";
    const level = historyCommitment(params.config(given ? 2 : 1));
    return { start, end: given ? params.count(1, "the end slot") : null, last: chain.slotAt(level) };
  };

  /**
   * @param {number} start
   * @param {number} end inclusive
   */
  const blocks = (start, end) => {
    const first = Math.max(start, chain.ledger.firstSlot);
    return Array.from({ length: Math.max(0, end - first + 1) }, (_, i) => first + i);
  };

  /** @param {number} slot @param {number} last */
  const requireBlock = (slot, last) => {
    if (slot > last) throw new RpcError(BLOCK_NOT_AVAILABLE, `Block not available for slot ${slot}`);
    const first = chain.ledger.firstSlot;
    if (slot < first) throw new RpcError(BLOCK_CLEANED_UP, `Block ${slot} cleaned up, does not exist on node. First available block: ${first}`);
  };

  return {
    async sendTransaction(params) {
      const config = params.config(1);
      const tx = transaction(params.text(0, "the transaction"), config.encoding);
      checkSendConfig(config);
      if (config.skipPreflight !== true) {
        verify(tx);
        const result = simulation(tx, {});
        refuseUnsanitary(result.err);
        if (result.err !== null) throw new RpcError(PREFLIGHT_FAILURE, `Transaction simulation failed: ${describe(result.err)}`, result);
      } else if (!verifySignatures(tx)) {
        log(`dropped ${tx.signature}: signature verification failed`);
        return tx.signature;
      }
      const { err, entry, stored } = chain.submit(tx);
      if (!entry) {
        refuseUnsanitary(err);
        if (err) log(`dropped ${tx.signature}: ${describe(err)}`);
      }
      await stored;
      return tx.signature;
    },
    simulateTransaction(params) {
      const config = params.config(1);
      const tx = transaction(params.text(0, "the transaction"), config.encoding);
      contextSlot(chain, config);
      if (config.sigVerify === true) {
        if (config.replaceRecentBlockhash === true) throw invalid("sigVerify may not be used with replaceRecentBlockhash");
        verify(tx);
      }
      const value = simulation(tx, config);
      refuseUnsanitary(value.err);
      return { context: context(chain.slot), value };
    },
    async requestAirdrop(params) {
      const to = params.pubkey(0);
      const lamports = BigInt(params.count(1, "the lamports"));
      commitment(params.config(2).commitment);
      const { transaction: tx, err, stored } = chain.airdrop(to, lamports);
      if (err) throw new RpcError(PREFLIGHT_FAILURE, `airdrop failed: ${describe(err)}`);
      await stored;
      return tx.signature;
    },
    getSignatureStatuses(params) {
      const ids = params.texts(0, "the signatures");
      if (ids.length > MAX_STATUSES) throw invalid(`Too many inputs provided; max ${MAX_STATUSES}`);
      const search = params.config(1).searchTransactionHistory === true;
      const value = ids.map((id) => {
        const entry = chain.ledger.bySignature.get(signature(id));
        return entry && (search || entry.slot > chain.slot - STATUS_CACHE_SLOTS) ? status(entry) : null;
      });
      return { context: context(chain.slot), value };
    },
    getSignaturesForAddress(params) {
      const address = params.pubkey(0);
      const config = params.config(1);
      const last = contextSlot(chain, config, historyCommitment(config));
      const limit = config.limit === undefined || config.limit === null ? MAX_HISTORY : wholeNumber(config.limit, "limit");
      if (limit === 0 || limit > MAX_HISTORY) throw invalid(`Invalid limit; max ${MAX_HISTORY}`);
      const before = config.before ? signature(config.before) : null;
      const until = config.until ? signature(config.until) : null;
      return addressHistory(chain, address, last, limit, before, until).map((entry) => ({
        signature: entry.signature,
        slot: entry.slot,
        err: entry.err,
        memo: entry.memo,
        blockTime: chain.blockTime(entry.slot),
        confirmationStatus: chain.commitmentOf(entry.slot),
        transactionIndex: entry.index,
      }));
    },
    getTransaction(params) {
      const config = typeof params.list[1] === "string" ? { encoding: params.list[1] } : params.config(1);
      const entry = entryAt(params.signature(0), historyCommitment(config));
      return entry && { slot: entry.slot, blockTime: chain.blockTime(entry.slot), transactionIndex: entry.index, ...encodeEntry(entry, config) };
    },
    getBlock(params) {
      const slot = params.count(0, "the slot");
      const config = typeof params.list[1] === "string" ? { encoding: params.list[1] } : params.config(1);
      requireBlock(slot, chain.slotAt(historyCommitment(config)));
      return encodeBlock(chain, slot, config);
    },
    getBlocks(params) {
      const { start, end, last } = readBlockRange(params);
      const stop = Math.min(end ?? last, last);
      if (stop - start > MAX_BLOCK_RANGE) throw invalid(`Slot range too large; max ${MAX_BLOCK_RANGE}`);
      return blocks(start, stop);
    },
    getBlocksWithLimit(params) {
      const start = params.count(0, "the start slot");
      const limit = params.count(1, "the limit");
      if (limit > MAX_BLOCK_RANGE) throw invalid(`Limit too large; max ${MAX_BLOCK_RANGE}`);
      const last = chain.slotAt(historyCommitment(params.config(2)));
      return blocks(start, Math.min(last, Math.max(start, chain.ledger.firstSlot) + limit - 1));
    },
    getBlockTime(params) {
      const slot = params.count(0, "the slot");
      requireBlock(slot, chain.slotAt("confirmed"));
      return chain.blockTime(slot);
    },
    getFeeForMessage(params) {
      const config = params.config(1);
      const slot = contextSlot(chain, config);
      const text = params.text(0, "the message");
      try {
        const message = parseMessage(decodeBase64(text));
        const valid = chain.isRecent(message.blockhash, slot) || chain.lifetime(message) !== null;
        return { context: context(slot), value: valid ? fee(message) : null };
      } catch (err) {
        if (err instanceof DecodeError) throw invalid(`failed to deserialize solana_message::VersionedMessage: ${err.message}`);
        throw err;
      }
    },
  };
}

/**
 * Newest first, from just before `before` down to just after `until`.
 * @param {Chain} chain
 * @param {string} address
 * @param {number} last newest slot to report
 * @param {number} limit
 * @param {string | null} before
 * @param {string | null} until
 * @returns {Entry[]}
 */
function addressHistory(chain, address, last, limit, before, until) {
  const list = chain.ledger.byAddress.get(address) ?? [];
  const from = before === null ? null : chain.ledger.bySignature.get(before);
  if (from === undefined) return [];
  const stop = until === null ? undefined : chain.ledger.bySignature.get(until);
  /** @type {Entry[]} */
  const found = [];
  for (let i = list.length - 1; i >= 0 && found.length < limit; i--) {
    const entry = list[i];
    if (stop && order(entry, stop) <= 0) break;
    if (entry.slot > last || (from && order(entry, from) >= 0)) continue;
    found.push(entry);
  }
  return found;
}

/**
 * @param {Entry} a
 * @param {Entry} b
 * @returns {number} below 0 when a is older
 */
function order(a, b) {
  return a.slot - b.slot || a.index - b.index;
}

/**
 * @param {Chain} chain
 * @param {number} slot
 * @param {Config} config
 */
function encodeBlock(chain, slot, config) {
  const entries = chain.ledger.block(slot);
  const details = config.transactionDetails ?? "full";
  const head = {
    blockhash: encodeBase58(chain.blockhash(slot)),
    previousBlockhash: encodeBase58(chain.blockhash(Math.max(0, slot - 1))),
    parentSlot: Math.max(0, slot - 1),
    blockTime: chain.blockTime(slot),
    blockHeight: slot,
    ...(config.rewards === false ? {} : { rewards: [] }),
  };
  if (details === "none") return head;
  if (details === "signatures") return { ...head, signatures: entries.map((entry) => entry.signature) };
  if (details !== "full") throw invalid(`transactionDetails ${JSON.stringify(details)} is not supported by this development chain; use full, signatures or none`);
  return { ...head, transactions: entries.map((entry) => encodeEntry(entry, config)) };
}
