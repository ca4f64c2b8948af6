/**
 * JSON with exact 64-bit integers.
 *
 * Solana's RPC sends u64 values (lamports, rentEpoch) as JSON numbers, past what a double holds;
 * `JSON.stringify` refuses bigints, so they are written here as plain digits.
 */

/** JSON text that is already made, written out as it is. */
export class RawJson {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
  }
}

/**
 * @param {unknown} value
 * @returns {string}
 */
export function stringify(value) {
  if (typeof value === "bigint") return value.toString();
  if (value === undefined) return "null";
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (value instanceof RawJson) return value.text;
  if (Array.isArray(value)) return `[${value.map(stringify).join(",")}]`;
  const fields = [];
  for (const [key, field] of Object.entries(value)) {
    if (field !== undefined) fields.push(`${JSON.stringify(key)}:${stringify(field)}`);
  }
  return `{${fields.join(",")}}`;
}
