package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/fleet/fleetdb"
)

// The gateway's bounds.
const (
	DefaultHeartbeatInterval = 2 * time.Second
	DefaultFlushInterval     = 250 * time.Millisecond
	DefaultPollInterval      = 2 * time.Second
	DefaultIdleWriteInterval = 30 * time.Second

	lostSlack           = 4 * time.Second // on top of intervalsToLost
	maxConnectionAge    = time.Hour
	connectionAgeGrace  = 2 * time.Minute // for what tunnels carry
	handshakeTimeout    = 10 * time.Second
	keepaliveTime       = 2 * time.Minute // heartbeats tell sooner that a host is gone
	keepaliveTimeout    = 5 * time.Second
	minKeepaliveTime    = 5 * time.Second
	maxMessageBytes     = 1 << 20
	maxStreams          = 512 // of one connection
	streamWindow        = 1 << 20
	connectionWindow    = 16 << 20
	maxHeaderBytes      = 16 << 10
	readBufferBytes     = 4 << 10 // of each connection; what TLS has read is buffered beneath
	stopGrace           = 2 * time.Second
	databaseTimeout     = 10 * time.Second
	maxConcurrentHellos = 32 // a stampede of agents waits here rather than in the pool
)

// Unsealer opens the Ray tokens of clusters.
type Unsealer interface {
	Unseal(sealed []byte) (string, error)
}

// Notifications wakes the gateway; *pgnotify.Hub is one.
type Notifications interface {
	Subscribe(channel string) (stream <-chan string, stop func())
}

// Options configure a Gateway. Pool, Authority, Unsealer, Notifications and Address are required.
type Options struct {
	Pool          *pgxpool.Pool
	Authority     *Authority
	Unsealer      Unsealer
	Notifications Notifications
	Address       string // to listen on: "127.0.0.1:7443"

	Log        *slog.Logger
	Registerer prometheus.Registerer // may be nil

	HeartbeatInterval time.Duration // of hosts with nodes; default DefaultHeartbeatInterval
	IdleInterval      time.Duration // of hosts without; default five times that
	LostAfter         time.Duration // how long a host with nodes may be silent; default three heartbeats and some slack
	FlushInterval     time.Duration // default DefaultFlushInterval
	PollInterval      time.Duration // default DefaultPollInterval
	IdleWriteInterval time.Duration // between writes of when an idle host was heard, while it is; default DefaultIdleWriteInterval
	AllowSimulated    bool          // accept hosts whose GPUs are simulated: local networks only

	Now func() time.Time // for all but timers and what the database decides; default time.Now
}

func (o Options) withDefaults() (Options, error) {
	if o.Pool == nil || o.Authority == nil || o.Unsealer == nil || o.Notifications == nil || o.Address == "" {
		return o, errors.New("the fleet's gateway needs a pool, an authority, an unsealer, notifications and an address")
	}
	o.HeartbeatInterval = orDefault(o.HeartbeatInterval, DefaultHeartbeatInterval)
	o.FlushInterval = orDefault(o.FlushInterval, DefaultFlushInterval)
	o.PollInterval = orDefault(o.PollInterval, DefaultPollInterval)
	o.IdleWriteInterval = orDefault(o.IdleWriteInterval, DefaultIdleWriteInterval)
	o.IdleInterval = max(o.HeartbeatInterval, orDefault(o.IdleInterval, idleIntervals*o.HeartbeatInterval))
	o.LostAfter = orDefault(o.LostAfter, intervalsToLost*o.HeartbeatInterval+lostSlack)
	if o.LostAfter < intervalsToLost*o.HeartbeatInterval {
		return o, fmt.Errorf("hosts cannot count as lost after %s with a heartbeat every %s: give them %d", o.LostAfter, o.HeartbeatInterval, intervalsToLost)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o, nil
}

func orDefault(value, fallback time.Duration) time.Duration {
	if value <= 0 {
		return fallback
	}
	return value
}

// Gateway serves the agent protocol. Make it with NewGateway; it serves while Run runs.
type Gateway struct {
	agentpb.UnimplementedAgentServer

	options   Options
	log       *slog.Logger
	queries   *fleetdb.Queries
	metrics   *metrics
	enrolment *enrolment
	pending   *pending
	tunnels   *tunnels
	echo      *echo
	lookout   *lookout
	hellos    chan struct{}
	streams   atomic.Int64

	mu       sync.Mutex
	sessions map[ids.Host]*session
	swaps    map[ids.Host][]time.Time // when a live stream was displaced, newest last
	vigil    time.Time                // until when hosts that have left may come to be missed
	address  string

	// flushFailed is when writing last failed, in Unix milliseconds, or when this process began.
	flushFailed atomic.Int64
}

// NewGateway checks the options; nothing is opened before Run.
func NewGateway(options Options) (*Gateway, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	datagrams, err := newEcho(options.Authority, options.Now)
	if err != nil {
		return nil, err
	}
	queries, metrics := fleetdb.New(), newMetrics(options.Registerer)
	return &Gateway{
		options: options, log: options.Log, queries: queries, metrics: metrics,
		enrolment: &enrolment{
			pool: options.Pool, authority: options.Authority, queries: queries, log: options.Log, now: options.Now, metrics: metrics,
		},
		echo:     datagrams,
		lookout:  newLookout(options.Now()),
		pending:  newPending(),
		tunnels:  newTunnels(metrics),
		hellos:   make(chan struct{}, maxConcurrentHellos),
		sessions: map[ids.Host]*session{},
		swaps:    map[ids.Host][]time.Time{},
	}, nil
}

// Addr is the address that agents dial, once Run has called ready.
func (g *Gateway) Addr() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.address
}

// Run listens and serves until ctx ends. It implements lifecycle.Func.
func (g *Gateway) Run(ctx context.Context, ready func()) error {
	server, err := g.newServer()
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", g.options.Address)
	if err != nil {
		return fmt.Errorf("listen for agents: %w", err)
	}
	g.mu.Lock()
	g.address = listener.Addr().String()
	g.mu.Unlock()
	datagrams, err := g.echo.listen(ctx, listener.Addr())
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Serve(listener) })
	group.Go(func() error { return g.echo.serve(datagrams) })
	group.Go(func() error { g.flushLoop(ctx); return nil })
	group.Go(func() error { g.pollLoop(ctx); return nil })
	group.Go(func() error { g.listenLoop(ctx); return nil })
	group.Go(func() error { g.sweepLoop(ctx); return nil })
	group.Go(func() error {
		<-ctx.Done()
		g.stop(server)
		return datagrams.Close()
	})
	ready()
	err = group.Wait()
	g.flush(context.WithoutCancel(ctx)) // what the streams' ends have left to write
	return err
}

// stop ends all streams: agents reconnect, to this process's successor or to another gateway.
func (g *Gateway) stop(server *grpc.Server) {
	for _, session := range g.allSessions() {
		session.end(errStopping)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.GracefulStop()
	}()
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		server.Stop()
		<-done
	}
}

func (g *Gateway) newServer() (*grpc.Server, error) {
	config, err := g.tlsConfig()
	if err != nil {
		return nil, err
	}
	authorizer := &authorizer{
		pool: g.options.Pool, queries: g.queries, authority: g.options.Authority, now: g.options.Now, metrics: g.metrics,
	}
	server := grpc.NewServer(
		grpc.Creds(measuredTLS{credentials.NewTLS(config)}),
		grpc.UnaryInterceptor(authorizer.unary),
		grpc.StreamInterceptor(authorizer.stream),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxSendMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ReadBufferSize(readBufferBytes),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connectionWindow),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: maxConnectionAge, MaxConnectionAgeGrace: connectionAgeGrace, Time: keepaliveTime, Timeout: keepaliveTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minKeepaliveTime, PermitWithoutStream: true}),
	)
	agentpb.RegisterEnrolmentServer(server, g.enrolment)
	agentpb.RegisterAgentServer(server, g)
	return server, nil
}

// tlsConfig asks for a certificate and verifies one that is given in VerifyConnection, which, unlike the verification of chains,
// no session resumption skips; tickets are off besides.
func (g *Gateway) tlsConfig() (*tls.Config, error) {
	certificates := &gatewayCertificates{authority: g.options.Authority, now: g.options.Now}
	if _, err := certificates.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		GetCertificate:         certificates.get,
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil // the authorizer admits it to enrolment alone
			}
			_, err := g.options.Authority.verifyHost(state.PeerCertificates[0])
			return err
		},
	}, nil
}

// gatewayCertificates makes the gateway's certificate and replaces it at half its life.
type gatewayCertificates struct {
	authority *Authority
	now       func() time.Time
	mu        sync.Mutex
	current   *tls.Certificate
}

func (c *gatewayCertificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.current == nil || now.After(c.current.Leaf.NotAfter.Add(-gatewayLifetime/2)) {
		made, err := c.authority.issueGateway(now)
		if err != nil {
			return nil, err
		}
		c.current = made
	}
	return c.current, nil
}

// Renew gives the calling host its next certificate.
func (g *Gateway) Renew(ctx context.Context, in *agentpb.RenewRequest) (*agentpb.RenewResponse, error) {
	return g.enrolment.renew(ctx, callerFrom(ctx), in)
}
