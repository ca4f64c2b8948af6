// What people do on the pages, and what happens when the server, the clock or the line do not play along.
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import * as answers from "./answers";
import { launch, violations } from "../../e2e/browser.mjs";
import { Refusal, Stage } from "./stage";

const org = `/o/${answers.ORG}`;
const engineer = answers.me(false, "engineer");
const stage = new Stage();
let address = "";
let browser: Browser;
let context: BrowserContext;
let page: Page;

beforeAll(async () => {
  address = await stage.start();
  browser = await launch();
});
afterAll(async () => {
  await browser.close();
  await stage.stop();
});
beforeEach(async () => {
  stage.reset(answers.fullAnswers(engineer));
  context = await browser.newContext({ permissions: ["clipboard-read", "clipboard-write"] });
  page = await context.newPage();
});
afterEach(async () => {
  await context.close();
});

const button = (name: string | RegExp) => page.getByRole("button", { name });

async function eventually<T>(read: () => T | Promise<T>, wanted: T): Promise<void> {
  await expect.poll(read, { timeout: 15_000 }).toEqual(wanted);
}

describe("signing in", () => {
  beforeEach(() => {
    let me: unknown = null;
    stage.on("GET /v1/network", () => ({ ...answers.network, burner_wallets: answers.burners }));
    stage.on("GET /v1/me", (asked) => me ?? answers.signedOut(asked));
    stage.on("POST /v1/auth/nonce", ({ body }) => ({
      domain: "localhost",
      address: (body as { address: string }).address,
      statement: "Sign in to Muster.",
      uri: address,
      version: "1",
      chain_id: "localnet",
      nonce: "n0nce12345",
      issued_at: "2026-11-22T12:00:00Z",
      expiration_time: "2026-11-22T12:05:00Z",
      message: "unused by solana:signIn",
    }));
    stage.on("POST /v1/auth/sign-in", ({ body }) => {
      const signed = body as { address: string; signed_message: string; signature: string };
      const text = Buffer.from(signed.signed_message, "base64").toString();
      if (!answers.isSigned(signed) || !text.includes("Nonce: n0nce12345") || !text.startsWith("localhost wants you")) throw new Refusal(401, "unauthenticated", "The signature is not valid.");
      me = engineer;
      return engineer;
    });
  });

  it("takes one click with a development wallet, and goes where the visitor wanted to", async () => {
    await page.goto(`${address}${org}/wallet`);
    await button(/Ada, ML engineer/).click();
    await page.getByRole("heading", { name: "Wallet", exact: true }).waitFor();
    expect(page.url()).toBe(`${address}${org}/wallet`);
  });

  it("says why when the server refuses", async () => {
    stage.on("POST /v1/auth/sign-in", () => {
      throw new Refusal(401, "unauthenticated", "The sign-in request has expired. Try again.");
    });
    await page.goto(address);
    await button(/Omar, GPU owner/).click();
    await page.getByRole("alert").getByText("The sign-in request has expired").waitFor();
  });

  it("connects and signs with a wallet that announces itself, in two clicks", async () => {
    await page.addInitScript(() => {
      const account = { address: "So11111111111111111111111111111111111111112", publicKey: new Uint8Array(32), chains: ["solana:localnet"], features: ["solana:signMessage"] };
      const wallet = {
        version: "1.0.0",
        name: "Refusing Wallet",
        icon: "data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciLz4=",
        chains: ["solana:localnet"],
        accounts: [],
        features: {
          "standard:connect": { version: "1.0.0", connect: () => Promise.resolve({ accounts: [account] }) },
          "solana:signMessage": { version: "1.0.0", signMessage: () => Promise.reject(Object.assign(new Error("no"), { code: 4001 })) },
        },
      };
      const register = (api: { register: (wallet: unknown) => void }) => api.register(wallet);
      window.addEventListener("wallet-standard:app-ready", (event) => register((event as CustomEvent<{ register: (wallet: unknown) => void }>).detail));
      window.dispatchEvent(new CustomEvent("wallet-standard:register-wallet", { detail: register }));
    });
    await page.goto(address);
    await button("Refusing Wallet").click();
    await button(/Sign in with Refusing Wallet/).click();
    await page.getByText("The wallet declined").waitFor();
  });
});

describe("booking", () => {
  beforeEach(() => {
    stage.on("POST /v1/bookings", () => ({ id: answers.QUOTE, state: "accepted", cluster_id: answers.CLUSTER }));
  });

  it("takes two clicks from a price row", async () => {
    await page.goto(`${address}${org}/new`);
    await button("Book H100 in eu-west").click();
    await button("Start, hold 3.80 USDC").click();
    await page.getByRole("heading", { name: "brisk-heron" }).waitFor();
    expect(stage.calls("POST", "/v1/bookings").map((call) => call.body)).toEqual([{ quote_id: answers.QUOTE }]);
  });

  it("books once on a double click", async () => {
    stage.on("POST /v1/bookings", () => new Promise((resolve) => setTimeout(() => resolve({ id: answers.QUOTE, state: "accepted", cluster_id: answers.CLUSTER }), 300)));
    await page.goto(`${address}${org}/new?model=H100`);
    await button("Start, hold 3.80 USDC").dblclick();
    await page.getByRole("heading", { name: "brisk-heron" }).waitFor();
    expect(stage.calls("POST", "/v1/bookings")).toHaveLength(1);
  });

  it("can be done with the keyboard alone", async () => {
    await page.goto(`${address}${org}/new`);
    await button("Book H100 in us-east").focus();
    await page.keyboard.press("Enter");
    await button("Start, hold 3.80 USDC").waitFor();
    for (let presses = 0; presses < 40; presses++) {
      await page.keyboard.press("Tab");
      if (await button(/^Start, hold/).evaluate((element) => element === document.activeElement)) break;
    }
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "brisk-heron" }).waitFor();
  });

  it("keeps the selection in the address over a reload", async () => {
    await page.goto(`${address}${org}/new`);
    await button("Book H100 in eu-west").click();
    await button("More GPU nodes").click();
    await page.getByText("3 h", { exact: true }).click();
    await eventually(() => stage.calls("POST", "/v1/quotes").at(-1)?.body, { kind: "market", gpu_model: "H100", node_count: 3, gpus_per_node: 1, duration: "3h", regions: ["eu-west"] });
    await page.reload();
    await eventually(() => page.getByLabel("GPU nodes", { exact: true }).inputValue(), "3");
  });

  it("asks for a new quote in place when one expires", async () => {
    const short = () => answers.quote({ id: `bk_${stage.calls("POST", "/v1/quotes").length}`, quoted_at: new Date().toISOString(), expires_at: new Date(Date.now() + 1_500).toISOString() });
    stage.on("POST /v1/quotes", short);
    await page.goto(`${address}${org}/new?model=H100`);
    await button("Start, hold 3.80 USDC").waitFor();
    await expect.poll(() => stage.calls("POST", "/v1/quotes").length, { timeout: 15_000 }).toBeGreaterThan(2);
    await button("Start, hold 3.80 USDC").waitFor();
  });

  it("asks again when the price rose under the click, and books nothing meanwhile", async () => {
    const dear = answers.quote({ id: "bk_dear", hold: answers.usdc("4.20") });
    await page.goto(`${address}${org}/new?model=H100`);
    await button("Start, hold 3.80 USDC").waitFor();
    stage.on("POST /v1/quotes", () => dear);
    stage.on("POST /v1/bookings", ({ body }) => {
      if ((body as { quote_id: string }).quote_id !== "bk_dear") throw new Refusal(410, "expired", "The quote has expired.");
      return { id: "bk_dear", state: "accepted", cluster_id: answers.CLUSTER };
    });
    await button("Start, hold 3.80 USDC").click();
    await page.getByText("The price rose from 3.80 USDC to 4.20 USDC").waitFor();
    expect(stage.calls("POST", "/v1/bookings")).toHaveLength(1);
    await button("Start, hold 4.20 USDC").click();
    await page.getByRole("heading", { name: "brisk-heron" }).waitFor();
  });

  it("takes a price that fell without asking again", async () => {
    await page.goto(`${address}${org}/new?model=H100`);
    await button("Start, hold 3.80 USDC").waitFor();
    stage.on("POST /v1/quotes", () => answers.quote({ id: "bk_cheap", hold: answers.usdc("3.10") }));
    stage.on("POST /v1/bookings", ({ body }) => {
      if ((body as { quote_id: string }).quote_id !== "bk_cheap") throw new Refusal(410, "expired", "The quote has expired.");
      return { id: "bk_cheap", state: "accepted", cluster_id: answers.CLUSTER };
    });
    await button("Start, hold 3.80 USDC").click();
    await page.getByRole("heading", { name: "brisk-heron" }).waitFor();
  });

  it("shows what blocks when nothing fits, and one change that lifts it", async () => {
    stage.on("POST /v1/quotes", ({ body }) => {
      if ((body as { node_count: number }).node_count === 2) return answers.quote();
      throw new Refusal(409, "no_capacity", "Nothing fits.", answers.explanation);
    });
    await page.goto(`${address}${org}/new?model=H100&nodes=9`);
    await page.getByText(answers.explanation.summary).waitFor();
    expect(await violations(page)).toEqual([]);
    await button("Take it 2 nodes instead of 9").click();
    await button("Start, hold 3.80 USDC").waitFor();
  });

  it("filters the offers by the query language, and points at a mistake", async () => {
    stage.on("GET /v1/offers", ({ query }) => {
      if (query.get("q") === "gpu=H100 pice<2") throw new Refusal(422, "invalid", "The query is wrong.", undefined, [{ path: "query.q", message: "there is no field pice; did you mean price?", position: 9 }]);
      return { items: query.get("q") === null ? answers.offers : [answers.offers[1]] };
    });
    await page.goto(`${address}${org}/new`);
    await page.getByLabel("Find").fill("gpu=H100 pice<2");
    await button("Find").click();
    await page.getByText("did you mean price?").waitFor();
    expect(await violations(page)).toEqual([]);
    await page.getByLabel("Find").fill("gpu=H100 region=us");
    await button("Find").click();
    await button("Book H100 in us-east").waitFor();
    expect(page.url()).toContain("q=gpu");
  });

  it("books spot only with a price limit, which goes with it", async () => {
    await page.goto(`${address}${org}/new?model=H100&kind=spot`);
    await page.getByText("a spot booking needs a limit").waitFor();
    expect(stage.calls("POST", "/v1/quotes")).toHaveLength(0);
    await page.getByLabel(/^Most per GPU-hour/).fill("1.50");
    await page.getByLabel(/^Most per GPU-hour/).blur();
    await eventually(() => stage.calls("POST", "/v1/quotes").at(-1)?.body, { kind: "spot", gpu_model: "H100", node_count: 2, gpus_per_node: 1, duration: "1h", max_price_per_gpu_hour: "1.50" });
  });

  it("opens an auction on request, waits for the bids, and books the chosen ones", async () => {
    const spec = { kind: "auction" as const, gpu_model: "H100", node_count: 2, gpus_per_node: 1, duration: "1h", choose: "manual" as const };
    const bidding = answers.quote({ kind: "auction", state: "bidding", spec, lines: [], bids_close_at: new Date(Date.now() + 1_000).toISOString() });
    stage.on("POST /v1/quotes", () => bidding);
    stage.on("GET /v1/quotes/*", () => (stage.calls("GET", `/v1/quotes/${answers.QUOTE}`).length < 3 ? bidding : answers.quote({ kind: "auction", spec })));
    stage.on("POST /v1/bookings", () => ({ id: answers.QUOTE, state: "accepted", cluster_id: answers.CLUSTER }));
    await page.goto(`${address}${org}/new?model=H100&kind=auction&choose=manual`);
    expect(stage.calls("POST", "/v1/quotes")).toHaveLength(0);
    await button("Open the auction").click();
    await page.getByText("Hosts are bidding").waitFor();
    const boxes = page.getByRole("checkbox", { name: /^Take the bid/ });
    await boxes.first().waitFor();
    await boxes.nth(0).uncheck();
    await page.getByText("1 chosen").waitFor();
    expect(await button(/^Start, hold/).isDisabled()).toBe(true);
    await boxes.nth(2).check();
    expect(await violations(page)).toEqual([]);
    await button(/^Start, hold/).click();
    await page.getByRole("heading", { name: "brisk-heron" }).waitFor();
    expect(stage.calls("POST", "/v1/bookings").at(-1)?.body).toEqual({ quote_id: answers.QUOTE, bid_ids: [answers.bids[1]?.id, answers.bids[2]?.id] });
  });

  it("schedules a booking for later, which then waits among the clusters and can be cancelled", async () => {
    stage.on("POST /v1/quotes", () => answers.quote({ starts_at: answers.scheduled.starts_at ?? "" }));
    stage.on("POST /v1/bookings", () => answers.scheduled);
    stage.on("POST /v1/bookings/*/cancel", () => ({ ...answers.scheduled, state: "cancelled" }));
    await page.goto(`${address}${org}/new?model=H100&start=2030-01-01T12:00`);
    await button("Schedule, hold 3.80 USDC").click();
    const row = page.getByRole("region", { name: "Scheduled bookings" });
    await row.getByText("4 × 8 H100").waitFor();
    await row.getByRole("button", { name: "Cancel" }).click();
    await button("Cancel booking").click();
    await eventually(() => stage.calls("POST", `/v1/bookings/${answers.scheduled.id}/cancel`).length, 1);
  });

  it("says what is short and goes on by itself when the deposit is credited", async () => {
    let available = answers.usdc("1.80");
    stage.on("POST /v1/quotes", () => answers.quote({ available }));
    stage.on("GET /v1/wallet", () => ({ ...answers.wallet, available }));
    stage.on("POST /v1/local/faucet", ({ body }) => {
      expect(body).toEqual({ amount: "100" });
      available = answers.usdc("101.80");
      return { signature: "sig", amount: answers.usdc("100") };
    });
    await page.goto(`${address}${org}/new?model=H100`);
    await page.getByText("Short of 2.00 USDC").waitFor();
    await button("Add 100 test USDC").click();
    await button("Start, hold 3.80 USDC").waitFor();
  });
});

describe("a cluster", () => {
  it("becomes ready in front of the viewer, by a pushed event", async () => {
    stage.on("GET /v1/clusters/*", answers.assembling);
    await page.goto(`${address}${org}/clusters/${answers.CLUSTER}`);
    await page.getByText("not billing yet").waitFor();
    await page.getByText("Live", { exact: true }).waitFor();
    stage.on("GET /v1/clusters/*", () => answers.cluster());
    stage.send({ id: "7", type: "cluster", data: { id: answers.CLUSTER, version: 9, seq: 7, message: "ready" } });
    await page.getByText("Delivered as booked").waitFor();
    await page.getByRole("status").getByText("brisk-heron: Ready").waitFor();
  });

  it("says that the line is cut, and resumes after the last event", async () => {
    await page.goto(`${address}${org}/clusters/${answers.CLUSTER}`);
    await page.getByText("Live", { exact: true }).waitFor();
    stage.on("GET /v1/clusters/*", () => answers.cluster({ name: "after the event" }));
    stage.send({ id: "41", type: "cluster", data: { id: answers.CLUSTER, version: 10, seq: 41, message: "x" } });
    await page.getByRole("heading", { name: "after the event" }).waitFor();
    stage.refuseStreams = true;
    stage.cutStreams();
    await page.getByText("Reconnecting").waitFor();
    stage.refuseStreams = false;
    await page.getByText("Live", { exact: true }).waitFor({ timeout: 15_000 });
    expect(stage.calls("GET", "/v1/stream").at(-1)?.headers["last-event-id"]).toBe("41");
  });

  it("shares one stream between two tabs, and hands it on when the first closes", async () => {
    await page.goto(`${address}${org}/clusters/${answers.CLUSTER}`);
    await page.getByText("Live", { exact: true }).waitFor();
    const second = await context.newPage();
    await second.goto(`${address}${org}/clusters/${answers.CLUSTER}`);
    await second.getByText("Live", { exact: true }).waitFor();
    expect(stage.openStreams).toBe(1);
    await page.close();
    await second.getByText("Live", { exact: true }).waitFor();
    await eventually(() => stage.calls("GET", "/v1/stream").length, 2);
  });

  it("gives real values with a masked token, and copies the whole", async () => {
    await page.goto(`${address}${org}/clusters/${answers.CLUSTER}`);
    await button("Create a token").click();
    const panel = page.getByRole("region", { name: "Connect" });
    await panel.getByText("RAY_AUTH_TOKEN").waitFor();
    expect(await panel.textContent()).not.toContain("mrt_secret");
    await button(/^Copy snippet/i).click();
    await page.getByRole("status").getByText("copied").waitFor();
    expect(await page.evaluate(() => navigator.clipboard.readText())).toContain("export RAY_AUTH_TOKEN=mrt_secret");
    await page.getByRole("tab", { name: "Python" }).click();
    await panel.getByText("JobSubmissionClient()").waitFor();
    expect(page.url()).toContain("connect=python");
  });

  it("is extended, grown and shrunk by quotes that are confirmed", async () => {
    stage.on("POST /v1/bookings", () => ({ id: answers.QUOTE, state: "accepted", cluster_id: answers.CLUSTER }));
    stage.on("DELETE /v1/clusters/*/nodes/*", () => answers.cluster());
    await page.goto(`${address}${org}/clusters/${answers.CLUSTER}`);
    await button("+6 h").click();
    expect(stage.calls("POST", "/v1/bookings")).toHaveLength(0);
    await button("Extend, hold 3.80 USDC").click();
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    expect(stage.calls("POST", `/v1/clusters/${answers.CLUSTER}/extension-quote`).at(-1)?.body).toEqual({ duration: "6h" });
    await button("Price them").click();
    await button("Add the node, hold 3.80 USDC").waitFor();
    expect(await violations(page)).toEqual([]);
    await button("Close").click();
    await button("Remove GPU node 2").click();
    await button("Remove node").click();
    await eventually(() => stage.calls("DELETE", `/v1/clusters/${answers.CLUSTER}/nodes/${answers.cluster().nodes?.[2]?.id ?? ""}`).length, 1);
  });

  it("says that it is parked and comes back when it is resumed", async () => {
    let state: "parked" | "joining" = "parked";
    stage.on("GET /v1/clusters/*", () => answers.cluster({ state, billing: false }));
    stage.on("POST /v1/clusters/*/resume", () => answers.cluster({ state: (state = "joining"), billing: false }));
    stage.on("PUT /v1/clusters/*/auto-stop", () => answers.cluster({ state }));
    await page.goto(`${address}${org}/clusters/${answers.CLUSTER}`);
    await page.getByText("its GPUs were given back").waitFor();
    expect(await violations(page)).toEqual([]);
    await page.getByLabel("Park after").selectOption("1h");
    await eventually(() => stage.calls("PUT", `/v1/clusters/${answers.CLUSTER}/auto-stop`).at(-1)?.body, { park_after: "1h", release_after: "24h" });
    await button("Resume").click();
    await page.getByText("its GPUs were given back").waitFor({ state: "hidden" });
  });

  it("is released after saying what is lost and what comes back", async () => {
    stage.on("POST /v1/clusters/*/release", () => answers.cluster({ state: "draining", billing: false }));
    await page.goto(`${address}${org}/clusters/${answers.CLUSTER}`);
    await button("Release").click();
    const dialog = page.getByRole("dialog");
    await dialog.getByText("1 unfinished job").waitFor();
    await dialog.getByText("3.54 USDC").waitFor();
    expect(await violations(page)).toEqual([]);
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "hidden" });
    expect(stage.calls("POST", `/v1/clusters/${answers.CLUSTER}/release`)).toHaveLength(0);
    await button("Release").click();
    await button("Release cluster").click();
    await dialog.waitFor({ state: "hidden" });
    expect(stage.calls("POST", `/v1/clusters/${answers.CLUSTER}/release`)).toHaveLength(1);
  });

  it("shows what a job printed last, though it ended between two looks at its logs", async () => {
    const [job] = answers.jobs;
    if (job === undefined) throw new Error("no job");
    let logs = "epoch 1\n";
    let looks = 0;
    stage.on("GET /v1/clusters/*/jobs/*/logs", () => ({ logs, truncated: false }));
    stage.on("GET /v1/clusters/*/jobs", () => {
      if (++looks < 2) return { items: [job] };
      logs = "epoch 1\nall done\n";
      return { items: [{ ...job, status: "SUCCEEDED", ended_at: new Date().toISOString() }] };
    });
    await page.goto(`${address}${org}/clusters/${answers.CLUSTER}?job=${job.id}`);
    await page.getByRole("log").getByText("epoch 1").waitFor();
    await page.getByText("Succeeded").waitFor();
    await page.getByRole("log").getByText("all done").waitFor();
  });
});

describe("a host", () => {
  it("is planned away, checked again, and its price rules are shown before they are saved", async () => {
    stage.on("GET /v1/hosts/*", () => answers.host({ state: "quarantined" }));
    stage.on("POST /v1/hosts/*/recheck", () => answers.host({ state: "verifying" }));
    stage.on("POST /v1/hosts/*/maintenance", () => answers.host().maintenance[0]);
    stage.on("PUT /v1/hosts/*/ask", () => answers.host());
    await page.goto(`${address}${org}/hosts/${answers.HOST}`);
    await button("Check again").click();
    await eventually(() => stage.calls("POST", `/v1/hosts/${answers.HOST}/recheck`).length, 1);
    await button("Plan").click();
    await page.getByLabel("From", { exact: true }).fill("2030-01-01T10:00");
    await page.getByLabel("To", { exact: true }).fill("2030-01-01T12:00");
    await button("Plan it").click();
    await eventually(() => (stage.calls("POST", `/v1/hosts/${answers.HOST}/maintenance`).at(-1)?.body as { starts_at: string } | undefined)?.starts_at.slice(0, 4), "2030");
    await button("Rules").click();
    await page.getByText("3 of 14, cheapest first").waitFor();
    expect(await violations(page)).toEqual([]);
    await page.getByLabel("Spot, % off").fill("50");
    await button("Save").click();
    await eventually(() => stage.calls("PUT", `/v1/hosts/${answers.HOST}/ask`).at(-1)?.body, {
      price_per_gpu_hour: "1.90",
      floor: "1.20",
      active: true,
      rules: { discounts: [{ from: "weekly", percent: 10 }], calendar: [{ days: ["sat", "sun"], from: "00:00", to: "24:00", percent: -20 }], spot_percent: 50 },
    });
  });
});

describe("payouts", () => {
  beforeEach(() => void stage.on("GET /v1/me", () => answers.me(true, "finance")));
  const at = `/v1/finance/batches/${answers.BATCH}`;

  it("begin by hand after saying who is paid and who is held back", async () => {
    stage.on("POST /v1/finance/runs", () => answers.payoutRun());
    await page.goto(`${address}${org}/finance/payouts`);
    await button("Start a payout run").click();
    const dialog = page.getByRole("dialog");
    await dialog.getByText("Would be paid, to 2 payees").waitFor();
    await dialog.getByText("Below the smallest payout").waitFor();
    expect(stage.calls("POST", "/v1/finance/runs")).toHaveLength(0);
    await button("Start the run").click();
    await page.getByText("56 of 114 payees paid").waitFor();
    await page.getByText("Handed Over GmbH").waitFor();
  });

  it("do not begin while another run drafts", async () => {
    stage.on("GET /v1/finance/runs", () => ({ items: [answers.payoutRun({ state: "drafting", reason: "it waits for free nonces" })] }));
    await page.goto(`${address}${org}/finance/payouts`);
    await page.getByText("A run is under way.").waitFor();
    expect(await button("Start a payout run").isDisabled()).toBe(true);
  });

  it("warn when the treasury cannot pay the run", async () => {
    stage.on("GET /v1/finance/payable", () => ({ ...answers.payable, treasury: answers.usdc("30") }));
    await page.goto(`${address}${org}/finance/payouts`);
    await button("Start a payout run").click();
    await page.getByText("The treasury is 10.12 USDC short").waitFor();
  });

  it("are not approved by who made them, and say why", async () => {
    stage.on("GET /v1/finance/batches/*", () => ({ ...answers.draft(), approve_obstacle: "you drafted this batch: somebody else must approve it" }));
    await page.goto(`${address}${org}/finance/payouts/${answers.BATCH}`);
    await page.getByText("You drafted this batch: somebody else must approve it.").waitFor();
    expect(await button("Approve").isDisabled()).toBe(true);
  });

  it("are found in a run by name and state, and read on page by page", async () => {
    const asked = () => Object.fromEntries(stage.calls("GET", `/v1/finance/runs/${answers.PAYOUT_RUN}/payees`).filter(({ query }) => query.get("state") !== "left_out").at(-1)?.query ?? []);
    const first = answers.drafted[0];
    stage.on("GET /v1/finance/runs/*/payees", ({ query }) =>
      query.get("state") === "left_out" ? { items: [] } : query.get("cursor") === "more" ? { items: answers.drafted.slice(1) } : { items: [first], next_cursor: "more" },
    );
    await page.goto(`${address}${org}/finance/payouts/runs/${answers.PAYOUT_RUN}`);
    const payees = page.getByRole("region", { name: "Drafted, 118 payees" });
    await payees.getByText("Atlas Compute").waitFor();
    await payees.getByRole("button", { name: "Show more" }).click();
    await payees.getByText("Lovelace Lab").waitFor();
    await payees.getByLabel("Payee, address or signature").fill(" 7Yb3 ");
    await payees.getByLabel("State").selectOption("Sent");
    await payees.getByRole("button", { name: "Find" }).click();
    await eventually(asked, { org: answers.ORG, q: "7Yb3", state: "sent" });
    await page.getByLabel("Batches in which state").selectOption("Failed");
    await eventually(() => stage.calls("GET", "/v1/finance/batches").at(-1)?.query.get("state"), "failed");
  });

  it("are approved, a whole run at once", async () => {
    stage.on("POST /v1/finance/runs/*/approve", () => ({ approved: 1, waiting: 0 }));
    await page.goto(`${address}${org}/finance/payouts/runs/${answers.PAYOUT_RUN}`);
    await button("Approve 1 draft").click();
    await page.getByRole("dialog").getByText("to 2 payees, in 1 transaction").waitFor();
    await button("Approve payout").click();
    await page.getByRole("status").getByText("1 batch approved").waitFor();
    expect(stage.calls("POST", `/v1/finance/runs/${answers.PAYOUT_RUN}/approve`)).toHaveLength(1);
  });

  it("are cancelled with a reason, after saying what that does to one on its way", async () => {
    stage.on("GET /v1/finance/batches/*", () => ({ ...answers.draft(), state: stage.calls("POST", `${at}/cancel`).length === 0 ? "sent" : "cancelling" }));
    stage.on("POST /v1/finance/batches/*/cancel", () => answers.draft());
    await page.goto(`${address}${org}/finance/payouts/${answers.BATCH}`);
    await button("Cancel").click();
    await page.getByRole("dialog").getByText("a bare nonce advance").waitFor();
    expect(await button("Cancel payout").isDisabled()).toBe(true);
    await page.getByLabel("Why").fill("The owner asked us to wait.");
    await button("Cancel payout").click();
    await page.getByText("Being cancelled").waitFor();
    expect(stage.calls("POST", `${at}/cancel`).at(-1)?.body).toEqual({ reason: "The owner asked us to wait." });
  });

  it("that froze are resolved with evidence, which a second person confirms", async () => {
    let batch = answers.frozen();
    stage.on("GET /v1/finance/batches/*", () => batch);
    stage.on("POST /v1/finance/batches/*/resolve", ({ body }) => {
      if ((body as { signature: string }).signature.startsWith("1")) throw new Refusal(422, "invalid", "The evidence is wrong.", undefined, [{ path: "signature", message: "the chain has no final transaction of this signature" }]);
      return (batch = answers.frozen({ resolution: answers.resolution }));
    });
    await page.goto(`${address}${org}/finance/payouts/${answers.BATCH}`);
    await button("Resolve").click();
    await page.getByLabel("What you found").fill(answers.resolution.note);
    await page.getByRole("textbox", { name: "Transaction" }).fill("1".repeat(88));
    await button("Propose").click();
    await page.getByText("the chain has no final transaction of this signature").waitFor();
    expect(await violations(page)).toEqual([]);
    await page.getByRole("textbox", { name: "Transaction" }).fill(answers.resolution.signature);
    await button("Propose").click();
    await button("Confirm").click();
    const { outcome, signature, note } = answers.resolution;
    expect(stage.calls("POST", `${at}/resolve`).at(-1)?.body).toEqual({ outcome, signature, note });
    await page.getByRole("dialog").getByText("Look the transaction up yourself").waitFor();
    expect(await violations(page)).toEqual([]);
    await page.getByRole("dialog").getByRole("button", { name: "Confirm" }).click();
    await eventually(() => stage.calls("POST", `${at}/resolve`).length, 3);
    expect(stage.calls("POST", `${at}/resolve`).at(-1)?.body).toEqual({ outcome, signature, note });
  });

  it("are scheduled", async () => {
    stage.on("PUT /v1/finance/payout-schedule", () => answers.schedule);
    await page.goto(`${address}${org}/finance/payouts`);
    await button("Change").click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Fri").check();
    await dialog.getByLabel("At, UTC").fill("05:30");
    await dialog.getByLabel(/^Also once/).fill("2500");
    await button("Save").click();
    await dialog.waitFor({ state: "hidden" });
    expect(stage.calls("PUT", "/v1/finance/payout-schedule").at(-1)?.body).toEqual({ enabled: true, at: "05:30", weekdays: [1, 4, 5], threshold: "2500" });
    await button("Change").click();
    await dialog.getByLabel("Every few days").check();
    await dialog.getByLabel("Every, days").fill("14");
    await button("Save").click();
    await dialog.waitFor({ state: "hidden" });
    expect(stage.calls("PUT", "/v1/finance/payout-schedule").at(-1)?.body).toEqual({ enabled: true, at: "06:00", every_days: 14, starts_on: "2026-11-01", threshold: "5000.00" });
  });
});

describe("a withdrawal", () => {
  beforeEach(() => void stage.on("GET /v1/me", () => answers.me(false, "engineer", "finance")));

  it("goes to the address on the screen, and can be given up while it waits", async () => {
    const made = answers.withdrawal();
    stage.on("POST /v1/wallet/withdrawals", () => made);
    stage.on("GET /v1/wallet/withdrawals", () => ({ items: stage.calls("POST", "/v1/wallet/withdrawals").length === 0 ? [] : [made] }));
    stage.on("POST /v1/wallet/withdrawals/*/cancel", () => ({ ...made, state: "cancelled" }));
    await page.goto(`${address}${org}/wallet`);
    await page.getByText("Nothing has been withdrawn.").waitFor();
    await button("Withdraw").click();
    const dialog = page.getByRole("dialog");
    await button("All").click();
    await button("Withdraw 96.20 USDC").waitFor();
    await dialog.getByLabel("Amount, USDC").fill("25.1234567");
    await page.getByText("at most 6 decimals").waitFor();
    expect(await violations(page)).toEqual([]);
    await dialog.getByLabel("Amount, USDC").fill("25.5");
    await dialog.getByText(answers.WALLET).waitFor();
    await button("Withdraw 25.5 USDC").click();
    expect(stage.calls("POST", "/v1/wallet/withdrawals").at(-1)?.body).toEqual({ amount: "25.5", address: answers.WALLET });
    await page.getByText("One withdrawal at a time").waitFor();
    await button("Give up").click();
    await button("Give it up").click();
    await eventually(() => stage.calls("POST", `/v1/wallet/withdrawals/${made.id}/cancel`).length, 1);
  });

  it("is finance's to ask for", async () => {
    stage.on("GET /v1/me", () => engineer);
    await page.goto(`${address}${org}/wallet`);
    await page.getByText("Your organisation's finance withdraws.").waitFor();
    expect(await button("Withdraw").isDisabled()).toBe(true);
  });

  it("needs a payout address first, which a fresh signature of the same wallet sets", async () => {
    let me = answers.homeless();
    stage.on("GET /v1/me", () => me);
    stage.on("GET /v1/network", () => ({ ...answers.network, burner_wallets: answers.burners }));
    stage.on("POST /v1/auth/nonce", ({ body }) => ({ domain: "localhost", address: (body as { address: string }).address, statement: "Sign in to Muster.", uri: address, version: "1", chain_id: "localnet", nonce: "n0nce12345", issued_at: "2026-11-22T12:00:00Z", expiration_time: "2026-11-22T12:05:00Z", message: "unused by solana:signIn" }));
    stage.on("POST /v1/auth/sign-in", ({ body }) => {
      if (!answers.isSigned(body as Parameters<typeof answers.isSigned>[0])) throw new Refusal(401, "unauthenticated", "The signature is not valid.");
      return me;
    });
    stage.on("PUT /v1/organisation/payout-address", ({ body }) => {
      const [organisation] = me.organisations;
      if (organisation === undefined) throw new Error("nobody is in no organisation");
      const changed = { ...organisation, payout_address: (body as { address: string }).address };
      me = { ...me, organisations: [changed] };
      return changed;
    });
    await page.goto(`${address}${org}/wallet`);
    await button("Withdraw").click();
    await page.getByLabel("New payout address").fill(answers.WALLET);
    await button("Sign and save").click();
    await page.getByLabel("Amount, USDC").waitFor();
    expect(stage.calls("POST", "/v1/auth/sign-in")).toHaveLength(1);
    await page.getByRole("dialog").getByText(answers.WALLET).waitFor();
  });
});

describe("closing the books", () => {
  const written = () => stage.asked.filter(({ method }) => method !== "GET").map(({ body }) => body);
  beforeEach(() => void stage.on("GET /v1/me", () => answers.me(true, "finance")));

  it("credits a deposit in suspense to whom somebody names", async () => {
    stage.on("POST /v1/finance/suspense/*/decision", () => ({}));
    await page.goto(`${address}${org}/finance/deposits`);
    await button("Decide").nth(1).click();
    await page.getByLabel("Decision").selectOption("credited");
    await page.getByLabel("Organisation's id").fill(answers.ORG);
    await page.getByLabel("Why").fill("Ticket 1207.");
    await page.getByRole("dialog").getByRole("button", { name: "Decide" }).click();
    await eventually(() => page.getByRole("dialog").count(), 0);
    expect(written().at(-1)).toEqual({ outcome: "credited", org_id: answers.ORG, note: "Ticket 1207." });
  });

  it("keeps the decision's dialog open, with the reason, when the server refuses", async () => {
    stage.on("POST /v1/finance/suspense/*/decision", () => {
      throw new Refusal(409, "conflict", "Tokens of another mint can only be held.");
    });
    await page.goto(`${address}${org}/finance/deposits`);
    await button("Decide").first().click();
    await page.getByLabel("Decision").selectOption("kept");
    await page.getByLabel("Why").fill("Ours.");
    await page.getByRole("dialog").getByRole("button", { name: "Decide" }).click();
    await page.getByRole("alert").getByText("can only be held").waitFor();
  });

  it("resolves a difference with what was found", async () => {
    stage.on("PATCH /v1/finance/differences/*", () => ({}));
    await page.goto(`${address}${org}/finance/reconcile`);
    await button("Resolve").click();
    await page.getByLabel("What came of it").selectOption("chain_explained");
    await page.getByLabel("What you found").fill("A top-up by hand.");
    await page.getByRole("dialog").getByRole("button", { name: "Resolve" }).click();
    await eventually(() => page.getByRole("dialog").count(), 0);
    expect(written().at(-1)).toEqual({ resolution: "chain_explained", reason: "A top-up by hand." });
  });

  it("shows on a run what our wallets hold beside the ledger, and what could not be read", async () => {
    const survey = { wallets: 3, asked: 2, settlement: 0, foreign: 0, left_out: 0, too_many: 1 };
    stage.on(`GET /v1/finance/reconciliations/${answers.RUN}`, () => answers.run({ holdings: survey }));
    await page.goto(`${address}${org}/finance/reconcile/${answers.RUN}`);
    const panel = page.getByRole("region", { name: "Held beside the ledger" }).first();
    await panel.getByText("No wallet that was asked holds a token").waitFor();
    await panel.getByText("1 wallet has too many accounts for one answer").waitFor();
    expect(stage.calls("GET", "/v1/finance/holdings")).toEqual([]);
    stage.on(`GET /v1/finance/reconciliations/${answers.RUN}`, () => answers.run());
    await page.reload();
    await panel.getByText("1 of the platform's token, 1 of other tokens").waitFor();
    await panel.getByRole("row", { name: /Basement GPUs/ }).getByText("1000000").waitFor();
  });

  it("links files of open months as not final, and a closed month's figures", async () => {
    await page.goto(`${address}${org}/finance/books`);
    const open = page.getByRole("region", { name: "Open months" }).first();
    await open.getByText("Not final", { exact: true }).waitFor();
    const now = new Date().toISOString().slice(0, 7);
    expect(await open.getByRole("link", { name: `Xero of ${now}, not final` }).getAttribute("href")).toContain(`/v1/finance/periods/${now}/files/xero?org=`);
    await page.getByRole("link", { name: "2026-10", exact: true }).click();
    await page.getByRole("heading", { name: "October 2026" }).waitFor();
    await page.getByRole("row", { name: /Customer balances/ }).getByText("12,328.842688 USDC").waitFor();
  });

  it("shows the SOL journal by month and kind, kept in the address", async () => {
    const lines = () => Object.fromEntries(stage.calls("GET", "/v1/finance/sol-journal/lines").at(-1)?.query ?? []);
    await page.goto(`${address}${org}/finance/sol?month=2026-10`);
    await page.getByRole("region", { name: "From opening to closing" }).first().getByText("9.9795947 SOL").waitFor();
    await page.getByLabel("Kind").selectOption("Rent set aside");
    await button("Filter").click();
    const wanted = { org: answers.ORG, month: "2026-10", kind: "rent_out" };
    await eventually(lines, wanted);
    stage.asked.length = 0;
    await page.reload();
    await eventually(lines, wanted);
    expect(await page.getByRole("link", { name: "This month as CSV" }).getAttribute("href")).toContain("sol-journal/file?org=");
  });

  it("filters the audit log in the address, over a reload, until all is shown", async () => {
    const log = () => Object.fromEntries(stage.calls("GET", "/v1/finance/audit-log").at(-1)?.query ?? []);
    await page.goto(`${address}${org}/finance/books`);
    await page.getByLabel("Who").fill("Ada");
    await page.getByLabel("What was done").selectOption("period.close");
    await page.getByLabel("Last day (UTC)").fill("2026-11-30");
    await button("Filter").click();
    const wanted = { org: answers.ORG, person: "Ada", action: "period.close", to: "2026-12-01T00:00:00.000Z" };
    await eventually(log, wanted);
    stage.asked.length = 0;
    await page.reload();
    await eventually(log, wanted);
    expect(await page.getByLabel("Who").inputValue()).toBe("Ada");
    await button("Clear").click();
    await eventually(log, { org: answers.ORG });
  });

  it("closes a month, and asks for one to be opened again", async () => {
    stage.on("POST /v1/finance/periods", () => answers.closed());
    stage.on("POST /v1/finance/periods/*/reopen", () => ({ items: [answers.closed()] }));
    await page.goto(`${address}${org}/finance/books`);
    await button("Close a month").click();
    await page.getByRole("textbox", { name: "Month" }).fill("2026-10");
    await button("Close it").click();
    await eventually(() => page.getByRole("dialog").count(), 0);
    await page.getByRole("button", { name: "Open again", exact: true }).click();
    await page.getByLabel("Why").fill("An invoice came late.");
    await button("Ask for it").click();
    await eventually(() => page.getByRole("dialog").count(), 0);
    expect(written()).toEqual([{ month: "2026-10" }, { reason: "An invoice came late." }]);
  });
});

describe("when something fails", () => {
  it("keeps the rest of the page, shows the request id and tries again", async () => {
    stage.on("GET /v1/wallet/lines", () => {
      throw new Refusal(500, "internal", "Something went wrong on our side.");
    });
    await page.goto(`${address}${org}/wallet`);
    await page.getByText("96.20 USDC").first().waitFor();
    const panel = page.getByRole("region", { name: "Movements" });
    await panel.getByText("req_0123456789").waitFor();
    expect(await violations(page)).toEqual([]);
    stage.on("GET /v1/wallet/lines", () => ({ items: [] }));
    await panel.getByRole("button", { name: "Retry" }).click();
    await page.getByText("Nothing has moved yet").waitFor();
  });

  it("repeats an action whose answer was lost under the same key", async () => {
    let lost = 0;
    stage.on("GET /v1/me", () => answers.me(true, "finance"));
    await page.route("**/v1/finance/runs?*", async (route) => {
      if (route.request().method() === "POST" && lost++ === 0) await route.abort("connectionreset");
      else await route.fallback();
    });
    const keys: (string | undefined)[] = [];
    page.on("request", (request) => {
      if (request.method() === "POST" && request.url().includes("/finance/runs")) keys.push(request.headers()["idempotency-key"]);
    });
    stage.on("POST /v1/finance/runs", () => answers.payoutRun());
    await page.goto(`${address}${org}/finance/payouts`);
    await button("Start a payout run").click();
    await button("Start the run").click();
    await page.getByText("Muster cannot be reached").waitFor();
    await button("Start the run").click();
    await page.getByRole("heading", { name: /Payout run of/ }).waitFor();
    expect(keys).toHaveLength(2);
    expect(keys[0]).toMatch(/^[0-9a-f-]{36}$/);
    expect(keys[1]).toBe(keys[0]);
  });

  it("does not show another organisation's cluster", async () => {
    stage.on("GET /v1/clusters/*", () => {
      throw new Refusal(404, "not_found", "There is no such cluster.");
    });
    await page.goto(`${address}${org}/clusters/${answers.CLUSTER}`);
    await page.getByText("There is no such cluster.").waitFor();
  });

  it("returns to sign-in when the session has ended", async () => {
    stage.on("GET /v1/me", answers.signedOut);
    await page.goto(`${address}${org}/keys`);
    await page.getByRole("heading", { name: "Sign in with your wallet" }).waitFor();
  });

  it("has an empty state with the next action", async () => {
    stage.on("GET /v1/clusters", () => ({ items: [] }));
    await page.goto(`${address}${org}/clusters`);
    await page.getByText("No clusters yet").waitFor();
    await page.getByRole("link", { name: "New cluster" }).waitFor();
  });
});

describe("axe", () => {
  it("is really looking", async () => {
    await page.goto(`${address}${org}/clusters`);
    await page.getByText("brisk-heron").waitFor();
    await page.evaluate(() => document.querySelector("main")?.append(document.createElement("img")));
    expect((await violations(page)).map((one) => one.rule)).toEqual(["image-alt"]);
  });
});
