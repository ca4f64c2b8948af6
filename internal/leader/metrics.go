package leader

import (
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-gpu/muster/internal/sqlmetrics"
)

// Metrics shows the terms of all roles, and which of them the given holder leads. Unlike other gauges from the database, the
// second is of one process: its sum over a role's processes is the number of leaders, and must be 1.
func Metrics(pool *pgxpool.Pool, holder string, log *slog.Logger) prometheus.Collector {
	return sqlmetrics.New(
		pool, log, "leader",
		sqlmetrics.Gauge{
			Name: "muster_leader_term", Help: "Term of a role's lead: it grows with each takeover.", Labels: []string{"role"},
			SQL: `SELECT role, term::float8 FROM leadership ORDER BY role`,
		},
		sqlmetrics.Gauge{
			Name: "muster_leader_leading", Help: "Whether this process leads a role.", Labels: []string{"role"},
			SQL:  `SELECT role, (holder = $1 AND expires_at > clock_timestamp())::int::float8 FROM leadership ORDER BY role`,
			Args: []any{holder},
		},
	)
}
