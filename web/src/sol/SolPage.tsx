import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import type { SOLJournal, SOLLine } from "../api/types";
import { Loaded, LoadedList, SafePanel } from "../design/Loaded";
import { Button, Empty, Field, MoneyText, ShortId, Skeleton, TableScroll, Time, Toned } from "../design/parts";
import { TransactionLink } from "../design/TransactionLink";
import { monthChoices, solFile, solJournalQuery, solLinesQuery } from "./queries";
import { SOL_KINDS, solSearch, type SolSearch } from "./search";
import "./sol.css";
import { KIND_WORDS } from "./words";

const FROM = "/o/$org/finance/sol";
const MOST_CHARS = 88;

/** What the treasury's wallet had and spent in SOL, transaction by transaction. */
export function SolPage() {
  const { org } = useParams({ from: FROM });
  const search = useSearch({ from: FROM });
  const navigate = useNavigate({ from: FROM });
  const { month, ...rest } = search;
  const journal = useQuery(solJournalQuery(org, month));
  return (
    <div className="page">
      <div className="page-head">
        <h1>SOL of the treasury</h1>
        <div className="line">
          <span>
            <select
              className="input"
              aria-label="Month"
              value={month ?? ""}
              onChange={(event) => void navigate({ search: solSearch({ ...rest, month: event.target.value }), resetScroll: false })}
            >
              <option value="">From the first transaction on</option>
              {monthChoices(new Date(), month).map((one) => (
                <option key={one} value={one}>
                  {one}
                </option>
              ))}
            </select>
          </span>
          <a className="button" href={solFile(org, month)} download>
            {month === undefined ? "All of it as CSV" : "This month as CSV"}
          </a>
        </div>
      </div>
      <p className="muted">
        Fees, rent and top-ups of the wallet that pays for transactions, read from the chain with each{" "}
        <Link to="/o/$org/finance/reconcile" params={{ org }}>
          reconciliation
        </Link>
        . Rent is the SOL that lies in accounts as long as they exist.
      </p>
      <SafePanel title="From opening to closing" flush>
        <Loaded
          query={journal}
          skeleton={
            <div className="panel-body">
              <Skeleton height={180} />
            </div>
          }
        >
          {(loaded) => <Totals journal={loaded} />}
        </Loaded>
      </SafePanel>
      <Lines org={org} search={search} />
    </div>
  );
}

function Totals({ journal }: { journal: SOLJournal }) {
  return (
    <>
      <TableScroll label="From opening to closing">
        <table>
          <thead>
            <tr>
              <th scope="col">Kind</th>
              <th scope="col" className="number">
                Lines
              </th>
              <th scope="col" className="number">
                Amount
              </th>
            </tr>
          </thead>
          <tbody>
            <tr>
              <th scope="row">Opening</th>
              <td />
              <td className="number">
                <MoneyText of={journal.opening} />
              </td>
            </tr>
            {journal.totals.map((total) => (
              <tr key={total.kind}>
                <td>{KIND_WORDS[total.kind]}</td>
                <td className="number">{total.lines.toLocaleString()}</td>
                <td className="number">
                  <MoneyText of={total.amount} />
                </td>
              </tr>
            ))}
            <tr>
              <th scope="row">Closing</th>
              <td />
              <td className="number strong">
                <MoneyText of={journal.closing} />
              </td>
            </tr>
          </tbody>
        </table>
      </TableScroll>
      <p className="panel-body muted">
        After {journal.transactions.toLocaleString()} {journal.transactions === 1 ? "transaction" : "transactions"}
        {journal.failed > 0 && `, ${journal.failed.toLocaleString()} of which failed and cost ${journal.failed === 1 ? "its" : "their"} fee`}.
      </p>
    </>
  );
}

function Lines({ org, search }: { org: string; search: SolSearch }) {
  const lines = useInfiniteQuery(solLinesQuery(org, search));
  const filtered = search.kind !== undefined || search.signature !== undefined;
  return (
    <SafePanel title="Journal" aside={<span className="muted">newest first</span>} flush>
      <Filter search={search} filtered={filtered} />
      <LoadedList query={lines} empty={<Empty>{filtered || search.month !== undefined ? "The journal has no such lines." : "The wallet has no transaction yet, or no reconciliation has read them."}</Empty>}>
        {(items) => (
          <TableScroll label="Journal">
            <table>
              <thead>
                <tr>
                  <th scope="col">When</th>
                  <th scope="col">Kind</th>
                  <th scope="col" className="number">
                    Amount
                  </th>
                  <th scope="col" className="number">
                    Left
                  </th>
                  <th scope="col">For</th>
                  <th scope="col">Account</th>
                  <th scope="col">Transaction</th>
                </tr>
              </thead>
              <tbody>
                {items.map((line, index) => (
                  <Line key={`${line.signature} ${line.kind} ${index}`} org={org} line={line} />
                ))}
              </tbody>
            </table>
          </TableScroll>
        )}
      </LoadedList>
    </SafePanel>
  );
}

function Filter({ search, filtered }: { search: SolSearch; filtered: boolean }) {
  const navigate = useNavigate({ from: FROM });
  const month = search.month === undefined ? {} : { month: search.month };
  return (
    <form
      key={JSON.stringify(search)}
      className="sol-filter"
      aria-label="Filter the journal"
      onSubmit={(event) => {
        event.preventDefault();
        void navigate({ search: solSearch({ ...month, ...Object.fromEntries(new FormData(event.currentTarget)) }), resetScroll: false });
      }}
    >
      <Field label="Kind">
        {(props) => (
          <select {...props} className="input" name="kind" defaultValue={search.kind ?? ""}>
            <option value="">Any</option>
            {SOL_KINDS.map((kind) => (
              <option key={kind} value={kind}>
                {KIND_WORDS[kind]}
              </option>
            ))}
          </select>
        )}
      </Field>
      <Field label="Transaction">{(props) => <input {...props} className="input mono" name="signature" maxLength={MOST_CHARS} placeholder="Its whole signature" defaultValue={search.signature} />}</Field>
      <div className="line" data-gap="small" data-nowrap>
        <Button type="submit">Filter</Button>
        {filtered && (
          <Button look="quiet" onClick={() => void navigate({ search: month, resetScroll: false })}>
            Clear
          </Button>
        )}
      </div>
    </form>
  );
}

function Line({ org, line }: { org: string; line: SOLLine }) {
  return (
    <tr>
      <td>
        <Time at={line.at} utc />
      </td>
      <td className="nowrap">
        {KIND_WORDS[line.kind]}
        {line.failed === true && (
          <div>
            <Toned tone="bad">Failed</Toned>
          </div>
        )}
      </td>
      <td className="number">
        <MoneyText of={line.amount} />
      </td>
      <td className="number">
        <MoneyText of={line.balance} />
      </td>
      <td className="nowrap">
        <Purpose org={org} line={line} />
      </td>
      <td>{line.account !== undefined && <ShortId id={line.account} what="Account" keep={4} />}</td>
      <td>
        <TransactionLink signature={line.signature} />
      </td>
    </tr>
  );
}

/** What of ours the transaction was for. */
function Purpose({ org, line }: { org: string; line: SOLLine }) {
  if (line.batch_id !== undefined) {
    return (
      <Link to="/o/$org/finance/payouts/$id" params={{ org, id: line.batch_id }}>
        {line.purpose === "cancellation" ? "A cancellation" : "A payout"}
      </Link>
    );
  }
  if (line.purpose === "sweep") {
    return (
      <Link to="/o/$org/finance/deposits" params={{ org }}>
        A sweep
      </Link>
    );
  }
  return <span className="muted">none of ours</span>;
}
