package chain

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

func newFailures() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_chain_rpc_errors_total",
		Help: "Attempts of calls to the chain's endpoint that failed, by kind: unavailable, behind, unsupported_version, deadline or refused.",
	}, []string{"kind"})
}

func newDisagreements() prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{
		Name: "muster_chain_disagreements_total",
		Help: "Times that two endpoints said different things about money; each is an alarm.",
	})
}

// Collectors are the client's metrics, to be registered where they are shown.
func (c *Client) Collectors() []prometheus.Collector {
	return []prometheus.Collector{c.failures, c.disagreements}
}

// kindOf names a failure for the metric; "" is none: an absent account is an answer, and a caller that has gone is no failure.
func kindOf(err error) string {
	switch {
	case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, context.Canceled):
		return ""
	case errors.Is(err, ErrUnsupportedVersion):
		return "unsupported_version"
	case errors.Is(err, ErrBehind):
		return "behind"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	default:
		return "refused"
	}
}
