package reconcile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// walk is a token account's whole final history up to a slot.
type walk struct {
	slot      chain.Slot
	balance   money.Amount // live, at slot
	opening   money.Amount
	totalIn   money.Amount
	totalOut  money.Amount
	fees      uint64 // lamports
	movements []move
	gaps      []difference
}

// move is a transaction that changed the account.
type move struct {
	signature string
	amount    money.Amount // signed
	at        time.Time
}

// walkAccount reads the live balance first, so that the history, read after it, can be required to lead to it.
func (s *Service) walkAccount(ctx context.Context, account chain.Address) (walk, error) {
	balance, err := s.chain.TokenBalance(ctx, account, 0)
	if errors.Is(err, chain.ErrNotFound) { // nobody has sent anything yet
		balance.Slot, err = s.chain.Slot(ctx, chain.Finalized)
	}
	if err != nil {
		return walk{}, fmt.Errorf("read the balance of %s: %w", account, err)
	}
	movements, err := s.chain.Movements(ctx, account, chain.Cursor{})
	if err != nil {
		return walk{}, fmt.Errorf("read the history of %s: %w", account, err)
	}
	return follow(account, balance, movements)
}

// follow checks the history for continuity and adds it up.
func follow(account chain.Address, balance chain.Balance, movements []chain.Movement) (walk, error) {
	w := walk{slot: balance.Slot}
	last := uint64(0)
	for _, m := range movements {
		if m.Slot > balance.Slot {
			break // later than the live balance: the next run's
		}
		if m.Pre > math.MaxInt64 || m.Post > math.MaxInt64 {
			return walk{}, fmt.Errorf("transaction %s leaves more in %s than can be counted", m.Signature, account)
		}
		if m.Sent() > 0 || m.Err != "" {
			w.fees += m.Fee
		}
		if m.Err != "" {
			continue // it moved nothing
		}
		if m.Pre != last {
			w.gaps = append(w.gaps, gap(account, m.Signature.String(), m.BlockTime, m.Pre, last,
				"the account held %d before this transaction, but the one before it left %d: a transaction is missing from the history"))
		}
		last = m.Post
		amount := money.Amount(m.Post) - money.Amount(m.Pre)
		if amount > 0 {
			w.totalIn += amount
		} else {
			w.totalOut -= amount
		}
		w.movements = append(w.movements, move{signature: m.Signature.String(), amount: amount, at: m.BlockTime})
	}
	if balance.Amount > math.MaxInt64 {
		return walk{}, fmt.Errorf("%s holds more than can be counted", account)
	}
	w.balance = money.Amount(balance.Amount)
	if balance.Amount != last {
		w.gaps = append(w.gaps, gap(account, "", time.Time{}, balance.Amount, last,
			"the account holds %d, but its last known transaction left %d: a transaction is missing from the history"))
	}
	return w, nil
}

func gap(account chain.Address, signature string, at time.Time, now, before uint64, text string) difference {
	amount := money.Amount(now) - money.Amount(before)
	return difference{
		class: AmountMismatch, account: account.String(), signature: signature, chain: &amount, at: at, text: fmt.Sprintf(text, now, before),
	}
}
