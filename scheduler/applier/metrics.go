package applier

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-gpu/muster/internal/ids"
)

const observeTimeout = 2 * time.Second

type metrics struct {
	decided *prometheus.CounterVec
	latency prometheus.Histogram
}

func newMetrics() metrics {
	return metrics{
		decided: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_scheduler_bookings_decided_total", Help: "Bookings decided, by outcome: accepted, or the code of the refusal.",
		}, []string{"outcome"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_scheduler_booking_decision_seconds", Help: "From a customer's request to the decision.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
		}),
	}
}

// Collectors are the applier's metrics, to be registered where they are shown.
func (a *Applier) Collectors() []prometheus.Collector {
	return []prometheus.Collector{a.metrics.decided, a.metrics.latency}
}

// observe counts decisions once they are committed, by the database's times.
func (a *Applier) observe(ctx context.Context, bookings []ids.Booking) {
	if len(bookings) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	list := make([]string, len(bookings))
	for i, booking := range bookings {
		list[i] = uuid.UUID(booking).String()
	}
	rows, err := a.pool.Query(ctx, `
		SELECT coalesce(refusal_code, state), extract(epoch FROM decided_at - requested_at)::float8
		FROM bookings WHERE id = ANY ($1::uuid[]) AND decided_at IS NOT NULL AND requested_at IS NOT NULL`, list)
	if err != nil {
		a.log.WarnContext(ctx, "decisions not counted", "error", err)
		return
	}
	defer rows.Close()
	for rows.Next() {
		var outcome string
		var seconds float64
		if err = rows.Scan(&outcome, &seconds); err != nil {
			break
		}
		a.metrics.decided.WithLabelValues(outcome).Inc()
		a.metrics.latency.Observe(max(0, seconds))
	}
	if err == nil {
		err = rows.Err()
	}
	if err != nil {
		a.log.WarnContext(ctx, "decisions not counted", "error", err)
	}
}
