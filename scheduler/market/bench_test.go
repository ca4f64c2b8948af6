package market_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/seal"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/applier"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// open starts a market with an applier that decides, as a control plane does, until the test's end.
func open(t testing.TB, w *schedulertest.World) *market.Service {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	hub := pgnotify.New(w.Pool, log)
	box, err := seal.New(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	decider := applier.New(w.Pool, hub, w.Fleet, w.Escrow, box, "2.60.0", log)
	ctx, cancel := context.WithCancel(context.Background())
	listening := make(chan struct{})
	var once sync.Once
	var parts sync.WaitGroup
	parts.Go(func() { _ = hub.Run(ctx, func() { once.Do(func() { close(listening) }) }) })
	parts.Go(func() { _ = decider.Run(ctx, schedulertest.Term) })
	t.Cleanup(func() { cancel(); parts.Wait() })
	<-listening
	return market.New(w.Pool, hub, w.Fleet, w.Escrow, money.Currency{Symbol: "USDC", Decimals: 6}, market.FlatFee(250), schedulertest.RayVersion, log)
}

func TestAcceptReturnsTheDecision(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	w.AddHost("H100", 1, 1_000_000, "eu")
	service := open(t, w)
	taken, late := w.Quote(schedulertest.Spec(1, 1)), w.Quote(schedulertest.Spec(1, 1))
	booked, err := service.Accept(t.Context(), w.Customer, taken.ID, market.AcceptOptions{ClusterName: "training"})
	if err != nil || booked.State != "accepted" || booked.ClusterID.IsZero() || booked.Spec.ClusterName != "training" {
		t.Fatalf("accepting gave %+v, %v", booked, err)
	}
	if _, err := service.Accept(t.Context(), w.Customer, late.ID, market.AcceptOptions{}); errs.CodeOf(err) != errs.NoCapacity {
		t.Errorf("accepting what is gone gave %v", err)
	}
}

func TestManyAcceptAtOnceAndEachGetsItsOwnDecision(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	const free, wanted = 5, 12
	w.AddHost("H100", free, 1_000_000, "eu")
	service := open(t, w)
	quotes := make([]market.Quote, wanted)
	for i := range quotes {
		quotes[i] = w.Quote(schedulertest.Spec(1, 1))
	}
	decided := make([]market.Quote, wanted)
	var customers sync.WaitGroup
	for i, quote := range quotes {
		customers.Go(func() {
			var err error
			if decided[i], err = service.Accept(t.Context(), w.Customer, quote.ID, market.AcceptOptions{}); err != nil && errs.CodeOf(err) != errs.NoCapacity {
				t.Error(err)
			}
		})
	}
	customers.Wait()
	accepted := 0
	for i, quote := range decided {
		if quote.ID != quotes[i].ID {
			t.Errorf("the answer for %s is about %s", quotes[i].ID, quote.ID)
		}
		if quote.State == "accepted" {
			accepted++
		}
	}
	if accepted != free {
		t.Errorf("%d were accepted, want %d", accepted, free)
	}
}

func TestAcceptGivesUpWithItsCaller(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	w.AddHost("H100", 1, 1_000_000, "eu")
	quote := w.Quote(schedulertest.Spec(1, 1))
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := w.Market.Accept(ctx, w.Customer, quote.ID, market.AcceptOptions{}) // nobody decides
		result <- err
	}()
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		return w.Count(`SELECT count(*) FROM bookings WHERE requested_at IS NOT NULL`) == 1, "not requested"
	})
	cancel()
	if err := <-result; err == nil {
		t.Error("it claims a decision")
	}
}

// BenchmarkAccept measures from the customer's acceptance to the decision, on a system that is otherwise idle.
func BenchmarkAccept(b *testing.B) {
	w := schedulertest.New(b)
	for range 4 {
		w.AddHead()
	}
	for range 100 {
		w.AddHost("H100", 8, 1_000_000, "eu")
	}
	service := open(b, w)
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		quote := w.Quote(schedulertest.Spec(2, 2))
		b.StartTimer()
		began := time.Now()
		booked, err := service.Accept(b.Context(), w.Customer, quote.ID, market.AcceptOptions{})
		took = append(took, time.Since(began))
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		// Its slots and GPUs are free again for the next one.
		w.Exec(`UPDATE leases SET state = 'closed', closed_at = now() WHERE cluster_id = $1`, booked.ClusterID)
		w.Exec(`UPDATE nodes SET state = 'failed', ended_at = now() WHERE cluster_id = $1`, booked.ClusterID)
		w.Exec(`UPDATE clusters SET state = 'draining', fault_party = 'customer' WHERE id = $1`, booked.ClusterID)
		w.Exec(`UPDATE clusters SET state = 'released', ended_at = now() WHERE id = $1`, booked.ClusterID)
		b.StartTimer()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms/p99")
}
