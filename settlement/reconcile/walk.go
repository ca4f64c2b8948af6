package reconcile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// cursor is a place up to which an account was found equal on both sides, and what had been counted until there. The zero cursor is
// the beginning.
type cursor struct {
	slot          chain.Slot
	signature     string       // the newest transaction before it that moved tokens
	balance       money.Amount // what that left
	seq           int64        // in the ledger account's history
	ledgerBalance money.Amount // there
	totalIn       money.Amount
	totalOut      money.Amount
	transactions  int
	matched       int
	fees          uint64
}

// walk is a token account's final history from a cursor up to a slot. Its totals count from the beginning.
type walk struct {
	from      cursor
	slot      chain.Slot
	balance   money.Amount // live, at slot
	totalIn   money.Amount
	totalOut  money.Amount
	fees      uint64 // lamports
	movements []move
	last      move // the newest that moved tokens, and where it is
	lastSlot  chain.Slot
	gaps      []difference
}

// move is a transaction that changed the account.
type move struct {
	signature string
	amount    money.Amount // signed
	at        time.Time
}

// walkAccount reads the live balance first, so that the history, read after it, can be required to lead to it. A cursor that the
// chain does not confirm is not believed: the walk begins at the beginning then.
func (s *Service) walkAccount(ctx context.Context, account chain.Address, from cursor) (walk, error) {
	balance, err := s.chain.TokenBalance(ctx, account, 0)
	if errors.Is(err, chain.ErrNotFound) { // nobody has sent anything yet
		balance.Slot, err = s.chain.Slot(ctx, chain.Finalized)
	}
	if err != nil {
		return walk{}, fmt.Errorf("read the balance of %s: %w", account, err)
	}
	if from.signature != "" {
		movements, err := s.chain.Movements(ctx, account, chain.Cursor{Slot: from.slot})
		if err != nil {
			return walk{}, fmt.Errorf("read the history of %s: %w", account, err)
		}
		if rest, confirmed := after(movements, from); confirmed {
			f := newFollower(account, balance, from)
			for _, m := range rest {
				if err := f.visit(m); err != nil {
					return walk{}, err
				}
			}
			return f.end()
		}
		s.log.WarnContext(ctx, "the chain does not confirm where the last walk ended: walking the whole history", "token_account", account.String(),
			"signature", from.signature)
	}
	f := newFollower(account, balance, cursor{})
	if err := s.chain.Walk(ctx, account, chain.Span{}, f.visit); err != nil {
		return walk{}, fmt.Errorf("read the history of %s: %w", account, err)
	}
	return f.end()
}

// after is what follows a cursor's transaction, and whether that is there and left what the cursor says.
func after(movements []chain.Movement, from cursor) ([]chain.Movement, bool) {
	for i, m := range movements {
		if m.Signature.String() == from.signature {
			return movements[i+1:], m.Slot == from.slot && m.Err == "" && m.Post == uint64(from.balance)
		}
	}
	return nil, false
}

// follower checks a history for continuity as it comes, and adds it up.
type follower struct {
	walk
	account chain.Address
	live    chain.Balance
	left    uint64 // by the transaction before
}

func newFollower(account chain.Address, live chain.Balance, from cursor) *follower {
	return &follower{
		account: account, live: live, left: uint64(from.balance),
		walk: walk{
			from: from, slot: live.Slot, totalIn: from.totalIn, totalOut: from.totalOut, fees: from.fees,
			last: move{signature: from.signature}, lastSlot: from.slot,
		},
	}
}

func (f *follower) visit(m chain.Movement) error {
	if m.Slot > f.live.Slot {
		return nil // later than the live balance: the next run's
	}
	if m.Pre > math.MaxInt64 || m.Post > math.MaxInt64 {
		return fmt.Errorf("transaction %s leaves more in %s than can be counted", m.Signature, f.account)
	}
	if m.Sent() > 0 || m.Err != "" {
		f.fees += m.Fee
	}
	if m.Err != "" {
		return nil // it moved nothing
	}
	signature := m.Signature.String()
	if m.Pre != f.left {
		f.gaps = append(f.gaps, gap(f.account, signature, m.BlockTime, m.Pre, f.left,
			"the account held %d before this transaction, but the one before it left %d: a transaction is missing from the history"))
	}
	f.left = m.Post
	amount := money.Amount(m.Post) - money.Amount(m.Pre)
	if amount > 0 {
		f.totalIn += amount
	} else {
		f.totalOut -= amount
	}
	f.last, f.lastSlot = move{signature: signature, amount: amount, at: m.BlockTime}, m.Slot
	f.movements = append(f.movements, f.last)
	return nil
}

// end is called after the last movement. The movements are in the order of their signatures then.
func (f *follower) end() (walk, error) {
	if f.live.Amount > math.MaxInt64 {
		return walk{}, fmt.Errorf("%s holds more than can be counted", f.account)
	}
	f.balance = money.Amount(f.live.Amount)
	if f.live.Amount != f.left {
		f.gaps = append(f.gaps, gap(f.account, "", time.Time{}, f.live.Amount, f.left,
			"the account holds %d, but its last known transaction left %d: a transaction is missing from the history"))
	}
	slices.SortFunc(f.movements, func(a, b move) int { return strings.Compare(a.signature, b.signature) })
	return f.walk, nil
}

func gap(account chain.Address, signature string, at time.Time, now, before uint64, text string) difference {
	amount := money.Amount(now) - money.Amount(before)
	return difference{
		class: AmountMismatch, account: account.String(), signature: signature, chain: &amount, at: at, text: fmt.Sprintf(text, now, before),
	}
}
