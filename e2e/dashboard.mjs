// Opens a cluster's Ray dashboard in Chromium from the console, as its engineer does, and tries to come to it in other ways.
// Prints one JSON object of what was seen.
//
//     dashboard.mjs CONSOLE CLUSTER SCREENSHOT SECRET...
//
// No SECRET may be in anything that the browser gets.
import { once } from "node:events";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire(join(import.meta.dirname, "..", "web", "package.json"))("playwright-core");
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const BOUND_MS = 60_000;

const [consoleUrl, cluster, screenshot, ...secrets] = process.argv.slice(2);
const leaks = [];
const reading = [];

const look = (where, text) => {
  if (secrets.some((secret) => text.includes(secret))) leaks.push(where);
};

/** Reads all that the browser gets, headers and bodies. */
function watch(context) {
  context.on("response", (response) => {
    const read = async () => {
      const headers = await response.allHeaders();
      look(`headers of ${response.url()}`, JSON.stringify(headers));
      const endless = (headers["content-type"] ?? "").startsWith("text/event-stream");
      if (endless || (response.status() >= 300 && response.status() < 400)) return; // a redirect has no body
      look(`body of ${response.url()}`, (await response.body()).toString("latin1"));
    };
    reading.push(read().catch(() => undefined)); // of a page that has been left
  });
}

async function open(browser) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  context.setDefaultTimeout(BOUND_MS);
  watch(context);
  return { context, page: await context.newPage() };
}

/** What another origin's page can get from the dashboard with a browser that has a session there. */
function trespass(origin) {
  const outcome = (promise) => promise.then((answer) => `got ${answer.status} ${answer.type}`, () => "refused");
  const socket = new Promise((resolve) => {
    const ws = new WebSocket(`${origin.replace("http", "ws")}/api/jobs/x/logs/tail`);
    ws.onopen = () => resolve("opened");
    ws.onerror = () => resolve("refused");
  });
  return Promise.all([
    outcome(fetch(`${origin}/api/jobs/`, { credentials: "include" })),
    outcome(fetch(`${origin}/api/jobs/`, { credentials: "include", mode: "no-cors" })),
    socket,
  ]);
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
try {
  const { context, page: muster } = await open(browser);
  await muster.goto(consoleUrl);
  await muster.getByRole("button", { name: "books clusters" }).click();
  await muster.getByRole("navigation", { name: "Sections" }).waitFor();
  const home = new URL(muster.url()).pathname.split("/").slice(0, 3).join("/");
  await muster.goto(`${consoleUrl}${home}/clusters/${cluster}?connect=dashboard`);

  const requested = context.waitForEvent("request", (request) => request.url().includes("/.muster/enter"));
  const opened = context.waitForEvent("page");
  await muster.getByRole("button", { name: "Open the dashboard" }).click();
  const ticket = (await requested).url();
  const dashboard = new URL(ticket).origin;
  const page = await opened;
  const failed = [];
  page.on("response", (response) => {
    if (response.status() >= 400) failed.push(`${response.status()} ${new URL(response.url()).pathname}`);
  });
  await page.waitForURL((url) => !url.pathname.startsWith("/.muster/"));
  const address = page.url();
  await page.goto(`${dashboard}/#/cluster`);
  await page.getByText("ALIVE").nth(2).waitFor(); // three nodes: the head and two with GPUs
  await page.screenshot({ path: screenshot });
  const alive = await page.getByText("ALIVE", { exact: true }).count();
  const stored = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  const cookies = await context.cookies();
  look("storage", stored);
  look("cookies", JSON.stringify(cookies));
  // The console's own policy would refuse this, so it is another page that tries.
  const elsewhere = createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<!doctype html>")).listen(0, "127.0.0.1");
  await once(elsewhere, "listening");
  const stranger = await context.newPage();
  await stranger.goto(`http://localhost:${elsewhere.address().port}/`);
  const foreign = await stranger.evaluate(trespass, dashboard);
  const followed = stranger.waitForResponse((response) => response.url().startsWith(dashboard));
  await stranger.evaluate((url) => location.assign(url), `${dashboard}/api/actors/kill?actor_id=1`);
  const link = (await followed).status();
  elsewhere.closeAllConnections();
  elsewhere.close();
  const again = await (await open(browser)).page.goto(ticket);
  const uninvited = await (await open(browser)).page.goto(dashboard);
  const found = {
    dashboard, address, alive, failed, foreign, link, again: again.status(), again_says: await again.text(), uninvited: uninvited.status(),
    cookies: cookies.map(({ name, domain, path, secure, httpOnly, sameSite }) => ({ name, domain, path, secure, httpOnly, sameSite })),
  };
  await Promise.all(reading);
  console.log(JSON.stringify({ ...found, responses: reading.length, leaks }));
} finally {
  await browser.close();
}
