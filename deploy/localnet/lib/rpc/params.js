/**
 * Reading the params of a request. Every reader answers a valid value or throws -32602 with the name
 * of what is wrong.
 */

import { DecodeError, PUBKEY_BYTES, SIGNATURE_BYTES, decodeBase58, decodeBase64 } from "../bytes.js";
import { parseTransaction, MAX_PACKET_BYTES, MAX_V1_BYTES } from "../transaction.js";
import { MIN_CONTEXT_SLOT_NOT_REACHED, RpcError, invalid } from "./errors.js";

/** Longest base58 text of a transaction: the encoding is quadratic, so validators limit it too. */
const MAX_BASE58_CHARS = 1683;
const MAX_BASE64_CHARS = Math.ceil(MAX_V1_BYTES / 3) * 4;

/** @typedef {import("../chain.js").Commitment} Commitment */
/** @typedef {{[field: string]: any}} Config */

export class Params {
  /** @param {unknown} list */
  constructor(list) {
    if (list !== undefined && list !== null && !Array.isArray(list)) throw invalid("Invalid params: expected an array");
    /** @type {unknown[]} */
    this.list = list ?? [];
  }

  /**
   * @param {number} i
   * @param {string} name
   * @returns {string}
   */
  text(i, name) {
    const value = this.list[i];
    if (typeof value !== "string") throw invalid(`Invalid params: ${name} must be a string`);
    return value;
  }

  /**
   * @param {number} i
   * @param {string} name
   * @returns {number}
   */
  count(i, name) {
    return wholeNumber(this.list[i], name);
  }

  /**
   * @param {number} i
   * @returns {string}
   */
  pubkey(i) {
    return pubkey(this.text(i, "the address"));
  }

  /**
   * @param {number} i
   * @returns {string}
   */
  signature(i) {
    return signature(this.text(i, "the signature"));
  }

  /**
   * @param {number} i
   * @param {string} name
   * @returns {string[]}
   */
  texts(i, name) {
    const value = this.list[i];
    if (!Array.isArray(value) || value.some((item) => typeof item !== "string")) {
      throw invalid(`Invalid params: ${name} must be an array of strings`);
    }
    return value;
  }

  /**
   * The configuration object; a plain number or string there is not one.
   * @param {number} i
   * @returns {Config}
   */
  config(i) {
    const value = this.list[i] ?? {};
    if (typeof value !== "object" || Array.isArray(value)) throw invalid(`Invalid params: parameter ${i + 1} must be an object`);
    return /** @type {Config} */ (value);
  }
}

/**
 * @param {unknown} value
 * @param {string} name
 * @returns {number}
 */
export function wholeNumber(value, name) {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw invalid(`Invalid params: ${name} must be a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`);
  }
  return value;
}

/**
 * @param {string} text
 * @param {number} bytes
 * @returns {string}
 */
function base58Of(text, bytes) {
  try {
    if (text.length <= MAX_BASE58_CHARS && decodeBase58(text).length === bytes) return text;
  } catch (err) {
    if (!(err instanceof DecodeError)) throw err;
    throw invalid("Invalid param: Invalid");
  }
  throw invalid("Invalid param: WrongSize");
}

/**
 * @param {unknown} text
 * @returns {string}
 */
export function pubkey(text) {
  if (typeof text !== "string") throw invalid("Invalid params: an address must be a string");
  return base58Of(text, PUBKEY_BYTES);
}

/**
 * @param {unknown} text
 * @returns {string}
 */
export function signature(text) {
  if (typeof text !== "string") throw invalid("Invalid params: a signature must be a string");
  return base58Of(text, SIGNATURE_BYTES);
}

/**
 * @param {unknown} value
 * @param {Commitment} [fallback]
 * @returns {Commitment}
 */
export function commitment(value, fallback = "finalized") {
  if (value === undefined || value === null) return fallback;
  if (value === "processed" || value === "confirmed" || value === "finalized") return value;
  throw invalid(`Invalid params: unknown commitment ${JSON.stringify(value)}, expected one of processed, confirmed, finalized`);
}

/**
 * History is read only from blocks that are complete.
 * @param {Config} config
 * @returns {Commitment}
 */
export function historyCommitment(config) {
  const level = commitment(config.commitment);
  if (level === "processed") throw invalid("Method does not support commitment below `confirmed`");
  return level;
}

/**
 * The slot to read at, once it has reached `minContextSlot`.
 * @param {import("../chain.js").Chain} chain
 * @param {Config} config
 * @param {Commitment} [level]
 * @returns {number}
 */
export function contextSlot(chain, config, level = commitment(config.commitment)) {
  const slot = chain.slotAt(level);
  if (config.minContextSlot !== undefined && config.minContextSlot !== null && slot < wholeNumber(config.minContextSlot, "minContextSlot")) {
    throw new RpcError(MIN_CONTEXT_SLOT_NOT_REACHED, "Minimum context slot has not been reached", { contextSlot: slot });
  }
  return slot;
}

/**
 * @param {string} text
 * @param {unknown} encoding base58 when absent, as on a validator
 * @returns {import("../transaction.js").Transaction}
 */
export function transaction(text, encoding) {
  const bytes = encoded(text, encoding ?? "base58");
  try {
    return parseTransaction(bytes);
  } catch (err) {
    if (err instanceof DecodeError) throw invalid(`failed to deserialize solana_transaction::versioned::VersionedTransaction: ${err.message}`);
    throw err;
  }
}

/**
 * @param {string} text
 * @param {unknown} encoding
 * @returns {Uint8Array}
 */
function encoded(text, encoding) {
  if (encoding !== "base58" && encoding !== "base64") {
    throw invalid(`unsupported encoding: ${String(encoding)}. Supported encodings: base58, base64`);
  }
  const max = encoding === "base58" ? MAX_BASE58_CHARS : MAX_BASE64_CHARS;
  if (text.length > max) {
    throw invalid(
      `${encoding} encoded solana_transaction::versioned::VersionedTransaction too large: ${text.length} bytes ` +
        `(max: encoded ${max}, raw ${encoding === "base58" ? MAX_PACKET_BYTES : MAX_V1_BYTES})`,
    );
  }
  try {
    return encoding === "base58" ? decodeBase58(text) : decodeBase64(text);
  } catch (err) {
    if (err instanceof DecodeError) throw invalid(`invalid ${encoding} encoding: ${err.message}`);
    throw err;
  }
}
