// Package metrics shows operators what the scheduler has to do, as Prometheus gauges from the database. What it has done is
// counted where it is done, in packages applier, cluster and fleet.
package metrics

import (
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-gpu/muster/internal/sqlmetrics"
)

// New makes the collector. Its queries read partial indexes of what is live, so that they cost the same however old the market is.
func New(pool *pgxpool.Pool, log *slog.Logger) prometheus.Collector {
	return sqlmetrics.New(
		pool, log, "scheduler",
		sqlmetrics.Gauge{
			Name: "muster_scheduler_clusters", Help: "Live clusters, by state.", Labels: []string{"state"},
			SQL: `SELECT s.state, count(c.id)::float8
			      FROM unnest(ARRAY['reserved', 'preparing', 'head_up', 'joining', 'ready', 'degraded', 'draining']) AS s (state)
			      LEFT JOIN clusters c ON c.state = s.state AND c.state NOT IN ('released', 'failed')
			      GROUP BY s.state ORDER BY s.state`,
		},
		sqlmetrics.Gauge{
			Name: "muster_scheduler_bookings_waiting", Help: "Bookings that wait for a decision.",
			SQL: `SELECT count(*)::float8 FROM bookings WHERE state = 'quoted' AND requested_at IS NOT NULL`,
		},
	)
}
