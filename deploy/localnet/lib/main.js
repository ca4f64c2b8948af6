/**
 * Wiring: the command line, the chain, its two servers, its clock and its end.
 */

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import process from "node:process";
import { Chain, publicKey } from "./chain.js";
import { USAGE, UsageError, readArgs } from "./args.js";
import { U64_MAX, encodeBase58 } from "./bytes.js";
import { httpServer } from "./http.js";
import { Journal, StateError } from "./journal.js";
import { Ledger } from "./ledger.js";
import { SYSTEM_PROGRAM } from "./programs.js";
import { accountMethods } from "./rpc/accounts.js";
import { clusterMethods } from "./rpc/cluster.js";
import { transactionMethods } from "./rpc/transactions.js";
import { websocketServer } from "./subscriptions.js";
import { Vm } from "./vm.js";

/** What the faucet starts with: enough never to run dry, small enough to add up in a u64. */
const FAUCET_LAMPORTS = 500_000_000n * 1_000_000_000n;
const EXIT_USAGE = 2;

/** @param {string} line */
function log(line) {
  process.stderr.write(`localnet: ${line}\n`);
}

/** @param {import("./args.js").Options} options */
async function openChain(options) {
  const journal = new Journal(options.state);
  journal.onFailure = (err) => {
    log(`cannot write ${journal.path}: ${err.message}; stopping, nothing unwritten was acknowledged`);
    process.exit(1);
  };
  const vm = new Vm({ lamportsPerByte: options.lamportsPerByte });
  const { slotMs, finalizeSlots } = options;
  const chain = new Chain({ vm, journal, ledger: new Ledger(options.ledgerTransactions), slotMs, finalizeSlots });
  await chain.start({
    genesisHash: encodeBase58(randomBytes(32)),
    faucetSeed: encodeBase58(randomBytes(32)),
    identity: encodeBase58(publicKey(encodeBase58(randomBytes(32)))),
    createdAt: new Date().toISOString(),
  }, faucetAccount);
  return chain;
}

/**
 * @param {import("./chain.js").Genesis} genesis
 * @returns {[string, import("./vm.js").Account][]}
 */
function faucetAccount(genesis) {
  const account = { lamports: FAUCET_LAMPORTS, owner: SYSTEM_PROGRAM, executable: false, rentEpoch: U64_MAX, data: new Uint8Array() };
  return [[encodeBase58(publicKey(genesis.faucetSeed)), account]];
}

/**
 * Ticks on a fixed grid, so that late timers do not add up; slots that were missed are not made up.
 * @param {Chain} chain
 * @param {number} slotMs
 * @returns {() => void} stops it
 */
function startClock(chain, slotMs) {
  let due = performance.now() + slotMs;
  /** @type {NodeJS.Timeout} */
  let timer;
  const beat = () => {
    chain.tick();
    const now = performance.now();
    due = due + slotMs > now ? due + slotMs : now + slotMs;
    timer = setTimeout(beat, due - now);
  };
  timer = setTimeout(beat, slotMs);
  return () => clearTimeout(timer);
}

/** @param {string} host */
function urlHost(host) {
  return host.includes(":") ? `[${host}]` : host;
}

/** @param {import("./args.js").Options} options */
async function main(options) {
  const chain = await openChain(options);
  const methods = new Map(Object.entries({ ...clusterMethods(chain), ...accountMethods(chain), ...transactionMethods(chain, log) }));
  /** @param {string} name */
  const find = (name) => methods.get(name);

  const rpc = httpServer(find, log);
  rpc.listen(options.port, options.host);
  await once(rpc, "listening");
  const port = /** @type {import("node:net").AddressInfo} */ (rpc.address()).port;
  const ws = websocketServer(chain, { host: options.host, port: options.wsPort ?? port + 1 }, find, log);
  await once(ws, "listening");
  const wsPort = /** @type {import("node:net").AddressInfo} */ (ws.address()).port;
  const stopClock = startClock(chain, options.slotMs);

  const stop = async () => {
    stopClock();
    rpc.close();
    rpc.closeAllConnections();
    for (const client of ws.clients) client.terminate();
    ws.close();
    await chain.journal.close();
    process.exit(0);
  };
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);

  const host = urlHost(options.host);
  const hello = { rpc: `http://${host}:${port}`, ws: `ws://${host}:${wsPort}`, genesisHash: chain.genesis.genesisHash };
  process.stdout.write(`${JSON.stringify(hello)}\n`);
  log(`development chain, not Solana: tokens here are worth nothing. State in ${options.state}, slot ${chain.slot}`);
}

try {
  const options = readArgs(process.argv.slice(2));
  if (options) await main(options);
  else process.stdout.write(USAGE);
} catch (err) {
  if (err instanceof UsageError) {
    process.stderr.write(`${err.message}\n\n${USAGE}`);
    process.exit(EXIT_USAGE);
  }
  const code = /** @type {NodeJS.ErrnoException} */ (err).code;
  const expected = err instanceof StateError || code === "EADDRINUSE" || code === "EACCES" || code === "EADDRNOTAVAIL";
  log(expected ? /** @type {Error} */ (err).message : String(err instanceof Error ? err.stack : err));
  process.exit(1);
}
