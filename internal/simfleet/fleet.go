package simfleet

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/jointoken"
)

const (
	maxEntering = 48 // hosts that enrol or connect at once
	maxActing   = 4  // owners who do something at once
)

// Joiner gives a host the join token that it enrols with.
type Joiner interface {
	JoinToken(ctx context.Context, host Host) (string, error)
}

// Keeper does for the hosts what no agent can: what their owners do.
type Keeper interface {
	// SetAsk sets what a host's owner asks.
	SetAsk(ctx context.Context, host Host, id ids.Host, ask Ask) error
	// Recheck has a host verified again whose hardware has been mended.
	Recheck(ctx context.Context, host Host, id ids.Host) error
}

// Options configure a Fleet. Address, Hosts and Joiner are required.
type Options struct {
	Address string // of the gateway: HOST:PORT
	Hosts   []Host // as Generate makes them; events name them by their place here
	Joiner  Joiner

	Seed        uint64
	Events      []Event  // as Plan makes them; they begin once the hosts that are there from the start have connected
	Keeper      Keeper   // nil: nobody changes prices, and what is quarantined stays so
	Store       Store    // default Forget
	RayVersions []string // that hosts say they can start

	// Dial connects to the gateway; default: from any address. A machine has ports for some 28,000 connections from each of its own.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	Log  *slog.Logger
}

// Stats count what the fleet does.
type Stats struct {
	Hosts        int
	Enrolled     int // in this run
	Connected    int // now
	Connects     int
	Cuts         int // streams that ended, or could not be opened
	Heartbeats   int64
	Refused      int // of the cuts, those with a reason that trying again does not mend
	LastRefusal  string
	Events       int // that have begun
	NodesStarted int
	NodesStopped int
}

// Fleet is the agents of simulated hosts. Make it with New, run it once.
type Fleet struct {
	options   Options
	log       *slog.Logger
	clock     *wheel
	clusters  *clusters
	gateway   *gateway
	agents    []*agent
	entrance  chan struct{}
	acting    chan struct{}
	enrolment *grpc.ClientConn
	life      context.Context // of Run
	work      sync.WaitGroup

	haste      atomic.Int64 // how many times as often as they should the agents speak
	heartbeats atomic.Int64
	mu         sync.Mutex
	stats      Stats
	awaited    int           // hosts that are there from the start and have neither connected nor been refused yet
	assembled  chan struct{} // closed when there are none
}

// New makes a fleet; it reads the store.
func New(options Options) (*Fleet, error) {
	if options.Address == "" || len(options.Hosts) == 0 || options.Joiner == nil {
		return nil, errors.New("a simulated fleet needs a gateway's address, hosts and join tokens")
	}
	if options.Store == nil {
		options.Store = Forget{}
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	f := &Fleet{
		options: options, log: options.Log, clock: newWheel(), gateway: &gateway{verified: map[[sha256.Size]byte]bool{}},
		entrance: make(chan struct{}, maxEntering), acting: make(chan struct{}, maxActing), assembled: make(chan struct{}),
	}
	f.haste.Store(1)
	f.clusters = &clusters{clock: f.clock, all: map[string]*rayCluster{}}
	if err := f.makeAgents(); err != nil {
		return nil, err
	}
	var err error
	f.enrolment, err = f.dial(anonymous)
	return f, err
}

func (f *Fleet) makeAgents() error {
	stored, err := f.options.Store.Load()
	if err != nil {
		return err
	}
	late := map[int]bool{}
	for _, e := range f.options.Events {
		if e.Host < 0 || e.Host >= len(f.options.Hosts) {
			return fmt.Errorf("an event names host %d of %d", e.Host, len(f.options.Hosts))
		}
		late[e.Host] = late[e.Host] || e.Kind == Join
	}
	for i, host := range f.options.Hosts {
		a := &agent{
			fleet: f, host: host, arrive: make(chan struct{}, 1), absent: late[i],
			rng: rand.New(rand.NewPCG(f.options.Seed, 1<<33+uint64(i))), //nolint:gosec // a simulation's dice
		}
		if known, ok := stored[host.Name]; ok {
			if a.identity, err = parseIdentity(known); err != nil {
				return fmt.Errorf("the stored identity of %s: %w", host.Name, err)
			}
			if a.identity.authority, err = f.trust(a.identity.authority); err != nil {
				return fmt.Errorf("the stored identity of %s: %w", host.Name, err)
			}
		}
		if !a.absent {
			f.awaited++
		}
		f.agents = append(f.agents, a)
	}
	if f.stats.Hosts = len(f.agents); f.awaited == 0 {
		close(f.assembled)
	}
	return nil
}

// trust pins the authority of a stored identity. All hosts belong to one control plane.
func (f *Fleet) trust(authority []byte) ([]byte, error) {
	certificate, err := x509.ParseCertificate(authority)
	if err != nil {
		return nil, err
	}
	return authority, f.gateway.expect(jointoken.PinOf(certificate))
}

func (g *gateway) expect(pin jointoken.Pin) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pin != (jointoken.Pin{}) && g.pin != pin {
		return errors.New("the hosts belong to different control planes")
	}
	g.pin = pin
	return nil
}

// Run plays the fleet until ctx ends. It calls ready once all hosts that are there from the start have connected, but for those that
// the control plane refuses: retired ones, for instance. It implements lifecycle.Func.
func (f *Fleet) Run(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer f.enrolment.Close() //nolint:errcheck // nothing is in flight
	f.work.Go(func() { f.clock.run(ctx) })
	f.life = ctx
	for _, a := range f.agents {
		f.work.Go(func() { a.run(ctx) })
	}
	defer f.work.Wait()
	select {
	case <-ctx.Done():
		return nil
	case <-f.assembled:
	}
	for _, e := range f.options.Events {
		f.clock.after(e.At, func() { f.Befall(e) })
	}
	ready()
	<-ctx.Done()
	return nil
}

// Befall makes an event happen now, beside those of the schedule. Call it while the fleet runs.
func (f *Fleet) Befall(e Event) {
	f.count(func(s *Stats) { s.Events++ })
	a := f.agents[e.Host]
	if e.Kind != PriceChange {
		a.befall(e)
		return
	}
	f.act(a, func(ctx context.Context, id ids.Host) error { return f.options.Keeper.SetAsk(ctx, a.host, id, e.Ask) })
}

// act has a host's owner do something, in a goroutine of its own: it may wait.
func (f *Fleet) act(a *agent, do func(ctx context.Context, id ids.Host) error) {
	id := a.id()
	if f.options.Keeper == nil || id.IsZero() {
		return
	}
	f.work.Go(func() {
		select {
		case f.acting <- struct{}{}:
		case <-f.life.Done():
			return
		}
		defer func() { <-f.acting }()
		if err := do(f.life, id); err != nil && f.life.Err() == nil {
			f.log.WarnContext(f.life, "what a simulated owner wanted was not done", "host_id", id, "error", err)
		}
	})
}

// HostID is the id that a host has been enrolled under; zero before.
func (f *Fleet) HostID(index int) ids.Host {
	return f.agents[index].id()
}

// Stats returns what the fleet has done so far.
func (f *Fleet) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	stats := f.stats
	stats.Heartbeats = f.heartbeats.Load()
	return stats
}

func (f *Fleet) count(change func(*Stats)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.stats)
}

// arrived notes that an agent has a stream.
func (f *Fleet) arrived(a *agent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Connected++
	f.stats.Connects++
	f.notice(a)
}

// refused notes that an agent was turned away for a reason that trying again does not mend: it is not waited for.
func (f *Fleet) refused(a *agent, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Refused, f.stats.LastRefusal = f.stats.Refused+1, a.host.Name+": "+why
	f.notice(a)
}

// notice counts down to the end of the fleet's start. f.mu is held.
func (f *Fleet) notice(a *agent) {
	if a.noticed {
		return
	}
	a.noticed = true
	if f.awaited--; f.awaited == 0 {
		close(f.assembled)
	}
}

// enter waits for a place among those that enrol, connect or renew. release may be called more than once.
func (f *Fleet) enter(ctx context.Context) (release func(), err error) {
	select {
	case f.entrance <- struct{}{}:
		return sync.OnceFunc(func() { <-f.entrance }), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Hasten has all agents say what they say at intervals so many times as often, each from when it speaks next, so that few stand for many.
func (f *Fleet) Hasten(times int) { f.haste.Store(int64(times)) }

// interval is what an agent makes of one that it is to keep.
func (f *Fleet) interval(asked time.Duration) time.Duration {
	return asked / time.Duration(f.haste.Load())
}

// pace is the interval that the control plane asks for.
func pace(milliseconds int32) time.Duration {
	return min(max(time.Duration(milliseconds)*time.Millisecond, minHeartbeat), maxHeartbeat)
}

func (f *Fleet) enrol(ctx context.Context, host Host, id *identity) error {
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	text, err := f.options.Joiner.JoinToken(ctx, host)
	if err != nil {
		return err
	}
	token, err := jointoken.Parse(text)
	if err != nil {
		return err
	}
	if err := f.gateway.expect(token.Pin()); err != nil {
		return err
	}
	if err := id.ask(); err != nil {
		return err
	}
	if err := enrol(ctx, f.enrolment, id, host.Name, text); err != nil {
		return err
	}
	f.count(func(s *Stats) { s.Enrolled++ })
	return f.save(host.Name, *id)
}

func (f *Fleet) save(name string, id identity) error {
	stored, err := id.stored(name)
	if err != nil {
		return err
	}
	return f.options.Store.Save(stored)
}

// anonymous shows no certificate.
func anonymous(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }

// Regions are the regions that Generate spreads hosts over.
func Regions() []string {
	var names []string
	for _, r := range regions {
		names = append(names, r.name)
	}
	slices.Sort(names)
	return names
}

// Nodes counts the nodes that exist on all hosts now, stopped ones that are still named included.
func (f *Fleet) Nodes() int {
	nodes := 0
	for _, a := range f.agents {
		a.mu.Lock()
		nodes += len(a.machine.nodes)
		a.mu.Unlock()
	}
	return nodes
}
