package devstack

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-gpu/muster/api/identity"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/simfleet"
	"github.com/muster-gpu/muster/scheduler/fleet"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
)

const (
	// simulationSeed never changes, so that a larger market holds the smaller one of an earlier start.
	simulationSeed  = 2026
	simulationBound = 10 * time.Minute // for all hosts to connect
	simulationDay   = 24 * time.Hour
	askersAtOnce    = 8
	tellEvery       = 2 * time.Second
)

// MaxSimulated bounds Options.Simulate: each host is a connection to and from this machine.
const MaxSimulated = 8000

// simulationRates are what happens in a day of the simulated fleet; the second half of it is calm.
var simulationRates = simfleet.Rates{
	simfleet.PriceChange: 3000, simfleet.Flap: 100, simfleet.GPULost: 10, simfleet.XID: 5, simfleet.ClockSkew: 3, simfleet.Vanish: 5,
}

// simulation is a large market of hosts that are not there, beside the stack's own. Its identities are kept with the stack's state,
// so that at the next start the same hosts come back; those that a smaller start leaves out stay lost.
type simulation struct {
	stack    *Stack
	tokens   *fleet.Tokens
	registry *fleet.Registry
	market   *market.Service
	hosts    []simfleet.Host
	owners   []ids.Org
	journal  *simfleet.Journal
	fleet    *simfleet.Fleet

	cancel context.CancelFunc
	done   chan struct{}
	failed error // once done is closed
}

// startSimulation enrols the simulated hosts that are new, connects all and sets the prices that are missing.
func (s *Stack) startSimulation(ctx context.Context) error {
	if s.options.Simulate > MaxSimulated {
		return fmt.Errorf("%d simulated hosts are too many for one machine: %d at most", s.options.Simulate, MaxSimulated)
	}
	authority, err := fleet.OpenAuthority(s.path("keys", "authority"))
	if err != nil {
		return err
	}
	sim := &simulation{
		stack: s, tokens: fleet.NewTokens(s.pool, authority), registry: fleet.NewRegistry(s.pool, s.chain.Currency(), RayVersion), hosts: simfleet.Generate(simulationSeed, s.options.Simulate),
		market: s.newMarket(), done: make(chan struct{}),
	}
	if err := sim.seedOwners(ctx); err != nil {
		return err
	}
	if sim.journal, err = simfleet.OpenJournal(s.path("keys", "simulated-hosts.jsonl")); err != nil {
		return err
	}
	if err := sim.journal.Compact(); err != nil {
		return err
	}
	sim.fleet, err = simfleet.New(simfleet.Options{
		Address: fmt.Sprintf("127.0.0.1:%d", s.ports.agents), Hosts: sim.hosts, Joiner: sim, Keeper: sim, Store: sim.journal, Log: s.log,
		Seed: simulationSeed, RayVersions: []string{RayVersion},
		Events: simfleet.Plan(simulationSeed, sim.hosts, simulationDay, simulationRates),
	})
	if err != nil {
		return err
	}
	s.simulation = sim
	if err := sim.start(ctx); err != nil {
		return err
	}
	return sim.setAsks(ctx)
}

func (sim *simulation) seedOwners(ctx context.Context) error {
	people, err := identity.New(sim.stack.pool, sim.stack.signIn())
	if err != nil {
		return err
	}
	for _, name := range simfleet.Owners {
		org, err := people.SeedOrg(ctx, name, false, "")
		if err != nil {
			return fmt.Errorf("seed %s: %w", name, err)
		}
		sim.owners = append(sim.owners, org)
	}
	return nil
}

func (sim *simulation) org(host simfleet.Host) ids.Org {
	if host.Owner == simfleet.Platform {
		return sim.stack.orgs.platform
	}
	return sim.owners[host.Owner]
}

// JoinToken implements simfleet.Joiner.
func (sim *simulation) JoinToken(ctx context.Context, host simfleet.Host) (string, error) {
	_, secret, err := sim.tokens.Create(ctx, sim.org(host), sim.stack.people.Finance.User, host.Kind, host.Region, host.Site)
	return secret, err
}

// SetAsk implements simfleet.Keeper.
func (sim *simulation) SetAsk(ctx context.Context, host simfleet.Host, id ids.Host, ask simfleet.Ask) error {
	var rules pricing.Rules
	if len(ask.Rules) > 0 {
		if err := json.Unmarshal(ask.Rules, &rules); err != nil {
			return fmt.Errorf("read the rules of %s: %w", host.Name, err)
		}
	}
	return sim.market.SetAsk(ctx, sim.org(host), id, market.Ask{Price: ask.Price, Floor: ask.Floor, Rules: rules, Active: true})
}

// Recheck implements simfleet.Keeper.
func (sim *simulation) Recheck(ctx context.Context, host simfleet.Host, id ids.Host) error {
	return sim.registry.Recheck(ctx, sim.org(host), id)
}

// start runs the fleet until stop, and waits for its hosts to connect.
func (sim *simulation) start(ctx context.Context) error {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx)) // it outlives the step that starts it
	sim.cancel = cancel
	ready := make(chan struct{})
	go func() {
		defer close(sim.done)
		sim.failed = sim.fleet.Run(life, func() { close(ready) })
	}()
	bound := time.NewTimer(simulationBound)
	defer bound.Stop()
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	for {
		stats := sim.fleet.Stats()
		select {
		case <-ready:
			return nil
		case <-sim.done:
			return sim.failed
		case <-ticker.C:
			sim.stack.tell("simulated hosts", stats.Connected, stats.Hosts)
		case <-bound.C:
			return fmt.Errorf("only %d of %d simulated hosts have connected within %s. %s", stats.Connected, stats.Hosts, simulationBound, stats.LastRefusal)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// setAsks sets prices where there are none.
func (sim *simulation) setAsks(ctx context.Context) error {
	set := map[ids.Host]bool{}
	for _, org := range sim.owners {
		asks, err := sim.market.Asks(ctx, org)
		if err != nil {
			return err
		}
		for host := range asks {
			set[host] = true
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(askersAtOnce)
	for i, host := range sim.hosts {
		id := sim.fleet.HostID(i)
		if host.Kind != simfleet.KindGPU || set[id] {
			continue
		}
		group.Go(func() error {
			if err := sim.SetAsk(ctx, host, id, host.Ask); err != nil {
				return fmt.Errorf("set the price of %s: %w", host.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// stop ends the agents; their hosts count as lost soon after.
func (sim *simulation) stop() error {
	if sim.cancel != nil {
		sim.cancel()
		<-sim.done
	}
	return sim.journal.Close()
}
