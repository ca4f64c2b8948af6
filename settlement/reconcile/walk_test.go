package reconcile

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

const treasury = "treasury"

func signature(i int) chain.Signature { return chain.Signature{byte(i), byte(i >> 8), 1} }

// history is a continuous history of an account that never goes below zero.
func history(t *rapid.T) []chain.Movement {
	var movements []chain.Movement
	balance := uint64(0)
	for i := range rapid.IntRange(1, 20).Draw(t, "length") {
		next := rapid.Uint64Range(0, 1_000).Draw(t, "balance")
		if next == balance {
			next++
		}
		movements = append(movements, chain.Movement{Signature: signature(i), Slot: chain.Slot(i / 2), IndexInBlock: i % 2, Pre: balance, Post: next})
		balance = next
	}
	return movements
}

func live(movements []chain.Movement) chain.Balance {
	last := movements[len(movements)-1]
	return chain.Balance{Amount: last.Post, Slot: last.Slot}
}

// follow is a walk of the whole of some history.
func follow(live chain.Balance, movements []chain.Movement) (walk, error) {
	f := newFollower(chain.Address{}, live, cursor{})
	for _, m := range movements {
		if err := f.visit(m); err != nil {
			return walk{}, err
		}
	}
	return f.end()
}

// TestContinuedWalkIsTheWholeWalk: wherever a history is cut, going on from there comes to what one walk comes to, and a cursor
// that was tampered with, or whose transaction the chain has not, is not confirmed.
func TestContinuedWalkIsTheWholeWalk(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		movements := history(t)
		cut := rapid.IntRange(1, len(movements)).Draw(t, "cut")
		first, err := follow(live(movements[:cut]), movements[:cut])
		if err != nil {
			t.Fatal(err)
		}
		from := outcome{walk: first, comparison: comparison{matched: cut}, ledgerClosing: first.balance}.cursor()
		rest, confirmed := after(movements, from)
		if !confirmed || len(rest) != len(movements)-cut {
			t.Fatalf("%d of %d movements follow the cursor %+v", len(rest), len(movements)-cut, from)
		}
		f := newFollower(chain.Address{}, live(movements), from)
		for _, m := range rest {
			if err := f.visit(m); err != nil {
				t.Fatal(err)
			}
		}
		continued, err := f.end()
		whole, wholeErr := follow(live(movements), movements)
		if err != nil || wholeErr != nil || len(continued.gaps) > 0 || continued.totalIn != whole.totalIn || continued.totalOut != whole.totalOut ||
			continued.balance != whole.balance || continued.last.signature != whole.last.signature {
			t.Fatalf("going on gives %+v, all at once %+v", continued, whole)
		}
		wrong := from
		wrong.balance++
		_, tampered := after(movements, wrong)
		_, hidden := after(slices.Delete(slices.Clone(movements), cut-1, cut), from)
		if tampered || hidden {
			t.Fatalf("a false cursor was confirmed: tampered %v, hidden %v", tampered, hidden)
		}
	})
}

func TestWholeHistoryIsContinuousAndAddsUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		movements := history(t)
		w, err := follow(live(movements), movements)
		if err != nil || len(w.gaps) > 0 || len(w.movements) != len(movements) {
			t.Fatalf("the walk is %+v, %v", w, err)
		}
		if w.totalIn-w.totalOut != w.balance {
			t.Fatalf("%d in and %d out do not come to %d", w.totalIn, w.totalOut, w.balance)
		}
	})
}

// TestAnyMissingTransactionIsAGap: whichever one is left out, the walk does not close.
func TestAnyMissingTransactionIsAGap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		movements := history(t)
		balance := live(movements)
		missing := rapid.IntRange(0, len(movements)-1).Draw(t, "missing")
		w, err := follow(balance, slices.Delete(slices.Clone(movements), missing, missing+1))
		if err != nil || len(w.gaps) != 1 {
			t.Fatalf("without transaction %d of %d the walk has the gaps %+v, %v", missing, len(movements), w.gaps, err)
		}
	})
}

func TestWalkLeavesLaterAndFailedTransactionsOut(t *testing.T) {
	t.Parallel()
	movements := []chain.Movement{
		{Signature: signature(1), Slot: 1, Pre: 0, Post: 100},
		{Signature: signature(2), Slot: 2, Pre: 100, Post: 100, Err: "insufficient funds", Fee: 5_000},
		{Signature: signature(3), Slot: 3, Pre: 100, Post: 60, Fee: 5_800},
		{Signature: signature(4), Slot: 9, Pre: 60, Post: 10, Fee: 7},
	}
	w, err := follow(chain.Balance{Amount: 60, Slot: 3}, movements)
	if err != nil || len(w.gaps) > 0 || len(w.movements) != 2 || w.totalIn != 100 || w.totalOut != 40 || w.fees != 10_800 {
		t.Errorf("the walk is %+v, %v", w, err)
	}
}

// TestPlantedDifferencesAreFound alters a clean pair of walk and ledger at random places and expects exactly these found.
func TestPlantedDifferencesAreFound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var moves []move
		var entries []booked
		want := map[string]int{}
		matched := 0
		unresolved := map[string]bool{}
		for i := range rapid.IntRange(0, 30).Draw(t, "length") {
			sig, amount := fmt.Sprint("s", i), money.Amount(rapid.Int64Range(1, 1_000).Draw(t, "amount"))
			m, e := move{signature: sig, amount: amount}, booked{key: fmt.Sprint("k", i), signature: sig, amount: amount}
			switch plant := rapid.SampledFrom([]string{"", "", "", ChainOnly, LedgerOnly, AmountMismatch, Duplicate, UnresolvedNonce}).Draw(t, "plant"); plant {
			case ChainOnly:
				moves = append(moves, m)
				want[plant]++
			case LedgerOnly:
				entries = append(entries, e)
				want[plant]++
			case AmountMismatch:
				e.amount++
				moves, entries = append(moves, m), append(entries, e)
				want[plant]++
			case Duplicate:
				again := e
				again.key += "again"
				moves, entries = append(moves, m), append(entries, e, again)
				want[plant]++
				matched++
			case UnresolvedNonce:
				moves = append(moves, m)
				unresolved[sig] = true
			default:
				moves, entries = append(moves, m), append(entries, e)
				matched++
			}
		}
		shuffle := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "shuffle"), 0))
		shuffle.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		slices.SortStableFunc(entries, func(a, b booked) int { return strings.Compare(a.signature, b.signature) })
		slices.SortFunc(moves, func(a, b move) int { return strings.Compare(a.signature, b.signature) })
		m := merge{account: treasury, moves: moves, unresolved: unresolved}
		for _, e := range entries {
			m.take(e)
		}
		c := m.end()
		got := map[string]int{}
		for _, d := range c.differences {
			got[d.class]++
		}
		if len(c.unmatched) > 0 {
			got[LedgerOnly] = len(c.unmatched)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || c.matched != matched {
			t.Fatalf("found %v and %d matched, want %v and %d", got, c.matched, want, matched)
		}
	})
}
