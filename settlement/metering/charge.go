package metering

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// metered is a cluster as a pass reads it.
type metered struct {
	id        ids.Cluster
	customer  ids.Org
	booking   ids.Booking
	hold      money.Amount
	endedAt   *time.Time
	openUsage bool
	leases    []meteredLease
}

// meteredLease is a lease's usage and what has been posted for it.
type meteredLease struct {
	id       ids.Lease
	owner    ids.Org
	price    money.Amount // per GPU-hour
	feeBps   int
	billedMS int64
	postedMS int64 // of billedMS, what the charges so far are for
	charged  money.Amount
	fee      money.Amount
}

// due is what to post for a lease, with the totals after it.
type due struct {
	lease    ids.Lease
	owner    ids.Org
	billedMS int64
	addedMS  int64        // of billedMS, what the charge is for
	charge   money.Amount // the difference to post, the fee included
	fee      money.Amount // the platform's part of the difference
	charged  money.Amount // cumulative after it
	feeTotal money.Amount
}

// over says that all of a cluster's usage is known: what is due now is the last.
func (c metered) over() bool { return c.endedAt != nil && !c.openUsage }

// dues computes what is to be posted, lease by lease, within the hold. beyond is what the usage would cost above the hold.
func (c metered) dues() (dues []due, charged, beyond money.Amount) {
	for _, lease := range c.leases {
		charged += lease.charged
	}
	for _, lease := range c.leases {
		total := money.Accrued(lease.price, lease.billedMS)
		charge := total - lease.charged
		if room := c.hold - charged; charge > room {
			beyond += charge - room
			charge = room
		}
		if charge <= 0 {
			continue
		}
		charged += charge
		total = lease.charged + charge
		feeTotal := money.Share(total, lease.feeBps)
		dues = append(dues, due{
			lease: lease.id, owner: lease.owner, billedMS: lease.billedMS, addedMS: lease.billedMS - lease.postedMS,
			charge: charge, fee: feeTotal - lease.fee, charged: total, feeTotal: feeTotal,
		})
	}
	return dues, charged, beyond
}

// entry is the ledger entry of a due.
func (c metered) entry(d due) ledger.Entry {
	held := ledger.Of(ledger.CustomerHeld, c.customer)
	var legs []ledger.Leg
	if d.charge > d.fee {
		legs = append(legs, ledger.Leg{Debit: held, Credit: ledger.Of(ledger.OwnerPayable, d.owner), Amount: d.charge - d.fee})
	}
	if d.fee > 0 {
		legs = append(legs, ledger.Leg{Debit: held, Credit: ledger.Platform(ledger.PlatformFees), Amount: d.fee})
	}
	return ledger.Entry{
		Key:  chargeKey(d.lease, d.charged),
		Kind: ledger.KindCharge,
		Legs: legs,
		Refs: ledger.Refs{Booking: c.booking, Cluster: c.id, Lease: d.lease},
		Memo: "GPU time",
	}
}

// release is the entry that returns the rest of the hold; ok is false when nothing is left.
func (c metered) release(charged money.Amount) (entry ledger.Entry, ok bool) {
	if charged >= c.hold {
		return ledger.Entry{}, false
	}
	return ledger.Entry{
		Key:  "release:" + c.id.String(),
		Kind: ledger.KindRelease,
		Legs: []ledger.Leg{{
			Debit: ledger.Of(ledger.CustomerHeld, c.customer), Credit: ledger.Of(ledger.CustomerAvailable, c.customer), Amount: c.hold - charged,
		}},
		Refs: ledger.Refs{Booking: c.booking, Cluster: c.id},
		Memo: "The unused rest of a hold",
	}, true
}
