package fleet

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

// ProtocolVersion is the newest version of the agent protocol, whose history agent.proto tells.
const ProtocolVersion = 2

const (
	helloTimeout   = 10 * time.Second
	maxOpensQueued = 64

	// Two machines with one identity displace each other's streams while both beat. One machine does so rarely.
	maxSwaps   = 3
	swapWindow = 10 * time.Minute
)

var (
	errStopping  = errs.New(errs.Unavailable, "the control plane is restarting: connect again")
	errDisplaced = errs.New(errs.Unavailable, "this host has connected again, and its newest stream counts")
	errLost      = errs.New(errs.Unavailable, "the host counts as lost: connect again")
	errVerify    = errs.New(errs.Unavailable, "the host is to be verified again: connect again")
	errNoHello   = errs.New(errs.Invalid, "the first message of a stream must be Hello")
	errSwapped   = errs.New(errs.Forbidden, "two machines use this host's identity in turn: its state directory has been copied, and the host is quarantined")
)

type agentStream = grpc.BidiStreamingServer[agentpb.AgentMessage, agentpb.ControlMessage]

// session is one agent's stream. Only its own goroutine sends on it.
type session struct {
	host  ids.Host
	ctx   context.Context // the stream's lifetime, which others end
	conn  syscall.RawConn // nil if it is not known
	end   context.CancelCauseFunc
	wake  chan struct{}
	opens chan *agentpb.OpenTunnel

	alive       hearing
	sent        atomic.Int64 // generation of the last desired state sent, 0 before the first
	reported    atomic.Bool  // the host has said on this stream what runs of the desired state
	quarantined atomic.Bool  // the host was quarantined for its hardware when it was last looked at
	interval    atomic.Int64 // between heartbeats, as the host was told, in nanoseconds
	lostAfter   atomic.Int32 // how long it may be silent, in milliseconds
	tighter     atomic.Int32 // what that becomes with the next heartbeat, or 0

	machineID string // of the Hello
	stream    int64  // its number among the host's
	lookAt    int64  // when the lookout has it, 0 if it has not; the lookout's

	health assessment // used by serve alone
}

// Connect serves an agent's stream until it ends, is displaced by a newer one, or the host loses its standing.
func (g *Gateway) Connect(stream agentStream) error {
	host := callerFrom(stream.Context())
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	var beating atomic.Pointer[session]
	messages, failed := g.receive(ctx, stream, &beating)
	hello, err := awaitHello(ctx, messages, failed)
	if err != nil {
		return err
	}
	s := &session{
		host: host, ctx: ctx, end: end, conn: rawConn(ctx), wake: make(chan struct{}, 1), opens: make(chan *agentpb.OpenTunnel, maxOpensQueued),
		machineID: clip(hello.GetMachineId(), maxMachineID),
	}
	if err = g.markConnected(ctx, s, hello); err != nil {
		return err
	}
	beating.Store(s)
	if err = g.register(ctx, s); err != nil {
		return err
	}
	defer g.unregister(s)
	g.log.InfoContext(ctx, "agent connected", "host_id", host, "agent_version", clip(hello.GetAgentVersion(), maxVersionLength))
	err = g.serve(s, stream, messages, failed)
	g.log.InfoContext(ctx, "agent disconnected", "host_id", host, "why", err)
	return err
}

// receive reads the stream in a goroutine that ends with it. Heartbeats, which are most of what is said, are noted there, once the
// session is known; other messages are handed over one at a time, so that an agent that sends too much is held back.
func (g *Gateway) receive(ctx context.Context, stream agentStream, beating *atomic.Pointer[session]) (<-chan *agentpb.AgentMessage, <-chan error) {
	messages, failed := make(chan *agentpb.AgentMessage), make(chan error, 1)
	go func() {
		var in inbound
		for {
			if err := stream.RecvMsg(&in); err != nil {
				failed <- err
				return
			}
			if s := beating.Load(); s != nil && in.isHeartbeat() {
				g.beat(s)
				continue
			}
			select {
			case messages <- in.whole():
			case <-ctx.Done():
				return
			}
		}
	}()
	return messages, failed
}

func awaitHello(ctx context.Context, messages <-chan *agentpb.AgentMessage, failed <-chan error) (*agentpb.Hello, error) {
	timer := time.NewTimer(helloTimeout)
	defer timer.Stop()
	select {
	case message := <-messages:
		hello := message.GetHello()
		if hello == nil {
			return nil, errNoHello
		}
		if hello.GetProtocolVersion() != ProtocolVersion {
			return nil, errs.New(errs.Invalid, "this control plane speaks version %d of the agent protocol, not %d: install the muster-worker that belongs to it",
				ProtocolVersion, hello.GetProtocolVersion())
		}
		return hello, nil
	case err := <-failed:
		return nil, err
	case <-timer.C:
		return nil, errNoHello
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (g *Gateway) serve(s *session, stream agentStream, messages <-chan *agentpb.AgentMessage, failed <-chan error) error {
	err := stream.Send(&agentpb.ControlMessage{Body: &agentpb.ControlMessage_Welcome{Welcome: &agentpb.Welcome{
		HostId: s.host.String(), ProtocolVersion: ProtocolVersion,
		HeartbeatIntervalMs: int32(time.Duration(s.interval.Load()).Milliseconds()),
		UdpPort:             int32(g.echo.port), UdpToken: g.echo.token(s.host),
	}}})
	s.poke()
	for err == nil {
		select {
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case message := <-messages:
			if s.ctx.Err() == nil { // a host that lost its standing is not heard, however the choice fell
				err = g.handle(s, stream, message)
			}
		case open := <-s.opens:
			err = stream.Send(&agentpb.ControlMessage{Body: &agentpb.ControlMessage_OpenTunnel{OpenTunnel: open}})
		case <-s.wake:
			err = g.sendDesired(s, stream)
		case err = <-failed:
			if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
				return nil
			}
		}
	}
	if cause := context.Cause(s.ctx); cause != nil {
		return cause // what went wrong follows from the stream's end
	}
	return err
}

func (g *Gateway) handle(s *session, stream agentStream, message *agentpb.AgentMessage) error {
	switch body := message.GetBody().(type) {
	case *agentpb.AgentMessage_Heartbeat:
		g.beat(s)
		return nil
	case *agentpb.AgentMessage_Inventory:
		ctx, cancel := context.WithTimeout(s.ctx, databaseTimeout)
		defer cancel()
		return g.receiveInventory(ctx, s, body.Inventory)
	case *agentpb.AgentMessage_Health:
		if err := g.receiveHealth(s.ctx, s, body.Health, g.options.Now(), roundTrip(s.conn)); err != nil {
			return err
		}
		return g.setPace(s.ctx, s, stream) // the fleet may have grown
	case *agentpb.AgentMessage_Report:
		sent := s.sent.Load()
		if sent > 0 && body.Report.GetAppliedGeneration() >= sent {
			s.reported.Store(true)
		}
		g.report(s, body.Report)
		return nil
	default:
		return errs.New(errs.Invalid, "a message that this version of the protocol does not have")
	}
}

// sendDesired sends the whole of the desired state if it is newer than what was sent. A failure to read it is tried again at the
// next poll.
func (g *Gateway) sendDesired(s *session, stream agentStream) error {
	ctx, cancel := context.WithTimeout(s.ctx, databaseTimeout)
	defer cancel()
	desired, err := g.desiredState(ctx, s.host)
	if err != nil {
		g.log.WarnContext(ctx, "desired state not read, trying again", "host_id", s.host, "error", err)
		return nil
	}
	if desired.GetGeneration() <= s.sent.Load() {
		return nil
	}
	s.sent.Store(desired.GetGeneration()) // before it is sent: the answer may be quick
	g.setBusy(s, len(desired.GetNodes()) > 0)
	if err := stream.Send(&agentpb.ControlMessage{Body: &agentpb.ControlMessage_Desired{Desired: desired}}); err != nil {
		return err
	}
	return g.setPace(ctx, s, stream)
}

// poke makes the session look at the desired state again.
func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// register makes s the host's session and ends the one before it.
func (g *Gateway) register(ctx context.Context, s *session) error {
	s.alive.begin(g.options.Now())
	g.mu.Lock()
	previous := g.sessions[s.host]
	g.sessions[s.host] = s
	swapped := previous != nil && g.countSwap(previous)
	g.mu.Unlock()
	g.lookout.expect(s, s.lateAt())
	g.metrics.streams.Inc()
	g.streams.Add(1)
	if previous != nil {
		previous.end(errDisplaced)
	}
	if swapped {
		defer g.unregister(s)
		// The quarantine may end this stream before its statement has been answered.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), databaseTimeout)
		defer cancel()
		if err := g.enrolment.quarantine(ctx, s.host, errSwapped.Message); err != nil {
			return err
		}
		return errSwapped
	}
	return nil
}

// countSwap counts the displacement of a stream that was alive a moment ago, and reports whether there were too many. g.mu is held.
func (g *Gateway) countSwap(previous *session) bool {
	now := g.options.Now()
	if now.Sub(previous.alive.lastHeard()) > time.Duration(previous.interval.Load())*3/2 {
		return false
	}
	recent := []time.Time{now}
	for _, at := range g.swaps[previous.host] {
		if now.Sub(at) < swapWindow {
			recent = append(recent, at)
		}
	}
	if len(recent) > maxSwaps {
		delete(g.swaps, previous.host)
		return true
	}
	g.swaps[previous.host] = recent
	return false
}

func (g *Gateway) unregister(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.metrics.streams.Dec()
	g.streams.Add(-1)
	if g.sessions[s.host] == s {
		g.left(s)
		delete(g.sessions, s.host)
		g.tunnels.dropHost(s.host)
	}
}

func (g *Gateway) session(host ids.Host) *session {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions[host]
}

func (g *Gateway) allSessions() []*session {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*session, 0, len(g.sessions))
	for _, s := range g.sessions {
		all = append(all, s)
	}
	return all
}
