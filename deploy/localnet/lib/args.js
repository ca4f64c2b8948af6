/**
 * The command line.
 */

import { parseArgs } from "node:util";

export const USAGE = `usage: node server.js --state DIR [options]

A local Solana chain for development: LiteSVM behind Solana's JSON-RPC and websocket interface.

  --state DIR             where the chain is kept (made if it is missing)
  --host ADDRESS          address to listen on                              127.0.0.1
  --port PORT             JSON-RPC over HTTP, 0 for any free port           8899
  --ws-port PORT          websocket, 0 for any free port                    the HTTP port + 1
  --slot-ms MS            length of a slot                                  350
  --finalize-slots N      slots until a slot is final (32 on mainnet)       8
  --lamports-per-byte N   rent per byte (6960 before SIMD-0437)             696
  --ledger-transactions N transactions that are kept for queries            50000
  --help
`;

/** A mistake on the command line. */
export class UsageError extends Error {}

/**
 * @typedef {{state: string, host: string, port: number, wsPort: number | null, slotMs: number, finalizeSlots: number, lamportsPerByte: number, ledgerTransactions: number}} Options
 * @param {string[]} argv
 * @returns {Options | null} null when help is asked for
 */
export function readArgs(argv) {
  let values;
  try {
    ({ values } = parseArgs({
      args: argv,
      options: {
        state: { type: "string" },
        host: { type: "string", default: "127.0.0.1" },
        port: { type: "string", default: "8899" },
        "ws-port": { type: "string" },
        "slot-ms": { type: "string", default: "350" },
        "finalize-slots": { type: "string", default: "8" },
        "lamports-per-byte": { type: "string", default: "696" },
        "ledger-transactions": { type: "string", default: "50000" },
        help: { type: "boolean", default: false },
      },
    }));
  } catch (err) {
    throw new UsageError(/** @type {Error} */ (err).message);
  }
  if (values.help) return null;
  if (!values.state) throw new UsageError("--state is required");
  return {
    state: values.state,
    host: values.host ?? "",
    port: within("--port", values.port, 0, 65535),
    wsPort: values["ws-port"] === undefined ? null : within("--ws-port", values["ws-port"], 0, 65535),
    slotMs: within("--slot-ms", values["slot-ms"], 10, 60_000),
    finalizeSlots: within("--finalize-slots", values["finalize-slots"], 2, 150),
    lamportsPerByte: within("--lamports-per-byte", values["lamports-per-byte"], 1, 1_000_000),
    ledgerTransactions: within("--ledger-transactions", values["ledger-transactions"], 100, 10_000_000),
  };
}

/**
 * @param {string} name
 * @param {string | undefined} text
 * @param {number} min
 * @param {number} max
 * @returns {number}
 */
function within(name, text, min, max) {
  const value = Number(text);
  if (!text || !Number.isInteger(value) || value < min || value > max) {
    throw new UsageError(`${name} must be a whole number from ${min} to ${max}, not ${JSON.stringify(text)}`);
  }
  return value;
}
