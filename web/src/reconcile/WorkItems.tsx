import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import type { DifferenceItem } from "../api/types";
import { useAction } from "../api/useAction";
import { ActionError, Loaded, LoadedList, SafePanel } from "../design/Loaded";
import { Button, Dialog, Empty, Field, MoneyText, Skeleton, TableScroll, Time } from "../design/parts";
import { TransactionLink } from "../design/TransactionLink";
import { differenceQuery, differencesQuery, type ItemState } from "./queries";
import { CLASS_WORDS } from "./words";

const MOST_CHARS = 2_000;

const RESOLUTIONS = {
  posted_correction: "A correction was posted in the ledger",
  chain_explained: "The chain explains it, nothing to post",
  waived: "Waived: known, and too small to pursue",
} as const;

type Resolution = keyof typeof RESOLUTIONS;

const STATES: Record<ItemState, string> = { open: "Open", resolved: "Resolved", gone: "Not found any more" };

const EMPTY: Record<ItemState, string> = {
  open: "No difference is open.",
  resolved: "Nobody has resolved a difference yet.",
  gone: "No difference went away by itself.",
};

/** The differences that wait for somebody, across runs, and those that have ended. */
export function WorkItems({ org }: { org: string }) {
  const [state, setState] = useState<ItemState>("open");
  const items = useInfiniteQuery(differencesQuery(org, state));
  return (
    <SafePanel
      title="Differences"
      flush
      aside={
        <span>
          <select className="input" aria-label="Which differences" value={state} onChange={(event) => setState(event.target.value as ItemState)}>
            {Object.entries(STATES).map(([value, word]) => (
              <option key={value} value={value}>
                {word}
              </option>
            ))}
          </select>
        </span>
      }
    >
      <LoadedList query={items} rows={1} empty={<Empty>{EMPTY[state]}</Empty>}>
        {(list) => (
          <TableScroll label="Differences">
            <table>
              <thead>
                <tr>
                  <th scope="col">Kind</th>
                  <th scope="col">What</th>
                  <th scope="col" className="number">
                    Ledger
                  </th>
                  <th scope="col" className="number">
                    Chain
                  </th>
                  <th scope="col">First seen</th>
                  <th scope="col">{state === "resolved" ? "What came of it" : "Who looks into it"}</th>
                  <th scope="col">
                    <span className="visually-hidden">Change</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {list.map((item) => (
                  <Row key={item.id} org={org} item={item} />
                ))}
              </tbody>
            </table>
          </TableScroll>
        )}
      </LoadedList>
    </SafePanel>
  );
}

interface Update {
  take?: boolean;
  note?: string;
  resolution?: Resolution | "";
  reason?: string;
}

function useUpdate(org: string, item: DifferenceItem, onDone?: () => void) {
  return useAction({
    run: (body: Update, header) => unwrap(client.PATCH("/v1/finance/differences/{id}", { params: { path: { id: item.id }, query: { org }, header }, body })),
    invalidates: [["differences", org]],
    done: "Difference updated",
    ...(onDone === undefined ? {} : { onDone }),
  });
}

function Row({ org, item }: { org: string; item: DifferenceItem }) {
  const [open, setOpen] = useState(false);
  const take = useUpdate(org, item);
  return (
    <tr>
      <th scope="row">{CLASS_WORDS[item.class] ?? item.class}</th>
      <td className="wide">
        {item.text}
        {item.note !== undefined && <div className="muted">{item.note}</div>}
        <ActionError error={take.error} />
      </td>
      <td className="number">{item.ledger === undefined ? <span className="muted">none</span> : <MoneyText of={item.ledger} />}</td>
      <td className="number">{item.chain === undefined ? <span className="muted">none</span> : <MoneyText of={item.chain} />}</td>
      <td>
        <Time at={item.first_seen} utc />
      </td>
      <td className="wide">
        {item.state === "resolved" ? (
          <Ending item={item} />
        ) : (
          <span className="line">
            {item.owner}
            {item.state === "open" && (
              <Button size="small" look={item.owner === undefined ? undefined : "quiet"} busy={take.isPending} onClick={() => take.mutate({ take: item.owner === undefined })}>
                {item.owner === undefined ? "Take it on" : "Give it up"}
              </Button>
            )}
          </span>
        )}
      </td>
      <td>
        <Button size="small" onClick={() => setOpen(true)}>
          {item.state === "open" ? "Resolve" : "History"}
        </Button>
        <Dialog open={open} title={item.state === "open" ? "What came of this difference?" : "What was done about it"} onClose={() => setOpen(false)}>
          {item.state === "open" ? <Resolve org={org} item={item} onDone={() => setOpen(false)} /> : <Past org={org} item={item} onDone={() => setOpen(false)} />}
        </Dialog>
      </td>
    </tr>
  );
}

function Ending({ item }: { item: DifferenceItem }) {
  return (
    <>
      {item.resolution !== undefined && RESOLUTIONS[item.resolution]}
      <div className="muted">
        {item.reason} {item.resolved_by}
      </div>
    </>
  );
}

/** What people and runs did about a difference, oldest first. */
function History({ org, id }: { org: string; id: string }) {
  const item = useQuery(differenceQuery(org, id));
  return (
    <Loaded query={item} skeleton={<Skeleton height={60} />}>
      {({ changes = [] }) =>
        changes.length > 0 && (
          <TableScroll label="History">
            <table>
              <thead>
                <tr>
                  <th scope="col">When</th>
                  <th scope="col">Who</th>
                  <th scope="col">What</th>
                </tr>
              </thead>
              <tbody>
                {changes.map((change, index) => (
                  <tr key={index}>
                    <td>
                      <Time at={change.at} utc />
                    </td>
                    <td className="nowrap">{change.by ?? <span className="muted">a run</span>}</td>
                    <td>{change.what}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </TableScroll>
        )
      }
    </Loaded>
  );
}

function Past({ org, item, onDone }: { org: string; item: DifferenceItem; onDone: () => void }) {
  const reopen = useUpdate(org, item, onDone);
  return (
    <div className="stack">
      <About item={item} />
      <History org={org} id={item.id} />
      <ActionError error={reopen.error} />
      <div className="dialog-actions">
        {item.state === "resolved" && (
          <Button busy={reopen.isPending} onClick={() => reopen.mutate({ resolution: "" })}>
            Open it again
          </Button>
        )}
        <Button look="primary" onClick={onDone}>
          Close
        </Button>
      </div>
    </div>
  );
}

function About({ item }: { item: DifferenceItem }) {
  return (
    <>
      <p>
        {CLASS_WORDS[item.class] ?? item.class}: {item.text}
      </p>
      {item.signature !== undefined && (
        <p>
          <TransactionLink signature={item.signature} />
        </p>
      )}
    </>
  );
}

function Resolve({ org, item, onDone }: { org: string; item: DifferenceItem; onDone: () => void }) {
  const [as, setAs] = useState<Resolution>("posted_correction");
  const [text, setText] = useState(item.note ?? "");
  const update = useUpdate(org, item, onDone);
  const nothing = text.trim() === "";
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        update.mutate({ resolution: as, reason: text.trim() });
      }}
    >
      <About item={item} />
      <History org={org} id={item.id} />
      <Field label="What came of it">
        {(props) => (
          <select {...props} className="input" value={as} onChange={(event) => setAs(event.target.value as Resolution)}>
            {Object.entries(RESOLUTIONS).map(([value, word]) => (
              <option key={value} value={value}>
                {word}
              </option>
            ))}
          </select>
        )}
      </Field>
      <Field label="What you found" hint="Kept with the difference and in the audit log">
        {(props) => <textarea {...props} className="input" rows={3} maxLength={MOST_CHARS} value={text} onChange={(event) => setText(event.target.value)} />}
      </Field>
      <ActionError error={update.error} />
      <div className="dialog-actions">
        <Button onClick={onDone}>Close</Button>
        <Button busy={update.isPending} disabled={nothing} onClick={() => update.mutate({ note: text.trim() })}>
          Save as a note
        </Button>
        <Button type="submit" look="primary" busy={update.isPending} disabled={nothing}>
          Resolve
        </Button>
      </div>
    </form>
  );
}
