/**
 * What the RPC reports about a landed transaction beyond its outcome: token balances, memos, fees.
 */

import { MEMO_PROGRAMS, BUILTIN_PROGRAMS, COMPUTE_BUDGET_PROGRAM, SIGNATURE_PRECOMPILES, decodeMint, decodeTokenAccount, tokenAmount } from "./programs.js";
import { readU32, readU64 } from "./bytes.js";
import { LAMPORTS_PER_SIGNATURE } from "./vm.js";

const DEFAULT_UNITS = 200_000;
const DEFAULT_BUILTIN_UNITS = 3_000;
const MAX_UNITS = 1_400_000;
const SET_UNIT_LIMIT = 2;
const SET_UNIT_PRICE = 3;
const MICROLAMPORTS = 1_000_000n;

/** @typedef {import("./vm.js").Account} Account */
/** @typedef {import("./transaction.js").Message} Message */

/**
 * @typedef {{accountIndex: number, mint: string, owner: string, programId: string, uiTokenAmount: ReturnType<typeof tokenAmount>}} TokenBalance
 * @param {(Account | null)[]} accounts of the transaction, in its order
 * @param {(mint: string) => Account | null} lookup
 * @returns {TokenBalance[]}
 */
export function tokenBalances(accounts, lookup) {
  /** @type {TokenBalance[]} */
  const balances = [];
  /** Mostly all accounts are of one mint. @type {Map<string, ReturnType<typeof decodeMint>>} */
  const mints = new Map();
  accounts.forEach((account, accountIndex) => {
    const token = decodeTokenAccount(account);
    if (!account || !token) return;
    if (!mints.has(token.mint)) mints.set(token.mint, decodeMint(lookup(token.mint)));
    const mint = mints.get(token.mint);
    if (!mint) return;
    balances.push({
      accountIndex,
      mint: token.mint,
      owner: token.owner,
      programId: account.owner,
      uiTokenAmount: tokenAmount(token.amount, mint.decimals),
    });
  });
  return balances;
}

/**
 * Top-level memos in a validator's notation: "[bytes] text", joined by "; ".
 * @param {Message} message
 * @returns {string | null}
 */
export function memo(message) {
  const memos = message.instructions
    .filter(({ programIdIndex }) => MEMO_PROGRAMS.has(message.keys[programIdIndex]))
    .map(({ data }) => `[${data.length}] ${Buffer.from(data).toString("utf8")}`);
  return memos.length > 0 ? memos.join("; ") : null;
}

/**
 * The fee that the runtime will charge, whether or not the transaction succeeds.
 * @param {Message} message
 * @returns {bigint}
 */
export function fee(message) {
  let signatures = BigInt(message.header.numRequiredSignatures);
  for (const { programIdIndex, data } of message.instructions) {
    if (SIGNATURE_PRECOMPILES.has(message.keys[programIdIndex]) && data.length > 0) signatures += BigInt(data[0]);
  }
  const priority = message.config ? (message.config.priorityFee ?? 0n) : pricedPriority(message);
  return signatures * LAMPORTS_PER_SIGNATURE + priority;
}

/**
 * @param {Message} message legacy or v0
 * @returns {bigint}
 */
function pricedPriority(message) {
  let limit = 0;
  let requested = -1;
  let price = 0n;
  for (const { programIdIndex, data } of message.instructions) {
    const program = message.keys[programIdIndex];
    limit += BUILTIN_PROGRAMS.has(program) ? DEFAULT_BUILTIN_UNITS : DEFAULT_UNITS;
    if (program !== COMPUTE_BUDGET_PROGRAM) continue;
    if (data[0] === SET_UNIT_LIMIT && data.length >= 5) requested = readU32(data, 1);
    if (data[0] === SET_UNIT_PRICE && data.length >= 9) price = readU64(data, 1);
  }
  const units = Math.min(requested >= 0 ? requested : limit, MAX_UNITS);
  return (price * BigInt(units) + MICROLAMPORTS - 1n) / MICROLAMPORTS;
}
