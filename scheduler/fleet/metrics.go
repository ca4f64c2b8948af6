package fleet

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-gpu/muster/internal/errs"
)

type metrics struct {
	streams      prometheus.Gauge
	heartbeats   prometheus.Counter
	flushes      *prometheus.CounterVec
	flushSeconds prometheus.Histogram
	lost         prometheus.Counter
	quarantines  prometheus.Counter
	enrolments   *prometheus.CounterVec
	renewals     *prometheus.CounterVec
	denied       *prometheus.CounterVec
	tunnels      prometheus.Gauge
	tunnelDials  *prometheus.CounterVec
	tunnelBytes  *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		streams:    prometheus.NewGauge(options("agent_streams", "Agents connected to this gateway.")),
		heartbeats: prometheus.NewCounter(prometheus.CounterOpts(options("heartbeats_total", "Heartbeats received."))),
		flushes: prometheus.NewCounterVec(prometheus.CounterOpts(options("flushes_total",
			"Writes of collected heartbeats and reports, by outcome.")), []string{"outcome"}),
		flushSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "muster", Subsystem: "fleet", Name: "flush_seconds",
			Help:    "How long a write of collected heartbeats and reports took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}),
		lost:        prometheus.NewCounter(prometheus.CounterOpts(options("hosts_lost_total", "Hosts marked lost for want of heartbeats."))),
		quarantines: prometheus.NewCounter(prometheus.CounterOpts(options("hosts_quarantined_total", "Hosts put in quarantine."))),
		enrolments:  prometheus.NewCounterVec(prometheus.CounterOpts(options("enrolments_total", "Join tokens presented, by outcome.")), []string{"outcome"}),
		renewals:    prometheus.NewCounterVec(prometheus.CounterOpts(options("certificate_renewals_total", "Certificates asked for again, by outcome.")), []string{"outcome"}),
		denied:      prometheus.NewCounterVec(prometheus.CounterOpts(options("rpcs_denied_total", "RPCs that the authorizer refused, by method.")), []string{"method"}),
		tunnels:     prometheus.NewGauge(options("tunnels_open", "Open tunnels to hosts.")),
		tunnelDials: prometheus.NewCounterVec(prometheus.CounterOpts(options("tunnel_dials_total", "Tunnels asked for, by outcome.")), []string{"outcome"}),
		tunnelBytes: prometheus.NewCounterVec(prometheus.CounterOpts(options("tunnel_bytes_total",
			"Bytes carried by tunnels; to_host or from_host.")), []string{"direction"}),
	}
	if registerer != nil {
		registerer.MustRegister(m.streams, m.heartbeats, m.flushes, m.flushSeconds, m.lost, m.quarantines, m.enrolments, m.renewals,
			m.denied, m.tunnels, m.tunnelDials, m.tunnelBytes)
	}
	return m
}

func options(name, help string) prometheus.GaugeOpts {
	return prometheus.GaugeOpts{Namespace: "muster", Subsystem: "fleet", Name: name, Help: help}
}

// outcome is the value of the label of the same name: "ok" or an error's code.
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	return string(errs.CodeOf(err))
}
