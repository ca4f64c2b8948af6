package ledger_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

func (b book) postEach(ctx context.Context, calls ...[]ledger.Entry) (results []ledger.Result, err error) {
	err = pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) (err error) {
		results, err = b.PostEach(ctx, tx, calls)
		return err
	})
	return results, err
}

func (b book) mustPostEach(calls ...[]ledger.Entry) []ledger.Result {
	b.Helper()
	results, err := b.postEach(b.Context(), calls...)
	if err != nil {
		b.Fatalf("post: %v", err)
	}
	if len(results) != len(calls) {
		b.Fatalf("%d calls have %d results", len(calls), len(results))
	}
	return results
}

func TestPostEachAnswersEachCallForItself(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org, owner := b.org("Customer"), b.org("Owner")
	available, payable := ledger.Of(ledger.CustomerAvailable, org), ledger.Of(ledger.OwnerPayable, owner)
	b.mustPost(deposit(org, "d", 50))
	take := func(key string, amount money.Amount) ledger.Entry {
		return ledger.Entry{Key: key, Kind: "test_move", Legs: []ledger.Leg{{Debit: available, Credit: payable, Amount: amount}}}
	}
	calls := [][]ledger.Entry{
		{take("too much", 51)},
		{deposit(org, "d", 51)},
		{deposit(org, "linked", 10), take("linked and too much", 100)},
		{deposit(org, "also linked", 10), take("linked and enough", 60)},
		{deposit(org, "the last", 50)},
	}
	for i := range 100 { // of which 50 can be borne
		calls = append(calls, []ledger.Entry{take(fmt.Sprint("one:", i), 1)})
	}
	results := b.mustPostEach(calls...)
	b.wantCode(results[0].Err, errs.InsufficientFunds, "a single one that is too much")
	b.wantCode(results[1].Err, errs.Conflict, "another amount under the same key")
	b.wantCode(results[2].Err, errs.InsufficientFunds, "a linked pair of which one is too much")
	for i, result := range results[3:] {
		bearable := i < 2+50
		if (result.Err == nil) != bearable || (len(result.Entries) == len(calls[3+i])) != bearable {
			t.Errorf("call %d gave %+v", 3+i, result)
		}
	}
	b.wantBalance(available, 0)
	b.wantBalance(payable, 110)
	b.wantSound()
}

func TestPostEachPostsARepeatedKeyOnce(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org := b.org("Customer")
	results := b.mustPostEach([]ledger.Entry{deposit(org, "d", 7)}, []ledger.Entry{deposit(org, "d", 7)}, []ledger.Entry{deposit(org, "d", 8)})
	if results[0].Err != nil || results[1].Err != nil || results[0].Entries[0] != results[1].Entries[0] {
		t.Errorf("the same call gave %+v and %+v", results[0], results[1])
	}
	b.wantCode(results[2].Err, errs.Conflict, "another amount under a key of the same transaction")
	if again := b.mustPost(deposit(org, "d", 7)); again != results[0].Entries[0] {
		t.Errorf("posted again it is %s, want %s", again, results[0].Entries[0])
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 7)
	b.wantSound()
}

// TestPostEachFailsAsAWhole: what is no refusal of the ledger's leaves nothing behind.
func TestPostEachFailsAsAWhole(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org := b.org("Customer")
	astray := deposit(org, "astray", 1)
	astray.Refs.Booking = ids.New[ids.Booking]() // there is no such booking
	many := make([][]ledger.Entry, ledger.MaxEntries+1)
	for i := range many {
		many[i] = []ledger.Entry{deposit(org, fmt.Sprint("many:", i), 1)}
	}
	for name, calls := range map[string][][]ledger.Entry{
		"malformed": {{deposit(org, "a", 1)}, {{Key: "malformed"}}},
		"astray":    {{deposit(org, "b", 1)}, {astray}},
		"too many":  many,
	} {
		if results, err := b.postEach(t.Context(), calls...); err == nil {
			t.Errorf("%s: got %+v", name, results)
		}
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 0)
	b.wantSound()
}

// TestPostEachEqualsOneByOne: calls that share a transaction come to what they come to one after another in transactions of their own.
func TestPostEachEqualsOneByOne(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	orgs := []ids.Org{b.org("A"), b.org("B")}
	var runs atomic.Int64
	rapid.Check(t, func(t *rapid.T) {
		run := runs.Add(2)
		one, many := newWorld(b, orgs, run), newWorld(b, orgs, run+1)
		entries := one.entries(t, 0)
		var cuts []int
		for at := 0; at < len(entries); at += rapid.IntRange(1, 3).Draw(t, "size") {
			cuts = append(cuts, at)
		}
		calls := func(run int64) (calls [][]ledger.Entry) {
			for i, from := range cuts {
				to := len(entries)
				if i+1 < len(cuts) {
					to = cuts[i+1]
				}
				var call []ledger.Entry
				for _, e := range entries[from:to] {
					e.Key = fmt.Sprintf("%d:%s", run, e.Key)
					call = append(call, e)
				}
				calls = append(calls, call)
			}
			return append(calls, calls[0])
		}
		together, err := many.postEach(many.Context(), calls(run+1)...)
		if err != nil {
			t.Fatal(err)
		}
		for i, call := range calls(run) {
			err := pgx.BeginFunc(one.Context(), one.pool, func(tx pgx.Tx) error {
				_, err := one.PostAll(one.Context(), tx, call)
				return err
			})
			if errs.CodeOf(err) != errs.CodeOf(together[i].Err) {
				t.Fatalf("call %d gave %v together and %v alone", i, together[i].Err, err)
			}
		}
		for _, a := range one.accounts {
			alone, err := one.Balance(one.Context(), one.pool, a)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := many.Balance(many.Context(), many.pool, a); err != nil || got != alone {
				t.Fatalf("%s has %d, %v together and %d alone", a.Kind, got, err, alone)
			}
		}
	})
	b.wantSound()
}
