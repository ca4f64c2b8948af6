package chain

import (
	"context"

	"github.com/gagliardetto/solana-go/rpc"
)

// PriorityFees returns what recent transactions that write the accounts paid for being taken early, in micro-lamports per compute
// unit: the least of each recent block, zero where they paid nothing.
func (c *Client) PriorityFees(ctx context.Context, accounts ...Address) ([]uint64, error) {
	blocks, err := first(ctx, c, func(e *endpoint) ([]rpc.PriorizationFeeResult, error) {
		return e.rpc.GetRecentPrioritizationFees(ctx, accounts)
	})
	if err != nil {
		return nil, err
	}
	fees := make([]uint64, len(blocks))
	for i, block := range blocks {
		fees[i] = block.PrioritizationFee
	}
	return fees, nil
}
