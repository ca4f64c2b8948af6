/** State over restarts, kill -9 and damage. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { encodeBase58 } from "../lib/bytes.js";
import { Chain, publicKey } from "../lib/chain.js";
import { Journal } from "../lib/journal.js";
import { Ledger } from "../lib/ledger.js";
import { Vm } from "../lib/vm.js";
import { Server, eventually, memo, newAddress, temporaryState, transfer } from "./helpers.js";

/** @type {string[]} */
const states = [];
after(() => states.forEach((state) => fs.rmSync(state, { recursive: true, force: true })));

/** @returns {string} */
function newState() {
  const state = temporaryState();
  states.push(state);
  return state;
}

test("a stopped chain goes on where it was: accounts, history, nonces, blockhashes, genesis", async () => {
  const state = newState();
  const one = await Server.start(["--slot-ms", "50"], state);
  const payer = await one.fundedSigner();
  const nonce = await one.createNonce(payer);
  const to = await newAddress();
  const lifetime = await one.blockhash();
  const early = await one.sign(payer, [memo("signed before the restart")], { lifetime });
  const signature = await one.signAndSend(payer, [transfer(payer, to, 7_000_000n)]);
  const landed = await one.transaction(signature);
  const value = await one.nonceValue(nonce.address);
  const slot = await one.slot();
  assert.equal(await one.stop(), 0);

  const two = await Server.start(["--slot-ms", "50"], state);
  try {
    assert.equal(two.hello.genesisHash, one.hello.genesisHash);
    assert.equal((await two.slot()) > slot, true);
    assert.equal((await two.rpc.getBalance(to, { commitment: "processed" }).send()).value, 7_000_000n);
    assert.equal(await two.nonceValue(nonce.address), value);
    assert.deepEqual(await two.transaction(signature), landed);
    assert.equal((await two.rpc.getSignaturesForAddress(to, { commitment: "confirmed" }).send())[0].signature, signature);
    await two.send(early.wire);
    await two.signAndSend(payer, [memo("after")], {
      lifetime: { nonce: value, nonceAccountAddress: nonce.address, nonceAuthorityAddress: payer.address },
    });
    assert.notEqual(await two.nonceValue(nonce.address), value);
  } finally {
    await two.stop();
  }
});

test("kill -9 under load loses no acknowledged transaction and doubles none", async () => {
  const state = newState();
  let server = await Server.start(["--slot-ms", "50"], state);
  const payer = await server.fundedSigner();
  const to = await newAddress();
  /** @type {string[]} */
  const acknowledged = [];
  for (let round = 0; round < 3; round++) {
    const killed = server;
    const senders = Array.from({ length: 4 }, (_, sender) =>
      (async () => {
        for (let i = 0; ; i++) {
          const { wire } = await killed.sign(payer, [transfer(payer, to, 1_000_000n), memo(`${round}/${sender}/${i}`)]);
          acknowledged.push(await killed.send(wire, { skipPreflight: true }));
        }
      })().catch(() => "the server is gone"),
    );
    const before = acknowledged.length;
    await eventually("acknowledged transactions", async () => acknowledged.length >= before + 20);
    await killed.stop("SIGKILL");
    await Promise.all(senders);
    server = await Server.start(["--slot-ms", "50"], state);
  }
  try {
    const { value } = await server.rpc.getBalance(to, { commitment: "processed" }).send();
    const landed = Number(await server.rpc.getTransactionCount({ commitment: "processed" }).send()) - 1;
    assert.equal(new Set(acknowledged).size, acknowledged.length);
    for (let i = 0; i < acknowledged.length; i += 256) {
      const batch = acknowledged.slice(i, i + 256);
      const statuses = (await server.rpc.getSignatureStatuses(batch, { searchTransactionHistory: true }).send()).value;
      assert.deepEqual(statuses.map((/** @type {any} */ status) => status?.err), batch.map(() => null));
    }
    assert.equal(value, BigInt(landed) * 1_000_000n, "every landed transfer counts once");
    assert.equal(landed >= acknowledged.length, true);
  } finally {
    await server.stop();
  }
});

test("a torn last record is cut off; damage before it stops the start", async () => {
  const state = newState();
  const one = await Server.start([], state);
  const payer = await one.fundedSigner();
  await one.stop();
  const ledger = path.join(state, "ledger.jsonl");
  const whole = fs.readFileSync(ledger);
  fs.appendFileSync(ledger, '0badc0de {"k":"tx","slot":9,"wi');

  const two = await Server.start([], state);
  assert.equal((await two.rpc.getBalance(payer.address, { commitment: "processed" }).send()).value, 10_000_000_000n);
  await two.signAndSend(payer, [memo("after the cut")]);
  await two.stop();
  const three = await Server.start([], state);
  assert.equal(await three.rpc.getTransactionCount({ commitment: "processed" }).send(), 2n);
  await three.stop();

  const damaged = Buffer.from(whole);
  damaged[whole.indexOf("\n") + 20] ^= 1;
  fs.writeFileSync(ledger, damaged);
  await assert.rejects(Server.start([], state), /is damaged at byte/);
});

test("one folder has one server; the lock of a killed one is taken over", async () => {
  const state = newState();
  const one = await Server.start([], state);
  await assert.rejects(Server.start([], state), /is in use by process/);
  await one.stop("SIGKILL");
  const two = await Server.start([], state);
  await two.stop();
});

/** @param {string} state */
async function openChain(state) {
  const key = "4vJ9JU1bJJE96FWSJKvHsmmFADCg4gpZQff4P3bkLKi";
  const genesis = { genesisHash: key, faucetSeed: key, identity: key, createdAt: "" };
  const account = { lamports: 10n ** 18n, owner: "11111111111111111111111111111111", executable: false, rentEpoch: 0n, data: new Uint8Array() };
  const chain = new Chain({ vm: new Vm({ lamportsPerByte: 696 }), journal: new Journal(state), ledger: new Ledger(100), slotMs: 10, finalizeSlots: 4 });
  await chain.start(genesis, () => [[encodeBase58(publicKey(key)), account]]);
  return chain;
}

test("the ledger keeps its limit, and the journal's rewrite keeps the chain", async () => {
  const state = newState();
  const chain = await openChain(state);
  const to = await newAddress();
  for (let i = 0; i < 500; i++) {
    chain.airdrop(to, 1_000_000n + BigInt(i));
    chain.tick();
  }
  assert.equal(chain.ledger.total, 500);
  assert.equal(chain.ledger.entries.length <= 301, true, `${chain.ledger.entries.length} entries are kept`);
  while (chain.journal.flushing) await chain.journal.flushing;
  const [tip, size, root] = [chain.vm.balance(to), chain.journal.size, chain.slotAt("finalized")];
  await chain.compact();
  assert.equal(chain.journal.size < size, true);
  await chain.journal.close();

  const again = await openChain(state);
  assert.equal(again.slot, chain.slot + 1);
  assert.equal(again.vm.balance(to), tip);
  assert.equal(again.ledger.total, 500);
  assert.equal(again.ledger.firstSlot, chain.ledger.firstSlot);
  // The new process is one slot further, and so is its view of what is final.
  const finalized = again.accountAt(to, again.slotAt("finalized"))?.lamports;
  assert.equal(finalized, chain.accountAt(to, root + 1)?.lamports);
  assert.notEqual(finalized, tip);
  await again.journal.close();
});

test("the chain goes on while its journal is rewritten, and loses nothing of it", async () => {
  const state = newState();
  const chain = await openChain(state);
  const wallets = [];
  for (let i = 0; i < 200; i++) {
    wallets.push(await newAddress());
    chain.airdrop(wallets[i], 1_000_000n);
    if (i % 10 === 0) chain.tick();
  }
  let [done, meanwhile] = [false, 0];
  // The accounts of a payout run are enough that a rewrite takes many turns.
  for (let i = 0; i < 20_000; i++) chain.written.add(encodeBase58(createHash("sha256").update(`${i}`).digest()));
  const rewritten = chain.compact().then(() => {
    done = true;
  });
  while (!done) {
    for (let i = 0; i < 3; i++) chain.airdrop(wallets[meanwhile++ % wallets.length], BigInt(1_000_000 + meanwhile));
    chain.tick();
    await new Promise((next) => setImmediate(next));
  }
  await rewritten;
  assert.ok(meanwhile > 10 * 3, `${meanwhile} transactions came meanwhile`);
  const slot = chain.slot;
  while (chain.journal.flushing) await chain.journal.flushing;
  await chain.journal.close();

  const again = await openChain(state);
  assert.equal(again.slot, slot + 1);
  assert.equal(again.ledger.total, wallets.length + meanwhile);
  for (const wallet of wallets) {
    assert.equal(again.vm.balance(wallet), chain.vm.balance(wallet));
    for (const at of [again.slotAt("finalized"), again.slotAt("confirmed")]) {
      assert.equal(again.accountAt(wallet, at)?.lamports, chain.accountAt(wallet, at)?.lamports);
    }
  }
  await again.journal.close();
});

test("a rewrite that is given up leaves the journal as it was", async () => {
  const state = newState();
  const chain = await openChain(state);
  const to = await newAddress();
  chain.airdrop(to, 1_000_000n);
  for (let i = 0; i < 20_000; i++) chain.written.add(encodeBase58(createHash("sha256").update(`${i}`).digest()));
  while (chain.journal.flushing) await chain.journal.flushing;
  const rewritten = chain.compact();
  await new Promise((next) => setImmediate(next));
  await chain.journal.close();
  await rewritten;
  const again = await openChain(state);
  assert.equal(again.vm.balance(to), 1_000_000n);
  await again.journal.close();
});
