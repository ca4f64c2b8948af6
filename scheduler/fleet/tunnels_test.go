package fleet_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

// connectedWorker is an agent whose tunnels lead to an address.
func (b *bundle) connectedWorker(target string) (*worker, ids.Host) {
	b.t.Helper()
	w := b.worker()
	w.runtime.target = target
	host := w.id()
	b.waitForState(host, fleet.StateIdle)
	return w, host
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// TestTunnelIsAConnection runs the standard library's conformance test of net.Conn through a gateway and an agent: deadlines,
// concurrency, and what happens at the end.
func TestTunnelIsAConnection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	listener := listen(t)
	_, host := b.connectedWorker(listener.Addr().String())
	var dialing sync.Mutex // so that each accepted connection is the one just dialled
	nettest.TestConn(t, func() (near, far net.Conn, stop func(), err error) {
		dialing.Lock()
		defer dialing.Unlock()
		if near, err = b.gateway.DialNode(context.Background(), host, ids.New[ids.Node](), 1); err != nil {
			return nil, nil, nil, err
		}
		if far, err = listener.Accept(); err != nil {
			return nil, nil, nil, err
		}
		return near, far, func() { _ = near.Close(); _ = far.Close() }, nil
	})
}

func TestTunnelHalfClose(t *testing.T) {
	t.Parallel()
	b := setup(t)
	listener := listen(t)
	_, host := b.connectedWorker(listener.Addr().String())
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		all, err := io.ReadAll(conn) // ends with the other side's half close
		if err == nil {
			_, _ = conn.Write(bytes.ToUpper(all))
		}
	}()
	conn, err := b.gateway.DialNode(t.Context(), host, ids.New[ids.Node](), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	const size = 100_000
	if _, err = conn.Write(bytes.Repeat([]byte("x"), size)); err != nil {
		t.Fatal(err)
	}
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		t.Fatal("the connection has no half close")
	}
	if err = half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err = conn.Write([]byte("y")); err == nil {
		t.Error("written after the half close")
	}
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, bytes.Repeat([]byte("X"), size)) {
		t.Fatalf("%d bytes came back, %v", len(got), err)
	}
}

func TestTunnelCarriesHTTPUploads(t *testing.T) {
	t.Parallel()
	const size = 100 << 20
	b := setup(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hash := sha256.New()
		n, err := io.Copy(hash, r.Body)
		_, _ = fmt.Fprintf(w, "%d %x %v", n, hash.Sum(nil), err)
	}))
	t.Cleanup(server.Close)
	_, host := b.connectedWorker(server.Listener.Addr().String())
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return b.gateway.DialNode(ctx, host, ids.New[ids.Node](), 8265)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	hash := sha256.New()
	body := io.TeeReader(io.LimitReader(rand.Reader, size), hash)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://node/upload", body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if want := fmt.Sprintf("%d %x <nil>", size, hash.Sum(nil)); err != nil || string(answer) != want {
		t.Errorf("answered %s, %v; want %s", answer, err, want)
	}
}

func TestTunnelHoldsTheWriterBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	listener := listen(t)
	_, host := b.connectedWorker(listener.Addr().String())
	conn, err := b.gateway.DialNode(t.Context(), host, ids.New[ids.Node](), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err = conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	// Nobody reads at the other end: what the windows and the kernel hold is all that can be written.
	written, err := io.Copy(conn, io.LimitReader(zeros{}, 1<<30))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() || written > 64<<20 {
		t.Errorf("%d bytes written, %v", written, err)
	}
	// The host's stream is not held up by it.
	waitFor(b, true, `SELECT connected AND last_seen_at > now() - interval '1 second' FROM hosts WHERE id = $1`, host)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestTunnelErrors(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w, host := b.connectedWorker("")
	_, err := b.gateway.DialNode(t.Context(), host, ids.New[ids.Node](), 1)
	if errs.CodeOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "no such port") {
		t.Errorf("refused by the runtime: %v", err)
	}
	if _, err = b.gateway.DialNode(t.Context(), ids.New[ids.Host](), ids.New[ids.Node](), 1); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("unknown host: %v", err)
	}
	w.stop()
	testkit.Eventually(t, patience, func() (bool, string) {
		_, err := b.gateway.DialNode(t.Context(), host, ids.New[ids.Node](), 1)
		return errs.CodeOf(err) == errs.Unavailable && strings.Contains(err.Error(), "not connected"), fmt.Sprint(err)
	})
}

func TestTunnelsOfAHostAreLimited(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	_, host := b.connectedWorker(server.Listener.Addr().String())
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			_ = conn.Close()
		}
	}()
	for {
		conn, err := b.gateway.DialNode(t.Context(), host, ids.New[ids.Node](), 1)
		if err != nil {
			if errs.CodeOf(err) != errs.RateLimited {
				t.Errorf("%d open: %v", len(open), err)
			}
			break
		}
		if open = append(open, conn); len(open) > 1000 {
			t.Fatal("there is no limit")
		}
	}
	// A place becomes free with each that closes.
	_ = open[0].Close()
	testkit.Eventually(t, patience, func() (bool, string) {
		conn, err := b.gateway.DialNode(t.Context(), host, ids.New[ids.Node](), 1)
		if err == nil {
			open = append(open, conn)
		}
		return err == nil, fmt.Sprint(err)
	})
}

// TestTunnelIsForItsHostOnce has others claim the id of a tunnel that a host is asked for.
func TestTunnelIsForItsHostOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, s := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	thief, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-1"))
	type result struct {
		conn net.Conn
		err  error
	}
	dialled := make(chan result, 1)
	go func() {
		conn, err := b.gateway.DialNode(context.Background(), m.id, ids.New[ids.Node](), 1)
		dialled <- result{conn, err}
	}()
	var id string
	for id == "" {
		message, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		id = message.GetOpenTunnel().GetTunnelId()
	}
	claim := func(m *machine) agentpb.Agent_TunnelClient {
		tunnel, err := m.client().Tunnel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err = tunnel.Send(&agentpb.TunnelFrame{TunnelId: id}); err != nil {
			t.Fatal(err)
		}
		if err = tunnel.Send(&agentpb.TunnelFrame{Data: []byte("hello")}); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		return tunnel
	}
	stolen := claim(thief)
	if _, err := stolen.Recv(); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Errorf("another host claimed the tunnel: %v", err)
	}
	claim(m)
	got := <-dialled
	if got.err != nil {
		t.Fatal(got.err)
	}
	defer func() { _ = got.conn.Close() }()
	buffer := make([]byte, 5)
	if _, err := io.ReadFull(got.conn, buffer); err != nil || string(buffer) != "hello" {
		t.Errorf("%q, %v", buffer, err)
	}
	again := claim(m)
	if _, err := again.Recv(); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Errorf("the id was good twice: %v", err)
	}
}

func TestRevokedHostLosesItsTunnels(t *testing.T) {
	t.Parallel()
	b := setup(t)
	listener := listen(t)
	_, host := b.connectedWorker(listener.Addr().String())
	conn, err := b.gateway.DialNode(t.Context(), host, ids.New[ids.Node](), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err = b.registry.Retire(t.Context(), b.org, host); err != nil {
		t.Fatal(err)
	}
	if err = conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err = conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the tunnel ended with %v", err)
	}
}

// TestClosedTunnelSaysSo lets the stream end, as it does when its connection is closed, before the reader has come to hear of either.
func TestClosedTunnelSaysSo(t *testing.T) {
	t.Parallel()
	for range 200 {
		conn, streamEnded := fleet.NewTunnelEnd(ids.New[ids.Host]())
		read := make(chan error, 1)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			read <- err
		}()
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		streamEnded(io.ErrUnexpectedEOF)
		if err := <-read; !errors.Is(err, net.ErrClosed) {
			t.Fatalf("the reader of a closed tunnel hears %v", err)
		}
	}
}

// BenchmarkTunnel carries bulk data one way: control plane to node, through TLS twice over loopback in one process.
func BenchmarkTunnel(b *testing.B) {
	const size = 64 << 20
	bundle := setup(b)
	listener := listen(b)
	_, host := bundle.connectedWorker(listener.Addr().String())
	conn, err := bundle.gateway.DialNode(b.Context(), host, ids.New[ids.Node](), 1)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	far, err := listener.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	for _, direction := range []struct {
		name     string
		from, to net.Conn
	}{{"to_host", conn, far}, {"from_host", far, conn}} {
		b.Run(direction.name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				sent := make(chan error, 1)
				go func() {
					_, err := io.CopyN(direction.from, zeros{}, size)
					sent <- err
				}()
				if _, err := io.CopyN(io.Discard, direction.to, size); err != nil {
					b.Fatal(err)
				}
				if err := <-sent; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
