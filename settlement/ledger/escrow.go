package ledger

import (
	"context"
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
	if len(holds) > MaxEntries {
		return nil, fmt.Errorf("hold for bookings: %d at once, at most %d are possible", len(holds), MaxEntries)
	}
	entries := make([]Entry, len(holds))
	for i, hold := range holds {
		entries[i] = holdEntry(hold)
	}
	drafts, err := l.draft(entries)
	if err != nil {
		return nil, err
	}
	if drafts, err = l.fresh(ctx, tx, drafts); err != nil || len(drafts) == 0 {
		return nil, err
	}
	accounts, err := l.lockAccounts(ctx, tx, drafts)
	if err != nil {
		return nil, err
	}
	var rows transferRows
	var borne []*draft
	for _, d := range drafts {
		leg := d.Legs[0]
		available, held := accounts[leg.Debit], accounts[leg.Credit]
		if available.balance < leg.Amount {
			if refused == nil {
				refused = make(map[ids.Booking]*errs.Error)
			}
			refused[d.Refs.Booking] = l.shortfall(leg.Debit.Kind, leg.Amount, available.balance)
			continue
		}
		if err := moveLeg(available, held, leg.Amount); err != nil {
			return nil, fmt.Errorf("post %s: %w", d.Key, err)
		}
		rows.add(d.id, 0, leg.Amount, available, held)
		borne = append(borne, d)
	}
	if len(borne) == 0 {
		return refused, nil
	}
	if err := l.insertEntries(ctx, tx, borne); err != nil {
		return nil, err
	}
	return refused, write(ctx, tx, l.currency.Mint, rows, moved(accounts))
}

// moved are the accounts that some transfer has touched.
func moved(accounts map[Account]*locked) map[Account]*locked {
	touched := make(map[Account]*locked, len(accounts))
	for account, a := range accounts {
		if a.seq != a.startSeq {
			touched[account] = a
		}
	}
	return touched
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
