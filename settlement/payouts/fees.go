package payouts

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
)

const (
	feePercentile = 75               // of what recent transactions on the treasury's account paid per compute unit
	feeMemory     = 10 * time.Second // how long a price is used
	microLamports = 1_000_000
)

// fees remembers what the chain asks for being taken early. The zero value knows nothing; it is safe for concurrent use.
type fees struct {
	mu    sync.Mutex
	price uint64 // micro-lamports per compute unit
	until time.Time
}

// priorityFee is what a transaction of so many compute units pays beside its base fee, in lamports: what most recent ones paid that
// write the treasury's account, within a floor and a cap. The signer refuses more than its policy allows.
func (s *Service) priorityFee(ctx context.Context, keys signer.Addresses, units uint32) uint64 {
	most := min(s.options.MaxPriorityFee, keys.MaxPriorityFee)
	return clampFee(s.unitPrice(ctx, keys.TreasuryTokenAccount), units, s.options.PriorityFee, most)
}

func clampFee(price uint64, units uint32, least, most uint64) uint64 {
	fee := uint64(math.MaxUint64)
	if units == 0 || price <= math.MaxUint64/uint64(units) {
		fee = price * uint64(units) / microLamports
	}
	return min(max(fee, least), most)
}

// unitPrice asks at most once in a while; a chain that does not say is answered with the floor.
func (s *Service) unitPrice(ctx context.Context, account chain.Address) uint64 {
	s.fees.mu.Lock()
	defer s.fees.mu.Unlock()
	if now := time.Now(); now.After(s.fees.until) {
		prices, err := s.chain.PriorityFees(ctx, account)
		if err != nil {
			s.log.InfoContext(ctx, "the chain does not say what transactions pay; the least is paid", "error", err)
			prices = nil
		}
		s.fees.price, s.fees.until = percentile(prices, feePercentile), now.Add(feeMemory)
	}
	return s.fees.price
}

// percentile is the least value that so many of a hundred do not exceed; 0 of none.
func percentile(values []uint64, percent int) uint64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)*percent+99)/100-1]
}
