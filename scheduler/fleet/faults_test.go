package fleet_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

func TestGPUReportedTwiceQuarantinesTheHost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, s := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	s.inventory(saneInventory(gpu(0, "GPU-0"), gpu(1, "GPU-0")))
	if err := s.end(); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Errorf("the stream ended with %v", err)
	}
	b.waitForState(m.id, fleet.StateQuarantined)
	if gpus := query[int](b, `SELECT count(*) FROM gpus WHERE host_id = $1`, m.id); gpus != 1 {
		t.Errorf("%d GPUs are stored", gpus)
	}
}

func TestHostThatVanishesInTheMiddleOfAssembly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := b.enrol(fleet.KindGPU)
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	s := m.open(ctx, "machine")
	s.keepBeating()
	s.present(saneInventory(gpu(0, "GPU-0")))
	b.waitForState(m.id, fleet.StateIdle)
	node := b.node(b.cluster(), m.id, "gpu", 0)
	b.exec(`UPDATE hosts SET state = 'leased' WHERE id = $1`, m.id)
	desired := s.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 1 })
	s.report(desired.GetGeneration(), status(node, agentpb.NodePhase_NODE_PHASE_STARTING))
	b.waitForNode(node, "starting")
	cut()
	b.waitForState(m.id, fleet.StateLost) // from which the scheduler concludes that the node is gone
	if reason := query[string](b, `SELECT state_reason FROM hosts WHERE id = $1`, m.id); reason == "" {
		t.Error("nothing says why the host is lost")
	}
	// It returns after a restart and knows nothing of the node.
	back := m.connect()
	back.keepBeating()
	back.present(saneInventory(gpu(0, "GPU-0")))
	desired = back.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 1 })
	back.report(desired.GetGeneration())
	b.waitForNode(node, "failed")
}

// reassign takes a node's lease away, as the scheduler does when a host is gone, and gives it to another host's node.
func (b *bundle) reassign(node, successor string, other *machine) {
	b.t.Helper()
	b.exec(`UPDATE usage SET ended_at = now() FROM leases l WHERE l.id = lease_id AND l.node_id = $1`, node)
	b.exec(`UPDATE leases SET state = 'closed', closed_at = now(), close_party = 'owner', close_reason = 'lost' WHERE node_id = $1`, node)
	b.exec(`UPDATE nodes SET state = 'failed', ended_at = now(), reason = 'lost' WHERE id = $1`, node)
	b.exec(`INSERT INTO nodes (id, cluster_id, host_id, role, ordinal, slot, gpus, machine_id, state)
		SELECT $2, cluster_id, $3, role, ordinal, slot + 100, gpus, machine_id, 'planned' FROM nodes WHERE id = $1`, node, successor, other.id)
	b.exec(`INSERT INTO leases (id, cluster_id, node_id, host_id, gpu_id, customer_org_id, owner_org_id, state, price_per_gpu_hour, fee_bps)
		SELECT gen_random_uuid(), n.cluster_id, n.id, n.host_id, g.id, $2, $2, 'held', 1, 0
		FROM nodes n JOIN gpus g ON g.host_id = n.host_id WHERE n.id = $1`, successor, b.org)
}

// TestHostThatComesBackAfterItsLeaseWasReassigned holds a real agent to stopping the old node, and its host to not billing for it.
func TestHostThatComesBackAfterItsLeaseWasReassigned(t *testing.T) {
	t.Parallel()
	b := setup(t)
	relay := newRelay(t, b.gateway.Addr())
	w := b.workerThrough(relay)
	host := w.id()
	b.waitForState(host, fleet.StateIdle)
	cluster := b.cluster()
	node := b.node(cluster, host, "gpu", 0)
	usage := b.usage(cluster, host, node)
	b.waitForNode(node, "running")
	waitFor(b, true, `SELECT confirmed_at > started_at FROM usage WHERE id = $1`, usage)
	relay.hold() // the machine runs on, and nobody hears it
	b.waitForState(host, fleet.StateLost)
	other, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-1"))
	successor := query[string](b, `SELECT gen_random_uuid()::text`)
	b.reassign(query[string](b, `SELECT id::text FROM nodes WHERE host_id = $1`, host), successor, other)
	b.bump(host)
	confirmed := query[time.Time](b, `SELECT confirmed_at FROM usage WHERE id = $1`, usage)
	if !slices.Contains(w.runtime.names(), node.String()) {
		t.Fatal("the node was stopped although nobody could say so")
	}
	relay.release()
	testkit.Eventually(t, patience, func() (bool, string) { return len(w.runtime.names()) == 0, "the old node still runs" })
	b.waitForState(host, fleet.StateIdle)
	waitFor(b, true, `SELECT last_seen_at > now() - interval '1 second' FROM hosts WHERE id = $1`, host)
	if after := query[time.Time](b, `SELECT confirmed_at FROM usage WHERE id = $1`, usage); !after.Equal(confirmed) {
		t.Errorf("billed until %s, then until %s", confirmed, after)
	}
	if got := query[string](b, `SELECT state FROM nodes WHERE id = $1`, node); got != "failed" {
		t.Errorf("the old node is %s", got)
	}
	if open := query[int](b, `SELECT count(*) FROM usage u JOIN leases l ON l.id = u.lease_id WHERE l.host_id = $1 AND u.ended_at IS NULL`, host); open != 0 {
		t.Errorf("%d billable intervals are open on the host", open)
	}
}

func TestReportsForForeignNodesAreNotHeard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	victim, vs := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	attacker, as := b.idle(fleet.KindGPU, gpu(0, "GPU-1"))
	cluster := b.cluster()
	node := b.node(cluster, victim.id, "gpu", 0)
	own := b.node(cluster, attacker.id, "gpu", 1)
	desired := vs.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 1 })
	vs.report(desired.GetGeneration(), status(node, agentpb.NodePhase_NODE_PHASE_RUNNING))
	b.waitForNode(node, "running")
	usage := b.usage(cluster, victim.id, node)
	desired = as.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 1 })
	as.report(desired.GetGeneration(), status(node, agentpb.NodePhase_NODE_PHASE_FAILED), status(own, agentpb.NodePhase_NODE_PHASE_RUNNING))
	b.waitForNode(own, "running") // the report has been dealt with
	if got := query[string](b, `SELECT state FROM nodes WHERE id = $1`, node); got != "running" {
		t.Errorf("another host's report made the node %s", got)
	}
	// Nor does it confirm another's time: the victim is silent, and only it could.
	b.exec(`UPDATE usage SET host_id = $2 WHERE id = $1`, usage, victim.id)
	waitFor(b, true, `SELECT confirmed_at > started_at FROM usage WHERE id = $1`, usage) // by the victim's own heartbeats
	b.exec(`UPDATE hosts SET state = 'lost' WHERE id = $1`, victim.id)
	if err := vs.end(); grpcstatus.Code(err) != codes.Unavailable {
		t.Errorf("the victim's stream ended with %v", err)
	}
	before := query[time.Time](b, `SELECT confirmed_at FROM usage WHERE id = $1`, usage)
	seen := query[time.Time](b, `SELECT last_seen_at FROM hosts WHERE id = $1`, attacker.id)
	as.report(desired.GetGeneration(), status(node, agentpb.NodePhase_NODE_PHASE_RUNNING), status(own, agentpb.NodePhase_NODE_PHASE_RUNNING))
	waitFor(b, true, `SELECT last_seen_at > $2::timestamptz + interval '300 milliseconds' FROM hosts WHERE id = $1`, attacker.id, seen)
	if after := query[time.Time](b, `SELECT confirmed_at FROM usage WHERE id = $1`, usage); !after.Equal(before) {
		t.Errorf("confirmed until %s, then until %s by another host", before, after)
	}
}
