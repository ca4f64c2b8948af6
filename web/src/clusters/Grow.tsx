// More time, more nodes, fewer nodes: each price is a quote of the server, accepted like any booking.
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Cluster, Node, Quote } from "../api/types";
import { QuoteCard, QuoteSkeleton } from "../booking/QuoteCard";
import { ActionError, Failure, SafePanel } from "../design/Loaded";
import { Button, Dialog, Field } from "../design/parts";
import { durationWords } from "../time/time";
import { clusterQuery } from "./queries";

const EXTENSIONS = ["1h", "6h", "24h"] as const;
const MOST_ADDED = 8;

type Ask = { kind: "extension"; duration: string } | { kind: "addition"; nodes: number };

/** Time and nodes can be added while the cluster runs. */
export function GrowPanel({ org, cluster }: { org: string; cluster: Cluster }) {
  const [ask, setAsk] = useState<Ask | null>(null);
  const [nodes, setNodes] = useState(1);
  return (
    <SafePanel title="Extend or grow">
      <div className="stack">
        <div className="line" data-gap="small" role="group" aria-label="More time">
          {EXTENSIONS.map((duration) => (
            <Button key={duration} size="small" onClick={() => setAsk({ kind: "extension", duration })}>
              +{durationWords(duration)}
            </Button>
          ))}
        </div>
        <form
          className="line"
          data-gap="small"
          data-align="end"
          onSubmit={(event) => {
            event.preventDefault();
            setAsk({ kind: "addition", nodes });
          }}
        >
          <Field label="More nodes">
            {(props) => (
              <select {...props} className="input" value={nodes} onChange={(event) => setNodes(Number(event.target.value))}>
                {Array.from({ length: MOST_ADDED }, (_, index) => (
                  <option key={index} value={index + 1}>
                    {index + 1}
                  </option>
                ))}
              </select>
            )}
          </Field>
          <Button type="submit">
            Price them
          </Button>
        </form>
        <p className="hint">A price is shown first; nothing is booked before you confirm. New nodes join while the others run.</p>
      </div>
      <Dialog open={ask !== null} title={ask?.kind === "extension" ? `Extend ${cluster.name}` : `Add nodes to ${cluster.name}`} onClose={() => setAsk(null)}>
        {ask !== null && <Priced key={JSON.stringify(ask)} org={org} cluster={cluster} ask={ask} onDone={() => setAsk(null)} />}
        <div className="dialog-actions">
          <Button onClick={() => setAsk(null)}>Close</Button>
        </div>
      </Dialog>
    </SafePanel>
  );
}

function askForQuote(org: string, cluster: Cluster, ask: Ask, signal: AbortSignal): Promise<Quote> {
  const params = { path: { id: cluster.id }, query: { org } };
  if (ask.kind === "extension") return unwrap(client.POST("/v1/clusters/{id}/extension-quote", { params, body: { duration: ask.duration }, signal }));
  return unwrap(client.POST("/v1/clusters/{id}/addition-quote", { params, body: { node_count: ask.nodes }, signal }));
}

function Priced({ org, cluster, ask, onDone }: { org: string; cluster: Cluster; ask: Ask; onDone: () => void }) {
  const query = useQuery({ queryKey: ["grow", org, cluster.id, ask], queryFn: ({ signal }) => askForQuote(org, cluster, ask, signal), staleTime: Infinity, gcTime: 0, refetchOnWindowFocus: false });
  if (query.data === undefined) return query.error === null ? <QuoteSkeleton /> : <Failure error={query.error} onRetry={() => void query.refetch()} busy={query.isFetching} />;
  return (
    <div className="quote">
      <QuoteCard org={org} quote={query.data} requote={async () => (await query.refetch()).data} requoting={query.isFetching} failed={query.error} onBooked={onDone} />
    </div>
  );
}

/** Takes one node out; the rest run on. */
export function RemoveNode({ org, cluster, node }: { org: string; cluster: Cluster; node: Node }) {
  const [open, setOpen] = useState(false);
  const remove = useAction({
    run: (_: undefined, header) => unwrap(client.DELETE("/v1/clusters/{id}/nodes/{node}", { params: { path: { id: cluster.id, node: node.id }, query: { org }, header } })),
    invalidates: [clusterQuery(org, cluster.id).queryKey, ["clusters", org]],
    done: "Node removal started",
    onDone: () => setOpen(false),
  });
  return (
    <>
      <Button size="small" onClick={() => setOpen(true)}>
        Remove<span className="visually-hidden"> GPU node {node.ordinal}</span>
      </Button>
      <Dialog open={open} title={`Remove GPU node ${node.ordinal}?`} onClose={() => setOpen(false)}>
        <p>Ray moves its work to the other nodes first, then it stops and is billed no more. Its part of the hold comes back when the cluster ends.</p>
        <ActionError error={remove.error} />
        <div className="dialog-actions">
          <Button onClick={() => setOpen(false)}>Keep it</Button>
          <Button look="danger" busy={remove.isPending} onClick={() => remove.mutate(undefined)}>
            Remove node
          </Button>
        </div>
      </Dialog>
    </>
  );
}
