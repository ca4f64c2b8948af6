// Package tunnel carries connections from the control plane to the ports of this host's nodes.
//
// The control plane asks for a tunnel on the agent's stream; the agent dials the node and opens a stream of its own, which the
// first frame names. Both directions copy until their end: a half close travels as one, an error ends both. Nothing is buffered
// beyond one frame and the stream's window, so a reader that stops holds its writer back.
package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
)

const (
	frameBytes     = 32 << 10
	dialTimeout    = 5 * time.Second
	maxErrorLength = 300
)

// Dialer opens connections to nodes; it refuses ports that are not the node's own.
type Dialer interface {
	DialNode(ctx context.Context, nodeID string, port int) (net.Conn, error)
}

// Stream is the agent's end of a tunnel's stream.
type Stream = grpc.BidiStreamingClient[agentpb.TunnelFrame, agentpb.TunnelFrame]

// Opener opens such a stream; agentpb.AgentClient is one.
type Opener interface {
	Tunnel(ctx context.Context, opts ...grpc.CallOption) (Stream, error)
}

// Serve answers one request for a tunnel and carries it until it ends or ctx does. A node that cannot be reached is told to the control
// plane and is not an error.
func Serve(ctx context.Context, opener Opener, dialer Dialer, open *agentpb.OpenTunnel) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, dialErr := dial(ctx, dialer, open)
	if conn != nil {
		defer conn.Close() //nolint:errcheck // the copies have said what went wrong
	}
	stream, err := opener.Tunnel(ctx)
	if err != nil {
		return err
	}
	first := &agentpb.TunnelFrame{TunnelId: open.GetTunnelId()}
	if dialErr != nil {
		first.Error = explain(dialErr)
	}
	if err = stream.Send(first); err != nil || dialErr != nil {
		return errors.Join(ignoreEOF(err), stream.CloseSend(), drain(stream))
	}
	// Ending the context closes the connection, which frees both copies.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	return carry(cancel, stream, conn)
}

func dial(ctx context.Context, dialer Dialer, open *agentpb.OpenTunnel) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return dialer.DialNode(ctx, open.GetNodeId(), int(open.GetPort()))
}

// carry copies both ways. It returns when both have ended.
func carry(cancel context.CancelFunc, stream Stream, conn net.Conn) error {
	var upload error
	var wait sync.WaitGroup
	wait.Go(func() { upload = fromNode(stream, conn) })
	download := toNode(stream, conn)
	cancel() // the control plane is gone, or the node: nothing more can be carried either way
	wait.Wait()
	if errors.Is(download, io.EOF) {
		download = nil
	}
	return errors.Join(download, upload)
}

// fromNode sends what the node writes, then a half close.
func fromNode(stream Stream, conn net.Conn) error {
	buffer := make([]byte, frameBytes)
	for {
		n, err := conn.Read(buffer)
		if n > 0 {
			data := append([]byte(nil), buffer[:n]...) // the stream may look at a frame after Send
			if sendErr := stream.Send(&agentpb.TunnelFrame{Data: data}); sendErr != nil {
				return ignoreEOF(sendErr)
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return ignoreEOF(stream.Send(&agentpb.TunnelFrame{CloseWrite: true}))
		case errors.Is(err, net.ErrClosed):
			return nil // closed by us, as the tunnel ended
		default:
			_ = stream.Send(&agentpb.TunnelFrame{Error: explain(err)})
			return stream.CloseSend()
		}
	}
}

// toNode writes what comes until the control plane closes the tunnel, which it reports as io.EOF. After a half close of the control
// plane it goes on, to learn of that; and when the node takes no more too, as what the node has said may still be on its way.
func toNode(stream Stream, conn net.Conn) error {
	refused := false
	for {
		frame, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(frame.GetData()) > 0 && !refused {
			_, err = conn.Write(frame.GetData())
			refused = err != nil
		}
		if frame.GetCloseWrite() {
			if half, ok := conn.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite() // a connection that is gone shows when it is read
			}
		}
	}
}

// drain waits for the control plane to take the stream's end.
func drain(stream Stream) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return ignoreEOF(err)
		}
	}
}

// ignoreEOF drops io.EOF, by which Send says only that the stream has ended.
func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// explain puts an error into words for the other end, without what is this host's business.
func explain(err error) string {
	var domain *errs.Error
	text := "the node refused the connection"
	switch {
	case errors.As(err, &domain):
		text = domain.Message
	case errors.Is(err, context.DeadlineExceeded):
		text = "the node did not answer in time"
	}
	return text[:min(len(text), maxErrorLength)]
}
