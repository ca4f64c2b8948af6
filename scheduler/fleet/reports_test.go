package fleet_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/rayaddr"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

// TestReportsOnlyMakeLegalTransitions holds the decision to the schema's own table.
func TestReportsOnlyMakeLegalTransitions(t *testing.T) {
	t.Parallel()
	pool := testkit.DB(t)
	rows, err := pool.Query(t.Context(), `SELECT from_state, to_state FROM state_transitions WHERE machine = 'nodes'`)
	if err != nil {
		t.Fatal(err)
	}
	legal := map[[2]string]bool{}
	for rows.Next() {
		var from, to string
		if err = rows.Scan(&from, &to); err != nil {
			t.Fatal(err)
		}
		legal[[2]string{from, to}] = true
	}
	if rows.Err() != nil || len(legal) == 0 {
		t.Fatalf("%d transitions, %v", len(legal), rows.Err())
	}
	live := []string{"planned", "starting", "running", "alive", "stopping"}
	rapid.Check(t, func(t *rapid.T) {
		state := rapid.SampledFrom(live).Draw(t, "state")
		wantsStop := state == "stopping" || rapid.Bool().Draw(t, "stop")
		var status *agentpb.NodeStatus
		if rapid.Bool().Draw(t, "named") {
			status = &agentpb.NodeStatus{Phase: agentpb.NodePhase(rapid.Int32Range(0, 7).Draw(t, "phase")), Message: "m"}
		}
		path, _ := fleet.Advance(state, wantsStop, status)
		for _, next := range path {
			if !legal[[2]string{state, next}] {
				t.Fatalf("%v leads from %s to %s", status, state, next)
			}
			if next == "alive" {
				t.Fatal("a host declared its node alive")
			}
			state = next
		}
	})
}

func TestAdvance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		state string
		stop  bool
		phase agentpb.NodePhase
		want  []string
	}{
		{"planned", false, agentpb.NodePhase_NODE_PHASE_RUNNING, []string{"starting", "running"}},
		{"planned", false, agentpb.NodePhase_NODE_PHASE_STARTING, []string{"starting"}},
		{"starting", false, agentpb.NodePhase_NODE_PHASE_RUNNING, []string{"running"}},
		{"alive", false, agentpb.NodePhase_NODE_PHASE_RUNNING, nil},
		{"running", false, agentpb.NodePhase_NODE_PHASE_STARTING, nil},
		{"alive", false, agentpb.NodePhase_NODE_PHASE_FAILED, []string{"failed"}},
		{"stopping", true, agentpb.NodePhase_NODE_PHASE_STOPPED, []string{"stopped"}},
		{"stopping", true, agentpb.NodePhase_NODE_PHASE_RUNNING, nil},
		{"alive", true, agentpb.NodePhase_NODE_PHASE_STOPPED, []string{"stopping", "stopped"}},
		{"alive", false, agentpb.NodePhase_NODE_PHASE_STOPPED, []string{"failed"}},
		{"running", true, agentpb.NodePhase_NODE_PHASE_STOPPING, []string{"stopping"}},
		{"running", false, agentpb.NodePhase_NODE_PHASE_STOPPING, nil},
	} {
		if got, _ := fleet.Advance(c.state, c.stop, &agentpb.NodeStatus{Phase: c.phase}); !slices.Equal(got, c.want) {
			t.Errorf("%s reported %v (stop %v) goes through %v, want %v", c.state, c.phase, c.stop, got, c.want)
		}
	}
	for state, want := range map[string][]string{"planned": nil, "starting": {"failed"}, "alive": {"failed"}, "stopping": {"stopped"}} {
		if got, _ := fleet.Advance(state, false, nil); !slices.Equal(got, want) {
			t.Errorf("%s that is not named goes through %v, want %v", state, got, want)
		}
	}
}

func (b *bundle) waitForNode(node ids.Node, want string) {
	b.t.Helper()
	waitFor(b, want, `SELECT state FROM nodes WHERE id = $1`, node)
}

func TestNodesFollowReports(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hub := pgnotify.New(b.pool, b.quietLog())
	woken, stop := hub.Subscribe(pgnotify.ChannelScheduler)
	defer stop()
	b.runHub(hub)
	m, s := b.idle(fleet.KindHead)
	cluster := b.cluster()
	head, gpuNode := b.node(cluster, m.id, "head", 0), b.node(cluster, m.id, "gpu", 7)
	desired := s.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 2 })
	drainChannel(woken)
	starting := []*agentpb.NodeStatus{status(head, agentpb.NodePhase_NODE_PHASE_STARTING), status(gpuNode, agentpb.NodePhase_NODE_PHASE_STARTING)}
	s.report(desired.GetGeneration(), starting...)
	b.waitForNode(head, "starting")
	select {
	case <-woken:
	case <-time.After(patience):
		t.Error("the scheduler was not woken")
	}
	running := status(head, agentpb.NodePhase_NODE_PHASE_RUNNING)
	running.Ray = &agentpb.RaySummary{Nodes: []*agentpb.RayNode{{Address: "127.77.0.2", Alive: true, Head: true}, {Address: "127.77.0.9", Alive: true, Gpus: 2}}}
	failed := status(gpuNode, agentpb.NodePhase_NODE_PHASE_FAILED)
	failed.Message = "out of memory\x00"
	s.report(desired.GetGeneration(), running, failed)
	b.waitForNode(head, "running")
	b.waitForNode(gpuNode, "failed")
	if got := query[string](b, `SELECT reason FROM nodes WHERE id = $1 AND ended_at IS NOT NULL`, gpuNode); got != "out of memory" {
		t.Errorf("failed because %q", got)
	}
	if got := query[string](b, `SELECT nodes->1->>'address' || ' ' || (nodes->1->>'gpus') || ' ' || (nodes->0->>'head') FROM ray_summaries WHERE cluster_id = $1`, cluster); got != "127.77.0.9 2 true" {
		t.Errorf("summary %q", got)
	}
	// The failed node has ended: the next desired state no longer names it.
	desired = s.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 1 })
	// A node that the report no longer names is gone.
	s.report(desired.GetGeneration())
	b.waitForNode(head, "failed")
}

func TestReportOfAnOlderDesiredStateDoesNotEndNodes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, s := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	node := b.node(b.cluster(), m.id, "gpu", 0)
	desired := s.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 1 })
	s.report(desired.GetGeneration(), status(node, agentpb.NodePhase_NODE_PHASE_RUNNING))
	b.waitForNode(node, "running")
	b.bump(m.id)
	// The host has not heard of the newest generation, and says nothing of the node.
	s.report(desired.GetGeneration())
	s.report(desired.GetGeneration(), status(node, agentpb.NodePhase_NODE_PHASE_RUNNING))
	desired = s.desired(func(d *agentpb.DesiredState) bool { return d.GetGeneration() > desired.GetGeneration() })
	s.report(desired.GetGeneration(), status(node, agentpb.NodePhase_NODE_PHASE_RUNNING))
	waitFor(b, desired.GetGeneration(), `SELECT applied_generation FROM hosts WHERE id = $1`, m.id)
	if got := query[string](b, `SELECT state FROM nodes WHERE id = $1`, node); got != "running" {
		t.Errorf("the node is %s", got)
	}
}

func TestDesiredState(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *fleet.Options) { o.PollInterval = time.Hour }) // by notification alone
	heads, _ := b.idle(fleet.KindHead)
	m, s := b.idle(fleet.KindGPU, gpu(0, "GPU-0"), gpu(1, "GPU-1"))
	s.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 0 })
	cluster := b.cluster()
	b.node(cluster, heads.id, "head", 5)
	node := b.node(cluster, m.id, "gpu", 12)
	b.exec(`INSERT INTO leases (id, cluster_id, node_id, host_id, gpu_id, customer_org_id, owner_org_id, price_per_gpu_hour, fee_bps)
		SELECT gen_random_uuid(), $1, $2, host_id, id, $3, $3, 1, 0 FROM gpus WHERE host_id = $4`, cluster, node, b.org, m.id)
	b.bump(m.id)
	desired := s.desired(func(d *agentpb.DesiredState) bool {
		return len(d.GetNodes()) == 1 && len(d.GetNodes()[0].GetGpuUuids()) == 2
	})
	spec := desired.GetNodes()[0]
	want := &agentpb.NodeSpec{
		NodeId: node.String(), ClusterId: cluster.String(), RayVersion: "2.60.0", RayToken: "ray-secret",
		Address: rayaddr.Address(12), HeadAddress: rayaddr.Address(5), HeadPort: int32(rayaddr.PortBase(5)),
		PortBase: int32(rayaddr.PortBase(12)), PortCount: rayaddr.PortCount, GpuUuids: []string{"GPU-0", "GPU-1"},
		Labels: map[string]string{"region": "eu-west"},
	}
	if spec.String() != want.String() {
		t.Errorf("got  %v\nwant %v", spec, want)
	}
	b.exec(`UPDATE clusters SET state = 'draining', fault_party = 'customer' WHERE id = $1`, cluster)
	b.bump(m.id)
	s.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 1 && d.GetNodes()[0].GetStop() })
	// A new stream is told everything again.
	again := m.connect()
	again.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 1 })
}

// usage opens a billable interval on a host.
func (b *bundle) usage(cluster ids.Cluster, host ids.Host, node ids.Node) ids.Usage {
	b.t.Helper()
	lease, usage := ids.New[ids.Lease](), ids.New[ids.Usage]()
	b.exec(`INSERT INTO leases (id, cluster_id, node_id, host_id, gpu_id, customer_org_id, owner_org_id, state, price_per_gpu_hour, fee_bps)
		SELECT $1, $2, $3, host_id, id, $4, $4, 'billing', 1, 0 FROM gpus WHERE host_id = $5 LIMIT 1`, lease, cluster, node, b.org, host)
	b.exec(`INSERT INTO usage (id, lease_id, host_id, started_at, confirmed_at, limit_at) VALUES ($1, $2, $3, now(), now(), now() + interval '1 hour')`,
		usage, lease, host)
	return usage
}

func TestHeartbeatsConfirmUsageUntilTheHostIsLost(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *fleet.Options) { o.LostAfter = 8 * time.Second })
	m := b.enrol(fleet.KindGPU)
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	s := m.open(ctx, "machine")
	s.keepBeating()
	s.present(saneInventory(gpu(0, "GPU-0")))
	b.waitForState(m.id, fleet.StateIdle)
	cluster := b.cluster()
	node := b.node(cluster, m.id, "gpu", 0)
	usage := b.usage(cluster, m.id, node)
	desired := s.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 1 })
	const confirmed = `SELECT confirmed_at FROM usage WHERE id = $1`
	start := query[time.Time](b, confirmed, usage)
	// A heartbeat alone says nothing of the node.
	waitFor(b, true, `SELECT last_seen_at > $2 FROM hosts WHERE id = $1`, m.id, start)
	if at := query[time.Time](b, confirmed, usage); !at.Equal(start) {
		t.Error("usage was confirmed before the host reported that the node runs")
	}
	s.report(desired.GetGeneration(), status(node, agentpb.NodePhase_NODE_PHASE_RUNNING))
	testkit.Eventually(t, patience, func() (bool, string) {
		at := query[time.Time](b, confirmed, usage)
		return at.Sub(start) > 300*time.Millisecond, at.Sub(start).String()
	})
	cut()
	b.waitForState(m.id, fleet.StateLost)
	last := query[time.Time](b, confirmed, usage)
	if seen := query[time.Time](b, `SELECT last_seen_at FROM hosts WHERE id = $1`, m.id); last.After(seen.Add(4 * time.Second)) {
		t.Errorf("confirmed until %s although last seen at %s", last, seen)
	}
	if query[bool](b, `SELECT connected FROM hosts WHERE id = $1`, m.id) {
		t.Error("a lost host counts as connected")
	}
	// It comes back, leased as it still has a node, and then says that the node is gone: the gap is never confirmed.
	back := m.connect()
	back.keepBeating()
	back.present(saneInventory(gpu(0, "GPU-0")))
	b.waitForState(m.id, fleet.StateLeased)
	desired = back.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 1 })
	back.report(desired.GetGeneration())
	b.waitForNode(node, "failed")
	waitFor(b, true, `SELECT last_seen_at > now() - interval '1 second' FROM hosts WHERE id = $1`, m.id)
	if after := query[time.Time](b, confirmed, usage); !after.Equal(last) {
		t.Errorf("the gap was bridged: %s became %s", last, after)
	}
}

func TestCordonOutlivesALoss(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := b.enrol(fleet.KindGPU)
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	s := m.open(ctx, "machine")
	s.keepBeating()
	s.present(saneInventory(gpu(0, "GPU-0")))
	b.waitForState(m.id, fleet.StateIdle)
	if err := b.registry.Cordon(t.Context(), b.org, m.id); err != nil {
		t.Fatal(err)
	}
	cut()
	b.waitForState(m.id, fleet.StateLost)
	back := m.connect()
	back.keepBeating()
	back.present(saneInventory(gpu(0, "GPU-0")))
	b.waitForState(m.id, fleet.StateDraining)
}

func TestSilentStreamIsEnded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := b.enrol(fleet.KindGPU)
	s := m.connect() // and then not a word
	if err := s.end(); grpcstatus.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
	b.waitForState(m.id, fleet.StateLost)
}

func TestStreamsMustGreetInThisVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := b.enrol(fleet.KindGPU)
	for name, first := range map[string]*agentpb.AgentMessage{
		"no hello": {Body: &agentpb.AgentMessage_Heartbeat{Heartbeat: &agentpb.Heartbeat{}}},
		"version":  {Body: &agentpb.AgentMessage_Hello{Hello: &agentpb.Hello{ProtocolVersion: 99}}},
	} {
		client, err := m.client().Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := &stream{BidiStreamingClient: client, t: t}
		s.send(first)
		if err = s.end(); grpcstatus.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReportOfNothingLooksForNoNodes takes the nodes away, so that a look for them would fail.
func TestReportOfNothingLooksForNoNodes(t *testing.T) {
	t.Parallel()
	b := setup(t, patiently)
	m, s := b.idleSilently("GPU-0")
	b.bump(m.id)
	generation := s.desired(func(*agentpb.DesiredState) bool { return true }).GetGeneration()
	b.exec(`ALTER TABLE nodes RENAME TO nodes_away`)
	s.report(generation)
	waitFor(b, generation, `SELECT applied_generation FROM hosts WHERE id = $1`, m.id)
}
