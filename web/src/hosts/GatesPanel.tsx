// What a host must show to be offered, and the way out of quarantine.
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Gate, Host } from "../api/types";
import { ActionError, SafePanel } from "../design/Loaded";
import { Button, Empty, TableScroll, Time, Toned } from "../design/parts";
import { CHECK_STATES, CHECK_TONES } from "./EarningPanel";

const GATE_WORDS: Record<string, string> = {
  xid: "Hardware errors (Xid)",
  ecc: "GPU memory (ECC)",
  throttle: "Throttling",
  clock: "Clock",
  disk: "Free disk",
  udp: "UDP",
  gpu: "GPUs",
  driver: "Driver",
};

export function GatesPanel({ org, host }: { org: string; host: Host }) {
  const recheck = useAction({
    run: (_: undefined, header) => unwrap(client.POST("/v1/hosts/{id}/recheck", { params: { path: { id: host.id }, query: { org }, header } })),
    invalidates: [
      ["host", org, host.id],
      ["hosts", org],
    ],
    done: "Check started",
  });
  return (
    <SafePanel
      title="Health"
      flush
      aside={
        host.state === "quarantined" && (
          <Button size="small" busy={recheck.isPending} onClick={() => recheck.mutate(undefined)}>
            Check again
          </Button>
        )
      }
    >
      {recheck.error !== null && (
        <div className="panel-body">
          <ActionError error={recheck.error} />
        </div>
      )}
      {host.gates.length === 0 ? <Empty>The agent has not reported on its health yet.</Empty> : <Gates gates={host.gates} />}
    </SafePanel>
  );
}

function Gates({ gates }: { gates: Gate[] }) {
  return (
    <TableScroll label="Health checks">
      <table>
        <thead>
          <tr>
            <th scope="col">Check</th>
            <th scope="col">Result</th>
            <th scope="col">Measured</th>
            <th scope="col">Required</th>
          </tr>
        </thead>
        <tbody>
          {gates.map((gate) => (
            <tr key={gate.gate}>
              <th scope="row" className="nowrap">
                {GATE_WORDS[gate.gate] ?? gate.gate}
              </th>
              <td>
                <Toned tone={gate.state === "fail" && !gate.closes ? "warn" : (CHECK_TONES[gate.state] ?? "unknown")}>{gate.state === "fail" && !gate.closes ? "Warning" : (CHECK_STATES[gate.state] ?? gate.state)}</Toned>
                {gate.state === "fail" && (
                  <div className="muted">
                    since <Time at={gate.since} />
                  </div>
                )}
              </td>
              <td className="wide">
                {gate.measured}
                {gate.state === "fail" && gate.fix !== undefined && <div>{gate.fix}</div>}
              </td>
              <td className="muted">{gate.required}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
