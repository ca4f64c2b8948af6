import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import type { Difference, ReconciledAccount, ReconciledWallet, Reconciliation } from "../api/types";
import { Loaded, SafePanel } from "../design/Loaded";
import { Empty, MoneyText, Notice, ShortId, Skeleton, State, TableScroll, Time, Toned } from "../design/parts";
import { TransactionLink } from "../design/TransactionLink";
import { compareMoney } from "../money/money";
import { reconciliationQuery } from "./queries";
import { Survey } from "./Survey";
import { CLASS_WORDS } from "./words";

export function ReconciliationPage() {
  const { org, id } = useParams({ from: "/o/$org/finance/reconcile/$id" });
  const query = useQuery(reconciliationQuery(org, id));
  return (
    <div className="page">
      <Loaded
        query={query}
        skeleton={
          <div className="stack">
            <Skeleton height={40} width={320} />
            <Skeleton height={84} />
            <Skeleton height={200} />
          </div>
        }
      >
        {(run) => <Content org={org} run={run} />}
      </Loaded>
      <p>
        <Link to="/o/$org/finance/reconcile" params={{ org }} className="row-link">
          All runs
        </Link>
      </p>
    </div>
  );
}

function Content({ org, run }: { org: string; run: Reconciliation }) {
  return (
    <>
      <div className="page-head">
        <div className="line">
          <h1>Reconciliation</h1>
          <State machine="reconciliation" state={run.state} />
        </div>
        <span className="muted">
          <Time at={run.started_at} utc />
        </span>
      </div>
      {run.state === "failed" && (
        <Notice tone="bad">
          <p>The run could not finish{run.reason === undefined || run.reason === "" ? "." : `: ${run.reason}`} Nothing was changed; run it again.</p>
        </Notice>
      )}
      {run.state === "behind" && (
        <Notice tone="warn">
          <p>Not all of the chain was read yet: {run.reason}. A month cannot be closed until then.</p>
        </Notice>
      )}
      <dl className="figures">
        <div className="figure">
          <dt>Differences</dt>
          <dd>{run.difference_count}</dd>
        </div>
        <div className="figure">
          <dt>Matched on both sides</dt>
          <dd>{run.matched}</dd>
        </div>
        <div className="figure">
          <dt>Chain read up to slot</dt>
          <dd>{run.slot.toLocaleString()}</dd>
        </div>
      </dl>
      <SafePanel title="Accounts" flush>
        <Accounts accounts={run.accounts ?? []} />
      </SafePanel>
      {run.wallets !== undefined && run.wallets.length > 0 && (
        <SafePanel title="SOL" flush>
          <Wallets wallets={run.wallets} />
        </SafePanel>
      )}
      {run.holdings !== undefined && <Survey org={org} survey={run.holdings} />}
      <SafePanel title="Differences" flush>
        <Differences run={run} />
      </SafePanel>
    </>
  );
}

function Accounts({ accounts }: { accounts: ReconciledAccount[] }) {
  if (accounts.length === 0) return <Empty>No account was walked.</Empty>;
  return (
    <TableScroll label="Accounts">
      <table>
        <thead>
          <tr>
            <th scope="col">Account</th>
            <th scope="col" className="number">
              In
            </th>
            <th scope="col" className="number">
              Out
            </th>
            <th scope="col" className="number">
              Closing on chain
            </th>
            <th scope="col" className="number">
              Closing in the ledger
            </th>
            <th scope="col">Agrees</th>
            <th scope="col" className="number">
              Transactions
            </th>
            <th scope="col">Continuity</th>
          </tr>
        </thead>
        <tbody>
          {accounts.map((account) => (
            <tr key={account.address}>
              <th scope="row">
                {account.name}
                <div>
                  <ShortId id={account.address} what="Account address" keep={4} />
                </div>
              </th>
              <td className="number">
                <MoneyText of={account.in} />
              </td>
              <td className="number">
                <MoneyText of={account.out} />
              </td>
              <td className="number">
                <MoneyText of={account.chain_closing} />
              </td>
              <td className="number">
                <MoneyText of={account.ledger_closing} />
              </td>
              <td>{compareMoney(account.chain_closing, account.ledger_closing) === 0 ? <Toned tone="ok">Equal</Toned> : <Toned tone="bad">Differs</Toned>}</td>
              <td className="number">{account.transactions}</td>
              <td>{account.continuous ? <Toned tone="ok">Unbroken</Toned> : <Toned tone="bad">Gap</Toned>}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

function Wallets({ wallets }: { wallets: ReconciledWallet[] }) {
  return (
    <TableScroll label="SOL">
      <table>
        <thead>
          <tr>
            <th scope="col">Wallet</th>
            <th scope="col" className="number">
              On chain
            </th>
            <th scope="col" className="number">
              In the journal
            </th>
            <th scope="col">Agrees</th>
            <th scope="col" className="number">
              Transactions
            </th>
            <th scope="col">Continuity</th>
          </tr>
        </thead>
        <tbody>
          {wallets.map((wallet) => (
            <tr key={wallet.address}>
              <th scope="row">
                {wallet.name}
                <div>
                  <ShortId id={wallet.address} what="Wallet address" keep={4} />
                </div>
              </th>
              <td className="number">
                <MoneyText of={wallet.balance} />
              </td>
              <td className="number">
                <MoneyText of={wallet.journal} />
              </td>
              <td>{wallet.behind ? "Not yet" : compareMoney(wallet.balance, wallet.journal) === 0 ? <Toned tone="ok">Equal</Toned> : <Toned tone="bad">Differs</Toned>}</td>
              <td className="number">{wallet.transactions}</td>
              <td>
                {wallet.behind ? <Toned tone="warn">Behind</Toned> : wallet.continuous ? <Toned tone="ok">Unbroken</Toned> : <Toned tone="bad">Gap</Toned>}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

function Differences({ run }: { run: Reconciliation }) {
  const differences: Difference[] = run.differences ?? [];
  if (differences.length === 0) {
    return <Empty>{run.state === "clean" ? (
      <>
        <Toned tone="ok">0 differences</Toned> Every movement is on both sides.
      </>
    ) : run.state === "running" ? "The chain is being walked." : "None recorded."}</Empty>;
  }
  return (
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
            <th scope="col">When</th>
            <th scope="col">Transaction</th>
          </tr>
        </thead>
        <tbody>
          {differences.map((difference, index) => (
            <tr key={`${difference.class} ${difference.signature ?? ""} ${index}`}>
              <th scope="row">
                <Toned tone="bad">{CLASS_WORDS[difference.class] ?? difference.class}</Toned>
              </th>
              <td className="wide">{difference.text}</td>
              <td className="number">{difference.ledger === undefined ? <span className="muted">none</span> : <MoneyText of={difference.ledger} />}</td>
              <td className="number">{difference.chain === undefined ? <span className="muted">none</span> : <MoneyText of={difference.chain} />}</td>
              <td>
                <Time at={difference.at} utc />
              </td>
              <td>{difference.signature !== undefined && difference.signature !== "" && <TransactionLink signature={difference.signature} />}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
