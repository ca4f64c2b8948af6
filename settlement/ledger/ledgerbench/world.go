package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/benchkit"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

const (
	connections = 64
	funds       = money.Amount(1 << 40)
	hotFunds    = money.Amount(1 << 60)
	kindMove    = "bench_move"
)

var currency = money.Currency{Symbol: "USDC", Mint: "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", Decimals: 6}

// world is a database with funded accounts, and the ledger that moves money between them.
type world struct {
	settings
	database *benchkit.Database
	pool     *pgxpool.Pool // the database's
	book     *ledger.Ledger
	accounts []ledger.Account // the first is the hot one
	posted   atomic.Int64     // transfers acknowledged, over all turns
	funded   int64            // transfers before them
}

func newWorld(ctx context.Context, s settings) (*world, error) {
	database, err := benchkit.NewDatabase(ctx, "ledgerbench", connections)
	if err != nil {
		return nil, err
	}
	w := &world{settings: s, book: ledger.New(currency), database: database, pool: database.Pool}
	note("funding %d accounts", s.accounts)
	if err := w.fill(ctx); err != nil {
		w.close()
		return nil, fmt.Errorf("fund the accounts: %w", err)
	}
	return w, nil
}

func (w *world) close() {
	if err := w.database.Drop(); err != nil {
		note("%v", err)
	}
}

func (w *world) fill(ctx context.Context) error {
	orgs := make([]string, w.settings.accounts)
	w.accounts = make([]ledger.Account, w.settings.accounts)
	for i := range orgs {
		org := ids.New[ids.Org]()
		orgs[i], w.accounts[i] = uuid.UUID(org).String(), ledger.Of(ledger.CustomerAvailable, org)
	}
	if _, err := w.pool.Exec(ctx, `INSERT INTO organisations (id, name) SELECT unnest($1::uuid[]), 'Customer'`, orgs); err != nil {
		return err
	}
	for first := 0; first < len(w.accounts); first += ledger.MaxEntries {
		var entries []ledger.Entry
		for i := first; i < min(first+ledger.MaxEntries, len(w.accounts)); i++ {
			amount := funds
			if i == 0 {
				amount = hotFunds
			}
			entries = append(entries, ledger.Entry{Key: fmt.Sprint("fund:", i), Kind: ledger.KindTreasuryFunding, Legs: []ledger.Leg{{
				Debit: ledger.Platform(ledger.ChainTreasury), Credit: w.accounts[i], Amount: amount,
			}}})
		}
		if err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
			_, err := w.book.PostAll(ctx, tx, entries)
			return err
		}); err != nil {
			return err
		}
		w.funded += int64(len(entries))
	}
	if err := w.visit(ctx); err != nil {
		return err
	}
	_, err := w.pool.Exec(ctx, `VACUUM ANALYZE`)
	return err
}

// visit moves money through every account once, as the accounts of a ledger that has been running have seen some: their ids are known.
func (w *world) visit(ctx context.Context) error {
	for first := 0; first+1 < len(w.accounts); first += 2 * ledger.MaxEntries {
		var entries []ledger.Entry
		for i := first; i+1 < min(first+2*ledger.MaxEntries, len(w.accounts)); i += 2 {
			entries = append(entries, ledger.Entry{Key: fmt.Sprint("visit:", i), Kind: kindMove, Legs: []ledger.Leg{{
				Debit: w.accounts[i], Credit: w.accounts[i+1], Amount: 1,
			}}})
		}
		if err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
			_, err := w.book.PostAll(ctx, tx, entries)
			return err
		}); err != nil {
			return err
		}
		w.funded += int64(len(entries))
	}
	return nil
}

// check replays the ledger, and counts what it holds.
func (w *world) check(ctx context.Context) error {
	note("replaying %d transfers", w.funded+w.posted.Load())
	if err := w.book.Check(ctx, w.pool); err != nil {
		return err
	}
	var transfers int64
	if err := w.pool.QueryRow(ctx, `SELECT count(*) FROM ledger_transfers`).Scan(&transfers); err != nil {
		return err
	}
	if transfers != w.funded+w.posted.Load() {
		return fmt.Errorf("%d transfers are there, %d were acknowledged", transfers, w.funded+w.posted.Load())
	}
	return nil
}
