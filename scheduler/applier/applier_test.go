package applier_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

func TestABookingTakesTheQuotedHostsAndHoldsTheirPrice(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	cheap, dear := w.AddHost("H100", 2, 1_500_000, "eu"), w.AddHost("H100", 2, 2_000_000, "us")
	w.AddHost("H100", 2, 9_000_000, "eu")

	quote := w.Quote(schedulertest.Spec(2, 2))
	if quote.Lines[0].HostID != cheap || quote.Lines[1].HostID != dear || quote.Hold != 7_000_000 {
		t.Fatalf("quoted %+v for %d", quote.Lines, quote.Hold)
	}
	// A price that rises meanwhile does not change what was quoted.
	w.Exec(`UPDATE asks SET price_per_gpu_hour = 5000000 WHERE host_id = $1`, cheap)
	booked := w.Accept(quote)
	if booked.State != "accepted" || w.Escrow.Held[quote.ID] != 7_000_000 {
		t.Fatalf("booking is %s, held %v", booked.State, w.Escrow.Held)
	}
	if n := w.Count(`SELECT count(*) FROM leases WHERE state = 'held' AND price_per_gpu_hour IN (1500000, 2000000)`); n != 4 {
		t.Errorf("%d leases at the quoted prices, want 4", n)
	}
	if n := w.Count(`SELECT count(*) FROM hosts WHERE state = 'leased' AND desired_generation = 2`); n != 3 {
		t.Errorf("%d hosts were told, want both and the head", n)
	}
}

func TestAcceptingTwiceBooksOnce(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	w.AddHost("H100", 4, 1_000_000, "eu")
	quote := w.Quote(schedulertest.Spec(1, 1))
	first := w.Accept(quote)
	again, err := w.Market.Accept(t.Context(), w.Customer, quote.ID, market.AcceptOptions{ClusterName: "another name"})
	if err != nil || again.ClusterID != first.ClusterID {
		t.Errorf("the second accept gave %v, %v; want cluster %s again", again.ClusterID, err, first.ClusterID)
	}
	if n := w.Count(`SELECT count(*) FROM clusters`); n != 1 {
		t.Errorf("there are %d clusters", n)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(*schedulertest.World)
		code    errs.Code
		text    string
	}{
		"without funds": {func(w *schedulertest.World) { w.Escrow.Balance = 10 }, errs.InsufficientFunds, "are needed"},
		"gone meanwhile": {func(w *schedulertest.World) {
			w.Exec(`UPDATE gpus SET healthy = false`)
		}, errs.NoCapacity, "have gone"},
		"dearer now": {func(w *schedulertest.World) {
			w.Exec(`UPDATE gpus SET healthy = false`)
			w.AddHost("H100", 1, 3_000_000, "eu")
		}, errs.NoCapacity, "dearer"},
		"no head": {func(w *schedulertest.World) {
			w.Exec(`UPDATE hosts SET connected = false WHERE kind = 'head'`)
		}, errs.NoCapacity, "Ray head"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := schedulertest.New(t)
			w.AddHead()
			w.AddHost("H100", 1, 1_000_000, "eu")
			quote := w.Quote(schedulertest.Spec(1, 1))
			c.prepare(w)
			w.Accept(quote)
			_, err := w.Market.Accept(t.Context(), w.Customer, quote.ID, market.AcceptOptions{})
			if errs.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.text) {
				t.Errorf("refused with %s: %v", errs.CodeOf(err), err)
			}
			if n := w.Count(`SELECT count(*) FROM clusters`) + w.Count(`SELECT count(*) FROM leases`) + w.Count(`SELECT count(*) FROM nodes`); n != 0 {
				t.Errorf("a refused booking left %d rows", n)
			}
		})
	}
}

func TestARefusalDropsThatBookingAlone(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	w.AddHost("H100", 2, 1_000_000, "eu")
	var quotes []market.Quote
	for range 3 {
		quotes = append(quotes, w.Quote(schedulertest.Spec(1, 1)))
	}
	w.Exec(`UPDATE bookings SET requested_at = now()`)
	if decided, err := w.Applier.Apply(t.Context(), schedulertest.Term); err != nil || decided != 3 {
		t.Fatalf("decided %d, %v", decided, err)
	}
	if accepted, refused := w.Count(`SELECT count(*) FROM bookings WHERE state = 'accepted'`), w.Count(`SELECT count(*) FROM bookings WHERE state = 'refused'`); accepted != 2 || refused != 1 {
		t.Errorf("%d accepted, %d refused of %d; want 2 and 1", accepted, refused, len(quotes))
	}
}

func TestABookingThatCannotBeDecidedHoldsUpNobody(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	w.AddHost("H100", 2, 1_000_000, "eu")
	broken, empty, sound := w.Quote(schedulertest.Spec(1, 1)), w.Quote(schedulertest.Spec(1, 1)), w.Quote(schedulertest.Spec(1, 1))
	w.Exec(`UPDATE bookings SET requested_at = now() - interval '1 minute', plan = '{}' WHERE id = $1`, broken.ID)
	w.Exec(`UPDATE bookings SET requested_at = now() - interval '1 minute', plan = '[]' WHERE id = $1`, empty.ID)
	w.Exec(`UPDATE bookings SET requested_at = now() WHERE id = $1`, sound.ID)
	decided, err := w.Applier.Apply(t.Context(), schedulertest.Term)
	if err != nil || decided != 1 {
		t.Fatalf("decided %d, %v; want one", decided, err)
	}
	if accepted := w.Count(`SELECT count(*) FROM bookings WHERE id = $1 AND state = 'accepted'`, sound.ID); accepted != 1 {
		t.Error("the sound booking behind it was not accepted")
	}
	if left := w.Count(`SELECT count(*) FROM bookings WHERE id = $1 AND state = 'quoted'`, broken.ID); left != 1 {
		t.Error("the broken booking does not wait any more")
	}
}

func TestBookingsOfOneBatchMoveToHostsThatAreStillFree(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	for range 3 {
		w.AddHost("H100", 1, 1_000_000, "eu")
	}
	var same []market.Quote
	for range 4 {
		same = append(same, w.Quote(schedulertest.Spec(1, 1)))
	}
	if same[0].Lines[0].HostID != same[3].Lines[0].HostID {
		t.Fatal("the quotes are for different hosts: the test shows nothing")
	}
	w.Exec(`UPDATE bookings SET requested_at = now()`)
	if decided, err := w.Applier.Apply(t.Context(), schedulertest.Term); err != nil || decided != 4 {
		t.Fatalf("decided %d, %v", decided, err)
	}
	if accepted, hosts := w.Count(`SELECT count(*) FROM bookings WHERE state = 'accepted'`), w.Count(`SELECT count(DISTINCT host_id) FROM leases`); accepted != 3 || hosts != 3 {
		t.Errorf("%d were accepted on %d hosts, want 3 on 3", accepted, hosts)
	}
}

func TestTheLastGPUGoesToOne(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	w.AddHost("H100", 1, 1_000_000, "eu")
	for range 20 {
		w.Quote(schedulertest.Spec(1, 1))
	}
	w.Exec(`UPDATE bookings SET requested_at = now()`)
	var appliers sync.WaitGroup
	for range 4 {
		appliers.Go(func() {
			if _, err := w.Applier.Apply(t.Context(), schedulertest.Term); err != nil {
				t.Error(err)
			}
		})
	}
	appliers.Wait()
	if accepted, leases := w.Count(`SELECT count(*) FROM bookings WHERE state = 'accepted'`), w.Count(`SELECT count(*) FROM leases`); accepted != 1 || leases != 1 {
		t.Errorf("%d bookings were accepted with %d leases", accepted, leases)
	}
}

func TestAnExpiredQuoteCannotBeBooked(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	w.AddHost("H100", 1, 1_000_000, "eu")
	quote := w.Quote(schedulertest.Spec(1, 1))
	w.Exec(`UPDATE bookings SET quoted_at = now() - interval '1 hour', expires_at = now() - interval '1 minute'`)
	if _, err := w.Market.Accept(t.Context(), w.Customer, quote.ID, market.AcceptOptions{}); errs.CodeOf(err) != errs.Expired {
		t.Errorf("accepting gave %v", err)
	}
	other := w.AddOrg("Another")
	if _, err := w.Market.GetQuote(t.Context(), other, quote.ID); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("another organisation's quote gave %v", err)
	}
}

func TestAPassedTermWritesNothing(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	w.AddHost("H100", 1, 1_000_000, "eu")
	w.Quote(schedulertest.Spec(1, 1))
	w.Exec(`UPDATE bookings SET requested_at = now()`)
	w.Exec(`UPDATE leadership SET term = term + 1`)
	if _, err := w.Applier.Apply(t.Context(), schedulertest.Term); err == nil || !strings.Contains(err.Error(), "has passed") {
		t.Errorf("the old leader's write gave %v", err)
	}
	if n := w.Count(`SELECT count(*) FROM clusters`); n != 0 {
		t.Errorf("the old leader wrote %d clusters", n)
	}
}

func TestBadSpecs(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHost("H100", 1, 1_000_000, "eu")
	for name, c := range map[string]struct {
		change func(*market.Spec)
		text   string
	}{
		"no nodes":       {func(s *market.Spec) { s.Nodes = 0 }, "between 1 and 64 nodes"},
		"too many nodes": {func(s *market.Spec) { s.Nodes = 1_000_000_000 }, "between 1 and 64 nodes"},
		"no GPUs":        {func(s *market.Spec) { s.GPUsPerNode = 0 }, "between 1 and 16 GPUs"},
		"too long":       {func(s *market.Spec) { s.Duration = 721 * time.Hour }, "720h"},
		"backwards":      {func(s *market.Spec) { s.Duration = -time.Hour }, "between 1m"},
		"unknown model":  {func(s *market.Spec) { s.GPUModel = "H1000" }, "only H100"},
		"unknown region": {func(s *market.Spec) { s.Regions = []string{"mars"} }, "only eu"},
		"absurd limit":   {func(s *market.Spec) { s.MaxPrice = 1 << 62 }, "at most"},
	} {
		spec := schedulertest.Spec(1, 1)
		c.change(&spec)
		if _, err := w.Market.Quote(t.Context(), w.Customer, w.User, spec); errs.CodeOf(err) != errs.Invalid || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.Market.Quote(t.Context(), w.Customer, w.User, schedulertest.Spec(2, 1)); errs.CodeOf(err) != errs.NoCapacity {
		t.Errorf("two nodes on one host gave %v", err)
	}
}
