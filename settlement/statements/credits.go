package statements

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// Parties that a stretch of time without delivery can be on the account of.
const (
	partyCustomer = "customer"
	partyOwner    = "owner"
	partyPlatform = "platform"
)

// Credit is a stretch of a lease that was not delivered and so not charged.
type Credit struct {
	Lease    ids.Lease
	From, To time.Time
	MS       int64
	Amount   money.Amount // what it would have cost
	Party    string
	Reason   string
}

// leaseHistory is a lease with what tells where it was not delivered.
type leaseHistory struct {
	id          ids.Lease
	cluster     ids.Cluster
	host        ids.Host
	price       money.Amount
	opened      time.Time
	closed      *time.Time
	closeParty  string
	closeReason string
	usage       []span // in order, apart from each other
}

type span struct{ from, to time.Time }

// happening is an event of a cluster's timeline that matters here: a change of state, or something that has a fault party.
type happening struct {
	at      time.Time
	state   string
	party   string
	message string
}

// credits are the stretches of a lease that were not delivered, in order, as far as they lie in a period. now ends what has not ended.
func (l leaseHistory) credits(timeline []happening, within span, now time.Time) []Credit {
	var all []Credit
	for _, gap := range l.gaps(timeline, now) {
		party, reason := l.fault(gap, timeline)
		if party == "" {
			continue
		}
		from, to := later(gap.from, within.from), earlier(gap.to, within.to)
		if !from.Before(to) {
			continue
		}
		// Cumulative from the gap's beginning, so that the periods of a long one add up.
		before, after := from.Sub(gap.from).Milliseconds(), to.Sub(gap.from).Milliseconds()
		all = append(all, Credit{
			Lease: l.id, From: from, To: to, MS: after - before, Party: party, Reason: reason,
			Amount: money.Accrued(l.price, after) - money.Accrued(l.price, before),
		})
	}
	return all
}

// gaps are the stretches without usage in which the cluster was meant to run: between the usage of a lease, after it until the lease
// or the cluster ended, and before it for a lease that was made to replace another.
func (l leaseHistory) gaps(timeline []happening, now time.Time) []span {
	end := now
	if l.closed != nil {
		end = earlier(end, *l.closed)
	}
	from, counting := l.opened, stateAt(timeline, l.opened) == "degraded"
	var gaps []span
	add := func(to time.Time) {
		if to = earlier(to, stopOf(timeline, from)); counting && from.Before(to) {
			gaps = append(gaps, span{from, to})
		}
	}
	for _, used := range l.usage {
		add(used.from)
		from, counting = used.to, true
	}
	add(end)
	return gaps
}

// fault says on whose account a gap is; no party where the customer ended or parked the cluster, or removed the node.
func (l leaseHistory) fault(gap span, timeline []happening) (party, reason string) {
	degraded, since := stateAt(timeline, gap.from) == "degraded", gap.from
	if degraded {
		since = lastReady(timeline, gap.from) // what made it so came before
	}
	for _, h := range timeline {
		if h.at.Before(since) || h.at.After(gap.to) {
			continue
		}
		switch {
		case h.state == "" && h.party != "" && h.party != partyCustomer:
			return h.party, h.message
		case h.state == "degraded" && reason == "":
			degraded, reason = true, h.message
		}
	}
	if l.closed != nil && !l.closed.Before(gap.to) && (l.closeParty == partyOwner || l.closeParty == partyPlatform) {
		return l.closeParty, l.closeReason
	}
	if !degraded {
		return "", ""
	}
	return partyPlatform, reason
}

// lastReady is when the cluster last became ready before a moment.
func lastReady(timeline []happening, before time.Time) (at time.Time) {
	for _, h := range timeline {
		if h.at.After(before) {
			break
		}
		if h.state == "ready" {
			at = h.at
		}
	}
	return at
}

// stateAt is the cluster's state at a moment; "" before its first event.
func stateAt(timeline []happening, at time.Time) string {
	state := ""
	for _, h := range timeline {
		if h.at.After(at) {
			break
		}
		if h.state != "" {
			state = h.state
		}
	}
	return state
}

// stopOf is when the cluster was first meant to stop after a moment; far away if never.
func stopOf(timeline []happening, after time.Time) time.Time {
	for _, h := range timeline {
		switch h.state {
		case "draining", "parked", "released", "failed":
			if !h.at.Before(after) {
				return h.at
			}
		}
	}
	return time.Unix(1<<40, 0)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
