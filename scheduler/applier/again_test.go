package applier_test

import (
	"testing"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

func leased(c *census.Census) map[ids.Host]uint64 {
	gpus := make(map[ids.Host]uint64)
	c.Read(func(x *placement.Index) {
		for h := range x.All() {
			gpus[h.ID] = h.Leased
		}
	})
	return gpus
}

// hide leases the GPUs of a host in a way that the feed does not tell of.
func (w fixture) hide(host ids.Host) {
	w.Helper()
	other := w.AddHost("L40S", 1, 1_000_000, "eu")
	spec := schedulertest.Spec(1, 1)
	spec.GPUModel = "L40S"
	cluster := w.Book(spec)
	for _, sql := range []string{
		`ALTER TABLE leases DISABLE TRIGGER leases_fleet_insert`,
		`INSERT INTO leases (id, cluster_id, node_id, host_id, gpu_id, customer_org_id, owner_org_id, price_per_gpu_hour, fee_bps)
			SELECT gen_random_uuid(), l.cluster_id, l.node_id, g.host_id, g.id, l.customer_org_id, l.owner_org_id, 1, 0
			FROM leases l, gpus g WHERE l.cluster_id = '` + sqlID(cluster) + `' AND l.host_id = '` + sqlID(other) + `' AND g.host_id = '` + sqlID(host) + `'`,
		`ALTER TABLE leases ENABLE TRIGGER leases_fleet_insert`,
	} {
		w.Exec(sql)
	}
}

func TestWhatTheDatabaseRefusesIsPlacedAgain(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	first := w.AddHost("H100", 1, 1_000_000, "eu")
	quote, beside := w.Quote(schedulertest.Spec(1, 1)), w.Quote(schedulertest.Spec(1, 1))
	second := w.AddHost("H100", 2, 1_000_000, "eu")
	w.hide(first)
	w.Exec(`UPDATE bookings SET requested_at = now() WHERE id IN ($1, $2)`, quote.ID, beside.ID)
	w.apply(2)
	if a, b := w.state(quote.ID), w.state(beside.ID); a != "accepted" || b != "accepted" {
		t.Fatalf("the bookings are %s and %s", a, b)
	}
	if n := w.Count(`SELECT count(*) FROM leases WHERE host_id = $1`, second); n != 2 {
		t.Errorf("%d leases where there was room", n)
	}
	if n := w.Count(`SELECT count(*) FROM clusters`); n != 3 {
		t.Errorf("%d clusters: what was refused has left some", n)
	}
}

func TestAHostLostBetweenQuoteAndCommitIsReplaced(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	lost := w.AddHost("H100", 1, 1_000_000, "eu")
	quote := w.Quote(schedulertest.Spec(1, 1))
	w.AddHost("H100", 1, 1_000_000, "us")
	w.Exec(`UPDATE hosts SET state = 'lost', connected = false WHERE id = $1`, lost)
	if booked := w.Accept(quote); booked.State != "accepted" {
		t.Fatalf("it is %s", w.state(quote.ID))
	}
	if n := w.Count(`SELECT count(*) FROM bookings WHERE id = $1 AND plan->0->>'region' = 'us'`, quote.ID); n != 1 {
		t.Error("the booking's plan does not say where it is")
	}
}

func TestAHostThatCanNoLongerStartTheRayIsNotBooked(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	changed := w.AddHost("H100", 1, 1_000_000, "eu")
	quote := w.Quote(schedulertest.Spec(1, 1))
	w.AddHost("H100", 1, 1_000_000, "us")
	w.Exec(`UPDATE hosts SET images = '{2.61.0}' WHERE id = $1`, changed)
	if booked := w.Accept(quote); booked.State != "accepted" || booked.Lines[0].HostID == changed {
		t.Fatalf("it is %s, on %+v", w.state(quote.ID), booked.Lines)
	}
}

func TestAFailedHoldDropsThatBookingAloneAndItsGPUsGoToTheNext(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	m.Exec(`UPDATE hosts SET connected = false WHERE id <> $1 AND kind = 'gpu'`, m.hosts[0])
	for _, s := range []step{{"broke", 4}, {"book", 4}} { // one GPU is left
		if err := m.do(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if decided, err := m.applier.Apply(t.Context(), schedulertest.Term); err != nil || decided != 2 {
		t.Fatalf("decided %d, %v", decided, err)
	}
	if n := m.Count(`SELECT count(*) FROM bookings WHERE state = 'refused' AND refusal_code = 'insufficient_funds' AND org_id = $1`, m.customer[1]); n != 1 {
		t.Error("the one without money was not refused for it")
	}
	if n := m.Count(`SELECT count(*) FROM bookings WHERE state = 'accepted' AND org_id = $1`, m.customer[0]); n != 1 {
		t.Error("the one behind it did not get the GPU")
	}
}
