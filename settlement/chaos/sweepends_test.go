package chaos_test

import (
	"strings"
	"testing"

	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/signer"
	"github.com/muster-gpu/muster/settlement/sweeps"
)

// sweepsSay waits until a sweep is in a state and shows people a text.
func (w *world) sweepsSay(state, text string) {
	w.Helper()
	testkit.Eventually(w, patience, func() (bool, string) {
		rows, err := w.pool.Query(w.Context(), `SELECT state, attention || reason FROM deposit_sweeps`)
		w.check(err)
		defer rows.Close()
		var all string
		for rows.Next() {
			var is, says string
			w.check(rows.Scan(&is, &says))
			if is == state && strings.Contains(says, text) {
				return true, ""
			}
			all += is + ": " + says + "; "
		}
		return false, "no sweep is " + state + " because of " + text + ", but " + all
	})
}

// wantUnswept expects that a customer's deposit is where it was, on the chain and in the ledger.
func (w *world) wantUnswept(c *swept) {
	w.Helper()
	held, err := w.truth.TokenBalance(w.Context(), c.account, 0)
	w.check(err)
	if booked := w.balance(ledger.Of(ledger.ChainDeposits, c.org)); held.Amount != uint64(c.amount) || booked != c.amount {
		w.Errorf("of a deposit of %d the account holds %d, says the chain, and %d, says the ledger", c.amount, held.Amount, booked)
	}
	w.check(w.book.Check(w.Context(), w.pool))
}

func TestANonceThatSomebodyElseAdvancedFreezesASweep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Seed(t))
	customers := w.deposited()
	w.killSweeper("bytes stored")
	w.lead(w.term + 1)
	w.advanceNonces()
	w.weather()
	w.sweep(w.newPool(nil))
	w.sweepsSay(sweeps.StateFrozen, "not by this sweep")
	w.clear()
	var account string
	w.check(w.pool.QueryRow(t.Context(), `SELECT token_account FROM deposit_sweeps WHERE state = 'frozen'`).Scan(&account))
	for i := range customers {
		if customers[i].account.String() == account {
			w.wantUnswept(&customers[i])
		}
	}
	var again int
	w.check(w.pool.QueryRow(t.Context(), `SELECT count(*) FROM deposit_sweeps WHERE token_account = $1`, account).Scan(&again))
	if again != 1 {
		t.Errorf("an account whose sweep is frozen has %d sweeps", again)
	}
}

func TestASweepThatFailsOnTheChainMovesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Seed(t))
	customers := w.deposited()
	w.killSweeper("bytes stored")
	w.lead(w.term + 1)
	for _, c := range customers {
		w.check(w.local.Freeze(t.Context(), c.account))
	}
	w.weather()
	w.sweep(w.newPool(nil))
	w.sweepsSay(sweeps.StateFailed, "the chain executed it with the error")
	w.clear()
	for i := range customers {
		w.wantUnswept(&customers[i])
	}
}

func TestASignerThatIsDownHoldsASweepUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Seed(t))
	customers := w.deposited()
	w.killSweeper("planned")
	w.lead(w.term + 1)
	w.stopSigner()
	w.weather()
	w.sweep(w.newPool(nil))
	w.sweepsSay(sweeps.StatePlanned, signer.ErrUnavailable.Error())
	for i := range customers {
		w.wantUnswept(&customers[i])
	}
	w.startSigner()
	w.awaitSwept()
	w.clear()
	if double, lost := w.auditSwept(customers); double != 0 || lost != 0 {
		t.Errorf("%d deposits were moved twice, %d are lost", double, lost)
	}
}
