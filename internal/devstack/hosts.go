package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/muster-gpu/muster/internal/fakenvml"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/fleet"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// Region is where the stack's own hosts are. Simulated ones are in others.
const Region = "eu-north"

const (
	gpusPerHost = 4
	hostsBound  = 60 * time.Second
)

// host is one of the stack's machines.
type host struct {
	name    string
	kind    string
	org     ids.Org
	profile string       // of its simulated GPUs
	price   money.Amount // per GPU-hour
}

// hosts ask the same price: a failed node is replaced at no more than its price, so each can stand in for the other.
func (s *Stack) hosts() []host {
	return []host{
		{name: "head", kind: fleet.KindHead, org: s.orgs.platform},
		{name: "ridge", kind: fleet.KindGPU, org: s.orgs.ridge, profile: "h100-sxm", price: 1_900_000},
		{name: "fjord", kind: fleet.KindGPU, org: s.orgs.fjord, profile: "h100-sxm", price: 1_900_000},
	}
}

// startHosts enrols the agents that have no identity yet, starts all of them and waits until each is fit to be booked.
func (s *Stack) startHosts(ctx context.Context) error {
	library, err := fakenvml.Build(ctx, s.path("nvml"))
	if err != nil {
		return err
	}
	authority, err := fleet.OpenAuthority(s.path("keys", "authority"))
	if err != nil {
		return err
	}
	tokens := fleet.NewTokens(s.pool, authority)
	for _, h := range s.hosts() {
		if err := s.startHost(ctx, tokens, h, library); err != nil {
			return fmt.Errorf("host %s: %w", h.name, err)
		}
	}
	return waitFor(ctx, "not all hosts have connected", hostsBound, s.hostsConnected)
}

func (s *Stack) startHost(ctx context.Context, tokens *fleet.Tokens, h host, library string) error {
	state := s.path("hosts", h.name)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	arguments := []string{
		"run", "--name", h.name, "--state-dir", state, "--server", fmt.Sprintf("127.0.0.1:%d", s.ports.agents), "--ray-venv", s.options.RayVenv,
		"--stop-nodes-on-exit",
	}
	environment := os.Environ()
	if h.kind == fleet.KindGPU {
		profile, err := fakenvml.WriteProfile(filepath.Join(state, "nvml"), h.profile, gpusPerHost, h.name)
		if err != nil {
			return err
		}
		arguments = append(arguments, "--nvml-library", library)
		environment = append(environment, "MUSTER_FAKE_NVML_PROFILE="+profile)
	} else {
		arguments = append(arguments, "--no-gpus")
	}
	if _, err := os.Stat(filepath.Join(state, "identity.json")); errors.Is(err, os.ErrNotExist) {
		_, secret, err := tokens.Create(ctx, h.org, s.people.Finance.User, h.kind, Region, "local")
		if err != nil {
			return err
		}
		environment = append(environment, "MUSTER_JOIN_TOKEN="+secret)
	}
	return s.start(h.name, func(ctx context.Context) *exec.Cmd {
		cmd := exec.CommandContext(ctx, s.options.Worker, arguments...)
		cmd.Env = environment
		return cmd
	})
}

// hostsConnected looks in the database, where a host is fit once its inventory has been taken.
func (s *Stack) hostsConnected(ctx context.Context) error {
	var fit int
	var names []string
	for _, h := range s.hosts() {
		names = append(names, h.name)
	}
	err := s.pool.QueryRow(ctx, `SELECT count(*) FROM hosts WHERE connected AND state IN ('idle', 'leased') AND name = ANY($1)`, names).Scan(&fit)
	if err == nil && fit < len(s.hosts()) {
		return fmt.Errorf("%d of %d are fit", fit, len(s.hosts()))
	}
	return err
}

// newMarket makes a market that sets prices; nobody books in it.
func (s *Stack) newMarket() *market.Service {
	currency := s.chain.Currency()
	return market.New(s.pool, pgnotify.New(s.pool, s.log), census.New(s.pool, s.log), ledger.New(currency), currency, market.FlatFee(0), RayVersion, s.log)
}

// seedMarket sets prices where there are none and pays the first deposit.
func (s *Stack) seedMarket(ctx context.Context) error {
	service := s.newMarket()
	for _, h := range s.hosts() {
		if h.kind != fleet.KindGPU {
			continue
		}
		asks, err := service.Asks(ctx, h.org)
		if err != nil {
			return err
		}
		if len(asks) > 0 {
			continue
		}
		var id ids.Host
		if err := s.pool.QueryRow(ctx, `SELECT id FROM hosts WHERE org_id = $1 AND kind = 'gpu' AND state <> 'retired'`, h.org).Scan(&id); err != nil {
			return fmt.Errorf("find host %s: %w", h.name, err)
		}
		if err := service.SetAsk(ctx, h.org, id, market.Ask{Price: h.price, Active: true}); err != nil {
			return err
		}
	}
	return s.firstDeposit(ctx)
}
