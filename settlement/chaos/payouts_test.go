package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/payouts"
)

const ownersPerRun = 3

// options are those of a worker that polls and retries fast.
func (w *world) options() payouts.Options {
	return payouts.Options{
		Poll: 20 * time.Millisecond, Rebroadcast: 150 * time.Millisecond, Retry: 50 * time.Millisecond, FreezeAfter: 5 * time.Second, Log: w.log,
	}
}

func (w *world) worker(pool *pgxpool.Pool, failpoint func(step string) error) *payouts.Service {
	options := w.options()
	options.Failpoint = failpoint
	return payouts.New(pool, w.book, w.client, w.keys, options)
}

// draft does what finance does until it succeeds: drafts what is payable and approves it.
func (w *world) draft() []ids.Batch {
	w.Helper()
	s := w.worker(w.pool, nil)
	var batches []ids.Batch
	testkit.Eventually(w, patience, func() (bool, string) {
		var err error
		batches, err = s.Draft(w.Context(), w.drafter)
		return err == nil, fmt.Sprintf("seed %d: draft: %v", w.seed, err)
	})
	for _, id := range batches {
		w.check(s.Approve(w.Context(), id, w.approver))
	}
	return batches
}

var errKilled = errors.New("killed")

// runAndKill drives the batches with a worker that dies at a step.
func (w *world) runAndKill(step string) {
	w.Helper()
	if err := w.runUntil(w.Context(), step); err == nil {
		w.Fatalf("seed %d: the worker was not killed at %q", w.seed, step)
	}
}

// runUntil drives the batches with a worker that dies at a step, unless ctx ends before.
func (w *world) runUntil(ctx context.Context, step string) error {
	w.Helper()
	if !slices.Contains(slices.Concat(payouts.Steps(), payouts.CancelSteps()), step) {
		w.Fatalf("payouts have no step %q", step)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	killed := false
	var once sync.Mutex
	s := w.worker(w.newPool(nil), func(at string) error {
		once.Lock()
		defer once.Unlock()
		if killed || at == step { // a process that is dead does nothing more
			killed = true
			return errKilled
		}
		return nil
	})
	err := s.Run(ctx, w.term)
	once.Lock()
	defer once.Unlock()
	if killed != (err != nil) {
		w.Errorf("seed %d: the worker ended with %v; killed at %q: %t", w.seed, err, step, killed)
	}
	return err
}

// run drives batches until the test ends or the returned function is called.
func (w *world) run(s *payouts.Service, term int64) (stop func() error) {
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, term) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() {
			cancel()
			err = <-done
		})
		return err
	}
	w.Cleanup(func() { _ = stop() }) // scenarios that care ask themselves
	return stop
}

// batch is how one stands.
type batch struct {
	State, Reason, Attention string
}

func (b batch) ended() bool {
	return b.State == "finalized" || b.State == "failed" || b.State == "frozen" || b.State == "cancelled"
}

func (w *world) batches() []batch {
	w.Helper()
	rows, err := w.pool.Query(w.Context(), `SELECT state, state_reason, attention FROM payout_batches ORDER BY id`)
	w.check(err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[batch])
	w.check(err)
	return all
}

// settle waits until every batch has ended, and reports those that do not or that wait for a person.
func (w *world) settle() (stuck int) {
	w.Helper()
	deadline := time.Now().Add(patience)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		stuck = 0
		all := w.batches()
		for _, b := range all {
			if !b.ended() {
				stuck++
			}
		}
		if stuck == 0 || time.Now().After(deadline) {
			for _, b := range all {
				if b.State != "finalized" && b.State != "failed" && b.State != "cancelled" {
					w.Errorf("seed %d: a batch is %s: %s%s", w.seed, b.State, b.Reason, b.Attention)
				}
				if b.State == "frozen" {
					stuck++
				}
			}
			return stuck
		}
		<-ticker.C
	}
}

// tally counts what went wrong, over all runs of a test.
type tally struct {
	mu                         sync.Mutex
	runs, payees, double, lost int
}

func (t *tally) add(payees, double, lost int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.runs++
	t.payees += payees
	t.double += double
	t.lost += lost
}

// figures prints lines of the form that scripts/bench.py reads, unless a run is missing.
func (t *tally) figures(tb testing.TB, suffix, seeds string, want int) {
	tb.Helper()
	if t.runs != want {
		tb.Errorf("%d of %d runs came to their end: there are no figures", t.runs, want)
		return
	}
	for _, f := range []struct {
		name  string
		value int
	}{{"crash_double", t.double}, {"crash_lost", t.lost}} {
		figure(tb, fmt.Sprintf("figure=%s%s value=%d unit=payments runs=%d payments=%d seeds=%s", f.name, suffix, f.value, t.runs, t.payees, seeds))
	}
}

// audit compares the chain with the ledger: payees that hold more than was booked as paid, and those that hold less.
func (w *world) audit() (double, lost int) {
	w.Helper()
	w.check(w.book.Check(w.Context(), w.pool))
	var paid uint64
	for _, p := range w.payees {
		owed := w.balance(p.from) + w.balance(ledger.Of(ledger.PayoutInFlight, p.org))
		held := w.holds(p.wallet)
		paid += held
		switch booked := uint64(p.earned - owed); {
		case held > booked:
			double++
		case held < booked:
			lost++
		}
	}
	left, booked := w.holds(w.local.Treasury), uint64(w.balance(ledger.Platform(ledger.ChainTreasury)))
	if left != booked || left != capital+w.income-paid {
		w.Errorf("seed %d: the treasury holds %d, the ledger says %d; it had %d, %d came and %d was paid", w.seed, left, booked, capital, w.income, paid)
	}
	return double, lost
}

// wantPaid expects that everybody holds just what they earned.
func (w *world) wantPaid() {
	w.Helper()
	if double, lost := w.audit(); double != 0 || lost != 0 {
		w.Errorf("seed %d: %d payees were paid too much, %d too little", w.seed, double, lost)
	}
	for _, p := range w.payees {
		if held := w.holds(p.wallet); held != uint64(p.earned) {
			w.Errorf("seed %d: a payee earned %d and holds %d", w.seed, p.earned, held)
		}
	}
}

func TestPayoutsSurviveACrashAtEveryStep(t *testing.T) {
	t.Parallel()
	seed := testkit.Seed(t)
	total := &tally{}
	t.Run("steps", func(t *testing.T) {
		for _, step := range payouts.Steps() {
			for i := range *seedsPerStep {
				t.Run(fmt.Sprintf("%s/%d", step, seed+uint64(i)), func(t *testing.T) {
					t.Parallel()
					total.add(crashPayouts(t, step, seed+uint64(i)))
				})
			}
		}
	})
	total.figures(t, "", seeds(seed, *seedsPerStep), len(payouts.Steps())**seedsPerStep)
	if total.double != 0 || total.lost != 0 {
		t.Errorf("%d payments were made twice, %d are lost", total.double, total.lost)
	}
}

// crashPayouts pays owners through faulty providers with workers that die at a step, and perhaps at another.
func crashPayouts(t *testing.T, step string, seed uint64) (payees, double, lost int) {
	t.Helper()
	w := newWorld(t, seed, inSeveral)
	w.earn(ownersPerRun)
	w.weather()
	if len(w.draft()) == 0 {
		t.Fatalf("seed %d: nothing was drafted", seed)
	}
	w.runAndKill(step)
	w.lead(w.term + 1)
	if w.rolls(3) {
		w.stopSigner()
		w.startSigner()
	}
	if again := w.draft(); len(again) != 0 {
		t.Errorf("seed %d: payees of a live batch were drafted again", seed)
	}
	w.run(w.worker(w.newPool(nil), nil), w.term)
	stuck := w.settle()
	w.clear()
	w.wantSOLExplained()
	double, lost = w.audit()
	if stuck == 0 && double == 0 && lost == 0 {
		w.wantPaid()
	}
	return len(w.payees), double, lost + stuck
}

func TestCancellationsSurviveACrashAtEveryStep(t *testing.T) {
	t.Parallel()
	seed := testkit.Seed(t)
	total := &tally{}
	t.Run("steps", func(t *testing.T) {
		for _, step := range payouts.CancelSteps() {
			for i := range *seedsPerStep {
				t.Run(fmt.Sprintf("%s/%d", step, seed+uint64(i)), func(t *testing.T) {
					t.Parallel()
					total.add(crashCancellation(t, step, seed+uint64(i)))
				})
			}
		}
	})
	total.figures(t, "_cancelled", seeds(seed, *seedsPerStep), len(payouts.CancelSteps())**seedsPerStep)
	if total.double != 0 || total.lost != 0 {
		t.Errorf("%d payments were made twice, %d are lost", total.double, total.lost)
	}
}

// crashCancellation cancels a batch whose bytes are on their way. Whichever lands first, the payees are paid by the batch or by the
// next one, and not by both.
func crashCancellation(t *testing.T, step string, seed uint64) (payees, double, lost int) {
	t.Helper()
	w := newWorld(t, seed)
	w.earn(ownersPerRun)
	w.weather()
	drafted := w.draft()
	w.runAndKill("sent")
	w.check(w.worker(w.pool, nil).Cancel(w.Context(), drafted[0], w.drafter, "chaos"))
	w.lead(w.term + 1)
	ctx, stop := context.WithCancel(w.Context())
	dead := make(chan struct{})
	go func() {
		defer close(dead)
		_ = w.runUntil(ctx, step) // killed, unless the payment was faster than the step
	}()
	w.awaitEnd(dead)
	stop()
	<-dead
	w.lead(w.term + 1)
	w.run(w.worker(w.newPool(nil), nil), w.term)
	stuck := w.settle()
	w.clear()
	double, lost = w.audit()
	if stuck == 0 && double == 0 && lost == 0 {
		w.draft()
		stuck = w.settle()
		w.wantPaid()
		w.wantSOLExplained()
	}
	return len(w.payees), double, lost + stuck
}

// awaitEnd waits until a worker is dead or no batch is left for it.
func (w *world) awaitEnd(dead <-chan struct{}) {
	w.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-dead:
			return
		case <-deadline.C:
			return // settle tells what is left
		case <-ticker.C:
			open := 0
			for _, b := range w.batches() {
				if !b.ended() {
					open++
				}
			}
			if open == 0 {
				return
			}
		}
	}
}

func seeds(first uint64, count int) string {
	return fmt.Sprintf("%d..%d", first, first+uint64(count)-1)
}

// attention is what the batches say holds them up.
func (w *world) attention() string {
	w.Helper()
	var texts []string
	for _, b := range w.batches() {
		texts = append(texts, b.State+": "+b.Attention+b.Reason)
	}
	return strings.Join(texts, "; ")
}
