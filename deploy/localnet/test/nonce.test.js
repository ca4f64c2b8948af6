/** Durable nonces (gaps 1 and 2) and recent blockhashes (gap 4). */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";
import * as kit from "@solana/kit";
import { Server, failure, memo, newAddress, transfer } from "./helpers.js";

/** @type {Server} */
let server;
/** @type {kit.KeyPairSigner} */
let payer;
/** @type {Server} */
let quick;

before(async () => {
  server = await Server.start(["--slot-ms", "400"]);
  quick = await Server.start(["--slot-ms", "10"]);
  payer = await server.fundedSigner();
});
after(async () => {
  await server.remove();
  await quick.remove();
});

/**
 * @param {kit.KeyPairSigner} nonce
 * @returns {Promise<any>} a lifetime of the nonce's current value
 */
async function lifetimeOf(nonce) {
  return { nonce: await server.nonceValue(nonce.address), nonceAccountAddress: nonce.address, nonceAuthorityAddress: payer.address };
}

/** @returns {Promise<bigint>} */
async function balance() {
  return (await server.rpc.getBalance(payer.address, { commitment: "processed" }).send()).value;
}

test("a nonce transaction lands, changes the nonce, and cannot be replayed", async () => {
  const nonce = await server.createNonce(payer);
  await server.nextSlot();
  const lifetime = await lifetimeOf(nonce);
  const to = await newAddress();
  const { wire, signature } = await server.sign(payer, [transfer(payer, to, 1_000_000n)], { lifetime });
  assert.equal(await server.send(wire), signature);
  assert.notEqual(await server.nonceValue(nonce.address), lifetime.nonce);
  await server.nextSlot();
  const replay = await failure(server.send(wire));
  assert.match(String(replay.cause), /Blockhash not found|blockhash/i);
  await server.send(wire, { skipPreflight: true });
  assert.equal((await server.rpc.getBalance(to, { commitment: "processed" }).send()).value, 1_000_000n);
});

test("a failed nonce transaction still advances the nonce and pays the fee", async () => {
  const nonce = await server.createNonce(payer);
  await server.nextSlot();
  const lifetime = await lifetimeOf(nonce);
  const funds = await balance();
  const { wire, signature } = await server.sign(payer, [transfer(payer, await newAddress(), 10n ** 15n)], { lifetime });
  assert.equal(await server.send(wire, { skipPreflight: true }), signature);

  const status = await server.reaches(signature);
  assert.deepEqual(status.err, { InstructionError: [1n, { Custom: 1n }] });
  assert.notEqual(await server.nonceValue(nonce.address), lifetime.nonce);
  assert.equal(await balance(), funds - 5_000n);
  const landed = await server.transaction(signature);
  assert.equal(landed.meta.fee, 5_000n);

  await server.nextSlot();
  await server.send(wire, { skipPreflight: true });
  assert.equal(await balance(), funds - 5_000n, "the failed transaction was charged twice");
});

test("preflight refuses a transaction that would fail, and leaves its nonce", async () => {
  const nonce = await server.createNonce(payer);
  await server.nextSlot();
  const lifetime = await lifetimeOf(nonce);
  const { wire } = await server.sign(payer, [transfer(payer, await newAddress(), 10n ** 15n)], { lifetime });
  await failure(server.send(wire));
  assert.equal(await server.nonceValue(nonce.address), lifetime.nonce);
});

test("a transaction rejected before execution leaves its nonce", async () => {
  const poor = await kit.generateKeyPairSigner();
  const nonce = await server.createNonce(payer);
  await server.nextSlot();
  const lifetime = await lifetimeOf(nonce);
  const { wire, signature } = await server.sign(poor, [memo("no funds")], { lifetime: { ...lifetime, nonceAuthorityAddress: payer.address }, change: signers(payer) });
  await server.send(wire, { skipPreflight: true });
  assert.equal(await server.nonceValue(nonce.address), lifetime.nonce);
  assert.equal((await server.rpc.getSignatureStatuses([signature], { searchTransactionHistory: true }).send()).value[0], null);
});

test("the next nonce comes from the block, and a second advance in the same slot is refused", async () => {
  const [first, second] = [await server.createNonce(payer), await server.createNonce(payer)];
  const { blockhash, nextA, nextB, again, refused } = await server.withinOneSlot(async () => {
    const [a, b] = [await lifetimeOf(first), await lifetimeOf(second)];
    await server.signAndSend(payer, [memo("a")], { lifetime: a });
    await server.signAndSend(payer, [memo("b")], { lifetime: b });
    const [nextA, nextB] = [await lifetimeOf(first), await lifetimeOf(second)];
    const again = await server.sign(payer, [memo("again")], { lifetime: nextA });
    const refused = await server.call("sendTransaction", [again.wire, { encoding: "base64" }]);
    return { ...(await server.blockhash()), nextA, nextB, again, refused };
  });

  assert.equal(nextA.nonce, nextB.nonce, "nonces advanced in one slot must be equal");
  const value = createHash("sha256").update("DURABLE_NONCE").update(new Uint8Array(kit.getBase58Encoder().encode(blockhash))).digest();
  assert.equal(nextA.nonce, kit.getBase58Decoder().decode(value));
  assert.equal(refused.error.code, -32002);
  assert.equal(refused.error.data.err, "BlockhashNotFound");

  await server.nextSlot();
  await server.send(again.wire);
  assert.notEqual(await server.nonceValue(first.address), nextA.nonce);
});

test("advancing a nonce in the slot of its last advance fails inside an ordinary transaction too", async () => {
  const sent = await server.withinOneSlot(async () => {
    const nonce = await server.createNonce(payer);
    const { wire } = await server.sign(payer, [advanceInstruction(nonce.address, payer)]);
    return server.call("sendTransaction", [wire, { encoding: "base64" }]);
  });
  assert.deepEqual(sent.error?.data.err, { InstructionError: [0, { Custom: 7 }] }, "NonceBlockhashNotExpired");
});

test("150 blockhashes are recent, the one before them is not found", async () => {
  const rich = await quick.fundedSigner();
  const old = await quick.blockhash();
  const { wire: early } = await quick.sign(rich, [memo("early")], { lifetime: old });
  const { wire: late } = await quick.sign(rich, [memo("late")], { lifetime: old });
  await quick.send(early);
  const height = async () => quick.rpc.getBlockHeight({ commitment: "processed" }).send();
  while ((await height()) < old.lastValidBlockHeight - 20n) await quick.nextSlot();
  assert.equal((await quick.rpc.isBlockhashValid(old.blockhash, { commitment: "processed" }).send()).value, true);
  while ((await height()) <= old.lastValidBlockHeight) await quick.nextSlot();
  assert.equal((await quick.rpc.isBlockhashValid(old.blockhash, { commitment: "processed" }).send()).value, false);
  const refused = await quick.call("sendTransaction", [late, { encoding: "base64" }]);
  assert.equal(refused.error.code, -32002);
  assert.equal(refused.error.data.err, "BlockhashNotFound");
  const never = await quick.call("isBlockhashValid", [await newAddress(), { commitment: "processed" }]);
  assert.equal(never.result.value, false);
});

/**
 * The nonce's authority signs beside the fee payer.
 * @param {kit.KeyPairSigner} authority
 * @returns {(message: any) => any}
 */
function signers(authority) {
  return (message) => kit.addSignersToTransactionMessage([authority], message);
}

/**
 * @param {kit.Address} nonce
 * @param {kit.KeyPairSigner} authority
 * @returns {kit.Instruction}
 */
function advanceInstruction(nonce, authority) {
  return {
    programAddress: kit.address("11111111111111111111111111111111"),
    accounts: [
      { address: nonce, role: kit.AccountRole.WRITABLE },
      { address: kit.address("SysvarRecentB1ockHashes11111111111111111111"), role: kit.AccountRole.READONLY },
      /** @type {any} */ ({ address: authority.address, role: kit.AccountRole.READONLY_SIGNER, signer: authority }),
    ],
    data: new Uint8Array([4, 0, 0, 0]),
  };
}
