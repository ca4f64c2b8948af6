/** Sizes (gap 3), rent (gap 6), versions, lookup tables, errors and the HTTP surface. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import * as kit from "@solana/kit";
import { getCreateAccountInstruction } from "@solana-program/system";
import { Server, failure, memo, newAddress, transfer } from "./helpers.js";

/** @type {Server} */
let server;
/** @type {kit.KeyPairSigner} */
let payer;

const SYSTEM = kit.address("11111111111111111111111111111111");
const V1_BUDGET = { computeUnitLimit: 200_000, loadedAccountsDataSizeLimit: 1_000_000, priorityFeeLamports: 800n };

before(async () => {
  server = await Server.start(["--slot-ms", "60"]);
  payer = await server.fundedSigner();
});
after(() => server.remove());

/** @param {any} message */
const withBudget = (message) => kit.setTransactionMessageConfig(V1_BUDGET, message);

/**
 * @param {Uint8Array} bytes
 * @returns {string}
 */
const base64 = (bytes) => Buffer.from(bytes).toString("base64");

/**
 * A signed transaction of exactly `size` bytes, filled up by a memo.
 * @param {"legacy" | 0 | 1} version
 * @param {number} size
 */
async function ofSize(version, size) {
  const change = version === 1 ? withBudget : undefined;
  const build = (/** @type {number} */ length) => server.sign(payer, [memo("m".repeat(length))], { version, change });
  const probe = await build(200);
  const exact = await build(200 + size - probe.bytes.length);
  assert.equal(exact.bytes.length, size);
  return exact;
}

test("legacy and v0 transactions may have 1,232 bytes and not one more", async () => {
  for (const version of /** @type {const} */ (["legacy", 0])) {
    await server.send((await ofSize(version, 1232)).wire);
    const { bytes } = await ofSize(version, 1231);
    const { error } = await server.call("sendTransaction", [base64(Buffer.concat([bytes, Buffer.alloc(2)])), { encoding: "base64" }]);
    assert.equal(error.code, -32602);
    assert.match(error.message, /too large: 1233 bytes \(max: 1232 bytes\)/);
  }
});

test("a v1 transaction larger than 1,232 bytes lands; one over 4,096 is refused", async () => {
  const { wire, signature } = await ofSize(1, 2000);
  await server.send(wire);
  const landed = await server.transaction(signature);
  assert.equal(landed.version, 1);
  assert.equal(landed.meta.err, null);
  assert.equal(landed.meta.fee, 5_800n);
  assert.equal(landed.transaction.message.transactionConfig.priorityFee, 800n);
  const { bytes } = await ofSize(1, 4096);
  const refused = await server.call("sendTransaction", [base64(Buffer.concat([bytes, Buffer.alloc(1)])), { encoding: "base64" }]);
  assert.equal(refused.error.code, -32602);
  const accepted = await server.call("simulateTransaction", [base64(bytes), { encoding: "base64", sigVerify: true }]);
  assert.notEqual(accepted.result, undefined);
});

test("a v1 transaction without a compute budget has none", async () => {
  const { wire } = await server.sign(payer, [memo("unbudgeted")], { version: 1 });
  const { error } = await server.call("sendTransaction", [wire, { encoding: "base64" }]);
  assert.equal(error.code, -32002);
  assert.notEqual(error.data.err, null);
});

test("the rent figure of the RPC is the one that the VM enforces", async () => {
  const space = 165n;
  const minimum = await server.rpc.getMinimumBalanceForRentExemption(space).send();
  assert.equal(minimum, 203_928n);
  const create = async (/** @type {bigint} */ lamports) => {
    const newAccount = await kit.generateKeyPairSigner();
    return server.sign(payer, [getCreateAccountInstruction({ payer, newAccount, lamports, space, programAddress: SYSTEM })]);
  };
  await server.send((await create(minimum)).wire);
  const short = await server.call("sendTransaction", [(await create(minimum - 1n)).wire, { encoding: "base64" }]);
  assert.deepEqual(short.error.data.err, { InsufficientFundsForRent: { account_index: 1 } });

  const old = await Server.start(["--lamports-per-byte", "6960"]);
  try {
    assert.equal(await old.rpc.getMinimumBalanceForRentExemption(space).send(), 2_039_280n);
  } finally {
    await old.remove();
  }
});

test("a token account of the lower rent works", async () => {
  const mint = await server.createMint(payer);
  const account = await server.tokenAccount(payer, mint.address, payer.address, 5n);
  const { value } = await server.rpc.getBalance(account, { commitment: "processed" }).send();
  assert.equal(value, 203_928n);
});

test("a v0 transaction loads addresses from a lookup table once a slot has passed", async () => {
  const to = await newAddress();
  const table = await createTable([to]);
  const lookups = { [table]: [to] };
  await server.nextSlot();
  const change = (/** @type {any} */ message) => kit.compressTransactionMessageUsingAddressLookupTables(message, lookups);
  const signature = await server.signAndSend(payer, [transfer(payer, to, 2_000_000n)], { change });
  const landed = await server.transaction(signature);
  assert.deepEqual(landed.meta.loadedAddresses, { writable: [to], readonly: [] });
  assert.equal(landed.transaction.message.addressTableLookups.length, 1);
  const at = landed.transaction.message.accountKeys.length;
  assert.equal(landed.meta.preBalances[at], 0n);
  assert.equal(landed.meta.postBalances[at], 2_000_000n);
  const history = await server.rpc.getSignaturesForAddress(to, { commitment: "confirmed" }).send();
  assert.deepEqual(history.map((/** @type {any} */ entry) => entry.signature), [signature]);

  const refused = await server.call("getTransaction", [signature, { commitment: "confirmed", encoding: "base64" }]);
  assert.equal(refused.error.code, -32015);
});

test("readers that do not know v1 get -32015 for the transaction and for its whole block", async () => {
  const signature = await server.signAndSend(payer, [memo("v1")], { version: 1, change: withBudget });
  const { slot } = await server.transaction(signature);
  for (const extra of [{}, { maxSupportedTransactionVersion: 0 }]) {
    const config = { commitment: "confirmed", encoding: "base64", ...extra };
    assert.equal((await server.call("getTransaction", [signature, config])).error.code, -32015);
    assert.equal((await server.call("getBlock", [Number(slot), config])).error.code, -32015);
  }
  const block = await server.rpc.getBlock(slot, { commitment: "confirmed", encoding: "base64", maxSupportedTransactionVersion: 1 }).send();
  assert.ok(block.transactions.some((/** @type {any} */ entry) => entry.version === 1));
});

test("a wrong signature is refused, or dropped without preflight", async () => {
  const { bytes, signature } = await server.sign(payer, [memo("forged")]);
  bytes[bytes.length - 3] ^= 1; // inside the memo
  const wire = base64(bytes);
  assert.equal((await server.call("sendTransaction", [wire, { encoding: "base64" }])).error.code, -32003);
  assert.equal((await server.call("sendTransaction", [wire, { encoding: "base64", skipPreflight: true }])).result, signature);
  await server.nextSlot();
  const { value } = await server.rpc.getSignatureStatuses([signature]).send();
  assert.equal(value[0], null);
});

test("a second send is AlreadyProcessed in preflight, answers the signature without it, and runs once", async () => {
  const to = await newAddress();
  const { wire, signature } = await server.sign(payer, [transfer(payer, to, 1_000_000n)]);
  await server.send(wire);
  const again = await server.call("sendTransaction", [wire, { encoding: "base64" }]);
  assert.equal(again.error.code, -32002);
  assert.equal(again.error.message, "Transaction simulation failed: This transaction has already been processed");
  assert.equal(await server.send(wire, { skipPreflight: true }), signature);
  assert.equal((await server.rpc.getBalance(to, { commitment: "processed" }).send()).value, 1_000_000n);
});

test("a preflight failure carries the logs and the error", async () => {
  const { wire } = await server.sign(payer, [transfer(payer, await newAddress(), 10n ** 15n)]);
  const { error } = await server.call("sendTransaction", [wire, { encoding: "base64" }]);
  assert.equal(error.code, -32002);
  assert.equal(error.message, "Transaction simulation failed: Error processing Instruction 0: custom program error: 0x1");
  assert.deepEqual(error.data.err, { InstructionError: [0, { Custom: 1 }] });
  assert.ok(error.data.logs.some((/** @type {string} */ line) => line.includes("insufficient lamports")));
  const caught = await failure(server.send(wire));
  assert.equal(kit.isSolanaError(caught, kit.SOLANA_ERROR__JSON_RPC__SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE), true);
});

test("a transaction that names a program that does not exist pays its fee", async () => {
  const [{ value: funds }, program] = [await server.rpc.getBalance(payer.address, { commitment: "processed" }).send(), await newAddress()];
  const { wire, signature } = await server.sign(payer, [{ programAddress: program, data: new Uint8Array() }]);
  await server.send(wire, { skipPreflight: true });
  const status = await server.reaches(signature);
  assert.equal(status.err, "ProgramAccountNotFound");
  assert.equal((await server.rpc.getBalance(payer.address, { commitment: "processed" }).send()).value, funds - 5_000n);
});

test("getFeeForMessage is what is charged", async () => {
  const price = { programAddress: kit.address("ComputeBudget111111111111111111111111111111"), data: Uint8Array.of(3, 64, 66, 15, 0, 0, 0, 0, 0) };
  for (const [version, instructions, change] of /** @type {const} */ ([
    [0, [memo("plain")], undefined],
    [0, [price, memo("priced")], undefined],
    ["legacy", [price, transfer(payer, await newAddress(), 1_000_000n)], undefined],
    [1, [memo("v1")], withBudget],
  ])) {
    const { wire, bytes, signature } = await server.sign(payer, [...instructions], { version, change });
    const message = version === 1 ? bytes.subarray(0, bytes.length - 64) : bytes.subarray(65);
    const { result } = await server.call("getFeeForMessage", [base64(message), { commitment: "processed" }]);
    await server.send(wire);
    const landed = await server.transaction(signature);
    assert.equal(BigInt(result.value), landed.meta.fee, `version ${version}`);
  }
});

test("minContextSlot ahead of the chain is -32016", async () => {
  for (const call of [
    server.call("getBalance", [payer.address, { minContextSlot: 10_000_000 }]),
    server.call("getSlot", [{ minContextSlot: 10_000_000 }]),
    server.call("getSignaturesForAddress", [payer.address, { minContextSlot: 10_000_000 }]),
    server.call("sendTransaction", [(await server.sign(payer, [memo("early")])).wire, { encoding: "base64", minContextSlot: 10_000_000 }]),
  ]) {
    const { error } = await call;
    assert.equal(error.code, -32016);
    assert.equal(typeof error.data.contextSlot, "number");
  }
});

test("malformed requests get JSON-RPC's codes", async () => {
  assert.equal((await server.post("{")).error.code, -32700);
  assert.equal((await server.post("{}")).error.code, -32600);
  assert.equal((await server.post("[]")).error.code, -32600);
  assert.equal((await server.call("getNothing")).error.code, -32601);
  assert.equal((await server.call("toString")).error.code, -32601);
  for (const [method, params] of /** @type {[string, unknown[]][]} */ ([
    ["getBalance", ["not base58 0OIl"]],
    ["getBalance", ["abc"]],
    ["getBalance", []],
    ["getBalance", [payer.address, { commitment: "max" }]],
    ["getBalance", [payer.address, 7]],
    ["getAccountInfo", [payer.address, { encoding: "base64+zstd", commitment: "processed" }]],
    ["getTransaction", ["1".repeat(64), { commitment: "processed" }]],
    ["getSignaturesForAddress", [payer.address, { limit: 1001 }]],
    ["getMinimumBalanceForRentExemption", [-1]],
    ["sendTransaction", ["AAAA", { encoding: "base64" }]],
    ["sendTransaction", ["@@@@", { encoding: "base64" }]],
    ["sendTransaction", ["AAAA", { encoding: "hex" }]],
    ["getTokenAccountBalance", [payer.address]],
    ["getProgramAccounts", [payer.address, { filters: [{}] }]],
  ])) {
    const { error } = await server.call(method, params);
    assert.equal(error?.code, -32602, `${method} ${JSON.stringify(params)}`);
  }
});

test("blocks that are not there yet are -32004, processed history is refused", async () => {
  assert.equal((await server.call("getBlock", [9_999_999])).error.code, -32004);
  assert.equal((await server.call("getBlockTime", [9_999_999])).error.code, -32004);
  assert.equal((await server.call("getBlock", [0, { commitment: "processed" }])).error.code, -32602);
  const missing = await server.call("getTransaction", [kit.getBase58Decoder().decode(new Uint8Array(64).fill(7)), { maxSupportedTransactionVersion: 1 }]);
  assert.equal(missing.result, null);
});

test("batches are answered in order, HTTP has health, CORS and a body limit", async () => {
  const batch = [{ jsonrpc: "2.0", id: "a", method: "getHealth" }, { jsonrpc: "2.0", id: "b", method: "getNothing" }, { jsonrpc: "2.0", method: "getHealth" }];
  const answers = await server.post(JSON.stringify(batch));
  assert.deepEqual(answers.map((/** @type {any} */ answer) => answer.id), ["a", "b"]);
  const many = Array.from({ length: 101 }, () => batch[0]);
  assert.equal((await server.post(JSON.stringify(many))).error.code, -32600);

  const health = await fetch(`${server.hello.rpc}/health`);
  assert.equal(await health.text(), "ok");
  const preflight = await fetch(server.hello.rpc, { method: "OPTIONS" });
  assert.equal(preflight.status, 204);
  assert.equal(preflight.headers.get("access-control-allow-origin"), "*");
  assert.equal((await fetch(server.hello.rpc)).status, 405);
  const large = await fetch(server.hello.rpc, { method: "POST", body: "x".repeat(1024 * 1024 + 1) });
  assert.equal(large.status, 413);
});

test("simulation changes nothing and can replace the blockhash", async () => {
  const to = await newAddress();
  const stale = { blockhash: await newAddress(), lastValidBlockHeight: 1n };
  const { wire } = await server.sign(payer, [transfer(payer, to, 3_000_000n)], { lifetime: stale });
  const refused = await server.rpc.simulateTransaction(wire, { encoding: "base64", commitment: "processed" }).send();
  assert.equal(refused.value.err, "BlockhashNotFound");
  const { value } = await server.rpc
    .simulateTransaction(wire, { encoding: "base64", commitment: "processed", replaceRecentBlockhash: true, accounts: { addresses: [to], encoding: "base64" } })
    .send();
  assert.equal(value.err, null);
  assert.equal(value.fee, 5_000n);
  assert.equal(value.accounts[0].lamports, 3_000_000n);
  assert.equal(typeof value.replacementBlockhash.blockhash, "string");
  assert.equal((await server.rpc.getBalance(to, { commitment: "processed" }).send()).value, 0n);
});

/**
 * Creates a lookup table holding `addresses`.
 * @param {kit.Address[]} addresses
 * @returns {Promise<kit.Address>}
 */
async function createTable(addresses) {
  const program = kit.address("AddressLookupTab1e1111111111111111111111111");
  const recentSlot = (await server.slot()) - 1n;
  const seeds = [kit.getAddressEncoder().encode(payer.address), kit.getU64Encoder().encode(recentSlot)];
  const [table, bump] = await kit.getProgramDerivedAddress({ programAddress: program, seeds });
  const accounts = [
    { address: table, role: kit.AccountRole.WRITABLE },
    /** @type {any} */ ({ address: payer.address, role: kit.AccountRole.READONLY_SIGNER, signer: payer }),
    /** @type {any} */ ({ address: payer.address, role: kit.AccountRole.WRITABLE_SIGNER, signer: payer }),
    { address: SYSTEM, role: kit.AccountRole.READONLY },
  ];
  const create = Buffer.alloc(13);
  create.writeBigUInt64LE(recentSlot, 4);
  create[12] = bump;
  const extend = Buffer.alloc(12);
  extend.writeUInt32LE(2, 0);
  extend.writeBigUInt64LE(BigInt(addresses.length), 4);
  const keys = addresses.map((address) => new Uint8Array(kit.getAddressEncoder().encode(address)));
  await server.signAndSend(payer, [
    { programAddress: program, accounts, data: new Uint8Array(create) },
    { programAddress: program, accounts, data: new Uint8Array(Buffer.concat([extend, ...keys])) },
  ]);
  return table;
}
