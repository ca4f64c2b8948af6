/**
 * The websocket side: Solana's pub/sub methods.
 *
 * Notifications of `processed` go out with the transaction, those of `confirmed` and `finalized` with
 * the slot that brings its block to that level. Every limit is bounded: connections, subscriptions per
 * connection, bytes queued for a slow reader (who is then cut off).
 */

import { WebSocketServer } from "ws";
import { stringify } from "./json.js";
import { accountFilter, encodeAccount } from "./rpc/accounts.js";
import { dispatch } from "./rpc/dispatch.js";
import { INVALID_PARAMS, RpcError, invalid } from "./rpc/errors.js";
import { commitment, pubkey } from "./rpc/params.js";

const MAX_CONNECTIONS = 512;
const MAX_SUBSCRIPTIONS = 1024;
const MAX_MESSAGE_BYTES = 64 * 1024;
const MAX_QUEUED_BYTES = 16 * 1024 * 1024;
const PING_MS = 20_000;
/** How long after its subscription a client learns of what had already happened. */
const CATCH_UP_MS = 20;

/** @typedef {import("./chain.js").Chain} Chain */
/** @typedef {import("./chain.js").Commitment} Commitment */
/** @typedef {import("./ledger.js").Entry} Entry */
/** @typedef {import("./rpc/params.js").Params} Params */
/** @typedef {import("ws").WebSocket} Socket */

/**
 * @typedef {object} Subscription
 * @property {number} id
 * @property {string} kind the method's prefix: account, logs, program, root, signature, slot
 * @property {Commitment} level
 * @property {(notice: Notice) => unknown[]} results what to send for a transaction or a block
 */

/**
 * @typedef {{slot: number, entries: Entry[], touched: Iterable<string>, logs: (entry: Entry) => string[]}} Notice
 */

/**
 * @param {Chain} chain
 * @param {{port: number, host: string}} address
 * @param {(name: string) => import("./rpc/dispatch.js").Method | undefined} find ordinary methods, also answered here
 * @param {(line: string) => void} log
 * @returns {WebSocketServer}
 */
export function websocketServer(chain, address, find, log) {
  const server = new WebSocketServer({ ...address, maxPayload: MAX_MESSAGE_BYTES, perMessageDeflate: false });
  /** @type {Map<Socket, Session>} */
  const sessions = new Map();
  server.on("connection", (socket) => {
    if (sessions.size >= MAX_CONNECTIONS) return socket.close(1013, "too many connections");
    const session = new Session(chain, socket);
    sessions.set(socket, session);
    socket.on("close", () => sessions.delete(socket));
    socket.on("error", (err) => log(`websocket: ${err.message}`));
    socket.on("pong", () => (session.alive = true));
    socket.on("message", (data) => {
      dispatch(data.toString(), (name) => session.methods.get(name) ?? find(name), log).then((answer) => {
        if (answer) session.send(answer);
        session.flushImmediate();
      }, (err) => log(`websocket request failed: ${err.message}`));
    });
  });
  const pings = setInterval(() => {
    for (const [socket, session] of sessions) session.checkAlive(socket);
  }, PING_MS);
  pings.unref();
  server.on("close", () => clearInterval(pings));
  connectEvents(chain, () => sessions.values());
  return server;
}

/**
 * @param {Chain} chain
 * @param {() => Iterable<Session>} sessions
 */
function connectEvents(chain, sessions) {
  chain.on("transaction", (/** @type {Entry} */ entry, /** @type {string[]} */ logs, /** @type {string[]} */ touched) => {
    const notice = { slot: entry.slot, entries: [entry], touched, logs: () => logs };
    for (const session of sessions()) session.notify("processed", notice);
  });
  chain.on("slot", (/** @type {{slot: number, parent: number, root: number, confirmed: number, rooted: Set<string>}} */ event) => {
    const confirmed = blockNotice(chain, event.confirmed, chain.touched.get(event.confirmed) ?? []);
    const finalized = blockNotice(chain, event.root, event.rooted);
    for (const session of sessions()) {
      session.notify("confirmed", confirmed);
      session.notify("finalized", finalized);
      session.notifyAll("slot", { slot: event.slot, parent: event.parent, root: event.root });
      if (event.root > 0) session.notifyAll("root", event.root);
    }
  });
}

/**
 * @param {Chain} chain
 * @param {number} slot
 * @param {Iterable<string>} touched
 * @returns {Notice}
 */
function blockNotice(chain, slot, touched) {
  return { slot, entries: chain.ledger.block(slot), touched, logs: (entry) => JSON.parse(entry.meta.toString()).logMessages };
}

/** One connection. */
class Session {
  /**
   * @param {Chain} chain
   * @param {Socket} socket
   */
  constructor(chain, socket) {
    this.chain = chain;
    this.socket = socket;
    this.alive = true;
    this.nextId = 1;
    /** @type {Map<number, Subscription>} */
    this.subscriptions = new Map();
    /** Notices for subscriptions whose id the client does not know yet. @type {(() => void)[]} */
    this.immediate = [];
    /** @type {Map<string, (params: Params) => unknown>} */
    this.methods = new Map(Object.entries(this.subscribeMethods()));
  }

  /** @returns {{[method: string]: (params: Params) => unknown}} */
  subscribeMethods() {
    return {
      slotSubscribe: () => this.add("slot", "processed", () => []),
      rootSubscribe: () => this.add("root", "finalized", () => []),
      signatureSubscribe: (params) => this.subscribeSignature(params),
      accountSubscribe: (params) => this.subscribeAccount(params),
      programSubscribe: (params) => this.subscribeProgram(params),
      logsSubscribe: (params) => this.subscribeLogs(params),
      ...Object.fromEntries(
        ["slot", "root", "signature", "account", "program", "logs"].map((kind) => [
          `${kind}Unsubscribe`,
          (/** @type {Params} */ params) => this.remove(kind, params.count(0, "the subscription id")),
        ]),
      ),
    };
  }

  /**
   * @param {string} kind
   * @param {Commitment} level
   * @param {(notice: Notice) => unknown[]} results
   * @returns {number}
   */
  add(kind, level, results) {
    if (this.subscriptions.size >= MAX_SUBSCRIPTIONS) throw invalid(`a connection holds at most ${MAX_SUBSCRIPTIONS} subscriptions`);
    const id = this.nextId++;
    this.subscriptions.set(id, { id, kind, level, results });
    return id;
  }

  /**
   * @param {string} kind
   * @param {number} id
   */
  remove(kind, id) {
    if (this.subscriptions.get(id)?.kind !== kind) throw new RpcError(INVALID_PARAMS, "Invalid subscription id.");
    return this.subscriptions.delete(id);
  }

  /** @param {Params} params */
  subscribeSignature(params) {
    const wanted = params.signature(0);
    const config = params.config(1);
    const level = commitment(config.commitment);
    const received = config.enableReceivedNotification === true;
    /** @param {Notice} notice */
    const results = ({ slot, entries }) =>
      entries.filter((entry) => entry.signature === wanted).map((entry) => ({ context: { slot }, value: { err: entry.err } }));
    const id = this.add("signature", level, results);
    this.immediate.push(() => {
      const subscription = this.subscriptions.get(id);
      const entry = this.chain.ledger.bySignature.get(wanted);
      if (!subscription || !entry) return;
      if (received) this.push(subscription, { context: { slot: entry.slot }, value: "receivedSignature" });
      if (entry.slot > this.chain.slotAt(level)) return;
      this.deliver(subscription, [{ context: { slot: entry.slot }, value: { err: entry.err } }]);
    });
    return id;
  }

  /** @param {Params} params */
  subscribeAccount(params) {
    const address = params.pubkey(0);
    const config = params.config(1);
    return this.add("account", commitment(config.commitment), ({ slot, touched }) =>
      [...touched].includes(address) ? [{ context: { slot }, value: this.encoded(address, slot, config) }] : [],
    );
  }

  /** @param {Params} params */
  subscribeProgram(params) {
    const program = params.pubkey(0);
    const config = params.config(1);
    const matches = accountFilter(config);
    return this.add("program", commitment(config.commitment), ({ slot, touched }) =>
      [...touched].flatMap((address) => {
        const account = this.chain.accountAt(address, slot);
        if (account?.owner !== program || !matches(account)) return [];
        return [{ context: { slot }, value: { pubkey: address, account: this.encoded(address, slot, config) } }];
      }),
    );
  }

  /** @param {Params} params */
  subscribeLogs(params) {
    const filter = params.list[0];
    const all = filter === "all" || filter === "allWithVotes";
    const mentions = all ? [] : params.config(0).mentions;
    if (!all && (!Array.isArray(mentions) || mentions.length !== 1)) throw invalid("Invalid Request: Only 1 address supported");
    const mentioned = all ? null : pubkey(mentions[0]);
    return this.add("logs", commitment(params.config(1).commitment), ({ slot, entries, logs }) =>
      entries
        .filter((entry) => mentioned === null || entry.keys.includes(mentioned))
        .map((entry) => ({ context: { slot }, value: { signature: entry.signature, err: entry.err, logs: logs(entry) } })),
    );
  }

  /**
   * @param {string} address
   * @param {number} slot
   * @param {import("./rpc/params.js").Config} config
   */
  encoded(address, slot, config) {
    const lookup = (/** @type {string} */ other) => this.chain.accountAt(other, slot);
    const account = lookup(address);
    // A closed account is reported as an empty account of the system program.
    const gone = { lamports: 0n, owner: "11111111111111111111111111111111", executable: false, rentEpoch: 0n, data: new Uint8Array() };
    return encodeAccount(account ?? gone, config, lookup);
  }

  /**
   * @param {Commitment} level
   * @param {Notice} notice
   */
  notify(level, notice) {
    for (const subscription of this.subscriptions.values()) {
      if (subscription.level === level) this.deliver(subscription, subscription.results(notice));
    }
  }

  /**
   * @param {"slot" | "root"} kind
   * @param {unknown} result
   */
  notifyAll(kind, result) {
    for (const subscription of this.subscriptions.values()) {
      if (subscription.kind === kind) this.push(subscription, result);
    }
  }

  /**
   * @param {Subscription} subscription
   * @param {unknown[]} results
   */
  deliver(subscription, results) {
    for (const result of results) this.push(subscription, result);
    // A signature is notified once; the subscription ends with it.
    if (results.length > 0 && subscription.kind === "signature") this.subscriptions.delete(subscription.id);
  }

  /**
   * @param {Subscription} subscription
   * @param {unknown} result
   */
  push({ id, kind }, result) {
    this.send(stringify({ jsonrpc: "2.0", method: `${kind}Notification`, params: { result, subscription: id } }));
  }

  /** @param {string} text */
  send(text) {
    if (this.socket.bufferedAmount > MAX_QUEUED_BYTES) return this.socket.terminate();
    if (this.socket.readyState === this.socket.OPEN) this.socket.send(text);
  }

  /**
   * Sends what a new subscription is owed for the past. Clients drop a notification that arrives in
   * the same packet as the answer that tells the subscription's id, so it follows a moment later.
   */
  flushImmediate() {
    for (const send of this.immediate.splice(0)) setTimeout(send, CATCH_UP_MS);
  }

  /** @param {Socket} socket */
  checkAlive(socket) {
    if (!this.alive) return socket.terminate();
    this.alive = false;
    socket.ping();
  }
}
