import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium, type Browser, type Page } from "playwright-core";

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
}

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export interface Violation {
  rule: string;
  targets: string[];
}

/** What axe finds against WCAG 2.2 AA on the page as it is. */
export async function violations(page: Page): Promise<Violation[]> {
  // evaluate is not subject to the page's policy, which forbids injected script elements.
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    interface Axe {
      run: (options: unknown) => Promise<{ violations: { id: string; nodes: { target: unknown[]; failureSummary?: string }[] }[] }>;
    }
    const axe = (window as unknown as { axe: Axe }).axe;
    const found = await axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] });
    return found.violations.map((one) => ({ rule: one.id, targets: one.nodes.map((node) => `${String(node.target)} ${node.failureSummary ?? ""}`) }));
  });
}

/** Nothing on the page sticks out to the side. */
export function overflow(page: Page): Promise<number> {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}
