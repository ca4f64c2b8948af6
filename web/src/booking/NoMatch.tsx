// When nothing fits: what each condition leaves, what it alone keeps out, and the nearest bookings that fit.
import { useQuery } from "@tanstack/react-query";
import { asApiError } from "../api/problem";
import type { BookingSpec, Change, Explanation } from "../api/types";
import { Button, MoneyText, Skeleton, TableScroll, Toned } from "../design/parts";
import { explain, explanationOf } from "./queries";
import { changeTo, type BookingChange } from "./search";

const CONDITION_WORDS: Record<string, string> = {
  gpu_model: "with this GPU model",
  gpu_class: "with such GPUs",
  region: "in these regions",
  open: "online and offered",
  tier: "of this standing",
  reliability: "reliable enough",
  owner: "of an owner you allow",
  image: "with the right Ray version",
  driver: "with a new enough driver",
  cpu: "with enough CPUs",
  memory: "with enough memory",
  disk: "with enough disk",
  free: "with a free GPU",
  reserved: "not promised to a later booking",
  price: "within the price limit",
  gpus_per_node: "with enough free GPUs at once",
  host: "not in use by this cluster",
  site: "on one site",
  network: "near enough to each other",
  node_count: "enough for all nodes",
};

export function NoMatch({ spec, error, onRetry, busy, set }: { spec: BookingSpec; error: unknown; onRetry: () => void; busy: boolean; set: (change: BookingChange) => void }) {
  const carried = explanationOf(error);
  const asked = useQuery({ queryKey: ["explain", spec], queryFn: () => explain(spec), enabled: carried === null });
  const explanation = carried ?? asked.data;
  return (
    <div className="stack">
      <Toned tone="warn">Nothing fits right now</Toned>
      {explanation === undefined ? asked.error === null ? <Skeleton height={120} /> : <p>{asApiError(asked.error).message}</p> : <Explained explanation={explanation} set={set} />}
      <Button onClick={onRetry} busy={busy}>
        Look again
      </Button>
    </div>
  );
}

function Explained({ explanation, set }: { explanation: Explanation; set: (change: BookingChange) => void }) {
  const changes = explanation.changes ?? [];
  return (
    <>
      <p>{explanation.summary}</p>
      {changes.length > 0 && (
        <section className="stack" data-gap="small" aria-label="What would fit">
          <h3 className="legend">What would fit</h3>
          <ul className="changes">
            {changes.map((change) => (
              <ChangeRow key={change.summary} change={change} onTake={() => set(changeTo(change.spec))} />
            ))}
          </ul>
        </section>
      )}
      <TableScroll label="What each condition leaves">
      <table className="funnel">
        <thead>
          <tr>
            <th scope="col">Left after each condition</th>
            <th scope="col" className="number">
              Hosts
            </th>
            <th scope="col" className="number">
              GPUs
            </th>
          </tr>
        </thead>
        <tbody>
          {explanation.funnel.map((step) => (
            <tr key={step.condition}>
              <th scope="row">
                {step.condition === explanation.blocking ? <Toned tone="warn">{wordsOf(step.condition)}</Toned> : wordsOf(step.condition)}
                {step.excludes > 0 && (
                  <div className="muted" title="They pass every other condition">
                    alone excludes {step.excludes} {step.excludes === 1 ? "GPU" : "GPUs"}
                  </div>
                )}
              </th>
              <td className="number">{step.hosts}</td>
              <td className="number">{step.gpus}</td>
            </tr>
          ))}
        </tbody>
      </table>
      </TableScroll>
    </>
  );
}

function wordsOf(condition: string): string {
  return CONDITION_WORDS[condition] ?? condition;
}

function ChangeRow({ change, onTake }: { change: Change; onTake: () => void }) {
  return (
    <li className="line" data-spread>
      <span>
        {change.summary}
        <span className="muted nowrap">
          {" "}
          <MoneyText of={change.price_per_hour} /> an hour
        </span>
      </span>
      <Button size="small" onClick={onTake}>
        Take it<span className="visually-hidden"> {change.summary}</span>
      </Button>
    </li>
  );
}
