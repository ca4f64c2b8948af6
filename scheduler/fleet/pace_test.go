package fleet_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

// pace receives until the control plane says how often to beat.
func (s *stream) pace() time.Duration {
	s.t.Helper()
	for {
		message, err := s.Recv()
		if err != nil {
			s.t.Fatal(err)
		}
		if pace := message.GetPace(); pace != nil {
			return time.Duration(pace.GetHeartbeatIntervalMs()) * time.Millisecond
		}
	}
}

func TestPaceFollowsTheWork(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *fleet.Options) {
		o.HeartbeatInterval, o.IdleInterval, o.LostAfter = time.Second, 10*time.Second, 43*time.Second
	})
	m := b.enrol(fleet.KindGPU)
	s := m.open(t.Context(), "machine")
	message, err := s.Recv()
	if err != nil || message.GetWelcome().GetHeartbeatIntervalMs() != 10_000 {
		t.Fatalf("an idle host is welcomed with %v, %v", message, err)
	}
	s.present(saneInventory(gpu(0, "GPU-0")))
	b.waitForState(m.id, fleet.StateIdle)
	const lostAfter = `SELECT lost_after_ms FROM hosts WHERE id = $1`
	waitFor(b, int32(70_000), lostAfter, m.id)
	node := b.node(b.cluster(), m.id, "gpu", 0)
	if got := s.pace(); got != time.Second {
		t.Errorf("a host with a node is to beat every %s", got)
	}
	if got := query[int32](b, lostAfter, m.id); got != 70_000 {
		t.Errorf("the host may be silent for %d ms although it may not have heard yet", got)
	}
	s.beat()
	waitFor(b, int32(43_000), lostAfter, m.id)
	// A new stream of a host with nodes begins at their pace.
	again := m.open(t.Context(), "machine")
	if message, err = again.Recv(); err != nil || message.GetWelcome().GetHeartbeatIntervalMs() != 1_000 {
		t.Fatalf("a busy host is welcomed with %v, %v", message, err)
	}
	b.exec(`UPDATE nodes SET state = 'failed', ended_at = now() WHERE id = $1`, node)
	b.bump(m.id)
	if got := again.pace(); got != 10*time.Second {
		t.Errorf("an idle host is to beat every %s", got)
	}
	waitFor(b, int32(70_000), lostAfter, m.id) // before it is told: it has not beaten since
}

func TestAgentKeepsThePace(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *fleet.Options) {
		o.HeartbeatInterval, o.IdleInterval, o.LostAfter = 100*time.Millisecond, time.Minute, 2*time.Second
	})
	w := b.worker()
	host := w.id()
	b.waitForState(host, fleet.StateIdle)
	node := b.node(b.cluster(), host, "gpu", 0)
	b.waitForNode(node, "running")
	// Idle it would not have beaten for a minute.
	waitFor(b, int32(2_000), `SELECT lost_after_ms FROM hosts WHERE id = $1`, host)
	seen := query[time.Time](b, `SELECT last_seen_at FROM hosts WHERE id = $1`, host)
	waitFor(b, true, `SELECT last_seen_at > $2::timestamptz + interval '1 second' FROM hosts WHERE id = $1`, host, seen)
}

func TestSilentHostIsSuspectBeforeItIsLost(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *fleet.Options) { o.LostAfter = 10 * time.Second }) // which is long after it is suspect
	m := b.enrol(fleet.KindGPU)
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	s := m.open(ctx, "machine")
	s.present(saneInventory(gpu(0, "GPU-0")))
	b.waitForState(m.id, fleet.StateIdle)
	// Nothing is judged silent before the gateway itself has listened for as long as a host may be silent.
	start := query[time.Time](b, `SELECT enrolled_at FROM hosts WHERE id = $1`, m.id)
	testkit.Eventually(t, patience, func() (bool, string) {
		s.beat()
		return query[bool](b, `SELECT clock_timestamp() > $2::timestamptz + lost_after_ms * interval '1.1 milliseconds' FROM hosts WHERE id = $1`, m.id, start), "waiting"
	})
	testkit.Eventually(t, patience, func() (bool, string) {
		if query[bool](b, `SELECT suspect_since IS NOT NULL AND NOT connected AND state = 'idle' FROM hosts WHERE id = $1`, m.id) {
			return true, ""
		}
		return false, query[string](b, `SELECT state || ' ' || connected FROM hosts WHERE id = $1`, m.id)
	})
	if view, err := b.registry.Host(t.Context(), b.org, m.id); err != nil || view.Liveness != fleet.LivenessSuspect || view.SuspectSince == nil {
		t.Errorf("%s since %v, %v", view.Liveness, view.SuspectSince, err)
	}
	s.beat()
	waitFor(b, true, `SELECT suspect_since IS NULL AND connected AND state = 'idle' FROM hosts WHERE id = $1`, m.id)
	cut()
	b.waitForState(m.id, fleet.StateLost)
	if view, err := b.registry.Host(t.Context(), b.org, m.id); err != nil || view.Liveness != fleet.LivenessLost {
		t.Errorf("%s, %v", view.Liveness, err)
	}
}

// TestHeartbeatOutlivesAFlushThatFails lets the write fail and holds it to the time at which the host was heard.
func TestHeartbeatOutlivesAFlushThatFails(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	b := setup(t, patiently, func(o *fleet.Options) { o.Registerer = registry })
	m, _ := b.idleSilently("GPU-0")
	s := m.connect()
	b.exec(`UPDATE hosts SET last_seen_at = last_seen_at - interval '20 seconds' WHERE id = $1`, m.id)
	b.exec(`ALTER TABLE hosts RENAME TO hosts_away`)
	start := query[time.Time](b, `SELECT clock_timestamp()`)
	s.report(1)
	s.beat()
	testkit.Eventually(t, patience, func() (bool, string) { return counted(t, registry, heartbeatsHeard) == 1, "not heard" })
	heard := query[time.Time](b, `SELECT clock_timestamp()`)
	// The flushes that fail in between each keep what they could not write.
	waitFor(b, true, `SELECT clock_timestamp() > $1::timestamptz + interval '5 seconds'`, heard)
	b.exec(`ALTER TABLE hosts_away RENAME TO hosts`)
	waitFor(b, int64(1), `SELECT applied_generation FROM hosts WHERE id = $1`, m.id)
	if seen := query[time.Time](b, seenAt, m.id); seen.Before(start) || seen.After(heard.Add(4*time.Second)) {
		t.Errorf("heard between %s and %s, and %s is written", start, heard, seen)
	}
}

const heartbeatsHeard = "muster_fleet_heartbeats_total"

// counted is the value of a counter.
func counted(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

const seenAt = `SELECT last_seen_at FROM hosts WHERE id = $1`

// patiently keeps a gateway from taking hosts for lost that say nothing for as long as a test may take.
func patiently(o *fleet.Options) { o.LostAfter = time.Hour }

// idleSilently makes an idle machine whose stream says nothing by itself.
func (b *bundle) idleSilently(uuid string) (*machine, *stream) {
	b.t.Helper()
	m := b.enrol(fleet.KindGPU)
	s := m.connect()
	s.present(saneInventory(gpu(0, uuid)))
	b.waitForState(m.id, fleet.StateIdle)
	return m, s
}

// TestFlushesDoNotDeadlock lets two gateways and a scheduler write the same hosts at once; every statement locks them in the same order.
func TestFlushesDoNotDeadlock(t *testing.T) {
	t.Parallel()
	b := setup(t, patiently)
	var hosts []*stream
	for _, uuid := range []string{"GPU-0", "GPU-1", "GPU-2", "GPU-3"} {
		_, s := b.idleSilently(uuid)
		hosts = append(hosts, s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			_, err := b.pool.Exec(context.Background(), `WITH ordered AS (SELECT id FROM hosts ORDER BY id FOR NO KEY UPDATE)
				UPDATE hosts h SET desired_generation = desired_generation + 1 FROM ordered WHERE h.id = ordered.id`)
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range 300 {
		for i := range hosts {
			hosts[(i*3)%len(hosts)].beat()
			hosts[i].send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Health{Health: soundHealth(gpu(0, "GPU"))}})
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if deadlocks := query[int64](b, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`); deadlocks != 0 {
		t.Errorf("%d deadlocks", deadlocks)
	}
}

// TestHeartbeatsTouchNoIndex keeps the rows of hosts HOT: an index on any of these columns would be written with every heartbeat.
func TestHeartbeatsTouchNoIndex(t *testing.T) {
	t.Parallel()
	b := setup(t, patiently)
	indexed := query[string](b, `SELECT coalesce(string_agg(DISTINCT a.attname, ', '), '') FROM pg_index i
		JOIN pg_attribute a ON a.attrelid = i.indrelid AND (a.attnum = ANY(i.indkey) OR pg_get_indexdef(i.indexrelid) LIKE '%' || a.attname || '%')
		WHERE i.indrelid = 'hosts'::regclass AND a.attname IN ('last_seen_at', 'seen_slack_ms', 'lost_after_ms', 'applied_generation', 'connected', 'suspect_since')`)
	if indexed != "" {
		t.Errorf("there are indexes on %s", indexed)
	}
	// Nor do they reach the feed of changes.
	m, s := b.idleSilently("GPU-0")
	changes := query[int64](b, `SELECT coalesce(max(id), 0) FROM fleet_changes`)
	start := query[time.Time](b, `SELECT clock_timestamp()`)
	s.beat()
	waitFor(b, true, `SELECT last_seen_at >= $2::timestamptz - interval '1 millisecond' FROM hosts WHERE id = $1`, m.id, start)
	if n := query[int](b, `SELECT count(*) FROM fleet_changes WHERE id > $1`, changes); n != 0 {
		t.Errorf("a heartbeat made %d changes", n)
	}
}
