// Every page, in both themes and at two widths: no violation of WCAG 2.2 AA, nothing sticks out at 320 px, every column in sight at 1280 px, no console error.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as answers from "./answers";
import { hiddenColumns, launch, overflow, violations } from "../../e2e/browser.mjs";
import { Refusal, Stage } from "./stage";

const SHOTS = join(import.meta.dirname, "..", "..", "..", "var", "screenshots", "pages");
const EVERYBODY = answers.me(true, "engineer", "owner", "finance");

interface Scene {
  name: string;
  path: string;
  ready: string;
  prepare?: (stage: Stage) => void;
  act?: (page: Page) => Promise<unknown>;
}

const org = `/o/${answers.ORG}`;

const SCENES: Scene[] = [
  { name: "sign-in", path: "/", ready: "Sign in with your wallet", prepare: (stage) => void stage.on("GET /v1/me", answers.signedOut).on("GET /v1/network", () => ({ ...answers.network, burner_wallets: answers.burners })) },
  { name: "book", path: `${org}/new`, ready: "Idle now" },
  { name: "book-quoted", path: `${org}/new?model=H100&regions=%5B%22eu-west%22%5D`, ready: "Start, hold 3.80 USDC" },
  { name: "book-no-match", path: `${org}/new?model=H100&nodes=9&start=2030-01-01T12:00&park=30m`, ready: "What would fit", prepare: (stage) => void stage.on("POST /v1/quotes", () => { throw new Refusal(409, "no_capacity", "Nothing fits.", answers.explanation); }) },
  { name: "market", path: `${org}/market?model=H100`, ready: "Figures" },
  { name: "cluster-extend", path: `${org}/clusters/${answers.CLUSTER}`, ready: "Extend or grow", act: (page) => page.getByRole("button", { name: "+1 h" }).click() },
  { name: "cluster-parked", path: `${org}/clusters/${answers.CLUSTER}`, ready: "its GPUs were given back", prepare: (stage) => void stage.on("GET /v1/clusters/*", () => answers.cluster({ state: "parked", billing: false })) },
  { name: "clusters", path: `${org}/clusters`, ready: "brisk-heron" },
  { name: "cluster-assembling", path: `${org}/clusters/${answers.CLUSTER}`, ready: "not billing yet", prepare: (stage) => stage.on("GET /v1/clusters/*", answers.assembling) },
  { name: "cluster-ready", path: `${org}/clusters/${answers.CLUSTER}?job=${answers.jobs[0]?.id ?? ""}`, ready: "step 60", act: (page) => page.getByRole("button", { name: "Create a token" }).click() },
  { name: "cluster-release", path: `${org}/clusters/${answers.CLUSTER}`, ready: "Delivered as booked", act: (page) => page.getByRole("button", { name: "Release" }).click() },
  {
    name: "cluster-failed",
    path: `${org}/clusters/${answers.CLUSTER}`,
    ready: "This cluster failed",
    prepare: (stage) => stage.on("GET /v1/clusters/*", answers.failed),
    act: (page) => page.getByText("Show all of it").first().click(),
  },
  { name: "wallet", path: `${org}/wallet`, ready: "Hold for brisk-heron" },
  { name: "keys", path: `${org}/keys`, ready: "laptop" },
  { name: "hosts", path: `${org}/hosts`, ready: "basement" },
  { name: "host", path: `${org}/hosts/${answers.HOST}`, ready: "580.159.03" },
  { name: "host-rules", path: `${org}/hosts/${answers.HOST}`, ready: "580.159.03", act: (page) => page.getByRole("button", { name: "Rules" }).click() },
  { name: "hosts-new", path: `${org}/hosts/new`, ready: "Where is it?" },
  { name: "earnings", path: `${org}/earnings`, ready: "atlas-2" },
  { name: "statements", path: `${org}/statements?month=2026-10`, ready: "Its host is lost" },
  { name: "statements-owner", path: `${org}/statements?month=2026-10&as=owner`, ready: "What is owed to you" },
  { name: "wallet-withdraw", path: `${org}/wallet`, ready: "Hold for brisk-heron", act: (page) => page.getByRole("button", { name: "Withdraw" }).click() },
  { name: "wallet-no-address", path: `${org}/wallet`, ready: "Hold for brisk-heron", prepare: (stage) => void stage.on("GET /v1/me", answers.homeless).on("GET /v1/network", () => ({ ...answers.network, burner_wallets: answers.burners })), act: (page) => page.getByRole("button", { name: "Withdraw" }).click() },
  { name: "payouts", path: `${org}/finance/payouts`, ready: "Below the smallest payout", act: (page) => page.getByText("Each nonce").click() },
  { name: "payouts-start", path: `${org}/finance/payouts`, ready: "Below the smallest payout", act: (page) => page.getByRole("button", { name: "Start a payout run" }).click() },
  { name: "payouts-schedule", path: `${org}/finance/payouts`, ready: "Mon, Thu at 06:00 UTC", act: (page) => page.getByRole("button", { name: "Change" }).click() },
  { name: "payout-run", path: `${org}/finance/payouts/runs/${answers.PAYOUT_RUN}`, ready: "Handed Over GmbH" },
  { name: "payout-run-own", path: `${org}/finance/payouts/runs/${answers.PAYOUT_RUN}`, ready: "You started this run", prepare: (stage) => stage.on("GET /v1/finance/runs/*", () => answers.payoutRun({ approve_obstacle: "you started this run: somebody else must approve it" })) },
  { name: "payout", path: `${org}/finance/payouts/${answers.BATCH}`, ready: "Basement GPUs" },
  { name: "payout-draft", path: `${org}/finance/payouts/${answers.BATCH}`, ready: "Basement GPUs", prepare: (stage) => stage.on("GET /v1/finance/batches/*", answers.draft), act: (page) => page.getByRole("button", { name: "Approve" }).click() },
  { name: "payout-cancel", path: `${org}/finance/payouts/${answers.BATCH}`, ready: "Basement GPUs", prepare: (stage) => stage.on("GET /v1/finance/batches/*", () => ({ ...answers.draft(), state: "sent" })), act: (page) => page.getByRole("button", { name: "Cancel" }).click() },
  { name: "payout-frozen", path: `${org}/finance/payouts/${answers.BATCH}`, ready: "What to do", prepare: (stage) => stage.on("GET /v1/finance/batches/*", () => answers.frozen()) },
  { name: "payout-resolve", path: `${org}/finance/payouts/${answers.BATCH}`, ready: "What to do", prepare: (stage) => stage.on("GET /v1/finance/batches/*", () => answers.frozen()), act: (page) => page.getByRole("button", { name: "Resolve" }).click() },
  { name: "payout-proposed", path: `${org}/finance/payouts/${answers.BATCH}`, ready: "You proposed this", prepare: (stage) => stage.on("GET /v1/finance/batches/*", () => answers.frozen({ resolution: { ...answers.resolution, own: true } })) },
  { name: "reconcile", path: `${org}/finance/reconcile`, ready: "Basement GPUs" },
  { name: "reconcile-resolve", path: `${org}/finance/reconcile`, ready: "Only on chain", act: async (page) => { await page.getByRole("button", { name: "Resolve" }).click(); await page.getByText("taken on").waitFor(); } },
  { name: "reconcile-resolved", path: `${org}/finance/reconcile`, ready: "A top-up by hand", prepare: (stage) => stage.on("GET /v1/finance/differences", () => ({ items: [answers.difference({ state: "resolved", resolution: "chain_explained", reason: "A top-up by hand.", resolved_by: "Ada" })] })), act: async (page) => { await page.getByRole("button", { name: "History" }).click(); await page.getByText("taken on").waitFor(); } },
  { name: "deposits", path: `${org}/finance/deposits`, ready: "Basement GPUs" },
  { name: "deposits-decide", path: `${org}/finance/deposits`, ready: "Basement GPUs", act: async (page) => { await page.getByRole("button", { name: "Decide", exact: true }).first().click(); await page.getByLabel("Decision").selectOption("credited"); } },
  { name: "books", path: `${org}/finance/books`, ready: "still the same" },
  { name: "books-month", path: `${org}/finance/books/2026-10`, ready: "Tokens in the treasury" },
  { name: "sol", path: `${org}/finance/sol`, ready: "Rent set aside" },
  { name: "sol-filtered", path: `${org}/finance/sol?month=2026-10&kind=sent`, ready: "The journal has no such lines", prepare: (stage) => stage.on("GET /v1/finance/sol-journal/lines", () => ({ items: [] })) },
  { name: "books-filtered", path: `${org}/finance/books?person=Grace&from=2026-11-01`, ready: "Nothing in the log is like that", prepare: (stage) => stage.on("GET /v1/finance/audit-log", () => ({ items: [] })) },
  { name: "books-close", path: `${org}/finance/books`, ready: "still the same", act: (page) => page.getByRole("button", { name: "Close a month" }).click() },
  { name: "books-reopen", path: `${org}/finance/books`, ready: "still the same", act: (page) => page.getByRole("button", { name: "Agree to open again" }).click() },
  { name: "reconciliation", path: `${org}/finance/reconcile/${answers.RUN}`, ready: "0 differences" },
  { name: "reconciliation-behind", path: `${org}/finance/reconcile/${answers.RUN}`, ready: "Not all of the chain was read yet", prepare: (stage) => stage.on(`GET /v1/finance/reconciliations/${answers.RUN}`, () => answers.run({ state: "behind", reason: "the history of the treasury's wallet is longer than one run reads: its SOL was read up to slot 48,100, and the next runs go on", wallets: (answers.run().wallets ?? []).map((wallet) => ({ ...wallet, behind: true, continuous: false })) })) },
  { name: "welcome", path: "/welcome", ready: "Create an organisation" },
  { name: "not-found", path: `${org}/nowhere`, ready: "Not found" },
];

const stage = new Stage();
let address = "";
let browser: Browser;

beforeAll(async () => {
  mkdirSync(SHOTS, { recursive: true });
  address = await stage.start();
  browser = await launch();
});
afterAll(async () => {
  await browser.close();
  await stage.stop();
});

async function show(scene: Scene, context: BrowserContext): Promise<{ page: Page; errors: string[] }> {
  stage.reset(answers.fullAnswers(EVERYBODY));
  scene.prepare?.(stage);
  const page = await context.newPage();
  const errors: string[] = [];
  // Chromium reports a refused request as an error; being asked to sign in, or that nothing fits, is not one.
  page.on("console", (message) => message.type() === "error" && !/ 40[19] \(/.test(message.text()) && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(address + scene.path);
  await page.getByText(scene.ready, { exact: false }).first().waitFor();
  await scene.act?.(page);
  await page.evaluate(() => document.fonts.ready);
  return { page, errors };
}

const LOOKS = [
  { theme: "light", width: 1280, height: 900 },
  { theme: "dark", width: 360, height: 780 },
] as const;

describe.each(SCENES)("$name", (scene) => {
  it.each(LOOKS)("is accessible and tidy in $theme at $width px", async ({ theme, width, height }) => {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, reducedMotion: "reduce" });
    try {
      const { page, errors } = await show(scene, context);
      expect(await violations(page)).toEqual([]);
      await page.evaluate(() => window.scrollTo(0, 0));
      await page.screenshot({ path: join(SHOTS, `${scene.name}-${theme}-${width}.png`), fullPage: true });
      if (width === 1280) expect(await hiddenColumns(page)).toEqual([]);
      if (width === 360) {
        await page.setViewportSize({ width: 320, height });
        expect(await overflow(page)).toBe(0);
      }
      expect(errors).toEqual([]);
    } finally {
      await context.close();
    }
  });
});
