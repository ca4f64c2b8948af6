// One quote: what the server says it costs, until when, and the one button. The client adds and multiplies nothing.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { useCallback, useEffect, useRef, useState, type ReactNode } from "react";
import { client, unwrap } from "../api/client";
import { asApiError } from "../api/problem";
import type { Quote } from "../api/types";
import { announce } from "../design/announce";
import { ActionError } from "../design/Loaded";
import { Button, MoneyText, Notice, Skeleton, Time, Toned } from "../design/parts";
import { Faucet } from "../funds/Faucet";
import { walletQuery } from "../funds/queries";
import { compareMoney, formatMoney, minus } from "../money/money";
import { durationWords } from "../time/time";
import { useNow } from "../time/useNow";
import { shortfallOf } from "./queries";

const REQUOTE_GRACE_MS = 250;

export function QuoteSkeleton() {
  return (
    <div className="stack" role="status">
      <span className="visually-hidden">Loading the quote</span>
      <Skeleton height={48} />
      <Skeleton height={196} />
      <Skeleton height={40} />
    </div>
  );
}

/** A quote and the button that books it. Chosen bids, of an auction, go with it. */
export function QuoteCard({
  org,
  quote,
  requote,
  requoting,
  failed,
  bids,
  onBooked,
  children,
}: {
  org: string;
  quote: Quote;
  requote: () => Promise<Quote | undefined>;
  requoting: boolean;
  failed: Error | null;
  bids?: string[];
  /** For a card in a dialog, instead of going to the cluster's page. */
  onBooked?: () => void;
  children?: ReactNode;
}) {
  const refresh = useCallback(() => void requote(), [requote]);
  const booking = useBooking(org, quote, requote, bids, onBooked);
  const short = compareMoney(quote.available, quote.hold) < 0;
  const shortfall = shortfallOf(booking.error);
  return (
    <>
      <div className="stack" data-gap="tiny">
        <p className="line" data-spread>
          <span className="strong">
            {quote.purpose === "extension" ? "" : `${quote.spec.node_count} × ${quote.spec.gpus_per_node} ${quote.gpu_model ?? ""}, `}
            {durationWords(quote.spec.duration)}
            {quote.purpose === "extension" ? " more" : ""}
          </span>
          {quote.kind !== "market" && <span className="tag">{quote.kind}</span>}
          {quote.simulated && <span className="tag">simulated</span>}
        </p>
        {quote.starts_at !== undefined && (
          <p>
            Starts <Time at={quote.starts_at} />
          </p>
        )}
        <Expiry quote={quote} paused={booking.busy} onExpired={refresh} requoting={requoting} failed={failed} />
      </div>
      {quote.preempts && (
        <Notice tone="warn">
          <p>It takes GPUs from spot bookings, which have 60 s to drain: the cluster starts after that.</p>
        </Notice>
      )}
      {children}
      <dl className="pairs">
        {groupLines(quote).map((line) => (
          <div key={line.key}>
            <dt>
              {line.nodes} {line.nodes === 1 ? "node" : "nodes"} × {line.gpus} GPU, {line.region}
            </dt>
            <dd>
              <MoneyText of={line.price} /> <span className="muted nowrap">per GPU-hour</span>
            </dd>
          </div>
        ))}
        <div>
          <dt>Ray head, network</dt>
          <dd>included</dd>
        </div>
        {quote.lines.length > 1 && (
          <div>
            <dt>Slowest link between nodes</dt>
            <dd>{linkWords(quote.worst_rtt_ms)}</dd>
          </div>
        )}
        <div>
          <dt>Cluster per hour</dt>
          <dd>
            <MoneyText of={quote.price_per_hour} />
          </dd>
        </div>
        {quote.saved !== undefined && (
          <div>
            <dt>{quote.price_note ?? "Saved"}</dt>
            <dd>
              −<MoneyText of={quote.saved} />
            </dd>
          </div>
        )}
        <div data-total>
          <dt>Hold, the most you pay</dt>
          <dd>
            <MoneyText of={quote.hold} />
          </dd>
        </div>
        <div data-part>
          <dt>of it to owners</dt>
          <dd>
            <MoneyText of={quote.owners_receive} />
          </dd>
        </div>
        <div data-part>
          <dt>of it platform fee</dt>
          <dd>
            <MoneyText of={quote.platform_fee} />
          </dd>
        </div>
        <div>
          <dt>Back if released half-way</dt>
          <dd>
            <MoneyText of={quote.refund_halfway} />
          </dd>
        </div>
        <div>
          <dt>Available balance</dt>
          <dd>
            <MoneyText of={quote.available} />
          </dd>
        </div>
      </dl>
      {booking.dearer !== null && (
        <Notice tone="warn">
          <p>
            The price rose from <MoneyText of={booking.dearer} /> to <MoneyText of={quote.hold} /> while you confirmed. Nothing was booked.
          </p>
        </Notice>
      )}
      {short || shortfall !== null ? (
        <Short org={org} quote={quote} text={formatMoney(shortfall?.short ?? minus(quote.hold, quote.available))} onFunded={refresh} />
      ) : (
        <>
          {booking.error !== null && <ActionError error={booking.error} />}
          <Button look="primary" size="large" busy={booking.busy} disabled={requoting} onClick={booking.confirm}>
            {booking.busy ? BUSY_WORDS[quote.purpose] : `${verbOf(quote)}, hold ${formatMoney(quote.hold)}`}
          </Button>
        </>
      )}
      <p className="hint">Billed by the second while the cluster is ready; the rest of the hold comes back. The owner of a host can read what runs on it.</p>
    </>
  );
}

const BUSY_WORDS: Record<Quote["purpose"], string> = { cluster: "Starting", addition: "Adding", extension: "Extending" };

function verbOf(quote: Quote): string {
  if (quote.purpose === "addition") return quote.spec.node_count === 1 ? "Add the node" : `Add ${quote.spec.node_count} nodes`;
  if (quote.purpose === "extension") return "Extend";
  return quote.starts_at === undefined ? "Start" : "Schedule";
}

function linkWords(ms: number | undefined): string {
  if (ms === undefined) return "not measured yet";
  return ms === 0 ? "one site" : `${ms < 1 ? "under 1" : Math.round(ms)} ms at most`;
}

interface GroupedLine {
  key: string;
  nodes: number;
  gpus: number;
  region: string;
  price: Quote["hold"];
}

/** Nodes of one region, size and price share a line. */
function groupLines(quote: Quote): GroupedLine[] {
  const groups = new Map<string, GroupedLine>();
  for (const line of quote.lines) {
    const key = `${line.region} ${line.gpus} ${line.price_per_gpu_hour.base_units}`;
    const group = groups.get(key) ?? { key, nodes: 0, gpus: line.gpus, region: line.region, price: line.price_per_gpu_hour };
    groups.set(key, { ...group, nodes: group.nodes + 1 });
  }
  return [...groups.values()];
}

const RING_LENGTH = 38;
const MS_PER_SECOND = 1_000;

function Expiry({ quote, paused, onExpired, requoting, failed }: { quote: Quote; paused: boolean; onExpired: () => void; requoting: boolean; failed: Error | null }) {
  const now = useNow(MS_PER_SECOND, !paused);
  const total = Date.parse(quote.expires_at) - Date.parse(quote.quoted_at);
  const left = Date.parse(quote.expires_at) - now;
  const expired = left <= REQUOTE_GRACE_MS;
  const asked = useRef<string | null>(null);
  useEffect(() => {
    // Once a quote, also when the new one fails: the button then says Retry.
    if (!expired || paused || asked.current === quote.id) return;
    asked.current = quote.id;
    onExpired();
  }, [expired, paused, quote.id, onExpired]);
  if (failed !== null && expired) {
    return (
      <span className="line">
        <Toned tone="warn">Expired</Toned>
        <Button size="small" onClick={onExpired} busy={requoting}>
          Quote again
        </Button>
      </span>
    );
  }
  const share = Math.max(0, Math.min(1, left / Math.max(1, total)));
  return (
    <span className="expiry muted">
      <svg className="ring" viewBox="0 0 16 16" fill="none" strokeWidth="2" aria-hidden="true">
        <circle cx="8" cy="8" r="6" stroke="var(--border)" />
        <circle cx="8" cy="8" r="6" stroke="var(--accent)" strokeDasharray={`${share * RING_LENGTH} ${RING_LENGTH}`} />
      </svg>
      {requoting || expired ? "Asking for a new price" : `This price holds for ${Math.ceil(left / MS_PER_SECOND)} s`}
    </span>
  );
}

/**
 * Confirms a quote. Its id is the idempotency key, so a second click books nothing more. A quote that expires under the
 * click is asked for again: a price that is not higher is taken, a higher one needs another confirmation.
 */
function useBooking(org: string, quote: Quote, requote: () => Promise<Quote | undefined>, bids?: string[], onBooked?: () => void) {
  const navigate = useNavigate();
  const queries = useQueryClient();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [dearer, setDearer] = useState<Quote["hold"] | null>(null);
  const running = useRef(false);

  const attempt = (id: string) => unwrap(client.POST("/v1/bookings", { params: { query: { org } }, body: { quote_id: id, ...(quote.spec.cluster_name === undefined ? {} : { cluster_name: quote.spec.cluster_name }), ...(bids === undefined ? {} : { bid_ids: bids }) } }));

  const book = async () => {
    try {
      return await attempt(quote.id);
    } catch (cause) {
      if (asApiError(cause).code !== "expired") throw cause;
      const fresh = await requote();
      if (fresh === undefined || fresh.id === quote.id) throw cause;
      if (compareMoney(fresh.hold, quote.hold) > 0) {
        setDearer(quote.hold);
        announce("The price rose. Confirm again to book.");
        return null;
      }
      return attempt(fresh.id);
    }
  };
  const confirm = async () => {
    if (running.current) return;
    running.current = true;
    setBusy(true);
    setError(null);
    setDearer(null);
    try {
      const booking = await book();
      if (booking === null) return;
      for (const queryKey of [["clusters", org], ["wallet", org], ["bookings", org], ["cluster", org]]) void queries.invalidateQueries({ queryKey });
      announce(booking.state === "scheduled" ? "Scheduled" : "Booked");
      // A scheduled booking has no cluster before its time.
      if (onBooked !== undefined) onBooked();
      else if (booking.cluster_id === undefined) await navigate({ to: "/o/$org/clusters", params: { org } });
      else await navigate({ to: "/o/$org/clusters/$id", params: { org, id: booking.cluster_id } });
    } catch (cause) {
      setError(cause);
    } finally {
      running.current = false;
      setBusy(false);
    }
  };
  return { busy, error, dearer, confirm: () => void confirm() };
}

const FUNDS_POLL_MS = 1_000;

function Short({ org, quote, text, onFunded }: { org: string; quote: Quote; text: string; onFunded: () => void }) {
  // Deposits are credited when the chain finalises them; the quote then shows the new balance by itself.
  const wallet = useQuery({ ...walletQuery(org), refetchInterval: FUNDS_POLL_MS });
  const credited = wallet.data !== undefined && compareMoney(wallet.data.available, quote.available) > 0;
  useEffect(() => {
    if (credited) onFunded();
  }, [credited, onFunded]);
  return (
    <Notice tone="warn">
      <Toned tone="warn">Short of {text}</Toned>
      <p>
        The hold is <MoneyText of={quote.hold} />, your balance <MoneyText of={quote.available} />. Add funds, or choose fewer nodes or less time.
      </p>
      <div className="line">
        <Faucet org={org} />
        <Link className="button" to="/o/$org/wallet" params={{ org }}>
          Deposit
        </Link>
      </div>
    </Notice>
  );
}
