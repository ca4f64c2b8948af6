/**
 * A server of its own for each test file, on free ports and in a temporary folder, and kit clients
 * for it.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { fileURLToPath } from "node:url";
import * as kit from "@solana/kit";
import { getCreateAccountInstruction, getInitializeNonceAccountInstruction, getTransferSolInstruction } from "@solana-program/system";
import {
  TOKEN_PROGRAM_ADDRESS,
  findAssociatedTokenPda,
  getCreateAssociatedTokenIdempotentInstruction,
  getInitializeMint2Instruction,
  getMintToInstruction,
} from "@solana-program/token";

const SERVER = fileURLToPath(new URL("../server.js", import.meta.url));
const POLL_MS = 20;
const WAIT_MS = 20_000;
const ATTEMPTS = 20;
const SYSTEM = kit.address("11111111111111111111111111111111");
const RECENT_BLOCKHASHES = kit.address("SysvarRecentB1ockHashes11111111111111111111");
const RENT = kit.address("SysvarRent111111111111111111111111111111111");

/** @returns {string} */
export function temporaryState() {
  return fs.mkdtempSync(path.join(os.tmpdir(), "localnet-"));
}

/** A running server. */
export class Server {
  /**
   * @param {string} state
   * @param {import("node:child_process").ChildProcess} child
   * @param {{rpc: string, ws: string, genesisHash: string}} hello
   */
  constructor(state, child, hello) {
    this.state = state;
    this.child = child;
    this.hello = hello;
    this.exited = once(child, "exit");
    /** Any, because kit's types refuse the malformed calls that tests make. @type {any} */
    this.rpc = kit.createSolanaRpc(/** @type {any} */ (hello.rpc));
    /** @type {any} */
    this.subscriptions = kit.createSolanaRpcSubscriptions(/** @type {any} */ (hello.ws));
  }

  /**
   * @param {string[]} [args]
   * @param {string} [state]
   * @returns {Promise<Server>}
   */
  static async start(args = [], state = temporaryState()) {
    const child = spawn(process.execPath, [SERVER, "--state", state, "--port", "0", "--ws-port", "0", ...args], { stdio: ["ignore", "pipe", "pipe"] });
    let errors = "";
    child.stderr.on("data", (chunk) => (errors += chunk));
    const lines = readline.createInterface({ input: child.stdout });
    const first = await Promise.race([once(lines, "line"), once(child, "exit")]);
    if (typeof first[0] !== "string") throw new Error(`the server did not start: ${errors}`);
    return new Server(state, child, JSON.parse(first[0]));
  }

  /**
   * @param {NodeJS.Signals} [signal]
   * @returns {Promise<number | null>} the exit status
   */
  async stop(signal = "SIGTERM") {
    this.child.kill(signal);
    const [code] = await this.exited;
    return code;
  }

  /** Stops it and removes its state. */
  async remove() {
    if (this.child.exitCode === null && this.child.signalCode === null) await this.stop();
    fs.rmSync(this.state, { recursive: true, force: true });
  }

  /**
   * A raw call, for what kit does not send.
   * @param {string} method
   * @param {unknown[]} [params]
   * @returns {Promise<any>} the whole response
   */
  async call(method, params = []) {
    return this.post(JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }));
  }

  /**
   * @param {string} body
   * @returns {Promise<any>}
   */
  async post(body) {
    const response = await fetch(this.hello.rpc, { method: "POST", headers: { "content-type": "application/json" }, body });
    return response.json();
  }

  /** @returns {Promise<kit.KeyPairSigner>} a new account with 10 SOL */
  async fundedSigner() {
    const signer = await kit.generateKeyPairSigner();
    await this.rpc.requestAirdrop(signer.address, kit.lamports(10_000_000_000n)).send();
    return signer;
  }

  /** @returns {Promise<any>} */
  async blockhash() {
    return (await this.rpc.getLatestBlockhash({ commitment: "processed" }).send()).value;
  }

  /**
   * @param {kit.KeyPairSigner} payer
   * @param {kit.Instruction[]} instructions
   * @param {{version?: "legacy" | 0 | 1, lifetime?: any, change?: (message: any) => any}} [options]
   * @returns {Promise<{wire: string, bytes: Uint8Array, signature: string}>} signed
   */
  async sign(payer, instructions, { version = 0, lifetime, change = (message) => message } = {}) {
    /** @type {any} */
    let message = kit.createTransactionMessage({ version: /** @type {any} */ (version) });
    message = kit.setTransactionMessageFeePayerSigner(payer, message);
    message = lifetime?.nonce
      ? kit.setTransactionMessageLifetimeUsingDurableNonce(lifetime, message)
      : kit.setTransactionMessageLifetimeUsingBlockhash(lifetime ?? (await this.blockhash()), message);
    message = change(kit.appendTransactionMessageInstructions(instructions, message));
    const transaction = await kit.signTransactionMessageWithSigners(message);
    const bytes = new Uint8Array(kit.getTransactionEncoder().encode(transaction));
    return { wire: kit.getBase64EncodedWireTransaction(transaction), bytes, signature: kit.getSignatureFromTransaction(transaction) };
  }

  /**
   * @param {string} wire
   * @param {object} [config]
   * @returns {Promise<string>}
   */
  async send(wire, config = {}) {
    return this.rpc.sendTransaction(wire, { encoding: "base64", preflightCommitment: "processed", ...config }).send();
  }

  /**
   * @param {kit.KeyPairSigner} payer
   * @param {kit.Instruction[]} instructions
   * @param {Parameters<Server["sign"]>[2]} [options]
   * @returns {Promise<string>} its signature
   */
  async signAndSend(payer, instructions, options) {
    return this.send((await this.sign(payer, instructions, options)).wire);
  }

  /**
   * @param {string} signature
   * @param {"processed" | "confirmed" | "finalized"} [level]
   * @returns {Promise<any>} its status at that level
   */
  async reaches(signature, level = "confirmed") {
    const order = ["processed", "confirmed", "finalized"];
    return eventually(`${signature} ${level}`, async () => {
      const status = (await this.rpc.getSignatureStatuses([signature]).send()).value[0];
      return status && order.indexOf(status.confirmationStatus) >= order.indexOf(level) ? status : null;
    });
  }

  /**
   * @param {string} signature
   * @returns {Promise<any>}
   */
  async transaction(signature) {
    await this.reaches(signature);
    return this.rpc.getTransaction(signature, { commitment: "confirmed", encoding: "json", maxSupportedTransactionVersion: 1 }).send();
  }

  /** Waits until the next slot has begun. */
  async nextSlot() {
    const slot = await this.slot();
    await eventually("the next slot", async () => (await this.slot()) > slot);
  }

  /**
   * Repeats `body` until it ran from begin to end within one slot.
   * @template T
   * @param {() => Promise<T>} body
   * @returns {Promise<T>}
   */
  async withinOneSlot(body) {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      await this.nextSlot();
      const slot = await this.slot();
      const result = await body();
      if ((await this.slot()) === slot) return result;
    }
    throw new Error(`no slot was long enough in ${ATTEMPTS} attempts; raise --slot-ms`);
  }

  /** @returns {Promise<bigint>} */
  async slot() {
    return this.rpc.getSlot({ commitment: "processed" }).send();
  }

  /**
   * @param {kit.KeyPairSigner} payer
   * @returns {Promise<kit.KeyPairSigner>} the nonce account, `payer` its authority
   */
  async createNonce(payer) {
    const nonce = await kit.generateKeyPairSigner();
    const rent = await this.rpc.getMinimumBalanceForRentExemption(80n).send();
    await this.signAndSend(payer, [
      getCreateAccountInstruction({ payer, newAccount: nonce, lamports: rent, space: 80n, programAddress: SYSTEM }),
      getInitializeNonceAccountInstruction({
        nonceAccount: nonce.address,
        nonceAuthority: payer.address,
        recentBlockhashesSysvar: RECENT_BLOCKHASHES,
        rentSysvar: RENT,
      }),
    ]);
    return nonce;
  }

  /**
   * @param {string} account
   * @returns {Promise<string>} its value
   */
  async nonceValue(account) {
    const { value } = await this.rpc.getAccountInfo(account, { encoding: "jsonParsed", commitment: "processed" }).send();
    return value.data.parsed.info.blockhash;
  }

  /**
   * @param {kit.KeyPairSigner} payer
   * @param {number} [decimals]
   * @returns {Promise<kit.KeyPairSigner>} a mint, `payer` its authority
   */
  async createMint(payer, decimals = 6) {
    const mint = await kit.generateKeyPairSigner();
    const rent = await this.rpc.getMinimumBalanceForRentExemption(82n).send();
    await this.signAndSend(payer, [
      getCreateAccountInstruction({ payer, newAccount: mint, lamports: rent, space: 82n, programAddress: TOKEN_PROGRAM_ADDRESS }),
      getInitializeMint2Instruction({ mint: mint.address, decimals, mintAuthority: payer.address }),
    ]);
    return mint;
  }

  /**
   * @param {kit.KeyPairSigner} payer and mint authority
   * @param {kit.Address} mint
   * @param {kit.Address} owner
   * @param {bigint} amount
   * @returns {Promise<kit.Address>} the owner's token account, holding `amount`
   */
  async tokenAccount(payer, mint, owner, amount) {
    const [ata] = await findAssociatedTokenPda({ owner, mint, tokenProgram: TOKEN_PROGRAM_ADDRESS });
    await this.signAndSend(payer, [
      getCreateAssociatedTokenIdempotentInstruction({ payer, ata, owner, mint }),
      getMintToInstruction({ mint, token: ata, mintAuthority: payer, amount }),
    ]);
    return ata;
  }
}

/**
 * @param {kit.KeyPairSigner} source
 * @param {kit.Address} destination
 * @param {bigint} amount
 * @returns {kit.Instruction}
 */
export function transfer(source, destination, amount) {
  return getTransferSolInstruction({ source, destination, amount });
}

/**
 * @param {string} text
 * @returns {kit.Instruction}
 */
export function memo(text) {
  return { programAddress: kit.address("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"), data: new TextEncoder().encode(text) };
}

/** @returns {Promise<kit.Address>} an address nobody uses */
export async function newAddress() {
  return (await kit.generateKeyPairSigner()).address;
}

/**
 * Polls until `probe` answers something true.
 * @template T
 * @param {string} what
 * @param {() => Promise<T | null | undefined | false>} probe
 * @returns {Promise<T>}
 */
export async function eventually(what, probe) {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited ${WAIT_MS} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/**
 * The JSON-RPC code of the error that `call` ends in.
 * @param {Promise<unknown>} call
 * @returns {Promise<any>} the error
 */
export async function failure(call) {
  try {
    await call;
  } catch (err) {
    return err;
  }
  throw new Error("the call succeeded");
}
