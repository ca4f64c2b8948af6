/**
 * The HTTP side: POST / takes JSON-RPC, GET /health answers "ok". CORS is open, because explorers and
 * wallets call from the browser.
 */

import http from "node:http";
import { dispatch } from "./rpc/dispatch.js";

export const MAX_BODY_BYTES = 1024 * 1024;
const REQUEST_TIMEOUT_MS = 30_000;
const CORS = {
  "access-control-allow-origin": "*",
  "access-control-allow-methods": "GET, POST, OPTIONS",
  "access-control-allow-headers": "content-type, solana-client",
  "access-control-max-age": "86400",
};

/**
 * @param {(name: string) => import("./rpc/dispatch.js").Method | undefined} find
 * @param {(line: string) => void} log
 * @returns {http.Server}
 */
export function httpServer(find, log) {
  const server = http.createServer((request, response) => {
    handle(request, response, find, log).catch((err) => {
      log(`request failed: ${err.message}`);
      response.destroy();
    });
  });
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  return server;
}

/**
 * @param {http.IncomingMessage} request
 * @param {http.ServerResponse} response
 * @param {(name: string) => import("./rpc/dispatch.js").Method | undefined} find
 * @param {(line: string) => void} log
 */
async function handle(request, response, find, log) {
  if (request.method === "OPTIONS") return send(response, 204, "");
  if (request.method === "GET" && request.url === "/health") return send(response, 200, "ok", "text/plain");
  if (request.method !== "POST") return send(response, 405, "Used HTTP Method is not allowed. POST or OPTIONS is required\n", "text/plain");
  const body = await readBody(request);
  if (body === null) return send(response, 413, `the request body is larger than ${MAX_BODY_BYTES} bytes\n`, "text/plain");
  const answer = await dispatch(body, find, log);
  send(response, 200, answer ?? "", "application/json");
}

/**
 * @param {http.IncomingMessage} request
 * @returns {Promise<string | null>} null when it is too large
 */
async function readBody(request) {
  if (Number(request.headers["content-length"] ?? 0) > MAX_BODY_BYTES) return null;
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/**
 * @param {http.ServerResponse} response
 * @param {number} status
 * @param {string} body
 * @param {string} [type]
 */
function send(response, status, body, type) {
  // A body that was refused is not read: the connection cannot be used again.
  const close = status === 413 ? { connection: "close" } : {};
  response.writeHead(status, { ...CORS, ...close, ...(type ? { "content-type": type } : {}), "content-length": Buffer.byteLength(body) });
  response.end(body);
}
