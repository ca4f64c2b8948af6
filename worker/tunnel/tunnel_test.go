package tunnel_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/worker/tunnel"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// end is the control plane's end of a tunnel, in memory.
type end struct {
	grpc.ClientStream
	ctx  context.Context // a stream's
	up   chan *agentpb.TunnelFrame
	down chan *agentpb.TunnelFrame
}

func newEnd() *end {
	return &end{up: make(chan *agentpb.TunnelFrame, 16), down: make(chan *agentpb.TunnelFrame, 16)}
}

func (e *end) Tunnel(ctx context.Context, _ ...grpc.CallOption) (tunnel.Stream, error) {
	e.ctx = ctx
	return e, nil
}

func (e *end) Send(frame *agentpb.TunnelFrame) error {
	select {
	case e.up <- frame:
		return nil
	case <-e.ctx.Done():
		return e.ctx.Err()
	}
}

func (e *end) Recv() (*agentpb.TunnelFrame, error) {
	select {
	case frame, open := <-e.down:
		if !open {
			return nil, io.EOF
		}
		return frame, nil
	case <-e.ctx.Done():
		return nil, e.ctx.Err()
	}
}

func (e *end) CloseSend() error { return nil }

type dialer func() (net.Conn, error)

func (d dialer) DialNode(context.Context, string, int) (net.Conn, error) { return d() }

// tcpPair is two ends of a TCP connection.
func tcpPair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	if near, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	return near, far
}

func TestServeCopiesBothWaysAndPassesHalfCloses(t *testing.T) {
	t.Parallel()
	near, node := tcpPair(t)
	control := newEnd()
	done := make(chan error, 1)
	go func() {
		done <- tunnel.Serve(t.Context(), control, dialer(func() (net.Conn, error) { return near, nil }), &agentpb.OpenTunnel{TunnelId: "t"})
	}()
	if first := <-control.up; first.GetTunnelId() != "t" || first.GetError() != "" {
		t.Fatalf("first frame %v", first)
	}
	control.down <- &agentpb.TunnelFrame{Data: []byte("question")}
	control.down <- &agentpb.TunnelFrame{CloseWrite: true}
	if got, err := io.ReadAll(node); err != nil || string(got) != "question" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := node.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if frame := <-control.up; string(frame.GetData()) != "answer" {
		t.Fatalf("%v", frame)
	}
	_ = node.Close()
	if frame := <-control.up; !frame.GetCloseWrite() {
		t.Fatalf("%v", frame)
	}
	close(control.down)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestServeTellsWhyANodeCannotBeReached(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"not its port":           errs.New(errs.Forbidden, "not its port"),
		"the node refused":       errors.New("dial tcp 10.0.0.7:22: connection refused"),
		strings.Repeat("x", 300): errs.New(errs.Invalid, "%s", strings.Repeat("x", 1000)),
	} {
		control := newEnd()
		close(control.down)
		if err := tunnel.Serve(t.Context(), control, dialer(func() (net.Conn, error) { return nil, err }), &agentpb.OpenTunnel{TunnelId: "t"}); err != nil {
			t.Error(err)
		}
		if first := <-control.up; first.GetTunnelId() != "t" || !strings.HasPrefix(first.GetError(), want) || strings.Contains(first.GetError(), "10.0.0.7") {
			t.Errorf("first frame %v", first)
		}
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	near, _ := tcpPair(t)
	control := newEnd()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- tunnel.Serve(ctx, control, dialer(func() (net.Conn, error) { return near, nil }), &agentpb.OpenTunnel{TunnelId: "t"})
	}()
	<-control.up
	cancel()
	<-done
	if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection is still open: %v", err)
	}
}
