/**
 * JSON-RPC 2.0: one request or a batch in, one response or a list of them out.
 */

import { stringify } from "../json.js";
import { INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, RpcError } from "./errors.js";
import { Params } from "./params.js";

export const MAX_BATCH = 100;

/** @typedef {(params: Params) => unknown} Method */

/**
 * @param {string} body
 * @param {(name: string) => Method | undefined} find
 * @param {(line: string) => void} log
 * @returns {Promise<string | null>} null when nothing is to be answered
 */
export async function dispatch(body, find, log) {
  let request;
  try {
    request = JSON.parse(body);
  } catch {
    return stringify(failure(null, new RpcError(PARSE_ERROR, "Parse error")));
  }
  if (!Array.isArray(request)) {
    const answer = await one(request, find, log);
    return answer && stringify(answer);
  }
  if (request.length === 0 || request.length > MAX_BATCH) {
    return stringify(failure(null, new RpcError(INVALID_REQUEST, `Invalid request: a batch holds 1 to ${MAX_BATCH} requests`)));
  }
  const answers = (await Promise.all(request.map((item) => one(item, find, log)))).filter((answer) => answer !== null);
  return answers.length > 0 ? stringify(answers) : null;
}

/**
 * @param {any} request
 * @param {(name: string) => Method | undefined} find
 * @param {(line: string) => void} log
 */
async function one(request, find, log) {
  const id = request?.id;
  if (request === null || typeof request !== "object" || request.jsonrpc !== "2.0" || typeof request.method !== "string") {
    return failure(id ?? null, new RpcError(INVALID_REQUEST, "Invalid request"));
  }
  try {
    const method = find(request.method);
    if (!method) throw new RpcError(METHOD_NOT_FOUND, `Method not found: ${request.method}`);
    const result = await method(new Params(request.params));
    return id === undefined ? null : { jsonrpc: "2.0", result: result ?? null, id };
  } catch (err) {
    if (id === undefined) return null;
    if (err instanceof RpcError) return failure(id, err);
    log(`internal error in ${request.method}: ${err instanceof Error ? err.stack : String(err)}`);
    return failure(id, new RpcError(INTERNAL_ERROR, "Internal error"));
  }
}

/**
 * @param {unknown} id
 * @param {RpcError} err
 */
function failure(id, err) {
  return { jsonrpc: "2.0", error: err.toJSON(), id };
}
