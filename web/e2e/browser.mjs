// What the browser tests share: Chromium, axe, and the measure of what sticks out.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

// Without the last three, Chromium looks for its maker's hosts, in vain where there is no way out.
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** @returns {Promise<import("playwright-core").Browser>} */
export function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
}

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];

/**
 * What axe finds against WCAG 2.2 AA on the page as it is.
 *
 * @param {import("playwright-core").Page} page
 * @returns {Promise<{ rule: string, targets: string[] }[]>}
 */
export async function violations(page) {
  // evaluate is not subject to the page's policy, which forbids injected script elements.
  await page.evaluate(AXE);
  const found = await page.evaluate(async (rules) => (await window["axe"].run({ runOnly: rules })).violations, RULES);
  return found.map((one) => ({ rule: one.id, targets: one.nodes.map((node) => `${node.target} ${node.failureSummary}`) }));
}

/**
 * By how many pixels the page is wider than the window.
 *
 * @param {import("playwright-core").Page} page
 * @returns {Promise<number>}
 */
export function overflow(page) {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}

/**
 * The tables of which a part is out of sight unless somebody scrolls sideways.
 *
 * @param {import("playwright-core").Page} page
 * @returns {Promise<string[]>}
 */
export function hiddenColumns(page) {
  return page.evaluate(() =>
    [...document.querySelectorAll(".table-scroll:has(table)")].filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.getAttribute("aria-label") ?? ""),
  );
}
