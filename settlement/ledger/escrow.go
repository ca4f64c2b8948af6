package ledger

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// Hold sets aside what a booking can cost at most, in the transaction that accepts the booking. Repeating it changes nothing.
// A balance that does not suffice is errs.InsufficientFunds, and says in tokens what is short.
func (l *Ledger) Hold(ctx context.Context, tx pgx.Tx, org ids.Org, booking ids.Booking, amount money.Amount) error {
	_, err := l.Post(ctx, tx, Entry{
		Key:  "hold:" + booking.String(),
		Kind: KindHold,
		Legs: []Leg{{Debit: Of(CustomerAvailable, org), Credit: Of(CustomerHeld, org), Amount: amount}},
		Refs: Refs{Booking: booking},
		Memo: "Held for a booking",
	})
	return err
}
