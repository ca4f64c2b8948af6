package chain_test

import (
	"errors"
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
