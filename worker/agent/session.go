package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

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
	healthInterval      = time.Minute
)

// session is one stream. Its own goroutine sends; another receives.
type session struct {
	agent   *Agent
	stream  grpc.BidiStreamingClient[agentpb.AgentMessage, agentpb.ControlMessage]
	tunnels agentpb.AgentClient // on a connection of its own, so that bulk data delays no heartbeat
	slots   chan struct{}
	work    sync.WaitGroup // tunnels in progress

	changed chan struct{}      // capacity 1: a report is due
	paces   chan time.Duration // capacity 1: the newest interval to beat at
	echo    *echo

	// Used by send alone.
	told *agentpb.Health // the health that was sent last, nil before the first
}

// serve opens a stream under an identity and works until it breaks. It returns once nothing of it runs any more.
func (a *Agent) serve(ctx context.Context, identity Identity) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	connection, err := a.dial(identity)
	if err != nil {
		return err
	}
	defer connection.Close() //nolint:errcheck // its streams have ended
	bulk, err := a.dial(identity)
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
		changed: make(chan struct{}, 1), paces: make(chan time.Duration, 1),
	}
	defer s.work.Wait()
	defer cancel() // before waiting: tunnels end with the stream
	welcome, err := s.greet(cancel)
	if err != nil {
		return err
	}
	interval := heartbeatInterval(welcome.GetHeartbeatIntervalMs())
	s.echo = newEcho(identity.Server, welcome)
	s.work.Go(func() { s.echo.run(ctx) })
	a.log.InfoContext(ctx, "connected to the control plane", "heartbeat", interval)
	a.writeStatus(true, nil)
	ended := make(chan error, 1)
	go func() { ended <- s.receive(ctx) }()
	err = s.send(ctx, interval, ended)
	cancel()
	return err
}

// greet exchanges Hello and Welcome.
func (s *session) greet(cancel context.CancelFunc) (*agentpb.Welcome, error) {
	err := s.stream.Send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Hello{Hello: &agentpb.Hello{
		ProtocolVersion: protocolVersion, AgentVersion: s.agent.options.Self.Version, MachineId: machineID(),
		Hostname: s.agent.options.Self.Name, BootId: bootID(),
	}}})
	if err != nil && !errors.Is(err, io.EOF) { // Recv tells why the stream has ended
		return nil, err
	}
	late := time.AfterFunc(welcomeTimeout, cancel)
	defer late.Stop()
	message, err := s.stream.Recv()
	if err != nil {
		return nil, err
	}
	welcome := message.GetWelcome()
	if welcome == nil || welcome.GetProtocolVersion() != protocolVersion {
		return nil, errs.New(errs.Invalid, "the control plane speaks another version of the agent protocol than %d: update muster-worker", protocolVersion)
	}
	return welcome, nil
}

// heartbeatInterval is what the control plane asked for, within reason.
func heartbeatInterval(milliseconds int32) time.Duration {
	return min(max(time.Duration(milliseconds)*time.Millisecond, minHeartbeat), maxHeartbeat)
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
		case *agentpb.ControlMessage_Pace:
			s.setPace(heartbeatInterval(body.Pace.GetHeartbeatIntervalMs()))
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

// setPace hands an interval over; one that was not taken yet gives way.
func (s *session) setPace(interval time.Duration) {
	select {
	case <-s.paces:
	default:
	}
	s.paces <- interval // only receive sends
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
	ticker, minute := time.NewTicker(interval), time.NewTicker(healthInterval)
	defer ticker.Stop()
	defer minute.Stop()
	if err := s.sendInventory(); err != nil {
		return s.why(err, ended)
	}
	for sequence := int64(0); ; {
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
		case <-s.agent.looked:
			err = s.sendHealthIfWorse()
		case <-s.echo.changed:
			err = s.sendHealthIfWorse()
		case <-minute.C:
			err = s.sendHealth()
		case interval := <-s.paces:
			ticker.Reset(interval)
			sequence++
			err = s.beat(sequence) // at once: the control plane counts from it
		case <-ticker.C:
			sequence++
			err = s.beat(sequence)
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

func (s *session) beat(sequence int64) error {
	err := s.stream.Send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Heartbeat{Heartbeat: &agentpb.Heartbeat{Sequence: sequence}}})
	if err == nil && sequence%heartbeatsPerReport == 0 {
		err = s.sendReport()
	}
	return err
}

func (s *session) sendInventory() error {
	inventory := s.agent.latest()
	if inventory == nil {
		return nil // the first probe is still at work, and signals when it is done
	}
	if err := s.stream.Send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Inventory{Inventory: inventory}}); err != nil {
		return err
	}
	return s.sendHealth() // the control plane judges both together
}

func (s *session) currentHealth() *agentpb.Health {
	health := s.agent.options.Prober.Health()
	health.Udp = s.echo.result()
	return health
}

func (s *session) sendHealth() error {
	if s.agent.latest() == nil {
		return nil // nothing has been read yet
	}
	health := s.currentHealth()
	s.told = health
	health.ClockUnixMs = time.Now().UnixMilli()
	return s.stream.Send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Health{Health: health}})
}

// sendHealthIfWorse tells at once what should not wait for the minute.
func (s *session) sendHealthIfWorse() error {
	if s.told == nil || proto.Equal(grave(s.told), grave(s.currentHealth())) {
		return nil
	}
	return s.sendHealth()
}

// grave is the part of a host's health that its being offered hangs on and that does not move all the time.
func grave(health *agentpb.Health) *agentpb.Health {
	part := &agentpb.Health{DiskFreeBytes: health.GetDiskFreeBytes() / diskStep, Udp: health.Udp}
	for _, gpu := range health.GetGpus() {
		part.Gpus = append(part.Gpus, &agentpb.GPUHealth{
			Uuid: gpu.GetUuid(), EccUncorrected: gpu.EccUncorrected, RowsPending: gpu.RowsPending, Xids: gpu.GetXids(),
		})
	}
	return part
}

// diskStep is how much free space makes a difference: 10 GiB.
const diskStep = 10 << 30

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
