package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api"
	"github.com/muster-gpu/muster/api/identity"
	"github.com/muster-gpu/muster/api/rayproxy"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/config"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/lifecycle"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/pguuid"
	"github.com/muster-gpu/muster/internal/seal"
	"github.com/muster-gpu/muster/migrations"
	"github.com/muster-gpu/muster/scheduler/applier"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/cluster"
	"github.com/muster-gpu/muster/scheduler/fleet"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
	"github.com/muster-gpu/muster/settlement/chain"
	closing "github.com/muster-gpu/muster/settlement/close"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/localchain"
	"github.com/muster-gpu/muster/settlement/metering"
	"github.com/muster-gpu/muster/settlement/payouts"
	"github.com/muster-gpu/muster/settlement/proof/manifests"
	"github.com/muster-gpu/muster/settlement/reconcile"
	"github.com/muster-gpu/muster/settlement/signer"
	"github.com/muster-gpu/muster/settlement/soljournal"
	"github.com/muster-gpu/muster/settlement/statements"
	"github.com/muster-gpu/muster/settlement/sweeps"
	"github.com/muster-gpu/muster/web"
)

const (
	partStop        = 10 * time.Second
	connectTimeout  = 30 * time.Second
	readyTimeout    = 3 * time.Second
	depositInterval = time.Second
	meterInterval   = time.Second
	purgeInterval   = time.Hour
	maxConnections  = 32
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the control plane's roles", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := config.Load(cmd.Flags())
			if err != nil {
				return err
			}
			if err := settings.Validate(); err != nil {
				return fmt.Errorf("the configuration is not right:\n%w", err)
			}
			log, err := newLogger(settings.Log)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), settings, log)
		},
	}
	config.Flags(cmd.Flags())
	return cmd
}

func migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "migrate", Short: "Bring the database's schema up to this version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := config.Load(cmd.Flags())
			if err != nil {
				return err
			}
			if settings.DatabaseURL == "" {
				return errors.New("set --database_url, or DATABASE_URL, to a PostgreSQL URL")
			}
			return migrations.Up(cmd.Context(), settings.DatabaseURL)
		},
	}
	config.Flags(cmd.Flags())
	return cmd
}

// plane is what the roles share. Its fields are made in the order of newPlane.
type plane struct {
	config   config.Config
	log      *slog.Logger
	registry *prometheus.Registry
	pool     *pgxpool.Pool
	hub      *pgnotify.Hub
	fleet    *census.Census
	box      *seal.Box

	ledger *ledger.Ledger
	meter  *metering.Meter
	chain  *chain.Client
	signer *signer.Client

	genesis         chain.Hash // names the cluster
	treasuryAccount chain.Address
	deposits        *deposits.Service
	sweeps          *sweeps.Service
	payouts         *payouts.Service
	manifests       *manifests.Service
	reconcile       *reconcile.Service
	solJournal      *soljournal.Service
	statements      *statements.Service
	fees            *statements.Fees

	parts *lifecycle.Group
}

func serve(ctx context.Context, settings config.Config, log *slog.Logger) error {
	p, err := newPlane(ctx, settings, log)
	if err != nil {
		return err
	}
	defer p.pool.Close()
	defer func() { _ = p.chain.Close() }()
	p.parts.Add("notifications", partStop, p.hub.Run)
	if settings.Has(config.RoleScheduler) || settings.Has(config.RoleAPI) {
		p.parts.Add("census", partStop, p.fleet.Run)
	}
	if settings.Has(config.RoleScheduler) {
		p.addScheduler()
	}
	if settings.Has(config.RoleSettlement) {
		p.addSettlement()
	}
	if err := p.addListeners(ctx); err != nil {
		return err
	}
	log.InfoContext(ctx, "starting", "version", version, "roles", settings.Roles, "network", settings.Chain.Network)
	return p.parts.Run(ctx)
}

func newPlane(ctx context.Context, settings config.Config, log *slog.Logger) (*plane, error) {
	p := &plane{config: settings, log: log, registry: prometheus.NewRegistry(), parts: lifecycle.New(log)}
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	key, err := os.ReadFile(settings.SealingKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the sealing key: %w", err)
	}
	if p.box, err = seal.New(key); err != nil {
		return nil, err
	}
	if p.pool, err = openPool(ctx, settings.DatabaseURL); err != nil {
		return nil, err
	}
	p.hub = pgnotify.New(p.pool, log)
	p.fleet = census.New(p.pool, log)
	p.ledger = ledger.New(settings.Currency())
	p.meter = metering.New(p.pool, p.ledger, meterInterval, log)
	p.statements = statements.New(p.pool, p.ledger, log)
	if err := p.beginFees(ctx); err != nil {
		return nil, err
	}
	p.signer = signer.NewClient(settings.SignerSocket)
	if p.chain, err = chain.New(chain.Config{
		URL: settings.Chain.RPCURL, URLs: settings.Chain.RPCURLs, WebsocketURL: settings.Chain.WebsocketURL,
		RequestsPerSecond: float64(settings.Chain.RPCRate),
	}); err != nil {
		return nil, err
	}
	if !p.chain.Compares() {
		log.InfoContext(ctx, "there is one RPC endpoint: what it says about money is compared with nobody's", "network", settings.Chain.Network)
	}
	if err := p.addChainServices(ctx); err != nil {
		return nil, err
	}
	p.showShared()
	return p, nil
}

// beginFees makes the configured fee the first row of the schedule, which is changed by finance from then on.
func (p *plane) beginFees(ctx context.Context) error {
	p.fees = statements.NewFees(p.pool)
	current, err := p.fees.Begin(ctx, p.config.Market.FeeBps)
	if err != nil {
		return err
	}
	if current != p.config.Market.FeeBps {
		p.log.InfoContext(ctx, "the fee schedule is in force, market.fee_bps was only its beginning", "fee_bps", current, "configured_fee_bps", p.config.Market.FeeBps)
	}
	return nil
}

func openPool(ctx context.Context, databaseURL string) (*pgxpool.Pool, error) {
	poolConfig, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("database_url: %w", err)
	}
	poolConfig.MaxConns = max(poolConfig.MaxConns, maxConnections)
	poolConfig.AfterConnect = pguuid.Register
	pool, err := pgxpool.NewWithConfig(ctx, poolConfig)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("reach the database: %w", err)
	}
	return pool, nil
}

// addChainServices makes what settlement and its readers have to do with the chain.
func (p *plane) addChainServices(ctx context.Context) error {
	treasury, err := chain.ParseAddress(p.config.Chain.Treasury)
	if err != nil {
		return fmt.Errorf("chain.treasury: %w", err)
	}
	mint, err := chain.ParseAddress(p.config.Chain.Mint)
	if err != nil {
		return fmt.Errorf("chain.mint: %w", err)
	}
	if p.treasuryAccount, err = chain.AssociatedTokenAccount(treasury, mint, chain.TokenProgram); err != nil {
		return err
	}
	if p.config.Has(config.RoleAPI) || p.config.Has(config.RoleSettlement) { // the scheduler needs no chain
		if p.genesis, err = p.chain.GenesisHash(ctx); err != nil {
			return fmt.Errorf("reach the chain at %s: %w", p.config.Chain.RPCURL, err)
		}
	}
	if p.sweeps, err = sweeps.New(p.pool, p.ledger, p.chain, p.signer, sweeps.Options{Minimum: p.amount(p.config.Payouts.SweepMinimum), Log: p.log}); err != nil {
		return err
	}
	p.manifests = manifests.New(p.pool, manifests.Config{
		Network: p.genesis.String(), Mint: mint.String(), Treasury: p.treasuryAccount.String(),
	})
	wake, _ := p.hub.Subscribe(pgnotify.ChannelSettlement)
	p.payouts = payouts.New(p.pool, p.ledger, p.chain, p.signer, payouts.Options{
		Minimum: p.amount(p.config.Payouts.Minimum), DualAbove: p.amount(p.config.Payouts.DualAbove), MaxPriorityFee: uint64(p.config.Payouts.MaxPriorityFee),
		Concurrency: p.config.Payouts.Concurrency, SelfApproval: p.config.Payouts.SelfApproval, Manifests: p.manifests, Wake: wake, Log: p.log,
	})
	if p.deposits, err = deposits.New(p.pool, p.ledger, p.chain, p.signer, deposits.Config{
		TokenProgram: chain.TokenProgram, Treasury: treasury, Minimum: p.amount(p.config.Payouts.MinimumDeposit), Interval: depositInterval,
		Refunds: p.payouts,
	}, p.log); err != nil {
		return err
	}
	p.solJournal = soljournal.New(p.pool, p.chain, treasury, p.log)
	p.reconcile = reconcile.New(p.pool, p.ledger, p.chain, reconcile.Config{
		Treasury: p.treasuryAccount, SOL: p.solJournal, Wallet: treasury, Tokens: p.chain, CatchUp: p.deposits.Poll, Interval: p.config.Payouts.Reconcile,
	}, p.log)
	return nil
}

// amount reads a configured amount; Validate has checked it.
func (p *plane) amount(text string) money.Amount {
	amount, err := p.config.Currency().Parse(text)
	if err != nil {
		panic(err)
	}
	return amount
}

func (p *plane) addScheduler() {
	clusters := applier.New(p.pool, p.hub, p.fleet, p.ledger, p.box, p.config.RayVersion, p.log)
	clusters.StartAtSlot(p.config.FirstSlot)
	life := cluster.NewLifecycle(p.pool, p.hub, clusters, balances{p.meter}, p.log)
	p.showScheduler(clusters, life)
	p.addLed(leader.RoleScheduler, clusters.Run, life.Run, p.fleet.Purge, fleet.NewCare(p.pool, p.log).Run, p.market().Run)
}

// balances tells the scheduler what organisations can still spend.
type balances struct{ meter *metering.Meter }

func (b balances) Available(ctx context.Context, org ids.Org) (money.Amount, error) {
	wallet, err := b.meter.Wallet(ctx, org)
	return wallet.Available, err
}

// fees tells the market what the schedule says.
type fees struct{ schedule *statements.Fees }

func (f fees) FeeBps(ctx context.Context, db schedulerdb.DBTX, customer ids.Org) (int, error) {
	return f.schedule.FeeBps(ctx, db, customer)
}

func (p *plane) market() *market.Service {
	return market.New(p.pool, p.hub, p.fleet, p.ledger, p.config.Currency(), fees{p.fees}, p.config.RayVersion, p.log)
}

func (p *plane) addSettlement() {
	p.showSettlement()
	p.addLed(leader.RoleSettlement, p.meter.Run, p.deposits.Run, p.sweeps.Run, p.payouts.Run, p.reconcile.Run)
}

// addLed adds parts that one process at a time runs, under a term.
func (p *plane) addLed(role string, parts ...func(ctx context.Context, term int64) error) {
	elector := leader.New(p.pool, role, holder(), p.log)
	p.parts.Add(role, partStop, func(ctx context.Context, ready func()) error {
		return elector.Run(ctx, ready, func(ctx context.Context, term int64) error { return together(ctx, term, parts) })
	})
}

// together runs parts until ctx ends; the first that fails ends the others.
func together(ctx context.Context, term int64, parts []func(context.Context, int64) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, len(parts))
	for _, run := range parts {
		go func() { results <- run(ctx, term) }()
	}
	var failures error
	for range parts {
		failures = errors.Join(failures, <-results)
		cancel()
	}
	return failures
}

func holder() string {
	name, _ := os.Hostname()
	return fmt.Sprintf("%s/%d", name, os.Getpid())
}

// addListeners adds the agents' gateway, the API and the ops listener. The last serves every role.
func (p *plane) addListeners(ctx context.Context) error {
	if !p.config.Has(config.RoleAPI) {
		p.parts.Add("ops listener", partStop, p.listen(p.config.API.OpsListen, &http.Server{Handler: p.ops(), ReadHeaderTimeout: partStop}))
		return nil
	}
	server, gateway, err := p.newAPI(ctx)
	if err != nil {
		return err
	}
	p.parts.Add("agents' gateway", partStop, gateway.Run)
	p.parts.Add("ops listener", partStop, p.listen(p.config.API.OpsListen, server.HTTPServer(server.OpsHandler())))
	p.parts.Add("API's own work", partStop, server.Run)
	p.parts.Add("API", p.config.ShutdownTimeout+partStop, p.listen(p.config.API.Listen, server.HTTPServer(server.Handler())))
	return nil
}

// ops is the operators' listener of a process without an API, which brings one of its own.
func (p *plane) ops() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := p.pool.Ping(ctx); err != nil {
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	return mux
}

// listen serves HTTP until its context ends, then lets open requests finish.
func (p *plane) listen(address string, server *http.Server) lifecycle.Func {
	return func(ctx context.Context, ready func()) error {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return err
		}
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		ready()
		select {
		case err := <-served:
			return err
		case <-ctx.Done():
		}
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.config.ShutdownTimeout)
		defer cancel()
		if err := server.Shutdown(bound); err != nil {
			return errors.Join(err, server.Close()) // streams that would not end
		}
		return nil
	}
}

func (p *plane) newAPI(ctx context.Context) (*api.Server, *fleet.Gateway, error) {
	authority, err := fleet.OpenAuthority(p.config.Agents.AuthorityDir)
	if err != nil {
		return nil, nil, err
	}
	gateway, err := fleet.NewGateway(fleet.Options{
		Pool: p.pool, Authority: authority, Unsealer: p.box, Notifications: p.hub, Address: p.config.Agents.Listen, Log: p.log,
		Registerer: p.registry, HeartbeatInterval: p.config.Agents.HeartbeatInterval, AllowSimulated: p.config.Agents.AllowSimulated,
	})
	if err != nil {
		return nil, nil, err
	}
	people, err := identity.New(p.pool, p.signIn())
	if err != nil {
		return nil, nil, err
	}
	p.parts.Add("identity", partStop, people.Run)
	clusters := cluster.NewService(p.pool)
	proxy := rayproxy.New(rayproxy.Options{
		Pool: p.pool, Dialer: gateway, Unsealer: p.box, Sessions: clusters, PublicURL: p.config.API.PublicURL, DashboardSuffix: p.config.API.DashboardSuffix, Log: p.log,
	})
	p.parts.Add("Ray credentials", partStop, p.every(purgeInterval, "purge Ray credentials", proxy.Purge))
	network, faucet, err := p.network(ctx)
	if err != nil {
		return nil, nil, err
	}
	options := api.Options{
		Log: p.log, Registry: p.registry, Pool: p.pool, Seal: p.box,
		PublicURL: p.config.API.PublicURL, HostNames: p.config.API.Hosts, Network: network, Currency: p.config.Currency(),
		Identity: people, Market: p.market(),
		Clusters: clusters, Fleet: fleet.NewRegistry(p.pool, p.config.Currency(), p.config.RayVersion), JoinTokens: fleet.NewTokens(p.pool, authority),
		Ray: proxy, Meter: p.meter, Deposits: p.deposits, Sweeps: p.sweeps, Payouts: p.payouts, Manifests: p.manifests, Reconciliations: p.reconcile, SOLJournal: p.solJournal,
		Periods:    closing.New(p.pool, closing.Options{Currency: p.config.Currency(), SelfApproval: p.config.Payouts.SelfApproval}),
		Statements: p.statements, Fees: p.fees, Notifications: p.hub,
		Faucet: faucet, GatewayAddress: p.config.Agents.PublicAddress, Console: p.console(),
		RayProxy: proxy.Programs(), Dashboards: proxy.Dashboards(), IsDashboard: proxy.IsDashboard, Ready: p.pool.Ping,
	}
	server, err := api.New(options)
	return server, gateway, err
}

// console is the built console, or nil, and then the log says why there is none.
func (p *plane) console() fs.FS {
	files, err := web.Files()
	if err != nil {
		p.log.Warn("no console", "error", err)
		return nil
	}
	return files
}

func (p *plane) signIn() identity.SignInConfig {
	domain := p.config.API.PublicURL
	if public, err := url.Parse(p.config.API.PublicURL); err == nil {
		domain = public.Host
	}
	return identity.SignInConfig{Domain: domain, URI: p.config.API.PublicURL, ChainID: p.signInChain(), Statement: "Sign in to Muster."}
}

func (p *plane) signInChain() string {
	switch p.config.Chain.Network {
	case config.NetworkLocal:
		return "solana:localnet"
	default:
		return "solana:" + p.config.Chain.Network
	}
}

// network describes the chain, and on the local one offers its faucet and wallets.
func (p *plane) network(ctx context.Context) (apiv1.Network, api.Faucet, error) {
	network := apiv1.Network{
		Name: p.config.Chain.Network, GenesisHash: p.genesis.String(), Mint: p.config.Chain.Mint, Symbol: p.config.Chain.Symbol,
		Decimals: p.config.Chain.Decimals, Treasury: p.treasuryAccount.String(), ExplorerTransaction: p.config.Chain.Explorer,
		SignInDomain: p.signIn().Domain, SignInChain: p.signInChain(), Version: version,
	}
	if p.config.Local.Dir == "" {
		return network, nil, nil
	}
	treasury, err := chain.ParseAddress(p.config.Chain.Treasury)
	if err != nil {
		return apiv1.Network{}, nil, err
	}
	local, err := localchain.Setup(ctx, localchain.Config{URL: p.config.Chain.RPCURL, Dir: p.config.Local.Dir, Treasury: treasury, Log: p.log})
	if err != nil {
		return apiv1.Network{}, nil, err
	}
	for _, w := range []struct {
		wallet localchain.Wallet
		name   string
	}{{local.Engineer, "Ada, ML engineer"}, {local.Owner, "Olaf, GPU owner"}, {local.Finance, "Fin, finance"}} {
		key, err := w.wallet.Key()
		if err != nil {
			return apiv1.Network{}, nil, err
		}
		network.BurnerWallets = append(network.BurnerWallets, apiv1.BurnerWallet{
			Name: w.name, Role: w.wallet.Name, Address: w.wallet.Address.String(), SecretKey: base64.StdEncoding.EncodeToString(key),
		})
	}
	return network, &faucet{chain: local, deposits: p.deposits}, nil
}

// faucet pays test tokens to an organisation's deposit address.
type faucet struct {
	chain    *localchain.Chain
	deposits *deposits.Service
}

// Drip implements api.Faucet.
func (f *faucet) Drip(ctx context.Context, org ids.Org, amount money.Amount) (string, error) {
	to, err := f.deposits.Address(ctx, org)
	if err != nil {
		return "", err
	}
	wallet, err := chain.ParseAddress(to.Wallet)
	if err != nil {
		return "", err
	}
	signature, err := f.chain.MintTo(ctx, wallet, uint64(amount))
	return signature.String(), err
}

// every makes a part that does something now and then; its failures are logged and do not matter until they last.
func (p *plane) every(interval time.Duration, what string, do func(context.Context) error) lifecycle.Func {
	return func(ctx context.Context, ready func()) error {
		ready()
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
			if err := do(ctx); err != nil && ctx.Err() == nil {
				p.log.WarnContext(ctx, "housekeeping failed", "task", what, "error", err)
			}
		}
	}
}
