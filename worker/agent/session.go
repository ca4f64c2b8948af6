package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/worker/tunnel"
)

// protocolVersion is the version of the agent protocol that this agent speaks; agent.proto tells their history.
const protocolVersion = 2

const (
	welcomeTimeout      = 15 * time.Second
	minHeartbeat        = 100 * time.Millisecond
	maxHeartbeat        = time.Minute
	heartbeatsPerReport = 10
	maxTunnels          = 256
	maxReportedNodes    = 1024
)

// session is one stream. Its own goroutine sends; another receives.
type session struct {
	agent   *Agent
	stream  grpc.BidiStreamingClient[agentpb.AgentMessage, agentpb.ControlMessage]
	tunnels agentpb.AgentClient // on a connection of its own, so that bulk data delays no heartbeat
	slots   chan struct{}
	work    sync.WaitGroup // tunnels in progress

	changed chan struct{} // capacity 1: a report is due
}

// serve opens a stream over a connection and works until it breaks. It returns once nothing of it runs any more.
func (a *Agent) serve(ctx context.Context, connection *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bulk, err := a.dial()
	if err != nil {
		return err
	}
	defer bulk.Close() //nolint:errcheck // its streams have ended
	stream, err := agentpb.NewAgentClient(connection).Connect(ctx)
	if err != nil {
		return err
	}
	s := &session{
		agent: a, stream: stream, tunnels: agentpb.NewAgentClient(bulk), slots: make(chan struct{}, maxTunnels),
		changed: make(chan struct{}, 1),
	}
	defer s.work.Wait()
	defer cancel() // before waiting: tunnels end with the stream
	interval, err := s.greet(cancel)
	if err != nil {
		return err
	}
	a.log.InfoContext(ctx, "connected to the control plane", "heartbeat", interval)
	a.writeStatus(true, nil)
	ended := make(chan error, 1)
	go func() { ended <- s.receive(ctx) }()
	err = s.send(ctx, interval, ended)
	cancel()
	return err
}

// greet exchanges Hello and Welcome and returns the heartbeat interval.
func (s *session) greet(cancel context.CancelFunc) (time.Duration, error) {
	err := s.stream.Send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Hello{Hello: &agentpb.Hello{
		ProtocolVersion: protocolVersion, AgentVersion: s.agent.options.Self.Version, MachineId: machineID(),
		Hostname: s.agent.options.Self.Name, BootId: bootID(),
	}}})
	if err != nil && !errors.Is(err, io.EOF) { // Recv tells why the stream has ended
		return 0, err
	}
	late := time.AfterFunc(welcomeTimeout, cancel)
	defer late.Stop()
	message, err := s.stream.Recv()
	if err != nil {
		return 0, err
	}
	welcome := message.GetWelcome()
	if welcome == nil || welcome.GetProtocolVersion() != protocolVersion {
		return 0, errs.New(errs.Invalid, "the control plane speaks another version of the agent protocol than %d: update muster-worker", protocolVersion)
	}
	interval := time.Duration(welcome.GetHeartbeatIntervalMs()) * time.Millisecond
	return min(max(interval, minHeartbeat), maxHeartbeat), nil
}

// receive acts on what the control plane sends until the stream ends.
func (s *session) receive(ctx context.Context) error {
	for {
		message, err := s.stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return errs.New(errs.Unavailable, "the control plane closed the connection")
			}
			return err
		}
		switch body := message.GetBody().(type) {
		case *agentpb.ControlMessage_Desired:
			s.apply(body.Desired)
		case *agentpb.ControlMessage_OpenTunnel:
			s.openTunnel(ctx, body.OpenTunnel)
		default:
			// A newer control plane may say more than this agent knows.
		}
	}
}

func (s *session) apply(desired *agentpb.DesiredState) {
	s.agent.options.Runtime.Apply(desired.GetNodes())
	s.agent.applied.Store(desired.GetGeneration()) // after Apply: a report that carries it knows of all its nodes
	signal(s.changed)
}

// openTunnel serves a tunnel beside the stream. Above the limit the request is dropped, and the control plane stops waiting for it.
func (s *session) openTunnel(ctx context.Context, open *agentpb.OpenTunnel) {
	select {
	case s.slots <- struct{}{}:
	default:
		s.agent.log.WarnContext(ctx, "too many tunnels", "node_id", open.GetNodeId(), "limit", maxTunnels)
		return
	}
	s.work.Go(func() {
		defer func() { <-s.slots }()
		if err := tunnel.Serve(ctx, s.tunnels, s.agent.options.Runtime, open); err != nil && ctx.Err() == nil {
			s.agent.log.DebugContext(ctx, "tunnel ended", "node_id", open.GetNodeId(), "error", err)
		}
	})
}

// send tells what the host has and what runs on it, until the stream breaks or ctx ends.
func (s *session) send(ctx context.Context, interval time.Duration, ended <-chan error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	if err := s.sendInventory(); err != nil {
		return s.why(err, ended)
	}
	for sequence := int64(1); ; {
		var err error
		select {
		case <-ctx.Done():
			_ = s.stream.CloseSend()
			return ctx.Err()
		case err := <-ended:
			return err
		case <-s.agent.measured:
			err = s.sendInventory()
		case <-s.agent.options.Runtime.Changed():
			err = s.sendReport()
		case <-s.changed:
			err = s.sendReport()
		case <-ticker.C:
			err = s.stream.Send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Heartbeat{Heartbeat: &agentpb.Heartbeat{Sequence: sequence}}})
			if err == nil && sequence%heartbeatsPerReport == 0 {
				err = s.sendReport()
			}
			sequence++
		}
		if err != nil {
			return s.why(err, ended)
		}
	}
}

// why prefers what the stream ended with to Send's io.EOF, which says only that it has.
func (s *session) why(err error, ended <-chan error) error {
	if errors.Is(err, io.EOF) {
		return <-ended
	}
	return err
}

func (s *session) sendInventory() error {
	inventory := s.agent.latest()
	if inventory == nil {
		return nil // the first probe is still at work, and signals when it is done
	}
	return s.stream.Send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Inventory{Inventory: inventory}})
}

func (s *session) sendReport() error {
	applied := s.agent.applied.Load() // before Status, see apply
	nodes := s.agent.options.Runtime.Status()
	if len(nodes) > maxReportedNodes {
		return fmt.Errorf("%d nodes are more than a report can hold", len(nodes))
	}
	return s.stream.Send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Report{Report: &agentpb.Report{
		AppliedGeneration: applied, Nodes: nodes,
	}}})
}
