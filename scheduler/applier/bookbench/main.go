// Command bookbench measures durable bookings.
//
//	go run ./internal/embeddedpg/benchpg go run ./scheduler/applier/bookbench [-hosts N] [-bookings N] [-nodes N]
//
// It needs a PostgreSQL server that waits for the disk (MUSTER_BENCH_DATABASE_URL), makes a database of its own there, and fills it
// with a fleet of hosts with eight GPUs each, customers with money, and quotes of gangs: 8 nodes, or as many as -nodes says, with a GPU
// each, on hosts that differ from quote to quote. A booking is done when its cluster, its nodes and their head, its leases, its timeline
// and its hold are committed.
//
//	bookings_per_s       with a backlog, by one applier; the peer is the same applier with one booking a transaction
//	booking_p99_ms       from the request to the notice of the decision, while bookings come at half that rate
//	bookings_per_s_of_N  with a backlog of gangs of N nodes, 1 and 2
//	accept_p50_ms        POST /v1/bookings until its answer, over HTTP, one at a time
//	failover_s           from SIGKILL of a leader with a backlog until another process has committed bookings, the worst of three
//
// Figures with a backlog say how much CPU time a booking took: cpu_ms of this process, postgres_cpu_ms of the server's. After each the
// program proves that nothing was lost or doubled. Figures go to standard output, one line each, all else to standard error.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"
)

type settings struct {
	hosts    int
	bookings int
	nodes    int
	accepts  int
	only     string
	profile  string

	lead        bool // a child process: campaign and book
	databaseURL string
	holder      string
}

func main() {
	var s settings
	flag.IntVar(&s.hosts, "hosts", 100_000, "hosts of the fleet")
	flag.IntVar(&s.bookings, "bookings", 10_000, "bookings of the backlog")
	flag.IntVar(&s.nodes, "nodes", 8, "nodes of a gang, with a GPU each")
	flag.IntVar(&s.accepts, "accepts", 200, "quotes accepted over HTTP")
	flag.StringVar(&s.only, "only", "", "measure only this: throughput, gangs, accept or failover")
	flag.StringVar(&s.profile, "profile", "", "write a CPU profile of the backlog's run here")
	flag.BoolVar(&s.lead, "lead", false, "for the program itself: campaign for the lead, and book")
	flag.StringVar(&s.databaseURL, "database", "", "for the program itself")
	flag.StringVar(&s.holder, "holder", "", "for the program itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	run := measure
	if s.lead {
		run = lead
	}
	if err := run(ctx, s, log); err != nil {
		fmt.Fprintln(os.Stderr, "bookbench:", err)
		os.Exit(1) //nolint:gocritic // the context's end matters to nobody any more
	}
}

func measure(ctx context.Context, s settings, log *slog.Logger) error {
	w, err := newWorld(ctx, s, log)
	if err != nil {
		return err
	}
	defer w.close()
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{{"throughput", w.measureThroughput}, {"gangs", w.measureGangs}, {"accept", w.measureAccepts}, {"failover", w.measureFailover}} {
		if s.only != "" && s.only != part.name {
			continue
		}
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		if err := w.check(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// note says on standard error what is going on.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, "bookbench: "+format+"\n", args...) }

// figure prints one line on standard output.
func figure(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stdout, "figure="+format+"\n", args...)
}

// beside runs services until do is done, and reports what failed first.
func beside(ctx context.Context, do func(context.Context) error, services ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for _, service := range services {
		group.Go(func() error { return service(ctx) })
	}
	group.Go(func() error {
		defer cancel()
		return do(ctx)
	})
	return group.Wait()
}
