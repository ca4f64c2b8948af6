// The stack that the browser tests run against: the one at MUSTER_CONSOLE_URL, or one of their own, started and stopped here.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const ROOT = join(import.meta.dirname, "..", "..");
const START_MS = 240_000;
const STOP_MS = 60_000;

/** @returns {Promise<{ url: string, stop: () => Promise<void> }>} */
export async function stack() {
  const given = process.env.MUSTER_CONSOLE_URL;
  if (given !== undefined && given !== "") return { url: given, stop: async () => undefined };
  const dir = await mkdtemp(join(tmpdir(), "muster-e2e-"));
  const musterd = process.env.MUSTERD ?? join(ROOT, "bin", "musterd");
  const child = spawn(musterd, ["up", "--root", ROOT, "--dir", dir, "--port", "0", "--agent-port", "0", "--chain-port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, "exit");
      child.kill("SIGINT");
      const late = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
      await exited;
      clearTimeout(late);
    }
    await rm(dir, { recursive: true, force: true, maxRetries: 3 });
  };
  try {
    return { url: await consoleUrl(child), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function consoleUrl(child) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`musterd up did not start within ${START_MS / 1_000} s`)), START_MS);
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`musterd up ended with ${code}`)));
    // Reading goes on after the address, or the child would block on a full pipe.
    createInterface({ input: child.stdout }).on("line", (line) => {
      const found = /The console is at (http\S+)/.exec(line);
      if (found === null) return;
      clearTimeout(timer);
      resolve(found[1]);
    });
  });
}
