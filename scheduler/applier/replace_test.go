package applier

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// TestTermsOfAReplacement checks, in a currency of 10,000 times finer units, that neither the customer nor the owner loses by what
// the platform does to replace a node.
func TestTermsOfAReplacement(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := Replacement{
			Cluster:  schedulerdb.LockClusterRow{FeeBps: rapid.Int32Range(0, wholeFee).Draw(t, "fee")},
			MaxPrice: money.Amount(rapid.Int64Range(1, int64(pricing.MaxPrice)).Draw(t, "price")),
			WaiveFee: rapid.Bool().Draw(t, "waive"),
		}
		reach := r.reach()
		if reach < r.MaxPrice || !r.WaiveFee && reach != r.MaxPrice {
			t.Fatalf("reach %d for a price of %d", reach, r.MaxPrice)
		}
		ask := money.Amount(rapid.Int64Range(1, int64(min(reach, pricing.MaxPrice))).Draw(t, "ask"))
		price, fee := r.terms(ask)
		if price > r.MaxPrice || price > ask {
			t.Errorf("the customer pays %d", price)
		}
		if fee < 0 || fee > r.Cluster.FeeBps {
			t.Errorf("the fee is %d basis points", fee)
		}
		promised, due := int64(ask)*int64(wholeFee-r.Cluster.FeeBps), int64(price)*int64(wholeFee-fee)
		if due < promised || due-promised >= int64(price) {
			t.Errorf("the owner gets %d, was promised %d", due, promised)
		}
	})
}
