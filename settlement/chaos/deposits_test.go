package chaos_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/internal/chaintest"
	"github.com/muster-gpu/muster/settlement/ledger"
)

const (
	depositsPerRun = 4 // customers that send
	watchInterval  = 100 * time.Millisecond
)

// The places around a deposit's writes at which its watcher is killed, by the statement there.
var depositSteps = []death{
	{name: "read, not recorded", before: "INSERT INTO deposits"},
	{name: "recorded, not committed", after: "INSERT INTO deposits"},
	{name: "committed, cursor not moved", before: "UPDATE watched_accounts"},
	{name: "cursor moved, not committed", after: "UPDATE watched_accounts"},
}

// death kills a process, as its database sees it, at the first statement that begins with a text: before it is sent or after it was
// executed. From then on no statement is sent, so that open transactions are rolled back.
type death struct {
	name, before, after string

	mu   sync.Mutex
	dead bool
}

// TraceQueryStart implements pgx.QueryTracer.
func (d *death) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	sql := strings.TrimSpace(data.SQL)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = d.dead || (d.before != "" && strings.HasPrefix(sql, d.before))
	if d.dead {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		return ended
	}
	return context.WithValue(ctx, sqlKey{}, sql)
}

// TraceQueryEnd implements pgx.QueryTracer.
func (d *death) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	sql, _ := ctx.Value(sqlKey{}).(string)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = d.dead || (d.after != "" && strings.HasPrefix(sql, d.after))
}

func (d *death) happened() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

type sqlKey struct{}

func TestDepositsSurviveACrashAroundEveryWrite(t *testing.T) {
	t.Parallel()
	seed := testkit.Seed(t)
	total := &tally{}
	t.Run("steps", func(t *testing.T) {
		for i := range depositSteps {
			for n := range *seedsPerStep {
				step := &depositSteps[i]
				t.Run(fmt.Sprintf("%s/%d", step.name, seed+uint64(n)), func(t *testing.T) {
					t.Parallel()
					total.add(crashDeposits(t, &death{name: step.name, before: step.before, after: step.after}, seed+uint64(n)))
				})
			}
		}
	})
	total.figures(t, "_deposits", seeds(seed, *seedsPerStep), len(depositSteps)**seedsPerStep)
	if total.double != 0 || total.lost != 0 {
		t.Errorf("%d deposits were credited twice, %d are lost", total.double, total.lost)
	}
}

// crashDeposits sends tokens to customers while watchers die and providers fail.
func crashDeposits(t *testing.T, d *death, seed uint64) (sent, double, lost int) {
	t.Helper()
	w := newWorld(t, seed)
	wallets := chaintest.NewWallets(t)
	watcher := w.watcher(w.newPool(func(c *pgxpool.Config) { c.ConnConfig.Tracer = d }), wallets)
	next := w.watcher(w.pool, wallets)
	want := map[ids.Org]money.Amount{}
	for i := range depositsPerRun {
		org := ids.New[ids.Org]()
		w.exec(`INSERT INTO organisations (id, name) VALUES ($1, $2)`, org, fmt.Sprintf("customer %d", i))
		wallets.Add(org)
		_, err := next.Address(w.Context(), org)
		w.check(err)
		for range 1 + w.dice.IntN(2) {
			amount := uint64(token + w.dice.IntN(token))
			_, err := w.local.MintTo(w.Context(), wallets.Key(org).PublicKey(), amount)
			w.check(err)
			want[org] += money.Amount(amount)
			sent++
		}
	}
	w.weather()
	stop := w.watch(watcher)
	testkit.Eventually(w, patience, func() (bool, string) {
		return d.happened(), fmt.Sprintf("seed %d: the watcher was not killed at %q", seed, d.name)
	})
	stop()
	w.lead(w.term + 1)
	credited := func(org ids.Org) money.Amount { return w.balance(ledger.Of(ledger.CustomerAvailable, org)) }
	stop = w.watch(next)
	w.awaitCredits(func() bool {
		for org, amount := range want {
			if credited(org) < amount {
				return false
			}
		}
		return true
	})
	stop()
	w.clear()
	w.poll(next) // once more, in fair weather: nothing may be credited again
	w.check(w.book.Check(w.Context(), w.pool))
	for org, amount := range want {
		switch got := credited(org); {
		case got > amount:
			double++
		case got < amount:
			lost++
		}
	}
	suspense, err := next.Suspense(w.Context(), ids.Deposit{}, 10)
	if err != nil || len(suspense) != 0 {
		t.Errorf("seed %d: in suspense are %+v: %v", seed, suspense, err)
	}
	return sent, double, lost
}

// poll has a watcher read everything that is final, in fair weather. A busy machine may want several tries.
func (w *world) poll(s *deposits.Service) {
	w.Helper()
	testkit.Eventually(w, patience, func() (bool, string) {
		err := s.Poll(w.Context())
		return err == nil, fmt.Sprintf("seed %d: %v", w.seed, err)
	})
}

// awaitCredits waits until all is credited, or until patience ends: what is missing then is counted as lost.
func (w *world) awaitCredits(all func() bool) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(watchInterval / 2)
	defer ticker.Stop()
	for !all() {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// watch runs a watcher as the settlement leader does, until the returned function is called.
func (w *world) watch(s *deposits.Service) (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	done, term := make(chan error, 1), w.term
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

// knownAccounts leaves out the search for token accounts that strangers opened for our wallets: it moves no money, and on the local
// chain it reads every account of every run.
type knownAccounts struct{ *chain.Client }

// TokenAccounts implements deposits.Chain.
func (knownAccounts) TokenAccounts(context.Context, chain.Address) ([]chain.TokenAccount, error) {
	return nil, nil
}

func (w *world) watcher(pool *pgxpool.Pool, wallets deposits.AddressSource) *deposits.Service {
	w.Helper()
	s, err := deposits.New(pool, w.book, knownAccounts{w.client}, wallets, deposits.Config{
		TokenProgram: chain.TokenProgram, Treasury: w.local.Treasury, Minimum: deposits.MinimumOf(w.book.Currency()), Interval: watchInterval,
		Refunds: w.worker(pool, nil),
	}, w.log)
	w.check(err)
	return s
}
