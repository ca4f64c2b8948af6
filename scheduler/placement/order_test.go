package placement

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestAListKeepsItsOrder changes a list at random beside a plain slice: chunks split at every place, and empty.
func TestAListKeepsItsOrder(t *testing.T) {
	t.Parallel()
	compare := func(a, b rank) int { return cmp.Or(cmp.Compare(a.price, b.price), cmp.Compare(a.slot, b.slot)) }
	random := rand.New(rand.NewPCG(1, 1))
	var l list
	var want []rank
	const most, changes = 12 * chunkSize, 60_000
	grows := true
	for i := range changes {
		switch len(want) {
		case 0:
			grows = true
		case most:
			grows = false
		}
		r := rank{random.Int64N(50), random.Int32N(1 << 20)}
		if at, found := slices.BinarySearchFunc(want, r, compare); grows != (random.IntN(8) == 0) && !found {
			l.insert(r, compare)
			want = slices.Insert(want, at, r)
		} else if len(want) > 0 {
			at = random.IntN(len(want))
			l.remove(want[at], compare)
			want = slices.Delete(want, at, at+1)
		}
		if i%1_000 == 0 && (!slices.Equal(read(&l), want) || l.size != len(want)) {
			t.Fatalf("after %d changes the list has %d ranks of %d, or another order", i, l.size, len(want))
		}
	}
	l.remove(rank{price: -1}, compare)
	if !slices.Equal(read(&l), want) {
		t.Error("taking out what is not there has changed the list")
	}
}

func read(l *list) []rank {
	var all []rank
	c := cursor{chunks: l.chunks}
	for r, ok := c.head(); ok; r, ok = c.head() {
		all = append(all, r)
		c.next()
	}
	return all
}
