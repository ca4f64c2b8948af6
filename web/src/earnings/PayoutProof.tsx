import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import type { Payout } from "../api/types";
import { Loaded } from "../design/Loaded";
import { Button, CopyIcon, Dialog, Notice, ShortId, Skeleton, TableScroll, Time } from "../design/parts";
import { TransactionLink } from "../design/TransactionLink";
import { formatMoney } from "../money/money";
import { isIncluded } from "./proof";

/** What a payout is the sum of, and the proof that its transaction was signed with exactly that. */
export function PayoutProof({ org, payout }: { org: string; payout: Payout }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button look="quiet" onClick={() => setOpen(true)} aria-label={`Proof of the payout of ${formatMoney(payout.amount)}`}>
        Proof
      </Button>
      <Dialog open={open} title={`Proof of ${formatMoney(payout.amount)}`} onClose={() => setOpen(false)}>
        {open && <Contents org={org} payout={payout} />}
        <div className="line">
          <Button onClick={() => setOpen(false)}>Close</Button>
        </div>
      </Dialog>
    </>
  );
}

function Contents({ org, payout }: { org: string; payout: Payout }) {
  const proof = useQuery({
    queryKey: ["payout-proof", payout.id],
    queryFn: async ({ signal }) => {
      const found = await unwrap(client.GET("/v1/payouts/{payout}/proof", { params: { path: { payout: payout.id }, query: { org } }, signal }));
      return { ...found, holds: found.payout_id === payout.id && found.memo.endsWith(` ${found.root}`) && (await isIncluded(found)) };
    },
  });
  return (
    <Loaded query={proof} skeleton={<Skeleton height={160} />}>
      {(found) => (
        <div className="stack">
          {found.holds ? (
            <Notice tone="ok">This browser followed the proof: the payout leads to the root in the memo of its transaction. Compare the memo in any explorer.</Notice>
          ) : (
            <Notice tone="bad">The proof does not hold: the payout does not lead to the root in the memo.</Notice>
          )}
          <div className="stack" data-gap="small">
            <span className="muted">Memo</span>
            <span className="copyable">
              <span className="mono">{found.memo}</span>
              <CopyIcon text={found.memo} what="Memo" />
            </span>
            {found.signature !== undefined && <TransactionLink signature={found.signature} />}
          </div>
          <TableScroll label="Usage">
            <table>
              <thead>
                <tr>
                  <th scope="col">Lease</th>
                  <th scope="col">From</th>
                  <th scope="col">To</th>
                  <th scope="col" className="number">
                    GPU seconds
                  </th>
                  <th scope="col" className="number">
                    Base units
                  </th>
                </tr>
              </thead>
              <tbody>
                {found.payout.records.map((record) => (
                  <tr key={record.lease}>
                    <th scope="row">
                      <ShortId id={record.lease} what="Lease id" keep={4} />
                    </th>
                    <td>
                      <Time at={record.from} />
                    </td>
                    <td>
                      <Time at={record.to} />
                    </td>
                    <td className="number">{((record.to_ms - record.from_ms) / 1000).toFixed(3)}</td>
                    <td className="number">{record.amount}</td>
                  </tr>
                ))}
                {found.payout.adjustments.map((adjustment) => (
                  <tr key={adjustment.at + adjustment.memo}>
                    <th scope="row" colSpan={2}>
                      {adjustment.memo}
                    </th>
                    <td colSpan={2}>
                      <Time at={adjustment.at} />
                    </td>
                    <td className="number">{adjustment.amount}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </TableScroll>
        </div>
      )}
    </Loaded>
  );
}
