import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { NoncePool } from "../api/types";
import { Loaded, SafePanel } from "../design/Loaded";
import { Notice, ShortId, Skeleton, State, TableScroll, Time } from "../design/parts";
import { noncesQuery } from "./queries";
import { count, sentence, solText } from "./words";

/** What batches live by, and what they cost in SOL. */
export function Nonces({ org }: { org: string }) {
  const pool = useQuery(noncesQuery(org));
  return (
    <SafePanel title="Nonces and fees">
      <Loaded query={pool} skeleton={<Skeleton height={180} />}>
        {(loaded) => <Pool org={org} pool={loaded} />}
      </Loaded>
    </SafePanel>
  );
}

function Pool({ org, pool }: { org: string; pool: NoncePool }) {
  const { fee_payer: payer } = pool;
  const warnings = [payer.warning, pool.warning].filter((warning): warning is string => warning !== undefined && warning !== "");
  return (
    <div className="stack">
      {warnings.map((warning) => (
        <Notice key={warning} tone="warn">
          <p>{sentence(warning)}</p>
        </Notice>
      ))}
      <dl className="pairs">
        <div>
          <dt>Fee payer has</dt>
          <dd>{payer.lamports === undefined ? <span className="muted">the chain cannot be read now</span> : <span className="nowrap">{solText(payer.lamports)}</span>}</dd>
        </div>
        {payer.address !== undefined && payer.address !== "" && (
          <div>
            <dt>Its wallet, the treasury&apos;s</dt>
            <dd>
              <ShortId id={payer.address} what="Fee payer" keep={4} />
            </dd>
          </div>
        )}
        <div>
          <dt>Nonces free</dt>
          <dd>{pool.free}</dd>
        </div>
        <div>
          <dt>Nonces in use</dt>
          <dd>{pool.held}</dd>
        </div>
        {pool.unusable > 0 && (
          <div>
            <dt>Nonces unusable</dt>
            <dd>{pool.unusable}</dd>
          </div>
        )}
        <div>
          <dt>Fees in the last {count(payer.days, "day")}</dt>
          <dd className="nowrap">{solText(payer.fee_lamports)}</dd>
        </div>
        <div>
          <dt>Rent for payees&apos; accounts, too</dt>
          <dd className="nowrap">{solText(payer.rent_lamports)}</dd>
        </div>
        <div>
          <dt>Rent in the nonce accounts</dt>
          <dd className="nowrap">{solText(pool.rent_lamports)}</dd>
        </div>
      </dl>
      {pool.nonces.length > 0 && (
        <details>
          <summary>Each nonce</summary>
          <Each org={org} nonces={pool.nonces} />
        </details>
      )}
    </div>
  );
}

const MOST_SHOWN = 100;

function Each({ org, nonces }: { org: string; nonces: NoncePool["nonces"] }) {
  // What wants attention first.
  const order = ["unusable", "held", "free"];
  const shown = [...nonces].sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state)).slice(0, MOST_SHOWN);
  return (
    <>
      <TableScroll label="Nonces">
        <table>
          <thead>
            <tr>
              <th scope="col">Account</th>
              <th scope="col">State</th>
              <th scope="col">Held by</th>
              <th scope="col">Looked at</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((nonce) => (
              <tr key={nonce.account}>
                <th scope="row">
                  <ShortId id={nonce.account} what="Nonce account" keep={4} />
                </th>
                <td>
                  <State machine="nonce" state={nonce.state} />
                  {nonce.problem !== undefined && nonce.problem !== "" && <div className="muted">{nonce.problem}</div>}
                </td>
                <td>
                  {nonce.batch_id !== undefined ? (
                    <Link to="/o/$org/finance/payouts/$id" params={{ org, id: nonce.batch_id }} className="row-link">
                      Batch
                    </Link>
                  ) : (
                    nonce.state === "held" && "a sweep"
                  )}
                </td>
                <td>{nonce.checked_at !== undefined && <Time at={nonce.checked_at} clock utc />}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </TableScroll>
      {nonces.length > MOST_SHOWN && (
        <p className="muted">
          {MOST_SHOWN} of {nonces.length.toLocaleString()}; <code>muster payout nonces</code> lists them all.
        </p>
      )}
    </>
  );
}
