package ledger

import (
	"errors"
	"fmt"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// The kinds of entry.
const (
	KindHold            = "hold"             // customer_available -> customer_held, for a booking
	KindCharge          = "charge"           // customer_held -> owner_payable and platform_fees, for a lease
	KindRelease         = "release"          // customer_held -> customer_available, the rest of a hold
	KindDeposit         = "deposit"          // tokens reached a deposit account
	KindSuspense        = "suspense"         // tokens of a foreign mint, or dust
	KindTreasuryFunding = "treasury_funding" // the platform's own tokens reached the treasury
	KindPayoutReserve   = "payout_reserve"   // owner_payable -> payout_in_flight, with the batch
	KindPayoutPaid      = "payout_paid"      // payout_in_flight -> chain_treasury, once final
	KindPayoutReturn    = "payout_return"    // payout_in_flight -> owner_payable, nothing was paid
	KindPostPending     = "post_pending"     // what a pending entry reserved moves, or a part of it
	KindVoid            = "void"             // a reservation is given back
	KindExpire          = "expire"           // a reservation is given back because its time is over
)

// MaxLegs bounds an entry.
const MaxLegs = 256

// Leg moves an amount: it debits one account and credits another.
type Leg struct {
	Debit, Credit Account
	Amount        money.Amount
}

// Refs ties an entry to what it is about. Zero values are absent.
type Refs struct {
	Booking   ids.Booking `json:"booking,omitzero"`
	Cluster   ids.Cluster `json:"cluster,omitzero"`
	Lease     ids.Lease   `json:"lease,omitzero"`
	Deposit   ids.Deposit `json:"deposit,omitzero"`
	Batch     ids.Batch   `json:"batch,omitzero"`
	Signature string      `json:"signature,omitempty"` // of a chain transaction
}

// Entry is what Post posts. With Pend it reserves its one leg instead of moving it; with Settle it has no legs of its own and ends a
// pending entry.
type Entry struct {
	Key    string // idempotency, 1 to 200 bytes
	Kind   string // a Kind constant, or lower-case words of the caller's
	Legs   []Leg
	Refs   Refs
	Memo   string // a sentence for people, at most 500 characters
	Pend   *Pend
	Settle *Settle
}

// Pend makes an entry pending.
type Pend struct {
	TTL time.Duration // after which the reservation may only be given back, in whole milliseconds; zero: never
}

// Settle ends a pending entry: it posts an amount up to the pending one and gives the rest back, or gives back everything.
type Settle struct {
	Pending ids.Entry
	Amount  money.Amount // to post; zero voids
	expire  bool
}

func (e Entry) validate() error {
	if e.Key == "" || e.Kind == "" {
		return fmt.Errorf("post entry: it needs a key and a kind, has %q and %q", e.Key, e.Kind)
	}
	if err := e.validateLegs(); err != nil {
		return fmt.Errorf("post %s: %w", e.Key, err)
	}
	for i, leg := range e.Legs {
		if err := leg.validate(); err != nil {
			return fmt.Errorf("post %s: leg %d: %w", e.Key, i, err)
		}
	}
	return nil
}

// validateLegs checks how many legs there are, which differs by what the entry does.
func (e Entry) validateLegs() error {
	switch {
	case e.Pend != nil && e.Settle != nil:
		return errors.New("it is pending and ends another, it can be one")
	case e.Settle != nil && len(e.Legs) > 0:
		return fmt.Errorf("%d legs, the end of a pending entry has none of its own", len(e.Legs))
	case e.Settle != nil && (e.Settle.Pending.IsZero() || e.Settle.Amount < 0):
		return fmt.Errorf("the end %+v names no pending entry, or a negative amount", *e.Settle)
	case e.Settle != nil:
		return nil
	case e.Pend != nil && len(e.Legs) != 1:
		return fmt.Errorf("%d legs, a pending entry has one: link several by posting them together", len(e.Legs))
	case e.Pend != nil && (e.Pend.TTL < 0 || e.Pend.TTL%time.Millisecond != 0):
		return fmt.Errorf("it is to last %s, whole milliseconds are possible", e.Pend.TTL)
	case len(e.Legs) == 0 || len(e.Legs) > MaxLegs:
		return fmt.Errorf("%d legs, 1 to %d are possible", len(e.Legs), MaxLegs)
	}
	return nil
}

func (l Leg) validate() error {
	if l.Amount <= 0 {
		return fmt.Errorf("the amount %d is not positive", l.Amount)
	}
	if err := l.Debit.validate(); err != nil {
		return err
	}
	if err := l.Credit.validate(); err != nil {
		return err
	}
	if l.Debit == l.Credit {
		return fmt.Errorf("both sides are %s", l.Debit.Kind)
	}
	return nil
}
