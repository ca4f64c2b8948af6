package cluster_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/scheduler/cluster"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

// world has a head and three like hosts, of which a booking of two nodes leaves one.
func world(t *testing.T) *schedulertest.World {
	t.Helper()
	w := schedulertest.New(t)
	w.AddHead()
	for range 3 {
		w.AddHost("H100", 2, 1_000_000, "eu")
	}
	return w
}

func TestBillingStartsWithTheDeliveryReceiptOnly(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Book(schedulertest.Spec(2, 2))
	w.Exec(`UPDATE nodes SET state = 'starting' WHERE cluster_id = $1`, id)
	w.Look()
	if state := w.Get(id).State; state != "preparing" {
		t.Fatalf("with nodes starting the cluster is %s", state)
	}
	w.Exec(`UPDATE nodes SET state = 'running' WHERE cluster_id = $1 AND role = 'head'`, id)
	w.Look()
	if state := w.Get(id).State; state != "joining" {
		t.Fatalf("with its head up the cluster is %s", state)
	}
	lonely := func(n *cluster.RayNode) { n.Alive = n.Head }
	w.RayReports(id, lonely)
	w.Look()
	if state, usage := w.Get(id).State, w.Count(`SELECT count(*) FROM usage`); state != "joining" || usage != 0 {
		t.Fatalf("with the head alone in Ray the cluster is %s and %d leases are billed", state, usage)
	}
	w.AgentsStart(id)
	w.Look()
	detail := w.Get(id)
	if detail.State != "ready" || detail.Receipt == nil || detail.EndsAt == nil {
		t.Fatalf("with all nodes in Ray the cluster is %s, receipt %v", detail.State, detail.Receipt)
	}
	if usage := w.Count(`SELECT count(*) FROM usage WHERE ended_at IS NULL AND limit_at = started_at + interval '1 hour'`); usage != 4 {
		t.Errorf("%d leases are billed, want 4", usage)
	}
	if strings.Count(detail.Receipt.Document, `"uuid"`) != 4 {
		t.Errorf("the receipt lists %s", detail.Receipt.Document)
	}
}

func TestAnUnplannedNodeInRayKeepsAClusterFromReady(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Book(schedulertest.Spec(1, 1))
	w.AgentsStart(id)
	w.Exec(`UPDATE ray_summaries SET nodes = nodes || '[{"address":"127.77.9.9","alive":true,"gpus":1}]'::jsonb`)
	w.Look()
	if state := w.Get(id).State; state != "joining" {
		t.Errorf("the cluster is %s", state)
	}
}

func TestReleaseStopsBillingAndFreesTheHosts(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(2, 2))
	if err := w.Clusters.Release(t.Context(), w.Customer, id); err != nil {
		t.Fatal(err)
	}
	w.Look()
	if state, open := w.Get(id).State, w.Count(`SELECT count(*) FROM usage WHERE ended_at IS NULL`); state != "draining" || open != 0 {
		t.Fatalf("after release the cluster is %s with %d open usages", state, open)
	}
	w.AgentsStop(id)
	w.Look()
	detail := w.Get(id)
	if detail.State != "released" || *detail.FaultParty != "customer" {
		t.Fatalf("the cluster is %s on account of %v", detail.State, detail.FaultParty)
	}
	if leases, leased := w.Count(`SELECT count(*) FROM leases WHERE state <> 'closed'`), w.Count(`SELECT count(*) FROM hosts WHERE state = 'leased'`); leases != 0 || leased != 0 {
		t.Errorf("%d leases are open and %d hosts leased", leases, leased)
	}
	if err := w.Clusters.Release(t.Context(), w.Customer, id); err != nil || w.Get(id).Version != detail.Version {
		t.Errorf("releasing it again gave %v and version %d instead of %d", err, w.Get(id).Version, detail.Version)
	}
	states := make([]string, len(detail.Phases))
	for i, phase := range detail.Phases {
		states[i] = phase.State
	}
	if want := []string{"reserved", "preparing", "head_up", "joining", "ready", "draining", "released"}; !slices.Equal(states, want) {
		t.Errorf("it passed %q, want %q", states, want)
	}
	if err := w.Clusters.Release(t.Context(), w.AddOrg("Another"), id); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("another organisation's release gave %v", err)
	}
}

func TestTheBookedTimeEndsTheCluster(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(1, 1))
	// Two hours of heartbeats confirm no more than the hour that was booked.
	w.Exec(`UPDATE usage SET confirmed_at = started_at + interval '2 hours'`)
	w.Look()
	detail := w.Get(id)
	if detail.State != "draining" || detail.BilledMS != time.Hour.Milliseconds() {
		t.Errorf("the cluster is %s after %d ms", detail.State, detail.BilledMS)
	}
}

func TestOneFailedNodeIsReplacedWhileTheRestRun(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*schedulertest.World, cluster.NodeDetail){
		"host lost": func(w *schedulertest.World, n cluster.NodeDetail) {
			w.Exec(`UPDATE hosts SET state = 'lost', connected = false WHERE id = $1`, n.HostID)
		},
		"process ended": func(w *schedulertest.World, n cluster.NodeDetail) {
			w.Exec(`UPDATE nodes SET state = 'failed', ended_at = now(), reason = 'exit status 1' WHERE id = $1`, n.ID)
		},
		"GPU failed": func(w *schedulertest.World, n cluster.NodeDetail) {
			w.Exec(`UPDATE gpus SET healthy = false WHERE host_id = $1`, n.HostID)
		},
		"lost by Ray": func(w *schedulertest.World, n cluster.NodeDetail) {
			w.RayReports(n.ClusterID, func(r *cluster.RayNode) { r.Alive = r.Address != n.Address })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world(t)
			id := w.Ready(schedulertest.Spec(2, 2))
			victim := w.Get(id).Nodes[2]
			confirmed := w.Count(`SELECT count(*) FROM usage WHERE host_id = $1 AND ended_at IS NULL`, victim.HostID)
			fail(w, victim)
			w.Look()
			detail := w.Get(id)
			if detail.State != "degraded" || detail.Replacements != 1 || confirmed != 2 {
				t.Fatalf("the cluster is %s with %d replacements:%s", detail.State, detail.Replacements, w.Timeline(id))
			}
			if open := w.Count(`SELECT count(*) FROM usage WHERE ended_at IS NULL`); open != 0 {
				t.Errorf("%d leases are billed while it is degraded", open)
			}
			late := w.Count(`SELECT count(*) FROM usage WHERE host_id = $1 AND ended_at > confirmed_at`, victim.HostID)
			if late != 0 {
				t.Errorf("usage of the failed host goes past its last heartbeat")
			}
			w.AgentsStart(id)
			w.Look()
			detail = w.Get(id)
			if detail.State != "ready" {
				t.Fatalf("with the new node the cluster is %s:%s", detail.State, w.Timeline(id))
			}
			if leases := w.Count(`SELECT count(*) FROM leases WHERE state = 'billing'`); leases != 4 {
				t.Errorf("%d leases are billed, want 4", leases)
			}
			if back := w.Count(`SELECT count(*) FROM nodes WHERE cluster_id = $1 AND host_id = $2`, id, victim.HostID); back != 1 {
				t.Errorf("the failed host was used again")
			}
		})
	}
}

func TestARestartOfAgentsOrControlPlaneChangesNothing(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(2, 2))
	// Nobody has been heard for a while, and the summary is as old; the gateway has not judged any host lost.
	w.Exec(`UPDATE hosts SET connected = false, last_seen_at = now() - interval '14 seconds'`)
	w.Exec(`UPDATE ray_summaries SET observed_at = now() - interval '14 seconds'`)
	w.Look()
	// A host that comes back is verified again before it counts as leased.
	w.Exec(`ALTER TABLE hosts DISABLE TRIGGER hosts_transition`)
	w.Exec(`UPDATE hosts SET connected = true, last_seen_at = now(), state = 'verifying'`)
	w.Look()
	if detail, open := w.Get(id), w.Count(`SELECT count(*) FROM usage WHERE ended_at IS NULL`); detail.State != "ready" || open != 4 {
		t.Errorf("the cluster is %s with %d leases billed:%s", detail.State, open, w.Timeline(id))
	}
}

func TestBillingEndsWhereHeartbeatsConfirmedIt(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(2, 1))
	w.Exec(`UPDATE usage SET confirmed_at = started_at + interval '1 minute' WHERE host_id = (SELECT host_id FROM nodes WHERE ordinal = 1)`)
	w.Exec(`UPDATE usage SET confirmed_at = started_at + interval '2 minutes' WHERE host_id = (SELECT host_id FROM nodes WHERE ordinal = 2)`)
	if err := w.Clusters.Release(t.Context(), w.Customer, id); err != nil {
		t.Fatal(err)
	}
	w.Look()
	if billed := w.Count(`SELECT sum(extract(epoch FROM ended_at - started_at))::bigint FROM usage`); billed != 180 {
		t.Errorf("%d seconds are billed, want the 180 that were confirmed", billed)
	}
}

func TestAReplacementDoesNotTakeTheAddressThatRayStillLists(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(2, 2))
	victim := w.Get(id).Nodes[2]
	w.Exec(`UPDATE hosts SET state = 'lost' WHERE id = $1`, victim.HostID)
	// Ray has not noticed yet: the summary, fresh, lists the failed node as alive.
	w.Look()
	w.Exec(`UPDATE nodes SET state = 'starting' WHERE state = 'planned'`)
	w.Look()
	if detail := w.Get(id); detail.State != "degraded" {
		t.Errorf("with the failed node's entry in Ray the cluster is %s:%s", detail.State, w.Timeline(id))
	}
	if shared := w.Count(`SELECT count(*) FROM nodes WHERE slot = $1`, victim.Slot); shared != 1 {
		t.Errorf("%d nodes of the cluster have had the slot", shared)
	}
	w.AgentsStart(id)
	w.Look()
	if err := w.Clusters.Release(t.Context(), w.Customer, id); err != nil {
		t.Fatal(err)
	}
	w.Look()
	w.AgentsStop(id)
	w.Look()
	w.Exec(`UPDATE hosts SET state = 'verifying' WHERE state = 'lost'`)
	w.Exec(`UPDATE hosts SET state = 'idle' WHERE state = 'verifying'`)
	again := w.Book(schedulertest.Spec(2, 2))
	if slots := w.Count(`SELECT max(slot) FROM nodes WHERE cluster_id = $1`, again); slots != 2 {
		t.Errorf("after the release its slots are not used again: the highest is %d", slots)
	}
}

func TestTheTimeThatIsLeftIsWhatABrokenClusterGetsAgain(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(2, 2))
	w.Exec(`UPDATE usage SET confirmed_at = started_at + interval '40 minutes'`)
	w.Exec(`UPDATE hosts SET state = 'lost' WHERE id = $1`, w.Get(id).Nodes[2].HostID)
	w.Look()
	w.AgentsStart(id)
	w.Look()
	if open := w.Count(`SELECT count(*) FROM usage WHERE ended_at IS NULL AND limit_at = started_at + interval '20 minutes'`); open != 4 {
		t.Errorf("%d leases are billed for at most the 20 minutes left, want 4:%s", open, w.Timeline(id))
	}
}

func TestAFailedHeadEndsTheClusterOnThePlatform(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Ready(schedulertest.Spec(2, 1))
	w.Exec(`UPDATE nodes SET state = 'failed', ended_at = now(), reason = 'the head crashed' WHERE role = 'head'`)
	w.Look()
	w.AgentsStop(id)
	w.Look()
	detail := w.Get(id)
	if detail.State != "failed" || *detail.FaultParty != "platform" || !strings.Contains(detail.EndReason, "crashed") {
		t.Errorf("the cluster is %s on account of %v: %s", detail.State, *detail.FaultParty, detail.EndReason)
	}
}

func TestNodesThatKeepFailingEndTheCluster(t *testing.T) {
	t.Parallel()
	w := world(t)
	for range 3 {
		w.AddHost("H100", 2, 1_000_000, "eu")
	}
	id := w.Book(schedulertest.Spec(1, 1))
	for range 4 {
		w.Exec(`UPDATE nodes SET state = 'starting' WHERE state = 'planned'`)
		w.Exec(`UPDATE nodes SET state = 'failed', ended_at = now(), reason = 'exit status 1' WHERE role = 'gpu' AND ended_at IS NULL`)
		w.Look()
	}
	detail := w.Get(id)
	if detail.State != "draining" || *detail.FaultParty != "owner" || detail.Replacements != 3 {
		t.Errorf("after four failures the cluster is %s with %d replacements:%s", detail.State, detail.Replacements, w.Timeline(id))
	}
	if open := w.Count(`SELECT count(*) FROM leases WHERE state <> 'closed' AND node_id IN (SELECT id FROM nodes WHERE state = 'failed')`); open > 1 {
		t.Errorf("%d leases of failed nodes are open", open)
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Book(schedulertest.Spec(1, 1))
	w.Exec(`UPDATE nodes SET state = 'starting' WHERE state = 'planned'`)
	w.Look()
	w.Exec(`UPDATE clusters SET phase_at = now() - interval '91 seconds'`)
	w.Look()
	if detail := w.Get(id); detail.State != "draining" || !strings.Contains(detail.EndReason, "did not start in time") {
		t.Fatalf("a late head leaves the cluster %s: %s", detail.State, detail.EndReason)
	}
	// Hosts that do not say that they stopped are not waited for for ever, first those of the GPU nodes, then the head's.
	for range 2 {
		w.Exec(`UPDATE nodes SET stopping_at = now() - interval '61 seconds' WHERE state = 'stopping'`)
		w.Look()
	}
	if detail := w.Get(id); detail.State != "failed" {
		t.Errorf("after the drain's deadline the cluster is %s", detail.State)
	}
}

func TestTheSchemaRefusesToJump(t *testing.T) {
	t.Parallel()
	w := world(t)
	id := w.Book(schedulertest.Spec(1, 1))
	for _, sql := range []string{
		`UPDATE clusters SET state = 'ready' WHERE id = $1`,
		`UPDATE clusters SET state = 'released' WHERE id = $1`,
		`UPDATE leases SET gpu_id = gpu_id, state = 'billing', closed_at = now() WHERE cluster_id = $1`,
		`UPDATE nodes SET state = 'alive' WHERE cluster_id = $1`,
		`INSERT INTO leases (id, cluster_id, node_id, host_id, gpu_id, customer_org_id, owner_org_id, price_per_gpu_hour, fee_bps)
			SELECT gen_random_uuid(), cluster_id, node_id, host_id, gpu_id, customer_org_id, owner_org_id, 1, 0 FROM leases WHERE cluster_id = $1`,
	} {
		if _, err := w.Pool.Exec(t.Context(), sql, id); err == nil {
			t.Errorf("accepted: %s", sql)
		}
	}
}
