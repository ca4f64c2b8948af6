package cluster

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

const observeTimeout = 2 * time.Second

type metrics struct {
	assembly     prometheus.Histogram
	replacements prometheus.Counter
}

func newMetrics() metrics {
	return metrics{
		assembly: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_scheduler_cluster_assembly_seconds", Help: "From the acceptance of a booking to its cluster's being ready for the first time.",
			Buckets: prometheus.ExponentialBuckets(1, 1.6, 14),
		}),
		replacements: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_scheduler_node_replacements_total", Help: "Nodes that failed and were given to another host.",
		}),
	}
}

// Collectors are the lifecycle's metrics, to be registered where they are shown.
func (l *Lifecycle) Collectors() []prometheus.Collector {
	return []prometheus.Collector{l.metrics.assembly, l.metrics.replacements}
}

// observe counts what a committed step has changed since before, by the database's times.
func (l *Lifecycle) observe(ctx context.Context, before loaded) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	var replacements int32
	var assembly *float64
	err := l.pool.QueryRow(ctx, `SELECT replacements, extract(epoch FROM ready_at - created_at)::float8 FROM clusters WHERE id = $1`,
		uuid.UUID(before.cluster.ID).String()).Scan(&replacements, &assembly)
	if err != nil {
		l.log.WarnContext(ctx, "step not counted", "cluster_id", before.cluster.ID, "error", err)
		return
	}
	l.metrics.replacements.Add(float64(max(0, replacements-before.cluster.Replacements)))
	if before.cluster.ReadyAt == nil && assembly != nil {
		l.metrics.assembly.Observe(*assembly)
	}
}
