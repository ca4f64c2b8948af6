import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import type { TokenHolding } from "../api/types";
import { LoadedList, SafePanel } from "../design/Loaded";
import { Empty, ShortId, TableScroll, Time, Toned } from "../design/parts";
import { holdingsQuery, type HoldingKind } from "./queries";

const KINDS: Record<HoldingKind, string> = { settlement: "Of the platform's token", foreign: "Of other tokens" };

/** Token accounts of our wallets that the ledger does not mirror: why they are not counted, and what is to be done. */
export function Holdings({ org }: { org: string }) {
  const [kind, setKind] = useState<HoldingKind>();
  const holdings = useInfiniteQuery(holdingsQuery(org, kind));
  return (
    <SafePanel
      title="Held beside the ledger"
      flush
      aside={
        <span>
          <select className="input" aria-label="Which holdings" value={kind ?? ""} onChange={(event) => setKind(event.target.value === "" ? undefined : (event.target.value as HoldingKind))}>
            <option value="">All of them</option>
            {Object.entries(KINDS).map(([value, word]) => (
              <option key={value} value={value}>
                {word}
              </option>
            ))}
          </select>
        </span>
      }
    >
      <LoadedList query={holdings} rows={1} empty={<Empty>No wallet of ours has a further token account.</Empty>}>
        {(list) => (
          <TableScroll label="Held beside the ledger">
            <table>
              <thead>
                <tr>
                  <th scope="col">Wallet</th>
                  <th scope="col">Why it is not counted</th>
                  <th scope="col" className="number">
                    Amount
                  </th>
                  <th scope="col">Account</th>
                  <th scope="col">Seen</th>
                </tr>
              </thead>
              <tbody>
                {list.map((holding) => (
                  <Row key={holding.id} org={org} holding={holding} />
                ))}
              </tbody>
            </table>
          </TableScroll>
        )}
      </LoadedList>
    </SafePanel>
  );
}

function Row({ org, holding }: { org: string; holding: TokenHolding }) {
  return (
    <tr>
      <th scope="row">
        {holding.customer ?? "The treasury"}
        <div>
          <ShortId id={holding.wallet} what="Wallet" keep={4} />
        </div>
      </th>
      <td className="wide">
        <Toned tone={holding.kind === "settlement" ? "bad" : "unknown"}>{holding.kind === "settlement" ? "An open question" : "Another token"}</Toned>
        <div>{holding.note}</div>
        <Warnings holding={holding} />
        {holding.deposits.length > 0 && (
          <div>
            {holding.in_suspense} of it arrived as{" "}
            <Link to="/o/$org/finance/deposits" params={{ org }}>
              {holding.deposits.length === 1 ? "a deposit in suspense" : `${holding.deposits.length} deposits in suspense`}
            </Link>
          </div>
        )}
      </td>
      <td className="number">
        {holding.amount}
        <div className="muted nowrap">
          of <ShortId id={holding.mint} what="Mint" keep={4} />
        </div>
      </td>
      <td>
        <ShortId id={holding.account} what="Token account" keep={4} />
        {holding.program === "token_2022" && <div className="muted">Token-2022</div>}
      </td>
      <td>
        <Time at={holding.last_seen} utc />
        {!holding.present && <div className="muted">not there any more</div>}
        {holding.changed_at !== undefined && (
          <div className="muted">
            changed <Time at={holding.changed_at} utc />
          </div>
        )}
      </td>
    </tr>
  );
}

/** Who else can do something with the account. */
function Warnings({ holding }: { holding: TokenHolding }) {
  return (
    <>
      {holding.frozen && <div className="muted">Frozen by the token&apos;s issuer</div>}
      {holding.delegate !== undefined && (
        <div className="muted">
          Tokens can be taken by <ShortId id={holding.delegate} what="Delegate" keep={4} />
        </div>
      )}
      {holding.close_authority !== undefined && (
        <div className="muted">
          It can be closed by <ShortId id={holding.close_authority} what="Close authority" keep={4} />
        </div>
      )}
    </>
  );
}
