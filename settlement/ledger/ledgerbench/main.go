// Command ledgerbench measures the ledger, beside pgledger on the same server in the same run.
//
//	go run ./internal/embeddedpg/benchpg go run ./settlement/ledger/ledgerbench [-accounts N] [-rounds N] [-turn T] [-pgledger DIR]
//
// It needs a PostgreSQL server that waits for the disk (MUSTER_BENCH_DATABASE_URL) and makes databases of its own there, with the same
// accounts for both. Callers post one transfer at a time, each with a key of its own, and wait until it is durable; every transfer is
// a row, and each call has its own answer.
//
//	ledger_hot_per_s      transfers/s, one side of each is the same account
//	ledger_uniform_per_s  transfers/s between any two of all accounts
//	ledger_post_p99_ms    one caller's wait, while calls come at half the uniform rate
//
// The peer is pgledger's pgledger_create_transfer, one a transaction as its own benchmark calls it, on 16 connections;
// peer_batched_per_s is what it does with an array of transfers a transaction. Its SQL is read at run time from a checkout of
// github.com/pgr0ss/pgledger (-pgledger, or MUSTER_PGLEDGER_DIR), because no Go proxy serves it. The checkout must be of the one commit
// that peer.go names, so that figures of different days have the same peer; without one there are no ratios.
//
// Callers are many and their calls small; what they call at the same time shares a transaction through ledger.PostEach, as bookings' holds
// do in the applier. In settlement itself nothing posts like that: metering makes large batches by itself, and deposits, payouts, refunds
// and sweeps post in the transaction that changes their own rows, so the gathering of calls is this program's (committer.go).
//
// The two take turns in rounds, in changing order; medians count, and of the ratios that of the rounds'. In the end the ledger is replayed, and holds exactly what was
// acknowledged. Figures go to standard output, one line each, all else to standard error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
)

const (
	peerVariable = "MUSTER_PGLEDGER_DIR"
	gcPercent    = 800 // of little memory: most of a collection is the stacks of callers, who are no part of what is measured
)

type settings struct {
	pgledger string // a checkout, or nothing
	accounts int
	rounds   int
	turn     time.Duration
	callers  int
	streams  int
	only     string
	profile  string
}

func main() {
	var s settings
	flag.StringVar(&s.pgledger, "pgledger", os.Getenv(peerVariable), "a checkout of pgledger")
	flag.IntVar(&s.accounts, "accounts", 100_000, "accounts")
	flag.IntVar(&s.rounds, "rounds", 5, "turns of each")
	flag.DurationVar(&s.turn, "turn", 5*time.Second, "how long a turn is")
	flag.IntVar(&s.callers, "callers", 6000, "calls in flight")
	flag.IntVar(&s.streams, "streams", 2, "transactions in flight")
	flag.StringVar(&s.only, "only", "", "measure only this: hot, uniform or wait")
	flag.StringVar(&s.profile, "profile", "", "write a CPU profile here")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "ledgerbench:", err)
		os.Exit(1) //nolint:gocritic // the context's end matters to nobody any more
	}
}

func measure(ctx context.Context, s settings) error {
	w, err := newWorld(ctx, s)
	if err != nil {
		return err
	}
	defer w.close()
	rival, err := newPeer(ctx, s)
	if err != nil {
		return err
	}
	defer rival.close()
	debug.SetGCPercent(gcPercent)
	stopProfile, err := startProfile(s.profile)
	if err != nil {
		return err
	}
	err = w.run(ctx, rival)
	if err := errors.Join(err, stopProfile()); err != nil {
		return err
	}
	return w.check(ctx)
}

// note says on standard error what is going on.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, "ledgerbench: "+format+"\n", args...) }

// figure prints one line on standard output.
func figure(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stdout, "figure="+format+"\n", args...)
}
