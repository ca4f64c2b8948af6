// The whole loop on a real stack, as the three people see it: book, compute, release, pay out, reconcile.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, overflow, violations } from "./browser.mjs";
import { stack } from "./stack.mjs";

const SHOTS = join(import.meta.dirname, "..", "..", "var", "screenshots");
const READY_MS = 300_000; // two cores may be busy with much else
const JOB_MS = 120_000;
const CHAIN_MS = 90_000;

const LOOKS = [
  { theme: "light", width: 1280, height: 900 },
  { theme: "dark", width: 360, height: 780 },
];

// Spreads one task over each GPU and prints how many nodes answered.
const ENTRYPOINT = `python -c "
import ray
ray.init()
node = ray.remote(num_gpus=1, scheduling_strategy='SPREAD')(lambda: __import__('time').sleep(2) or ray.get_runtime_context().get_node_id())
print('nodes that computed:', len(set(ray.get([node.remote() for _ in range(2)]))))
"`;

/** @type {Awaited<ReturnType<typeof stack>>} */
let running;
/** @type {import("playwright-core").Browser} */
let browser;
/** What one step leaves for the next. */
const found = { cluster: "", engineer: "", owner: "", finance: "" };

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  running = await stack();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await running?.stop();
});

/** Signs one of the three people in and returns their page. */
async function signedIn(role, wants) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: "light", permissions: ["clipboard-read", "clipboard-write"] });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on("pageerror", (error) => assert.fail(`the page threw: ${error.message}`));
  await page.goto(running.url);
  await page.getByRole("button", { name: wants }).click();
  await page.getByRole("navigation", { name: "Sections" }).waitFor();
  found[role] = new URL(page.url()).pathname.split("/").slice(0, 3).join("/");
  return page;
}

/** Looks at the page as it is, in both themes and widths. */
async function look(page, name) {
  for (const { theme, width, height } of LOOKS) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: theme, reducedMotion: "reduce" });
    await page.evaluate(() => document.fonts.ready);
    assert.deepEqual(await violations(page), [], `${name}, ${theme}, ${width} px`);
    assert.equal(await overflow(page), 0, `${name} sticks out at ${width} px`);
    await page.evaluate(() => window.scrollTo(0, 0));
    await page.screenshot({ path: join(SHOTS, `${name}-${theme}-${width}.png`), fullPage: true });
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light", reducedMotion: null });
}

/** Waits until the cluster is delivered; one that is not fails with what the page says happened. */
async function becomesReady(page) {
  const delivered = page.getByText("Delivered as booked", { exact: true });
  const outcome = delivered.or(page.getByText("This cluster failed"));
  const events = page.getByRole("region", { name: "Events, newest first" });
  await outcome.waitFor({ timeout: READY_MS }).catch(async () => {
    const [line, head] = [await page.getByRole("banner").innerText(), await page.locator(".page-head").innerText()];
    assert.fail(`no outcome within ${READY_MS / 1_000} s: ${line}; ${head}; ${await events.innerText()}`);
  });
  if (!(await delivered.isVisible())) assert.fail(`the cluster failed: ${await events.innerText()}`);
}

/** Ray's job API refuses what looks like a browser, and fetch sends Sec-Fetch headers. */
function submit(address, token, entrypoint) {
  const url = new URL(`${address.replace(/\/$/, "")}/api/jobs/`);
  return new Promise((resolve, reject) => {
    const asked = request(url, { method: "POST", headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" } }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (chunk) => (body += chunk));
      response.on("end", () => (response.statusCode === 200 ? resolve(JSON.parse(body)) : reject(new Error(`Ray answered ${response.statusCode}: ${body}`))));
    });
    asked.on("error", reject);
    asked.end(JSON.stringify({ entrypoint }));
  });
}

test("the sign-in page is accessible", async () => {
  const page = await browser.newPage();
  await page.goto(running.url);
  await page.getByRole("button", { name: "books clusters" }).waitFor();
  await look(page, "sign-in");
  await page.close();
});

test("an engineer books a cluster, runs a job on it and releases it", async () => {
  const page = await signedIn("engineer", "books clusters");

  await page.goto(`${running.url}${found.engineer}/new`);
  await page.getByRole("button", { name: /^Book / }).first().click();
  const start = page.getByRole("button", { name: /^Start, hold / });
  const faucet = page.getByRole("button", { name: /^Add 100 test / });
  await start.or(faucet).waitFor();
  if (await faucet.isVisible()) {
    await faucet.click();
    await start.waitFor({ timeout: CHAIN_MS });
  }
  await look(page, "book");
  await start.click();

  await page.getByRole("heading", { name: "Assembly" }).waitFor();
  await page.screenshot({ path: join(SHOTS, "cluster-assembling-light-1280.png"), fullPage: true });
  found.cluster = new URL(page.url()).pathname;
  await becomesReady(page);

  await page.getByRole("button", { name: "Create a token" }).click();
  await page.getByRole("button", { name: /^Copy snippet/ }).click();
  await page.getByRole("status").getByText("copied").waitFor();
  const snippet = await page.evaluate(() => navigator.clipboard.readText());
  const value = (name) => new RegExp(`export ${name}=(\\S+)`).exec(snippet)?.[1] ?? assert.fail(`${name} is not in the snippet`);
  const { submission_id: job } = await submit(value("RAY_API_SERVER_ADDRESS"), value("RAY_AUTH_TOKEN"), ENTRYPOINT);

  const row = page.getByRole("row").filter({ has: page.getByTitle(job) });
  await row.getByRole("button", { name: /^Logs/ }).click();
  await row.getByText("Succeeded").waitFor({ timeout: JOB_MS });
  await page.getByRole("log").getByText("nodes that computed: 2").waitFor();
  await look(page, "cluster-ready");

  await page.getByRole("button", { name: "Release", exact: true }).click();
  await page.getByRole("dialog").getByText("Returned").waitFor();
  await look(page, "cluster-release");
  await page.getByRole("button", { name: "Release cluster" }).click();
  await page.getByText("This cluster was released").waitFor({ timeout: CHAIN_MS });
  await page.getByText("Settled:").waitFor({ timeout: CHAIN_MS });
  await look(page, "cluster-released");

  for (const [path, name, sign] of [
    ["clusters", "clusters", "Released"],
    ["wallet", "wallet", "Deposit address"],
    ["keys", "keys", "Your keys"],
  ]) {
    await page.goto(`${running.url}${found.engineer}/${path}`);
    await page.getByText(sign).first().waitFor();
    await page.getByText("Loading", { exact: true }).first().waitFor({ state: "detached" });
    await look(page, name);
  }
  await page.context().close();
});

test("an API key is shown once and can be revoked", async () => {
  const page = await signedIn("engineer", "books clusters");
  await page.goto(`${running.url}${found.engineer}/keys`);
  await page.getByRole("button", { name: "New key" }).click();
  await page.getByLabel("Name").fill("browser test");
  await page.getByRole("button", { name: "Create key" }).click();
  await page.getByText(/^mst_[0-9A-Za-z]{20,}/).waitFor();
  await page.reload();
  await page.getByRole("row", { name: /browser test/ }).getByRole("button", { name: "Revoke" }).click();
  assert.equal(await page.getByText(/^mst_[0-9A-Za-z]{20,}/).count(), 0);
  await page.getByRole("button", { name: "Revoke key" }).click();
  await page.getByRole("row", { name: /browser test/ }).waitFor({ state: "detached" });
  await page.context().close();
});

test("an owner sees hosts that earn, and can add one", async () => {
  const page = await signedIn("owner", "earns with hosts");
  await page.goto(`${running.url}${found.owner}/hosts`);
  await page.getByRole("table").getByRole("link").first().waitFor();
  await look(page, "hosts");
  await page.getByRole("table").getByRole("link").first().click();
  await page.getByRole("heading", { name: "Machine" }).waitFor();
  await look(page, "host");

  await page.goto(`${running.url}${found.owner}/hosts/new`);
  await page.getByLabel("Region").fill("eu-west");
  await page.getByRole("button", { name: "Get the command" }).click();
  await page.getByText(/muster-worker/).first().waitFor();
  await look(page, "hosts-new");

  await page.goto(`${running.url}${found.owner}/earnings`);
  await page.getByText("Per host").waitFor();
  await look(page, "earnings");
  await page.context().close();
});

test("finance pays the owner on chain and reconciles without a difference", async () => {
  const page = await signedIn("finance", "pays out and reconciles");
  await page.goto(`${running.url}${found.finance}/finance/payouts`);
  await page.getByText("Payees of the next run").waitFor();
  await look(page, "payouts");
  await page.getByRole("button", { name: "Start a payout run" }).click();
  await page.getByRole("dialog").getByText("Would be paid").waitFor();
  await look(page, "payouts-start");
  await page.getByRole("button", { name: "Start the run" }).click();
  await page.getByRole("button", { name: /^Approve \d+ draft/ }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Approve payout" }).click();
  await page.getByText(/^(\d+) of \1 payees? paid$/).waitFor({ timeout: CHAIN_MS });
  await look(page, "payout-run");
  await page.getByRole("region", { name: "Batches" }).last().getByRole("link").first().click();
  await page.locator(".page-head").getByText("Finalized").waitFor({ timeout: CHAIN_MS });
  await look(page, "payout");

  await page.goto(`${running.url}${found.finance}/finance/reconcile`);
  await page.getByRole("button", { name: "Reconcile now" }).click();
  await page.getByText("0 differences").waitFor({ timeout: CHAIN_MS });
  await look(page, "reconciliation");
  await page.goto(`${running.url}${found.finance}/finance/reconcile`);
  await page.getByText("Clean").first().waitFor();
  await look(page, "reconcile");
  await page.context().close();
});

test("a customer withdraws, and finance sees it on its way and pays it", async () => {
  const page = await signedIn("engineer", "books clusters");
  const wallet = `${running.url}${found.engineer}/wallet`;
  await page.goto(wallet);
  const withdraw = page.getByRole("button", { name: "Withdraw", exact: true });
  const faucet = page.getByRole("button", { name: /^Add 100 test / });
  await withdraw.and(page.locator(":enabled")).or(page.getByText(/^There is less than/)).waitFor();
  if (await withdraw.isDisabled()) {
    await faucet.click();
    await withdraw.and(page.locator(":enabled")).waitFor({ timeout: CHAIN_MS });
  }
  await withdraw.click();
  const dialog = page.getByRole("dialog");
  const amount = dialog.getByLabel(/^Amount/);
  const payoutAddress = dialog.getByLabel("New payout address");
  await amount.or(payoutAddress).waitFor();
  if (await payoutAddress.isVisible()) {
    await payoutAddress.fill(await dialog.getByTitle(/^[1-9A-HJ-NP-Za-km-z]{32,44}$/).getAttribute("title"));
    await look(page, "wallet-payout-address");
    await dialog.getByRole("button", { name: "Sign and save" }).click();
  }
  await amount.fill("2.5");
  await look(page, "wallet-withdraw");
  await dialog.getByRole("button", { name: /^Withdraw 2.5 / }).click();
  const row = page.getByRole("region", { name: "Withdrawals" }).last().getByRole("row").filter({ hasText: "2.50" }).first();
  await row.getByText("Waits for a payout").waitFor();

  const finance = await signedIn("finance", "pays out and reconciles");
  await finance.goto(`${running.url}${found.finance}/finance/payouts`);
  await finance.getByRole("row").filter({ hasText: "Withdrawal" }).filter({ hasText: "2.50" }).waitFor();
  await finance.getByRole("button", { name: "Start a payout run" }).click();
  await finance.getByRole("button", { name: "Start the run" }).click();
  await finance.getByRole("button", { name: /^Approve \d+ draft/ }).click();
  await finance.getByRole("dialog").getByRole("button", { name: "Approve payout" }).click();
  await finance.getByText(/^(\d+) of \1 payees? paid$/).waitFor({ timeout: CHAIN_MS });

  await row.getByText("Paid", { exact: true }).waitFor({ timeout: CHAIN_MS });
  await row.getByRole("button", { name: "Copy transaction signature" }).waitFor();
  await look(page, "wallet-withdrawn");
  await finance.context().close();
  await page.context().close();
});

/** Gives the owner a role on the platform, or takes it back: nobody of the platform but finance is on a local network. */
async function seconded(finance, roles) {
  const status = await finance.evaluate(async ({ org, roles }) => {
    const { burner_wallets: people } = await (await window.fetch("/v1/network")).json();
    const { name, address } = people.find(({ role }) => role === "owner");
    const answer = await window.fetch(`/v1/members?org=${org}`, { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ wallet_address: address, name, roles }) });
    return `${answer.status} ${answer.ok ? "" : await answer.text()}`;
  }, { org: found.finance.split("/").at(-1), roles });
  assert.equal(status.trim(), "200");
}

test("a deposit and a payout that two people made are in the books, down to the fee", async () => {
  const page = await signedIn("engineer", "books clusters");
  await page.goto(`${running.url}${found.engineer}/wallet`);
  await page.getByRole("img", { name: /^Solana Pay code for the deposit address / }).waitFor();
  const credited = page.getByRole("region", { name: "Deposits seen on chain" }).getByText("Credited", { exact: true });
  const available = page.locator(".figure").filter({ hasText: "Available" }).locator("dd");
  await credited.first().waitFor();
  const [deposits, balance] = [await credited.count(), Number.parseFloat((await available.innerText()).replaceAll(",", ""))];
  await page.getByRole("button", { name: /^Add 100 test / }).click();
  await credited.nth(deposits).waitFor({ timeout: CHAIN_MS });
  await page.getByRole("region", { name: "Movements" }).getByText("+100.00").first().waitFor();
  const more = (balance + 100).toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 6 });
  await available.filter({ hasText: more }).waitFor();
  await page.getByRole("button", { name: "Withdraw", exact: true }).click();
  await page.getByRole("dialog").getByLabel(/^Amount/).fill("4.75");
  await page.getByRole("button", { name: /^Withdraw 4.75 / }).click();
  await page.getByRole("region", { name: "Withdrawals" }).last().getByRole("row").filter({ hasText: "4.75" }).getByText("Waits for a payout").waitFor();
  await page.context().close();

  const finance = await signedIn("finance", "pays out and reconciles");
  const section = (path) => `${running.url}${found.finance}/finance/${path}`;
  await finance.goto(section("payouts"));
  await finance.getByRole("button", { name: "Start a payout run" }).click();
  await finance.getByRole("button", { name: "Start the run" }).click();
  await finance.getByRole("button", { name: /^Approve \d+ draft/ }).waitFor();

  await seconded(finance, ["finance"]);
  const second = await signedIn("owner", "earns with hosts");
  await second.goto(finance.url());
  await second.getByRole("button", { name: /^Approve \d+ draft/ }).click();
  await second.getByRole("dialog").getByRole("button", { name: "Approve payout" }).click();
  await finance.getByText(/^(\d+) of \1 payees? paid$/).waitFor({ timeout: CHAIN_MS });
  await second.context().close();
  await seconded(finance, []);
  await finance.getByRole("region", { name: "Batches" }).last().getByRole("link").first().click();
  await finance.locator(".page-head").getByText("Finalized").waitFor({ timeout: CHAIN_MS });
  await finance.getByText("Olaf, GPU owner").first().waitFor();
  const payout = new URL(finance.url()).pathname;

  await finance.goto(section("reconcile"));
  await finance.getByRole("button", { name: "Reconcile now" }).click();
  await finance.getByText("0 differences").waitFor({ timeout: CHAIN_MS });
  await finance.goto(section("sol?kind=base_fee"));
  const fee = finance.getByRole("row").filter({ has: finance.locator(`a[href="${payout}"]`) });
  await fee.getByText("Base fees").waitFor();
  await fee.getByText("-0.00").first().waitFor();
  await look(finance, "sol");

  await finance.goto(section("books"));
  await finance.getByRole("region", { name: "Open months" }).last().waitFor();
  await finance.getByRole("button", { name: "Close a month" }).click();
  await finance.getByRole("button", { name: "Close it" }).click();
  const month = finance.getByRole("region", { name: "Closed months" }).last();
  await month.getByText("Closed, still the same").waitFor();
  await look(finance, "books");
  const [report] = await Promise.all([finance.waitForEvent("popup"), month.getByRole("link", { name: "Report" }).click()]);
  await report.getByRole("heading", { level: 1 }).filter({ hasText: /20\d\d/ }).waitFor();
  assert.notEqual(await report.evaluate(() => window.getComputedStyle(window.document.body).maxWidth), "none", "its policy keeps the report from its style");
  assert.deepEqual(await violations(report), [], "the report of a month");
  const open = finance.getByRole("region", { name: "Open months" }).last();
  const [file] = await Promise.all([finance.waitForEvent("download"), open.getByRole("link", { name: /^Cryptio/ }).first().click()]);
  assert.match(file.suggestedFilename(), /\.csv$/);
  await month.getByRole("link", { name: /^\d{4}-\d{2}$/ }).first().click();
  await finance.getByRole("heading", { name: "Frozen figures" }).waitFor();
  await look(finance, "month");
  await finance.context().close();
});

test("finance drops a draft, and sets when runs begin", async () => {
  const page = await signedIn("engineer", "books clusters");
  await page.goto(`${running.url}${found.engineer}/wallet`);
  await page.getByRole("button", { name: "Withdraw", exact: true }).click();
  await page.getByRole("dialog").getByLabel(/^Amount/).fill("3.25");
  await page.getByRole("button", { name: /^Withdraw 3.25 / }).click();
  const row = page.getByRole("region", { name: "Withdrawals" }).last().getByRole("row").filter({ hasText: "3.25" }).first();
  await row.getByText("Waits for a payout").waitFor();

  const finance = await signedIn("finance", "pays out and reconciles");
  await finance.goto(`${running.url}${found.finance}/finance/payouts`);
  await finance.getByRole("button", { name: "Start a payout run" }).click();
  await finance.getByRole("button", { name: "Start the run" }).click();
  await finance.getByRole("region", { name: "Batches" }).last().getByRole("link").first().click();
  await finance.getByRole("button", { name: "Cancel", exact: true }).click();
  await finance.getByLabel("Why").fill("The customer asked us to wait.");
  await finance.getByRole("button", { name: "Cancel payout" }).click();
  await finance.getByText("Cancelled: no token moved").waitFor();
  await look(finance, "payout-cancelled");
  await row.getByText("Waits for a payout").waitFor();
  await row.getByRole("button", { name: "Give up" }).click();
  await page.getByRole("button", { name: "Give it up" }).click();
  await row.getByText("Given up").waitFor();

  await finance.goto(`${running.url}${found.finance}/finance/payouts`);
  await finance.getByRole("button", { name: "Change" }).click();
  const dialog = finance.getByRole("dialog");
  await dialog.getByLabel("Runs begin by themselves").check();
  await dialog.getByLabel("On weekdays").check();
  await dialog.getByLabel("Mon").check();
  await dialog.getByLabel("At, UTC").fill("05:30");
  await dialog.getByRole("button", { name: "Save" }).click();
  await finance.getByText("Mon at 05:30 UTC").waitFor();
  await finance.context().close();
  await page.context().close();
});

test("the owner sees the payout with its transaction", async () => {
  const page = await signedIn("owner", "earns with hosts");
  await page.goto(`${running.url}${found.owner}/earnings`);
  const payouts = page.getByRole("region", { name: "Payouts" }).first();
  await payouts.getByText("Finalized").first().waitFor();
  await payouts.getByRole("button", { name: "Copy transaction signature" }).first().waitFor();
  await look(page, "earnings-paid");
  await page.context().close();
});

test("people do not see what is not theirs", async () => {
  const page = await signedIn("owner", "earns with hosts");
  await page.goto(`${running.url}${found.cluster.replace(found.engineer, found.owner)}`);
  await page.getByRole("alert").waitFor();
  await page.goto(`${running.url}${found.engineer}/clusters`);
  await page.getByText("There is no such organisation").waitFor();
  await page.context().close();
});
