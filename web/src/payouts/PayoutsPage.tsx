import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams } from "@tanstack/react-router";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Batch, PayableSummary } from "../api/types";
import { ActionError, Loaded, LoadedList, SafePanel } from "../design/Loaded";
import { Button, Empty, MoneyText, ShortId, shortened, Skeleton, State, TableScroll, Time } from "../design/parts";
import { isZero } from "../money/money";
import { batchesQuery, payableQuery } from "./queries";

export function PayoutsPage() {
  const { org } = useParams({ from: "/o/$org/finance/payouts" });
  const payable = useQuery(payableQuery(org));
  const batches = useInfiniteQuery(batchesQuery(org));
  const navigate = useNavigate();
  const draft = useAction({
    run: (_: undefined, header) => unwrap(client.POST("/v1/finance/batches", { params: { query: { org }, header } })),
    invalidates: [["finance", org]],
    done: "Payout drafted",
    onDone: ({ items }) => {
      const [only] = items;
      if (items.length === 1 && only !== undefined) void navigate({ to: "/o/$org/finance/payouts/$id", params: { org, id: only.id } });
    },
  });
  const nothing = payable.data === undefined || payable.data.payees.length === 0;
  return (
    <div className="page">
      <div className="page-head">
        <h1>Payouts</h1>
        <Button look="primary" disabled={nothing} busy={draft.isPending} onClick={() => draft.mutate(undefined)}>
          Draft a payout
        </Button>
      </div>
      <ActionError error={draft.error} />
      <Loaded query={payable} skeleton={<PayableSkeleton />}>
        {(loaded) => <Payable payable={loaded} />}
      </Loaded>
      <SafePanel title="Batches" aside={<span className="muted">one chain transaction each</span>} flush>
        <LoadedList query={batches} empty={<Empty>No payout has been drafted yet.</Empty>}>
          {(items) => <Batches org={org} batches={items} />}
        </LoadedList>
      </SafePanel>
    </div>
  );
}

function PayableSkeleton() {
  return (
    <div className="stack" role="status">
      <span className="visually-hidden">Loading what is payable</span>
      <Skeleton height={68} />
      <Skeleton height={160} />
    </div>
  );
}

function Payable({ payable }: { payable: PayableSummary }) {
  return (
    <>
      <dl className="figures">
        <div className="figure">
          <dt>Payable now</dt>
          <dd>
            <MoneyText of={payable.total} />
          </dd>
          <dd className="hint">
            {payable.payees.length} {payable.payees.length === 1 ? "payee" : "payees"}
          </dd>
        </div>
        <div className="figure">
          <dt>Treasury on chain</dt>
          <dd>
            {payable.treasury === undefined ? "unknown" : <MoneyText of={payable.treasury} />}
          </dd>
          <dd className="hint">{payable.treasury === undefined ? "the chain cannot be read now" : "read live"}</dd>
        </div>
        <div className="figure">
          <dt>Smallest payout</dt>
          <dd>
            <MoneyText of={payable.minimum} />
          </dd>
          <dd className="hint">smaller balances wait</dd>
        </div>
      </dl>
      <div className="two">
        <SafePanel title="Payees of the next payout" flush>
          {payable.payees.length === 0 ? <Empty>{isZero(payable.total) ? "Nothing is payable: nobody has earned since the last payout." : "Nobody can be paid yet."}</Empty> : <Payees payees={payable.payees} label="Payees" reasons={false} />}
        </SafePanel>
        <SafePanel title="Left out" flush>
          {payable.left_out.length === 0 ? <Empty>Nobody is left out.</Empty> : <Payees payees={payable.left_out} label="Left out" reasons />}
        </SafePanel>
      </div>
    </>
  );
}

function Payees({ payees, label, reasons }: { payees: PayableSummary["payees"]; label: string; reasons: boolean }) {
  return (
    <TableScroll label={label}>
      <table>
        <thead>
          <tr>
            <th scope="col">Owner</th>
            <th scope="col">{reasons ? "Why" : "Address"}</th>
            <th scope="col" className="number">
              Amount
            </th>
          </tr>
        </thead>
        <tbody>
          {payees.map((payee) => (
            <tr key={payee.org_id}>
              <th scope="row">{payee.name}</th>
              <td>{reasons ? payee.reason : payee.address !== undefined && <ShortId id={payee.address} what="Payout address" keep={4} />}</td>
              <td className="number">
                <MoneyText of={payee.amount} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

function Batches({ org, batches }: { org: string; batches: Batch[] }) {
  return (
    <TableScroll label="Batches">
      <table>
        <thead>
          <tr>
            <th scope="col">Batch</th>
            <th scope="col">State</th>
            <th scope="col" className="number">
              Payees
            </th>
            <th scope="col" className="number">
              Total
            </th>
            <th scope="col">Drafted</th>
            <th scope="col">Final</th>
          </tr>
        </thead>
        <tbody>
          {batches.map((batch) => (
            <tr key={batch.id}>
              <th scope="row">
                <Link to="/o/$org/finance/payouts/$id" params={{ org, id: batch.id }} className="row-link mono">
                  {shortened(batch.id)}
                </Link>
              </th>
              <td>
                <State machine="batch" state={batch.state} />
              </td>
              <td className="number">{batch.payee_count}</td>
              <td className="number">
                <MoneyText of={batch.total} />
              </td>
              <td>
                <Time at={batch.created_at} utc />
              </td>
              <td>{batch.finalized_at === undefined ? <span className="muted">not yet</span> : <Time at={batch.finalized_at} utc />}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
