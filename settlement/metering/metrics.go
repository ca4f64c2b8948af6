package metering

import "github.com/prometheus/client_golang/prometheus"

func newCharges() prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{
		Name: "muster_settlement_charges_posted_total", Help: "Charges of leases posted to the ledger.",
	})
}

// Collectors are the meter's metrics, to be registered where they are shown.
func (m *Meter) Collectors() []prometheus.Collector { return []prometheus.Collector{m.charges} }
