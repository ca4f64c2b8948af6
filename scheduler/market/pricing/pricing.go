// Package pricing turns an owner's ask into the price of a moment. It is pure: the time and the market's utilisation are arguments.
//
// An ask is a base price per GPU-hour, a floor and Rules. Each rule that applies contributes a percentage; the percentages are added
// up, held between MinPercent and MaxPercent, and applied to the base price once. The result is rounded up to the base unit, is never
// below the floor nor above MaxPrice, and never falls when the base price rises. Adding, not compounding, is what an owner can check
// by hand: a discount of 10 % on a day of -20 % is 30 % off.
//
// Rules come from people: only those that Validate accepts may be priced with, and they are stored as JSON with the ask.
package pricing

import (
	"time"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
)

// MaxPrice per GPU-hour keeps the hold of the largest and longest booking far from overflow.
const MaxPrice = money.Amount(1_000_000_000_000)

// Bounds of what all rules together do to a price, in percent. MaxOff is the most that one rule takes off.
const (
	MinPercent = -90
	MaxPercent = 300
	MaxOff     = 90
)

const (
	bpsPerPercent = 100
	wholeBps      = 10_000
)

// UtilisationUnknown is the utilisation of a market that has not been sampled yet: no step applies.
const UtilisationUnknown = -1

// Rules are how a price follows the booking's length, the market and the calendar. The zero value leaves it as it is.
type Rules struct {
	Discounts      []Discount `json:"discounts,omitempty"`
	Utilisation    []Step     `json:"utilisation,omitempty"`
	Calendar       []Period   `json:"calendar,omitempty"`
	SpotPercent    *int       `json:"spot_percent,omitempty"`    // off the price for spot bookings; absent: none are taken
	AuctionPercent int        `json:"auction_percent,omitempty"` // the most that a bid in an auction is below the price
}

// Discount is taken off for bookings of a class and longer, until a longer class has its own.
type Discount struct {
	From    string `json:"from"` // daily, weekly, monthly
	Percent int    `json:"percent"`
}

// Step applies while the model's utilisation in the host's region is above, or below, a percentage: one of the two. Of several
// steps above the highest that applies counts, of several below the lowest.
type Step struct {
	Above   *int `json:"above,omitempty"`
	Below   *int `json:"below,omitempty"`
	Percent int  `json:"percent"`
}

// Period applies at some hours of some days, in UTC. One that ends at or before its beginning ends on the next day, and belongs to
// the day that it begins on. Periods that overlap add up.
type Period struct {
	Days    []string `json:"days,omitempty"` // mon, tue, wed, thu, fri, sat, sun; none: every day
	From    string   `json:"from,omitempty"` // 22:00; none: 00:00
	To      string   `json:"to,omitempty"`   // 06:00; none: 24:00
	Percent int      `json:"percent"`
}

// Moves reports whether the price depends on the time or on the market, so that it must be worked out again as they change.
func (r Rules) Moves() bool { return len(r.Utilisation)+len(r.Calendar) > 0 }

// Effective is the price per GPU-hour in each class; zero where the host takes no bookings of the class. Utilisation is in basis
// points, or UtilisationUnknown.
func Effective(base, floor money.Amount, r Rules, at time.Time, utilisationBps int) [placement.Classes]money.Amount {
	var prices [placement.Classes]money.Amount
	moving := r.atUtilisation(utilisationBps) + r.atTime(at)
	for class := range placement.Class(placement.Classes) {
		if off, offered := r.off(class); offered {
			prices[class] = apply(base, floor, (moving-off)*bpsPerPercent)
		}
	}
	return prices
}

// Bid is what a host offers in an auction: its price in the class less a part of AuctionPercent that is the larger the less of the
// market is hired, all of it in an idle or unknown market and nothing in a full one. Zero: it makes no bid.
func Bid(base, floor money.Amount, r Rules, class placement.Class, at time.Time, utilisationBps int) money.Amount {
	off, offered := r.off(class)
	if !offered {
		return 0
	}
	idle := wholeBps - min(max(utilisationBps, 0), wholeBps)
	percent := r.atUtilisation(utilisationBps) + r.atTime(at) - off
	return apply(base, floor, percent*bpsPerPercent-r.AuctionPercent*idle/bpsPerPercent)
}

// apply changes a price by basis points, within all bounds, and rounds up.
func apply(base, floor money.Amount, bps int) money.Amount {
	if base <= 0 {
		return 0
	}
	bps = wholeBps + min(max(bps, MinPercent*bpsPerPercent), MaxPercent*bpsPerPercent)
	price := (min(base, MaxPrice)*money.Amount(bps) + wholeBps - 1) / wholeBps
	return min(max(price, floor), MaxPrice)
}

// off is the percentage that a class of bookings takes off, and whether the host takes them at all.
func (r Rules) off(class placement.Class) (percent int, offered bool) {
	if class == placement.Spot {
		if r.SpotPercent == nil {
			return 0, false
		}
		return *r.SpotPercent, true
	}
	longest := placement.Hourly
	for _, d := range r.Discounts {
		if from, known := discountClass(d.From); known && from <= class && from > longest {
			longest, percent = from, d.Percent
		}
	}
	return percent, true
}

func discountClass(name string) (placement.Class, bool) {
	switch name {
	case "daily":
		return placement.Daily, true
	case "weekly":
		return placement.Weekly, true
	case "monthly":
		return placement.Monthly, true
	default:
		return placement.Hourly, false
	}
}

func (r Rules) atUtilisation(bps int) int {
	if bps < 0 {
		return 0
	}
	var above, below *Step
	for i := range r.Utilisation {
		switch step := &r.Utilisation[i]; {
		case step.Above != nil && bps > *step.Above*bpsPerPercent && (above == nil || *step.Above > *above.Above):
			above = step
		case step.Below != nil && bps < *step.Below*bpsPerPercent && (below == nil || *step.Below < *below.Below):
			below = step
		}
	}
	percent := 0
	if above != nil {
		percent += above.Percent
	}
	if below != nil {
		percent += below.Percent
	}
	return percent
}

func (r Rules) atTime(at time.Time) int {
	percent := 0
	for _, p := range r.Calendar {
		if p.covers(at.UTC()) {
			percent += p.Percent
		}
	}
	return percent
}

func (p Period) covers(at time.Time) bool {
	from, to, err := p.minutes()
	if err != nil {
		return false
	}
	minute := at.Hour()*60 + at.Minute()
	if from < to {
		return from <= minute && minute < to && p.on(at.Weekday())
	}
	if minute >= from {
		return p.on(at.Weekday())
	}
	return minute < to && p.on((at.Weekday()+6)%7)
}

// on reports whether the period begins on a day of the week.
func (p Period) on(day time.Weekday) bool {
	if len(p.Days) == 0 {
		return true
	}
	for _, name := range p.Days {
		if known, ok := weekdays[name]; ok && known == day {
			return true
		}
	}
	return false
}

var weekdays = map[string]time.Weekday{
	"mon": time.Monday, "tue": time.Tuesday, "wed": time.Wednesday, "thu": time.Thursday, "fri": time.Friday,
	"sat": time.Saturday, "sun": time.Sunday,
}
