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

// seldom has idle hosts written once an hour.
func seldom(o *fleet.Options) { o.IdleWriteInterval = time.Hour }

// unhurried has no heartbeat of an idle host late while a test runs.
func unhurried(o *fleet.Options) { o.IdleInterval, o.LostAfter = time.Minute, time.Hour }

const writtenSeldom = `SELECT seen_slack_ms >= 3600000 FROM hosts WHERE id = $1`

// settled makes an idle machine that has been written with slack.
func (b *bundle) settled(ctx context.Context, uuid string) (*machine, *stream) {
	b.t.Helper()
	m := b.enrol(fleet.KindGPU)
	s := m.open(ctx, "machine")
	s.present(saneInventory(gpu(0, uuid)))
	testkit.Eventually(b.t, patience, func() (bool, string) {
		s.beat() // again and again, for one that is late would be written exactly
		return query[bool](b, `SELECT state = 'idle' AND seen_slack_ms >= 3600000 FROM hosts WHERE id = $1`, m.id), "not idle, or not written"
	})
	return m, s
}

func TestIdleHostIsWrittenSeldom(t *testing.T) {
	t.Parallel()
	b := setup(t, seldom, unhurried)
	m, s := b.settled(t.Context(), "GPU-0")
	_, other := b.settled(t.Context(), "GPU-1")
	written := query[time.Time](b, seenAt, m.id)
	for range 10 {
		s.beat()
	}
	changed := saneInventory(gpu(0, "GPU-0"))
	changed.DriverVersion = "580.95"
	s.inventory(changed) // shows that what is before it in the stream has been heard
	waitFor(b, "580.95", `SELECT coalesce(document->>'driver_version', '') FROM host_inventories WHERE host_id = $1`, m.id)
	other.report(1) // and this, that what was to be written of it has been
	waitFor(b, true, `SELECT bool_or(applied_generation = 1) FROM hosts`)
	if seen := query[time.Time](b, seenAt, m.id); !seen.Equal(written) {
		t.Errorf("written at %s and again at %s", written, seen)
	}
}

func TestSilenceOfASeldomWrittenHostIsFoundOut(t *testing.T) {
	t.Parallel()
	for name, silence := range map[string]func(cut func()){
		"the host says no more": func(func()) {},
		"its stream ends":       func(cut func()) { cut() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, seldom, func(o *fleet.Options) { o.LostAfter = 10 * time.Second })
			ctx, cut := context.WithCancel(t.Context())
			defer cut()
			m, s := b.settled(ctx, "GPU-0")
			start := query[time.Time](b, `SELECT clock_timestamp()`)
			s.report(1)
			waitFor(b, true, `SELECT last_seen_at >= $2 FROM hosts WHERE id = $1`, m.id, start)
			start = query[time.Time](b, `SELECT clock_timestamp()`)
			s.beat()
			changed := saneInventory(gpu(0, "GPU-0"))
			changed.DriverVersion = "580.95"
			s.inventory(changed) // the heartbeat before it has been heard with it
			waitFor(b, "580.95", `SELECT coalesce(document->>'driver_version', '') FROM host_inventories WHERE host_id = $1`, m.id)
			silence(cut)
			// What nobody had written is written now, and judged as ever.
			waitFor(b, true, `SELECT seen_slack_ms = 0 AND last_seen_at >= $2 FROM hosts WHERE id = $1`, m.id, start)
			b.waitForState(m.id, fleet.StateLost)
		})
	}
}

// TestSeldomWrittenHostThatBeatsIsNeverMissed lets the gateway's time pass only as fast as the host's heartbeats are heard.
func TestSeldomWrittenHostThatBeatsIsNeverMissed(t *testing.T) {
	t.Parallel()
	clock, registry := &movedClock{}, prometheus.NewRegistry()
	b := setup(t, seldom, func(o *fleet.Options) {
		o.Now, o.Registerer = clock.now, registry
		o.IdleInterval, o.LostAfter = time.Minute, time.Second
	})
	m, s := b.settled(t.Context(), "GPU-0")
	b.exec(`UPDATE hosts SET last_seen_at = last_seen_at - 2 * lost_after_ms * interval '1 millisecond' WHERE id = $1`, m.id)
	written := query[time.Time](b, seenAt, m.id)
	heard := counted(t, registry, heartbeatsHeard)
	for patient := query[int64](b, `SELECT lost_after_ms FROM hosts WHERE id = $1`, m.id); clock.ahead.Load() <= patient*int64(time.Millisecond); {
		clock.ahead.Add(int64(50 * time.Second))
		s.beat()
		heard++
		testkit.Eventually(t, patience, func() (bool, string) { return counted(t, registry, heartbeatsHeard) == heard, "not heard" })
	}
	silent := b.enrol(fleet.KindGPU)
	b.exec(`UPDATE hosts SET state = 'verifying', connected = true, last_seen_at = $2 WHERE id = $1`, silent.id, written)
	b.waitForState(silent.id, fleet.StateLost) // by a look that was at all hosts
	if state := query[string](b, `SELECT state || ' ' || connected FROM hosts WHERE id = $1`, m.id); state != "idle true" {
		t.Errorf("a host that beats is %s", state)
	}
	if seen := query[time.Time](b, seenAt, m.id); !seen.Equal(written) {
		t.Errorf("a host that is never late is written at %s and again at %s", written, seen)
	}
}

func TestHostThatCountsAsSilentIsWrittenAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, seldom, unhurried)
	m, s := b.settled(t.Context(), "GPU-0")
	b.exec(`UPDATE hosts SET connected = false, suspect_since = now() WHERE id = $1`, m.id)
	s.keepBeating()
	waitFor(b, true, `SELECT connected AND suspect_since IS NULL FROM hosts WHERE id = $1`, m.id)
}

// TestHostWithNodesIsWrittenEachTime holds its usage to each heartbeat too.
func TestHostWithNodesIsWrittenEachTime(t *testing.T) {
	t.Parallel()
	b := setup(t, seldom, unhurried)
	m, s := b.settled(t.Context(), "GPU-0")
	cluster := b.cluster()
	node := b.node(cluster, m.id, "gpu", 0)
	usage := b.usage(cluster, m.id, node)
	desired := s.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 1 })
	waitFor(b, int32(0), `SELECT seen_slack_ms FROM hosts WHERE id = $1`, m.id)
	s.report(desired.GetGeneration(), status(node, agentpb.NodePhase_NODE_PHASE_RUNNING))
	b.waitForNode(node, "running")
	for range 3 {
		start := query[time.Time](b, `SELECT clock_timestamp()`)
		s.beat()
		waitFor(b, true, `SELECT h.last_seen_at >= $2 AND h.seen_slack_ms = 0 AND u.confirmed_at >= $2 FROM hosts h, usage u
			WHERE h.id = $1 AND u.id = $3`, m.id, start, usage)
	}
	b.exec(`UPDATE usage SET ended_at = now() WHERE id = $1`, usage)
	b.exec(`UPDATE nodes SET state = 'failed', ended_at = now() WHERE id = $1`, node)
	b.bump(m.id)
	s.desired(func(d *agentpb.DesiredState) bool { return len(d.GetNodes()) == 0 })
	s.beat()
	waitFor(b, true, writtenSeldom, m.id)
}

// TestHostsOfADeadGatewayKeepTheirSlack looks at hosts that no living gateway hears.
func TestHostsOfADeadGatewayKeepTheirSlack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, other := b.enrol(fleet.KindGPU), b.enrol(fleet.KindGPU)
	const orphan = `UPDATE hosts SET state = 'verifying', connected = true, last_seen_at = now() - interval '1 minute', seen_slack_ms = $2 WHERE id = $1`
	b.exec(orphan, m.id, 3_600_000)
	b.exec(orphan, other.id, 30_000)
	b.waitForState(other.id, fleet.StateLost)
	if state := query[string](b, `SELECT state || ' ' || connected FROM hosts WHERE id = $1`, m.id); state != "verifying true" {
		t.Errorf("a host that may have been heard just now is %s", state)
	}
	b.exec(`UPDATE hosts SET seen_slack_ms = 0 WHERE id = $1`, m.id)
	b.waitForState(m.id, fleet.StateLost)
}

// TestOnlyTheNewestStreamDecidesOnSlack has another gateway take the host over, as far as the tables tell.
func TestOnlyTheNewestStreamDecidesOnSlack(t *testing.T) {
	t.Parallel()
	b := setup(t, unhurried)
	m, s := b.idleSilently("GPU-0")
	b.exec(`UPDATE hosts SET stream = stream + 1, seen_slack_ms = 5000 WHERE id = $1`, m.id)
	start := query[time.Time](b, `SELECT clock_timestamp()`)
	s.beat()
	waitFor(b, true, `SELECT last_seen_at >= $2 FROM hosts WHERE id = $1`, m.id, start)
	if slack := query[int32](b, `SELECT seen_slack_ms FROM hosts WHERE id = $1`, m.id); slack != 5000 {
		t.Errorf("an older stream set the slack to %d ms", slack)
	}
	m.connect() // is the newest now, and has said nothing yet
	if slack := query[int32](b, `SELECT seen_slack_ms FROM hosts WHERE id = $1`, m.id); slack != 0 {
		t.Errorf("a new stream begins with %d ms of slack", slack)
	}
}

func TestStoppedGatewayWritesWhatItHeard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var stop func()
	b.gateway, stop = b.startGateway(seldom, unhurried)
	m, s := b.settled(t.Context(), "GPU-0")
	start := query[time.Time](b, `SELECT clock_timestamp()`)
	s.beat()
	changed := saneInventory(gpu(0, "GPU-0"))
	changed.DriverVersion = "580.95"
	s.inventory(changed)
	waitFor(b, "580.95", `SELECT coalesce(document->>'driver_version', '') FROM host_inventories WHERE host_id = $1`, m.id)
	stop()
	if !query[bool](b, `SELECT seen_slack_ms = 0 AND last_seen_at >= $2 FROM hosts WHERE id = $1`, m.id, start) {
		t.Error("what was heard last was not written when the gateway stopped")
	}
}
