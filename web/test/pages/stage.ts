// A stage for the built console: its files under the server's own policy, and API answers that a test sets. It shows states
// that a real stack reaches rarely (errors, expiry, no capacity, a cut line); the loop on a real stack is in e2e/.
import { readFileSync, existsSync, statSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import type { Problem } from "../../src/api/types";

const DIST = join(import.meta.dirname, "..", "..", "dist");
const TYPES: Record<string, string> = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2" };

// The policy of api/console.go.
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; " +
  "manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

export interface Asked {
  method: string;
  path: string;
  query: URLSearchParams;
  headers: IncomingMessage["headers"];
  body: unknown;
}

export type Answer = (asked: Asked) => unknown;

/** Thrown by an answer to send a problem document. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    code: string,
    detail: string,
    details?: unknown,
    errors: Problem["errors"] = [],
  ) {
    super(detail);
    this.problem = { type: "about:blank", title: "Refused", status, code, detail, request_id: "req_0123456789", details, errors };
  }
  readonly problem: Problem;
}

export class Stage {
  readonly asked: Asked[] = [];
  private readonly answers = new Map<string, Answer>();
  private readonly streams = new Set<ServerResponse>();
  private server: Server | null = null;
  refuseStreams = false;

  /** Sets what "GET /v1/clusters/*" answers. */
  on(route: string, answer: Answer): this {
    this.answers.set(route, answer);
    return this;
  }

  reset(answers: Record<string, Answer>): void {
    this.answers.clear();
    this.asked.length = 0;
    this.refuseStreams = false;
    for (const [route, answer] of Object.entries(answers)) this.on(route, answer);
  }

  calls(method: string, path: string): Asked[] {
    return this.asked.filter((one) => one.method === method && one.path === path);
  }

  async start(): Promise<string> {
    this.server = createServer((request, response) => void this.serve(request, response));
    await new Promise<void>((resolve) => this.server?.listen(0, "127.0.0.1", resolve));
    return `http://localhost:${(this.server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.cutStreams();
    this.server?.closeAllConnections();
    await new Promise((resolve) => this.server?.close(resolve));
  }

  send(event: { id: string; type: string; data: unknown }): void {
    for (const stream of this.streams) stream.write(`id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event.data)}\n\n`);
  }

  cutStreams(): void {
    for (const stream of this.streams) stream.destroy();
    this.streams.clear();
  }

  get openStreams(): number {
    return this.streams.size;
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://localhost");
    if (!url.pathname.startsWith("/v1/")) {
      sendFile(url.pathname, response);
      return;
    }
    const asked: Asked = { method: request.method ?? "GET", path: url.pathname, query: url.searchParams, headers: request.headers, body: await bodyOf(request) };
    this.asked.push(asked);
    if (url.pathname === "/v1/stream") this.stream(response);
    else await this.answer(asked, response);
  }

  private stream(response: ServerResponse): void {
    if (this.refuseStreams) {
      response.writeHead(503).end();
      return;
    }
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(": open\n\n");
    this.streams.add(response);
    response.on("close", () => this.streams.delete(response));
  }

  private async answer(asked: Asked, response: ServerResponse): Promise<void> {
    try {
      const found = this.find(asked);
      if (found === undefined) throw new Refusal(404, "not_found", `There is no ${asked.path}.`);
      const body = await found(asked);
      if (body === undefined) response.writeHead(204).end();
      else response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(body));
    } catch (error) {
      const refusal = error instanceof Refusal ? error : new Refusal(500, "internal", String(error));
      response.writeHead(refusal.status, { "Content-Type": "application/problem+json" }).end(JSON.stringify(refusal.problem));
    }
  }

  private find(asked: Asked): Answer | undefined {
    const exact = this.answers.get(`${asked.method} ${asked.path}`);
    if (exact !== undefined) return exact;
    for (const [route, answer] of this.answers) {
      const pattern = new RegExp(`^${route.replaceAll("*", "[^/]+")}$`);
      if (pattern.test(`${asked.method} ${asked.path}`)) return answer;
    }
    return undefined;
  }
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString();
  return text === "" ? undefined : JSON.parse(text);
}

function sendFile(path: string, response: ServerResponse): void {
  const wanted = join(DIST, path);
  const file = wanted.startsWith(DIST) && existsSync(wanted) && statSync(wanted).isFile() ? wanted : join(DIST, "index.html");
  response.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream", "Content-Security-Policy": POLICY });
  response.end(readFileSync(file));
}
