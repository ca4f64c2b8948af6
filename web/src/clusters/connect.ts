// What to paste to reach a cluster with stock Ray. The values are real; the token is masked on screen and whole when copied.
import type { RayToken } from "../api/types";

const MASK = "••••••••••••";

export interface Snippet {
  shown: string;
  copied: string;
}

export function jobSnippet(token: RayToken): Snippet {
  return masked(token, (env) => `${exports(env)}\n\nray job submit --working-dir . -- python main.py`);
}

export function pythonSnippet(token: RayToken): Snippet {
  return masked(token, (env) =>
    [
      "import os",
      "from ray.job_submission import JobSubmissionClient",
      "",
      ...Object.entries(env).map(([name, value]) => `os.environ[${JSON.stringify(name)}] = ${JSON.stringify(value)}`),
      "",
      "client = JobSubmissionClient()",
      'job = client.submit_job(entrypoint="python main.py", runtime_env={"working_dir": "."})',
      "print(client.get_job_status(job))",
    ].join("\n"),
  );
}

function masked(token: RayToken, write: (env: Record<string, string>) => string): Snippet {
  const hidden = Object.fromEntries(Object.entries(token.env).map(([name, value]) => [name, value.replaceAll(token.token, MASK)]));
  return { shown: write(hidden), copied: write(token.env) };
}

function exports(env: Record<string, string>): string {
  return Object.entries(env)
    .map(([name, value]) => `export ${name}=${shellQuoted(value)}`)
    .join("\n");
}

function shellQuoted(value: string): string {
  return /^[A-Za-z0-9_./:@%+=,•-]+$/.test(value) ? value : `'${value.replaceAll("'", "'\\''")}'`;
}
