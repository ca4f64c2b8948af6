import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import type { Deposit, Network, Wallet, WalletLine } from "../api/types";
import { Loaded, LoadedList, SafePanel } from "../design/Loaded";
import { CopyIcon, Empty, MoneyText, Notice, ShortId, Skeleton, State, TableScroll, Time } from "../design/parts";
import { QrCode } from "../design/qr";
import { TransactionLink } from "../design/TransactionLink";
import { isNegative } from "../money/money";
import { networkQuery } from "../session/session";
import { Faucet } from "./Faucet";
import { RunwayPanel } from "./RunwayPanel";
import { depositsQuery, linesQuery, walletQuery } from "./queries";
import { WithdrawButton, Withdrawals } from "./Withdrawals";
import "./wallet.css";

export function WalletPage() {
  const { org } = useParams({ from: "/o/$org/wallet" });
  const wallet = useQuery(walletQuery(org));
  const lines = useInfiniteQuery(linesQuery(org));
  const deposits = useInfiniteQuery(depositsQuery(org));
  const network = useQuery(networkQuery);
  return (
    <div className="page">
      <div className="page-head">
        <h1>Wallet</h1>
        <div className="line">{wallet.data !== undefined && <WithdrawButton org={org} wallet={wallet.data} />}</div>
      </div>
      <Loaded
        query={wallet}
        skeleton={
          <div className="stack">
            <Skeleton height={68} />
            <Skeleton height={260} />
          </div>
        }
      >
        {(loaded) => (
          <>
            <Balance wallet={loaded} />
            <RunwayPanel org={org} />
            <Funding org={org} wallet={loaded} />
          </>
        )}
      </Loaded>
      <SafePanel title="Movements" flush>
        <LoadedList query={lines} empty={<Empty>Nothing has moved yet. A deposit is the first movement.</Empty>}>
          {(items) => <Lines org={org} lines={items} />}
        </LoadedList>
      </SafePanel>
      <Withdrawals org={org} />
      <SafePanel title="Deposits seen on chain" flush>
        <LoadedList query={deposits} empty={<Empty>No transfer to the deposit address has been seen.</Empty>}>
          {(items) => <Deposits deposits={items} network={network.data} />}
        </LoadedList>
      </SafePanel>
    </div>
  );
}

function Balance({ wallet }: { wallet: Wallet }) {
  return (
    <dl className="figures">
      <div className="figure">
        <dt>Available</dt>
        <dd>
          <MoneyText of={wallet.available} />
        </dd>
      </div>
      <div className="figure">
        <dt>Held for running clusters</dt>
        <dd>
          <MoneyText of={wallet.held} />
        </dd>
      </div>
      <div className="figure">
        <dt>Spending per hour</dt>
        <dd>
          <MoneyText of={wallet.spend_per_hour} />
        </dd>
      </div>
    </dl>
  );
}

function Funding({ org, wallet }: { org: string; wallet: Wallet }) {
  const network = useQuery(networkQuery);
  const symbol = wallet.available.currency;
  return (
    <SafePanel title="Add funds">
      <div className="funding">
        <div className="stack">
          <p>
            Send {symbol} on Solana to this address from any wallet. It is credited when the chain finalises it, usually within half a minute. Send at least <MoneyText of={wallet.minimum_deposit} />, and no other token.
          </p>
          <dl className="pairs">
            <div>
              <dt>Deposit address</dt>
              <dd className="copyable">
                <span className="mono address">{wallet.deposit_address}</span>
                <CopyIcon text={wallet.deposit_address} what="Deposit address" />
              </dd>
            </div>
            <div>
              <dt>Its token account</dt>
              <dd className="copyable">
                <span className="mono address">{wallet.deposit_token_account}</span>
                <CopyIcon text={wallet.deposit_token_account} what="Token account" />
              </dd>
            </div>
          </dl>
          {network.data?.name === "local" && (
            <Notice tone="unknown">
              <p>This is a local network: its tokens are worth nothing and can be had for free.</p>
              <div className="line">
                <Faucet org={org} />
              </div>
            </Notice>
          )}
        </div>
        {wallet.solana_pay_url !== "" && (
          <figure className="stack" data-gap="tiny">
            <QrCode text={wallet.solana_pay_url} label={`Solana Pay code for the deposit address ${wallet.deposit_address}`} />
            <figcaption className="hint">
              Scan with a wallet, or <a href={wallet.solana_pay_url}>open it in one here</a>
            </figcaption>
          </figure>
        )}
      </div>
    </SafePanel>
  );
}

function Lines({ org, lines }: { org: string; lines: WalletLine[] }) {
  return (
    <TableScroll label="Movements">
      <table>
        <thead>
          <tr>
            <th scope="col">When</th>
            <th scope="col">What</th>
            <th scope="col">Account</th>
            <th scope="col" className="number">
              Amount
            </th>
            <th scope="col" className="number">
              Balance after
            </th>
            <th scope="col">Where</th>
          </tr>
        </thead>
        <tbody>
          {lines.map((line) => (
            <tr key={`${line.id} ${line.account}`}>
              <td>
                <Time at={line.at} />
              </td>
              <td className="wide">{line.text}</td>
              <td className="nowrap">{line.account.replace("_", " ")}</td>
              <td className="number">
                {isNegative(line.amount) ? "" : "+"}
                <MoneyText of={line.amount} />
              </td>
              <td className="number">
                <MoneyText of={line.balance} />
              </td>
              <td className="nowrap">
                {line.cluster_id !== undefined && (
                  <Link to="/o/$org/clusters/$id" params={{ org, id: line.cluster_id }} className="row-link">
                    Cluster
                  </Link>
                )}
                {line.signature !== undefined && line.signature !== "" && <TransactionLink signature={line.signature} />}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

function Deposits({ deposits, network }: { deposits: Deposit[]; network: Network | undefined }) {
  return (
    <TableScroll label="Deposits">
      <table>
        <thead>
          <tr>
            <th scope="col">When</th>
            <th scope="col">State</th>
            <th scope="col" className="number">
              Amount
            </th>
            <th scope="col">Transaction</th>
          </tr>
        </thead>
        <tbody>
          {deposits.map((deposit) => (
            <tr key={deposit.id}>
              <td>
                <Time at={deposit.at} />
              </td>
              <td>
                <State machine="deposit" state={deposit.state} />
                {deposit.reason !== undefined && deposit.reason !== "" && <div className="muted wide">{deposit.reason}</div>}
              </td>
              <td className="number">
                {deposit.amount} {deposit.mint === network?.mint ? network.symbol : <ShortId id={deposit.mint} what="Mint" keep={4} />}
              </td>
              <td>
                <TransactionLink signature={deposit.signature} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
