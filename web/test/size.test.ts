// Holds the console to its budget: what a first visit must load before it can draw.
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";

const DIST = join(import.meta.dirname, "..", "dist");
const INITIAL_JS_BUDGET = 100_000;
const PAGE_JS_BUDGET = 25_000;
const CSS_BUDGET = 12_000;
const FONT_BUDGET = 60_000;

interface Chunk {
  file: string;
  imports?: string[];
  dynamicImports?: string[];
  css?: string[];
  isEntry?: boolean;
}

const manifest = JSON.parse(readFileSync(join(DIST, ".vite", "manifest.json"), "utf8")) as Record<string, Chunk>;

function chunk(key: string): Chunk {
  const found = manifest[key];
  if (found === undefined) throw new Error(`the build has no ${key}`);
  return found;
}

/** A chunk and everything that it imports statically. */
function closure(key: string, seen = new Set<string>()): Set<string> {
  if (seen.has(key)) return seen;
  seen.add(key);
  for (const next of chunk(key).imports ?? []) closure(next, seen);
  return seen;
}

function gzipped(files: Iterable<string>): number {
  let sum = 0;
  for (const file of files) sum += gzipSync(readFileSync(join(DIST, file)), { level: 9 }).length;
  return sum;
}

const entry = Object.keys(manifest).find((key) => manifest[key]?.isEntry === true) ?? "";
const initial = closure(entry);
const pages = Object.keys(manifest).filter((key) => key.endsWith("/route.ts"));

describe("the budget", () => {
  it("loads under 100 kB of JavaScript before the first page", () => {
    const size = gzipped([...initial].map((key) => chunk(key).file));
    console.info(`initial JavaScript: ${size} bytes gzip`);
    expect(size).toBeLessThan(INITIAL_JS_BUDGET);
  });

  it("finds the pages in the build", () => {
    expect(pages.length).toBeGreaterThanOrEqual(8);
  });

  it.each(pages)("adds little for %s", (page) => {
    const own = [...closure(page)].filter((key) => !initial.has(key)).map((key) => chunk(key).file);
    expect(gzipped(own)).toBeLessThan(PAGE_JS_BUDGET);
  });

  it("keeps style sheets and fonts small", () => {
    const assets = readdirSync(join(DIST, "assets"));
    expect(gzipped(assets.filter((file) => file.endsWith(".css")).map((file) => join("assets", file)))).toBeLessThan(CSS_BUDGET);
    const fonts = assets.filter((file) => file.endsWith(".woff2"));
    expect(fonts).toHaveLength(2);
    expect(fonts.reduce((sum, file) => sum + statSync(join(DIST, "assets", file)).size, 0)).toBeLessThan(FONT_BUDGET);
  });
});

describe("the page", () => {
  const html = readFileSync(join(DIST, "index.html"), "utf8");

  it("runs under a policy that allows scripts of its own origin only", () => {
    expect(html).not.toMatch(/<script(?![^>]*\bsrc="\/)[^>]*>/);
    expect(html).not.toMatch(/\son\w+=/);
    expect(html).not.toMatch(/(?:src|href)="https?:/);
  });

  it("sets the theme before the first paint", () => {
    expect(html.indexOf("/theme.js")).toBeLessThan(html.indexOf('type="module"'));
  });
});
