package metering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/settlement/ledger"
)

const (
	// DefaultInterval is how often usage is charged.
	DefaultInterval = time.Second

	clustersPerTransaction = 64
	passTimeout            = 30 * time.Second
	advisoryLock           = 0x6d657465 // "mete": passes follow each other
)

// Meter charges usage. Make it with New; it is safe for concurrent use.
type Meter struct {
	pool     *pgxpool.Pool
	ledger   *ledger.Ledger
	log      *slog.Logger
	interval time.Duration
	charges  prometheus.Counter
}

// New makes a meter that charges in the ledger's currency.
func New(pool *pgxpool.Pool, book *ledger.Ledger, interval time.Duration, log *slog.Logger) *Meter {
	return &Meter{pool: pool, ledger: book, interval: interval, log: log, charges: newCharges()}
}

// Run charges every interval, as the settlement leader of a term, until ctx ends or the term has passed. Failures are logged and
// the next pass tries again, so the error is always nil; it is there for leader.Elector.
func (m *Meter) Run(ctx context.Context, term int64) error {
	ticker := time.NewTicker(m.interval)
	defer ticker.Stop()
	for {
		err := m.pass(ctx, &term)
		switch {
		case ctx.Err() != nil:
			return nil
		case leader.TermPassed(err):
			m.log.WarnContext(ctx, "stop charging: another process leads", "term", term)
			return nil
		case err != nil:
			m.log.ErrorContext(ctx, "charge usage", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Settle charges everything that is due now, on any process. The error joins those of the clusters that could not be charged.
func (m *Meter) Settle(ctx context.Context) error { return m.pass(ctx, nil) }

// pass charges every cluster that is not settled, a bounded number a transaction.
func (m *Meter) pass(ctx context.Context, term *int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, passTimeout, errors.New("charge usage: a pass took longer than "+passTimeout.String()))
	defer cancel()
	var failed error
	var last ids.Cluster
	for {
		clusters, err := m.unsettled(ctx, last)
		if err != nil {
			return errors.Join(failed, err)
		}
		if len(clusters) == 0 {
			return failed
		}
		last = clusters[len(clusters)-1]
		if err := m.settle(ctx, term, clusters); err != nil {
			if leader.TermPassed(err) || ctx.Err() != nil {
				return err
			}
			failed = errors.Join(failed, m.settleEach(ctx, term, clusters))
		}
	}
}

// settleEach goes on where a joint transaction failed, so that one bad cluster does not keep the others from being charged.
func (m *Meter) settleEach(ctx context.Context, term *int64, clusters []ids.Cluster) error {
	var failed error
	for _, cluster := range clusters {
		if err := m.settle(ctx, term, []ids.Cluster{cluster}); err != nil {
			failed = errors.Join(failed, fmt.Errorf("charge %s: %w", cluster, err))
		}
	}
	return failed
}

// unsettled is the next clusters after one, in id order, that run or whose end is not settled.
func (m *Meter) unsettled(ctx context.Context, after ids.Cluster) ([]ids.Cluster, error) {
	rows, err := m.pool.Query(ctx, `
		(SELECT id FROM clusters WHERE state NOT IN ('released', 'failed') AND id > $1 ORDER BY id LIMIT $2)
		UNION ALL
		(SELECT id FROM clusters WHERE ended_at IS NOT NULL AND settled_at IS NULL AND id > $1 ORDER BY id LIMIT $2)
		ORDER BY id LIMIT $2`, pgUUID(after), clustersPerTransaction)
	if err != nil {
		return nil, fmt.Errorf("list unsettled clusters: %w", err)
	}
	clusters, err := pgx.CollectRows(rows, pgx.RowTo[ids.Cluster])
	if err != nil {
		return nil, fmt.Errorf("list unsettled clusters: %w", err)
	}
	return clusters, nil
}

func (m *Meter) settle(ctx context.Context, term *int64, clusterIDs []ids.Cluster) error {
	posted := 0
	err := pgx.BeginFunc(ctx, m.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, advisoryLock); err != nil {
			return fmt.Errorf("wait for another pass: %w", err)
		}
		if term != nil {
			if err := leader.Assert(ctx, tx, leader.RoleSettlement, *term); err != nil {
				return err
			}
		}
		clusters, err := readMetered(ctx, tx, clusterIDs)
		if err != nil {
			return err
		}
		for _, c := range clusters {
			charges, err := m.settleOne(ctx, tx, c)
			if err != nil {
				return err
			}
			posted += charges
		}
		return nil
	})
	if err == nil {
		m.charges.Add(float64(posted))
	}
	return err
}

// settleOne returns how many charges it posted.
func (m *Meter) settleOne(ctx context.Context, tx pgx.Tx, c *metered) (charges int, err error) {
	dues, charged, beyond := c.dues()
	if beyond > 0 && (len(dues) > 0 || c.over()) {
		m.log.ErrorContext(ctx, "usage costs more than the hold and was cut off", "cluster_id", c.id, "hold", c.hold, "beyond", beyond)
	}
	if len(dues) == 0 && !c.over() {
		return 0, nil
	}
	entries := make([]ledger.Entry, 0, len(dues)+1)
	for _, d := range dues {
		entries = append(entries, c.entry(d))
	}
	if c.over() {
		if entry, ok := c.release(charged); ok {
			entries = append(entries, entry)
		}
	}
	for len(entries) > 0 {
		n := min(len(entries), ledger.MaxEntries)
		if _, err := m.ledger.PostAll(ctx, tx, entries[:n]); err != nil {
			return 0, err
		}
		entries = entries[n:]
	}
	if err := recordCharges(ctx, tx, c, dues); err != nil {
		return 0, err
	}
	if c.over() {
		return len(dues), m.markSettled(ctx, tx, c, charged)
	}
	return len(dues), nil
}

// readMetered reads clusters, their leases and usage in one statement, hence at one moment.
func readMetered(ctx context.Context, tx pgx.Tx, clusterIDs []ids.Cluster) ([]*metered, error) {
	rows, err := tx.Query(ctx, `
		SELECT c.id, c.org_id, c.booking_id, c.hold_base_units, c.ended_at,
		       l.id, coalesce(l.owner_org_id, c.org_id), coalesce(l.price_per_gpu_hour, 0), coalesce(l.fee_bps, 0),
		       coalesce(u.billed_ms, 0), coalesce(u.open, false), coalesce(lc.billed_ms, 0), coalesce(lc.charged, 0), coalesce(lc.fee, 0)
		FROM clusters c
		LEFT JOIN leases l ON l.cluster_id = c.id
		LEFT JOIN LATERAL (
			SELECT floor(sum(extract(epoch FROM coalesce(u.ended_at, u.confirmed_at) - u.started_at)) * 1000)::bigint AS billed_ms,
			       bool_or(u.ended_at IS NULL) AS open
			FROM usage u WHERE u.lease_id = l.id
		) u ON true
		LEFT JOIN lease_charges lc ON lc.lease_id = l.id
		WHERE c.id = ANY ($1::uuid[]) AND c.settled_at IS NULL
		ORDER BY c.id, l.id`, pgUUIDs(clusterIDs))
	if err != nil {
		return nil, fmt.Errorf("read usage: %w", err)
	}
	var clusters []*metered
	var c metered
	var lease meteredLease
	var open bool
	_, err = pgx.ForEachRow(rows, []any{
		&c.id, &c.customer, &c.booking, &c.hold, &c.endedAt, &lease.id, &lease.owner, &lease.price, &lease.feeBps,
		&lease.billedMS, &open, &lease.postedMS, &lease.charged, &lease.fee,
	}, func() error {
		if len(clusters) == 0 || clusters[len(clusters)-1].id != c.id {
			next := c
			clusters = append(clusters, &next)
		}
		if current := clusters[len(clusters)-1]; !lease.id.IsZero() {
			current.leases = append(current.leases, lease)
			current.openUsage = current.openUsage || open
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read usage: %w", err)
	}
	return clusters, nil
}

// recordCharges keeps what has been posted for each lease, in all and on the day that the ledger has it on.
func recordCharges(ctx context.Context, tx pgx.Tx, c *metered, dues []due) error {
	batch := &pgx.Batch{}
	for _, d := range dues {
		batch.Queue(`
			INSERT INTO lease_charges (lease_id, cluster_id, charged, fee, billed_ms) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (lease_id) DO UPDATE
			SET charged = excluded.charged, fee = excluded.fee, billed_ms = excluded.billed_ms, updated_at = now()`,
			d.lease, c.id, d.charged, d.feeTotal, d.billedMS)
		batch.Queue(`
			INSERT INTO lease_days AS d (lease_id, day, customer_org_id, owner_org_id, charged, fee, billed_ms)
			SELECT $1, (t.posted_at AT TIME ZONE 'UTC')::date, $2, $3, $4, $5, $6
			FROM ledger_entries e JOIN ledger_transfers t ON t.entry_id = e.id AND t.ordinal = 0 WHERE e.key = $7
			ON CONFLICT (lease_id, day) DO UPDATE
			SET charged = d.charged + excluded.charged, fee = d.fee + excluded.fee, billed_ms = d.billed_ms + excluded.billed_ms`,
			d.lease, c.customer, d.owner, d.charge, d.fee, d.addedMS, chargeKey(d.lease, d.charged))
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("record charges: %w", err)
	}
	return nil
}

// markSettled closes the cluster's account and tells its viewers.
func (m *Meter) markSettled(ctx context.Context, tx pgx.Tx, c *metered, charged money.Amount) error {
	tag, err := tx.Exec(ctx, `UPDATE clusters SET settled_at = now(), version = version + 1 WHERE id = $1 AND settled_at IS NULL`, c.id)
	if err != nil {
		return fmt.Errorf("settle %s: %w", c.id, err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("settle %s: it was settled meanwhile", c.id)
	}
	currency := m.ledger.Currency()
	message := fmt.Sprintf("%s %s charged, %s %s returned",
		currency.Format(charged), currency.Symbol, currency.Format(c.hold-charged), currency.Symbol)
	_, err = tx.Exec(ctx, `
		WITH event AS (
			INSERT INTO cluster_events (cluster_id, org_id, kind, message) VALUES ($1, $2, 'credit', $3) RETURNING org_id
		)
		SELECT pg_notify($4, org_id::text) FROM event`, c.id, c.customer, message, pgnotify.ChannelClusterEvents)
	if err != nil {
		return fmt.Errorf("announce the settlement of %s: %w", c.id, err)
	}
	return nil
}

// chargeKey ties a charge to the total that it leads to: the same total is posted once.
func chargeKey(lease ids.Lease, total money.Amount) string {
	return "charge:" + lease.String() + ":" + strconv.FormatInt(int64(total), 10)
}
