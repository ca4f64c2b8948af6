package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// EscrowHold is what one booking sets aside. It is an alias of an unnamed type, so that the scheduler, which must not import this
// package, can name the same one.
type EscrowHold = struct {
	Org     ids.Org
	Booking ids.Booking
	Amount  money.Amount
}

func holdEntry(h EscrowHold) Entry {
	return Entry{
		Key:  "hold:" + h.Booking.String(),
		Kind: KindHold,
		Legs: []Leg{{Debit: Of(CustomerAvailable, h.Org), Credit: Of(CustomerHeld, h.Org), Amount: h.Amount}},
		Refs: Refs{Booking: h.Booking},
		Memo: "Held for a booking",
	}
}

// Hold sets aside what a booking can cost at most, in the transaction that accepts the booking. Repeating it changes nothing.
// A balance that does not suffice is errs.InsufficientFunds, and says in tokens what is short.
func (l *Ledger) Hold(ctx context.Context, tx pgx.Tx, org ids.Org, booking ids.Booking, amount money.Amount) error {
	_, err := l.Post(ctx, tx, holdEntry(EscrowHold{Org: org, Booking: booking, Amount: amount}))
	return err
}

// HoldAll sets aside what many bookings can cost, one after another as far as each balance goes. A hold that its balance cannot
// bear is left out and named in refused, and later ones may still fit; each account is locked and written once. A hold that is
// there already changes nothing. After an error the transaction must be rolled back.
func (l *Ledger) HoldAll(ctx context.Context, tx pgx.Tx, holds []EscrowHold) (refused map[ids.Booking]*errs.Error, err error) {
	if len(holds) == 0 {
		return nil, nil //nolint:nilnil // nothing is refused
	}
	calls := make([][]Entry, len(holds))
	seen := make(map[ids.Booking]bool, len(holds))
	for i, hold := range holds {
		if seen[hold.Booking] {
			return nil, fmt.Errorf("hold for bookings: %s appears twice", hold.Booking)
		}
		seen[hold.Booking] = true
		calls[i] = []Entry{holdEntry(hold)}
	}
	results, err := l.PostEach(ctx, tx, calls)
	if err != nil {
		return nil, fmt.Errorf("hold for bookings: %w", err)
	}
	for i, result := range results {
		var refusal *errs.Error
		switch {
		case result.Err == nil:
		case errors.As(result.Err, &refusal) && refusal.Code == errs.InsufficientFunds:
			if refused == nil {
				refused = make(map[ids.Booking]*errs.Error)
			}
			refused[holds[i].Booking] = refusal
		default:
			return nil, result.Err
		}
	}
	return refused, nil
}

// Release gives back what was held for a booking that never became a cluster, in the transaction that ends the booking.
// Repeating it changes nothing.
func (l *Ledger) Release(ctx context.Context, tx pgx.Tx, org ids.Org, booking ids.Booking, amount money.Amount) error {
	_, err := l.Post(ctx, tx, Entry{
		Key:  "release:" + booking.String(),
		Kind: KindRelease,
		Legs: []Leg{{Debit: Of(CustomerHeld, org), Credit: Of(CustomerAvailable, org), Amount: amount}},
		Refs: Refs{Booking: booking},
		Memo: "The hold of a booking that did not begin",
	})
	return err
}
