package chain

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/gagliardetto/solana-go/rpc"
	"pgregory.net/rapid"
)

// view is what an endpoint at a slot shows of a history, newest first: the newest limit entries up to that slot.
func view(history []*rpc.TransactionSignature, at Slot, limit int) historyPage {
	var entries []*rpc.TransactionSignature
	for _, entry := range slices.Backward(history) {
		if Slot(entry.Slot) <= at && len(entries) < limit {
			entries = append(entries, entry)
		}
	}
	return historyPage{entries: entries, full: len(entries) == limit}
}

func drawHistory(t *rapid.T) []*rpc.TransactionSignature {
	slot := uint64(1)
	history := make([]*rpc.TransactionSignature, rapid.IntRange(0, 20).Draw(t, "length"))
	for i := range history {
		slot += uint64(rapid.IntRange(0, 2).Draw(t, "gap"))
		history[i] = &rpc.TransactionSignature{Slot: slot}
		binary.BigEndian.PutUint64(history[i].Signature[:], uint64(i+1))
	}
	return history
}

func answers(a, b historyPage) (x, y answer[historyPage]) {
	return answer[historyPage]{from: &endpoint{name: "1"}, value: a}, answer[historyPage]{from: &endpoint{name: "2"}, value: b}
}

func TestHonestEndpointsNeverDisagreeAboutHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		history, limit := drawHistory(t), rapid.IntRange(1, 25).Draw(t, "limit")
		reached := Slot(rapid.IntRange(0, 30).Draw(t, "reached"))
		atA := reached + Slot(rapid.IntRange(0, 10).Draw(t, "a is ahead by"))
		atB := reached + Slot(rapid.IntRange(0, 10).Draw(t, "b is ahead by"))
		a, b := answers(view(history, atA, limit), view(history, atB, limit))
		merged, err := mergePages(Address{}, reached, a, b)
		if errors.Is(err, errApart) {
			t.Fatalf("two honest endpoints are apart: %v", err)
		}
		if err != nil {
			return // nothing in common: asked again later
		}
		for _, entry := range merged.entries {
			if Slot(entry.Slot) > min(atA, atB) {
				t.Fatalf("an entry of slot %d counts, which only one endpoint has reached", entry.Slot)
			}
		}
		if whole := view(history, min(atA, atB), len(history)+1); !merged.full && len(merged.entries) != len(whole.entries) {
			t.Fatalf("the last page has %d of %d entries", len(merged.entries), len(whole.entries))
		}
	})
}

func TestAHoleInAHistoryIsFound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		history := drawHistory(t)
		if len(history) == 0 {
			return
		}
		const limit = 25 // all of it
		reached := Slot(history[len(history)-1].Slot)
		hidden := rapid.IntRange(0, len(history)-1).Draw(t, "hidden")
		a, b := answers(view(history, reached, limit), view(slices.Delete(slices.Clone(history), hidden, hidden+1), reached, limit))
		if rapid.Bool().Draw(t, "the first hides") {
			a.value, b.value = b.value, a.value
		}
		if _, err := mergePages(Address{}, reached, a, b); !errors.Is(err, errApart) {
			t.Fatalf("a hidden entry is no disagreement: %v", err)
		}
	})
}

func TestHoldingBackTheNewestIsFoundOnceTheSlotIsKnown(t *testing.T) {
	t.Parallel()
	history := []*rpc.TransactionSignature{{Slot: 5, Signature: Signature{1}}, {Slot: 9, Signature: Signature{2}}}
	a, b := answers(view(history, 9, 10), view(history[:1], 9, 10))
	merged, err := mergePages(Address{}, 8, a, b)
	if err != nil || len(merged.entries) != 1 || merged.entries[0].Slot != 5 {
		t.Errorf("what one endpoint has not reached counts: %+v, %v", merged, err)
	}
	if _, err := mergePages(Address{}, 9, a, b); !errors.Is(err, errApart) {
		t.Errorf("a held back entry is no disagreement: %v", err)
	}
}
