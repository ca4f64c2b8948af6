package chain

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gagliardetto/solana-go/rpc"
	"golang.org/x/sync/errgroup"
)

const (
	// MaxWalk is how many transactions of one account a walk covers before it fails with ErrHistoryTooLong. Of each it holds no more
	// than a name and a place.
	MaxWalk = 2_000_000
	// walkWindow is how many transactions a walk holds in full.
	walkWindow = 256
)

// Span is a period of block times: from its beginning to before its end. A zero time is no bound.
type Span struct{ From, To time.Time }

// Holds reports whether a time is in the span.
func (s Span) Holds(at time.Time) bool {
	return (s.From.IsZero() || !at.Before(s.From)) && (s.To.IsZero() || at.Before(s.To))
}

// step is a transaction that a walk will come to.
type step struct {
	signature Signature
	slot      Slot
	index     int
}

// Walk visits what Movements returns, oldest first, without holding it. Transactions without a block time are in every span. The
// visitor's error ends the walk and is returned.
func (c *Client) Walk(ctx context.Context, tokenAccount Address, span Span, visit func(Movement) error) error {
	steps, err := c.steps(ctx, tokenAccount, span)
	if err != nil {
		return err
	}
	for len(steps) > 0 {
		end := min(walkWindow, len(steps))
		for end < len(steps) && steps[end].slot == steps[end-1].slot {
			end++ // the order within a slot is known only when all of it is
		}
		movements, err := c.follow(ctx, tokenAccount, steps[:end])
		if err != nil {
			return err
		}
		for _, movement := range movements {
			if err := visit(movement); err != nil {
				return err
			}
		}
		steps = steps[end:]
	}
	return nil
}

// steps lists an account's transactions in a span, oldest first.
func (c *Client) steps(ctx context.Context, account Address, span Span) ([]step, error) {
	var steps []step
	var before Signature
	for {
		page, err := c.page(ctx, account, before, c.pageSize, 0)
		if err != nil {
			return nil, err
		}
		reached := false
		for _, entry := range page.entries {
			if at := blockTime(entry.BlockTime); !at.IsZero() && !span.Holds(at) {
				reached = reached || at.Before(span.From)
				continue
			}
			one := step{signature: entry.Signature, slot: Slot(entry.Slot), index: unknownIndex}
			if entry.TransactionIndex != nil {
				one.index = int(*entry.TransactionIndex)
			}
			steps = append(steps, one)
		}
		if len(steps) > MaxWalk {
			return nil, fmt.Errorf("account %s: %w", account, ErrHistoryTooLong)
		}
		if page.last() || reached {
			slices.Reverse(steps)
			slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.slot, b.slot) })
			return steps, nil
		}
		before = page.entries[len(page.entries)-1].Signature
	}
}

// follow reads the movements of some steps, in the order of execution.
func (c *Client) follow(ctx context.Context, account Address, steps []step) ([]Movement, error) {
	found := make([]*Movement, len(steps))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(fetchers)
	for i, one := range steps {
		group.Go(func() (err error) {
			found[i], err = c.movement(groupCtx, account, &rpc.TransactionSignature{Signature: one.signature})
			if found[i] != nil {
				found[i].IndexInBlock = one.index
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	movements := make([]Movement, 0, len(found))
	for _, movement := range found {
		if movement != nil {
			movements = append(movements, *movement)
		}
	}
	if err := c.placeInBlocks(ctx, movements); err != nil {
		return nil, err
	}
	slices.SortStableFunc(movements, func(a, b Movement) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.IndexInBlock, b.IndexInBlock))
	})
	return movements, nil
}
