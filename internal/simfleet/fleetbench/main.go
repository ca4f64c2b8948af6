// Command fleetbench measures what heartbeats cost the control plane.
//
//	go run ./internal/embeddedpg/benchpg go run ./internal/simfleet/fleetbench [-agents N]
//
// It runs the agents' gateway in a process of its own and N simulated agents against it, over real streams with mutual TLS, each with a
// heartbeat every ten seconds and with the reports and health that the protocol asks for. Once all are connected it reads, over a
// window, the CPU time of the gateway's process and of PostgreSQL's, and extrapolates both linearly to 100,000 agents; a line states both
// numbers. The agents' own CPU time is not in it.
//
// Beside it, on the same database: JSON over HTTP, a plain net/http server that decodes a heartbeat of 1.5 kB and writes the same
// coalesced rows at the same interval. The peer is favoured: it is spared TLS and authorisation, and its agents share few connections.
//
// Figures go to standard output, one line each, all else to standard error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	urlVariable = "MUSTER_BENCH_DATABASE_URL"
	target      = 100_000 // agents that figures are for
	interval    = 10 * time.Second
	peerName    = "json-http"

	roleGateway = "gateway"
	rolePeer    = "json"
)

type settings struct {
	agents  int
	settle  time.Duration
	window  time.Duration
	seed    uint64
	profile string

	role        string // of a child process
	databaseURL string
	dir         string
}

func main() {
	var s settings
	flag.IntVar(&s.agents, "agents", 10_000, "simulated agents")
	flag.DurationVar(&s.settle, "settle", 20*time.Second, "time between the last agent's connection and the measurement")
	flag.DurationVar(&s.window, "window", time.Minute, "how long is measured")
	flag.Uint64Var(&s.seed, "seed", 1, "seed of the fleet")
	flag.StringVar(&s.profile, "profile", "", "write a CPU profile of the gateway's process during the measurement here")
	flag.StringVar(&s.role, "role", "", "for the program itself: what a child process does")
	flag.StringVar(&s.databaseURL, "database", "", "for the program itself")
	flag.StringVar(&s.dir, "dir", "", "for the program itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	run := measure
	switch s.role {
	case roleGateway:
		run = serveGateway
	case rolePeer:
		run = servePeer
	}
	if err := run(ctx, s, log); err != nil {
		fmt.Fprintln(os.Stderr, "fleetbench:", err)
		os.Exit(1) //nolint:gocritic // the context's end matters to nobody any more
	}
}

// sample is what one side cost during a window.
type sample struct {
	heartbeats int64
	server     time.Duration // of CPU
	postgres   time.Duration
	wall       time.Duration
	serverRSS  int64
}

// cores is CPU time as a number of busy cores, for the target's number of agents.
func (s sample) cores(cpu time.Duration, agents int) float64 {
	return cpu.Seconds() / s.wall.Seconds() * target / float64(agents)
}

func (s sample) microseconds(cpu time.Duration) float64 {
	return float64(cpu.Microseconds()) / float64(max(s.heartbeats, 1))
}

func measure(ctx context.Context, s settings, log *slog.Logger) (err error) {
	if os.Getenv(urlVariable) == "" {
		return errors.New(urlVariable + " is not set: run it under ./internal/embeddedpg/benchpg")
	}
	db, err := createDatabase(ctx, os.Getenv(urlVariable))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.drop()) }()
	if s.dir, err = os.MkdirTemp("", "muster-fleetbench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	s.databaseURL = db.url
	streams, perAgent, err := measureStreams(ctx, s, db, log)
	if err != nil {
		return fmt.Errorf("streams: %w", err)
	}
	posts, err := measurePosts(ctx, s, db)
	if err != nil {
		return fmt.Errorf("JSON over HTTP: %w", err)
	}
	report(s, streams, posts, perAgent)
	return nil
}

func report(s settings, streams, posts sample, perAgent int64) {
	line := func(name string, cpu func(sample) time.Duration, more string) {
		value, peer := streams.cores(cpu(streams), s.agents), posts.cores(cpu(posts), s.agents)
		_, _ = fmt.Fprintf(os.Stdout, "figure=%s value=%.3f unit=cores peer=%s peer_value=%.3f ratio=%.2f measured_agents=%d extrapolated_to=%d window_s=%.0f "+
			"heartbeats=%d us_per_heartbeat=%.1f peer_us_per_heartbeat=%.1f%s\n",
			name, value, peerName, peer, peer/value, s.agents, target, streams.wall.Seconds(),
			streams.heartbeats, streams.microseconds(cpu(streams)), posts.microseconds(cpu(posts)), more)
	}
	line("heartbeat_cores", func(s sample) time.Duration { return s.server },
		fmt.Sprintf(" gateway_kb_per_agent=%d agent_kb=%d", streams.serverRSS/int64(s.agents)>>10, perAgent>>10))
	line("heartbeat_cores_with_postgres", func(s sample) time.Duration { return s.server + s.postgres },
		fmt.Sprintf(" postgres_cores=%.3f", streams.cores(streams.postgres, s.agents)))
}
