package metering

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

const plenty = 1 << 60

// run lets the leases of a cluster be used, a piece after another, with passes in between, and returns what was posted for each.
func run(t *rapid.T, hold money.Amount, leases []meteredLease, pieces []piece) (c metered, added map[ids.Lease]int64) {
	c = metered{hold: hold, leases: leases}
	added = make(map[ids.Lease]int64)
	pass := func() {
		dues, charged, _ := c.dues()
		var sum money.Amount
		for _, d := range dues {
			for i := range c.leases {
				if lease := &c.leases[i]; lease.id == d.lease {
					if d.charge <= 0 || d.fee < 0 || d.fee > d.charge || d.addedMS < 0 {
						t.Fatalf("a due of %+v", d)
					}
					lease.charged, lease.fee, lease.postedMS = d.charged, d.feeTotal, d.billedMS
					added[lease.id] += d.addedMS
				}
			}
		}
		for _, lease := range c.leases {
			sum += lease.charged
		}
		if sum != charged || sum > hold {
			t.Fatalf("%d is posted, dues say %d, the hold is %d", sum, charged, hold)
		}
	}
	for _, p := range pieces {
		c.leases[p.lease].billedMS += p.ms
		if p.pass {
			pass()
		}
	}
	pass()
	return c, added
}

type piece struct {
	lease int
	ms    int64
	pass  bool
}

func draw(t *rapid.T) (leases []meteredLease, pieces []piece) {
	for range rapid.IntRange(1, 4).Draw(t, "leases") {
		leases = append(leases, meteredLease{
			id: ids.New[ids.Lease](), price: money.Amount(rapid.Int64Range(1, 100_000_000).Draw(t, "price")), feeBps: rapid.IntRange(0, 10_000).Draw(t, "fee"),
		})
	}
	for range rapid.IntRange(0, 30).Draw(t, "pieces") {
		pieces = append(pieces, piece{
			lease: rapid.IntRange(0, len(leases)-1).Draw(t, "lease"), ms: rapid.Int64Range(0, 5_000_000).Draw(t, "ms"), pass: rapid.Bool().Draw(t, "pass"),
		})
	}
	return leases, pieces
}

// TestRatingIsTheCumulativeFloor: however usage is cut into pieces and whenever passes come, a lease costs what its whole time costs,
// rounded down once, and the fee is its share of that.
func TestRatingIsTheCumulativeFloor(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		leases, pieces := draw(t)
		c, added := run(t, plenty, leases, pieces)
		for _, lease := range c.leases {
			want := money.Accrued(lease.price, lease.billedMS)
			if lease.charged != want || lease.fee != money.Share(want, lease.feeBps) {
				t.Fatalf("%d ms at %d cost %d with a fee of %d, want %d and %d", lease.billedMS, lease.price, lease.charged, lease.fee, want, money.Share(want, lease.feeBps))
			}
			if want > 0 && money.Accrued(lease.price, added[lease.id]) != want {
				t.Fatalf("the postings name %d ms, which cost %d and not %d", added[lease.id], money.Accrued(lease.price, added[lease.id]), want)
			}
		}
	})
}

// TestRatingDoesNotDependOnOrder: pieces in another order, with passes elsewhere and the leases the other way round, come to the same.
func TestRatingDoesNotDependOnOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		leases, pieces := draw(t)
		hold := money.Amount(rapid.Int64Range(1, 1_000_000_000).Draw(t, "hold"))
		other := rapid.Permutation(pieces).Draw(t, "order")
		for i := range other {
			other[i].pass = rapid.Bool().Draw(t, "pass")
		}
		for _, limit := range []money.Amount{plenty, hold} {
			first, _ := run(t, limit, append([]meteredLease(nil), leases...), pieces)
			second, _ := run(t, limit, append([]meteredLease(nil), leases...), other)
			var a, b money.Amount
			for i := range first.leases {
				a, b = a+first.leases[i].charged, b+second.leases[i].charged
				if limit == plenty && first.leases[i].charged != second.leases[i].charged {
					t.Fatalf("a lease cost %d in one order, %d in another", first.leases[i].charged, second.leases[i].charged)
				}
			}
			if a != b {
				t.Fatalf("the cluster cost %d in one order, %d in another, of a hold of %d", a, b, limit)
			}
		}
	})
}
