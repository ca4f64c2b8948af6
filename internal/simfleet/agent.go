package simfleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	protocolVersion = 2
	agentVersion    = "simulated"

	dialTimeout      = 10 * time.Second
	greetTimeout     = 15 * time.Second
	enrolTimeout     = 15 * time.Second
	renewTimeout     = 10 * time.Second
	renewRetry       = time.Minute
	keepaliveTime    = 4 * time.Minute // as the real agent's
	keepaliveTimeout = 5 * time.Second
	reconnectBase    = 200 * time.Millisecond
	reconnectMax     = 5 * time.Second
	refusedMax       = time.Minute
	healthyAfter     = 10 * time.Second
	maxMessageBytes  = 4 << 20
	bufferBytes      = 4 << 10 // of a connection: its messages are small

	minHeartbeat        = 100 * time.Millisecond
	maxHeartbeat        = 5 * time.Minute
	heartbeatsPerReport = 10
	healthInterval      = time.Minute
)

// agent is one host. Its mutex guards all that is below it.
type agent struct {
	fleet  *Fleet
	host   Host
	arrive chan struct{} // capacity 1: absent or until has changed

	noticed bool // it has connected, or was refused, once; the fleet's mutex guards it

	mu       sync.Mutex
	identity identity
	rng      *rand.Rand
	absent   bool      // the host has not joined yet, or is switched off
	until    time.Time // no stream before this
	session  *session  // nil without a stream
	machine  machine
	applied  int64 // generation of the newest desired state
}

// session is one stream; the agent's mutex guards its sending side.
type session struct {
	stream   grpc.BidiStreamingClient[agentpb.AgentMessage, agentpb.ControlMessage]
	client   agentpb.AgentClient
	ctx      context.Context // the stream's lifetime, which events end
	end      context.CancelFunc
	interval time.Duration // as asked
	beats    int64
	tunnels  sync.WaitGroup
}

// run keeps the host connected until ctx ends.
func (a *agent) run(ctx context.Context) {
	for attempt := 0; ; {
		if !a.awaitPresence(ctx) {
			return
		}
		began := time.Now()
		err := a.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		a.fleet.count(func(s *Stats) { s.Cuts++ })
		limit := reconnectMax
		if code := status.Code(err); code == codes.PermissionDenied || code == codes.InvalidArgument {
			limit = refusedMax
			a.fleet.refused(a, status.Convert(err).Message())
		}
		if attempt++; time.Since(began) > healthyAfter {
			attempt = 1
		}
		a.fleet.log.DebugContext(ctx, "simulated host not connected", "host", a.host.Name, "error", err)
		a.mu.Lock()
		if limit == refusedMax {
			a.askRecheck()
		}
		delay := min(limit, reconnectBase<<min(attempt-1, 10))
		delay = delay/2 + time.Duration(a.rng.Int64N(int64(delay/2)+1))
		if next := time.Now().Add(delay); next.After(a.until) {
			a.until = next
		}
		a.mu.Unlock()
	}
}

// awaitPresence waits until the host is there and may connect; false once ctx has ended.
func (a *agent) awaitPresence(ctx context.Context) bool {
	for {
		a.mu.Lock()
		absent, wait := a.absent, time.Until(a.until)
		a.mu.Unlock()
		if !absent && wait <= 0 {
			return ctx.Err() == nil
		}
		var due <-chan time.Time
		if !absent {
			due = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return false
		case <-due:
		case <-a.arrive:
		}
	}
}

// connect enrols the host if it is new, opens a stream and serves it until it breaks.
func (a *agent) connect(ctx context.Context) error {
	release, err := a.fleet.enter(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := a.enrolOnce(ctx); err != nil {
		return err
	}
	connection, err := a.fleet.dial(a.certificate)
	if err != nil {
		return err
	}
	defer connection.Close() //nolint:errcheck // its streams have ended
	client := agentpb.NewAgentClient(connection)
	if a.expired() {
		if err := a.renew(ctx, client); err != nil {
			return err
		}
	}
	streamCtx, end := context.WithCancel(ctx)
	defer end()
	late := time.AfterFunc(greetTimeout, end)
	defer late.Stop()
	stream, err := client.Connect(streamCtx)
	if err != nil {
		return err
	}
	s := &session{stream: stream, client: client, ctx: streamCtx, end: end}
	if err := a.greet(s); err != nil {
		return err
	}
	late.Stop()
	release()
	defer a.detach(s)
	return a.receive(s)
}

func (a *agent) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.identity.tlsCertificate(), nil
}

func (a *agent) id() ids.Host {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.identity.host
}

func (a *agent) enrolOnce(ctx context.Context) error {
	a.mu.Lock()
	id := a.identity
	a.mu.Unlock()
	if !id.host.IsZero() {
		return nil
	}
	if id.key == nil {
		var err error
		if id, err = newIdentity(); err != nil {
			return err
		}
	}
	if err := a.fleet.enrol(ctx, a.host, &id); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.identity = id
	return nil
}

func (a *agent) expired() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().After(a.identity.notAfter)
}

// renew replaces the certificate. Only one runs at a time: before a stream, or scheduled by it.
func (a *agent) renew(ctx context.Context, client agentpb.AgentClient) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	a.mu.Lock()
	id := a.identity
	a.mu.Unlock()
	if err := id.ask(); err != nil {
		return err
	}
	if err := a.keep(id); err != nil { // before it is sent, so that it can be sent again
		return err
	}
	answer, err := client.Renew(ctx, &agentpb.RenewRequest{Generation: id.generation, CertificateRequest: id.request})
	if err != nil {
		return err
	}
	id.request = nil
	if err := id.take(answer.GetCertificate(), answer.GetGeneration()); err != nil {
		return err
	}
	return a.keep(id)
}

func (a *agent) keep(id identity) error {
	if err := a.fleet.save(a.host.Name, id); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.identity = id
	return nil
}

// greet exchanges Hello and Welcome and says what the host has.
func (a *agent) greet(s *session) error {
	a.mu.Lock()
	hello := &agentpb.Hello{
		ProtocolVersion: protocolVersion, AgentVersion: agentVersion, MachineId: a.identity.serial("machine", 0), Hostname: a.host.Name,
		BootId: a.identity.serial("boot", a.machine.boots),
	}
	a.mu.Unlock()
	if err := s.stream.Send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Hello{Hello: hello}}); err != nil {
		_, err = s.stream.Recv()
		return err
	}
	message, err := s.stream.Recv()
	if err != nil {
		return err
	}
	welcome := message.GetWelcome()
	if welcome.GetProtocolVersion() != protocolVersion {
		return fmt.Errorf("welcomed with version %d of the protocol", welcome.GetProtocolVersion())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.absent || time.Now().Before(a.until) {
		return errors.New("switched off while connecting")
	}
	s.interval = pace(welcome.GetHeartbeatIntervalMs())
	a.session = s
	a.fleet.arrived(a)
	a.sendMeasured()
	a.sendReport()
	a.askRecheck()
	a.fleet.clock.after(time.Duration(a.rng.Int64N(int64(a.fleet.interval(s.interval)))), func() { a.beat(s) })
	a.fleet.clock.after(healthInterval/2+time.Duration(a.rng.Int64N(int64(healthInterval/2))), func() { a.tellHealth(s) })
	a.scheduleRenewal(s, time.Until(a.identity.renewal())+time.Duration(a.rng.Int64N(int64(renewRetry))))
	return nil
}

func (a *agent) detach(s *session) {
	a.mu.Lock()
	if a.session == s {
		a.session = nil
		a.fleet.count(func(c *Stats) { c.Connected-- })
	}
	a.mu.Unlock()
	s.end()
	s.tunnels.Wait()
}

// receive acts on what the control plane sends until the stream ends.
func (a *agent) receive(s *session) error {
	for {
		message, err := s.stream.Recv()
		if err != nil {
			return err
		}
		switch body := message.GetBody().(type) {
		case *agentpb.ControlMessage_Desired:
			a.apply(s, body.Desired)
		case *agentpb.ControlMessage_Pace:
			a.mu.Lock()
			s.interval = pace(body.Pace.GetHeartbeatIntervalMs())
			a.mu.Unlock()
		case *agentpb.ControlMessage_OpenTunnel:
			s.tunnels.Go(func() { refuseTunnel(s.ctx, s.client, body.OpenTunnel.GetTunnelId()) })
		default:
			// A newer control plane may say more.
		}
	}
}

// refuseTunnel answers as a real agent does whose node has no such port.
func refuseTunnel(ctx context.Context, client agentpb.AgentClient, tunnel string) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	stream, err := client.Tunnel(ctx)
	if err != nil {
		return
	}
	_ = stream.Send(&agentpb.TunnelFrame{TunnelId: tunnel, Error: "this host is simulated: it runs no Ray to connect to"})
	_ = stream.CloseSend()
	for err == nil { // until the control plane has taken it
		_, err = stream.Recv()
	}
}

// beat sends a heartbeat and plans the next. A pace that changed counts from the next on.
func (a *agent) beat(s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.session != s {
		return
	}
	s.beats++
	a.send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Heartbeat{Heartbeat: &agentpb.Heartbeat{Sequence: s.beats}}})
	if s.beats%heartbeatsPerReport == 0 {
		a.sendReport()
	}
	a.fleet.heartbeats.Add(1)
	a.fleet.clock.after(a.fleet.interval(s.interval)-wheelTick, func() { a.beat(s) })
}

func (a *agent) tellHealth(s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.session != s {
		return
	}
	a.sendHealth()
	a.fleet.clock.after(a.fleet.interval(healthInterval), func() { a.tellHealth(s) })
}

// scheduleRenewal renews in a goroutine of its own, few at a time: the wheel's are for what does not wait.
func (a *agent) scheduleRenewal(s *session, delay time.Duration) {
	a.fleet.clock.after(max(delay, 0), func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.session != s {
			return
		}
		s.tunnels.Go(func() {
			release, err := a.fleet.enter(s.ctx)
			if err != nil {
				return
			}
			defer release()
			if err := a.renew(s.ctx, s.client); err != nil && s.ctx.Err() == nil {
				a.fleet.log.WarnContext(s.ctx, "simulated host's certificate not renewed, trying again", "host", a.host.Name, "error", err)
				a.scheduleRenewal(s, renewRetry)
				return
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			a.scheduleRenewal(s, time.Until(a.identity.renewal()))
		})
	})
}

// send needs the mutex. What a broken stream does not take is said again on the next one; its receiver learns why it broke.
func (a *agent) send(message *agentpb.AgentMessage) {
	if a.session == nil {
		return
	}
	if err := a.session.stream.Send(message); err != nil {
		a.session.end()
	}
}

func (a *agent) sendReport() {
	if a.session == nil {
		return
	}
	a.send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Report{Report: &agentpb.Report{AppliedGeneration: a.applied, Nodes: a.nodeStatuses()}}})
}

// dial makes a connection that shows what certificate returns.
func (f *Fleet) dial(certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)) (*grpc.ClientConn, error) {
	config := &tls.Config{
		MinVersion:           tls.VersionTLS13,
		InsecureSkipVerify:   true, //nolint:gosec // VerifyConnection verifies, by the pinned authority
		VerifyConnection:     f.gateway.verify,
		GetClientCertificate: certificate,
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithReadBufferSize(bufferBytes), grpc.WithWriteBufferSize(bufferBytes),
		grpc.WithDisableServiceConfig(), grpc.WithDisableHealthCheck(), grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: dialTimeout,
			Backoff:           backoff.Config{BaseDelay: reconnectBase, Multiplier: 2, Jitter: 0.5, MaxDelay: reconnectMax},
		}),
	}
	if f.options.Dial != nil {
		options = append(options, grpc.WithContextDialer(f.options.Dial))
	}
	return grpc.NewClient("passthrough:///"+f.options.Address, options...)
}
