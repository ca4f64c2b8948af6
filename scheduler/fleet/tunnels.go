package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	maxTunnelsPerHost = 256
	openTimeout       = 10 * time.Second // for the agent to dial the node and come back
	maxFrameBytes     = 32 << 10
	maxTunnelID       = 64
)

type tunnelStream = grpc.BidiStreamingServer[agentpb.TunnelFrame, agentpb.TunnelFrame]

// tunnels are the connections to hosts that this gateway waits for or carries.
type tunnels struct {
	metrics *metrics
	mu      sync.Mutex
	waiting map[string]*dial
	open    map[ids.Host]map[*tunnelConn]struct{}
	held    map[ids.Host]int // waiting and open
}

// dial is one that waits for its host. Whoever takes it out of the waiting ones answers it, once.
type dial struct {
	host   ids.Host
	answer chan dialAnswer // capacity 1
}

type dialAnswer struct {
	conn *tunnelConn
	err  error
}

func newTunnels(metrics *metrics) *tunnels {
	return &tunnels{
		metrics: metrics, waiting: map[string]*dial{}, open: map[ids.Host]map[*tunnelConn]struct{}{}, held: map[ids.Host]int{},
	}
}

// DialNode connects to a port of a node through its host's agent, which refuses ports that are not the node's own. The connection
// has deadlines and half close (CloseWrite), and holds its writer back when the other end does not read. Errors: Unavailable if
// the host is not connected here or does not answer in time, RateLimited at the limit of tunnels, and what the agent says.
func (g *Gateway) DialNode(ctx context.Context, hostID ids.Host, nodeID ids.Node, port int) (net.Conn, error) {
	conn, err := g.dialNode(ctx, hostID, nodeID, port)
	g.metrics.tunnelDials.WithLabelValues(outcome(err)).Inc()
	if err != nil {
		return nil, err
	}
	return conn, nil
}

func (g *Gateway) dialNode(ctx context.Context, host ids.Host, node ids.Node, port int) (*tunnelConn, error) {
	s := g.session(host)
	if s == nil {
		return nil, errs.New(errs.Unavailable, "the machine that runs this node is not connected at the moment")
	}
	id, wait, err := g.tunnels.expect(host)
	if err != nil {
		return nil, err
	}
	open := &agentpb.OpenTunnel{TunnelId: id, NodeId: node.String(), Port: int32(port)}
	timer := time.NewTimer(openTimeout)
	defer timer.Stop()
	select {
	case s.opens <- open:
	case <-s.ctx.Done():
		return g.tunnels.giveUp(id, wait, errs.New(errs.Unavailable, "the machine that runs this node has just disconnected"))
	case <-timer.C:
		return g.tunnels.giveUp(id, wait, errs.New(errs.Unavailable, "the machine that runs this node does not take connections at the moment"))
	case <-ctx.Done():
		return g.tunnels.giveUp(id, wait, ctx.Err())
	}
	select {
	case answer := <-wait.answer:
		return answer.conn, answer.err
	case <-timer.C:
		return g.tunnels.giveUp(id, wait, errs.New(errs.Unavailable, "the machine that runs this node did not open a connection within %s", openTimeout))
	case <-ctx.Done():
		return g.tunnels.giveUp(id, wait, ctx.Err())
	}
}

// expect reserves a place for a tunnel and an id to know it by, which cannot be guessed and is good once.
func (t *tunnels) expect(host ids.Host) (string, *dial, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held[host] >= maxTunnelsPerHost {
		return "", nil, errs.New(errs.RateLimited, "this machine carries %d connections already: close some of them", maxTunnelsPerHost)
	}
	t.held[host]++
	id, wait := rand.Text(), &dial{host: host, answer: make(chan dialAnswer, 1)}
	t.waiting[id] = wait
	return id, wait, nil
}

// giveUp ends a dial. If the tunnel has come in the same moment it is closed.
func (t *tunnels) giveUp(id string, wait *dial, err error) (*tunnelConn, error) {
	t.mu.Lock()
	_, waits := t.waiting[id]
	delete(t.waiting, id)
	if waits {
		t.releasePlace(wait.host)
	}
	t.mu.Unlock()
	if !waits {
		if answer := <-wait.answer; answer.conn != nil {
			_ = answer.conn.Close()
		}
	}
	return nil, err
}

// claim gives the dial of an id to the host that it waits for, once. Another host's attempt leaves it waiting.
func (t *tunnels) claim(id string, host ids.Host) (*dial, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	wait := t.waiting[id]
	if wait == nil || wait.host != host || len(id) > maxTunnelID {
		return nil, errs.New(errs.Forbidden, "no tunnel of that id is expected from this host")
	}
	delete(t.waiting, id)
	return wait, nil
}

// releasePlace is called with t.mu held.
func (t *tunnels) releasePlace(host ids.Host) {
	if t.held[host]--; t.held[host] <= 0 {
		delete(t.held, host)
	}
}

func (t *tunnels) add(host ids.Host, conn *tunnelConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[host] == nil {
		t.open[host] = map[*tunnelConn]struct{}{}
	}
	t.open[host][conn] = struct{}{}
	t.metrics.tunnels.Inc()
}

func (t *tunnels) remove(host ids.Host, conn *tunnelConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if delete(t.open[host], conn); len(t.open[host]) == 0 {
		delete(t.open, host)
	}
	t.releasePlace(host)
	t.metrics.tunnels.Dec()
}

// dropHost closes a host's tunnels: it has lost its standing or its stream.
func (t *tunnels) dropHost(host ids.Host) {
	t.mu.Lock()
	conns := make([]*tunnelConn, 0, len(t.open[host]))
	for conn := range t.open[host] {
		conns = append(conns, conn)
	}
	t.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
	}
}

// Tunnel carries one connection for as long as both ends want it.
func (g *Gateway) Tunnel(stream tunnelStream) error {
	host := callerFrom(stream.Context())
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	wait, err := g.tunnels.claim(first.GetTunnelId(), host)
	if err != nil {
		return err
	}
	if reason := first.GetError(); reason != "" {
		g.tunnels.mu.Lock()
		g.tunnels.releasePlace(host)
		g.tunnels.mu.Unlock()
		wait.answer <- dialAnswer{err: errs.New(errs.Unavailable, "the node cannot be reached: %s", clip(reason, maxHealthNote))}
		return nil
	}
	conn := newTunnelConn(host, g.metrics)
	g.tunnels.add(host, conn)
	defer g.tunnels.remove(host, conn)
	wait.answer <- dialAnswer{conn: conn}
	return conn.carry(stream)
}

// carry moves frames between the connection and its stream until the connection is closed or the stream ends.
func (c *tunnelConn) carry(stream tunnelStream) error {
	received := make(chan struct{})
	go func() {
		defer close(received)
		c.receive(stream)
	}()
	err := c.transmit(stream, received)
	c.shut(err)
	return nil // ends the stream, and with it receive
}

// receive gives what comes to the reader, one frame at a time: the stream's window holds the host back.
func (c *tunnelConn) receive(stream tunnelStream) {
	for {
		frame, err := stream.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			c.inbound.finish(err)
			return
		}
		if len(frame.GetData()) > 0 && !c.inbound.put(frame.GetData()) {
			return
		}
		if reason := frame.GetError(); reason != "" {
			c.inbound.finish(errs.New(errs.Unavailable, "the connection to the node broke: %s", clip(reason, maxHealthNote)))
			return
		}
		if frame.GetCloseWrite() {
			c.inbound.finish(io.EOF)
		}
	}
}

// transmit sends what is written until the connection is closed, the stream is gone, or both directions have ended.
func (c *tunnelConn) transmit(stream tunnelStream, received <-chan struct{}) error {
	for {
		select {
		case data := <-c.outbound:
			if err := stream.Send(&agentpb.TunnelFrame{Data: data}); err != nil {
				return err
			}
			c.metrics.tunnelBytes.WithLabelValues("to_host").Add(float64(len(data)))
		case <-c.writeClosed:
			if err := stream.Send(&agentpb.TunnelFrame{CloseWrite: true}); err != nil {
				return err
			}
			select {
			case <-received:
			case <-c.closed:
			}
			return io.ErrClosedPipe
		case <-received:
			return io.ErrClosedPipe
		case <-c.closed:
			return net.ErrClosed
		}
	}
}
