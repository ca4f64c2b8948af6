package chain

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gagliardetto/solana-go"
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

// step is a transaction and its place in the order of execution.
type step struct {
	signature Signature
	slot      Slot
	index     int // in its block, or unknownIndex
}

func stepOf(entry *rpc.TransactionSignature) step {
	one := step{signature: entry.Signature, slot: Slot(entry.Slot), index: unknownIndex}
	if entry.TransactionIndex != nil {
		one.index = int(*entry.TransactionIndex)
	}
	return one
}

// Walk visits what Movements returns, oldest first, without holding it. Transactions without a block time are in every span. The
// visitor's error ends the walk and is returned.
func (c *Client) Walk(ctx context.Context, tokenAccount Address, span Span, visit func(Movement) error) error {
	steps, err := c.steps(ctx, tokenAccount, span)
	if err != nil {
		return err
	}
	return walkSteps(ctx, c, steps, movementsOf(tokenAccount), visit, func(Slot) error { return nil })
}

// Stretch is a piece of an account's history.
type Stretch struct {
	From   Slot // transactions of earlier slots are left out
	Before Mark // so is this one, and what is later or in its slot; the zero mark leaves out nothing
	// Most is how many transactions make a piece: a stretch of more than twice as many is not read but cut. Zero: any number, up to MaxWalk.
	Most int
}

// Mark is a transaction in an account's history at which it is cut into pieces.
type Mark struct {
	Signature Signature
	Slot      Slot
}

// stretch lists a piece of an account's history, oldest first. One that is too long gives a mark instead: what lies before the mark is the next
// stretch to ask for, and what lies behind it is one that is not too long. The mark is in a later slot than the stretch's first, so that to read
// up to it is progress; one slot is never cut.
func (c *Client) stretch(ctx context.Context, account Address, s Stretch) (steps []step, cut Mark, err error) {
	before := s.Before.Signature
	for {
		page, err := c.page(ctx, account, before, c.pageSize, s.From)
		if err != nil {
			return nil, Mark{}, err
		}
		for _, entry := range page.entries {
			if slot := Slot(entry.Slot); slot >= s.From && (s.Before == Mark{} || slot < s.Before.Slot) {
				steps = append(steps, stepOf(entry))
			}
		}
		if s.Most > 0 && len(steps) > 2*s.Most && steps[s.Most].slot > s.From {
			return nil, Mark{Signature: steps[s.Most].signature, Slot: steps[s.Most].slot}, nil
		}
		if page.last() || Slot(page.entries[len(page.entries)-1].Slot) < s.From {
			slices.Reverse(steps)
			slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.slot, b.slot) })
			return steps, Mark{}, nil
		}
		if len(steps) > MaxWalk {
			return nil, Mark{}, fmt.Errorf("account %s: %w", account, ErrHistoryTooLong)
		}
		before = page.entries[len(page.entries)-1].Signature
	}
}

// reader reads what it wants to know of a transaction, nil if that is nothing.
type reader[T any] func(signature Signature, result *rpc.GetTransactionResult, decoded *solana.Transaction) (*T, error)

// placed is what has a place in the order of execution.
type placed[T any] interface {
	*T
	step() step
	setIndex(index int)
}

func (m *Movement) step() step         { return step{m.Signature, m.Slot, m.IndexInBlock} }
func (m *Movement) setIndex(index int) { m.IndexInBlock = index }

// walkSteps visits what is read of some transactions, in the order of execution. Between its windows it says before which slot all has been
// visited.
func walkSteps[T any, P placed[T]](ctx context.Context, c *Client, steps []step, read reader[T], visit func(T) error, passed func(Slot) error) error {
	for len(steps) > 0 {
		end := min(walkWindow, len(steps))
		for end < len(steps) && steps[end].slot == steps[end-1].slot {
			end++ // the order within a slot is known only when all of it is
		}
		found, err := readSteps[T, P](ctx, c, steps[:end], read)
		if err != nil {
			return err
		}
		for _, one := range found {
			if err := visit(one); err != nil {
				return err
			}
		}
		if end == len(steps) {
			return nil
		}
		if err := passed(steps[end].slot); err != nil {
			return err
		}
		steps = steps[end:]
	}
	return nil
}

// readSteps reads some transactions, in the order of execution. What read returns nil for is left out.
func readSteps[T any, P placed[T]](ctx context.Context, c *Client, steps []step, read reader[T]) ([]T, error) {
	found := make([]*T, len(steps))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(fetchers)
	for i, one := range steps {
		group.Go(func() error {
			result, decoded, err := c.transaction(groupCtx, one.signature)
			if err != nil {
				return err
			}
			if found[i], err = read(one.signature, result, decoded); found[i] != nil {
				P(found[i]).setIndex(one.index)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	items := make([]T, 0, len(found))
	for _, one := range found {
		if one != nil {
			items = append(items, *one)
		}
	}
	if err := placeInBlocks[T, P](ctx, c, items); err != nil {
		return nil, err
	}
	slices.SortStableFunc(items, func(a, b T) int {
		x, y := P(&a).step(), P(&b).step()
		return cmp.Or(cmp.Compare(x.slot, y.slot), cmp.Compare(x.index, y.index))
	})
	return items, nil
}

// placeInBlocks fills in the index of what the history did not say it for.
func placeInBlocks[T any, P placed[T]](ctx context.Context, c *Client, items []T) error {
	indices := map[Slot]map[Signature]int{}
	for i := range items {
		at := P(&items[i]).step()
		if at.index != unknownIndex {
			continue
		}
		block, known := indices[at.slot]
		if !known {
			var err error
			if block, err = c.blockIndices(ctx, at.slot); err != nil {
				return err
			}
			indices[at.slot] = block
		}
		index, found := block[at.signature]
		if !found {
			return fmt.Errorf("block %d does not list transaction %s: %w", at.slot, at.signature, ErrBehind)
		}
		P(&items[i]).setIndex(index)
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
			steps = append(steps, stepOf(entry))
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
