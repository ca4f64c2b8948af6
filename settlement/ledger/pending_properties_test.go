package ledger_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// reservations is the model of one account that money is taken from: what it has, and what is pending on it.
type reservations struct {
	balance, moved money.Amount
	open           map[int]money.Amount // pending, by number
	ids            []ids.Entry
}

func (r *reservations) free() money.Amount {
	free := r.balance
	for _, amount := range r.open {
		free -= amount
	}
	return free
}

// TestPendingsNeitherLoseNorDouble: whatever is reserved, posted in part, voided, tried twice and taken in between, the ledger accepts
// what the model does, and every amount is on one of the two accounts.
func TestPendingsNeitherLoseNorDouble(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	orgs := []ids.Org{b.org("A"), b.org("B")}
	var runs atomic.Int64
	rapid.Check(t, func(t *rapid.T) {
		run := runs.Add(1)
		w := newWorld(b, orgs, run)
		from, to := ledger.Of(ledger.CustomerAvailable, orgs[0]), ledger.Of(ledger.OwnerPayable, orgs[1])
		model := &reservations{open: map[int]money.Amount{}}
		for step := range rapid.IntRange(1, 25).Draw(t, "steps") {
			w.step(t, model, fmt.Sprintf("%d:%d", run, step), from, to)
		}
		balance, err := w.Balance(w.Context(), w.pool, from)
		available, err2 := w.Available(w.Context(), w.pool, from)
		moved, err3 := w.Balance(w.Context(), w.pool, to)
		if err != nil || err2 != nil || err3 != nil || balance != model.balance || available != model.free() || moved != model.moved {
			t.Fatalf("the ledger has %d, %d available and %d moved, the model %d, %d and %d", balance, available, moved, model.balance, model.free(), model.moved)
		}
	})
	b.wantSound()
}

// step does one thing to both, and compares what they say to it.
func (w world) step(t *rapid.T, model *reservations, key string, from, to ledger.Account) {
	amount := money.Amount(rapid.Int64Range(1, 60).Draw(t, "amount"))
	chosen := rapid.IntRange(0, max(len(model.ids)-1, 0)).Draw(t, "pending")
	pending, isOpen := model.open[chosen]
	var err error
	var want errs.Code
	switch what := rapid.SampledFrom([]string{"deposit", "move", "pend", "pend", "post", "void"}).Draw(t, "what"); {
	case what == "deposit":
		_, err = w.post(deposit(from.Org, key, amount))
		model.balance += amount
	case what == "move":
		_, err = w.post(ledger.Entry{Key: key, Kind: "test_move", Legs: []ledger.Leg{{Debit: from, Credit: to, Amount: amount}}})
		if want = shortIf(model.free() < amount); want == "" {
			model.balance, model.moved = model.balance-amount, model.moved+amount
		}
	case what == "pend" || len(model.ids) == 0:
		var id ids.Entry
		id, err = w.pend(key, from, to, amount, 0)
		if want = shortIf(model.free() < amount); want == "" {
			model.open[len(model.ids)] = amount
			model.ids = append(model.ids, id)
		}
	case what == "post":
		err = w.postPending(key, model.ids[chosen], amount)
		switch {
		case !isOpen:
			want = errs.Conflict
		case amount > pending:
			want = errs.Invalid
		default:
			delete(model.open, chosen)
			model.balance, model.moved = model.balance-amount, model.moved+amount
		}
	default:
		err = w.void(key, model.ids[chosen])
		if !isOpen {
			want = errs.Conflict
		}
		delete(model.open, chosen)
	}
	if errs.CodeOf(err) != want {
		t.Fatalf("%s gave %v, the model says %q", key, err, want)
	}
}

func shortIf(short bool) errs.Code {
	if short {
		return errs.InsufficientFunds
	}
	return ""
}
