package applier_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

// fixture is a world with what these tests do to bookings' rows.
type fixture struct{ *schedulertest.World }

func newFixture(t *testing.T) fixture {
	t.Helper()
	w := fixture{schedulertest.New(t)}
	w.AddHead()
	return w
}

func hours(gpus int, d time.Duration) market.Spec {
	spec := schedulertest.Spec(1, gpus)
	spec.Duration = d
	return spec
}

// scheduled accepts a quote for a time from now.
func (w fixture) scheduled(spec market.Spec, in time.Duration) market.Quote {
	w.Helper()
	quote := w.Quote(spec)
	w.Exec(`UPDATE bookings SET starts_at = now() + $2::interval WHERE id = $1`, quote.ID, in)
	return w.Accept(quote)
}

// due moves a scheduled booking so that its start was a while ago.
func (w fixture) due(id ids.Booking, ago time.Duration) {
	w.Helper()
	w.Exec(`UPDATE reservations SET during = tstzrange(lower(during) - (b.starts_at - (now() - $2::interval)), upper(during) - (b.starts_at - (now() - $2::interval)))
		FROM bookings b WHERE b.id = booking_id AND booking_id = $1`, id, ago)
	w.Exec(`UPDATE bookings SET starts_at = now() - $2::interval WHERE id = $1`, id, ago)
}

func (w fixture) apply(want int) {
	w.Helper()
	if decided, err := w.Applier.Apply(w.Context(), schedulertest.Term); err != nil || decided != want {
		w.Fatalf("decided %d, %v; want %d", decided, err, want)
	}
}

func (w fixture) state(id ids.Booking) (state string) {
	w.Helper()
	if err := w.Pool.QueryRow(w.Context(), `SELECT state || ' ' || coalesce(refusal, '') FROM bookings WHERE id = $1`, id).Scan(&state); err != nil {
		w.Fatal(err)
	}
	return strings.TrimSpace(state)
}

// end closes everything of a cluster.
func (w fixture) end(cluster ids.Cluster) {
	w.Helper()
	w.Exec(`UPDATE leases SET state = 'closed', closed_at = now() WHERE cluster_id = $1`, cluster)
	w.Exec(`UPDATE nodes SET state = 'failed', ended_at = now() WHERE cluster_id = $1`, cluster)
}

func TestAScheduledBookingKeepsItsGPUsForItsTime(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.AddHost("H100", 2, 1_000_000, "eu")
	booked := w.scheduled(hours(2, time.Hour), 2*time.Hour)
	if booked.State != "scheduled" || w.Escrow.Held[booked.ID] != 2_000_000 || w.Count(`SELECT count(*) FROM reservations`) != 2 || w.Count(`SELECT count(*) FROM leases`) != 0 {
		t.Fatalf("booking is %s, held %d", w.state(booked.ID), w.Escrow.Held[booked.ID])
	}
	long := w.Quote(hours(1, time.Hour))
	w.Exec(`UPDATE bookings SET duration_ms = 7200000 WHERE id = $1`, long.ID)
	w.Accept(long)
	if state := w.state(long.ID); !strings.HasPrefix(state, "refused") {
		t.Errorf("a booking that reaches into the reserved time is %s", state)
	}
	short := w.Accept(w.Quote(hours(2, time.Hour)))
	if short.State != "accepted" {
		t.Fatalf("a booking that ends before is %s", w.state(short.ID))
	}
}

func TestASecondBookingForTheSameTimeIsRefused(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.AddHost("H100", 1, 1_000_000, "eu")
	first, second := w.Quote(hours(1, time.Hour)), w.Quote(hours(1, time.Hour))
	w.Exec(`UPDATE bookings SET starts_at = now() + interval '2 hours', requested_at = now()`)
	w.apply(2)
	if a, b := w.state(first.ID), w.state(second.ID); a != "scheduled" || !strings.HasPrefix(b, "refused") {
		t.Errorf("the bookings are %s and %s", a, b)
	}
	if n := w.Count(`SELECT count(*) FROM reservations`); n != 1 {
		t.Errorf("%d reservations", n)
	}
}

func TestADueBookingStartsOnItsGPUs(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	host := w.AddHost("H100", 2, 1_000_000, "eu")
	booked := w.scheduled(hours(1, time.Hour), time.Hour)
	w.apply(0)
	w.due(booked.ID, time.Second)
	w.apply(1)
	if state := w.state(booked.ID); state != "accepted" {
		t.Fatalf("it is %s", state)
	}
	if n := w.Count(`SELECT count(*) FROM leases l JOIN reservations r ON r.gpu_id = l.gpu_id WHERE l.host_id = $1 AND r.released_at IS NOT NULL`, host); n != 1 {
		t.Errorf("%d leases on reserved GPUs", n)
	}
	if held := w.Escrow.Held[booked.ID]; held != 1_000_000 || w.Count(`SELECT hold_base_units FROM clusters`) != 1_000_000 {
		t.Errorf("%d are held", held)
	}
	if other := w.Accept(w.Quote(hours(1, time.Hour))); other.State != "accepted" {
		t.Errorf("a booking of the other GPU is %s", w.state(other.ID))
	}
}

func TestADueBookingWaitsForALateClusterThenGoesElsewhere(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.AddHost("H100", 1, 1_000_000, "eu")
	late := w.Book(hours(1, time.Hour))
	w.Exec(`UPDATE clusters SET forecast_end = now() + interval '10 minutes' WHERE id = $1`, late)
	quote := w.insertQuote(hours(1, time.Hour))
	w.Exec(`UPDATE bookings SET starts_at = now() + interval '1 hour' WHERE id = $1`, quote)
	w.Exec(`UPDATE bookings SET requested_at = now() WHERE id = $1`, quote)
	w.apply(1)
	if state := w.state(quote); state != "scheduled" {
		t.Fatalf("it is %s", state)
	}
	w.due(quote, time.Second)
	w.AddHost("H100", 1, 1_000_000, "us")
	w.apply(0)
	if state := w.state(quote); state != "scheduled" {
		t.Fatalf("while the late cluster drains it is %s", state)
	}
	w.due(quote, 4*time.Minute)
	// It was put off for a moment.
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		if _, err := w.Applier.Apply(t.Context(), schedulertest.Term); err != nil {
			t.Fatal(err)
		}
		return w.state(quote) == "accepted", w.state(quote)
	})
	if n := w.Count(`SELECT count(*) FROM leases l JOIN hosts h ON h.id = l.host_id WHERE h.region = 'us'`); n != 1 {
		t.Errorf("%d leases elsewhere", n)
	}
}

func TestADueBookingWithoutGPUsIsRefusedAndGetsItsMoneyBack(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.AddHost("H100", 1, 1_000_000, "eu")
	before := w.Escrow.Balance
	booked := w.scheduled(hours(1, time.Hour), time.Hour)
	w.due(booked.ID, 4*time.Minute)
	w.Exec(`UPDATE gpus SET healthy = false`)
	w.apply(1)
	if state := w.state(booked.ID); !strings.HasPrefix(state, "refused") {
		t.Fatalf("it is %s", state)
	}
	if w.Escrow.Balance != before || len(w.Escrow.Held) != 0 {
		t.Errorf("%d of %d came back", w.Escrow.Balance, before)
	}
	if n := w.Count(`SELECT count(*) FROM reservations WHERE released_at IS NULL`); n != 0 {
		t.Errorf("%d reservations are left", n)
	}
}

// insertQuote stores a quote as if for a time at which the GPUs of the first host are free.
func (w fixture) insertQuote(spec market.Spec) ids.Booking {
	w.Helper()
	var host, owner string
	if err := w.Pool.QueryRow(w.Context(), `SELECT id, org_id FROM hosts WHERE kind = 'gpu' ORDER BY id LIMIT 1`).Scan(&host, &owner); err != nil {
		w.Fatal(err)
	}
	var hostID ids.Host
	var ownerID ids.Org
	if err := hostID.Scan(host); err != nil {
		w.Fatal(err)
	}
	if err := ownerID.Scan(owner); err != nil {
		w.Fatal(err)
	}
	plan, err := json.Marshal([]market.Line{{HostID: hostID, Owner: ownerID, Price: 1_000_000}})
	if err != nil {
		w.Fatal(err)
	}
	id := ids.New[ids.Booking]()
	w.Exec(`INSERT INTO bookings (id, org_id, gpu_model, node_count, gpus_per_node, duration_ms, fee_bps, plan, hold_base_units, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, 250, $7, $8, now() + interval '1 minute')`,
		id, w.Customer, spec.GPUModel, spec.Nodes, spec.GPUsPerNode, spec.Duration.Milliseconds(), plan, int64(spec.GPUsPerNode)*1_000_000)
	return id
}

func TestAMarketBookingPreemptsSpotClustersOnlyWhenNothingElseFits(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.AddHost("H100", 2, 1_000_000, "eu")
	spot := w.Book(hours(2, time.Hour))
	w.Exec(`UPDATE clusters SET kind = 'spot', version = version + 1`)
	w.Exec(`UPDATE clusters SET forecast_end = forecast_end + interval '1 second'`) // tells the feed
	quote := w.insertQuote(hours(1, time.Hour))
	w.Exec(`UPDATE bookings SET plan = jsonb_set(plan, '{0,preempts}', 'true') WHERE id = $1`, quote)
	w.Exec(`UPDATE bookings SET requested_at = now() WHERE id = $1`, quote)
	w.apply(1)
	if state := w.state(quote); state != "scheduled" {
		t.Fatalf("it is %s", state)
	}
	if n := w.Count(`SELECT count(*) FROM clusters WHERE id = $1 AND preempt_at BETWEEN now() + interval '55 seconds' AND now() + interval '61 seconds' AND forecast_end = preempt_at`, spot); n != 1 {
		t.Error("the spot cluster was not told")
	}
	if n := w.Count(`SELECT count(*) FROM bookings b JOIN clusters c ON c.preempt_at = b.starts_at WHERE b.id = $1`, quote); n != 1 {
		t.Error("the booking does not start when the spot cluster is gone")
	}
	w.end(spot)
	w.due(quote, time.Second)
	w.apply(1)
	if state := w.state(quote); state != "accepted" {
		t.Errorf("once the GPUs are free it is %s", state)
	}

	// With room elsewhere nobody is preempted.
	other := w.Book(hours(1, time.Hour))
	w.Exec(`UPDATE clusters SET kind = 'spot', forecast_end = forecast_end + interval '1 second' WHERE id = $1`, other)
	w.AddHost("H100", 1, 900_000, "us")
	quote = w.insertQuote(hours(1, time.Hour))
	w.Exec(`UPDATE bookings SET plan = jsonb_set(plan, '{0,preempts}', 'true') WHERE id = $1`, quote)
	w.Exec(`UPDATE bookings SET requested_at = now() WHERE id = $1`, quote)
	w.apply(1)
	if state := w.state(quote); state != "accepted" || w.Count(`SELECT count(*) FROM clusters WHERE id = $1 AND preempt_at IS NOT NULL`, other) != 0 {
		t.Errorf("with room elsewhere it is %s", state)
	}
}

// change stores and requests a booking that changes a cluster.
func (w fixture) change(purpose string, cluster ids.Cluster, spec market.Spec) ids.Booking {
	w.Helper()
	quote := w.insertQuote(spec)
	w.Exec(`UPDATE bookings SET purpose = $2, target_cluster_id = $3, requested_at = now() WHERE id = $1`, quote, purpose, cluster)
	return quote
}

func TestAnAdditionJoinsARunningCluster(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.AddHost("H100", 2, 1_000_000, "eu")
	cluster := w.Ready(hours(1, time.Hour))
	second := w.AddHost("H100", 1, 1_000_000, "eu")
	added := w.change("addition", cluster, hours(1, time.Hour)) // quoted on the host that the cluster is on
	w.apply(1)
	if state := w.state(added); state != "accepted" {
		t.Fatalf("it is %s", state)
	}
	if n := w.Count(`SELECT count(*) FROM clusters WHERE id = $1 AND node_count = 2 AND places = '{1,2}' AND joining_places = '{2}' AND hold_base_units = 2000000`, cluster); n != 1 {
		t.Error("the cluster has no new place")
	}
	if n := w.Count(`SELECT count(*) FROM nodes n JOIN leases l ON l.node_id = n.id WHERE n.cluster_id = $1 AND n.ordinal = 2 AND l.host_id = $2 AND l.state = 'held'`, cluster, second); n != 1 {
		t.Errorf("%d leases of the new node on another host", n)
	}
	if n := w.Count(`SELECT count(DISTINCT slot) FROM nodes WHERE cluster_id = $1`, cluster); n != 3 {
		t.Errorf("%d slots for 3 nodes", n)
	}
	if held := w.Escrow.Held[added]; held != 1_000_000 {
		t.Errorf("%d are held for it", held)
	}
	w.Exec(`UPDATE clusters SET release_requested_at = now() WHERE id = $1`, cluster)
	late := w.change("addition", cluster, hours(1, time.Hour))
	w.apply(1)
	if state := w.state(late); !strings.Contains(state, "being released") {
		t.Errorf("to a cluster on its way out it is %s", state)
	}
}

func TestAnExtensionMovesTheEndUnlessTheGPUsArePromised(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.AddHost("H100", 1, 1_000_000, "eu")
	cluster := w.Ready(hours(1, time.Hour))
	w.Exec(`UPDATE clusters SET forecast_end = now() + interval '1 hour'`)
	extended := w.change("extension", cluster, hours(1, 2*time.Hour))
	w.apply(1)
	if state := w.state(extended); state != "accepted" {
		t.Fatalf("it is %s", state)
	}
	if n := w.Count(`SELECT count(*) FROM clusters WHERE duration_ms = 3 * 3600000 AND hold_base_units = 2000000 AND forecast_end > now() + interval '2 hours 59 minutes'`); n != 1 {
		t.Error("the cluster does not last longer")
	}
	if n := w.Count(`SELECT count(*) FROM usage WHERE limit_at > started_at + interval '2 hours 59 minutes'`); n != 1 {
		t.Error("its usage does not last longer")
	}
	if n := w.Count(`SELECT count(*) FROM cluster_events WHERE message = 'Extended by 2h.'`); n != 1 {
		t.Error("no event says by how much")
	}
	next := w.insertQuote(hours(1, time.Hour))
	w.Exec(`UPDATE bookings SET starts_at = now() + interval '4 hours', requested_at = now() WHERE id = $1`, next)
	w.apply(1)
	if state := w.state(next); state != "scheduled" {
		t.Fatalf("the next booking is %s", state)
	}
	tooLong := w.change("extension", cluster, hours(1, 2*time.Hour))
	w.apply(1)
	if state := w.state(tooLong); !strings.Contains(state, "promised to another booking") {
		t.Errorf("into the reserved time it is %s", state)
	}
	if _, held := w.Escrow.Held[tooLong]; held {
		t.Error("money is held for it")
	}
}
