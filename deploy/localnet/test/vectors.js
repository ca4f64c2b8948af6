/**
 * Messages of settlement/txn as @solana/kit's own builder makes them, as known answers for its tests.
 *
 *     node test/vectors.js      writes settlement/txn/testdata/kit.json anew
 *
 * kit orders a message's accounts by their address's text as a dictionary would, settlement/txn by
 * the address's bytes as solana-go does. The addresses here are such that both orders are the same,
 * and kit's messages are taken as they are. The associated token account program's address is not: where
 * accounts are created, kit's message is taken apart, its accounts are put in the order of their bytes, and
 * kit's encoder writes it again.
 */

import { createHash } from "node:crypto";
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import * as kit from "@solana/kit";
import { TOKEN_PROGRAM_ADDRESS, getCreateAssociatedTokenIdempotentInstruction, getTransferCheckedInstruction } from "@solana-program/token";

export const VECTORS = fileURLToPath(new URL("../../../settlement/txn/testdata/kit.json", import.meta.url));

const MEMO = kit.address("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr");
const WELL_KNOWN = [
  kit.address("11111111111111111111111111111111"),
  kit.address("ComputeBudget111111111111111111111111111111"),
  MEMO,
  kit.address("SysvarRecentB1ockHashes11111111111111111111"),
  TOKEN_PROGRAM_ADDRESS,
];
const DECIMALS = 6;
const BUDGET = { units: 12_345, loadedData: 2 << 20, priorityFee: 800 };
const TEXT = "bat_01jd8xk4s3f5rtkq9m2v6w7x8y mZ1Yp0uO9mJ4W8yq3cH7gk2b5nXr6tLsVfQaEoDiCzA";

/** @typedef {{account: kit.Address, amount: string, wallet?: kit.Address}} Payee a wallet's account is created */
/** @typedef {1 | 0 | "legacy"} Version */
/** @typedef {{name: string, version: Version, kind: "payout" | "cancel" | "sweep", payees?: Payee[], memo?: string}} Case */

/** Gives addresses whose two orders agree, the same ones each time. */
class Addresses {
  constructor() {
    this.compare = kit.getAddressComparator();
    this.encoder = kit.getAddressEncoder();
    this.count = 0;
    this.given = WELL_KNOWN.map((address) => this.both(address));
  }

  /** @param {kit.Address} address */
  both(address) {
    return { address, bytes: Buffer.from(this.encoder.encode(address)) };
  }

  /** @returns {kit.Address} */
  next() {
    for (;;) {
      const bytes = createHash("sha256").update(`settlement/txn ${this.count++}`).digest();
      const candidate = this.both(kit.getAddressDecoder().decode(bytes));
      const agrees = this.given.every((other) => Math.sign(Buffer.compare(other.bytes, candidate.bytes)) === Math.sign(this.compare(other.address, candidate.address)));
      if (!agrees) continue;
      this.given.push(candidate);
      return candidate.address;
    }
  }
}

/** @returns {{text: string, vectors: number}} the content of the file */
export function makeVectors() {
  const addresses = new Addresses();
  const keys = {
    treasury: addresses.next(),
    tokenAccount: addresses.next(),
    mint: addresses.next(),
    tokenProgram: TOKEN_PROGRAM_ADDRESS,
    decimals: DECIMALS,
    nonceAccount: addresses.next(),
    nonceValue: addresses.next(),
    wallet: addresses.next(),
    source: addresses.next(),
    sweepAmount: "123456789",
  };
  /** @type {Payee[]} */
  const payees = Array.from({ length: 56 }, (_, i) => ({ account: addresses.next(), amount: String(1_000_000n + BigInt(i) ** 9n) }));
  const table = {
    address: addresses.next(),
    addresses: [keys.mint, ...payees.map(({ account }) => account).reverse(), keys.tokenAccount, keys.source],
  };
  const joined = payees.slice(-9).map((payee, i) => (i % 2 === 0 ? payee : { ...payee, wallet: addresses.next() }));
  const cases = [...casesOf(payees), ...creatingCasesOf(joined)];
  const vectors = cases.map((each) => ({ ...each, message: kit.getBase64Decoder().decode(compile(each, keys, table)) }));
  return { text: JSON.stringify({ keys, table, budget: BUDGET, vectors }, null, 1) + "\n", vectors: vectors.length };
}

/**
 * @param {Payee[]} payees
 * @returns {Case[]}
 */
function casesOf(payees) {
  /** @type {Case[]} */
  const cases = [
    { name: "v1, 56 payees", version: 1, kind: "payout", payees, memo: TEXT },
    { name: "v0, 42 payees by lookup table", version: 0, kind: "payout", payees: payees.slice(14), memo: TEXT },
    { name: "legacy, 15 payees", version: "legacy", kind: "payout", payees: payees.slice(41), memo: TEXT },
  ];
  for (const version of /** @type {Version[]} */ ([1, 0, "legacy"])) {
    cases.push({ name: `${version}, cancel`, version, kind: "cancel" });
    cases.push({ name: `${version}, sweep`, version, kind: "sweep" });
  }
  return cases;
}

/**
 * @param {Payee[]} payees
 * @returns {Case[]}
 */
function creatingCasesOf(payees) {
  const few = payees.slice(0, 5);
  return [
    { name: "v1, 9 payees, 4 accounts created", version: 1, kind: "payout", payees, memo: TEXT },
    { name: "v0, 5 payees by lookup table, 2 accounts created", version: 0, kind: "payout", payees: few, memo: TEXT },
    { name: "legacy, 5 payees, 2 accounts created", version: "legacy", kind: "payout", payees: few, memo: TEXT },
  ];
}

/**
 * @param {Case} each
 * @param {any} keys
 * @param {{address: kit.Address, addresses: kit.Address[]}} table
 * @returns {Uint8Array} the message's bytes
 */
function compile({ version, kind, payees = [], memo }, keys, table) {
  /** @type {any} */
  let message = kit.createTransactionMessage({ version: /** @type {any} */ (version) });
  message = kit.setTransactionMessageFeePayer(keys.treasury, message);
  const nonce = { nonce: keys.nonceValue, nonceAccountAddress: keys.nonceAccount, nonceAuthorityAddress: keys.treasury };
  message = withBudget(kit.setTransactionMessageLifetimeUsingDurableNonce(/** @type {any} */ (nonce), message));
  /** @type {kit.Instruction[]} */
  const instructions = kind === "sweep" ? [transfer(keys, keys.source, keys.tokenAccount, keys.wallet, keys.sweepAmount)] : [];
  for (const { account, amount, wallet } of payees) {
    if (wallet) instructions.push(create(keys, account, wallet));
    instructions.push(transfer(keys, keys.tokenAccount, account, keys.treasury, amount));
  }
  if (memo) instructions.push({ programAddress: MEMO, data: new TextEncoder().encode(memo) });
  message = kit.appendTransactionMessageInstructions(instructions, message);
  if (version === 0) message = kit.compressTransactionMessageUsingAddressLookupTables(message, { [table.address]: table.addresses });
  const { messageBytes } = kit.compileTransaction(message);
  return new Uint8Array(payees.some(({ wallet }) => wallet) ? orderedByBytes(messageBytes) : messageBytes);
}

/**
 * The same message with the accounts that it spells out in the order of their bytes, among those that may do the same. The fee
 * payer stays first.
 *
 * @param {kit.ReadonlyUint8Array} bytes
 */
function orderedByBytes(bytes) {
  /** @type {any} */
  const message = kit.getCompiledTransactionMessageDecoder().decode(bytes);
  const { numSignerAccounts, numReadonlySignerAccounts, numReadonlyNonSignerAccounts } = message.header;
  /** @type {kit.Address[]} */
  const accounts = message.staticAccounts;
  const ends = [1, numSignerAccounts - numReadonlySignerAccounts, numSignerAccounts, accounts.length - numReadonlyNonSignerAccounts, accounts.length];
  const encoder = kit.getAddressEncoder();
  const order = ends.flatMap((end, i) => {
    const alike = accounts.slice(ends[i - 1] ?? 0, end);
    return alike.sort((a, b) => Buffer.compare(Buffer.from(encoder.encode(a)), Buffer.from(encoder.encode(b))));
  });
  /** @param {number} index */
  const place = (index) => (index < accounts.length ? order.indexOf(/** @type {kit.Address} */ (accounts[index])) : index); // others are looked up
  /** @param {number[]} [indices] */
  const places = (indices) => indices?.map(place);
  const moved = { ...message, staticAccounts: order };
  if (message.version === 1) {
    moved.instructionHeaders = message.instructionHeaders.map((/** @type {any} */ h) => ({ ...h, programAccountIndex: place(h.programAccountIndex) }));
    moved.instructionPayloads = message.instructionPayloads.map((/** @type {any} */ p) => ({ ...p, instructionAccountIndices: places(p.instructionAccountIndices) }));
  } else {
    moved.instructions = message.instructions.map((/** @type {any} */ i) => ({ ...i, programAddressIndex: place(i.programAddressIndex), accountIndices: places(i.accountIndices) }));
  }
  return kit.getCompiledTransactionMessageEncoder().encode(moved);
}

/** @param {any} message */
function withBudget(message) {
  const limited = kit.setTransactionMessageComputeUnitLimit(BUDGET.units, message);
  if (message.version === 1) {
    const paid = kit.setTransactionMessagePriorityFeeLamports(BigInt(BUDGET.priorityFee), limited);
    return kit.setTransactionMessageLoadedAccountsDataSizeLimit(BUDGET.loadedData, paid);
  }
  return kit.setTransactionMessageComputeUnitPrice(BigInt(Math.floor((BUDGET.priorityFee * 1_000_000) / BUDGET.units)), limited);
}

/**
 * @param {any} keys
 * @param {kit.Address} source
 * @param {kit.Address} destination
 * @param {kit.Address} authority
 * @param {string} amount
 * @returns {kit.Instruction}
 */
function transfer(keys, source, destination, authority, amount) {
  const signer = kit.createNoopSigner(authority);
  return getTransferCheckedInstruction({ source, mint: keys.mint, destination, authority: signer, amount: BigInt(amount), decimals: DECIMALS });
}

/**
 * @param {any} keys
 * @param {kit.Address} ata
 * @param {kit.Address} owner
 * @returns {kit.Instruction}
 */
function create(keys, ata, owner) {
  return getCreateAssociatedTokenIdempotentInstruction({ payer: kit.createNoopSigner(keys.treasury), ata, owner, mint: keys.mint });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  fs.mkdirSync(new URL(".", `file://${VECTORS}`), { recursive: true });
  fs.writeFileSync(VECTORS, makeVectors().text);
}
