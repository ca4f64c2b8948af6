// Package devstack runs the whole of Muster on one machine, for `musterd up`, `musterd tour` and the end-to-end tests.
//
// Every part is the real one: PostgreSQL, the Solana VM behind JSON-RPC, the signer, the control plane, and three agents (one
// head host and two GPU hosts of different owners) that run real Ray. Only the GPUs are simulated, by a C library loaded through
// the real go-nvml, and they are marked as simulated wherever they show. With Options.Simulate
// there is a large market besides, of hosts that only their agents' protocol makes (package simfleet). Each part is a process of its own and is started again
// when it dies, so killing any of them shows what the others do about it.
//
// Everything that the stack stores lies under Options.Dir and survives a restart; what it seeds (people, owners, prices, the
// first deposit) is seeded once.
//
//	Dir/postgres/    the database          Dir/hosts/NAME/  an agent's identity and Ray nodes
//	Dir/localnet/    the chain             Dir/logs/        one log a part
//	Dir/chain-keys/  development keys      Dir/signer/      the treasury's key, policy and journal
//	Dir/keys/        sealing key, authority of the agents' certificates
package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/config"
	"github.com/muster-gpu/muster/internal/embeddedpg"
	"github.com/muster-gpu/muster/internal/rayaddr"
	"github.com/muster-gpu/muster/internal/seal"
	"github.com/muster-gpu/muster/migrations"
	"github.com/muster-gpu/muster/settlement/localchain"
	"github.com/muster-gpu/muster/settlement/signer"
)

// RayVersion is what the stack's hosts run.
const RayVersion = "2.60.0"

const (
	databaseName = "muster"
	startBound   = 60 * time.Second
	probeTimeout = 2 * time.Second
	slotWindow   = 20 // nodes that one stack may have without meeting another
)

// Options say where things are. Root, Dir, Musterd, Worker and RayVenv are required.
type Options struct {
	Root    string // of the repository: the local chain's program is there
	Dir     string // of the stack's state
	Musterd string // the musterd program
	Worker  string // the muster-worker program
	RayVenv string // a Python environment with Ray
	Cache   string // of downloads: PostgreSQL's programs

	Host        string // name that the console is reached by; default localhost
	Port        int    // of the console; 0: any free one
	AgentPort   int    // of the gateway; 0: any free one
	ChainPort   int    // of the chain's JSON-RPC; 0: any free one
	DatabaseURL string // an existing PostgreSQL instead of an embedded one
	Split       bool   // run the control plane's roles in a process each
	Simulate    int    // so many simulated hosts beside the stack's own, at most MaxSimulated

	Progress func(step string, took time.Duration) // called after each step; may be nil
	Working  func(step string, done, total int)    // called now and then during a long one; may be nil
	Log      *slog.Logger
}

// Stack is a running local stack. Make it with Up, end it with Stop.
type Stack struct {
	options Options
	log     *slog.Logger

	postgres *embeddedpg.Server // nil with an existing database
	chain    *localchain.Chain
	pool     *pgxpool.Pool
	parts    []*part // in the order of their start

	simulation *simulation // nil without simulated hosts

	ports    ports
	reserved []*os.File // the ports, for as long as the stack runs
	people   People
	orgs     organisations
}

type ports struct {
	console, agents, chain, socket int
	ops                            [3]int // one a process of the control plane

	slot int // the first of a run of rayaddr's slots that nothing else on this machine uses
}

// step is one of the things that a start consists of.
type step struct {
	name string
	do   func(context.Context) error
}

// Up starts the stack. On failure it stops what it has started; the error says where the failed part's log is.
func Up(ctx context.Context, options Options) (stack *Stack, err error) {
	if options.Host == "" {
		options.Host = "localhost"
	}
	s := &Stack{options: options, log: options.Log}
	if s.options.Dir, err = filepath.Abs(options.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	steps := []step{
		{"folders and ports", s.prepare},
		{"PostgreSQL", s.startPostgres},
		{"local Solana chain", s.startChain},
		{"mint, treasury and wallets", s.furnishChain},
		{"signer", s.startSigner},
		{"database schema", s.migrate},
		{"people and owners", s.seedPeople},
		{"control plane", s.startControlPlane},
		{"hosts", s.startHosts},
		{"prices and first deposit", s.seedMarket},
	}
	if options.Simulate > 0 {
		steps = append(steps, step{"simulated hosts", s.startSimulation})
	}
	for _, step := range steps {
		began := time.Now()
		if err := step.do(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w (logs are in %s)", step.name, err, s.path("logs"))
		}
		if s.options.Progress != nil {
			s.options.Progress(step.name, time.Since(began))
		}
	}
	return s, nil
}

// Stop ends every part in the reverse order of its start. The state stays.
func (s *Stack) Stop() error {
	var err error
	if s.simulation != nil {
		err = s.simulation.stop()
	}
	for i := len(s.parts) - 1; i >= 0; i-- {
		s.parts[i].stop()
	}
	if s.chain != nil {
		err = errors.Join(err, s.chain.Close())
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.postgres != nil {
		err = errors.Join(err, s.postgres.Stop())
	}
	for _, held := range s.reserved {
		err = errors.Join(err, held.Close())
	}
	s.reserved = nil
	return err
}

func (s *Stack) tell(step string, done, total int) {
	if s.options.Working != nil {
		s.options.Working(step, done, total)
	}
}

// ConsoleURL is where the console and the API are.
func (s *Stack) ConsoleURL() string {
	return fmt.Sprintf("http://%s", net.JoinHostPort(s.options.Host, strconv.Itoa(s.ports.console)))
}

// OpsURL is where metrics and health are.
func (s *Stack) OpsURL() string { return fmt.Sprintf("http://127.0.0.1:%d", s.ports.ops[0]) }

// RPCURL is the chain's JSON-RPC address.
func (s *Stack) RPCURL() string { return fmt.Sprintf("http://127.0.0.1:%d", s.ports.chain) }

// People are the stack's three, with an API key each.
func (s *Stack) People() People { return s.people }

// Pool is a connection pool to the stack's database, for checks.
func (s *Stack) Pool() *pgxpool.Pool { return s.pool }

// Chain gives tests the development chain's keys.
func (s *Stack) Chain() *localchain.Chain { return s.chain }

// Pid is the process id of a part: "postgres", "localnet", "signer", "musterd" (with Options.Split
// also "scheduler" and "settlement"), or a host's name. It is 0 for an unknown one.
func (s *Stack) Pid(part string) int {
	if part == "postgres" && s.postgres != nil {
		return s.postgres.Pid()
	}
	for _, p := range s.parts {
		if p.name == part {
			return p.pid()
		}
	}
	return 0
}

func (s *Stack) path(elements ...string) string {
	return filepath.Join(append([]string{s.options.Dir}, elements...)...)
}

func (s *Stack) prepare(ctx context.Context) error {
	for _, dir := range []string{"logs", "keys", "signer", "hosts", "nvml"} {
		if err := os.MkdirAll(s.path(dir), 0o750); err != nil {
			return err
		}
	}
	for _, p := range []struct {
		port   *int
		wanted int
		flag   string
	}{
		{&s.ports.console, s.options.Port, "--port"},
		{&s.ports.agents, s.options.AgentPort, "--agent-port"},
		{&s.ports.chain, s.options.ChainPort, "--chain-port"},
		{&s.ports.ops[0], 0, ""},
		{&s.ports.ops[1], 0, ""},
		{&s.ports.ops[2], 0, ""},
		{&s.ports.socket, 0, ""},
	} {
		port, held, err := reservePort(p.wanted)
		if err != nil {
			return fmt.Errorf("port %d is taken: is another stack running? choose another with %s (0 takes any free one): %w", p.wanted, p.flag, err)
		}
		*p.port, s.reserved = port, append(s.reserved, held)
	}
	s.ports.slot = freeSlots(ctx)
	return nil
}

// freeSlots finds a run of slots that no other stack's Ray uses now. It begins anywhere, so that stacks that start together
// rarely meet.
func freeSlots(ctx context.Context) int {
	windows := rayaddr.Slots / slotWindow
	first := rand.IntN(windows) //nolint:gosec // it only spreads stacks, nothing is secret about it
	for i := range windows {
		slot := (first + i) % windows * slotWindow
		if !slices.ContainsFunc(windowPorts(slot), func(port int) bool { return taken(ctx, port) }) {
			return slot
		}
	}
	return first * slotWindow
}

// windowPorts are the ports that each of a window's nodes certainly listens on.
func windowPorts(slot int) []int {
	var all []int
	for i := range slotWindow {
		ports := rayaddr.PortsFrom(rayaddr.PortBase(slot+i), rayaddr.PortCount)
		all = append(all, ports.GCS, ports.NodeManager, ports.ObjectManager)
	}
	return all
}

func taken(ctx context.Context, port int) bool {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return true
	}
	return listener.Close() != nil
}

func (s *Stack) startPostgres(ctx context.Context) error {
	if s.options.DatabaseURL == "" {
		server, err := embeddedpg.Start(ctx, embeddedpg.Options{
			DataDir: s.path("postgres"), BinariesDir: filepath.Join(s.options.Cache, "postgres"), Log: s.log, Restart: true,
		})
		if err != nil {
			return err
		}
		s.postgres = server
		if err := server.EnsureDatabase(ctx, databaseName); err != nil {
			return err
		}
	}
	pool, err := pgxpool.New(ctx, s.databaseURL())
	if err != nil {
		return err
	}
	s.pool = pool
	return pool.Ping(ctx)
}

func (s *Stack) databaseURL() string {
	if s.postgres != nil {
		return s.postgres.URL(databaseName)
	}
	return s.options.DatabaseURL
}

func (s *Stack) migrate(ctx context.Context) error { return migrations.Up(ctx, s.databaseURL()) }

func (s *Stack) startChain(ctx context.Context) error {
	err := s.start("localnet", func(ctx context.Context) *exec.Cmd {
		return exec.CommandContext(ctx, "node", filepath.Join(s.options.Root, "deploy", "localnet", "server.js"),
			"--state", s.path("localnet"), "--port", strconv.Itoa(s.ports.chain), "--ws-port", strconv.Itoa(s.ports.socket))
	})
	if err != nil {
		return err
	}
	return waitFor(ctx, "the chain does not answer", startBound, probe(s.RPCURL()+"/health"))
}

func (s *Stack) furnishChain(ctx context.Context) error {
	keyFile := s.path("signer", "treasury.key")
	treasury, err := signer.Treasury(keyFile)
	if errors.Is(err, os.ErrNotExist) {
		treasury, err = signer.Init(keyFile)
	}
	if err != nil {
		return err
	}
	s.chain, err = localchain.Setup(ctx, localchain.Config{
		URL: s.RPCURL(), Dir: s.path("chain-keys"), Treasury: treasury, Log: s.log,
	})
	return err
}

func (s *Stack) startSigner(ctx context.Context) error {
	policy := s.path("signer", "policy.json")
	if err := s.chain.Policy().WriteFile(policy); err != nil {
		return err
	}
	err := s.start("signer", func(ctx context.Context) *exec.Cmd {
		return exec.CommandContext(ctx, s.options.Musterd, "signer", "serve", "--socket", s.signerSocket(), "--key", s.path("signer", "treasury.key"),
			"--policy", policy, "--journal", s.path("signer", "journal"))
	})
	if err != nil {
		return err
	}
	client := signer.NewClient(s.signerSocket())
	return waitFor(ctx, "the signer does not answer", startBound, func(ctx context.Context) error {
		_, err := client.Addresses(ctx)
		return err
	})
}

// signerSocket is in the temporary folder, because a socket's path may not be long.
func (s *Stack) signerSocket() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("muster-signer-%d.sock", s.ports.console))
}

func (s *Stack) startControlPlane(ctx context.Context) error {
	sealing := s.path("keys", "sealing.key")
	if err := writeOnce(sealing, seal.NewKey()); err != nil {
		return err
	}
	environment := append(os.Environ(), s.environment(sealing)...)
	for _, process := range s.controlPlane() {
		if err := s.startMusterd(ctx, process, environment); err != nil {
			return err
		}
	}
	return nil
}

// musterd is one process of the control plane.
type musterd struct {
	name  string
	roles []string
	ops   int // port of its ops listener
}

func (s *Stack) controlPlane() []musterd {
	if !s.options.Split {
		return []musterd{{"musterd", []string{config.RoleAPI, config.RoleScheduler, config.RoleSettlement}, s.ports.ops[0]}}
	}
	return []musterd{
		{"musterd", []string{config.RoleAPI}, s.ports.ops[0]},
		{"scheduler", []string{config.RoleScheduler}, s.ports.ops[1]},
		{"settlement", []string{config.RoleSettlement}, s.ports.ops[2]},
	}
}

func (s *Stack) startMusterd(ctx context.Context, process musterd, environment []string) error {
	listen := fmt.Sprintf("127.0.0.1:%d", process.ops)
	err := s.start(process.name, func(ctx context.Context) *exec.Cmd {
		cmd := exec.CommandContext(ctx, s.options.Musterd, "serve", "--roles", strings.Join(process.roles, ","), "--api.ops_listen", listen)
		cmd.Env = environment
		return cmd
	})
	if err != nil {
		return err
	}
	return waitFor(ctx, process.name+" is not ready", startBound, probe("http://"+listen+"/readyz"))
}

func (s *Stack) environment(sealing string) []string {
	console := net.JoinHostPort(s.options.Host, strconv.Itoa(s.ports.console))
	gateway := fmt.Sprintf("127.0.0.1:%d", s.ports.agents)
	settings := map[string]string{
		"DATABASE_URL":            s.databaseURL(),
		"SEALING_KEY_FILE":        sealing,
		"SIGNER_SOCKET":           s.signerSocket(),
		"RAY_VERSION":             RayVersion,
		"FIRST_SLOT":              strconv.Itoa(s.ports.slot),
		"API__LISTEN":             fmt.Sprintf("127.0.0.1:%d", s.ports.console),
		"API__PUBLIC_URL":         s.ConsoleURL(),
		"API__HOSTS":              fmt.Sprintf("127.0.0.1:%d", s.ports.console),
		"API__DASHBOARD_SUFFIX":   console,
		"AGENTS__LISTEN":          gateway,
		"AGENTS__PUBLIC_ADDRESS":  gateway,
		"AGENTS__AUTHORITY_DIR":   s.path("keys", "authority"),
		"AGENTS__ALLOW_SIMULATED": "true",
		"CHAIN__NETWORK":          config.NetworkLocal,
		"CHAIN__RPC_URL":          s.RPCURL(),
		"CHAIN__WEBSOCKET_URL":    fmt.Sprintf("ws://127.0.0.1:%d", s.ports.socket),
		"CHAIN__MINT":             s.chain.Mint.String(),
		"CHAIN__SYMBOL":           s.chain.Currency().Symbol,
		"CHAIN__DECIMALS":         strconv.Itoa(s.chain.Currency().Decimals),
		"CHAIN__TREASURY":         s.chain.Treasury.String(),
		"PAYOUTS__MINIMUM":        "0.000001",
		"PAYOUTS__SELF_APPROVAL":  "true",
		"LOCAL__DIR":              s.path("chain-keys"),
	}
	var environment []string
	for name, value := range settings {
		environment = append(environment, "MUSTER_"+name+"="+value)
	}
	return environment
}

// start adds a part and starts it.
func (s *Stack) start(name string, command func(context.Context) *exec.Cmd) error {
	p := newPart(s.path("logs"), name, s.log, command)
	if err := p.start(); err != nil {
		return err
	}
	s.parts = append(s.parts, p)
	return nil
}

// writeOnce stores a fresh secret unless there is one.
func writeOnce(path string, secret []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = file.Write(secret)
	return errors.Join(err, file.Sync(), file.Close())
}

func probe(address string) func(context.Context) error {
	client := &http.Client{Timeout: probeTimeout}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
			return fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(body)))
		}
		return nil
	}
}
