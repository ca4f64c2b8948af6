/** Commitment levels, address history, meta (gap 5), account reads and subscriptions. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import * as kit from "@solana/kit";
import { TOKEN_PROGRAM_ADDRESS, getTransferCheckedInstruction } from "@solana-program/token";
import { Server, eventually, memo, newAddress, transfer } from "./helpers.js";

const TIMEOUT_MS = 30_000;

/** @type {Server} */
let server;
/** @type {kit.KeyPairSigner} */
let payer;

before(async () => {
  server = await Server.start(["--slot-ms", "600", "--finalize-slots", "4"]);
  payer = await server.fundedSigner();
});
after(() => server.remove());

/**
 * @param {string} address
 * @param {object} [config]
 * @returns {Promise<string[]>} signatures, newest first
 */
async function history(address, config = {}) {
  const found = await server.rpc.getSignaturesForAddress(address, { commitment: "confirmed", ...config }).send();
  return found.map((/** @type {any} */ entry) => entry.signature);
}

/**
 * @param {AsyncIterable<any>} notices
 * @returns {Promise<any>} the first
 */
async function first(notices) {
  for await (const notice of notices) return notice;
  throw new Error("the subscription ended");
}

test("a transaction is processed at once, then confirmed, then finalized, and reads follow", async () => {
  const to = await newAddress();
  const read = async (/** @type {string} */ commitment) => (await server.rpc.getBalance(to, { commitment }).send()).value;
  const { signature, levels, balances } = await server.withinOneSlot(async () => {
    const signature = await server.signAndSend(payer, [transfer(payer, to, 1_000_000n)]);
    const balances = [await read("processed"), await read("confirmed"), await read("finalized")];
    const { value } = await server.rpc.getSignatureStatuses([signature]).send();
    return { signature, levels: [value[0].confirmationStatus], balances };
  });
  assert.deepEqual(levels, ["processed"]);
  assert.equal(balances[0] > balances[1], true, "confirmed reads must not see the slot that is being made");
  const confirmed = await server.reaches(signature, "confirmed");
  assert.notEqual(confirmed.confirmations, null);
  const finalized = await server.reaches(signature, "finalized");
  assert.equal(finalized.confirmations, null);
  const slot = await server.rpc.getSlot({ commitment: "finalized" }).send();
  assert.equal(slot >= finalized.slot, true);
  assert.equal(await read("finalized"), await read("processed"));
});

test("finalized lags by the configured slots", async () => {
  const { tip, root } = await server.withinOneSlot(async () => ({
    tip: await server.slot(),
    root: await server.rpc.getSlot({ commitment: "finalized" }).send(),
  }));
  assert.equal(tip - root, 4n);
});

test("meta has token balances, inner instructions, logs and units", async () => {
  const mint = await server.createMint(payer);
  const owner = await newAddress();
  const from = await server.tokenAccount(payer, mint.address, payer.address, 1_000_000n);
  const to = await server.tokenAccount(payer, mint.address, owner, 0n);
  const signature = await server.signAndSend(payer, [
    getTransferCheckedInstruction({ source: from, mint: mint.address, destination: to, authority: payer, amount: 250_000n, decimals: 6 }),
    memo("invoice 7"),
  ]);
  const { meta, transaction, slot, blockTime } = await server.transaction(signature);
  const keys = transaction.message.accountKeys;
  const amounts = (/** @type {any[]} */ list) => Object.fromEntries(list.map((b) => [keys[b.accountIndex], b.uiTokenAmount.amount]));
  assert.deepEqual(amounts(meta.preTokenBalances), { [from]: "1000000", [to]: "0" });
  assert.deepEqual(amounts(meta.postTokenBalances), { [from]: "750000", [to]: "250000" });
  const received = meta.postTokenBalances.find((/** @type {any} */ b) => keys[b.accountIndex] === to);
  assert.equal(received.owner, owner);
  assert.equal(received.mint, mint.address);
  assert.equal(received.programId, TOKEN_PROGRAM_ADDRESS);
  assert.equal(received.uiTokenAmount.uiAmountString, "0.25");
  assert.equal(meta.computeUnitsConsumed > 0n, true);
  assert.ok(meta.logMessages.some((/** @type {string} */ line) => line.includes("Memo (len 9)")));
  assert.equal(meta.preBalances.length, keys.length);
  assert.equal(Math.abs(Number(blockTime) - Date.now() / 1000) < 60, true);

  const [creation] = (await history(to)).slice(-1);
  const outer = await server.transaction(creation);
  assert.equal(outer.meta.innerInstructions[0].index, 0);
  assert.ok(outer.meta.innerInstructions[0].instructions.length > 0);

  const block = await server.rpc.getBlock(slot, { commitment: "confirmed", encoding: "json", maxSupportedTransactionVersion: 1 }).send();
  const inBlock = block.transactions.find((/** @type {any} */ entry) => entry.transaction.signatures[0] === signature);
  assert.deepEqual(inBlock.meta.postTokenBalances, meta.postTokenBalances);
  const parent = await server.rpc.getBlock(slot - 1n, { commitment: "confirmed", transactionDetails: "none", maxSupportedTransactionVersion: 1 }).send();
  assert.equal(block.previousBlockhash, parent.blockhash);
});

test("address history is newest first, with before, until, limit and memos, for token accounts too", async () => {
  const mint = await server.createMint(payer);
  const account = await server.tokenAccount(payer, mint.address, await newAddress(), 0n);
  const from = await server.tokenAccount(payer, mint.address, payer.address, 10n);
  const sent = [];
  for (const text of ["one", "two", "three"]) {
    const pay = getTransferCheckedInstruction({ source: from, mint: mint.address, destination: account, authority: payer, amount: 1n, decimals: 6 });
    sent.push(await server.signAndSend(payer, [pay, memo(text)]));
  }
  await server.reaches(sent[2]);
  const [third, second, oldest] = await history(account, { limit: 3 });
  assert.deepEqual([oldest, second, third], sent);
  assert.deepEqual(await history(account, { before: third, limit: 1 }), [second]);
  assert.deepEqual(await history(account, { until: oldest }), [third, second]);
  assert.deepEqual(await history(account, { before: third, until: oldest }), [second]);
  const [entry] = await server.rpc.getSignaturesForAddress(account, { commitment: "confirmed", limit: 1 }).send();
  assert.equal(entry.memo, "[5] three");
  assert.equal(entry.err, null);
  const unknown = kit.getBase58Decoder().decode(new Uint8Array(64).fill(9));
  assert.deepEqual(await history(account, { before: unknown }), []);
});

test("confirmed history does not show the slot that is being made", async () => {
  const to = await newAddress();
  const { signature, seen } = await server.withinOneSlot(async () => {
    const signature = await server.signAndSend(payer, [transfer(payer, to, 1_000_000n)]);
    return { signature, seen: await history(to) };
  });
  assert.equal(seen.includes(signature), false);
  await eventually("the slot's end", async () => (await history(to)).includes(signature));
});

test("token accounts are found by owner, mint and program filters, parsed", async () => {
  const mint = await server.createMint(payer, 3);
  const owner = await newAddress();
  const account = await server.tokenAccount(payer, mint.address, owner, 1_500n);
  const config = { encoding: "jsonParsed", commitment: "processed" };
  for (const filter of [{ mint: mint.address }, { programId: TOKEN_PROGRAM_ADDRESS }]) {
    const { value } = await server.rpc.getTokenAccountsByOwner(owner, filter, config).send();
    assert.deepEqual(value.map((/** @type {any} */ found) => found.pubkey), [account]);
    assert.equal(value[0].account.data.parsed.info.tokenAmount.uiAmountString, "1.5");
    assert.equal(value[0].account.data.parsed.info.state, "initialized");
  }
  assert.equal((await server.rpc.getTokenAccountBalance(account, { commitment: "processed" }).send()).value.amount, "1500");
  assert.equal((await server.rpc.getTokenSupply(mint.address, { commitment: "processed" }).send()).value.amount, "1500");
  const parsedMint = await server.rpc.getAccountInfo(mint.address, config).send();
  assert.equal(parsedMint.value.data.parsed.info.mintAuthority, payer.address);
  const filters = [{ dataSize: 165n }, { memcmp: { offset: 32n, bytes: owner, encoding: "base58" } }];
  const found = await server.rpc.getProgramAccounts(TOKEN_PROGRAM_ADDRESS, { filters, encoding: "base64", commitment: "processed" }).send();
  assert.deepEqual(found.map((/** @type {any} */ item) => item.pubkey), [account]);
  const sliced = await server.rpc.getAccountInfo(account, { encoding: "base64", commitment: "processed", dataSlice: { offset: 32, length: 32 } }).send();
  assert.equal(kit.getAddressDecoder().decode(Buffer.from(sliced.value.data[0], "base64")), owner);
  const multiple = await server.rpc.getMultipleAccounts([account, await newAddress()], { encoding: "base64", commitment: "processed" }).send();
  assert.equal(multiple.value[0].owner, TOKEN_PROGRAM_ADDRESS);
  assert.equal(multiple.value[1], null);
});

test("signatureSubscribe notifies at each level, also for what has already landed", { timeout: TIMEOUT_MS }, async () => {
  for (const commitment of ["processed", "confirmed", "finalized"]) {
    const { wire, signature } = await server.sign(payer, [memo(`subscribe ${commitment}`)]);
    // kit shares one subscription between equal requests, so each is ended before the next; and it
    // drops what arrives before somebody reads, so the reader is there first.
    const notified = async (/** @type {() => Promise<unknown>} */ then) => {
      const stop = new AbortController();
      const notices = await server.subscriptions.signatureNotifications(signature, { commitment }).subscribe({ abortSignal: stop.signal });
      const [notice] = await Promise.all([first(notices), then()]);
      stop.abort();
      return notice;
    };
    assert.equal((await notified(() => server.send(wire))).value.err, null);
    assert.equal((await notified(async () => {})).value.err, null, "for a transaction that has landed");
  }
});

test("account, logs, program and slot subscriptions notify", { timeout: TIMEOUT_MS }, async () => {
  const to = await newAddress();
  const stop = new AbortController();
  const abortSignal = stop.signal;
  const account = await server.subscriptions.accountNotifications(to, { commitment: "confirmed", encoding: "base64" }).subscribe({ abortSignal });
  const logs = await server.subscriptions.logsNotifications({ mentions: [to] }, { commitment: "confirmed" }).subscribe({ abortSignal });
  const slots = await server.subscriptions.slotNotifications().subscribe({ abortSignal });
  const roots = await server.subscriptions.rootNotifications().subscribe({ abortSignal });
  const pending = Promise.all([first(account), first(logs), first(slots), first(roots)]);
  const signature = await server.signAndSend(payer, [transfer(payer, to, 4_000_000n)]);
  const [changed, logged, slot, root] = await pending;
  stop.abort();
  assert.equal(changed.value.lamports, 4_000_000n);
  assert.equal(logged.value.signature, signature);
  assert.ok(logged.value.logs.length > 0);
  assert.equal(slot.slot - slot.parent, 1n);
  assert.equal(typeof root, "bigint");
});

test("programSubscribe reports accounts that match its filters", async () => {
  const mint = await server.createMint(payer);
  const account = await server.tokenAccount(payer, mint.address, payer.address, 0n);
  const abortSignal = AbortSignal.timeout(20_000);
  const filters = [{ memcmp: { offset: 0n, bytes: mint.address, encoding: "base58" } }, { dataSize: 165n }];
  const notices = await server.subscriptions
    .programNotifications(TOKEN_PROGRAM_ADDRESS, { commitment: "processed", encoding: "jsonParsed", filters })
    .subscribe({ abortSignal });
  const pending = first(notices);
  await server.tokenAccount(payer, mint.address, payer.address, 42n);
  const { value } = await pending;
  assert.equal(value.pubkey, account);
  assert.equal(value.account.data.parsed.info.tokenAmount.amount, "42");
});

test("kit's own send-and-confirm works", async () => {
  const sendAndConfirm = kit.sendAndConfirmTransactionFactory({ rpc: server.rpc, rpcSubscriptions: server.subscriptions });
  const to = await newAddress();
  const message = kit.pipe(
    kit.createTransactionMessage({ version: 0 }),
    (m) => kit.setTransactionMessageFeePayerSigner(payer, m),
    (m) => kit.appendTransactionMessageInstruction(transfer(payer, to, 5_000_000n), m),
  );
  const lifetime = (await server.rpc.getLatestBlockhash().send()).value;
  const signed = await kit.signTransactionMessageWithSigners(kit.setTransactionMessageLifetimeUsingBlockhash(lifetime, message));
  kit.assertIsTransactionWithinSizeLimit(signed);
  await sendAndConfirm(/** @type {any} */ (signed), { commitment: "finalized", abortSignal: AbortSignal.timeout(20_000) });
  assert.equal((await server.rpc.getBalance(to, { commitment: "finalized" }).send()).value, 5_000_000n);
});

test("the rest of the listed methods answer", async () => {
  const { rpc } = server;
  assert.equal(await rpc.getHealth().send(), "ok");
  assert.match((await rpc.getVersion().send())["solana-core"], /localnet/);
  assert.equal(await rpc.getGenesisHash().send(), server.hello.genesisHash);
  const { identity } = await rpc.getIdentity().send();
  assert.equal(await rpc.getSlotLeader().send(), identity);
  const epoch = await rpc.getEpochInfo({ commitment: "processed" }).send();
  assert.equal(epoch.absoluteSlot, epoch.blockHeight);
  assert.equal(await rpc.getFirstAvailableBlock().send(), 0n);
  assert.equal(await rpc.minimumLedgerSlot().send(), 0n);
  assert.equal((await rpc.getTransactionCount({ commitment: "processed" }).send()) > 0n, true);
  assert.equal((await rpc.getRecentPrioritizationFees([payer.address]).send()).length > 0, true);
  const blocks = await rpc.getBlocks(1n, 3n, { commitment: "confirmed" }).send();
  assert.deepEqual(blocks, [1n, 2n, 3n]);
  assert.equal(typeof (await rpc.getBlockTime(1n).send()), "bigint");
});
