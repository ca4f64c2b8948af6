// Command fleetbench measures what heartbeats cost the control plane.
//
//	go run ./internal/embeddedpg/benchpg go run ./internal/simfleet/fleetbench [-agents N]
//
// It runs the agents' gateway in a process of its own and simulated agents against it, over real streams with mutual TLS, each with a
// heartbeat every ten seconds and with the reports and health that the protocol asks for: as many as the machine has memory and files for,
// and as connect in ten minutes. Once all are connected it reads, over a window, the CPU time of the gateway's process and of PostgreSQL's,
// and extrapolates both linearly to 100,000 agents; a line states both numbers, and what there was no more of. The agents' own CPU time is
// not in it.
//
// The few are not like the many in one thing: at their rate each heartbeat wakes the gateway, where at that of 100,000 agents heartbeats share
// wake-ups. Another window has the same agents say all that they say so many times as often that it makes the whole rate. What goes by
// time alone does not grow with it: when idle hosts were heard is written as often as before, for which PostgreSQL is left out, and gRPC
// pings each connection every four minutes.
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

	"github.com/muster-gpu/muster/internal/benchkit"
)

const (
	connections = 4                // of each process
	target      = 100_000          // agents that figures are for
	beatEvery   = 10 * time.Second // each of them
	peerName    = "json-http"

	roleGateway = "gateway"
	rolePeer    = "json"
)

type settings struct {
	agents    int
	limitedBy string // why there are not more
	alone     bool
	settle    time.Duration
	window    time.Duration
	seed      uint64
	profile   string

	role        string // of a child process
	databaseURL string
	dir         string
}

func main() {
	var s settings
	flag.IntVar(&s.agents, "agents", 0, "simulated agents; 0: as many as this machine can hold")
	flag.BoolVar(&s.alone, "alone", false, "leave the peer out")
	flag.DurationVar(&s.settle, "settle", 20*time.Second, "time between the last agent's connection and the measurement")
	flag.DurationVar(&s.window, "window", time.Minute, "how long is measured")
	flag.Uint64Var(&s.seed, "seed", 1, "seed of the fleet")
	flag.StringVar(&s.profile, "profile", "", "write CPU profiles of the gateway's process during the measurements here, with the window's number behind the name")
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

// cores is CPU time as a number of busy cores, for the heartbeats of the target's number of agents.
func (s sample) cores(cpu time.Duration) float64 {
	return s.microseconds(cpu) / 1e6 * target / beatEvery.Seconds()
}

// rate is of heartbeats, per second.
func (s sample) rate() float64 { return float64(s.heartbeats) / s.wall.Seconds() }

func (s sample) microseconds(cpu time.Duration) float64 {
	return float64(cpu.Microseconds()) / float64(max(s.heartbeats, 1))
}

func measure(ctx context.Context, s settings, log *slog.Logger) (err error) {
	if s.agents == 0 {
		most, err := mostAgents()
		if err != nil {
			return err
		}
		s.agents, s.limitedBy = most.agents, most.by
	} else {
		s.limitedBy = "flag"
	}
	db, err := benchkit.NewDatabase(ctx, "fleetbench", connections)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Drop()) }()
	if s.dir, err = os.MkdirTemp("", "muster-fleetbench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	s.databaseURL = db.URL
	streams, err := measureStreams(ctx, s, db, log)
	if err != nil {
		return fmt.Errorf("streams: %w", err)
	}
	var posts sample
	if !s.alone {
		if posts, err = measurePosts(ctx, s, db); err != nil {
			return fmt.Errorf("JSON over HTTP: %w", err)
		}
	}
	report(s, streams, posts)
	return nil
}

func report(s settings, streams streamSamples, posts sample) {
	line := func(name string, measured, peer sample, cpu func(sample) time.Duration, more string) {
		if measured.wall == 0 {
			return // left out
		}
		value, beside := measured.cores(cpu(measured)), ""
		if peer.wall > 0 {
			theirs := peer.cores(cpu(peer))
			beside = fmt.Sprintf(" peer=%s peer_value=%.3f ratio=%.2f peer_us_per_heartbeat=%.1f", peerName, theirs, theirs/value, peer.microseconds(cpu(peer)))
		}
		_, _ = fmt.Fprintf(os.Stdout, "figure=%s value=%.3f unit=cores%s measured_agents=%d limited_by=%s extrapolated_to=%d window_s=%.0f "+
			"heartbeats=%d heartbeats_per_s=%.0f us_per_heartbeat=%.1f%s\n", name, value, beside, s.agents, s.limitedBy, target,
			measured.wall.Seconds(), measured.heartbeats, measured.rate(), measured.microseconds(cpu(measured)), more)
	}
	gateway := func(s sample) time.Duration { return s.server }
	line("heartbeat_cores", streams.plain, posts, gateway,
		fmt.Sprintf(" gateway_kb_per_agent=%d agent_kb=%d", streams.plain.serverRSS/int64(s.agents)>>10, streams.perAgent>>10))
	line("heartbeat_cores_with_postgres", streams.plain, posts, func(s sample) time.Duration { return s.server + s.postgres },
		fmt.Sprintf(" postgres_cores=%.3f", streams.plain.cores(streams.plain.postgres)))
	line("heartbeat_cores_full_rate", streams.full, sample{}, gateway, fmt.Sprintf(" times=%d", streams.times))
}
