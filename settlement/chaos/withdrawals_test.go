package chaos_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/gagliardetto/solana-go"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/internal/chaintest"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/payouts"
)

// The places around the writes of a request at which the process that takes it is killed, by the statement there.
var requestSteps = []death{
	{name: "request not stored", before: "INSERT INTO withdrawals"},
	{name: "request stored, not committed", after: "INSERT INTO withdrawals"},
	{name: "refund decided, not committed", after: "INSERT INTO suspense_decisions"},
}

func TestWithdrawalsAndRefundsSurviveACrashAtEveryStep(t *testing.T) {
	t.Parallel()
	seed := testkit.Seed(t)
	total, runs := &tally{}, 0
	t.Run("steps", func(t *testing.T) {
		crash := func(name string, d *death, step string) {
			for n := range *seedsPerStep {
				runs++
				at := seed + uint64(n)
				t.Run(fmt.Sprintf("%s/%d", name, at), func(t *testing.T) {
					t.Parallel()
					var dying *death
					if d != nil {
						dying = &death{name: d.name, before: d.before, after: d.after}
					}
					total.add(crashWithdrawals(t, dying, step, at))
				})
			}
		}
		for i := range requestSteps {
			crash(requestSteps[i].name, &requestSteps[i], "")
		}
		for _, step := range payouts.Steps() {
			crash(step, nil, step)
		}
	})
	total.figures(t, "_withdrawals", seeds(seed, *seedsPerStep), runs)
	if total.double != 0 || total.lost != 0 {
		t.Errorf("%d payments were made twice, %d are lost", total.double, total.lost)
	}
}

// crashWithdrawals has a customer withdraw and a stranger refunded beside an owner's payout. Either who takes the requests dies around
// a write and is asked again, or a worker dies at a step.
func crashWithdrawals(t *testing.T, d *death, step string, seed uint64) (payees, double, lost int) {
	t.Helper()
	w := newWorld(t, seed, inSeveral)
	w.earn(1)
	customer := w.customer()
	suspended, wallets := w.suspended()
	w.weather()
	if d != nil {
		pool := w.newPool(func(c *pgxpool.Config) { c.ConnConfig.Tracer = d })
		err := w.ask(pool, wallets, suspended, customer)
		if !d.happened() || err == nil {
			t.Fatalf("seed %d: the process was not killed at %q: %v", seed, d.name, err)
		}
	}
	for range 2 { // the second is somebody who pressed twice
		w.check(w.ask(w.pool, wallets, suspended, customer))
	}
	if len(w.draft()) == 0 {
		t.Fatalf("seed %d: nothing was drafted", seed)
	}
	if step != "" {
		w.runAndKill(step)
		w.lead(w.term + 1)
	}
	w.run(w.worker(w.newPool(nil), nil), w.term)
	stuck := w.settle()
	if again := w.draft(); len(again) != 0 {
		t.Errorf("seed %d: what was paid was drafted again", seed)
	}
	w.clear()
	double, lost = w.audit()
	if stuck == 0 && double == 0 && lost == 0 {
		w.wantPaid()
		w.wantWithdrawn(2)
		w.wantSOLExplained()
	}
	return len(w.payees), double, lost + stuck
}

// customer is one with prepaid balance, all of which it is to withdraw.
func (w *world) customer() payee {
	w.Helper()
	key, err := solana.NewRandomPrivateKey()
	w.check(err)
	org := ids.New[ids.Org]()
	c := payee{org: org, wallet: key.PublicKey(), from: ledger.Of(ledger.CustomerAvailable, org), earned: token + money.Amount(w.dice.IntN(10*token))}
	w.exec(`INSERT INTO organisations (id, name, payout_address) VALUES ($1, 'customer', $2)`, c.org, c.wallet.String())
	w.post("prepaid:"+c.org.String(), ledger.Leg{Debit: ledger.Platform(ledger.PlatformCapital), Credit: c.from, Amount: c.earned})
	w.payees = append(w.payees, c)
	return c
}

// suspended is dust that a stranger has sent to a customer.
func (w *world) suspended() (ids.Deposit, *chaintest.Wallets) {
	w.Helper()
	const most = 9_999
	wallets, org, amount := chaintest.NewWallets(w), ids.New[ids.Org](), 1+w.dice.IntN(most)
	w.exec(`INSERT INTO organisations (id, name) VALUES ($1, 'addressee')`, org)
	wallets.Add(org)
	watcher := w.watcher(w.pool, wallets)
	_, err := watcher.Address(w.Context(), org)
	w.check(err)
	sender, err := solana.NewRandomPrivateKey()
	w.check(err)
	_, err = w.local.MintTo(w.Context(), sender.PublicKey(), uint64(amount))
	w.check(err)
	_, err = w.local.Transfer(w.Context(), sender, wallets.Key(org).PublicKey(), uint64(amount))
	w.check(err)
	w.poll(watcher)
	waiting, err := watcher.Suspense(w.Context(), ids.Deposit{}, 1)
	if err != nil || len(waiting) != 1 {
		w.Fatalf("seed %d: in suspense are %+v: %v", w.seed, waiting, err)
	}
	w.payees = append(w.payees, payee{org: org, wallet: sender.PublicKey(), from: ledger.Platform(ledger.Suspense), earned: money.Amount(amount)})
	return waiting[0].ID, wallets
}

// ask has the dust refunded and the customer's balance withdrawn. Asking again is no error.
func (w *world) ask(pool *pgxpool.Pool, wallets *chaintest.Wallets, suspended ids.Deposit, customer payee) error {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	_, err := w.watcher(pool, wallets).Decide(ctx, suspended, deposits.Decision{Outcome: deposits.OutcomeRefunded, Note: "chaos", By: w.drafter})
	if err != nil {
		return err
	}
	_, err = w.worker(pool, nil).Withdraw(ctx, customer.org, w.drafter, customer.earned, customer.wallet.String())
	if errs.CodeOf(err) == errs.Conflict {
		return nil // one is under way
	}
	return err
}

// wantWithdrawn expects that so many withdrawals and refunds were asked for, and all paid.
func (w *world) wantWithdrawn(want int) {
	w.Helper()
	var all, paid int
	w.check(w.pool.QueryRow(w.Context(), `SELECT count(*), count(*) FILTER (WHERE state = 'paid') FROM withdrawals`).Scan(&all, &paid))
	if all != want || paid != want {
		w.Errorf("seed %d: of %d withdrawals and refunds %d are paid, want %d", w.seed, all, paid, want)
	}
}
