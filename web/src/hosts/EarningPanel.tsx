// Why a host earns, or does not: the server's checks in the order in which they matter, each with what to do.
import { useQuery } from "@tanstack/react-query";
import type { EarningCheck } from "../api/types";
import { Loaded, SafePanel } from "../design/Loaded";
import { Time, Toned } from "../design/parts";
import type { Tone } from "../design/state";
import { earningQuery } from "./queries";

const CHECK_WORDS: Record<string, string> = {
  connected: "Connected",
  verified: "Verified",
  gates: "Healthy",
  maintenance: "Not in maintenance",
  drain: "Takes bookings",
  gpus: "Has GPUs",
  ray: "Has the platform's Ray",
  ask: "Has a price",
  price: "Priced to be hired",
  demand: "In demand",
};

export const CHECK_TONES: Record<string, Tone> = { pass: "ok", fail: "bad", unknown: "unknown" };
export const CHECK_STATES: Record<string, string> = { pass: "Pass", fail: "Fail", unknown: "Not known" };

export function EarningPanel({ org, id }: { org: string; id: string }) {
  const query = useQuery(earningQuery(org, id));
  return (
    <SafePanel title="Earning">
      <Loaded query={query}>{(check) => <Checks check={check} />}</Loaded>
    </SafePanel>
  );
}

function Checks({ check }: { check: EarningCheck }) {
  return (
    <div className="stack">
      <p className="strong">{check.summary}</p>
      <ol className="checklist">
        {check.checks.map((step) => (
          <li key={step.check}>
            <Toned tone={CHECK_TONES[step.state] ?? "unknown"}>{CHECK_WORDS[step.check] ?? step.check}</Toned>
            <div>
              {step.measured !== undefined && <span>{step.measured}</span>}
              {step.state !== "pass" && step.required !== undefined && <span className="muted"> Needed: {step.required}</span>}
              {step.state !== "pass" && step.fix !== undefined && <p>{step.fix}</p>}
              {step.state === "fail" && step.since !== undefined && (
                <p className="muted">
                  Since <Time at={step.since} />
                </p>
              )}
            </div>
          </li>
        ))}
      </ol>
    </div>
  );
}
