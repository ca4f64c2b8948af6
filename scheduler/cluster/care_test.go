package cluster_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/cluster"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

// addNode has one like node added to a cluster.
func addNode(w *schedulertest.World, id ids.Cluster) {
	w.Helper()
	quote := w.Quote(schedulertest.Spec(1, int(w.Get(id).GPUsPerNode)))
	w.Exec(`UPDATE bookings SET purpose = 'addition', target_cluster_id = $2 WHERE id = $1`, quote.ID, id)
	if decided := w.Accept(quote); decided.State != "accepted" {
		w.Fatalf("the addition is %s: %+v", decided.State, decided)
	}
}

// raySays writes what a head is busy with; its summary is as fresh as its nodes' part.
func raySays(w *schedulertest.World, id ids.Cluster, jobs, busy any) {
	w.Helper()
	w.RayReports(id, nil)
	w.Exec(`UPDATE ray_summaries SET running_jobs = $2, busy = $3 WHERE cluster_id = $1`, id, jobs, busy)
}

// timePasses makes a cluster's present state and activity older.
func timePasses(w *schedulertest.World, id ids.Cluster, d time.Duration) {
	w.Helper()
	w.Exec(`UPDATE clusters SET phase_at = phase_at - $2::interval, active_at = active_at - $2::interval WHERE id = $1`, id, d)
}

// nodesStop reports the nodes of a cluster that should stop as stopped, but does not look.
func nodesStop(w *schedulertest.World, id ids.Cluster) {
	w.Helper()
	w.Exec(`UPDATE nodes SET state = 'stopped', ended_at = now() WHERE cluster_id = $1 AND state = 'stopping'`, id)
}

func billed(w *schedulertest.World) int64 {
	w.Helper()
	return w.Count(`SELECT count(*) FROM usage WHERE ended_at IS NULL`)
}

func notices(w *schedulertest.World, id ids.Cluster) int64 {
	w.Helper()
	return w.Count(`SELECT count(*) FROM cluster_events WHERE cluster_id = $1 AND kind = 'notice'`, id)
}

func TestAnAddedNodeJoinsAndIsBilledFromThenOn(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(2, 2))
	addNode(w, id)
	w.Exec(`UPDATE nodes SET state = 'starting' WHERE state = 'planned'`)
	w.Look()
	if detail := w.Get(id); detail.State != "ready" || detail.NodeCount != 3 || len(detail.JoiningPlaces) != 1 || billed(w) != 4 {
		t.Fatalf("while it joins, the cluster is %s with %d nodes and %d leases billed:%s", detail.State, detail.NodeCount, billed(w), w.Timeline(id))
	}
	w.AgentsStart(id)
	w.Look()
	detail := w.Get(id)
	if detail.State != "ready" || len(detail.JoiningPlaces) != 0 || billed(w) != 6 {
		t.Fatalf("with it, the cluster is %s, %v are joining and %d leases are billed:%s", detail.State, detail.JoiningPlaces, billed(w), w.Timeline(id))
	}
	if strings.Count(detail.Receipt.Document, `"node_id"`) != 3 || w.Count(`SELECT count(*) FROM delivery_receipts`) != 2 {
		t.Errorf("the latest receipt lists %s", detail.Receipt.Document)
	}
	if ends := w.Count(`SELECT count(DISTINCT limit_at) FROM usage`); ends != 1 {
		t.Errorf("its leases end at %d times", ends)
	}
	if late := w.Count(`SELECT count(*) FROM clusters c JOIN usage u ON u.limit_at <> c.forecast_end`); late != 0 || !detail.EndsAt.Equal(detail.ForecastEnd) {
		t.Error("the forecast is not when the usage ends")
	}
}

func TestAnAddedNodeThatFailsIsReplacedOrGivenUp(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 2, 1_000_000, "eu")
	id := w.Ready(schedulertest.Spec(2, 2))
	addNode(w, id)
	const lose = `UPDATE hosts SET state = 'lost', connected = false WHERE id = (SELECT host_id FROM nodes WHERE ordinal = 3 AND ended_at IS NULL)`
	w.Exec(lose)
	w.Look()
	if detail := w.Get(id); detail.State != "ready" || detail.Replacements != 1 || len(detail.JoiningPlaces) != 1 || billed(w) != 4 {
		t.Fatalf("after the first failure the cluster is %s with %d replacements and %d leases billed:%s", detail.State, detail.Replacements, billed(w), w.Timeline(id))
	}
	w.Exec(lose) // and there is no other
	w.Look()
	detail := w.Get(id)
	if detail.State != "ready" || detail.NodeCount != 2 || len(detail.Places) != 2 || len(detail.JoiningPlaces) != 0 || billed(w) != 4 {
		t.Fatalf("after the last failure the cluster is %s with %d nodes and %d leases billed:%s", detail.State, detail.NodeCount, billed(w), w.Timeline(id))
	}
	if !strings.Contains(w.Timeline(id), "could not be added") {
		t.Errorf("the timeline does not tell:%s", w.Timeline(id))
	}
	if open := w.Count(`SELECT count(*) FROM leases l JOIN nodes n ON n.id = l.node_id WHERE n.ordinal = 3 AND (l.state <> 'closed' OR l.close_party <> 'owner')`); open != 0 {
		t.Errorf("%d leases of it are open, or not closed on the owner's account", open)
	}
	if held := detail.HoldBaseUnits; held != 6_000_000 {
		t.Errorf("%d are held, want what the cluster and the addition hold until the end", held)
	}
}

func TestAnotherNodeFailsWhileOneIsAdded(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 2, 1_000_000, "eu")
	id := w.Ready(schedulertest.Spec(2, 2))
	addNode(w, id)
	w.Exec(`UPDATE hosts SET state = 'lost' WHERE id = $1`, w.Get(id).Nodes[1].HostID)
	w.Look()
	if detail := w.Get(id); detail.State != "degraded" || billed(w) != 0 {
		t.Fatalf("the cluster is %s with %d leases billed", detail.State, billed(w))
	}
	w.AgentsStart(id)
	w.Look()
	if detail := w.Get(id); detail.State != "ready" || billed(w) != 6 || len(detail.JoiningPlaces) != 0 {
		t.Errorf("the cluster is %s with %d leases billed:%s", detail.State, billed(w), w.Timeline(id))
	}
}

func TestARemovedNodeDrainsAndIsBilledNoLonger(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(2, 2))
	nodes := w.Get(id).Nodes
	head, first, second := nodes[0], nodes[1], nodes[2]
	remove := func(org ids.Org, node ids.Node) error { return w.Clusters.RemoveNode(t.Context(), org, id, node) }
	for name, c := range map[string]struct {
		err  error
		want errs.Code
	}{
		"another's":    {remove(w.AddOrg("Another"), first.ID), errs.NotFound},
		"unknown node": {remove(w.Customer, ids.New[ids.Node]()), errs.NotFound},
		"the head":     {remove(w.Customer, head.ID), errs.Invalid},
	} {
		if errs.CodeOf(c.err) != c.want {
			t.Errorf("%s: got %v", name, c.err)
		}
	}
	for range 2 { // asking twice changes nothing
		if err := remove(w.Customer, first.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := remove(w.Customer, second.ID); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("removing the last node gave %v", err)
	}
	w.Look()
	detail := w.Get(id)
	if detail.State != "ready" || detail.NodeCount != 1 || len(detail.Places) != 1 || detail.Places[0] != 2 || billed(w) != 2 {
		t.Fatalf("the cluster is %s with the places %v and %d leases billed:%s", detail.State, detail.Places, billed(w), w.Timeline(id))
	}
	if draining := w.Count(`SELECT count(*) FROM nodes WHERE id = $1 AND state = 'stopping' AND drain_ms = 30000`, first.ID); draining != 1 {
		t.Error("the node does not drain")
	}
	if open := w.Count(`SELECT count(*) FROM leases WHERE node_id = $1 AND state = 'held'`, first.ID); open != 2 {
		t.Errorf("%d leases of it are held until it has stopped, want 2", open)
	}
	nodesStop(w, id)
	w.Look()
	if closed := w.Count(`SELECT count(*) FROM leases WHERE node_id = $1 AND state = 'closed' AND close_party = 'customer'`, first.ID); closed != 2 {
		t.Errorf("%d leases are closed on the customer's account, want 2", closed)
	}
	if idle := w.Count(`SELECT count(*) FROM hosts WHERE id = $1 AND state = 'idle'`, first.HostID); idle != 1 {
		t.Error("its host is not free")
	}
	if detail := w.Get(id); detail.State != "ready" || detail.Replacements != 0 || billed(w) != 2 {
		t.Errorf("the rest is %s with %d replacements and %d leases billed", detail.State, detail.Replacements, billed(w))
	}
}

func TestBilledTimeIsWheneverAnyLeaseWasBilled(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(2, 1))
	w.Exec(`ALTER TABLE usage DISABLE TRIGGER usage_clamp`) // confirmed time does not go back
	w.Exec(`UPDATE usage SET started_at = started_at - interval '1 hour', confirmed_at = confirmed_at - interval '1 hour'`)
	const spend = `UPDATE usage SET started_at = started_at + $2::interval, confirmed_at = started_at + $3::interval
		WHERE lease_id IN (SELECT l.id FROM leases l JOIN nodes n ON n.id = l.node_id WHERE n.ordinal = $1)`
	// One from the beginning for 10 minutes, the other from 5 minutes on until 25.
	w.Exec(spend, 1, time.Duration(0), 10*time.Minute)
	w.Exec(spend, 2, 5*time.Minute, 25*time.Minute)
	if got := time.Duration(w.Get(id).BilledMS) * time.Millisecond; got != 25*time.Minute {
		t.Errorf("%s are billed, want 25 minutes", got)
	}
	// A later period of the first, after a gap.
	w.Exec(`INSERT INTO usage (id, lease_id, host_id, started_at, confirmed_at, limit_at, ended_at)
		SELECT gen_random_uuid(), lease_id, host_id, started_at + interval '30 minutes', started_at + interval '31 minutes', limit_at, started_at + interval '31 minutes'
		FROM usage ORDER BY started_at LIMIT 1`)
	if got := time.Duration(w.Get(id).BilledMS) * time.Millisecond; got != 26*time.Minute {
		t.Errorf("%s are billed, want 26 minutes", got)
	}
}

func TestASpotClusterIsToldAndPreempted(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(2, 1))
	w.Exec(`UPDATE clusters SET preempt_at = now() + interval '60 seconds' WHERE id = $1`, id)
	for range 2 {
		w.Look()
	}
	detail := w.Get(id)
	if detail.State != "ready" || notices(w, id) != 1 || !strings.Contains(w.Timeline(id), "needed by a market booking") || !detail.EndsAt.Equal(*detail.PreemptAt) {
		t.Fatalf("the cluster is %s until %v and was told %d times:%s", detail.State, detail.EndsAt, notices(w, id), w.Timeline(id))
	}
	w.Exec(`UPDATE clusters SET preempt_at = now() WHERE id = $1`, id)
	w.Look()
	w.AgentsStop(id)
	w.Look()
	if detail := w.Get(id); detail.State != "released" || *detail.FaultParty != "preempted" {
		t.Errorf("the cluster is %s on account of %s", detail.State, *detail.FaultParty)
	}
	if closed := w.Count(`SELECT count(*) FROM leases WHERE state = 'closed' AND close_party = 'preempted'`); closed != 2 {
		t.Errorf("%d leases are closed as preempted, want 2", closed)
	}
}

func TestTheEndIsAnnouncedOnce(t *testing.T) {
	t.Parallel()
	w := world(t)
	spec := schedulertest.Spec(2, 2)
	id := w.Ready(spec)
	w.Escrow.Balance = 3_999_999 // of 4 an hour
	w.Look()
	if n := notices(w, id); n != 0 {
		t.Fatalf("%d notices after it began:%s", n, w.Timeline(id))
	}
	w.Exec(`UPDATE usage SET confirmed_at = started_at + interval '31 minutes'`)
	for range 2 {
		w.Look()
	}
	if told := w.Timeline(id); notices(w, id) != 2 || !strings.Contains(told, "in 29 minutes") || !strings.Contains(told, "does not cover another hour") {
		t.Fatalf("half an hour before the end:%s", told)
	}
	w.Exec(`UPDATE usage SET confirmed_at = started_at + interval '56 minutes'`)
	for range 2 {
		w.Look()
	}
	if told := w.Timeline(id); notices(w, id) != 3 || !strings.Contains(told, "in 4 minutes") {
		t.Fatalf("five minutes before the end:%s", told)
	}
	w.Exec(`UPDATE clusters SET duration_ms = duration_ms + 3600000 WHERE id = $1`, id)
	w.Look()
	if standing := w.Count(`SELECT cardinality(notices) FROM clusters WHERE id = $1`, id); standing != 0 || notices(w, id) != 3 {
		t.Errorf("after an extension %d notices stand and %d were given", standing, notices(w, id))
	}
}

func TestAnIdleClusterIsParkedAndResumed(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(2, 2))
	setAutoStop(w, id, 20*time.Minute, 0)
	w.Exec(`UPDATE usage SET confirmed_at = started_at + interval '10 minutes'`)
	raySays(w, id, 0, 0)
	timePasses(w, id, 16*time.Minute)
	w.Look()
	if detail := w.Get(id); detail.State != "ready" || notices(w, id) != 1 || !strings.Contains(w.Timeline(id), "the GPUs are released") || detail.ParksAt == nil {
		t.Fatalf("before it is parked the cluster is %s:%s", detail.State, w.Timeline(id))
	}
	timePasses(w, id, 5*time.Minute)
	w.Look()
	if detail := w.Get(id); detail.State != "parked" || billed(w) != 0 || w.Count(`SELECT count(*) FROM leases WHERE state = 'held'`) != 4 {
		t.Fatalf("idle, the cluster is %s with %d leases billed:%s", detail.State, billed(w), w.Timeline(id))
	}
	if err := w.Clusters.Resume(t.Context(), w.Customer, id); err != nil {
		t.Fatal(err)
	}
	w.Look() // waits for the nodes to stop
	nodesStop(w, id)
	if parked := w.Count(`SELECT count(*) FROM nodes WHERE cluster_id = $1 AND ended_at IS NULL`, id); parked != 1 {
		t.Fatalf("%d nodes live, want the head", parked)
	}
	w.Look()
	if detail := w.Get(id); detail.State != "joining" || detail.Replacements != 0 {
		t.Fatalf("resumed, the cluster is %s with %d replacements:%s", detail.State, detail.Replacements, w.Timeline(id))
	}
	w.AgentsStart(id)
	w.Look()
	if detail := w.Get(id); detail.State != "ready" || detail.HoldBaseUnits != 4_000_000 {
		t.Fatalf("with its nodes back the cluster is %s:%s", detail.State, w.Timeline(id))
	}
	if open := w.Count(`SELECT count(*) FROM usage WHERE ended_at IS NULL AND limit_at = started_at + interval '50 minutes'`); open != 4 {
		t.Errorf("%d leases are billed for at most the 50 minutes left, want 4", open)
	}
	if old := w.Count(`SELECT count(*) FROM leases WHERE state = 'closed' AND close_party = 'customer'`); old != 4 {
		t.Errorf("%d leases of before are closed on the customer's account, want 4", old)
	}
}

func setAutoStop(w *schedulertest.World, id ids.Cluster, park, release time.Duration) {
	w.Helper()
	set := func(d time.Duration) *time.Duration {
		if d == 0 {
			return nil
		}
		return &d
	}
	if err := w.Clusters.SetAutoStop(w.Context(), w.Customer, id, set(park), set(release)); err != nil {
		w.Fatal(err)
	}
}

// park leads a cluster that is ready to parked, with its nodes gone.
func park(w *schedulertest.World, id ids.Cluster) {
	w.Helper()
	raySays(w, id, 0, 0)
	timePasses(w, id, time.Hour)
	w.Look()
	nodesStop(w, id)
	w.Look()
	if state := w.Get(id).State; state != "parked" || w.Count(`SELECT count(*) FROM leases WHERE state <> 'closed'`) != 0 {
		w.Fatalf("the cluster is %s:%s", state, w.Timeline(id))
	}
}

func TestAParkedClusterStaysSoWhenItWouldCostMore(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"dearer":         `UPDATE asks SET price_per_gpu_hour = 1000001`,
		"one host alone": `UPDATE hosts SET state = 'draining' WHERE kind = 'gpu' AND id <> (SELECT id FROM hosts WHERE kind = 'gpu' ORDER BY id LIMIT 1)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world(t)
			id := w.Ready(schedulertest.Spec(2, 2))
			setAutoStop(w, id, 30*time.Minute, 0)
			park(w, id)
			w.Exec(change)
			if err := w.Clusters.Resume(t.Context(), w.Customer, id); err != nil {
				t.Fatal(err)
			}
			before := notices(w, id)
			w.Look()
			if detail := w.Get(id); detail.State != "parked" || detail.ResumeRequestedAt != nil || notices(w, id) != before+1 {
				t.Errorf("the cluster is %s:%s", detail.State, w.Timeline(id))
			}
			if open := w.Count(`SELECT count(*) FROM leases WHERE state <> 'closed'`) + w.Count(`SELECT count(*) FROM nodes WHERE role = 'gpu' AND ended_at IS NULL`); open != 0 {
				t.Errorf("%d leases and nodes of the attempt are left", open)
			}
		})
	}
}

func TestAParkedClusterIsReleasedInTime(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(1, 1))
	setAutoStop(w, id, 30*time.Minute, time.Hour)
	park(w, id)
	timePasses(w, id, 56*time.Minute)
	before := notices(w, id)
	w.Look()
	if detail := w.Get(id); detail.State != "parked" || notices(w, id) != before+1 || detail.ReleasesAt == nil {
		t.Fatalf("before its release the cluster is %s:%s", detail.State, w.Timeline(id))
	}
	timePasses(w, id, 5*time.Minute)
	w.Look()
	w.AgentsStop(id)
	w.Look()
	if detail := w.Get(id); detail.State != "released" || *detail.FaultParty != "customer" {
		t.Errorf("the cluster is %s:%s", detail.State, w.Timeline(id))
	}
}

func TestWhatKeepsAClusterFromBeingParked(t *testing.T) {
	t.Parallel()
	for name, keep := range map[string]func(*schedulertest.World, ids.Cluster){
		"a job":             func(w *schedulertest.World, id ids.Cluster) { raySays(w, id, 1, 0) },
		"a task":            func(w *schedulertest.World, id ids.Cluster) { raySays(w, id, 0, 1) },
		"an old agent":      func(w *schedulertest.World, id ids.Cluster) { raySays(w, id, nil, nil) },
		"half an old agent": func(w *schedulertest.World, id ids.Cluster) { raySays(w, id, 0, nil) },
		"a silent head": func(w *schedulertest.World, id ids.Cluster) {
			raySays(w, id, 0, 0)
			w.Exec(`UPDATE ray_summaries SET observed_at = now() - interval '61 seconds'`)
		},
		"a session": func(w *schedulertest.World, id ids.Cluster) {
			raySays(w, id, 0, 0)
			if err := w.Clusters.Touch(w.Context(), id); err != nil {
				w.Fatal(err)
			}
		},
		"the customer": func(w *schedulertest.World, id ids.Cluster) {
			raySays(w, id, 0, 0)
			setAutoStop(w, id, 0, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world(t)
			id := w.Ready(schedulertest.Spec(1, 1))
			setAutoStop(w, id, 30*time.Minute, 0)
			timePasses(w, id, time.Hour)
			keep(w, id)
			w.Look()
			if detail := w.Get(id); detail.State != "ready" || billed(w) != 1 {
				t.Errorf("the cluster is %s:%s", detail.State, w.Timeline(id))
			}
		})
	}
}

func TestWishesThatCannotBe(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(1, 1))
	short, long := time.Second, 1000*24*time.Hour
	for name, c := range map[string]struct {
		err  error
		want errs.Code
	}{
		"resume a ready one":    {w.Clusters.Resume(t.Context(), w.Customer, id), errs.Conflict},
		"resume another's":      {w.Clusters.Resume(t.Context(), w.AddOrg("Another"), id), errs.NotFound},
		"park at once":          {w.Clusters.SetAutoStop(t.Context(), w.Customer, id, &short, nil), errs.Invalid},
		"release after years":   {w.Clusters.SetAutoStop(t.Context(), w.Customer, id, nil, &long), errs.Invalid},
		"auto-stop another's":   {w.Clusters.SetAutoStop(t.Context(), w.AddOrg("Other"), id, nil, nil), errs.NotFound},
		"touch one that is not": {w.Clusters.Touch(t.Context(), ids.New[ids.Cluster]()), ""},
	} {
		if errs.CodeOf(c.err) != c.want && (c.want != "" || c.err != nil) {
			t.Errorf("%s: got %v", name, c.err)
		}
	}
	if err := w.Clusters.Release(t.Context(), w.Customer, id); err != nil {
		t.Fatal(err)
	}
	w.Look()
	if err := w.Clusters.SetAutoStop(t.Context(), w.Customer, id, nil, nil); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("auto-stop of a draining cluster gave %v", err)
	}
}

func TestASilentHeadDegradesAClusterThoughItsHostLives(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(1, 1))
	silence := func() { w.Exec(`UPDATE ray_summaries SET observed_at = now() - interval '46 seconds'`) }
	silence()
	w.Look()
	w.Lifecycle.Backdate(id, 61*time.Second)
	// Nobody hears the host either, which says nothing of Ray: the wait begins anew.
	w.Exec(`UPDATE hosts SET last_seen_at = now() - interval '20 seconds'`)
	w.Look()
	w.Exec(`UPDATE hosts SET last_seen_at = now()`)
	w.Look()
	if state := w.Get(id).State; state != "ready" {
		t.Fatalf("after an outage of the gateway the cluster is %s", state)
	}
	w.Lifecycle.Backdate(id, 61*time.Second)
	w.Look()
	if state := w.Get(id).State; state != "degraded" || billed(w) != 0 {
		t.Fatalf("with a silent head the cluster is %s", state)
	}
	w.RayReports(id, nil)
	w.Look()
	if state := w.Get(id).State; state != "ready" {
		t.Fatalf("with its head back the cluster is %s:%s", state, w.Timeline(id))
	}
	silence()
	w.Look()
	w.Lifecycle.Backdate(id, 61*time.Second)
	w.Look()
	timePasses(w, id, 11*time.Minute)
	w.Look()
	if detail := w.Get(id); detail.State != "draining" || *detail.FaultParty != "platform" {
		t.Errorf("after long the cluster is %s", detail.State)
	}
}

func TestAnOutageOfTheControlPlaneEndsNothing(t *testing.T) {
	t.Parallel()
	w := world(t)
	waiting := w.Book(schedulertest.Spec(1, 1))
	w.Exec(`UPDATE nodes SET state = 'starting' WHERE state = 'planned'`)
	w.Look()
	other := w.Book(schedulertest.Spec(1, 1))
	w.Exec(`UPDATE clusters SET phase_at = now() - interval '1 hour' WHERE id = $1`, waiting)
	if err := w.Clusters.Release(t.Context(), w.Customer, other); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Lifecycle.Run(ctx, schedulertest.Term) }()
	deadline := time.Now().Add(30 * time.Second)
	for w.Get(other).State != "draining" { // then the older one has been looked at, too
		if time.Now().After(deadline) {
			t.Fatalf("a look did not come: %s", w.Get(other).State)
		}
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if state := w.Get(waiting).State; state != "preparing" {
		t.Errorf("a cluster that could not be led while its head should start is %s", state)
	}
}

func TestReleasesDrainFirstAndTheHeadStopsLast(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(2, 1))
	if err := w.Clusters.Release(t.Context(), w.Customer, id); err != nil {
		t.Fatal(err)
	}
	w.Look()
	if n := w.Count(`SELECT count(*) FROM nodes WHERE role = 'gpu' AND state = 'stopping' AND drain_ms = 10000 AND stopping_at IS NOT NULL`); n != 2 {
		t.Fatalf("%d GPU nodes drain, want 2", n)
	}
	w.Exec(`UPDATE nodes SET state = 'stopped', ended_at = now() WHERE ordinal = 1`)
	w.Look()
	if n := w.Count(`SELECT count(*) FROM nodes WHERE role = 'head' AND state = 'alive'`); n != 1 {
		t.Fatal("the head is asked to stop before the last node has")
	}
	nodesStop(w, id)
	w.Look()
	if n := w.Count(`SELECT count(*) FROM nodes WHERE role = 'head' AND state = 'stopping' AND drain_ms = 0`); n != 1 {
		t.Fatal("the head is not asked to stop")
	}
	nodesStop(w, id)
	w.Look()
	if state := w.Get(id).State; state != "released" {
		t.Errorf("the cluster is %s", state)
	}
}

func TestRunway(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(2, 1))
	other := w.Book(schedulertest.Spec(1, 2))
	w.Exec(`UPDATE usage SET confirmed_at = started_at + interval '15 minutes'`)
	setAutoStop(w, id, 30*time.Minute, time.Hour)
	got, err := w.Clusters.Runway(t.Context(), w.Customer)
	if err != nil || len(got.Clusters) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	first, second := got.Clusters[0], got.Clusters[1]
	if first.ID != id || first.PerHour != 2_000_000 || first.HoldLeft != 1_500_000 || first.EndsAt == nil || first.ParksAt == nil || first.ReleasesAt != nil {
		t.Errorf("the first is %+v", first)
	}
	if second.ID != other || second.PerHour != 0 || second.HoldLeft != 2_000_000 || second.EndsAt != nil {
		t.Errorf("the second is %+v", second)
	}
	if got.PerHour != 2_000_000 || got.HoldLeft != money.Amount(3_500_000) {
		t.Errorf("together %d an hour and %d", got.PerHour, got.HoldLeft)
	}
	if mine, err := w.Clusters.Runway(t.Context(), w.AddOrg("Another")); err != nil || len(mine.Clusters) != 0 {
		t.Errorf("another organisation sees %+v, %v", mine, err)
	}
	if detail := w.Get(id); !detail.EndsAt.Equal(*first.EndsAt) || cluster.State(first.State) != cluster.Ready {
		t.Errorf("the cluster itself ends at %v", detail.EndsAt)
	}
}

func TestTheOnlyHostIsTriedOnceMore(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	only := w.AddHost("H100", 1, 1_000_000, "eu")
	id := w.Ready(schedulertest.Spec(1, 1))
	const die = `UPDATE nodes SET state = 'failed', ended_at = now(), reason = 'exit status 1' WHERE role = 'gpu' AND ended_at IS NULL`
	w.Exec(die)
	w.Look() // ends the node, whose GPU is free from then on
	w.Look()
	w.AgentsStart(id)
	w.Look()
	if detail := w.Get(id); detail.State != "ready" || detail.Replacements != 1 {
		t.Fatalf("the cluster is %s:%s", detail.State, w.Timeline(id))
	}
	w.Exec(die)
	w.Look()
	w.Look()
	if n := w.Count(`SELECT count(*) FROM nodes WHERE host_id = $1`, only); n != 2 || w.Get(id).State != "degraded" {
		t.Fatalf("%d nodes were on a host that failed twice, and the cluster is %s:%s", n, w.Get(id).State, w.Timeline(id))
	}
	other := w.AddHost("H100", 1, 1_000_000, "eu")
	w.Look()
	if n := w.Count(`SELECT count(*) FROM nodes WHERE host_id = $1`, other); n != 1 {
		t.Errorf("%d nodes are on the host that came:%s", n, w.Timeline(id))
	}
}

func TestAReplacementCanStartTheClustersRay(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	first := w.AddHost("H100", 1, 1_000_000, "eu")
	id := w.Ready(schedulertest.Spec(1, 1))
	newer := w.AddHost("H100", 1, 1_000_000, "eu")
	w.Exec(`UPDATE hosts SET images = '{2.61.0}' WHERE id = $1`, newer)
	w.Exec(`UPDATE hosts SET state = 'lost' WHERE id = $1`, first)
	w.Look()
	if n := w.Count(`SELECT count(*) FROM nodes WHERE host_id = $1`, newer); n != 0 || w.Get(id).State != "degraded" {
		t.Fatalf("%d nodes are on a host with another Ray, and the cluster is %s", n, w.Get(id).State)
	}
	w.Exec(`UPDATE hosts SET images = '{2.60.0,2.61.0}' WHERE id = $1`, newer)
	w.Look()
	if n := w.Count(`SELECT count(*) FROM nodes WHERE host_id = $1`, newer); n != 1 {
		t.Errorf("%d nodes are on the host that has the cluster's Ray too:%s", n, w.Timeline(id))
	}
}

func TestADearerReplacementIsPaidFromTheFee(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	first := w.AddHost("H100", 1, 1_000_000, "eu")
	id := w.Ready(schedulertest.Spec(1, 1))
	fee := w.Count(`SELECT fee_bps FROM clusters WHERE id = $1`, id)
	reach := int64(1_000_000) * 10_000 / (10_000 - fee)
	dear := w.AddHost("H100", 1, money.Amount(reach+1), "eu")
	w.Exec(`UPDATE hosts SET state = 'lost' WHERE id = $1`, first)
	w.Look()
	if detail := w.Get(id); detail.State != "degraded" || detail.Replacements != 0 {
		t.Fatalf("a host that costs more than the fee can pay was taken: the cluster is %s:%s", detail.State, w.Timeline(id))
	}
	w.Exec(`UPDATE asks SET price_per_gpu_hour = $2 WHERE host_id = $1`, dear, reach)
	w.Look()
	if detail := w.Get(id); detail.Replacements != 1 {
		t.Fatalf("the cluster is %s:%s", detail.State, w.Timeline(id))
	}
	price := w.Count(`SELECT price_per_gpu_hour FROM leases WHERE host_id = $1`, dear)
	left := w.Count(`SELECT fee_bps FROM leases WHERE host_id = $1`, dear)
	if price != 1_000_000 || left != 0 {
		t.Errorf("the customer pays %d and the platform keeps %d basis points, want the old price and nothing", price, left)
	}
}

func TestAReplacementHasWhatWasBooked(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	var rack []ids.Host
	for range 3 {
		rack = append(rack, w.AddHost("H100", 1, 1_000_000, "eu"))
	}
	together := w.AddOrg("Rack")
	for _, host := range rack {
		w.Exec(`UPDATE hosts SET org_id = $2, site = 'rack' WHERE id = $1`, host, together)
		w.Exec(`UPDATE asks SET org_id = $2 WHERE host_id = $1`, host, together)
	}
	elsewhere := w.AddHost("H100", 1, 900_000, "eu") // cheaper, but at another site
	spec := schedulertest.Spec(2, 1)
	spec.SameSite = true
	id := w.Ready(spec)
	w.Exec(`UPDATE hosts SET state = 'lost' WHERE id = $1`, w.Get(id).Nodes[1].HostID)
	w.Look()
	if detail := w.Get(id); detail.Replacements != 1 {
		t.Fatalf("the cluster is %s:%s", detail.State, w.Timeline(id))
	}
	if apart := w.Count(`SELECT count(*) FROM nodes WHERE host_id = $1`, elsewhere); apart != 0 {
		t.Error("the replacement is at another site")
	}
	// Nor does a cluster get a node of an owner whom its customer does not want.
	unwanted := w.AddHost("H100", 2, 1_000_000, "eu")
	var owner ids.Org
	if err := w.Pool.QueryRow(t.Context(), `SELECT org_id FROM hosts WHERE id = $1`, unwanted).Scan(&owner); err != nil {
		t.Fatal(err)
	}
	wanted := w.AddHost("H100", 2, 1_000_000, "eu")
	spec = schedulertest.Spec(1, 2)
	spec.DenyOwners = []ids.Org{owner}
	other := w.Ready(spec)
	w.Exec(`UPDATE hosts SET state = 'lost' WHERE id = $1`, wanted)
	w.Look()
	if n := w.Count(`SELECT count(*) FROM nodes WHERE host_id = $1`, unwanted); n != 0 || w.Get(other).State != "degraded" {
		t.Errorf("%d nodes are on the unwanted owner's host, and the cluster is %s", n, w.Get(other).State)
	}
}
