// Command reconcilebench measures a reconciliation of a long history.
//
//	go run ./internal/embeddedpg/benchpg go run ./settlement/reconcile/reconcilebench [-transfers N]
//
// It needs a PostgreSQL server (MUSTER_BENCH_DATABASE_URL) and makes a database of its own there, with as many ledger transfers on the
// treasury as the chain has. The ledger is real, entry by entry through its own posting; the chain's side is a history that is generated as it
// is walked, behind reconcile's Chain interface, so that fetching it from an endpoint is no part of the figures.
//
//	reconcile_1m_s   a full run, from its request until its stored result: the walk with its continuity proof, the ledger's replay, the match
//	reconcile_1m_mb  the most memory that the process has had, PostgreSQL's not counted
//
// The run must be clean with every transfer matched. Then the chain says one base unit less of one transfer in the middle, and a run must find
// just that. Figures go to standard output, one line each, all else to standard error.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/migrations"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/reconcile"
)

const (
	urlVariable  = "MUSTER_BENCH_DATABASE_URL"
	closeTimeout = time.Minute
	perSlot      = 3
	income       = 1_000 // base units of two transfers of three
	expense      = 700   // of the third
)

var currency = money.Currency{Symbol: "USDC", Mint: "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", Decimals: 6}

func main() {
	transfers := flag.Int("transfers", 1_000_000, "transfers on each side")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, os.Getenv(urlVariable), *transfers); err != nil {
		fmt.Fprintln(os.Stderr, "reconcilebench:", err)
		os.Exit(1) //nolint:gocritic // the context's end matters to nobody any more
	}
}

func measure(ctx context.Context, server string, transfers int) error {
	if server == "" {
		return errors.New("set " + urlVariable + ", or run it under internal/embeddedpg/benchpg")
	}
	pool, drop, err := newDatabase(ctx, server)
	if err != nil {
		return err
	}
	defer drop()
	book := ledger.New(currency)
	fmt.Fprintf(os.Stderr, "posting %d transfers\n", transfers)
	if err := post(ctx, pool, book, transfers); err != nil {
		return err
	}
	generated := &history{transfers: transfers, short: -1}
	service := reconcile.New(pool, book, generated, reconcile.Config{
		Treasury: chain.Address{1}, CatchUp: func(context.Context) error { return nil }, Interval: time.Hour,
	}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	began := time.Now()
	run, err := service.ReconcileFully(ctx, ids.User{})
	took := time.Since(began)
	if err != nil {
		return err
	}
	if run.State != reconcile.StateClean || run.Matched != transfers {
		return fmt.Errorf("the run is %s (%s) with %d matched of %d", run.State, run.Reason, run.Matched, transfers)
	}
	memory, err := peak()
	if err != nil {
		return err
	}
	if err := detects(ctx, service, generated); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(os.Stdout, "figure=reconcile_1m_s value=%.1f unit=s transfers=%d chain=generated\n", took.Seconds(), transfers)
	_, _ = fmt.Fprintf(os.Stdout, "figure=reconcile_1m_mb value=%.0f unit=MB transfers=%d chain=generated\n", memory, transfers)
	return nil
}

// detects lets one transfer be short on the chain.
func detects(ctx context.Context, service *reconcile.Service, generated *history) error {
	generated.short = generated.transfers / 2
	run, err := service.ReconcileFully(ctx, ids.User{})
	if err != nil {
		return err
	}
	if run.DifferenceCount != 1 || run.Differences[0].Class != reconcile.AmountMismatch ||
		run.Differences[0].Signature != signature(generated.short).String() {
		return fmt.Errorf("with one transfer short the run has %d differences: %+v", run.DifferenceCount, run.Differences)
	}
	return nil
}

// history is a chain whose treasury has had some transfers, each made when it is asked for.
type history struct {
	transfers int
	short     int // this one moved a base unit less than the ledger says
}

func signature(i int) chain.Signature {
	return chain.Signature(sha512.Sum512(binary.BigEndian.AppendUint64(nil, uint64(i))))
}

func amountOf(i int) int64 {
	if i%3 == 2 {
		return -expense
	}
	return income
}

func (h *history) onChain(i int) int64 {
	if i == h.short {
		return amountOf(i) - 1
	}
	return amountOf(i)
}

func (h *history) Slot(context.Context, chain.Commitment) (chain.Slot, error) {
	return chain.Slot(h.transfers / perSlot), nil
}

func (h *history) TokenBalance(ctx context.Context, _ chain.Address, _ chain.Slot) (chain.Balance, error) {
	balance := int64(0)
	for i := range h.transfers {
		balance += h.onChain(i)
	}
	slot, err := h.Slot(ctx, chain.Finalized)
	return chain.Balance{Amount: uint64(balance), Slot: slot}, err
}

func (h *history) Walk(ctx context.Context, _ chain.Address, _ chain.Span, visit func(chain.Movement) error) error {
	balance := int64(0)
	for i := range h.transfers {
		if err := ctx.Err(); err != nil {
			return err
		}
		next := balance + h.onChain(i)
		err := visit(chain.Movement{
			Signature: signature(i), Slot: chain.Slot(i / perSlot), IndexInBlock: i % perSlot, BlockTime: time.Unix(int64(i), 0), Pre: uint64(balance),
			Post: uint64(next), Fee: 5_000,
		})
		if err != nil {
			return err
		}
		balance = next
	}
	return nil
}

// Movements and Transaction are not needed by a full walk on which both sides have the same transactions.
func (h *history) Movements(context.Context, chain.Address, chain.Cursor) ([]chain.Movement, error) {
	return nil, errors.New("a full walk does not go on from anywhere")
}

func (h *history) Transaction(context.Context, chain.Signature) (*chain.Transaction, error) {
	return nil, chain.ErrNotFound
}

// post records the history in the ledger.
func post(ctx context.Context, pool *pgxpool.Pool, book *ledger.Ledger, transfers int) error {
	for first := 0; first < transfers; first += ledger.MaxEntries {
		var entries []ledger.Entry
		for i := first; i < min(first+ledger.MaxEntries, transfers); i++ {
			leg := ledger.Leg{Debit: ledger.Platform(ledger.ChainTreasury), Credit: ledger.Platform(ledger.PlatformCapital), Amount: money.Amount(amountOf(i))}
			if leg.Amount < 0 {
				leg = ledger.Leg{Debit: leg.Credit, Credit: leg.Debit, Amount: -leg.Amount}
			}
			entries = append(entries, ledger.Entry{
				Key: fmt.Sprint("transfer:", i), Kind: ledger.KindTreasuryFunding, Refs: ledger.Refs{Signature: signature(i).String()}, Legs: []ledger.Leg{leg},
			})
		}
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			_, err := book.PostAll(ctx, tx, entries)
			return err
		})
		if err != nil {
			return fmt.Errorf("post transfers: %w", err)
		}
	}
	_, err := pool.Exec(ctx, `VACUUM ANALYZE`)
	return err
}

func newDatabase(ctx context.Context, server string) (*pgxpool.Pool, func(), error) {
	name := "reconcilebench_" + strings.ToLower(rand.Text())
	address, err := url.Parse(server)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", urlVariable, err)
	}
	address.Path = "/" + name
	if err := onServer(ctx, server, "CREATE DATABASE "+name); err != nil {
		return nil, nil, err
	}
	drop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := onServer(ctx, server, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	if err := migrations.Up(ctx, address.String()); err != nil {
		drop()
		return nil, nil, err
	}
	pool, err := pgxpool.New(ctx, address.String())
	if err != nil {
		drop()
		return nil, nil, err
	}
	return pool, func() { pool.Close(); drop() }, nil
}

func onServer(ctx context.Context, address, sql string) error {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

// peak is the most memory that this process has had, in megabytes.
func peak() (float64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "VmHWM:"); found {
			kilobytes, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
			return kilobytes * 1024 / 1e6, err
		}
	}
	return 0, errors.New("the kernel does not tell the process's memory")
}
