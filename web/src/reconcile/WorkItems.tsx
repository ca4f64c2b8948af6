import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import type { DifferenceItem } from "../api/types";
import { useAction } from "../api/useAction";
import { ActionError, LoadedList, SafePanel } from "../design/Loaded";
import { Button, Empty, MoneyText, TableScroll, Time } from "../design/parts";
import { differencesQuery } from "./queries";
import { CLASS_WORDS } from "./words";

type Resolution = "posted_correction" | "chain_explained" | "waived";

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
                  <th scope="col">Resolve</th>
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

function Row({ org, item }: { org: string; item: DifferenceItem }) {
  const [as, setAs] = useState<Resolution>("posted_correction");
  const [reason, setReason] = useState("");
  const update = useAction({
    run: (body: { take?: boolean; resolution?: Resolution; reason?: string }, header) =>
      unwrap(client.PATCH("/v1/finance/differences/{id}", { params: { path: { id: item.id }, query: { org }, header }, body })),
    invalidates: [["differences", org]],
    done: "Difference updated",
  });
  return (
    <tr>
      <th scope="row">{CLASS_WORDS[item.class] ?? item.class}</th>
      <td className="wide">
        {item.text}
        <ActionError error={update.error} />
      </td>
      <td className="number">{item.ledger === undefined ? <span className="muted">none</span> : <MoneyText of={item.ledger} />}</td>
      <td className="number">{item.chain === undefined ? <span className="muted">none</span> : <MoneyText of={item.chain} />}</td>
      <td>
        <Time at={item.first_seen} utc />
      </td>
      <td>
        {item.owner !== undefined && <div>{item.owner}</div>}
        <Button size="small" busy={update.isPending} onClick={() => update.mutate({ take: item.owner === undefined })}>
          {item.owner === undefined ? "Take it on" : "Give it up"}
        </Button>
      </td>
      <td>
        <form
          className="stack"
          onSubmit={(event) => {
            event.preventDefault();
            update.mutate({ resolution: as, reason });
          }}
        >
          <select aria-label="What came of it" value={as} onChange={(event) => setAs(event.target.value as Resolution)}>
            <option value="posted_correction">A correction was posted</option>
            <option value="chain_explained">The chain explains it</option>
            <option value="waived">Waived</option>
          </select>
          <input aria-label="Why" placeholder="Why" required maxLength={2_000} value={reason} onChange={(event) => setReason(event.target.value)} />
          <Button size="small" type="submit" busy={update.isPending}>
            Resolve
          </Button>
        </form>
      </td>
    </tr>
  );
}
