/**
 * Byte-level helpers: base58, little-endian reads and a bounds-checked reader.
 *
 * Everything here throws `DecodeError` on malformed input and never returns a partial result.
 */

const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const DIGITS = new Int8Array(128).fill(-1);
for (let i = 0; i < ALPHABET.length; i++) DIGITS[ALPHABET.charCodeAt(i)] = i;

export const PUBKEY_BYTES = 32;
export const SIGNATURE_BYTES = 64;
export const U64_MAX = 0xffff_ffff_ffff_ffffn;

/** Malformed bytes or text from outside. */
export class DecodeError extends Error {}

/** Addresses in both forms: the same few thousand are asked for over and over. */
const KNOWN_ADDRESSES = 65_536;
/** @type {Map<string, string>} by their bytes as latin1 */
const texts = new Map();
/** @type {Map<string, Uint8Array>} by their text */
const keys = new Map();

/**
 * @template V
 * @param {Map<string, V>} known
 * @param {string} key
 * @param {V} value
 * @returns {V}
 */
function remember(known, key, value) {
  if (known.size >= KNOWN_ADDRESSES) known.clear();
  known.set(key, value);
  return value;
}

/**
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export function encodeBase58(bytes) {
  if (bytes.length !== PUBKEY_BYTES) return toBase58(bytes);
  const key = Buffer.from(bytes.buffer, bytes.byteOffset, PUBKEY_BYTES).toString("latin1");
  return texts.get(key) ?? remember(texts, key, toBase58(bytes));
}

/**
 * @param {string} text
 * @returns {Uint8Array} of which the caller is the only owner
 */
export function decodeBase58(text) {
  const known = keys.get(text);
  if (known) return known.slice();
  const bytes = fromBase58(text);
  if (bytes.length === PUBKEY_BYTES) remember(keys, text, bytes.slice());
  return bytes;
}

/**
 * @param {Uint8Array} bytes
 * @returns {string}
 */
function toBase58(bytes) {
  let zeros = 0;
  while (zeros < bytes.length && bytes[zeros] === 0) zeros++;
  const digits = new Uint8Array(Math.ceil((bytes.length - zeros) * 1.37) + 1);
  let length = 0;
  for (let i = zeros; i < bytes.length; i++) {
    let carry = bytes[i];
    for (let j = 0; j < length; j++) {
      carry += digits[j] << 8;
      digits[j] = carry % 58;
      carry = (carry / 58) | 0;
    }
    while (carry > 0) {
      digits[length++] = carry % 58;
      carry = (carry / 58) | 0;
    }
  }
  let text = "1".repeat(zeros);
  for (let i = length - 1; i >= 0; i--) text += ALPHABET[digits[i]];
  return text;
}

/**
 * @param {string} text
 * @returns {Uint8Array}
 */
function fromBase58(text) {
  let zeros = 0;
  while (zeros < text.length && text[zeros] === "1") zeros++;
  const bytes = new Uint8Array(text.length - zeros);
  let length = 0;
  for (let i = zeros; i < text.length; i++) {
    const code = text.charCodeAt(i);
    let carry = code < 128 ? DIGITS[code] : -1;
    if (carry < 0) throw new DecodeError(`invalid base58 character at position ${i}`);
    for (let j = 0; j < length; j++) {
      carry += bytes[j] * 58;
      bytes[j] = carry & 0xff;
      carry >>= 8;
    }
    while (carry > 0) {
      bytes[length++] = carry & 0xff;
      carry >>= 8;
    }
  }
  const out = new Uint8Array(zeros + length);
  for (let i = 0; i < length; i++) out[zeros + i] = bytes[length - 1 - i];
  return out;
}

/**
 * Strict base64: Buffer silently drops characters it does not know, a validator refuses them.
 * @param {string} text
 * @returns {Uint8Array}
 */
export function decodeBase64(text) {
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) throw new DecodeError("invalid base64 encoding");
  return new Uint8Array(Buffer.from(text, "base64"));
}

/**
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export function encodeBase64(bytes) {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

/**
 * @param {Uint8Array} a
 * @param {Uint8Array} b
 * @returns {boolean}
 */
export function equalBytes(a, b) {
  return a.length === b.length && Buffer.compare(a, b) === 0;
}

/**
 * @param {Uint8Array} bytes
 * @param {number} offset
 * @returns {number}
 */
export function readU32(bytes, offset) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(offset, true);
}

/**
 * @param {Uint8Array} bytes
 * @param {number} offset
 * @returns {bigint}
 */
export function readU64(bytes, offset) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getBigUint64(offset, true);
}

/** A cursor over untrusted bytes. */
export class Reader {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes;
    this.offset = 0;
  }

  /** @returns {number} */
  get remaining() {
    return this.bytes.length - this.offset;
  }

  /**
   * @param {number} count
   * @returns {Uint8Array}
   */
  take(count) {
    if (count > this.remaining) throw new DecodeError("unexpected end of data");
    const out = this.bytes.subarray(this.offset, this.offset + count);
    this.offset += count;
    return out;
  }

  /** @returns {number} */
  u8() {
    return this.take(1)[0];
  }

  /** @returns {number} */
  u16() {
    const b = this.take(2);
    return b[0] | (b[1] << 8);
  }

  /** @returns {number} */
  u32() {
    return readU32(this.take(4), 0);
  }

  /** @returns {bigint} */
  u64() {
    return readU64(this.take(8), 0);
  }

  /**
   * Solana's compact-u16; longer-than-needed encodings are refused, as the runtime refuses them.
   * @returns {number}
   */
  compactU16() {
    let value = 0;
    for (let i = 0; i < 3; i++) {
      const byte = this.u8();
      if (i > 0 && byte === 0) throw new DecodeError("compact-u16 is not minimal");
      value |= (byte & 0x7f) << (7 * i);
      if ((byte & 0x80) === 0) {
        if (value > 0xffff) break;
        return value;
      }
    }
    throw new DecodeError("compact-u16 is out of range");
  }
}
