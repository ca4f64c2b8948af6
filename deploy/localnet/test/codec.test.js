/** The gate in front of the VM: what the parser accepts must never bring the process down. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import * as kit from "@solana/kit";
import { DecodeError, decodeBase58, encodeBase58 } from "../lib/bytes.js";
import { stringify } from "../lib/json.js";
import { tokenAmount } from "../lib/programs.js";
import { parseTransaction, verifySignatures } from "../lib/transaction.js";
import { Vm } from "../lib/vm.js";
import { Server, memo, newAddress, transfer } from "./helpers.js";

const MUTATIONS = 6_000;

/** @type {Server} */
let server;
before(async () => {
  server = await Server.start();
});
after(() => server.remove());

/**
 * Repeatable pseudo-random numbers (mulberry32).
 * @param {number} seed
 * @returns {(below: number) => number}
 */
function random(seed) {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** @returns {Promise<Uint8Array[]>} one signed transaction of each version */
async function samples() {
  const payer = await server.fundedSigner();
  const instructions = [transfer(payer, await newAddress(), 1_000_000n), memo("hello")];
  const budget = (/** @type {any} */ message) => kit.setTransactionMessageConfig({ computeUnitLimit: 1000, loadedAccountsDataSizeLimit: 1000, heapSize: 65_536 }, message);
  const signed = [
    await server.sign(payer, instructions, { version: "legacy" }),
    await server.sign(payer, instructions, { version: 0 }),
    await server.sign(payer, instructions, { version: 1, change: budget }),
  ];
  return signed.map(({ bytes }) => bytes);
}

test("base58 agrees with kit's, leading zeros too", () => {
  const next = random(1);
  for (let i = 0; i < 500; i++) {
    const bytes = Uint8Array.from({ length: next(70) }, () => (next(4) === 0 ? 0 : next(256)));
    const text = kit.getBase58Decoder().decode(bytes);
    assert.equal(encodeBase58(bytes), text);
    assert.deepEqual(decodeBase58(text), bytes);
  }
  assert.throws(() => decodeBase58("0"), DecodeError);
});

test("signed transactions of every version parse and verify", async () => {
  for (const bytes of await samples()) {
    const transaction = parseTransaction(bytes);
    assert.equal(verifySignatures(transaction), true);
    assert.equal(transaction.message.instructions.length, 2);
  }
});

test("whatever the parser accepts, the VM answers", async () => {
  const vm = new Vm({ lamportsPerByte: 696 });
  const next = random(2);
  const originals = await samples();
  let accepted = 0;
  for (let i = 0; i < MUTATIONS; i++) {
    let bytes = originals[i % originals.length].slice();
    for (let changes = 1 + next(3); changes > 0; changes--) {
      const kind = next(4);
      // Most of a transaction is keys and signatures; the structure is near both ends.
      const at = next(2) === 0 ? next(bytes.length) : kind < 2 ? next(Math.min(80, bytes.length)) : bytes.length - 1 - next(Math.min(80, bytes.length));
      if (kind === 0) bytes[at] = next(256);
      if (kind === 1) bytes[at] ^= 1 << next(8);
      if (kind === 2) bytes = bytes.slice(0, at);
      if (kind === 3) bytes = Uint8Array.from([...bytes.slice(0, at), next(256), ...bytes.slice(at)]);
      if (bytes.length === 0) break;
    }
    try {
      const { wire } = parseTransaction(bytes);
      accepted++;
      vm.simulate(wire);
    } catch (err) {
      if (!(err instanceof DecodeError)) throw err;
    }
  }
  assert.equal(accepted > MUTATIONS / 10, true, `only ${accepted} mutations reached the VM`);
});

test("JSON keeps every digit of a u64", () => {
  assert.equal(stringify({ rentEpoch: 18_446_744_073_709_551_615n, gone: undefined, list: [1n, null, "a\n"] }), '{"rentEpoch":18446744073709551615,"list":[1,null,"a\\n"]}');
});

test("token amounts are exact in text", () => {
  assert.deepEqual(tokenAmount(1n, 6), { amount: "1", decimals: 6, uiAmount: 0.000001, uiAmountString: "0.000001" });
  assert.equal(tokenAmount(18_446_744_073_709_551_615n, 9).uiAmountString, "18446744073.709551615");
  assert.equal(tokenAmount(5n, 0).uiAmountString, "5");
});
