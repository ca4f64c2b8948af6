// Command payoutbench measures what payouts cost and how fast they are.
//
//	go run ./internal/embeddedpg/benchpg go run ./settlement/payouts/payoutbench [-payees N] [-only PART]
//
// It needs a PostgreSQL server that waits for the disk (MUSTER_BENCH_DATABASE_URL) on the same machine, and starts a local chain and a
// signer, each a process of its own: every signature is asked for over the signer's unix socket, as in production.
//
//	build_sign_ratio    build and sign a message of version 1, which is what payouts are made in, per payee; the peer is solana-go's
//	                    builder and key, whose bytes are the same
//	build_ratio         the same without signing
//	build_sign_v0_ratio, build_v0_ratio, build_sign_legacy_ratio, build_legacy_ratio
//	                    the same in the formats for chains that refuse version 1: with a lookup table, and without
//	payees_per_tx       paid by one transaction; the peer pays one payee a transaction, as solana-tokens does
//	lamports_per_payee  fees of that transaction, as the chain charged them; the peer as above
//	payout_100k_s       from the run's beginning until every payout is final and booked, the chain taking at most 100 transactions a second
//	payout_100k_cpu_s   CPU time of that run, and whose: the service's, the signer's, the database's, and the local chain's, which
//	                    in production is other people's; on few cores it is what the seconds above are made of
//	payout_100k_mb      most memory of the process that did it
//
// After the run it proves on the chain that each payee was paid once. Figures go to standard output, one line each, all else to
// standard error.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

type settings struct {
	payees  int
	rate    int
	only    string
	profile string

	signer string // a child process: the folder of the signer to be
}

func main() {
	var s settings
	flag.IntVar(&s.payees, "payees", 100_000, "payees of the run")
	flag.IntVar(&s.rate, "rate", 100, "transactions that the chain takes a second")
	flag.StringVar(&s.only, "only", "", "measure only this: build, chain or run")
	flag.StringVar(&s.profile, "profile", "", "write a CPU profile of the run here")
	flag.StringVar(&s.signer, "signer", "", "for the program itself: be the signer of this folder")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	run := measure
	if s.signer != "" {
		run = serveSigner
	}
	if err := run(ctx, s, log); err != nil {
		fmt.Fprintln(os.Stderr, "payoutbench:", err)
		os.Exit(1) //nolint:gocritic // the context's end matters to nobody any more
	}
}

func measure(ctx context.Context, s settings, log *slog.Logger) error {
	if s.wants("build") {
		if err := measureBuild(); err != nil {
			return fmt.Errorf("build: %w", err)
		}
	}
	if !s.wants("chain") && !s.wants("run") {
		return nil
	}
	w, err := newWorld(ctx, s, log)
	if err != nil {
		return err
	}
	defer w.close()
	if s.wants("chain") {
		if err := w.measureChain(ctx); err != nil {
			return fmt.Errorf("chain: %w", err)
		}
	}
	if s.wants("run") {
		if err := w.measureRun(ctx); err != nil {
			return fmt.Errorf("run: %w", err)
		}
	}
	return nil
}

func (s settings) wants(part string) bool { return s.only == "" || s.only == part }

// note says on standard error what is going on.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, "payoutbench: "+format+"\n", args...) }

// figure prints one line on standard output.
func figure(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stdout, "figure="+format+"\n", args...)
}
