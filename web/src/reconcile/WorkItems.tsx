import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import type { DifferenceItem } from "../api/types";
import { useAction } from "../api/useAction";
import { ActionError, LoadedList, SafePanel } from "../design/Loaded";
import { Button, Dialog, Empty, Field, MoneyText, TableScroll, Time } from "../design/parts";
import { TransactionLink } from "../design/TransactionLink";
import { differencesQuery } from "./queries";
import { CLASS_WORDS } from "./words";

const MOST_CHARS = 2_000;

const RESOLUTIONS = {
  posted_correction: "A correction was posted in the ledger",
  chain_explained: "The chain explains it, nothing to post",
  waived: "Waived: known, and too small to pursue",
} as const;

type Resolution = keyof typeof RESOLUTIONS;

/** The differences that wait for somebody, across runs. */
export function WorkItems({ org }: { org: string }) {
  const items = useInfiniteQuery(differencesQuery(org));
  return (
    <SafePanel title="Open differences" flush>
      <LoadedList query={items} rows={1} empty={<Empty>No difference is open.</Empty>}>
        {(list) => (
          <TableScroll label="Open differences">
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
                  <th scope="col">Who looks into it</th>
                  <th scope="col">
                    <span className="visually-hidden">Resolve</span>
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
  resolution?: Resolution;
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
      <td>
        <span className="line">
          {item.owner}
          <Button size="small" look={item.owner === undefined ? undefined : "quiet"} busy={take.isPending} onClick={() => take.mutate({ take: item.owner === undefined })}>
            {item.owner === undefined ? "Take it on" : "Give it up"}
          </Button>
        </span>
      </td>
      <td>
        <Button size="small" onClick={() => setOpen(true)}>
          Resolve
        </Button>
        <Dialog open={open} title="What came of this difference?" onClose={() => setOpen(false)}>
          <Resolve org={org} item={item} onDone={() => setOpen(false)} />
        </Dialog>
      </td>
    </tr>
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
      <p>
        {CLASS_WORDS[item.class] ?? item.class}: {item.text}
      </p>
      {item.signature !== undefined && (
        <p>
          <TransactionLink signature={item.signature} />
        </p>
      )}
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
