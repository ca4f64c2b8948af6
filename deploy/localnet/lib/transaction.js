/**
 * The wire formats: legacy, v0 (lookup tables) and v1 (4,096 bytes, SIMD-0385).
 *
 * Invariant: whatever `parseTransaction` accepts, the VM's own decoder accepts. The VM aborts the
 * whole process on bytes that it cannot decode, so this parser is the gate and is strict.
 */

import { createPublicKey, verify } from "node:crypto";
import { DecodeError, PUBKEY_BYTES, Reader, SIGNATURE_BYTES, encodeBase58, readU32 } from "./bytes.js";
import { SYSTEM_PROGRAM } from "./programs.js";

/** Largest legacy and v0 transaction: one network packet. */
export const MAX_PACKET_BYTES = 1232;
/** Largest v1 transaction. */
export const MAX_V1_BYTES = 4096;

const V1_PREFIX = 0x81;
const V1_MAX_SIGNATURES = 12;
const V1_MAX_ADDRESSES = 64;
const V1_MAX_INSTRUCTIONS = 64;
const V1_MIN_HEAP = 32 * 1024;
const V1_MAX_HEAP = 256 * 1024;
const MAX_ACCOUNT_KEYS = 256;
const ADVANCE_NONCE_TAG = 4;

const MASK_PRIORITY_FEE = 0b11;
const MASK_UNIT_LIMIT = 0b100;
const MASK_DATA_LIMIT = 0b1000;
const MASK_HEAP = 0b10000;
const MASK_KNOWN = 0b11111;

/** DER prefix of an Ed25519 SubjectPublicKeyInfo; the raw key follows. */
const SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");

/**
 * @typedef {{programIdIndex: number, accounts: Uint8Array, data: Uint8Array}} Instruction
 * @typedef {{accountKey: string, writableIndexes: Uint8Array, readonlyIndexes: Uint8Array}} Lookup
 * @typedef {{numRequiredSignatures: number, numReadonlySignedAccounts: number, numReadonlyUnsignedAccounts: number}} Header
 * @typedef {{priorityFee: bigint | null, computeUnitLimit: number | null, loadedAccountsDataSizeLimit: number | null, heapSize: number | null}} Config
 */

/**
 * @typedef {object} Message
 * @property {"legacy" | 0 | 1} version
 * @property {Uint8Array} bytes the signed bytes
 * @property {Header} header
 * @property {string[]} keys static account keys
 * @property {string} blockhash recent blockhash or nonce value
 * @property {number} blockhashOffset where it lies in `bytes`
 * @property {Instruction[]} instructions
 * @property {Lookup[]} lookups v0 only
 * @property {Config | null} config v1 only
 */

/**
 * @typedef {object} Transaction
 * @property {Uint8Array} wire
 * @property {number} messageOffset where the message lies in `wire`
 * @property {Uint8Array[]} signatures
 * @property {string} signature the first signature: the transaction's id
 * @property {Message} message
 */

/**
 * @param {Uint8Array} wire
 * @returns {Transaction}
 */
export function parseTransaction(wire) {
  if (wire.length === 0) throw new DecodeError("empty transaction");
  const v1 = wire[0] === V1_PREFIX;
  const limit = v1 ? MAX_V1_BYTES : MAX_PACKET_BYTES;
  if (wire.length > limit) throw new DecodeError(`transaction too large: ${wire.length} bytes (max: ${limit} bytes)`);
  return v1 ? parseV1(wire) : parsePacket(wire);
}

/**
 * @param {Uint8Array} wire
 * @returns {Transaction}
 */
function parsePacket(wire) {
  const reader = new Reader(wire);
  const count = reader.compactU16();
  const signatures = takeSignatures(reader, count);
  const messageOffset = reader.offset;
  const message = parseMessage(wire.subarray(messageOffset));
  if (message.version === 1) throw new DecodeError("a v1 message needs the v1 envelope");
  return assemble(wire, messageOffset, signatures, message);
}

/**
 * @param {Uint8Array} wire
 * @returns {Transaction}
 */
function parseV1(wire) {
  const reader = new Reader(wire);
  const message = readV1Message(reader);
  const signatures = takeSignatures(reader, message.header.numRequiredSignatures);
  if (reader.remaining > 0) throw new DecodeError(`${reader.remaining} trailing bytes after the signatures`);
  return assemble(wire, 0, signatures, message);
}

/**
 * @param {Uint8Array} wire
 * @param {number} messageOffset
 * @param {Uint8Array[]} signatures
 * @param {Message} message
 * @returns {Transaction}
 */
function assemble(wire, messageOffset, signatures, message) {
  if (signatures.length !== message.header.numRequiredSignatures) {
    throw new DecodeError(`${signatures.length} signatures, the header requires ${message.header.numRequiredSignatures}`);
  }
  return { wire, messageOffset, signatures, signature: encodeBase58(signatures[0]), message };
}

/**
 * @param {Reader} reader
 * @param {number} count
 * @returns {Uint8Array[]}
 */
function takeSignatures(reader, count) {
  if (count === 0) throw new DecodeError("no signatures");
  if (count * SIGNATURE_BYTES > reader.remaining) throw new DecodeError("unexpected end of data");
  return Array.from({ length: count }, () => reader.take(SIGNATURE_BYTES));
}

/**
 * Parses a bare message (getFeeForMessage sends one without signatures).
 * @param {Uint8Array} bytes
 * @returns {Message}
 */
export function parseMessage(bytes) {
  const reader = new Reader(bytes);
  if (bytes.length > 0 && bytes[0] === V1_PREFIX) {
    const message = readV1Message(reader);
    if (reader.remaining > 0) throw new DecodeError(`${reader.remaining} trailing bytes after the message`);
    return message;
  }
  /** @type {"legacy" | 0} */
  let version = "legacy";
  let first = reader.u8();
  if ((first & 0x80) !== 0) {
    if (first !== 0x80) throw new DecodeError(`unsupported transaction version ${first & 0x7f}`);
    version = 0;
    first = reader.u8();
  }
  const header = readHeader(reader, first);
  const keys = takeKeys(reader, reader.compactU16());
  const blockhashOffset = reader.offset;
  const blockhash = encodeBase58(reader.take(PUBKEY_BYTES));
  const instructions = Array.from({ length: reader.compactU16() }, () => {
    const programIdIndex = reader.u8();
    const accounts = reader.take(reader.compactU16());
    const data = reader.take(reader.compactU16());
    return { programIdIndex, accounts, data };
  });
  const lookups = version === 0 ? readLookups(reader) : [];
  if (reader.remaining > 0) throw new DecodeError(`${reader.remaining} trailing bytes after the message`);
  return checked({ version, bytes, header, keys, blockhash, blockhashOffset, instructions, lookups, config: null });
}

/**
 * @param {Reader} reader
 * @param {number} required
 * @returns {Header}
 */
function readHeader(reader, required) {
  return {
    numRequiredSignatures: required,
    numReadonlySignedAccounts: reader.u8(),
    numReadonlyUnsignedAccounts: reader.u8(),
  };
}

/**
 * @param {Reader} reader
 * @param {number} count
 * @returns {string[]}
 */
function takeKeys(reader, count) {
  if (count * PUBKEY_BYTES > reader.remaining) throw new DecodeError("unexpected end of data");
  return Array.from({ length: count }, () => encodeBase58(reader.take(PUBKEY_BYTES)));
}

/**
 * @param {Reader} reader
 * @returns {Lookup[]}
 */
function readLookups(reader) {
  return Array.from({ length: reader.compactU16() }, () => {
    const accountKey = encodeBase58(reader.take(PUBKEY_BYTES));
    const writableIndexes = reader.take(reader.compactU16());
    const readonlyIndexes = reader.take(reader.compactU16());
    if (writableIndexes.length + readonlyIndexes.length === 0) throw new DecodeError("a lookup table is used for no address");
    return { accountKey, writableIndexes, readonlyIndexes };
  });
}

/**
 * @param {Reader} reader
 * @returns {Message}
 */
function readV1Message(reader) {
  reader.u8();
  const header = readHeader(reader, reader.u8());
  const mask = reader.u32();
  const feeBits = mask & MASK_PRIORITY_FEE;
  if ((mask & ~MASK_KNOWN) !== 0 || (feeBits !== 0 && feeBits !== MASK_PRIORITY_FEE)) {
    throw new DecodeError(`invalid transaction config mask ${mask}`);
  }
  const blockhashOffset = reader.offset;
  const blockhash = encodeBase58(reader.take(PUBKEY_BYTES));
  const instructionCount = reader.u8();
  const keyCount = reader.u8();
  if (header.numRequiredSignatures > V1_MAX_SIGNATURES) throw new DecodeError(`more than ${V1_MAX_SIGNATURES} signatures`);
  if (keyCount > V1_MAX_ADDRESSES) throw new DecodeError(`more than ${V1_MAX_ADDRESSES} addresses`);
  if (instructionCount > V1_MAX_INSTRUCTIONS) throw new DecodeError(`more than ${V1_MAX_INSTRUCTIONS} instructions`);
  const keys = takeKeys(reader, keyCount);
  const config = {
    priorityFee: feeBits ? reader.u64() : null,
    computeUnitLimit: mask & MASK_UNIT_LIMIT ? reader.u32() : null,
    loadedAccountsDataSizeLimit: mask & MASK_DATA_LIMIT ? reader.u32() : null,
    heapSize: mask & MASK_HEAP ? reader.u32() : null,
  };
  const heap = config.heapSize;
  if (heap !== null && (heap % 1024 !== 0 || heap < V1_MIN_HEAP || heap > V1_MAX_HEAP)) {
    throw new DecodeError(`invalid heap size ${heap}`);
  }
  const heads = Array.from({ length: instructionCount }, () => ({
    programIdIndex: reader.u8(),
    accountCount: reader.u8(),
    dataLength: reader.u16(),
  }));
  const instructions = heads.map(({ programIdIndex, accountCount, dataLength }) => ({
    programIdIndex,
    accounts: reader.take(accountCount),
    data: reader.take(dataLength),
  }));
  const bytes = reader.bytes.subarray(0, reader.offset);
  return checked({ version: 1, bytes, header, keys, blockhash, blockhashOffset, instructions, lookups: [], config });
}

/**
 * The runtime's sanitize rules, so that every index used later is in range.
 * @param {Message} message
 * @returns {Message}
 */
function checked(message) {
  const { header, keys, instructions, lookups } = message;
  const loaded = lookups.reduce((n, l) => n + l.writableIndexes.length + l.readonlyIndexes.length, 0);
  const total = keys.length + loaded;
  if (header.numReadonlySignedAccounts >= header.numRequiredSignatures) throw new DecodeError("the fee payer must be writable");
  if (header.numRequiredSignatures + header.numReadonlyUnsignedAccounts > keys.length) {
    throw new DecodeError("the header names more accounts than the message has");
  }
  if (total > MAX_ACCOUNT_KEYS) throw new DecodeError(`more than ${MAX_ACCOUNT_KEYS} accounts`);
  for (const { programIdIndex, accounts } of instructions) {
    if (programIdIndex === 0 || programIdIndex >= keys.length) throw new DecodeError("program index out of range");
    for (const index of accounts) if (index >= total) throw new DecodeError("account index out of range");
  }
  return message;
}

/**
 * Whether the message asks for a write lock on the account at `index`.
 * @param {Message} message
 * @param {number} index into static keys, then loaded writable, then loaded readonly
 * @returns {boolean}
 */
export function isWritable(message, index) {
  const { header, keys, lookups } = message;
  if (index >= keys.length) {
    return index - keys.length < lookups.reduce((n, l) => n + l.writableIndexes.length, 0);
  }
  if (index < header.numRequiredSignatures) return index < header.numRequiredSignatures - header.numReadonlySignedAccounts;
  return index < keys.length - header.numReadonlyUnsignedAccounts;
}

/**
 * The nonce account and the possible authorities when the message's lifetime may be a durable
 * nonce: its first instruction is AdvanceNonceAccount on a writable static account.
 * @param {Message} message
 * @returns {{address: string, signers: string[]} | null}
 */
export function durableNonce(message) {
  const first = message.instructions[0];
  if (!first || message.keys[first.programIdIndex] !== SYSTEM_PROGRAM) return null;
  if (first.data.length < 4 || readU32(first.data, 0) !== ADVANCE_NONCE_TAG) return null;
  const index = first.accounts[0];
  if (index === undefined || index >= message.keys.length || !isWritable(message, index)) return null;
  const signers = [...first.accounts].filter((i) => i < message.header.numRequiredSignatures).map((i) => message.keys[i]);
  return { address: message.keys[index], signers };
}

/**
 * The same transaction with another lifetime. Its signatures no longer match: for the VM only,
 * after `verifySignatures`.
 * @param {Transaction} transaction
 * @param {Uint8Array} blockhash
 * @returns {Uint8Array}
 */
export function wireWithBlockhash(transaction, blockhash) {
  const wire = transaction.wire.slice();
  wire.set(blockhash, transaction.messageOffset + transaction.message.blockhashOffset);
  return wire;
}

/** Making a key object takes longer than using it. */
const KNOWN_SIGNERS = 1024;
/** @type {Map<string, import("node:crypto").KeyObject>} */
const signers = new Map();

/**
 * @param {Uint8Array} bytes
 * @returns {import("node:crypto").KeyObject}
 */
function publicKey(bytes) {
  const name = encodeBase58(bytes);
  const known = signers.get(name);
  if (known) return known;
  const made = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, bytes]), format: "der", type: "spki" });
  if (signers.size >= KNOWN_SIGNERS) signers.clear();
  signers.set(name, made);
  return made;
}

/**
 * @param {Transaction} transaction
 * @returns {boolean}
 */
export function verifySignatures(transaction) {
  const { message, signatures, wire, messageOffset } = transaction;
  const keyOffset = message.version === 1 ? message.blockhashOffset + PUBKEY_BYTES + 2 : message.blockhashOffset - PUBKEY_BYTES * message.keys.length;
  return signatures.every((signature, i) => {
    const start = messageOffset + keyOffset + i * PUBKEY_BYTES;
    try {
      return verify(null, message.bytes, publicKey(wire.subarray(start, start + PUBKEY_BYTES)), signature);
    } catch {
      return false;
    }
  });
}
