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
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/benchkit"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/reconcile"
)

const (
	connections = 4
	perSlot     = 3
	income      = 1_000 // base units of two transfers of three
	expense     = 700   // of the third
)

var currency = money.Currency{Symbol: "USDC", Mint: "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", Decimals: 6}

func main() {
	transfers := flag.Int("transfers", 1_000_000, "transfers on each side")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, *transfers); err != nil {
		fmt.Fprintln(os.Stderr, "reconcilebench:", err)
		os.Exit(1) //nolint:gocritic // the context's end matters to nobody any more
	}
}

func measure(ctx context.Context, transfers int) (err error) {
	database, err := benchkit.NewDatabase(ctx, "reconcilebench", connections)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.Drop()) }()
	pool := database.Pool
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
	memory, err := benchkit.PeakMemory(os.Getpid())
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
