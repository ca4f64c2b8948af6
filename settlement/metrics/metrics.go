// Package metrics shows operators how settlement stands, as Prometheus gauges from the database: what to alert on is here. What
// settlement has done is counted where it is done, in packages metering, deposits and chain.
package metrics

import (
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-gpu/muster/internal/sqlmetrics"
)

// lastFinished is the newest reconciliation that has ended. Ids are in order of time, so that it is found by the primary key.
const lastFinished = `(SELECT state, difference_count FROM reconciliations WHERE state <> 'running' ORDER BY id DESC LIMIT 1)`

// New makes the collector. The last reconciliation's gauges are absent until there is one.
func New(pool *pgxpool.Pool, log *slog.Logger) prometheus.Collector {
	return sqlmetrics.New(
		pool, log, "settlement",
		sqlmetrics.Gauge{
			Name: "muster_settlement_unsettled_clusters", Help: "Clusters that have ended and are not settled yet.",
			SQL: `SELECT count(*)::float8 FROM clusters WHERE ended_at IS NOT NULL AND settled_at IS NULL`,
		},
		sqlmetrics.Gauge{
			Name: "muster_settlement_payout_batches", Labels: []string{"state"},
			Help: "Payout batches that have not ended, by state; a frozen one waits for a person.",
			SQL: `SELECT s.state, count(b.id)::float8
			      FROM unnest(ARRAY['draft', 'approved', 'signed', 'sent', 'cancelling', 'frozen']) AS s (state)
			      LEFT JOIN payout_batches b ON b.state = s.state AND b.state IN ('draft', 'approved', 'signed', 'sent', 'cancelling', 'frozen')
			      GROUP BY s.state ORDER BY s.state`,
		},
		sqlmetrics.Gauge{
			Name: "muster_settlement_payout_batches_held_up", Help: "Payout batches that something holds up, the frozen ones not counted.",
			SQL: `SELECT count(*)::float8 FROM payout_batches WHERE state IN ('draft', 'approved', 'signed', 'sent', 'cancelling') AND attention <> ''`,
		},
		sqlmetrics.Gauge{
			Name: "muster_settlement_reconciliation_result", Labels: []string{"outcome"},
			Help: "1 for the outcome of the last reconciliation, 0 for the others.",
			SQL: `SELECT o.outcome, (r.state = o.outcome)::int::float8
			      FROM unnest(ARRAY['clean', 'differences', 'behind', 'failed']) AS o (outcome), ` + lastFinished + ` r ORDER BY o.outcome`,
		},
		sqlmetrics.Gauge{
			Name: "muster_settlement_reconciliation_differences", Help: "Differences that the last reconciliation found.",
			SQL: `SELECT difference_count::float8 FROM ` + lastFinished + ` r`,
		},
		sqlmetrics.Gauge{
			Name: "muster_settlement_reconciliation_clean_age_seconds", Help: "Time since the last clean reconciliation ended.",
			SQL: `SELECT extract(epoch FROM clock_timestamp() - finished_at)::float8
			      FROM reconciliations WHERE state = 'clean' ORDER BY id DESC LIMIT 1`,
		},
	)
}
