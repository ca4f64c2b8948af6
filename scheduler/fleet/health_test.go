package fleet_test

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

const failingGate = `SELECT failing_gate FROM hosts WHERE id = $1`

func TestHostIsVerifiedByInventoryAndHealth(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := b.enrol(fleet.KindGPU)
	s := m.connect()
	s.keepBeating()
	s.inventory(saneInventory(gpu(0, "GPU-0")))
	s.report(1)
	waitFor(b, int64(1), `SELECT applied_generation FROM hosts WHERE id = $1`, m.id)
	b.waitForState(m.id, fleet.StateVerifying)
	s.health(soundHealth(gpu(0, "GPU-0")))
	b.waitForState(m.id, fleet.StateIdle)
	if rtt := query[int](b, `SELECT rtt_us FROM hosts WHERE id = $1`, m.id); rtt <= 0 || rtt > 1_000_000 {
		t.Errorf("the round trip on loopback is %d us", rtt)
	}
	got := query[string](b, `SELECT cpus || ' ' || memory_bytes || ' ' || disk_free_bytes / 1073741824 || ' ' || runtime || ' ' || images[1] FROM hosts WHERE id = $1`, m.id)
	if got != "8 68719476736 100 process 2.60.0" {
		t.Errorf("measured as %q", got)
	}
}

func TestMeasuresOfAnOlderVersionsHostAreFilledIn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	b.exec(`UPDATE hosts SET cpus = NULL, memory_bytes = NULL, disk_free_bytes = NULL, images = '{}' WHERE id = $1`, m.id)
	again := m.connect() // the inventory is the same as before
	again.keepBeating()
	again.present(saneInventory(gpu(0, "GPU-0")))
	waitFor(b, true, `SELECT coalesce(cpus = 8 AND memory_bytes > 0 AND disk_free_bytes > 0 AND images = '{2.60.0}', false) FROM hosts WHERE id = $1`, m.id)
}

func TestFailingGateClosesTheHostUntilItPasses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, s := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	full := soundHealth(gpu(0, "GPU-0"))
	full.DiskFreeBytes = 3 << 30
	s.health(full)
	waitFor(b, fleet.GateDisk, failingGate, m.id)
	view, err := b.registry.Host(t.Context(), b.org, m.id)
	if err != nil {
		t.Fatal(err)
	}
	var disk fleet.GateView
	for _, gate := range view.Gates {
		if gate.Gate == fleet.GateDisk {
			disk = gate
		}
	}
	if disk.State != fleet.Fail || disk.Measured != "3 GiB free" || disk.Required != "20 GiB free" || disk.Fix == "" || !disk.Closes || view.State != fleet.StateIdle {
		t.Errorf("%+v of a host that is %s", disk, view.State)
	}
	s.health(soundHealth(gpu(0, "GPU-0")))
	waitFor(b, "", failingGate, m.id)
	hot := soundHealth(gpu(0, "GPU-0"))
	hot.Gpus[0].ThrottleReasons = []string{"hw_thermal_slowdown"}
	s.health(hot)
	waitFor(b, fleet.Fail, `SELECT state FROM host_gates WHERE host_id = $1 AND gate = 'throttle'`, m.id)
	if got := query[string](b, failingGate, m.id); got != "" {
		t.Errorf("a hot GPU closes its host by gate %q", got)
	}
}

func TestGatesAreWrittenOnChangeOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, s := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	const version = `SELECT string_agg(xmin::text, ',' ORDER BY gate) FROM host_gates WHERE host_id = $1`
	before := query[string](b, version, m.id)
	for range 3 {
		warm := soundHealth(gpu(0, "GPU-0"))
		celsius := int32(70)
		warm.Gpus[0].TemperatureCelsius, warm.DiskFreeBytes = &celsius, warm.DiskFreeBytes+1<<20
		s.health(warm)
	}
	s.report(1) // shows that what is before it in the stream has been dealt with
	waitFor(b, int64(1), `SELECT applied_generation FROM hosts WHERE id = $1`, m.id)
	if after := query[string](b, version, m.id); after != before {
		t.Errorf("gates were written: %s, then %s", before, after)
	}
	// Another stream that says the same writes nothing either.
	again := m.connect()
	again.keepBeating()
	again.present(saneInventory(gpu(0, "GPU-0")))
	again.report(1)
	waitFor(b, true, `SELECT last_seen_at > now() - interval '1 second' FROM hosts WHERE id = $1`, m.id)
	if after := query[string](b, version, m.id); after != before {
		t.Errorf("gates were written again: %s, then %s", before, after)
	}
}

func TestAbsurdHealthEndsTheStream(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, s := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	absurd := soundHealth()
	for range 100 {
		absurd.Gpus = append(absurd.Gpus, &agentpb.GPUHealth{Uuid: "GPU-0"})
	}
	s.health(absurd)
	if err := s.end(); grpcstatus.Code(err) != codes.InvalidArgument {
		t.Errorf("the stream ended with %v", err)
	}
	b.waitForState(m.id, fleet.StateLost)
}

// TestHardwareFaultQuarantinesUntilARecheckIsClean drives a real agent through a fault and its repair.
func TestHardwareFaultQuarantinesUntilARecheckIsClean(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.worker()
	host := w.id()
	b.waitForState(host, fleet.StateIdle)
	cluster := b.cluster()
	node := b.node(cluster, host, "gpu", 0)
	b.waitForNode(node, "running")
	usage := b.usage(cluster, host, node)
	waitFor(b, true, `SELECT confirmed_at > started_at FROM usage WHERE id = $1`, usage)
	w.prober.fault("GPU-0", 79)
	b.waitForState(host, fleet.StateQuarantined)
	if got := query[string](b, `SELECT state_reason FROM hosts WHERE id = $1`, host); !strings.HasPrefix(got, "hardware fault: ") || !strings.Contains(got, "Xid 79") {
		t.Errorf("quarantined for %q", got)
	}
	// It still listens, and its time is not confirmed any more.
	confirmed := query[time.Time](b, `SELECT confirmed_at FROM usage WHERE id = $1`, usage)
	b.exec(`UPDATE usage SET ended_at = now() WHERE id = $1`, usage)
	b.exec(`UPDATE clusters SET state = 'draining', fault_party = 'owner' WHERE id = $1`, cluster)
	b.bump(host)
	b.waitForNode(node, "stopped")
	if after := query[time.Time](b, `SELECT confirmed_at FROM usage WHERE id = $1`, usage); after.Sub(confirmed) > time.Second {
		t.Errorf("a quarantined host billed from %s to %s", confirmed, after)
	}
	if err := b.registry.Recheck(t.Context(), b.org, host); err != nil {
		t.Fatal(err)
	}
	// The fault is still there: it comes back, and the reason with it.
	waitFor(b, true, `SELECT state = 'quarantined' AND state_reason LIKE '%Xid 79%' FROM hosts WHERE id = $1`, host)
	w.prober.repair()
	b.waitForState(host, fleet.StateQuarantined) // it does not end by itself
	if err := b.registry.Recheck(t.Context(), b.org, host); err != nil {
		t.Fatal(err)
	}
	b.waitForState(host, fleet.StateIdle)
	waitFor(b, "", failingGate, host)
	if err := b.registry.Recheck(t.Context(), b.org, host); err != nil {
		t.Errorf("rechecking a host that is well: %v", err)
	}
}

func TestOnlyHardwareIsRechecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	b.exec(`UPDATE hosts SET state = 'quarantined', state_reason = 'two machines use its identity' WHERE id = $1`, m.id)
	if err := b.registry.Recheck(t.Context(), b.org, m.id); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a quarantine for distrust: %v", err)
	}
	if err := b.registry.Recheck(t.Context(), b.newOrg(false), m.id); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("another owner's host: %v", err)
	}
	if err := b.registry.Retire(t.Context(), b.org, m.id); err != nil {
		t.Fatal(err)
	}
	if err := b.registry.Recheck(t.Context(), b.org, m.id); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a retired host: %v", err)
	}
}

func TestAgentsDatagramsComeBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.worker()
	waitFor(b, fleet.Pass, `SELECT coalesce((SELECT state FROM host_gates WHERE host_id = $1 AND gate = 'udp'), '')`, w.id())
}

func TestEchoAnswersOnlyItsOwnTokens(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := b.enrol(fleet.KindGPU)
	s := m.open(t.Context(), "machine")
	message, err := s.Recv()
	welcome := message.GetWelcome()
	if err != nil || welcome.GetUdpPort() == 0 || len(welcome.GetUdpToken()) == 0 {
		t.Fatalf("%v, %v", message, err)
	}
	host, _, err := net.SplitHostPort(b.gateway.Addr())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "udp", (&net.UDPAddr{IP: net.ParseIP(host), Port: int(welcome.GetUdpPort())}).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	datagram := append(bytes.Clone(welcome.GetUdpToken()), bytes.Repeat([]byte{7}, 1000)...)
	answer := make([]byte, 2000)
	testkit.Eventually(t, patience, func() (bool, string) {
		// Neither of the first two is answered, so the answer is the third's.
		for _, d := range [][]byte{bytes.Repeat([]byte{1}, 1200), welcome.GetUdpToken()[:20], datagram} {
			if _, err := conn.Write(d); err != nil {
				return false, err.Error()
			}
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return false, err.Error()
		}
		n, err := conn.Read(answer)
		return err == nil && bytes.Equal(answer[:n], datagram), "no answer, or another"
	})
}

func TestEchoIsBounded(t *testing.T) {
	t.Parallel()
	authority, err := fleet.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	echo, err := fleet.NewEcho(authority, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	token := echo.Token(ids.New[ids.Host]())
	admitted := func(datagram []byte) (n int) {
		for range 1000 {
			if echo.Admit(datagram) {
				n++
			}
		}
		return n
	}
	if n := admitted(token); n != 20 {
		t.Errorf("%d of 1000 datagrams of one host were answered at once", n)
	}
	if n := admitted(echo.Token(ids.New[ids.Host]())); n != 20 {
		t.Errorf("%d of another host were", n)
	}
	now = now.Add(11 * time.Second)
	if n := admitted(token); n != 20 {
		t.Errorf("%d were answered later", n)
	}
	now = now.Add(11 * time.Second)
	for i := range token {
		forged := bytes.Clone(token)
		forged[i] ^= 1
		if echo.Admit(forged) {
			t.Errorf("a token with byte %d changed is taken", i)
		}
	}
	other, err := fleet.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	strange, err := fleet.NewEcho(other, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if strange.Admit(token) {
		t.Error("a token of another control plane is taken")
	}
	now = now.Add(3 * time.Hour)
	if echo.Admit(token) {
		t.Error("an old token is taken")
	}
}
