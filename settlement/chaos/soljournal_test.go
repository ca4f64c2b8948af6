package chaos_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/soljournal"
)

// journal keeps the journal of the treasury's SOL through the faulty providers.
func (w *world) journal() *soljournal.Service {
	return soljournal.New(w.pool, w.client, w.local.Treasury, w.log)
}

// wantSOLExplained expects the journal to have all that the treasury's wallet spent, and our notes to say the same.
func (w *world) wantSOLExplained() soljournal.State {
	w.Helper()
	var state soljournal.State
	testkit.Eventually(w, patience, func() (bool, string) { // a provider may be behind for a moment
		var err error
		state, err = w.journal().Advance(w.Context(), false)
		return err == nil, fmt.Sprintf("seed %d: read the wallet: %v", w.seed, err)
	})
	w.wantNoDifference(state)
	return state
}

func (w *world) wantNoDifference(state soljournal.State) {
	w.Helper()
	if !state.Continuous || state.Journal != state.Lamports {
		w.Errorf("seed %d: the wallet has %d lamports, the journal %d", w.seed, state.Lamports, state.Journal)
	}
	for _, d := range state.Differences {
		w.Errorf("seed %d: SOL: %s %s: %s", w.seed, d.Class, d.Signature, d.Text)
	}
}

// keepJournal looks at the wallet again and again until the returned function is called. What faulty providers answer may fail a look; it
// never makes a difference of what is none.
func (w *world) keepJournal() (stop func() (looks int)) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	done, looks := make(chan struct{}), 0
	go func() {
		defer close(done)
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			if state, err := w.journal().Advance(ctx, false); err == nil {
				looks++
				w.wantNoDifference(state)
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}()
	stop = sync.OnceValue(func() int {
		cancel()
		<-done
		return looks
	})
	w.Cleanup(func() { stop() })
	return stop
}

// TestSOLIsExplainedWhileSettlementWorks: payouts, one of which makes a payee's account, and sweeps go on through faulty providers with workers
// that die, and the journal is brought up to date beside them.
func TestSOLIsExplainedWhileSettlementWorks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Seed(t))
	w.wantSOLExplained()
	w.earn(ownersPerRun)
	customers := w.deposited()
	w.weather()
	stopJournal := w.keepJournal()
	w.draft()
	w.runAndKill("sent")
	w.lead(w.term + 1)
	stop, stopSweeper := w.runBesides(), w.sweep(w.newPool(nil))
	w.awaitSwept()
	stuck := w.settle()
	stopSweeper()
	stop()
	w.clear()
	looks := stopJournal()
	state := w.wantSOLExplained()
	if double, lost := w.auditSwept(customers); stuck+double+lost != 0 {
		t.Fatalf("seed %d: %d batches are stuck, %d deposits doubled, %d lost", w.seed, stuck, double, lost)
	}
	w.wantCosts()
	again, err := w.journal().Advance(t.Context(), true)
	if err != nil || !again.Continuous || again.Transactions != state.Transactions {
		t.Errorf("seed %d: after %d looks, read again it is %+v, was %+v, %v", w.seed, looks, again, state, err)
	}
}

// wantCosts compares the journal with what was noted of each transaction.
func (w *world) wantCosts() {
	w.Helper()
	totals, err := w.journal().Totals(w.Context(), chain.Span{})
	w.check(err)
	kinds := map[string]money.Amount{}
	for _, k := range totals.Kinds {
		kinds[k.Kind] = k.Lamports
	}
	var fees, rents money.Amount
	w.check(w.pool.QueryRow(w.Context(), `
		SELECT coalesce(sum(fee), 0)::bigint, coalesce(sum(rent), 0)::bigint FROM (
			SELECT fee_lamports AS fee, rent_lamports AS rent FROM payout_transactions
			UNION ALL SELECT fee_lamports, 0 FROM payout_cancellations UNION ALL SELECT fee_lamports, 0 FROM deposit_sweeps) noted`).Scan(&fees, &rents))
	if spent := -kinds[soljournal.BaseFee] - kinds[soljournal.PriorityFee]; spent != fees || fees == 0 {
		w.Errorf("seed %d: the journal has fees of %d, %d are noted", w.seed, spent, fees)
	}
	if spent := -kinds[soljournal.RentOut]; spent != rents || rents == 0 {
		w.Errorf("seed %d: the journal has rent of %d, %d is noted", w.seed, spent, rents)
	}
	if kinds[soljournal.Sent] != 0 || kinds[soljournal.RentBack] != 0 || kinds[soljournal.TopUp] == 0 {
		w.Errorf("seed %d: the journal has %v", w.seed, kinds)
	}
}
