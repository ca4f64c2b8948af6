package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// world is the accounts that a property test moves money between. Each run has a mint, and so accounts, of its own.
type world struct {
	book
	accounts []ledger.Account
	signs    map[ledger.Account]money.Amount // +1: debits add
	overdraw map[ledger.Account]bool
}

func newWorld(b book, orgs []ids.Org, run int64) world {
	currency := money.Currency{Symbol: "T", Mint: fmt.Sprintf("%032d", run), Decimals: 6}
	w := world{book: b, signs: map[ledger.Account]money.Amount{}, overdraw: map[ledger.Account]bool{}}
	w.Ledger = ledger.New(currency)
	add := func(a ledger.Account, sign money.Amount, overdraw bool) {
		w.accounts, w.signs[a], w.overdraw[a] = append(w.accounts, a), sign, overdraw
	}
	for _, org := range orgs {
		add(ledger.Of(ledger.ChainDeposits, org), 1, false)
		add(ledger.Of(ledger.CustomerAvailable, org), -1, false)
		add(ledger.Of(ledger.OwnerPayable, org), -1, false)
	}
	add(ledger.Platform(ledger.ChainTreasury), 1, true)
	add(ledger.Platform(ledger.PlatformCapital), -1, true)
	add(ledger.Platform(ledger.PlatformFees), -1, false)
	return w
}

func (w world) entries(t *rapid.T, run int64) []ledger.Entry {
	leg := rapid.Custom(func(t *rapid.T) ledger.Leg {
		i := rapid.IntRange(0, len(w.accounts)-1).Draw(t, "debit")
		j := (i + rapid.IntRange(1, len(w.accounts)-1).Draw(t, "credit")) % len(w.accounts)
		return ledger.Leg{Debit: w.accounts[i], Credit: w.accounts[j], Amount: money.Amount(rapid.Int64Range(1, 100).Draw(t, "amount"))}
	})
	batches := rapid.SliceOfN(rapid.SliceOfN(leg, 1, 4), 1, 12).Draw(t, "entries")
	entries := make([]ledger.Entry, len(batches))
	for i, legs := range batches {
		entries[i] = ledger.Entry{Key: fmt.Sprintf("%d:%d", run, i), Kind: "test_move", Legs: legs}
	}
	return entries
}

// apply plays an entry on a model of plain balances, and reports whether it is bearable.
func (w world) apply(model map[ledger.Account]money.Amount, e ledger.Entry) bool {
	next := map[ledger.Account]money.Amount{}
	at := func(a ledger.Account) money.Amount {
		if balance, touched := next[a]; touched {
			return balance
		}
		return model[a]
	}
	for _, leg := range e.Legs {
		next[leg.Debit] = at(leg.Debit) + w.signs[leg.Debit]*leg.Amount
		next[leg.Credit] = at(leg.Credit) - w.signs[leg.Credit]*leg.Amount
	}
	for a, balance := range next {
		if balance < 0 && !w.overdraw[a] {
			return false
		}
	}
	for a, balance := range next {
		model[a] = balance
	}
	return true
}

func (w world) compare(t *rapid.T, model map[ledger.Account]money.Amount) {
	var sum money.Amount
	for _, a := range w.accounts {
		got, err := w.Balance(w.Context(), w.pool, a)
		if err != nil || got != model[a] {
			t.Fatalf("%s has %d, %v; the model %d", a.Kind, got, err, model[a])
		}
		sum += w.signs[a] * got
	}
	if sum != 0 {
		t.Fatalf("all accounts together come to %d", sum)
	}
}

// TestPostingsFollowTheModel: every entry is accepted exactly when each account can bear it, a repeat moves nothing, and money
// is conserved.
func TestPostingsFollowTheModel(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	orgs := []ids.Org{b.org("A"), b.org("B")}
	var runs atomic.Int64
	rapid.Check(t, func(t *rapid.T) {
		run := runs.Add(1)
		w := newWorld(b, orgs, run)
		model := map[ledger.Account]money.Amount{}
		for _, e := range w.entries(t, run) {
			bearable := w.apply(model, e)
			for range rapid.IntRange(1, 2).Draw(t, "posted") {
				_, err := w.post(e)
				if bearable != (err == nil) || (err != nil && errs.CodeOf(err) != errs.InsufficientFunds) {
					t.Fatalf("%+v gave %v, and the model says %v", e.Legs, err, bearable)
				}
			}
		}
		w.compare(t, model)
	})
	b.wantSound()
}

// TestOrderAndBatchingDoNotMatter: deposits and payouts that are all bearable come to the same balances one after another, all
// at once, and shuffled.
func TestOrderAndBatchingDoNotMatter(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	orgs := []ids.Org{b.org("A"), b.org("B")}
	var runs atomic.Int64
	rapid.Check(t, func(t *rapid.T) {
		run := runs.Add(1)
		w := newWorld(b, orgs, run)
		model := map[ledger.Account]money.Amount{}
		entries := w.entries(t, run)
		for i := range entries {
			for j, leg := range entries[i].Legs { // a deposit is always bearable
				org := orgs[int(leg.Amount)%len(orgs)]
				entries[i].Legs[j].Debit, entries[i].Legs[j].Credit = ledger.Of(ledger.ChainDeposits, org), ledger.Of(ledger.CustomerAvailable, org)
			}
			w.apply(model, entries[i])
		}
		shuffle := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "shuffle"), 0))
		shuffle.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		cut := rapid.IntRange(0, len(entries)).Draw(t, "cut")
		for _, part := range [][]ledger.Entry{entries[:cut], entries} { // the second repeats the first's
			err := pgx.BeginFunc(w.Context(), w.pool, func(tx pgx.Tx) error {
				_, err := w.PostAll(w.Context(), tx, part)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		w.compare(t, model)
	})
	b.wantSound()
}
