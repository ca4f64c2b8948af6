package deposits

import "github.com/prometheus/client_golang/prometheus"

func newArrivals() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_settlement_deposits_total", Help: "Arrivals of tokens recorded, by outcome: credited, suspense or capital.",
	}, []string{"outcome"})
}

// Collectors are the service's metrics, to be registered where they are shown.
func (s *Service) Collectors() []prometheus.Collector { return []prometheus.Collector{s.arrivals} }
