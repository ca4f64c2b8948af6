package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/jointoken"
)

const (
	// DefaultInventoryInterval is how often the GPUs are looked at.
	DefaultInventoryInterval = 5 * time.Second

	refusedMax     = time.Minute // between attempts of a host that the control plane refuses
	renewTimeout   = 10 * time.Second
	renewRetryMax  = time.Minute
	healthyAfter   = 10 * time.Second // a stream that lasted this long starts the delays anew
	renewalJitter  = 10               // percent of the certificate's life
	renewalPercent = 50
)

// Runtime runs the nodes of this host; package runtime says what each method promises.
type Runtime interface {
	Apply(desired []*agentpb.NodeSpec)
	Run(ctx context.Context, ready func()) error
	Status() []*agentpb.NodeStatus
	Changed() <-chan struct{}
	DialNode(ctx context.Context, nodeID string, port int) (net.Conn, error)
}

// Prober reads what the host has and how it is; package inventory says what each method promises.
type Prober interface {
	Inventory(ctx context.Context) *agentpb.Inventory
	Health() *agentpb.Health
	Watch(ctx context.Context)
}

// Options configure an Agent. State, which must hold an enrolled identity, Runtime and Prober are required.
type Options struct {
	State   *State
	Runtime Runtime
	Prober  Prober
	Self    Self
	Log     *slog.Logger

	InventoryInterval time.Duration    // default DefaultInventoryInterval
	Now               func() time.Time // for certificates; default time.Now
}

// Agent keeps a host connected. Make it with New.
type Agent struct {
	options Options
	log     *slog.Logger
	pin     jointoken.Pin

	mu        sync.Mutex
	identity  Identity
	inventory *agentpb.Inventory // the newest; nil before the first
	renewMu   sync.Mutex         // one renewal at a time

	measured chan struct{} // capacity 1: the inventory has changed
	looked   chan struct{} // capacity 1: the host has been looked at
	applied  atomic.Int64  // generation of the desired state that the runtime was given last
}

// New checks that the host is enrolled.
func New(options Options) (*Agent, error) {
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	if options.InventoryInterval <= 0 {
		options.InventoryInterval = DefaultInventoryInterval
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	identity, err := options.State.Load()
	if err != nil {
		return nil, err
	}
	if !identity.Enrolled() {
		return nil, errs.New(errs.Unauthenticated, "this host is not enrolled: run `muster-worker join` with a join token first")
	}
	authority, err := x509.ParseCertificate(identity.Authority)
	if err != nil {
		return nil, fmt.Errorf("the authority's certificate in the state directory: %w", err)
	}
	return &Agent{
		options: options, log: options.Log.With("host_id", identity.HostID), pin: jointoken.PinOf(authority), identity: identity,
		measured: make(chan struct{}, 1), looked: make(chan struct{}, 1),
	}, nil
}

// Run works until ctx ends. It calls ready once the runtime has adopted what already ran, connected or not. It implements
// lifecycle.Func, and fails only if the runtime cannot begin.
func (a *Agent) Run(ctx context.Context, ready func()) error {
	group, ctx := errgroup.WithContext(ctx)
	adopted := make(chan struct{})
	var once sync.Once
	group.Go(func() error {
		err := a.options.Runtime.Run(ctx, func() { once.Do(func() { close(adopted) }) })
		if err == nil && ctx.Err() == nil {
			err = errors.New("the runtime stopped by itself")
		}
		return err
	})
	select {
	case <-adopted:
	case <-ctx.Done():
		return group.Wait()
	}
	ready()
	group.Go(func() error { a.probeLoop(ctx); return nil })
	group.Go(func() error { a.options.Prober.Watch(ctx); return nil })
	group.Go(func() error { a.renewLoop(ctx); return nil })
	group.Go(func() error { a.connectLoop(ctx); return nil })
	return group.Wait()
}

func (a *Agent) probeLoop(ctx context.Context) {
	ticker := time.NewTicker(a.options.InventoryInterval)
	defer ticker.Stop()
	for {
		inventory := a.options.Prober.Inventory(ctx)
		if ctx.Err() != nil {
			return
		}
		a.mu.Lock()
		changed := a.inventory == nil || !proto.Equal(steady(a.inventory), steady(inventory))
		a.inventory = inventory
		a.mu.Unlock()
		if changed {
			signal(a.measured)
		}
		signal(a.looked)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// steady is an inventory without what changes all the time and is not worth telling.
func steady(inventory *agentpb.Inventory) *agentpb.Inventory {
	copied, _ := proto.Clone(inventory).(*agentpb.Inventory)
	copied.DiskFreeBytes = 0
	for _, gpu := range copied.GetGpus() {
		gpu.TemperatureCelsius, gpu.PowerMilliwatts, gpu.UtilizationPercent, gpu.MemoryUsedBytes = nil, nil, nil, nil
		gpu.PcieGeneration, gpu.PcieWidth = nil, nil
	}
	return copied
}

func (a *Agent) latest() *agentpb.Inventory {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inventory
}

func (a *Agent) currentIdentity() Identity {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.identity
}

// connectLoop keeps a stream open.
func (a *Agent) connectLoop(ctx context.Context) {
	for attempt := 1; ; attempt++ {
		start := time.Now()
		err := a.connect(ctx)
		if ctx.Err() != nil {
			a.writeStatus(false, nil)
			return
		}
		if time.Since(start) > healthyAfter {
			attempt = 1
		}
		limit := reconnectMax
		if code := errs.CodeOf(err); code == errs.Forbidden || code == errs.Invalid {
			limit = refusedMax
		}
		delay := retryDelay(attempt, limit)
		a.writeStatus(false, err)
		a.log.WarnContext(ctx, "not connected to the control plane, trying again", "error", err, "in", delay.Round(time.Millisecond))
		if wait(ctx, delay) != nil {
			return
		}
	}
}

// connect opens a stream and serves it until it breaks.
func (a *Agent) connect(ctx context.Context) error {
	if err := a.renewIfExpired(ctx); err != nil {
		return err
	}
	identity := a.currentIdentity()
	err := fromStatus(a.serve(ctx, identity))
	if errs.CodeOf(err) == errs.Unauthenticated {
		// By the control plane's clock the certificate may have expired though it has not by this host's.
		return errors.Join(err, a.renew(ctx, identity))
	}
	return err
}

func (a *Agent) dial(identity Identity) (*grpc.ClientConn, error) {
	certificate, err := identity.tlsCertificate()
	if err != nil {
		return nil, err
	}
	return dial(identity.Server, a.pin, certificate, a.options.Now)
}

// renewLoop renews the certificate at half its life and a little later, a different while for each host.
func (a *Agent) renewLoop(ctx context.Context) {
	for attempt := 1; ; {
		identity := a.currentIdentity()
		delay, err := a.untilRenewal(identity)
		if err == nil && delay <= 0 {
			if err = a.renew(ctx, identity); err == nil {
				attempt = 1
				continue
			}
		}
		if err != nil {
			delay = retryDelay(attempt, renewRetryMax)
			attempt++
			if ctx.Err() == nil {
				a.log.WarnContext(ctx, "certificate not renewed, trying again", "error", err, "in", delay.Round(time.Millisecond))
			}
		}
		if wait(ctx, delay) != nil {
			return
		}
	}
}

func (a *Agent) untilRenewal(identity Identity) (time.Duration, error) {
	leaf, err := identity.Leaf()
	if err != nil {
		return 0, err
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	jitter := rand.N(life*renewalJitter/100 + 1) //nolint:gosec // jitter
	due := leaf.NotBefore.Add(life * renewalPercent / 100).Add(jitter)
	return due.Sub(a.options.Now()), nil
}

func (a *Agent) renewIfExpired(ctx context.Context) error {
	identity := a.currentIdentity()
	leaf, err := identity.Leaf()
	if err != nil || a.options.Now().Before(leaf.NotAfter) {
		return err
	}
	return a.renew(ctx, identity)
}

// renew asks for the certificate that follows due's, with the request of an earlier attempt if that was not
// answered. It does nothing if another caller, who found the same certificate due, has renewed it meanwhile.
func (a *Agent) renew(ctx context.Context, due Identity) error {
	a.renewMu.Lock()
	defer a.renewMu.Unlock()
	identity := a.currentIdentity()
	if identity.Generation != due.Generation {
		return nil
	}
	identity, err := identity.withRequest()
	if err != nil {
		return err
	}
	if err = a.saveIdentity(identity); err != nil {
		return err
	}
	connection, err := a.dial(identity)
	if err != nil {
		return err
	}
	defer connection.Close() //nolint:errcheck // nothing is in flight
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	answer, err := agentpb.NewAgentClient(connection).Renew(ctx, &agentpb.RenewRequest{
		Generation: identity.Generation, CertificateRequest: identity.Request,
	})
	if err != nil {
		return fromStatus(err)
	}
	if identity, err = identity.withCertificate(answer.GetCertificate(), answer.GetGeneration()); err != nil {
		return err
	}
	a.log.InfoContext(ctx, "certificate renewed", "generation", identity.Generation)
	return a.saveIdentity(identity)
}

func (a *Agent) saveIdentity(identity Identity) error {
	if err := a.options.State.Save(identity); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.identity = identity
	return nil
}

func (a *Agent) writeStatus(connected bool, err error) {
	now := time.Now()
	status := Status{Connected: connected, Since: &now}
	if err != nil {
		status.LastError = err.Error()
	}
	if err := writeFile(a.options.State.dir, statusFile, status); err != nil {
		a.log.Warn("status not written", "error", err)
	}
}

// signal wakes whoever waits on a channel of capacity 1.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
