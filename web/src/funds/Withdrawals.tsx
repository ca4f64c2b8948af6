// Prepaid balance on its way back to the organisation's own wallet.
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useId, useState } from "react";
import { client, unwrap } from "../api/client";
import { asApiError } from "../api/problem";
import { useAction } from "../api/useAction";
import type { Membership, Wallet, Withdrawal } from "../api/types";
import { ActionError, LoadedList, SafePanel } from "../design/Loaded";
import { Button, CopyIcon, Dialog, Empty, Field, MoneyText, ShortId, State, TableScroll, Time } from "../design/parts";
import { TransactionLink } from "../design/TransactionLink";
import { amountOf, compareMoney, formatMoney, isDecimalAmount, plainText } from "../money/money";
import { hasRole, meQuery } from "../session/session";
import { PayoutAddress } from "./PayoutAddress";
import { withdrawalsQuery } from "./queries";

function useMembership(org: string): Membership | undefined {
  const me = useQuery(meQuery);
  return me.data?.organisations.find((one) => one.org_id === org);
}

export function WithdrawButton({ org, wallet }: { org: string; wallet: Wallet }) {
  const membership = useMembership(org);
  const withdrawals = useInfiniteQuery(withdrawalsQuery(org));
  const [open, setOpen] = useState(false);
  const id = useId();
  if (membership === undefined) return null;
  const obstacle = obstacleOf(membership, wallet, withdrawals.data);
  return (
    <>
      {obstacle !== undefined && (
        <span id={id} className="muted">
          {obstacle}
        </span>
      )}
      <Button disabled={obstacle !== undefined} aria-describedby={obstacle === undefined ? undefined : id} onClick={() => setOpen(true)}>
        Withdraw
      </Button>
      <Dialog open={open} title="Withdraw" onClose={() => setOpen(false)}>
        <Destination org={org} wallet={wallet} membership={membership} onDone={() => setOpen(false)} />
      </Dialog>
    </>
  );
}

function obstacleOf(membership: Membership, wallet: Wallet, withdrawals: Withdrawal[] | undefined): string | undefined {
  if (!hasRole(membership, "finance")) return "Your organisation's finance withdraws.";
  if (withdrawals?.some((one) => one.purpose === "withdrawal" && (one.state === "requested" || one.state === "drafted"))) return "One withdrawal at a time: the last one is not paid yet.";
  if (compareMoney(wallet.available, wallet.minimum_withdrawal) < 0) return `There is less than ${formatMoney(wallet.minimum_withdrawal)} to withdraw.`;
  return undefined;
}

function Destination({ org, wallet, membership, onDone }: { org: string; wallet: Wallet; membership: Membership; onDone: () => void }) {
  const address = membership.payout_address;
  if (address === undefined || address === "") return <PayoutAddress org={org} current={undefined} onDone={undefined} onClose={onDone} />;
  return <Form org={org} wallet={wallet} address={address} onDone={onDone} />;
}

function Form({ org, wallet, address, onDone }: { org: string; wallet: Wallet; address: string; onDone: () => void }) {
  const { available, minimum_withdrawal: minimum } = wallet;
  const [amount, setAmount] = useState("");
  const withdraw = useAction({
    run: (body: { amount: string; address: string }, header) => unwrap(client.POST("/v1/wallet/withdrawals", { params: { query: { org }, header }, body })),
    invalidates: [["wallet", org]],
    done: "Withdrawal asked for",
    onDone,
  });
  const fields = withdraw.error === null ? [] : asApiError(withdraw.error).fields;
  const refused = fields.find((field) => field.path.includes("amount"))?.message;
  const valid = isDecimalAmount(amount, amountOf(available).decimals);
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        withdraw.mutate({ amount, address });
      }}
    >
      <div className="amount-row">
        <Field
          label={`Amount, ${available.currency}`}
          error={refused ?? (amount !== "" && !valid ? `Write a positive number with at most ${available.decimals} decimals` : undefined)}
          hint={
            <>
              <MoneyText of={available} /> available, at least <MoneyText of={minimum} />
            </>
          }
        >
          {(props) => <input {...props} className="input input-number" inputMode="decimal" required autoComplete="off" value={amount} onChange={(event) => setAmount(event.target.value.trim())} />}
        </Field>
        <Button className="beside-field" onClick={() => setAmount(plainText(available))}>
          All
        </Button>
      </div>
      <div className="stack" data-gap="tiny">
        <span className="legend">To the payout address of your organisation, and no other</span>
        <span className="copyable">
          <span className="mono address">{address}</span>
          <CopyIcon text={address} what="Payout address" />
        </span>
      </div>
      <ol className="way-out">
        <li>The amount leaves your balance at once; running clusters keep what is held for them.</li>
        <li>It goes out with the next payout run. People at Muster approve each payment, a large one two of them.</li>
        <li>Until a run has it, you can give it up and have it back. After that it lands, or comes back by itself.</li>
      </ol>
      {refused === undefined && <ActionError error={withdraw.error} />}
      <div className="dialog-actions">
        <Button onClick={onDone}>Close</Button>
        <Button type="submit" look="primary" busy={withdraw.isPending} disabled={!valid}>
          {valid ? `Withdraw ${amount} ${available.currency}` : "Withdraw"}
        </Button>
      </div>
    </form>
  );
}

/** What has been withdrawn, and refunds of what could not be credited; nothing before there is any. */
export function Withdrawals({ org }: { org: string }) {
  const withdrawals = useInfiniteQuery(withdrawalsQuery(org));
  return (
    <SafePanel title="Withdrawals" flush>
      <LoadedList query={withdrawals} rows={2} empty={<Empty>Nothing has been withdrawn.</Empty>}>
        {(items) => <Rows org={org} withdrawals={items} />}
      </LoadedList>
    </SafePanel>
  );
}

function Rows({ org, withdrawals }: { org: string; withdrawals: Withdrawal[] }) {
  return (
    <TableScroll label="Withdrawals">
      <table>
        <thead>
          <tr>
            <th scope="col">Asked for</th>
            <th scope="col">State</th>
            <th scope="col" className="number">
              Amount
            </th>
            <th scope="col" className="not-narrow">To</th>
            <th scope="col">Transaction</th>
            <th scope="col" className="not-narrow">Ended</th>
            <th scope="col">
              <span className="visually-hidden">Action</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {withdrawals.map((one) => (
            <tr key={one.id}>
              <td>
                <Time at={one.requested_at} />
                {one.requested_by !== undefined && one.requested_by !== "" && <div className="muted">{one.requested_by}</div>}
              </td>
              <td>
                <State machine="withdrawal" state={one.state} />
                {one.purpose === "refund" && <div className="muted">a refund of what could not be credited</div>}
                {one.attention !== undefined && one.attention !== "" && <div className="muted wide">{one.attention}</div>}
              </td>
              <td className="number">
                <MoneyText of={one.amount} />
              </td>
              <td className="not-narrow">
                <ShortId id={one.address} what="Wallet address" keep={4} />
              </td>
              <td>{one.signature === undefined || one.signature === "" ? <span className="muted">{one.state === "cancelled" ? "none" : "not yet"}</span> : <TransactionLink signature={one.signature} />}</td>
              <td className="not-narrow">{one.ended_at === undefined ? <span className="muted">not yet</span> : <Time at={one.ended_at} />}</td>
              <td className="tight">{one.state === "requested" && one.purpose === "withdrawal" && <GiveUp org={org} withdrawal={one} />}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

function GiveUp({ org, withdrawal }: { org: string; withdrawal: Withdrawal }) {
  const membership = useMembership(org);
  const [open, setOpen] = useState(false);
  const cancel = useAction({
    run: (_: undefined, header) => unwrap(client.POST("/v1/wallet/withdrawals/{id}/cancel", { params: { path: { id: withdrawal.id }, query: { org }, header } })),
    invalidates: [["wallet", org]],
    done: "Withdrawal given up",
    onDone: () => setOpen(false),
  });
  if (membership === undefined || !hasRole(membership, "finance")) return null;
  return (
    <>
      <Button size="small" onClick={() => setOpen(true)}>
        Give up
      </Button>
      <Dialog open={open} title="Give this withdrawal up?" onClose={() => setOpen(false)}>
        <p>
          <MoneyText of={withdrawal.amount} /> are in your balance again at once.
        </p>
        <ActionError error={cancel.error} />
        <div className="dialog-actions">
          <Button onClick={() => setOpen(false)}>Keep it</Button>
          <Button look="danger" busy={cancel.isPending} onClick={() => cancel.mutate(undefined)}>
            Give it up
          </Button>
        </div>
      </Dialog>
    </>
  );
}
