/**
 * Addresses and account layouts of the programs that the chain itself has to understand.
 */

import { encodeBase58, readU32, readU64 } from "./bytes.js";

export const SYSTEM_PROGRAM = "11111111111111111111111111111111";
export const TOKEN_PROGRAM = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA";
export const TOKEN_2022_PROGRAM = "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb";
export const COMPUTE_BUDGET_PROGRAM = "ComputeBudget111111111111111111111111111111";
export const LOOKUP_TABLE_PROGRAM = "AddressLookupTab1e1111111111111111111111111";
export const SYSVAR_OWNER = "Sysvar1111111111111111111111111111111111111";
export const SLOT_HASHES_SYSVAR = "SysvarS1otHashes111111111111111111111111111";
export const RECENT_BLOCKHASHES_SYSVAR = "SysvarRecentB1ockHashes11111111111111111111";
export const MEMO_PROGRAMS = new Set(["MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr", "Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo"]);
export const SIGNATURE_PRECOMPILES = new Set([
  "KeccakSecp256k11111111111111111111111111111",
  "Ed25519SigVerify111111111111111111111111111",
  "Secp256r1SigVerify1111111111111111111111111",
]);
/** Programs that the default compute budget counts as built in (3,000 units an instruction). */
export const BUILTIN_PROGRAMS = new Set([
  SYSTEM_PROGRAM,
  COMPUTE_BUDGET_PROGRAM,
  "Vote111111111111111111111111111111111111111",
  "BPFLoader1111111111111111111111111111111111",
  "BPFLoader2111111111111111111111111111111111",
  "BPFLoaderUpgradeab1e11111111111111111111111",
  "LoaderV411111111111111111111111111111111111",
  "KeccakSecp256k11111111111111111111111111111",
  "Ed25519SigVerify111111111111111111111111111",
]);

export const TOKEN_ACCOUNT_BYTES = 165;
export const MINT_BYTES = 82;
export const NONCE_BYTES = 80;
export const NONCE_VALUE_OFFSET = 40;
const MULTISIG_BYTES = 355;
const LOOKUP_TABLE_HEADER_BYTES = 56;
const NONCE_VERSION_CURRENT = 1;
const NONCE_INITIALIZED = 1;
const TOKEN_2022_TYPE_MINT = 1;
const TOKEN_2022_TYPE_ACCOUNT = 2;

/** @typedef {import("./vm.js").Account} Account */

/**
 * @param {string} owner
 * @returns {boolean}
 */
export function isTokenProgram(owner) {
  return owner === TOKEN_PROGRAM || owner === TOKEN_2022_PROGRAM;
}

/**
 * @typedef {object} TokenAccount
 * @property {string} mint
 * @property {string} owner
 * @property {bigint} amount
 * @property {string | null} delegate
 * @property {"initialized" | "frozen"} state
 * @property {bigint | null} rentExemptReserve set for wrapped SOL
 * @property {bigint} delegatedAmount
 * @property {string | null} closeAuthority
 */

/**
 * @param {Account | null} account
 * @returns {TokenAccount | null} null when it is no initialized token account
 */
export function decodeTokenAccount(account) {
  if (!account || !isTokenProgram(account.owner)) return null;
  const { data } = account;
  if (data.length < TOKEN_ACCOUNT_BYTES || data.length === MULTISIG_BYTES) return null;
  if (data.length > TOKEN_ACCOUNT_BYTES && data[TOKEN_ACCOUNT_BYTES] !== TOKEN_2022_TYPE_ACCOUNT) return null;
  const state = data[108];
  if (state !== 1 && state !== 2) return null;
  return {
    mint: encodeBase58(data.subarray(0, 32)),
    owner: encodeBase58(data.subarray(32, 64)),
    amount: readU64(data, 64),
    delegate: optionalKey(data, 72),
    state: state === 2 ? "frozen" : "initialized",
    rentExemptReserve: readU32(data, 109) === 1 ? readU64(data, 113) : null,
    delegatedAmount: readU64(data, 121),
    closeAuthority: optionalKey(data, 129),
  };
}

/**
 * @typedef {{mintAuthority: string | null, supply: bigint, decimals: number, freezeAuthority: string | null}} Mint
 * @param {Account | null} account
 * @returns {Mint | null}
 */
export function decodeMint(account) {
  if (!account || !isTokenProgram(account.owner)) return null;
  const { data } = account;
  if (data.length < MINT_BYTES || data[45] !== 1) return null;
  const extended = data.length > TOKEN_ACCOUNT_BYTES && data[TOKEN_ACCOUNT_BYTES] === TOKEN_2022_TYPE_MINT;
  if (data.length !== MINT_BYTES && !extended) return null;
  return {
    mintAuthority: optionalKey(data, 0),
    supply: readU64(data, 36),
    decimals: data[44],
    freezeAuthority: optionalKey(data, 46),
  };
}

/**
 * @typedef {{authority: string, value: string, lamportsPerSignature: bigint}} NonceData
 * @param {Account | null} account
 * @returns {NonceData | null} null when it is no initialized nonce account of the current version
 */
export function decodeNonce(account) {
  if (!account || account.owner !== SYSTEM_PROGRAM || account.data.length !== NONCE_BYTES) return null;
  const { data } = account;
  if (readU32(data, 0) !== NONCE_VERSION_CURRENT || readU32(data, 4) !== NONCE_INITIALIZED) return null;
  return {
    authority: encodeBase58(data.subarray(8, 40)),
    value: encodeBase58(data.subarray(NONCE_VALUE_OFFSET, NONCE_VALUE_OFFSET + 32)),
    lamportsPerSignature: readU64(data, 72),
  };
}

/**
 * @typedef {{deactivationSlot: bigint, lastExtendedSlot: bigint, lastExtendedStart: number, authority: string | null, addresses: string[]}} LookupTable
 * @param {Account | null} account
 * @returns {LookupTable | null}
 */
export function decodeLookupTable(account) {
  if (!account || account.owner !== LOOKUP_TABLE_PROGRAM) return null;
  const { data } = account;
  if (data.length < LOOKUP_TABLE_HEADER_BYTES || readU32(data, 0) !== 1) return null;
  const addresses = [];
  for (let at = LOOKUP_TABLE_HEADER_BYTES; at + 32 <= data.length; at += 32) {
    addresses.push(encodeBase58(data.subarray(at, at + 32)));
  }
  return {
    deactivationSlot: readU64(data, 4),
    lastExtendedSlot: readU64(data, 12),
    lastExtendedStart: data[20],
    authority: data[21] === 1 ? encodeBase58(data.subarray(22, 54)) : null,
    addresses,
  };
}

/**
 * @param {Uint8Array} data
 * @param {number} offset of a u32 tag followed by a key
 * @returns {string | null}
 */
function optionalKey(data, offset) {
  return readU32(data, offset) === 1 ? encodeBase58(data.subarray(offset + 4, offset + 36)) : null;
}

/**
 * The RPC's token amount object. `uiAmount` is a double by Solana's own definition; `amount` and
 * `uiAmountString` are exact.
 * @param {bigint} amount
 * @param {number} decimals
 */
export function tokenAmount(amount, decimals) {
  const digits = amount.toString().padStart(decimals + 1, "0");
  const whole = digits.slice(0, digits.length - decimals);
  const fraction = digits.slice(digits.length - decimals).replace(/0+$/, "");
  const uiAmountString = fraction ? `${whole}.${fraction}` : whole;
  return { amount: amount.toString(), decimals, uiAmount: Number(uiAmountString), uiAmountString };
}
