package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// poster runs a poster until the test ends.
func (b book) poster() *ledger.Poster {
	b.Helper()
	p := ledger.NewPoster(b.Ledger, b.pool, 0, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return p
}

// postTogether posts each group by a call of its own, all at once.
func postTogether(ctx context.Context, p *ledger.Poster, groups [][]ledger.Entry) []error {
	results := make([]error, len(groups))
	var group errgroup.Group
	for i, entries := range groups {
		group.Go(func() error {
			_, results[i] = p.Post(ctx, entries...)
			return nil
		})
	}
	_ = group.Wait() // the errors are in the results
	return results
}

func TestPosterAnswersEachCallForItself(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	p := b.poster()
	org, owner := b.org("Customer"), b.org("Owner")
	available, payable := ledger.Of(ledger.CustomerAvailable, org), ledger.Of(ledger.OwnerPayable, owner)
	if _, err := p.Post(t.Context(), deposit(org, "d", 50)); err != nil {
		t.Fatal(err)
	}
	take := func(key string, amount money.Amount) ledger.Entry {
		return ledger.Entry{Key: key, Kind: "test_move", Legs: []ledger.Leg{{Debit: available, Credit: payable, Amount: amount}}}
	}
	var groups [][]ledger.Entry
	for i := range 100 { // of which 50 can be borne
		groups = append(groups, []ledger.Entry{take(fmt.Sprint("one:", i), 1)})
	}
	groups = append(groups, []ledger.Entry{take("too much", 51)}, []ledger.Entry{deposit(org, "d", 51)},
		[]ledger.Entry{deposit(org, "linked", 10), take("linked and too much", 100)}, []ledger.Entry{{Key: "malformed"}})
	results := postTogether(t.Context(), p, groups)
	posted := 0
	for i, err := range results[:100] {
		if err == nil {
			posted++
		} else if errs.CodeOf(err) != errs.InsufficientFunds {
			t.Errorf("call %d gave %v", i, err)
		}
	}
	if posted != 50 {
		t.Errorf("%d were posted, want 50", posted)
	}
	b.wantCode(results[100], errs.InsufficientFunds, "a single one that is too much")
	b.wantCode(results[101], errs.Conflict, "another amount under the same key")
	b.wantCode(results[102], errs.InsufficientFunds, "a linked pair of which one is too much")
	if results[103] == nil {
		t.Error("a malformed entry was posted")
	}
	b.wantBalance(available, 0)
	b.wantBalance(payable, 50)
	b.wantSound()
}

func TestPosterPostsARepeatedKeyOnce(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	p := b.poster()
	org := b.org("Customer")
	found := make([]ids.Entry, 40)
	var group errgroup.Group
	for i := range found {
		group.Go(func() error {
			posted, err := p.Post(t.Context(), deposit(org, "d", 7))
			if err == nil {
				found[i] = posted[0]
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, id := range found {
		if id != found[0] {
			t.Errorf("the same call gave %s and %s", id, found[0])
		}
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 7)
	b.wantSound()
}

// TestPosterIsolatesWhatTheDatabaseRefuses: a call that breaks its transaction does not take the others with it.
func TestPosterIsolatesWhatTheDatabaseRefuses(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	p := b.poster()
	org := b.org("Customer")
	var groups [][]ledger.Entry
	for i := range 20 {
		groups = append(groups, []ledger.Entry{deposit(org, fmt.Sprint("d:", i), 1)})
	}
	groups[7][0].Refs.Booking = ids.New[ids.Booking]() // there is no such booking
	for i, err := range postTogether(t.Context(), p, groups) {
		if (err != nil) != (i == 7) {
			t.Errorf("call %d gave %v", i, err)
		}
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 19)
	b.wantSound()
}

func TestPosterStops(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org := b.org("Customer")
	p := ledger.NewPoster(b.Ledger, b.pool, 1, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	_, err := p.Post(t.Context(), deposit(org, "d", 1))
	b.wantCode(err, errs.Unavailable, "a call after the end")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ledger.NewPoster(b.Ledger, b.pool, 1, slog.New(slog.DiscardHandler)).Post(gone, deposit(org, "d", 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("a call whose context has ended gave %v", err)
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 0)
}

// TestGroupCommitEqualsOneByOne: calls that share transactions come to what the same calls come to one after another, where their order does
// not matter: each either always or never can be borne. Repeats and linked entries are among them.
func TestGroupCommitEqualsOneByOne(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	orgs := []ids.Org{b.org("A"), b.org("B")}
	var runs atomic.Int64
	rapid.Check(t, func(t *rapid.T) {
		run := runs.Add(2)
		one, many := newWorld(b, orgs, run), newWorld(b, orgs, run+1)
		p := many.poster()
		amounts := rapid.SliceOfN(rapid.SliceOfN(rapid.Int64Range(1, 100), 1, 4), 1, 12).Draw(t, "amounts")
		hopeless := rapid.SliceOfN(rapid.Bool(), len(amounts), len(amounts)).Draw(t, "hopeless")
		repeat := rapid.IntRange(0, len(amounts)-1).Draw(t, "repeat")
		groups := func(run int64) (groups [][]ledger.Entry) {
			for i, group := range amounts {
				var entries []ledger.Entry
				for j, amount := range group {
					e := deposit(orgs[(i+j)%2], fmt.Sprintf("%d:%d:%d", run, i, j), money.Amount(amount))
					if hopeless[i] && j == len(group)-1 {
						e.Legs[0].Debit, e.Legs[0].Credit = ledger.Of(ledger.OwnerPayable, orgs[0]), ledger.Platform(ledger.PlatformFees)
					}
					entries = append(entries, e)
				}
				groups = append(groups, entries)
			}
			return append(groups, groups[repeat])
		}
		together := postTogether(many.Context(), p, groups(run+1))
		for i, entries := range groups(run) {
			err := pgx.BeginFunc(one.Context(), one.pool, func(tx pgx.Tx) error {
				_, err := one.PostAll(one.Context(), tx, entries)
				return err
			})
			if errs.CodeOf(err) != errs.CodeOf(together[i]) {
				t.Fatalf("call %d gave %v together and %v alone", i, together[i], err)
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
