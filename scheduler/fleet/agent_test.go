package fleet_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/fleet"
	"github.com/muster-gpu/muster/worker/agent"
)

// recorder is a runtime that starts nothing: it takes what is desired for what runs, and dials where the test says.
type recorder struct {
	changed chan struct{}

	mu      sync.Mutex
	desired []*agentpb.NodeSpec
	failed  map[string]string
	target  string // address that DialNode connects to
}

func newRecorder() *recorder {
	return &recorder{changed: make(chan struct{}, 1), failed: map[string]string{}}
}

func (r *recorder) Apply(desired []*agentpb.NodeSpec) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.desired = desired
}

func (r *recorder) Run(ctx context.Context, ready func()) error {
	ready()
	<-ctx.Done()
	return nil
}

func (r *recorder) Changed() <-chan struct{} { return r.changed }

func (r *recorder) Status() []*agentpb.NodeStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	var nodes []*agentpb.NodeStatus
	for _, spec := range r.desired {
		status := &agentpb.NodeStatus{NodeId: spec.GetNodeId(), Phase: agentpb.NodePhase_NODE_PHASE_RUNNING}
		if message, failed := r.failed[spec.GetNodeId()]; failed {
			status.Phase, status.Message = agentpb.NodePhase_NODE_PHASE_FAILED, message
		} else if spec.GetStop() {
			status.Phase = agentpb.NodePhase_NODE_PHASE_STOPPED
		}
		nodes = append(nodes, status)
	}
	return nodes
}

func (r *recorder) fail(node ids.Node, message string) {
	r.mu.Lock()
	r.failed[node.String()] = message
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *recorder) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for _, spec := range r.desired {
		names = append(names, spec.GetNodeId())
	}
	return names
}

func (r *recorder) DialNode(ctx context.Context, _ string, _ int) (net.Conn, error) {
	r.mu.Lock()
	target := r.target
	r.mu.Unlock()
	if target == "" {
		return nil, errs.New(errs.NotFound, "the node has no such port")
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", target)
}

// fixedProber reports what the test says.
type fixedProber struct {
	mu        sync.Mutex
	inventory *agentpb.Inventory
	xids      map[string][]int32
}

func (p *fixedProber) Inventory(context.Context) *agentpb.Inventory {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inventory
}

func (p *fixedProber) Health() *agentpb.Health {
	p.mu.Lock()
	defer p.mu.Unlock()
	health := soundHealth(p.inventory.GetGpus()...)
	for uuid, xids := range p.xids {
		health.Gpus = append(health.Gpus, &agentpb.GPUHealth{Uuid: uuid, Xids: xids})
	}
	return health
}

func (p *fixedProber) Watch(ctx context.Context) { <-ctx.Done() }

// fault gives a GPU a hardware error.
func (p *fixedProber) fault(uuid string, xid int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.xids = map[string][]int32{uuid: {xid}}
}

// repair takes all faults back.
func (p *fixedProber) repair() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.xids = nil
}

func (p *fixedProber) set(inventory *agentpb.Inventory) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inventory = inventory
}

// worker is a real agent in this process.
type worker struct {
	b       *bundle
	dir     string
	runtime *recorder
	prober  *fixedProber
	now     func() time.Time
	stop    func()
}

// worker enrols an agent, with one GPU, in a fresh directory and starts it.
func (b *bundle) worker() *worker {
	b.t.Helper()
	w := &worker{b: b, dir: b.t.TempDir(), runtime: newRecorder(), prober: &fixedProber{inventory: saneInventory(gpu(0, "GPU-0"))}, now: time.Now}
	w.enrol(b.token(b.org, fleet.KindGPU))
	w.start()
	return w
}

func (w *worker) enrol(token string) agent.Identity {
	w.b.t.Helper()
	state, err := agent.OpenState(w.dir)
	if err != nil {
		w.b.t.Fatal(err)
	}
	defer func() { _ = state.Close() }()
	identity, err := agent.Enrol(w.b.t.Context(), state, w.b.gateway.Addr(), token, agent.Self{Version: "test"})
	if err != nil {
		w.b.t.Fatal(err)
	}
	return identity
}

func (w *worker) start() {
	w.b.t.Helper()
	state, err := agent.OpenState(w.dir)
	if err != nil {
		w.b.t.Fatal(err)
	}
	running, err := agent.New(agent.Options{
		State: state, Runtime: w.runtime, Prober: w.prober, Self: agent.Self{Version: "test"}, InventoryInterval: 50 * time.Millisecond, Now: w.now,
	})
	if err != nil {
		w.b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- running.Run(ctx, func() {}) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.b.t.Errorf("agent: %v", err)
			}
			if err := state.Close(); err != nil {
				w.b.t.Error(err)
			}
		})
	}
	w.b.t.Cleanup(w.stop)
}

func (w *worker) id() ids.Host {
	w.b.t.Helper()
	status, err := agent.ReadStatus(w.dir)
	if err != nil {
		w.b.t.Fatal(err)
	}
	var host ids.Host
	if err = host.UnmarshalText([]byte(status.HostID)); err != nil {
		w.b.t.Fatal(err)
	}
	return host
}

func TestAgentFollowsTheDesiredState(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.worker()
	host := w.id()
	b.waitForState(host, fleet.StateIdle)
	node := b.node(b.cluster(), host, "gpu", 0)
	b.waitForNode(node, "running")
	w.prober.set(saneInventory(&agentpb.GPU{Ordinal: 0, Uuid: "GPU-0", Fault: "GPU is lost"}))
	waitFor(b, "GPU is lost", `SELECT health_note FROM gpus WHERE host_id = $1`, host)
	w.runtime.fail(node, "raylet died")
	b.waitForNode(node, "failed")
	testkit.Eventually(t, patience, func() (bool, string) { return len(w.runtime.names()) == 0, "the failed node is still desired" })
	info, err := os.Stat(filepath.Join(w.dir, "identity.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the identity has mode %v, %v", info.Mode(), err)
	}
	status, err := agent.ReadStatus(w.dir)
	if err != nil || !status.Connected || !status.Running || status.Generation != 1 {
		t.Errorf("status %+v, %v", status, err)
	}
}

func TestControlPlaneRestartIsHarmless(t *testing.T) {
	t.Parallel()
	b := &bundle{t: t, pool: testkit.DB(t)}
	var err error
	if b.authority, err = fleet.OpenAuthority(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	b.tokens, b.registry, b.org = fleet.NewTokens(b.pool, b.authority), fleet.NewRegistry(b.pool, usdc, rayVersion), b.newOrg(false)
	var stop func()
	b.gateway, stop = b.startGateway()
	address := b.gateway.Addr()
	w := b.worker()
	b.waitForState(w.id(), fleet.StateIdle)
	first := b.node(b.cluster(), w.id(), "gpu", 0)
	b.waitForNode(first, "running")
	usage := b.usage(query[ids.Cluster](b, `SELECT cluster_id FROM nodes`), w.id(), first)
	stop()
	second := b.node(b.cluster(), w.id(), "gpu", 1)                                         // planned while no gateway runs
	b.exec(`UPDATE hosts SET state = 'leased', last_seen_at = now() - interval '1 minute'`) // for a long time
	b.gateway, _ = b.startGateway(func(o *fleet.Options) { o.Address = address })
	b.waitForNode(second, "running")
	b.waitForNode(first, "running")
	if got := query[string](b, `SELECT state FROM hosts`); got != fleet.StateLeased {
		t.Errorf("the host became %s", got)
	}
	// The node ran all the while, so that the time is confirmed.
	waitFor(b, true, `SELECT confirmed_at > started_at FROM usage WHERE id = $1`, usage)
	if names := w.runtime.names(); !slices.Contains(names, first.String()) {
		t.Errorf("the agent was told to run %v", names)
	}
}

func TestRestartAfterTokenExpiry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := &worker{b: b, dir: t.TempDir(), runtime: newRecorder(), prober: &fixedProber{inventory: saneInventory(gpu(0, "GPU-0"))}, now: time.Now}
	token := b.token(b.org, fleet.KindGPU)
	before := w.enrol(token)
	w.start()
	b.waitForState(w.id(), fleet.StateIdle)
	w.stop()
	b.exec(`UPDATE join_tokens SET expires_at = now() - interval '1 day'`)
	// The same command line as the first time, token and all.
	if after := w.enrol(token); after.HostID != before.HostID || !bytes.Equal(after.Certificate, before.Certificate) {
		t.Errorf("enrolled as %s, then as %s", before.HostID, after.HostID)
	}
	w.start()
	waitFor(b, true, `SELECT connected AND last_seen_at > now() - interval '1 second' FROM hosts WHERE id = $1`, w.id())
	if hosts := query[int](b, `SELECT count(*) FROM hosts`); hosts != 1 {
		t.Errorf("%d hosts", hosts)
	}
}

func TestAgentRenewsInTime(t *testing.T) {
	t.Parallel()
	clock := &movedClock{}
	b := setup(t, func(o *fleet.Options) { o.Now = clock.now })
	w := &worker{b: b, dir: t.TempDir(), runtime: newRecorder(), prober: &fixedProber{inventory: saneInventory(gpu(0, "GPU-0"))}, now: clock.now}
	w.enrol(b.token(b.org, fleet.KindGPU))
	const generation = `SELECT certificate_generation FROM hosts`
	for i, ahead := range []time.Duration{3 * time.Hour, 48 * time.Hour} { // past half its life, and long expired
		clock.ahead.Store(int64(ahead))
		w.start()
		waitFor(b, int64(2+i), generation)
		waitFor(b, true, `SELECT last_seen_at > now() - interval '1 second' AND connected FROM hosts`)
		w.stop()
		if renewed := query[int64](b, generation); renewed != int64(2+i) {
			t.Errorf("one certificate that was due was renewed more than once: generation %d", renewed)
		}
	}
}

func TestAgentTrustsThePinnedAuthorityOnly(t *testing.T) {
	t.Parallel()
	b, other := setup(t), setup(t)
	state, err := agent.OpenState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = state.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	// The token is one control plane's, the address another's.
	if _, err = agent.Enrol(ctx, state, other.gateway.Addr(), b.token(b.org, fleet.KindGPU), agent.Self{Version: "test"}); err == nil {
		t.Fatal("the token was shown to a stranger")
	}
	if hosts := query[int](other, `SELECT count(*) FROM hosts`); hosts != 0 {
		t.Errorf("%d hosts", hosts)
	}
}

func TestStateDirectoryHasOneAgent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	state, err := agent.OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = agent.OpenState(dir); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a second agent opened it: %v", err)
	}
	if err = state.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := agent.OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = agent.New(agent.Options{State: again}); errs.CodeOf(err) != errs.Unauthenticated {
		t.Errorf("an agent without identity began: %v", err)
	}
	if err = again.Close(); err != nil {
		t.Error(err)
	}
}

// workerThrough starts an agent that reaches the gateway by a relay.
func (b *bundle) workerThrough(relay *relay) *worker {
	b.t.Helper()
	w := &worker{b: b, dir: b.t.TempDir(), runtime: newRecorder(), prober: &fixedProber{inventory: saneInventory(gpu(0, "GPU-0"))}, now: time.Now}
	state, err := agent.OpenState(w.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err = agent.Enrol(b.t.Context(), state, relay.address(), b.token(b.org, fleet.KindGPU), agent.Self{Version: "test"}); err != nil {
		b.t.Fatal(err)
	}
	if err = state.Close(); err != nil {
		b.t.Fatal(err)
	}
	w.start()
	return w
}

// TestFlappingAgent cuts the agent's connections again and again; the node that runs is never disturbed.
func TestFlappingAgent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	relay := newRelay(t, b.gateway.Addr())
	w := b.workerThrough(relay)
	host := w.id()
	b.waitForState(host, fleet.StateIdle)
	node := b.node(b.cluster(), host, "gpu", 0)
	b.waitForNode(node, "running")
	for range 4 {
		before := relay.accepted()
		relay.cut()
		testkit.Eventually(t, patience, func() (bool, string) { return relay.accepted() > before, "the agent does not return" })
	}
	waitFor(b, true, `SELECT connected AND last_seen_at > now() - interval '1 second' FROM hosts WHERE id = $1`, host)
	if got := query[string](b, `SELECT h.state || ' ' || n.state FROM hosts h, nodes n`); got == "quarantined running" || got[len(got)-7:] != "running" {
		t.Errorf("after the flapping: %s", got)
	}
}

// relay forwards connections and can cut them all.
type relay struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	conns []net.Conn
	count int
	held  bool // nothing gets through
	wait  sync.WaitGroup
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: listener, target: target}
	r.wait.Go(r.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		r.cut()
		r.wait.Wait()
	})
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

func (r *relay) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		onward, err := net.Dial("tcp", r.target)
		if err != nil {
			_ = conn.Close()
			continue
		}
		r.mu.Lock()
		if r.held {
			r.mu.Unlock()
			_, _ = conn.Close(), onward.Close()
			continue
		}
		r.conns = append(r.conns, conn, onward)
		r.count++
		r.mu.Unlock()
		r.wait.Go(func() { copyUntilClosed(onward, conn) })
		r.wait.Go(func() { copyUntilClosed(conn, onward) })
	}
}

func copyUntilClosed(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, writeErr := to.Write(buffer[:n]); writeErr != nil {
				err = errors.Join(err, writeErr)
			}
		}
		if err != nil {
			_ = to.Close()
			_ = from.Close()
			return
		}
	}
}

// hold cuts all connections and lets none through until release.
func (r *relay) hold() {
	r.mu.Lock()
	r.held = true
	r.mu.Unlock()
	r.cut()
}

func (r *relay) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = false
}

func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.conns {
		_ = conn.Close()
	}
	r.conns = nil
}
