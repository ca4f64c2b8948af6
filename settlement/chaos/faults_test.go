package chaos_test

import (
	"fmt"
	"testing"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chaos/proxy"
	"github.com/muster-gpu/muster/settlement/ledger"
)

const (
	laterChance = 0.1 // of a fault's befalling a call, once it has befallen all for a while
	wholeCalls  = 30  // that a fault befalls in the while, of those that all methods know
	boundCalls  = 2   // likewise, of a few methods only
)

// TestEachFaultAloneNeitherLosesNorDoubles lets every fault befall all calls that it can for a while, and then some of them, while all flows of
// money are under way: deposits arrive and are swept, a batch is cancelled, and an owner, a customer and a stranger are paid.
func TestEachFaultAloneNeitherLosesNorDoubles(t *testing.T) {
	t.Parallel()
	seed := testkit.Seed(t)
	for _, fault := range proxy.Faults() {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed, inSeveral)
			customers := w.deposited()
			w.cancelling()
			customer := w.customer()
			suspended, wallets := w.suspended()
			w.check(w.ask(w.pool, wallets, suspended, customer))
			w.draft()
			w.suffer(fault, 0)
			stop, stopSweeper := w.runBesides(), w.sweep(w.newPool(nil))
			w.deposit(customers)
			w.awaitFault(fault)
			w.suffer(fault, laterChance)
			w.awaitCredits(func() bool { return w.credited(customers) })
			w.awaitSwept()
			stuck := w.settle()
			w.clear()
			w.draft() // whose batch was cancelled
			stuck += w.settle()
			stopSweeper()
			stop()
			w.poll(w.watcher(w.pool, w.keys))
			w.wantPaid()
			w.wantWithdrawn(2)
			if double, lost := w.auditSwept(customers); double != 0 || lost != 0 || stuck != 0 {
				t.Errorf("seed %d: %d deposits are doubled, %d lost, %d batches have not ended", seed, double, lost, stuck)
			}
		})
	}
}

// cancelling makes an owner whose batch was signed, never reached the chain, and is to be cancelled.
func (w *world) cancelling() {
	w.Helper()
	for _, p := range w.providers {
		p.Use(proxy.Rule{Fault: proxy.Swallow})
	}
	w.earn(1)
	drafted := w.draft()
	w.runAndKill("marked sent")
	w.lead(w.term + 1)
	w.check(w.worker(w.pool, nil).Cancel(w.Context(), drafted[0], w.drafter, "chaos"))
	w.clear()
}

// suffer has a fault befall calls with a chance, and all that it can befall if that is 0. Lies are the second provider's alone.
func (w *world) suffer(fault proxy.Fault, chance float64) {
	for i, p := range w.providers {
		if i == 1 || !fault.Lies() {
			p.Use(proxy.Rule{Fault: fault, Chance: chance})
		}
	}
}

// awaitFault waits until a fault has befallen calls.
func (w *world) awaitFault(fault proxy.Fault) {
	w.Helper()
	want := boundCalls
	if !fault.Bound() {
		want = wholeCalls
	}
	testkit.Eventually(w, patience, func() (bool, string) {
		befallen := w.providers[0].Injected(fault) + w.providers[1].Injected(fault)
		return befallen >= want, fmt.Sprintf("seed %d: it has befallen %d calls, want %d", w.seed, befallen, want)
	})
}

// deposit has each customer send something more.
func (w *world) deposit(customers []swept) {
	w.Helper()
	for i := range customers {
		amount := token + money.Amount(w.dice.IntN(10*token))
		_, err := w.local.MintTo(w.Context(), customers[i].wallet, uint64(amount))
		w.check(err)
		customers[i].amount += amount
		w.income += uint64(amount)
	}
}

func (w *world) credited(customers []swept) bool {
	for _, c := range customers {
		if w.balance(ledger.Of(ledger.CustomerAvailable, c.org)) < c.amount {
			return false
		}
	}
	return true
}
