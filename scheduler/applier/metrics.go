package applier

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	decided *prometheus.CounterVec
	latency prometheus.Histogram
	batches prometheus.Histogram
}

func newMetrics() metrics {
	return metrics{
		decided: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_scheduler_bookings_decided_total", Help: "Bookings decided, by outcome: accepted, scheduled, or the code of the refusal.",
		}, []string{"outcome"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_scheduler_booking_decision_seconds", Help: "From a customer's request, or a scheduled start, to the decision.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_scheduler_booking_batch_bookings", Help: "Bookings decided in one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 7),
		}),
	}
}

// Collectors are the applier's metrics, to be registered where they are shown.
func (a *Applier) Collectors() []prometheus.Collector {
	return []prometheus.Collector{a.metrics.decided, a.metrics.latency, a.metrics.batches}
}

func (m metrics) observe(outcome string, took time.Duration) {
	m.decided.WithLabelValues(outcome).Inc()
	m.latency.Observe(max(0, took.Seconds()))
}
