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
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "bigint") return value.toString();
  if (value === undefined) return "null";
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (value instanceof RawJson) return value.text;
  let text = "";
  if (Array.isArray(value)) {
    for (const item of value) text += text === "" ? stringify(item) : `,${stringify(item)}`;
    return `[${text}]`;
  }
  const object = /** @type {{[key: string]: unknown}} */ (value);
  for (const key of Object.keys(object)) {
    const field = object[key];
    if (field !== undefined) text += `${text === "" ? "" : ","}${JSON.stringify(key)}:${stringify(field)}`;
  }
  return `{${text}}`;
}
