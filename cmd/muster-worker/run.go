package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/worker/agent"
	"github.com/muster-gpu/muster/worker/inventory"
	"github.com/muster-gpu/muster/worker/runtime/process"
)

// tokenVariable carries a join token where a command line would show it to every user of the machine.
const tokenVariable = "MUSTER_JOIN_TOKEN" //nolint:gosec // the name of a variable

// runtimeDir is the runtime's part of the state directory.
const runtimeDir = "runtime"

// runtimeName is what an inventory calls the process runtime.
const runtimeName = "process"

const nameFlag = "name"

// settings are the flags of join and run.
type settings struct {
	stateDir string
	server   string
	token    string
	name     string
	logLevel string

	nvmlLibrary       string
	noGPUs            bool
	inventoryInterval time.Duration

	rayVenv          string
	tempRoot         string
	objectStoreBytes int64
	nodeCPUs         int
	stopNodesOnExit  bool
}

func (s *settings) addRunFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&s.name, nameFlag, "", "what people see as this host's name, for several agents on one machine (default: the machine's name)")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if !cmd.Flags().Changed(nameFlag) {
			s.name = agent.DefaultName()
			return nil
		}
		return agent.CheckName(s.name)
	}
	flags.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&s.nvmlLibrary, "nvml-library", "", "load this NVML library instead of the system's libnvidia-ml.so.1")
	flags.BoolVar(&s.noGPUs, "no-gpus", false, "do not look for GPUs: a host for Ray heads")
	flags.DurationVar(&s.inventoryInterval, "inventory-interval", agent.DefaultInventoryInterval, "how often to look at the GPUs")
	flags.StringVar(&s.rayVenv, "ray-venv", "", "Python virtual environment that has ray[default]")
	flags.StringVar(&s.tempRoot, "temp-root", "", "short path for Ray's session folders (default: under the system's temporary folder)")
	flags.Int64Var(&s.objectStoreBytes, "object-store-bytes", 0, "shared memory of each node's object store (default: the runtime's)")
	flags.IntVar(&s.nodeCPUs, "node-cpus", 0, "logical CPUs that each GPU node offers (default: all)")
	flags.BoolVar(&s.stopNodesOnExit, "stop-nodes-on-exit", false, "stop all Ray nodes when muster-worker ends, instead of leaving them for the next one")
}

func (s *settings) self() agent.Self { return agent.Self{Name: s.name, Version: version()} }

func addStateFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "state-dir", defaultStateDir(), "where this host's identity and records are kept")
}

// defaultStateDir follows the conventions of system services and of users.
func defaultStateDir() string {
	const name = "muster-worker"
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib", name)
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, name)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return name
	}
	return filepath.Join(home, ".local", "state", name)
}

func runCommand() *cobra.Command {
	s := &settings{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Keep this host connected and run what is wanted on it",
		Long: "run keeps this host connected until it is told to stop. With --server and a join token it enrols the host first, if it is not\n" +
			"enrolled yet; a host that is ignores the token, so the same command line serves every start. --server also tells an enrolled\n" +
			"host that its control plane has moved; another control plane is not believed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := agent.OpenState(s.stateDir)
			if err != nil {
				return err
			}
			defer state.Close() //nolint:errcheck // only unlocks
			if s.token != "" || os.Getenv(tokenVariable) != "" {
				if _, err = s.enrol(cmd.Context(), state); err != nil {
					return err
				}
			}
			if s.server != "" {
				if err := agent.Move(state, s.server); err != nil {
					return err
				}
			}
			return s.run(cmd.Context(), state)
		},
	}
	addStateFlag(cmd, &s.stateDir)
	cmd.Flags().StringVar(&s.server, "server", "", "control plane to enrol with or, once enrolled, to dial, HOST:PORT")
	cmd.Flags().StringVar(&s.token, "join-token", "", "enrol first, unless enrolled already (or the environment's "+tokenVariable+")")
	s.addRunFlags(cmd)
	return cmd
}

func joinCommand() *cobra.Command {
	s := &settings{}
	run := false
	cmd := &cobra.Command{
		Use:     "join",
		Short:   "Enrol this machine with a join token",
		Example: "  muster-worker join --server muster.example.com:7443 --token mjt_... --ray-venv /opt/ray --run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := agent.OpenState(s.stateDir)
			if err != nil {
				return err
			}
			defer state.Close() //nolint:errcheck // only unlocks
			identity, err := s.enrol(cmd.Context(), state)
			if err != nil {
				return err
			}
			if run {
				return s.run(cmd.Context(), state)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "This machine is host %s. Now run:\n  muster-worker run --state-dir %s --ray-venv VENV\n", identity.HostID, s.stateDir)
			return err
		},
	}
	addStateFlag(cmd, &s.stateDir)
	cmd.Flags().StringVar(&s.server, "server", "", "control plane, HOST:PORT (required)")
	cmd.Flags().StringVar(&s.token, "token", "", "join token (or the environment's "+tokenVariable+")")
	cmd.Flags().BoolVar(&run, "run", false, "go on as `muster-worker run` does")
	s.addRunFlags(cmd)
	return cmd
}

func (s *settings) enrol(ctx context.Context, state *agent.State) (agent.Identity, error) {
	token := s.token
	if token == "" {
		token = os.Getenv(tokenVariable)
	}
	identity, err := state.Load()
	if err != nil || identity.Enrolled() {
		return identity, err
	}
	if s.server == "" || token == "" {
		return identity, errs.New(errs.Invalid, "to enrol this machine give --server HOST:PORT and a join token")
	}
	return agent.Enrol(ctx, state, s.server, token, s.self())
}

// run wires the parts and works until ctx ends.
func (s *settings) run(ctx context.Context, state *agent.State) error {
	log, err := newLogger(s.logLevel)
	if err != nil {
		return err
	}
	ray, err := process.FindRay(s.rayVenv)
	if err != nil {
		return err
	}
	prober, err := s.newProber(log, ray.Version)
	if err != nil {
		return err
	}
	nodes, err := process.New(process.Options{
		StateDir: filepath.Join(s.stateDir, runtimeDir), TempRoot: s.tempRoot, Ray: ray, ObjectStoreBytes: s.objectStoreBytes, NodeCPUs: s.nodeCPUs,
		StopOnExit: s.stopNodesOnExit, SimulatedGPUs: prober.simulated.Load, Log: log,
	})
	if err != nil {
		return err
	}
	worker, err := agent.New(agent.Options{
		State: state, Runtime: nodes, Prober: prober, Self: s.self(), Log: log, InventoryInterval: s.inventoryInterval,
	})
	if err != nil {
		return err
	}
	return worker.Run(ctx, func() { log.InfoContext(ctx, "ready", "state_dir", s.stateDir, "ray_version", ray.Version) })
}

// prober remembers whether the GPUs are simulated, which the runtime asks at each start of a node.
type prober struct {
	*inventory.Prober
	simulated atomic.Bool
}

// Inventory implements agent.Prober.
func (p *prober) Inventory(ctx context.Context) *agentpb.Inventory {
	read := p.Prober.Inventory(ctx)
	if read.GetProbeError() == "" {
		p.simulated.Store(read.GetSimulated())
	}
	return read
}

func (s *settings) newProber(log *slog.Logger, rayVersion string) (*prober, error) {
	options := inventory.Options{DiskPath: s.stateDir, RayVersions: []string{rayVersion}, Runtime: runtimeName, Log: log}
	if !s.noGPUs {
		executable, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program for the GPU probe: %w", err)
		}
		options.Command = []string{executable, probeName}
		if s.nvmlLibrary != "" {
			options.Command = append(options.Command, "--"+inventory.LibraryFlag, s.nvmlLibrary)
		}
	}
	return &prober{Prober: inventory.NewProber(options)}, nil
}

func newLogger(level string) (*slog.Logger, error) {
	var parsed slog.Level
	if err := parsed.UnmarshalText([]byte(level)); err != nil {
		return nil, errs.New(errs.Invalid, "%q is not a log level: choose debug, info, warn or error", level)
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: parsed})), nil
}
