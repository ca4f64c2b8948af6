// What both sides' statements are made of.
import type { Money, StatementCredit, StatementMovement } from "../api/types";
import { LongText, MoneyText, Skeleton, TableScroll, Time } from "../design/parts";
import { TransactionLink } from "../design/TransactionLink";
import { isZero } from "../money/money";
import { formatDuration } from "../time/time";

export interface Line {
  word: string;
  amount: Money;
  sign?: "+" | "−";
  total?: boolean;
  part?: boolean;
  /** Left out when it is nothing. */
  optional?: boolean;
}

/** The sum that a statement is. */
export function Sum({ lines }: { lines: Line[] }) {
  return (
    <dl className="pairs">
      {lines
        .filter((line) => line.optional !== true || !isZero(line.amount))
        .map((line) => (
          <div key={line.word} data-total={line.total === true ? "" : undefined} data-part={line.part === true ? "" : undefined}>
            <dt>{line.word}</dt>
            <dd className="number">
              {line.sign !== undefined && !isZero(line.amount) && `${line.sign} `}
              <MoneyText of={line.amount} />
            </dd>
          </div>
        ))}
    </dl>
  );
}

const PARTIES: Record<StatementCredit["fault_party"], string> = {
  owner: "The host's owner",
  platform: "Muster",
  customer: "The customer",
  funds: "Funds",
  preempted: "Pre-empted",
};

export interface NamedCredit extends StatementCredit {
  name: string;
}

export function Credits({ head, amount, credits }: { head: string; amount: string; credits: NamedCredit[] }) {
  return (
    <TableScroll label="Time that was not delivered">
      <table>
        <thead>
          <tr>
            <th scope="col">{head}</th>
            <th scope="col">From</th>
            <th scope="col" className="number">
              For
            </th>
            <th scope="col" className="number">
              {amount}
            </th>
            <th scope="col">At fault</th>
            <th scope="col">Why</th>
          </tr>
        </thead>
        <tbody>
          {credits.map((credit) => (
            <tr key={`${credit.lease_id} ${credit.from}`}>
              <th scope="row">{credit.name}</th>
              <td>
                <Time at={credit.from} utc />
              </td>
              <td className="number nowrap">{formatDuration(Date.parse(credit.to) - Date.parse(credit.from))}</td>
              <td className="number">
                <MoneyText of={credit.amount} />
              </td>
              <td>{PARTIES[credit.fault_party]}</td>
              <td className="statement-words">
                <LongText text={credit.reason} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

export function Movements({ label, movements }: { label: string; movements: StatementMovement[] }) {
  const onChain = movements.some((movement) => movement.signature !== undefined && movement.signature !== "");
  return (
    <TableScroll label={label}>
      <table>
        <thead>
          <tr>
            <th scope="col">When</th>
            <th scope="col">What</th>
            <th scope="col" className="number">
              Amount
            </th>
            {onChain && <th scope="col">Transaction</th>}
          </tr>
        </thead>
        <tbody>
          {movements.map((movement) => (
            <tr key={movement.id}>
              <th scope="row">
                <Time at={movement.at} utc />
              </th>
              <td className="statement-words">{movement.text}</td>
              <td className="number">
                <MoneyText of={movement.amount} />
              </td>
              {onChain && <td>{movement.signature === undefined || movement.signature === "" ? <span className="muted">none</span> : <TransactionLink signature={movement.signature} />}</td>}
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

export function StatementSkeleton() {
  return (
    <div className="stack" role="status">
      <span className="visually-hidden">Loading the statement</span>
      <Skeleton height={84} />
      <Skeleton height={240} />
    </div>
  );
}
