package metrics_test

import (
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/metrics"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// gathered are counters, gauges and the counts of histograms, by name and labels' values.
func gathered(t *testing.T, w *schedulertest.World) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.New(w.Pool, slog.New(slog.DiscardHandler)))
	registry.MustRegister(w.Applier.Collectors()...)
	registry.MustRegister(w.Lifecycle.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += " " + label.GetValue()
			}
			name = strings.TrimPrefix(name, "muster_scheduler_")
			values[name] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	return values
}

func TestMetricsFollowABookingItsClusterAndAReplacement(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	for range 3 {
		w.AddHost("H100", 2, 1_000_000, "eu")
	}
	id := w.Ready(schedulertest.Spec(2, 2))
	quote := w.Quote(schedulertest.Spec(1, 1))
	w.Escrow.Balance = 0
	w.Accept(quote)
	got := gathered(t, w)
	want := maps.Clone(got)
	maps.Copy(want, map[string]float64{
		"bookings_decided_total accepted": 1, "bookings_decided_total insufficient_funds": 1, "booking_decision_seconds": 2,
		"bookings_waiting": 0, "cluster_assembly_seconds": 1, "node_replacements_total": 0, "clusters ready": 1, "clusters degraded": 0,
	})
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}

	w.Exec(`UPDATE hosts SET state = 'lost', connected = false WHERE id = $1`, w.Get(id).Nodes[2].HostID)
	w.Look()
	got = gathered(t, w)
	if replaced, degraded := got["node_replacements_total"], got["clusters degraded"]; replaced != 1 || degraded != 1 {
		t.Errorf("after a lost host: %v", got)
	}
	w.AgentsStart(id)
	w.Look()
	got = gathered(t, w)
	if assembled, ready := got["cluster_assembly_seconds"], got["clusters ready"]; assembled != 1 || ready != 1 {
		t.Errorf("after its replacement: %v", got)
	}
}
