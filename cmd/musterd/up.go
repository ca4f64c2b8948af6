package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/internal/config"
	"github.com/muster-gpu/muster/internal/devstack"
)

// stackFlags say where a local stack finds its parts.
type stackFlags struct {
	root, dir, rayVenv, worker, databaseURL string
	port, agentPort, chainPort, simulate    int
	verbose                                 bool
}

func (f *stackFlags) add(cmd *cobra.Command, dir string, console, agents, chain int) {
	flags := cmd.Flags()
	flags.StringVar(&f.root, "root", ".", "the repository")
	flags.StringVar(&f.dir, "dir", dir, "folder of the stack's state")
	flags.StringVar(&f.rayVenv, "ray-venv", "", "Python environment with Ray (default: the one that make setup made)")
	flags.StringVar(&f.worker, "worker", "", "the muster-worker program (default: beside this one)")
	flags.StringVar(&f.databaseURL, "database-url", "", "an existing PostgreSQL instead of one of the stack's own")
	flags.IntVar(&f.port, "port", console, "port of the console and the API; 0 for any")
	flags.IntVar(&f.agentPort, "agent-port", agents, "port of the agents' gateway; 0 for any")
	flags.IntVar(&f.chainPort, "chain-port", chain, "port of the local chain; 0 for any")
	flags.BoolVar(&f.verbose, "verbose", false, "log what the stack does")
}

func (f *stackFlags) options(progress func(string, time.Duration)) (devstack.Options, error) {
	self, err := os.Executable()
	if err != nil {
		return devstack.Options{}, err
	}
	if f.worker == "" {
		f.worker = filepath.Join(filepath.Dir(self), "muster-worker")
	}
	root, err := filepath.Abs(f.root)
	if err != nil {
		return devstack.Options{}, err
	}
	if f.rayVenv == "" {
		found, _ := filepath.Glob(filepath.Join(root, ".cache", "ray-"+devstack.RayVersion+"-*"))
		for _, venv := range found {
			if _, err := os.Stat(filepath.Join(venv, "bin", "ray")); err == nil {
				f.rayVenv = venv
			}
		}
	}
	for what, path := range map[string]string{
		"the agent (make build)": f.worker, "a Python environment with Ray (make setup)": f.rayVenv,
		"the local chain (make setup)": filepath.Join(root, "deploy", "localnet", "node_modules"),
	} {
		if _, err := os.Stat(path); path == "" || err != nil {
			return devstack.Options{}, fmt.Errorf("%s is missing: looked for %q", what, path)
		}
	}
	if _, err := exec.LookPath("node"); err != nil {
		return devstack.Options{}, errors.New("node is missing: install Debian's package nodejs (version 20 or later)")
	}
	level := "error"
	if f.verbose {
		level = "info"
	}
	log, err := newLogger(config.Log{Level: level, Format: "text"})
	if err != nil {
		return devstack.Options{}, err
	}
	slog.SetDefault(log)
	return devstack.Options{
		Root: root, Dir: f.dir, Musterd: self, Worker: f.worker, RayVenv: f.rayVenv, Cache: filepath.Join(root, ".cache"),
		Port: f.port, AgentPort: f.agentPort, ChainPort: f.chainPort, DatabaseURL: f.databaseURL, Simulate: f.simulate, Progress: progress,
		Working: printWorking, Log: log,
	}, nil
}

func upCommand() *cobra.Command {
	flags := &stackFlags{}
	cmd := &cobra.Command{
		Use: "up", Short: "Run the whole of Muster on this machine", Args: cobra.NoArgs,
		Long: "Runs every part of Muster on this machine: PostgreSQL, a local Solana chain, the signer, the control plane, one head host and\n" +
			"two GPU hosts with simulated GPUs and real Ray. Ctrl-C stops all of it; what it stored is there at the next start.",
		RunE: func(cmd *cobra.Command, _ []string) error { return up(cmd.Context(), flags) },
	}
	flags.add(cmd, "var/local", 8080, 7443, 8899)
	cmd.Flags().IntVar(&flags.simulate, "simulate", 0,
		fmt.Sprintf("so many simulated hosts besides, at most %d, for a large market to look at; clusters on them run no Ray", devstack.MaxSimulated))
	return cmd
}

func printStep(step string, took time.Duration) {
	fmt.Printf("  ready  %-28s %5.1f s\n", step, took.Seconds())
}

func printWorking(step string, done, total int) {
	fmt.Printf("  ...    %-28s %d of %d\n", step, done, total)
}

func up(ctx context.Context, flags *stackFlags) error {
	options, err := flags.options(printStep)
	if err != nil {
		return err
	}
	fmt.Println("Starting Muster on this machine")
	stack, err := devstack.Up(ctx, options)
	if err != nil {
		return err
	}
	people := stack.People()
	fmt.Printf("\nThe console is at %s\n", stack.ConsoleURL())
	fmt.Println("Sign in there with one of the three development wallets:")
	for _, p := range []devstack.Person{people.Engineer, people.Owner, people.Finance} {
		fmt.Printf("  %-18s %s\n", p.Name, p.Address)
	}
	fmt.Printf("\nFrom a terminal:\n  export PATH=%s:$PATH\n  muster login --server %s --wallet %s\n", filepath.Dir(options.Musterd), stack.ConsoleURL(), people.Engineer.KeyFile)
	fmt.Printf("\nThe chain's RPC is at %s, logs are in %s.\nThe GPUs are simulated; Ray, the database and the chain's programs are real. Ctrl-C stops everything.\n",
		stack.RPCURL(), strings.TrimSuffix(filepath.Join(options.Dir, "logs"), "/"))
	if flags.simulate > 0 {
		fmt.Printf("\nBesides there are %d simulated hosts: clusters on them can be booked, watched and released, but run no Ray.\n"+
			"For one that does, book H100s in region %s.\n", flags.simulate, devstack.Region)
	}
	<-ctx.Done()
	fmt.Println("\nStopping")
	return stack.Stop()
}
