package chaos_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/sweeps"
)

const (
	sweptPerRun = 2 // customers whose deposits are swept
	sweepPoll   = 50 * time.Millisecond
)

func TestSweepsSurviveACrashAtEveryStep(t *testing.T) {
	t.Parallel()
	seed := testkit.Seed(t)
	total := &tally{}
	t.Run("steps", func(t *testing.T) {
		for _, step := range sweeps.Steps() {
			for i := range *seedsPerStep {
				t.Run(fmt.Sprintf("%s/%d", step, seed+uint64(i)), func(t *testing.T) {
					t.Parallel()
					total.add(crashSweeps(t, step, seed+uint64(i)))
				})
			}
		}
	})
	total.figures(t, "_sweeps", seeds(seed, *seedsPerStep), len(sweeps.Steps())**seedsPerStep)
	if total.double != 0 || total.lost != 0 {
		t.Errorf("%d deposits were moved or booked twice, %d are lost", total.double, total.lost)
	}
}

// swept is a customer whose deposit goes to the treasury.
type swept struct {
	org     ids.Org
	wallet  chain.Address // the deposit address
	account chain.Address // its token account
	amount  money.Amount
}

// crashSweeps moves deposits to the treasury with sweepers that die, while payouts take nonces from the same pool and the deposits'
// watcher looks at both sides of each sweep.
func crashSweeps(t *testing.T, step string, seed uint64) (moved, double, lost int) {
	t.Helper()
	w := newWorld(t, seed)
	w.earn(1)
	customers := w.deposited()
	w.weather()
	w.draft()
	stop := w.runBesides()
	w.killSweeper(step)
	stop()
	w.lead(w.term + 1)
	stop = w.runBesides()
	stopSweeper := w.sweep(w.newPool(nil))
	w.awaitSwept()
	stuck := w.settle()
	stopSweeper()
	stop()
	w.clear()
	w.poll(w.watcher(w.pool, w.keys)) // once more, in fair weather: what was swept is no arrival
	w.wantSOLExplained()
	double, lost = w.audit()
	moreDouble, moreLost := w.auditSwept(customers)
	return len(w.payees) + len(customers), double + moreDouble, lost + moreLost + stuck
}

// deposited is customers whose deposits were credited. The treasury's account is watched, too, as discovery would have it.
func (w *world) deposited() []swept {
	w.Helper()
	watcher := w.watcher(w.pool, w.keys)
	w.exec(`INSERT INTO watched_accounts (token_account, wallet, mint, program, decimals) VALUES ($1, $2, $3, $4, $5)`,
		w.local.TreasuryTokenAccount.String(), w.local.Treasury.String(), w.local.Mint.String(), chain.TokenProgram.String(), w.book.Currency().Decimals)
	w.poll(watcher)
	w.post("capital counted twice", ledger.Leg{
		Debit: ledger.Platform(ledger.PlatformCapital), Credit: ledger.Platform(ledger.ChainTreasury), Amount: capital,
	})
	customers := make([]swept, sweptPerRun)
	for i := range customers {
		c := swept{org: ids.New[ids.Org](), amount: token + money.Amount(w.dice.IntN(10*token))}
		w.exec(`INSERT INTO organisations (id, name) VALUES ($1, $2)`, c.org, fmt.Sprintf("customer %d", i))
		address, err := watcher.Address(w.Context(), c.org)
		w.check(err)
		c.wallet, err = chain.ParseAddress(address.Wallet)
		w.check(err)
		c.account, err = chain.ParseAddress(address.TokenAccount)
		w.check(err)
		_, err = w.local.MintTo(w.Context(), c.wallet, uint64(c.amount))
		w.check(err)
		w.income += uint64(c.amount)
		customers[i] = c
	}
	w.poll(watcher)
	return customers
}

// runBesides runs what works beside a sweeper in the same process.
func (w *world) runBesides() (stop func()) {
	w.Helper()
	stopPaying, stopWatching := w.run(w.worker(w.newPool(nil), nil), w.term), w.watch(w.watcher(w.newPool(nil), w.keys))
	return func() {
		w.check(stopPaying())
		stopWatching()
	}
}

func (w *world) sweeper(pool *pgxpool.Pool, failpoint func(step string) error) *sweeps.Service {
	w.Helper()
	s, err := sweeps.New(pool, w.book, w.client, w.keys, sweeps.Options{
		Minimum: token, Poll: sweepPoll, PlanEvery: 2 * sweepPoll, Rebroadcast: 150 * time.Millisecond, FreezeAfter: 5 * time.Second,
		Log: w.log, Failpoint: failpoint,
	})
	w.check(err)
	return s
}

// killSweeper sweeps with a process that dies at a step.
func (w *world) killSweeper(step string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	if err := w.sweeper(w.newPool(nil), dieAt(step)).Run(ctx, w.term); err == nil {
		w.Fatalf("seed %d: the sweeper was not killed at %q", w.seed, step)
	}
}

// sweep runs a sweeper until the returned function is called.
func (w *world) sweep(pool *pgxpool.Pool) (stop func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	s, done, term := w.sweeper(pool, nil), make(chan error, 1), w.term
	go func() { done <- s.Run(ctx, term) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.Error(err)
			}
		})
	}
	w.Cleanup(stop)
	return stop
}

// awaitSwept waits until the ledger has no deposit left to sweep and no sweep is under way, or until patience ends: what is missing
// then is counted as lost.
func (w *world) awaitSwept() {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(sweepPoll)
	defer ticker.Stop()
	for {
		var left int
		w.check(w.pool.QueryRow(w.Context(), `
			SELECT (SELECT count(*) FROM deposit_sweeps WHERE state IN ('planned', 'signed'))
			     + (SELECT count(*) FROM ledger_accounts WHERE kind = $1 AND balance >= $2)`, ledger.ChainDeposits, token).Scan(&left))
		if left == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// auditSwept compares each deposit account on the chain with the ledger, which must both be empty, and customers' balances with what they sent.
func (w *world) auditSwept(customers []swept) (double, lost int) {
	w.Helper()
	for _, c := range customers {
		held, err := w.truth.TokenBalance(w.Context(), c.account, 0)
		w.check(err)
		booked, available := uint64(w.balance(ledger.Of(ledger.ChainDeposits, c.org))), w.balance(ledger.Of(ledger.CustomerAvailable, c.org))
		switch {
		case booked < held.Amount, available > c.amount:
			double++
		case held.Amount > 0, booked > held.Amount, available < c.amount:
			lost++
		}
	}
	rows, err := w.pool.Query(w.Context(), `SELECT state || ': ' || attention || reason FROM deposit_sweeps WHERE state <> 'finalized'`)
	w.check(err)
	for rows.Next() {
		var text string
		w.check(rows.Scan(&text))
		w.Errorf("seed %d: a sweep is %s", w.seed, text)
	}
	w.check(rows.Err())
	earned := money.Amount(0)
	for _, p := range w.payees {
		if p.from != ledger.Platform(ledger.Suspense) { // a stranger's tokens never were the platform's
			earned += p.earned
		}
	}
	if own := w.balance(ledger.Platform(ledger.PlatformCapital)); own != capital-earned {
		w.Errorf("seed %d: the platform's capital is %d, want %d: a sweep was taken for an arrival", w.seed, own, capital-earned)
	}
	return double, lost
}
