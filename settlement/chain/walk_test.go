package chain_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
)

func TestWalkVisitsWhatMovementsReturn(t *testing.T) {
	t.Parallel()
	s := tell(t)
	client, err := chain.New(chain.Config{URL: localchaintest.URL()})
	check(t, err)
	defer client.Close()
	for size := 1; size <= 6; size++ {
		var visited []chain.Movement
		check(t, client.WithPageSize(size).Walk(t.Context(), s.account, chain.Span{}, func(m chain.Movement) error {
			visited = append(visited, m)
			return nil
		}))
		s.wantStory(t, visited)
	}
	enough := errors.New("enough")
	visits := 0
	err = client.Walk(t.Context(), s.account, chain.Span{}, func(chain.Movement) error {
		visits++
		return enough
	})
	if !errors.Is(err, enough) || visits != 1 {
		t.Errorf("after the visitor's error: %v, %d visits", err, visits)
	}
}

func TestWalkKeepsToItsSpan(t *testing.T) {
	t.Parallel()
	s := tell(t)
	client := s.local.Client()
	movements, err := client.Movements(t.Context(), s.account, chain.Cursor{})
	check(t, err)
	first, last := movements[0].BlockTime, movements[len(movements)-1].BlockTime
	for name, c := range map[string]struct {
		span chain.Span
		want int
	}{
		"all of it":     {chain.Span{From: first, To: last.Add(time.Second)}, len(movements)},
		"before it":     {chain.Span{To: first}, 0},
		"after it":      {chain.Span{From: last.Add(time.Second)}, 0},
		"no bounds":     {chain.Span{}, len(movements)},
		"an empty span": {chain.Span{From: last.Add(time.Hour), To: last.Add(2 * time.Hour)}, 0},
	} {
		visits := 0
		check(t, client.Walk(t.Context(), s.account, c.span, func(m chain.Movement) error {
			visits++
			if !c.span.Holds(m.BlockTime) {
				t.Errorf("%s: visited %s", name, m.BlockTime)
			}
			return nil
		}))
		if visits != c.want {
			t.Errorf("%s: %d visits, want %d", name, visits, c.want)
		}
	}
}

// TestCutStretchesAreTheWholeHistory: whatever the size of pieces and pages, the pieces between the marks are the whole, each of what is left is
// shorter, and none is longer than twice what was asked for, unless it is in one slot.
func TestCutStretchesAreTheWholeHistory(t *testing.T) {
	t.Parallel()
	s := tell(t)
	movements, err := s.local.Client().Movements(t.Context(), s.account, chain.Cursor{})
	check(t, err)
	wallet := movements[0].FeePayer // of all transactions of this local chain
	var whole []chain.LamportMovement
	cut, err := s.local.Client().WalkLamports(t.Context(), wallet, chain.Stretch{}, func(m chain.LamportMovement) error {
		whole = append(whole, m)
		return nil
	}, func(chain.Slot) error { return nil })
	check(t, err)
	if len(whole) < 9 || cut != (chain.Mark{}) {
		t.Fatalf("the wallet's history is %+v", whole)
	}
	for most := 1; most <= 5; most++ {
		client, err := chain.New(chain.Config{URL: localchaintest.URL()})
		check(t, err)
		var pieces []chain.LamportMovement
		var marks []chain.Mark
		client.WithPageSize(1 + most%3)
		stretch := chain.Stretch{Most: most}
		for range 100 {
			var piece []chain.LamportMovement
			cut, err := client.WalkLamports(t.Context(), wallet, stretch, func(m chain.LamportMovement) error {
				piece = append(piece, m)
				return nil
			}, func(chain.Slot) error { return nil })
			check(t, err)
			if cut != (chain.Mark{}) {
				if cut.Slot <= stretch.From || len(piece) > 0 {
					t.Fatalf("%+v was cut at %+v, after %d", stretch, cut, len(piece))
				}
				marks, stretch.Before = append(marks, cut), cut
				continue
			}
			if pieces = append(pieces, piece...); len(piece) > 2*most && piece[len(piece)-1-most].Slot > stretch.From {
				t.Errorf("a piece has %d, want at most %d and what else is in its first slot", len(piece), 2*most)
			}
			if len(marks) == 0 {
				break
			}
			stretch.From, marks = marks[len(marks)-1].Slot, marks[:len(marks)-1]
			if stretch.Before = (chain.Mark{}); len(marks) > 0 {
				stretch.Before = marks[len(marks)-1]
			}
		}
		if !reflect.DeepEqual(pieces, whole) {
			t.Errorf("in pieces of %d the history is %+v, as a whole %+v", most, pieces, whole)
		}
		check(t, client.Close())
	}
}
