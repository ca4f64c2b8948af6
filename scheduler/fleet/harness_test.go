package fleet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

const (
	patience  = time.Minute // costs nothing but where something is wrong
	heartbeat = 100 * time.Millisecond
	lostAfter = 5 * time.Second // what a test may take between two signs of life, unless it sets it itself
)

const rayVersion = "2.60.0" // of new clusters

var usdc = money.Currency{Symbol: "USDC", Decimals: 6}

func TestMain(m *testing.M) { testkit.Main(m) }

// bundle is a gateway over a database of its own.
type bundle struct {
	t         testing.TB
	pool      *pgxpool.Pool
	authority *fleet.Authority
	tokens    *fleet.Tokens
	registry  *fleet.Registry
	gateway   *fleet.Gateway
	org       ids.Org
}

type plainUnsealer struct{}

func (plainUnsealer) Unseal(sealed []byte) (string, error) { return string(sealed), nil }

func setup(t testing.TB, change ...func(*fleet.Options)) *bundle {
	t.Helper()
	b := &bundle{t: t, pool: testkit.DB(t)}
	var err error
	if b.authority, err = fleet.OpenAuthority(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	b.tokens, b.registry, b.org = fleet.NewTokens(b.pool, b.authority), fleet.NewRegistry(b.pool, usdc, rayVersion), b.newOrg(false)
	b.gateway, _ = b.startGateway(change...)
	return b
}

// startGateway runs a gateway and the notifications that it needs; stop ends both early.
func (b *bundle) startGateway(change ...func(*fleet.Options)) (gateway *fleet.Gateway, stop func()) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	hub := pgnotify.New(b.pool, slog.New(slog.DiscardHandler))
	options := fleet.Options{
		Pool: b.pool, Authority: b.authority, Unsealer: plainUnsealer{}, Notifications: hub, Address: "127.0.0.1:0",
		HeartbeatInterval: heartbeat, LostAfter: lostAfter, FlushInterval: 20 * time.Millisecond, PollInterval: 200 * time.Millisecond,
		IdleWriteInterval: time.Millisecond,
		Log:               slog.New(slog.NewTextHandler(testWriter{b.t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&options)
	}
	gateway, err := fleet.NewGateway(options)
	if err != nil {
		b.t.Fatal(err)
	}
	ready, done := make(chan struct{}, 2), make(chan error, 2)
	go func() { done <- hub.Run(ctx, func() { ready <- struct{}{} }) }()
	go func() { done <- gateway.Run(ctx, func() { ready <- struct{}{} }) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				b.t.Errorf("gateway: %v", err)
			}
		}
	}
	b.t.Cleanup(stop)
	for range 2 {
		select {
		case <-ready:
		case err := <-done:
			done <- err
			b.t.Fatalf("gateway did not start: %v", err)
		case <-time.After(patience):
			b.t.Fatal("gateway did not start")
		}
	}
	return gateway, stop
}

// testWriter is safe only while the test runs, which is as long as the gateway does.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}

func (b *bundle) newOrg(platform bool) ids.Org {
	b.t.Helper()
	org := ids.New[ids.Org]()
	b.exec(`INSERT INTO organisations (id, name, platform) VALUES ($1, 'Owner', $2)`, org, platform)
	return org
}

func (b *bundle) exec(sql string, args ...any) {
	b.t.Helper()
	if _, err := b.pool.Exec(context.Background(), sql, args...); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}

// query reads one value.
func query[T any](b *bundle, sql string, args ...any) T {
	b.t.Helper()
	var value T
	if err := b.pool.QueryRow(context.Background(), sql, args...).Scan(&value); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func (b *bundle) token(org ids.Org, kind string) string {
	b.t.Helper()
	_, text, err := b.tokens.Create(b.t.Context(), org, ids.User{}, kind, "eu-west", "hall-1")
	if err != nil {
		b.t.Fatal(err)
	}
	return text
}

// waitFor polls until a value of the database is as wanted.
func waitFor[T comparable](b *bundle, want T, sql string, args ...any) {
	b.t.Helper()
	testkit.Eventually(b.t, patience, func() (bool, string) {
		got := query[T](b, sql, args...)
		return got == want, slog.AnyValue(got).String()
	})
}

func (b *bundle) waitForState(host ids.Host, want string) {
	b.t.Helper()
	waitFor(b, want, `SELECT state FROM hosts WHERE id = $1`, host)
}

// machine is a host driven by hand: its key and what the control plane gave it.
type machine struct {
	b           *bundle
	key         *ecdsa.PrivateKey
	id          ids.Host
	certificate *tls.Certificate
	generation  int64
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func requestFor(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{SerialNumber: rand.Text()}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// enrol makes a host of the bundle's organisation.
func (b *bundle) enrol(kind string) *machine {
	b.t.Helper()
	org := b.org
	if kind == fleet.KindHead {
		org = b.newOrg(true)
	}
	m := &machine{b: b, key: newKey(b.t)}
	answer, err := agentpb.NewEnrolmentClient(b.dial(nil)).Enrol(b.t.Context(), &agentpb.EnrolRequest{
		JoinToken: b.token(org, kind), CertificateRequest: requestFor(b.t, m.key), MachineId: "machine", Hostname: "box",
	})
	if err != nil {
		b.t.Fatal(err)
	}
	m.take(answer.GetHostId(), answer.GetCertificate(), answer.GetGeneration())
	return m
}

func (m *machine) take(id string, certificate []byte, generation int64) {
	m.b.t.Helper()
	if err := m.id.UnmarshalText([]byte(id)); err != nil {
		m.b.t.Fatal(err)
	}
	m.certificate, m.generation = &tls.Certificate{Certificate: [][]byte{certificate}, PrivateKey: m.key}, generation
}

func (b *bundle) dial(certificate *tls.Certificate) *grpc.ClientConn {
	return b.dialAt(b.gateway.Addr(), certificate)
}

func (b *bundle) dialAt(address string, certificate *tls.Certificate) *grpc.ClientConn {
	b.t.Helper()
	config := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (m *machine) client() agentpb.AgentClient {
	return agentpb.NewAgentClient(m.b.dial(m.certificate))
}

// stream is a machine's connected stream.
type stream struct {
	grpc.BidiStreamingClient[agentpb.AgentMessage, agentpb.ControlMessage]
	t       testing.TB
	sending sync.Mutex
}

// Send may be called from several goroutines, unlike that of the stream beneath.
func (s *stream) Send(message *agentpb.AgentMessage) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.BidiStreamingClient.Send(message)
}

// connect opens a stream and greets.
func (m *machine) connect() *stream {
	m.b.t.Helper()
	s := m.open(m.b.t.Context(), "machine")
	message, err := s.Recv()
	if err != nil || message.GetWelcome().GetHostId() != m.id.String() {
		m.b.t.Fatalf("welcomed with %v, %v", message, err)
	}
	return s
}

func (m *machine) open(ctx context.Context, machineID string) *stream {
	m.b.t.Helper()
	client, err := m.client().Connect(ctx)
	if err != nil {
		m.b.t.Fatal(err)
	}
	s := &stream{BidiStreamingClient: client, t: m.b.t}
	s.send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Hello{Hello: &agentpb.Hello{
		ProtocolVersion: fleet.ProtocolVersion, MachineId: machineID, AgentVersion: "test",
	}}})
	return s
}

// send sends a message. On a stream that the gateway has ended meanwhile, Send says io.EOF, and receiving says why.
func (s *stream) send(message *agentpb.AgentMessage) {
	s.t.Helper()
	if err := s.Send(message); err != nil && !errors.Is(err, io.EOF) {
		s.t.Fatal(err)
	}
}

func (s *stream) beat() {
	s.t.Helper()
	s.send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Heartbeat{Heartbeat: &agentpb.Heartbeat{Sequence: 1}}})
}

func (s *stream) report(generation int64, nodes ...*agentpb.NodeStatus) {
	s.t.Helper()
	s.send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Report{Report: &agentpb.Report{AppliedGeneration: generation, Nodes: nodes}}})
}

func (s *stream) inventory(inventory *agentpb.Inventory) {
	s.t.Helper()
	s.send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Inventory{Inventory: inventory}})
}

// desired receives messages until a desired state comes that satisfies ok.
func (s *stream) desired(ok func(*agentpb.DesiredState) bool) *agentpb.DesiredState {
	s.t.Helper()
	for {
		message, err := s.Recv()
		if err != nil {
			s.t.Fatal(err)
		}
		if desired := message.GetDesired(); desired != nil && ok(desired) {
			return desired
		}
	}
}

// end receives until the stream ends and returns why.
func (s *stream) end() error {
	for {
		if _, err := s.Recv(); err != nil {
			return err
		}
	}
}

// keepBeating sends heartbeats until the test ends or the stream does.
func (s *stream) keepBeating() {
	done := make(chan struct{})
	stop := make(chan struct{})
	s.t.Cleanup(func() { close(stop); <-done })
	go func() {
		defer close(done)
		ticker := time.NewTicker(heartbeat)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				if s.Send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Heartbeat{Heartbeat: &agentpb.Heartbeat{Sequence: 1}}}) != nil {
					return
				}
			}
		}
	}()
}

func gpu(ordinal int32, uuid string) *agentpb.GPU {
	return &agentpb.GPU{Ordinal: ordinal, Uuid: uuid, Product: "NVIDIA H100 80GB HBM3", MemoryBytes: 80 << 30}
}

// saneInventory is what a well host reports.
func saneInventory(gpus ...*agentpb.GPU) *agentpb.Inventory {
	return &agentpb.Inventory{Cpus: 8, MemoryBytes: 64 << 30, RayVersions: []string{rayVersion}, Runtime: "process", Gpus: gpus}
}

// soundHealth is what a well host says of itself.
func soundHealth(gpus ...*agentpb.GPU) *agentpb.Health {
	health := &agentpb.Health{ClockUnixMs: time.Now().UnixMilli(), DiskFreeBytes: 100 << 30}
	for _, gpu := range gpus {
		health.Gpus = append(health.Gpus, &agentpb.GPUHealth{Uuid: gpu.GetUuid()})
	}
	return health
}

func (s *stream) health(health *agentpb.Health) {
	s.t.Helper()
	s.send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Health{Health: health}})
}

// present says all that a host has to say to be judged.
func (s *stream) present(inventory *agentpb.Inventory) {
	s.t.Helper()
	s.inventory(inventory)
	s.health(soundHealth(inventory.GetGpus()...))
}

// idle makes a machine with a stream that is idle and beats.
func (b *bundle) idle(kind string, gpus ...*agentpb.GPU) (*machine, *stream) {
	b.t.Helper()
	m := b.enrol(kind)
	s := m.connect()
	s.present(saneInventory(gpus...))
	s.keepBeating()
	b.waitForState(m.id, fleet.StateIdle)
	return m, s
}

// cluster makes a live cluster without nodes.
func (b *bundle) cluster() ids.Cluster {
	b.t.Helper()
	org, booking, cluster := b.newOrg(false), ids.New[ids.Booking](), ids.New[ids.Cluster]()
	b.exec(`INSERT INTO bookings (id, org_id, gpu_model, node_count, gpus_per_node, duration_ms, fee_bps, plan, hold_base_units, expires_at)
		VALUES ($1, $2, 'H100', 1, 1, 3600000, 0, '{}', 1, now() + interval '1 hour')`, booking, org)
	b.exec(`INSERT INTO clusters (id, org_id, booking_id, name, gpu_model, node_count, gpus_per_node, duration_ms, hold_base_units, fee_bps,
		ray_version, ray_token_sealed, places, forecast_end)
		VALUES ($1, $2, $3, 'c', 'H100', 1, 1, 3600000, 1, 0, '2.60.0', 'ray-secret', '{1}', now() + interval '1 hour')`, cluster, org, booking)
	return cluster
}

// node plans a node on a host and tells the gateway.
func (b *bundle) node(cluster ids.Cluster, host ids.Host, role string, slot int) ids.Node {
	b.t.Helper()
	node := ids.New[ids.Node]()
	b.exec(`INSERT INTO nodes (id, cluster_id, host_id, role, ordinal, slot, gpus, machine_id) VALUES ($1, $2, $3, $4, $5, $5, 0, 'm')`, node, cluster, host, role, slot)
	b.bump(host)
	return node
}

func (b *bundle) bump(host ids.Host) {
	b.t.Helper()
	b.exec(`UPDATE hosts SET desired_generation = desired_generation + 1 WHERE id = $1`, host)
	b.exec(`SELECT pg_notify('muster_host', id::text) FROM hosts WHERE id = $1`, host)
}

func status(node ids.Node, phase agentpb.NodePhase) *agentpb.NodeStatus {
	return &agentpb.NodeStatus{NodeId: node.String(), Phase: phase}
}

func (b *bundle) quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// runHub runs a hub until the test ends.
func (b *bundle) runHub(hub *pgnotify.Hub) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		_ = hub.Run(ctx, func() { ready <- struct{}{} })
	}()
	b.t.Cleanup(func() { cancel(); <-done })
	<-ready
}

func drainChannel[T any](c <-chan T) {
	for {
		select {
		case <-c:
		default:
			return
		}
	}
}
