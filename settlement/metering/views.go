package metering

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// HistoryWindow is how far back the per-day figures and the statement go.
const HistoryWindow = 90 * 24 * time.Hour

// The kinds of entry that package payouts posts for withdrawals.
const (
	kindWithdrawal       = "withdrawal"
	kindWithdrawalReturn = "withdrawal_return"
)

// MaxStatement bounds a page of a statement.
const MaxStatement = 200

// Wallet is an organisation's prepaid balance.
type Wallet struct {
	Available           money.Amount
	Held                money.Amount
	SpendPerHour        money.Amount // of everything that is billed now
	DepositAddress      string       // empty until deposits.Service has assigned one
	DepositTokenAccount string
}

// Wallet reads an organisation's balance and what it spends.
func (m *Meter) Wallet(ctx context.Context, org ids.Org) (Wallet, error) {
	var w Wallet
	err := m.pool.QueryRow(ctx, `
		SELECT coalesce((SELECT balance FROM ledger_accounts WHERE kind = 'customer_available' AND org_id = $1 AND mint = $2), 0),
		       coalesce((SELECT balance FROM ledger_accounts WHERE kind = 'customer_held' AND org_id = $1 AND mint = $2), 0),
		       coalesce((SELECT sum(l.price_per_gpu_hour) FROM clusters c
		                 JOIN leases l ON l.cluster_id = c.id AND l.state <> 'closed'
		                 JOIN usage u ON u.lease_id = l.id AND u.ended_at IS NULL
		                 WHERE c.org_id = $1 AND c.state NOT IN ('released', 'failed')), 0)::bigint,
		       coalesce((SELECT wallet FROM deposit_addresses WHERE org_id = $1), ''),
		       coalesce((SELECT token_account FROM deposit_addresses WHERE org_id = $1), '')`,
		org, m.ledger.Currency().Mint).Scan(&w.Available, &w.Held, &w.SpendPerHour, &w.DepositAddress, &w.DepositTokenAccount)
	if err != nil {
		return Wallet{}, fmt.Errorf("read wallet: %w", err)
	}
	return w, nil
}

// StatementLine is one movement of an organisation's money, or a day's charges of one cluster taken together.
type StatementLine struct {
	Transfer  ids.Transfer // the last one of the line, and the cursor to the page before it
	At        time.Time
	Kind      string      // a ledger kind: deposit, hold, charge, release, ...
	Account   ledger.Kind // customer_available, customer_held, owner_payable or payout_in_flight
	Amount    money.Amount
	Balance   money.Amount // of the account after it
	Cluster   ids.Cluster
	Signature string
	Text      string // a sentence for people
}

// Transfers is an organisation's statement, newest first: the lines before a cursor, which may be zero. The charges of one
// cluster on one UTC day are one line per account, because they are posted every second.
func (m *Meter) Transfers(ctx context.Context, org ids.Org, before ids.Transfer, limit int) ([]StatementLine, error) {
	if limit <= 0 || limit > MaxStatement {
		limit = MaxStatement
	}
	rows, err := m.pool.Query(ctx, `
		WITH mine AS (
			SELECT id, kind FROM ledger_accounts
			WHERE org_id = $1 AND mint = $2 AND kind IN ('customer_available', 'customer_held', 'owner_payable', 'payout_in_flight')
		), sides AS (
			SELECT t.id, t.entry_id, t.posted_at, a.kind AS account, -t.amount AS change, t.debit_balance AS balance, t.debit_seq AS seq
			FROM mine a JOIN ledger_transfers t ON t.debit_account = a.id WHERE t.posted_at > now() - $3::interval
			UNION ALL
			SELECT t.id, t.entry_id, t.posted_at, a.kind, t.amount, t.credit_balance, t.credit_seq
			FROM mine a JOIN ledger_transfers t ON t.credit_account = a.id WHERE t.posted_at > now() - $3::interval
		), named AS (
			SELECT s.*, e.kind, e.cluster_id, e.signature,
			       CASE WHEN e.kind = 'charge' THEN e.cluster_id::text || date_trunc('day', s.posted_at, 'UTC')::text
			            ELSE s.id::text END AS line
			FROM sides s JOIN ledger_entries e ON e.id = s.entry_id
		), lines AS (
			SELECT (array_agg(id ORDER BY seq DESC))[1] AS id, max(posted_at) AS at, kind, account, sum(change)::bigint AS change,
			       (array_agg(balance ORDER BY seq DESC))[1] AS balance, cluster_id, max(signature) AS signature, max(seq) AS seq
			FROM named GROUP BY line, kind, account, cluster_id
		)
		SELECT l.id, l.at, l.kind, l.account, l.change, l.balance, l.cluster_id, coalesce(l.signature, ''), coalesce(c.name, '')
		FROM lines l LEFT JOIN clusters c ON c.id = l.cluster_id
		WHERE $4::uuid IS NULL OR l.id < $4
		ORDER BY l.id DESC FETCH FIRST $5 ROWS WITH TIES`, org, m.ledger.Currency().Mint, HistoryWindow, before, limit)
	if err != nil {
		return nil, fmt.Errorf("read statement: %w", err)
	}
	lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (StatementLine, error) {
		var line StatementLine
		var cluster string
		err := row.Scan(&line.Transfer, &line.At, &line.Kind, &line.Account, &line.Amount, &line.Balance, &line.Cluster, &line.Signature, &cluster)
		line.Text = inWords(line.Kind, line.Account, cluster)
		return line, err
	})
	if err != nil {
		return nil, fmt.Errorf("read statement: %w", err)
	}
	return lines, nil
}

func inWords(kind string, account ledger.Kind, cluster string) string {
	of := ""
	if cluster != "" {
		of = " of " + cluster
	}
	switch kind {
	case ledger.KindDeposit:
		return "Deposit received"
	case ledger.KindHold:
		return "Held for a booking"
	case ledger.KindCharge:
		if account == ledger.OwnerPayable {
			return "Earned by your GPUs" // a customer's cluster name is not the owner's to see
		}
		return "GPU time" + of
	case ledger.KindRelease:
		return "Unused hold" + of + " returned"
	case kindWithdrawal:
		return "Withdrawn"
	case kindWithdrawalReturn:
		return "A withdrawal that did not happen came back"
	case ledger.KindPayoutReserve:
		return "Put into a payout"
	case ledger.KindPayoutPaid:
		return "Paid out on chain"
	case ledger.KindPayoutReturn:
		return "Taken back from a payout that did not happen"
	default:
		return "Other movement (" + kind + ")"
	}
}

// ClusterCost is what a cluster costs, so far and at most.
type ClusterCost struct {
	Hold       money.Amount
	Charged    money.Amount // posted so far
	Fee        money.Amount // the platform's part of Charged
	PerHour    money.Amount // the rate now; zero while nothing is billed
	RefundNow  money.Amount // what a release now would return
	Refunded   money.Amount // what has been returned
	AsOf       time.Time    // the time that usage is confirmed up to
	BilledMS   int64        // cluster time: while any of its GPUs was billed
	DurationMS int64        // booked
	Leases     []LeaseCost
}

// LeaseCost is one GPU's part of a cluster's cost.
type LeaseCost struct {
	Lease    ids.Lease
	Host     ids.Host
	Price    money.Amount // per GPU-hour
	BilledMS int64
	Charged  money.Amount
	Accrued  money.Amount // what its usage comes to, posted or not
	Billing  bool
}

// ClusterCost reads the cost of one of an organisation's clusters; another's is errs.NotFound.
func (m *Meter) ClusterCost(ctx context.Context, org ids.Org, cluster ids.Cluster) (ClusterCost, error) {
	var cost ClusterCost
	err := pgx.BeginTxFunc(ctx, m.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var settled bool
		err := tx.QueryRow(ctx, `
			SELECT c.hold_base_units, c.duration_ms, c.settled_at IS NOT NULL, coalesce(c.ended_at, now()), (
				SELECT floor(coalesce(sum(extract(epoch FROM upper(period) - lower(period))), 0) * 1000)::bigint
				FROM (
					SELECT unnest(range_agg(tstzrange(u.started_at, u.confirmed_at))) AS period
					FROM usage u JOIN leases l ON l.id = u.lease_id
					WHERE l.cluster_id = c.id AND u.confirmed_at > u.started_at
				) periods)
			FROM clusters c WHERE c.id = $1 AND c.org_id = $2`, cluster, org).Scan(&cost.Hold, &cost.DurationMS, &settled, &cost.AsOf, &cost.BilledMS)
		if errors.Is(err, pgx.ErrNoRows) {
			return errs.New(errs.NotFound, "there is no cluster %s", cluster)
		}
		if err != nil {
			return fmt.Errorf("read cluster: %w", err)
		}
		if err := cost.readLeases(ctx, tx, cluster); err != nil {
			return err
		}
		cost.total(settled)
		return nil
	})
	return cost, err
}

func (c *ClusterCost) readLeases(ctx context.Context, tx pgx.Tx, cluster ids.Cluster) error {
	rows, err := tx.Query(ctx, `
		SELECT l.id, l.host_id, l.price_per_gpu_hour, coalesce(u.billed_ms, 0), coalesce(u.open, false), u.confirmed_at,
		       coalesce(lc.charged, 0), coalesce(lc.fee, 0)
		FROM leases l
		LEFT JOIN LATERAL (
			SELECT floor(sum(extract(epoch FROM coalesce(u.ended_at, u.confirmed_at) - u.started_at)) * 1000)::bigint AS billed_ms,
			       bool_or(u.ended_at IS NULL) AS open, max(u.confirmed_at) FILTER (WHERE u.ended_at IS NULL) AS confirmed_at
			FROM usage u WHERE u.lease_id = l.id
		) u ON true
		LEFT JOIN lease_charges lc ON lc.lease_id = l.id
		WHERE l.cluster_id = $1 ORDER BY l.id`, cluster)
	if err != nil {
		return fmt.Errorf("read leases: %w", err)
	}
	var lease LeaseCost
	var fee money.Amount
	var confirmed *time.Time
	_, err = pgx.ForEachRow(rows, []any{
		&lease.Lease, &lease.Host, &lease.Price, &lease.BilledMS, &lease.Billing, &confirmed, &lease.Charged, &fee,
	}, func() error {
		lease.Accrued = money.Accrued(lease.Price, lease.BilledMS)
		c.Leases = append(c.Leases, lease)
		c.Fee += fee
		if confirmed != nil {
			c.AsOf = *confirmed
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read leases: %w", err)
	}
	return nil
}

func (c *ClusterCost) total(settled bool) {
	var accrued money.Amount
	for _, lease := range c.Leases {
		c.Charged += lease.Charged
		accrued += lease.Accrued
		if lease.Billing {
			c.PerHour += lease.Price
		}
	}
	if settled {
		c.Refunded = c.Hold - c.Charged
		return
	}
	c.RefundNow = max(0, c.Hold-max(accrued, c.Charged))
}

// Earnings is what an organisation's GPUs have earned.
type Earnings struct {
	Accrued  money.Amount // used but not posted yet, before the platform's fee
	Payable  money.Amount // posted and in no payout
	InFlight money.Amount // in a payout that is not final
	Paid     money.Amount // final on chain
	Days     []EarningsDay
	Hosts    []EarningsHost
}

// EarningsDay is one UTC day; days on which nothing happened are absent.
type EarningsDay struct {
	Day    string // 2006-01-02
	Earned money.Amount
	Paid   money.Amount
}

// EarningsHost is one host's part of all earnings.
type EarningsHost struct {
	Host     ids.Host
	Name     string
	Earned   money.Amount
	BilledMS int64 // GPU time
}

// Earnings reads what an owner has earned, newest day first.
func (m *Meter) Earnings(ctx context.Context, org ids.Org) (Earnings, error) {
	var e Earnings
	err := pgx.BeginTxFunc(ctx, m.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		err := errors.Join(m.earningsTotals(ctx, tx, org, &e), m.earningsDays(ctx, tx, org, &e), earningsHosts(ctx, tx, org, &e))
		if err != nil {
			return fmt.Errorf("read earnings: %w", err)
		}
		return nil
	})
	return e, err
}

func (m *Meter) earningsTotals(ctx context.Context, tx pgx.Tx, org ids.Org, e *Earnings) error {
	return tx.QueryRow(ctx, `
		SELECT coalesce((SELECT balance FROM ledger_accounts WHERE kind = 'owner_payable' AND org_id = $1 AND mint = $2), 0),
		       coalesce((SELECT balance FROM ledger_accounts WHERE kind = 'payout_in_flight' AND org_id = $1 AND mint = $2), 0),
		       coalesce((SELECT sum(t.amount) FROM ledger_transfers t
		                 JOIN ledger_accounts d ON d.id = t.debit_account AND d.kind = 'payout_in_flight' AND d.org_id = $1 AND d.mint = $2
		                 JOIN ledger_accounts c ON c.id = t.credit_account AND c.kind = 'chain_treasury'), 0)::bigint,
		       coalesce((SELECT sum(greatest(0, floor(l.price_per_gpu_hour * u.ms / 3600000) - coalesce(lc.charged, 0)))
		                 FROM leases l
		                 JOIN clusters c ON c.id = l.cluster_id AND c.settled_at IS NULL
		                 JOIN LATERAL (SELECT floor(sum(extract(epoch FROM coalesce(u.ended_at, u.confirmed_at) - u.started_at)) * 1000) AS ms
		                               FROM usage u WHERE u.lease_id = l.id) u ON true
		                 LEFT JOIN lease_charges lc ON lc.lease_id = l.id
		                 WHERE l.owner_org_id = $1), 0)::bigint`,
		org, m.ledger.Currency().Mint).Scan(&e.Payable, &e.InFlight, &e.Paid, &e.Accrued)
}

func (m *Meter) earningsDays(ctx context.Context, tx pgx.Tx, org ids.Org, e *Earnings) error {
	rows, err := tx.Query(ctx, `
		WITH moves AS (
			SELECT t.posted_at, t.amount AS earned, 0 AS paid
			FROM ledger_transfers t
			JOIN ledger_accounts c ON c.id = t.credit_account AND c.kind = 'owner_payable' AND c.org_id = $1 AND c.mint = $2
			JOIN ledger_accounts d ON d.id = t.debit_account AND d.kind = 'customer_held'
			WHERE t.posted_at > now() - $3::interval
			UNION ALL
			SELECT t.posted_at, 0, t.amount
			FROM ledger_transfers t
			JOIN ledger_accounts d ON d.id = t.debit_account AND d.kind = 'payout_in_flight' AND d.org_id = $1 AND d.mint = $2
			JOIN ledger_accounts c ON c.id = t.credit_account AND c.kind = 'chain_treasury'
			WHERE t.posted_at > now() - $3::interval
		)
		SELECT to_char(posted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, sum(earned)::bigint, sum(paid)::bigint
		FROM moves GROUP BY day ORDER BY day DESC`, org, m.ledger.Currency().Mint, HistoryWindow)
	if err != nil {
		return err
	}
	e.Days, err = pgx.CollectRows(rows, pgx.RowToStructByPos[EarningsDay])
	return err
}

func earningsHosts(ctx context.Context, tx pgx.Tx, org ids.Org, e *Earnings) error {
	rows, err := tx.Query(ctx, `
		SELECT h.id, h.name, sum(lc.charged - lc.fee)::bigint, sum(lc.billed_ms)::bigint
		FROM leases l JOIN lease_charges lc ON lc.lease_id = l.id JOIN hosts h ON h.id = l.host_id
		WHERE l.owner_org_id = $1
		GROUP BY h.id, h.name ORDER BY h.name, h.id`, org)
	if err != nil {
		return err
	}
	e.Hosts, err = pgx.CollectRows(rows, pgx.RowToStructByPos[EarningsHost])
	return err
}
