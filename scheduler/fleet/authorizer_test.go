package fleet_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/url"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/jointoken"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

// everyMethod is each RPC of the protocol, read from its descriptors.
func everyMethod() []protoreflect.MethodDescriptor {
	var methods []protoreflect.MethodDescriptor
	services := agentpb.File_internal_agentpb_agent_proto.Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			methods = append(methods, services.Get(i).Methods().Get(j))
		}
	}
	return methods
}

func fullName(method protoreflect.MethodDescriptor) string {
	return "/" + string(method.Parent().FullName()) + "/" + string(method.Name())
}

// call sends one message to a method and returns how the RPC ended, whatever its kind.
func call(ctx context.Context, conn *grpc.ClientConn, method protoreflect.MethodDescriptor, message any) error {
	description := &grpc.StreamDesc{ClientStreams: method.IsStreamingClient(), ServerStreams: method.IsStreamingServer()}
	stream, err := conn.NewStream(ctx, description, fullName(method))
	if err != nil {
		return err
	}
	if message == nil {
		message = dynamicpb.NewMessage(method.Input())
	}
	_ = stream.SendMsg(message) // RecvMsg says why, if it fails
	_ = stream.CloseSend()
	for {
		if err = stream.RecvMsg(dynamicpb.NewMessage(method.Output())); err != nil {
			return err
		}
	}
}

// TestNodeAuthorizerMatrix calls every RPC of the protocol as everyone who must not.
func TestNodeAuthorizerMatrix(t *testing.T) {
	t.Parallel()
	b := setup(t)
	retired, quarantined := b.enrol(fleet.KindGPU), b.enrol(fleet.KindGPU)
	if err := b.registry.Retire(t.Context(), b.org, retired.id); err != nil {
		t.Fatal(err)
	}
	b.exec(`UPDATE hosts SET state = 'quarantined', state_reason = 'test' WHERE id = $1`, quarantined.id)
	unknown := issueAs(t, b, ids.New[ids.Host](), nil)
	callers := map[string]*tls.Certificate{
		"no certificate":                nil,
		"certificate of another fleet":  issueByStranger(t, quarantined.id),
		"certificate it made itself":    selfSigned(t, quarantined.id),
		"retired host":                  retired.certificate,
		"quarantined host":              quarantined.certificate,
		"host that is not in the table": unknown,
		"another key in a host's name":  issueAs(t, b, quarantined.id, newKey(t)),
	}
	before := b.snapshot()
	for _, method := range everyMethod() {
		for name, certificate := range callers {
			if fullName(method) == agentpb.Enrolment_Enrol_FullMethodName {
				continue // open to everyone with a token: TestEnrolSaysWhatIsWrongWithAToken
			}
			err := call(t.Context(), b.dial(certificate), method, nil)
			switch code := grpcstatus.Code(err); code {
			case codes.PermissionDenied, codes.Unauthenticated:
			case codes.Unavailable: // the handshake was refused
				if name != "certificate of another fleet" && name != "certificate it made itself" {
					t.Errorf("%s as %s: %v", fullName(method), name, err)
				}
			default:
				t.Errorf("%s as %s: %v", fullName(method), name, err)
			}
		}
	}
	if after := b.snapshot(); after != before {
		t.Errorf("something has changed:\n%s\n%s", before, after)
	}
}

// snapshot is all that an agent could change.
func (b *bundle) snapshot() string {
	return query[string](b, `SELECT coalesce((SELECT string_agg(h::text, ',' ORDER BY id) FROM hosts h), '') ||
		coalesce((SELECT string_agg(n::text, ',' ORDER BY id) FROM nodes n), '') ||
		coalesce((SELECT string_agg(g::text, ',' ORDER BY id) FROM gpus g), '') ||
		coalesce((SELECT string_agg(r::text, ',') FROM ray_summaries r), '') ||
		coalesce((SELECT string_agg(i::text, ',') FROM host_inventories i), '')`)
}

// TestHostsTouchOnlyTheirOwnObjects has a well host name another's in every message that names any.
func TestHostsTouchOnlyTheirOwnObjects(t *testing.T) {
	t.Parallel()
	b := setup(t)
	victim, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-victim"))
	cluster := b.cluster()
	node := b.node(cluster, victim.id, "head", 0)
	b.exec(`UPDATE nodes SET state = 'starting' WHERE id = $1`, node)
	_, attacker := b.idle(fleet.KindHead)
	before := query[string](b, `SELECT n::text FROM nodes n`)
	failed := status(node, agentpb.NodePhase_NODE_PHASE_FAILED)
	failed.Ray = &agentpb.RaySummary{Nodes: []*agentpb.RayNode{{Address: "127.77.0.2", Alive: true}}}
	attacker.report(1<<40, failed)
	// The attacker's own row shows that the report was looked at.
	waitFor(b, 1, `SELECT count(*)::int FROM hosts WHERE kind = 'head' AND applied_generation = desired_generation`)
	if after := query[string](b, `SELECT n::text FROM nodes n`); after != before {
		t.Errorf("another host's report changed a node:\n%s\n%s", before, after)
	}
	if n := query[int](b, `SELECT count(*) FROM ray_summaries`); n != 0 {
		t.Errorf("another host's report made a summary")
	}
}

func TestUnknownMethodIsDenied(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := b.enrol(fleet.KindGPU)
	err := b.dial(m.certificate).Invoke(t.Context(), "/muster.agent.v1.Agent/Retire", &agentpb.RenewRequest{}, &agentpb.RenewResponse{})
	if code := grpcstatus.Code(err); code != codes.Unimplemented && code != codes.PermissionDenied {
		t.Fatalf("%v", err)
	}
}

// TestGrpcRawPath sends paths that differ from a method's name only in how they are written.
func TestGrpcRawPath(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{
		"muster.agent.v1.Agent/Renew", "//muster.agent.v1.Agent/Renew", "/muster.agent.v1.Agent//Renew", "/muster.agent.v1.Agent/Renew/",
		"/muster.agent.v1.Agent/Renew?", "/MUSTER.agent.v1.Agent/Renew", "/x/../muster.agent.v1.Agent/Renew", "/muster.agent.v1.Agent/Renew",
		"muster.agent.v1.Agent/Connect", "/", "*",
	} {
		if code := rawCall(t, b.gateway.Addr(), path); code == "0" || code == "" {
			t.Errorf("%q: grpc-status %q", path, code)
		}
	}
}

// rawCall sends a request by hand, without a certificate, and returns its grpc-status, or what else the server answered.
func rawCall(t *testing.T, address, path string) string {
	t.Helper()
	dialer := &tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"h2"}}}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err = conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err = conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err = framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":path", path}, {":authority", "gateway"}, {"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	if err = framer.WriteData(1, true, []byte{0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	return answerOf(t, framer)
}

func answerOf(t *testing.T, framer *http2.Framer) string {
	t.Helper()
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return "connection closed"
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, field := range frame.Fields {
				if field.Name == "grpc-status" {
					return field.Value
				}
			}
			if frame.StreamEnded() {
				return frame.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			return frame.ErrCode.String()
		case *http2.GoAwayFrame:
			return "connection closed"
		}
	}
}

func TestRevokeLive(t *testing.T) {
	t.Parallel()
	// Polling is out of the way: it is the notification that must do it in time.
	for name, change := range map[string]func(*fleet.Options){
		"by notification": func(o *fleet.Options) { o.PollInterval, o.LostAfter = time.Hour, time.Hour },
		"by polling":      func(o *fleet.Options) { o.Notifications, o.LostAfter = silent{}, time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, change)
			m := b.enrol(fleet.KindGPU)
			s := m.connect()
			if err := b.registry.Retire(t.Context(), b.org, m.id); err != nil {
				t.Fatal(err)
			}
			if err := s.end(); grpcstatus.Code(err) != codes.PermissionDenied {
				t.Errorf("the stream ended with %v", err)
			}
			if err := m.open(t.Context(), "machine").end(); grpcstatus.Code(err) != codes.PermissionDenied {
				t.Errorf("a retired host connects: %v", err)
			}
		})
	}
}

// silent is a source of notifications that all get lost.
type silent struct{}

func (silent) Subscribe(string) (<-chan string, func()) { return nil, func() {} }

// issueAs signs a certificate with the fleet's own authority, as only the control plane could.
func issueAs(t *testing.T, b *bundle, host ids.Host, key *ecdsa.PrivateKey) *tls.Certificate {
	t.Helper()
	if key == nil {
		key = newKey(t)
	}
	request, err := x509.ParseCertificateRequest(requestFor(t, key))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := fleet.IssueHost(b.authority, host, request, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}
}

func issueByStranger(t *testing.T, host ids.Host) *tls.Certificate {
	t.Helper()
	stranger, err := fleet.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return issueAs(t, &bundle{t: t, authority: stranger}, host, nil)
}

func selfSigned(t *testing.T, host ids.Host) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{jointoken.HostURI(host)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestEveryRPCHasARule(t *testing.T) {
	t.Parallel()
	methods := everyMethod()
	for _, method := range methods {
		if !fleet.HasRule(fullName(method)) {
			t.Errorf("the authorizer's table has no rule for %s", fullName(method))
		}
	}
	if fleet.RuleCount() != len(methods) {
		t.Errorf("the table has %d rules for %d methods", fleet.RuleCount(), len(methods))
	}
}
