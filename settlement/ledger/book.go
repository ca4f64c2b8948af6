package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// balance is what moves in an account.
type balance struct {
	amount      money.Amount
	reserved    money.Amount // what pending transfers may yet take
	seq         int64        // counts transfers
	reservedSeq int64        // counts changes of reserved
}

// free is what can be taken.
func (b balance) free() money.Amount { return b.amount - b.reserved }

// locked is an account whose row the transaction holds.
type locked struct {
	Account
	balance
	id     ids.Account
	stored balance // as read; what is reserved is counted on from it when it is written
	mark   balance // before the group at hand
	marked bool
}

// known is an entry that is on record.
type known struct {
	id        ids.Entry
	inputHash []byte
}

// book is what one transaction has locked and read, and what it has posted on it so far, in memory. Nothing is written until
// every group has been decided.
type book struct {
	ledger   *Ledger
	now      time.Time // the database's, not before any locked account's last change
	accounts map[Account]*locked
	keys     map[string]known     // on record, or posted by an earlier group
	ended    map[ids.Entry]string // pending entries with an end: which
	writes   writes
	touched  []*locked   // by the group at hand
	ending   []ids.Entry // likewise
}

// post decides on one group. A refusal leaves everything as it was.
func (b *book) post(g *group) error {
	before := b.writes.mark()
	b.touched, b.ending = b.touched[:0], b.ending[:0]
	err := b.postAll(g)
	if err == nil {
		err = b.refuseOverdrafts()
	}
	for _, a := range b.touched {
		if err != nil {
			a.balance = a.mark
		}
		a.marked = false
	}
	if err != nil {
		b.writes.cut(before)
		for _, pending := range b.ending {
			delete(b.ended, pending)
		}
		return err
	}
	b.remember(g)
	return nil
}

func (b *book) postAll(g *group) error {
	for _, d := range g.drafts {
		if k, found := b.keys[d.Key]; found {
			if !bytes.Equal(k.inputHash, d.inputHash) {
				return conflict(d.Key)
			}
			d.id, d.again = k.id, true
			continue
		}
		d.again = false
		if err := b.draft(d); err != nil {
			return err
		}
	}
	return nil
}

// remember makes later groups see what this one did.
func (b *book) remember(g *group) {
	for _, d := range g.drafts {
		b.keys[d.Key] = known{id: d.id, inputHash: d.inputHash}
	}
}

// draft posts one entry that is new.
func (b *book) draft(d *draft) error {
	b.writes.entries = append(b.writes.entries, d)
	switch {
	case d.Pend != nil:
		return b.pend(d)
	case d.Settle != nil:
		return b.settle(d)
	}
	for i, leg := range d.legs {
		if err := b.move(d, i, leg); err != nil {
			return err
		}
	}
	return nil
}

func (b *book) move(d *draft, ordinal int, leg Leg) error {
	debit, credit := b.touch(leg.Debit), b.touch(leg.Credit)
	if err := errors.Join(debit.apply(leg.Amount, true), credit.apply(leg.Amount, false)); err != nil {
		return fmt.Errorf("post %s: %w", d.Key, err)
	}
	b.writes.transfers = append(b.writes.transfers, transfer{
		entry: d.id, ordinal: ordinal, amount: leg.Amount, debit: debit.id, credit: credit.id,
		debitSeq: debit.seq, creditSeq: credit.seq, debitBalance: debit.amount, creditBalance: credit.amount,
	})
	return nil
}

func (b *book) pend(d *draft) error {
	leg := d.legs[0]
	row := pendingRow{draft: d, debit: b.touch(leg.Debit).id, credit: b.touch(leg.Credit).id, amount: leg.Amount}
	if d.Pend.TTL > 0 {
		row.expiresAt = b.now.Add(d.Pend.TTL)
	}
	b.writes.pendings = append(b.writes.pendings, row)
	return b.reserve(d.id, leg, leg.Amount)
}

func (b *book) settle(d *draft) error {
	leg, p := d.legs[0], d.pending
	how := outcome(d.Settle)
	if err := b.refuseSettlement(d, how); err != nil {
		return err
	}
	b.ended[p.entry] = how
	b.ending = append(b.ending, p.entry)
	if err := b.reserve(p.entry, leg, -leg.Amount); err != nil {
		return err
	}
	b.writes.settlements = append(b.writes.settlements, settlement{pending: p.entry, entry: d.id, outcome: how, amount: d.Settle.Amount})
	if d.Settle.Amount == 0 {
		return nil
	}
	leg.Amount = d.Settle.Amount
	return b.move(d, 0, leg)
}

func (b *book) refuseSettlement(d *draft, how string) error {
	p := d.pending
	ended, isEnded := b.ended[p.entry]
	over := !p.expiresAt.IsZero() && !p.expiresAt.After(b.now)
	switch {
	case isEnded:
		return errs.New(errs.Conflict, "the pending entry %s is %s already", p.entry, ended)
	case how == outcomePosted && over:
		return errs.New(errs.Expired, "the pending entry %s expired at %s: nothing of it can be posted any more", p.entry,
			p.expiresAt.UTC().Format(time.RFC3339))
	case how == outcomeExpired && !over:
		return errs.New(errs.Conflict, "the pending entry %s has not expired", p.entry)
	case d.Settle.Amount > p.leg.Amount:
		return errs.New(errs.Invalid, "the pending entry %s is of %s %s: %s cannot be posted from it", p.entry,
			b.ledger.currency.Format(p.leg.Amount), b.ledger.currency.Symbol, b.ledger.currency.Format(d.Settle.Amount))
	}
	return nil
}

// reserve changes what is set aside on the sides that the leg would lower.
func (b *book) reserve(pending ids.Entry, leg Leg, change money.Amount) error {
	for _, side := range leg.lowers() {
		a := b.touch(side)
		sum, ok := add(a.reserved, change)
		if !ok || sum < 0 {
			return fmt.Errorf("reserve on %s: %d and %d cannot be counted", a.Kind, a.reserved, change)
		}
		a.reserved = sum
		b.writes.reservations = append(b.writes.reservations, reservation{account: a, pending: pending, change: change})
	}
	return nil
}

// touch is the account, its state before the group remembered.
func (b *book) touch(account Account) *locked {
	a := b.accounts[account]
	if !a.marked {
		a.mark, a.marked = a.balance, true
		b.touched = append(b.touched, a)
	}
	return a
}

// refuseOverdrafts looks at the accounts after the whole group, so that its legs may pass through one in any order.
func (b *book) refuseOverdrafts() error {
	for _, a := range b.touched {
		if a.amount >= a.reserved || rules[a.Kind].mayOverdraw {
			continue
		}
		return b.ledger.shortfall(a.Kind, a.mark.free()-a.free(), a.mark.free())
	}
	return nil
}

// ErrUncountable refuses a posting after which an account would hold more than a money.Amount counts. Nothing of it is written, and the
// caller's transaction remains usable.
var ErrUncountable = errors.New("the account would pass what can be counted")

// apply moves an account by one side of a leg.
func (a *locked) apply(amount money.Amount, debit bool) error {
	a.seq++
	if debit != a.asset() {
		amount = -amount
	}
	sum, ok := add(a.amount, amount)
	if !ok {
		return fmt.Errorf("%s: %w", a.Kind, ErrUncountable)
	}
	a.amount = sum
	return nil
}

// add reports whether the sum is one that an Amount holds.
func add(a, b money.Amount) (sum money.Amount, ok bool) {
	sum = a + b
	return sum, b == 0 || (sum > a) == (b > 0)
}

// lowers are the sides from which the leg takes: the debited one unless it is an asset, and the credited one if it is.
func (l Leg) lowers() []Account {
	var sides []Account
	if !l.Debit.asset() {
		sides = append(sides, l.Debit)
	}
	if l.Credit.asset() {
		sides = append(sides, l.Credit)
	}
	return sides
}

// shortfall refuses what an account cannot bear.
func (l *Ledger) shortfall(kind Kind, needed, available money.Amount) *errs.Error {
	short := Shortfall{Account: kind, Needed: needed, Available: available, Short: needed - available}
	return errs.New(errs.InsufficientFunds, "%s is %s %s short: %s needed, %s there", rules[kind].inWords,
		l.currency.Format(short.Short), l.currency.Symbol, l.currency.Format(short.Needed), l.currency.Format(short.Available),
	).WithDetails(short)
}
