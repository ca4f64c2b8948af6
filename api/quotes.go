package api

import (
	"fmt"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/placement"
)

// priceClasses names the classes of prices and says what each means for the customer.
var priceClasses = map[placement.Class]struct{ name, note string }{
	placement.Hourly:  {"hourly", ""},
	placement.Daily:   {"daily", "The hosts' price for 24 hours and longer."},
	placement.Weekly:  {"weekly", "The hosts' price for 7 days and longer."},
	placement.Monthly: {"monthly", "The hosts' price for 30 days."},
	placement.Spot:    {"spot", "The hosts' spot price: given up within 60 s when a market booking needs the GPUs."},
}

const auctionNote = "What the hosts bid."

func (s *Server) wireQuote(q market.Quote, available money.Amount) apiv1.Quote {
	items, fee := s.quoteItems(q)
	class := priceClasses[q.Class]
	wire := apiv1.Quote{
		ID: q.ID, Kind: q.Kind, Purpose: q.Purpose, ClusterID: clusterOf(q), State: q.State, Spec: s.wireSpec(q.Spec), GPUModel: q.GPUModel,
		Lines: convert(q.Lines, func(l market.Line) apiv1.QuoteLine { return s.wireLine(q, l) }), Items: items,
		PricePerHour: s.money(q.PerHour()), PriceClass: class.name, PriceNote: class.note, Saved: s.saved(q), Hold: s.money(q.Hold),
		OwnersReceive: s.money(q.Hold - fee), PlatformFee: s.money(fee),
		RefundHalfway: s.money(q.Hold - q.CostOf(q.Spec.Duration/2)), Available: s.money(available),
		Preempts: q.Preempts(), StartsAt: q.StartsAt, BidsCloseAt: q.BidsCloseAt, Simulated: q.Simulated(), QuotedAt: q.QuotedAt, ExpiresAt: q.ExpiresAt,
	}
	if q.Kind == market.KindAuction {
		wire.PriceNote = auctionNote
	}
	if q.WorstRTT >= 0 && len(q.Lines) > 0 {
		worst := milliseconds(q.WorstRTT)
		wire.WorstRTTMS = &worst
	}
	return wire
}

// clusterOf is the cluster that a booking has become, or is for.
func clusterOf(q market.Quote) *ids.Cluster {
	if !q.Target.IsZero() {
		return &q.Target
	}
	return optional(q.ClusterID)
}

func (s *Server) wireLine(q market.Quote, l market.Line) apiv1.QuoteLine {
	return apiv1.QuoteLine{
		HostID: l.HostID, OwnerID: l.Owner, Region: l.Region, Site: l.Site, GPUModel: q.GPUModel, GPUs: q.Spec.GPUsPerNode,
		PricePerGPUHour: s.money(l.Price), Amount: s.money(market.Cost([]market.Line{l}, q.Spec.GPUsPerNode, q.Spec.Duration)),
	}
}

// quoteItems divides a hold between owners and the platform. The fee is taken from each owner's part, rounded down, so that the
// items add up to the hold.
func (s *Server) quoteItems(q market.Quote) (items []apiv1.QuoteItem, fee money.Amount) {
	var owners []ids.Org
	lines := make(map[ids.Org][]market.Line)
	for _, l := range q.Lines {
		if lines[l.Owner] == nil {
			owners = append(owners, l.Owner)
		}
		lines[l.Owner] = append(lines[l.Owner], l)
	}
	items, fee = make([]apiv1.QuoteItem, 0, len(owners)+1), q.Hold
	for _, owner := range owners {
		gross := market.Cost(lines[owner], q.Spec.GPUsPerNode, q.Spec.Duration)
		net := gross - money.Share(gross, q.FeeBps)
		fee -= net
		gpus := len(lines[owner]) * q.Spec.GPUsPerNode
		items = append(items, apiv1.QuoteItem{
			Kind: "owner", OwnerID: &owner, Amount: s.money(net), GPUHours: hours(int64(gpus) * q.Spec.Duration.Milliseconds()),
			Text: fmt.Sprintf("%s for %s on %s", plural("GPU", gpus), market.ShortDuration(q.Spec.Duration), plural("host", len(lines[owner]))),
		})
	}
	if len(owners) == 0 {
		return items, 0
	}
	return append(items, apiv1.QuoteItem{Kind: "fee", Text: fmt.Sprintf("Platform fee, %g %%", percent(q.FeeBps)), Amount: s.money(fee)}), fee
}

func plural(noun string, n int) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// saved is what a quote costs less than at the hosts' hourly prices; nil when that is nothing.
func (s *Server) saved(q market.Quote) *apiv1.Money {
	hourly := make([]market.Line, len(q.Lines))
	for i, l := range q.Lines {
		hourly[i] = market.Line{Price: max(l.Hourly, l.Price)}
	}
	less := market.Cost(hourly, q.Spec.GPUsPerNode, q.Spec.Duration) - q.CostOf(q.Spec.Duration)
	if less <= 0 {
		return nil
	}
	return s.moneyIf(less)
}

func (s *Server) wireBooking(q market.Quote) apiv1.Booking {
	wire := apiv1.Booking{
		ID: q.ID, Kind: q.Kind, Purpose: q.Purpose, State: q.State, Spec: s.wireSpec(q.Spec), GPUModel: q.GPUModel,
		PricePerHour: s.money(q.PerHour()), Hold: s.money(q.Hold), ClusterID: clusterOf(q), StartsAt: q.StartsAt, BidsCloseAt: q.BidsCloseAt,
		CreatedAt: q.QuotedAt, ExpiresAt: q.ExpiresAt, DecidedAt: q.DecidedAt,
	}
	if refusal := q.Refusal(); refusal != nil {
		wire.Refusal = &apiv1.BookingFault{Code: string(refusal.Code), Detail: refusal.Message}
	}
	return wire
}

func (s *Server) wireBid(b market.Bid) apiv1.Bid {
	return apiv1.Bid{
		ID: b.ID, HostID: b.HostID, OwnerID: b.Owner, Region: b.Region, Site: b.Site, PricePerGPUHour: s.money(b.Price), State: b.State,
		Quoted: b.Quoted, Simulated: b.Simulated, MadeAt: b.MadeAt,
	}
}

func (s *Server) wireOffer(o market.Offer) apiv1.Offer {
	return apiv1.Offer{
		GPUModel: o.GPUModel, Region: o.Region, MemoryMiB: o.MemoryMiB, FreeGPUs: o.FreeGPUs, TotalGPUs: o.TotalGPUs, Hosts: o.Hosts,
		LargestNode: o.LargestNode, PriceFrom: s.money(o.PriceFrom), PriceMedian: s.moneyIf(o.PriceMedian), SpotFrom: s.moneyIf(o.SpotFrom),
		UtilisationPercent: percent(o.UtilisationBps), ReliabilityPercent: percent(o.ReliabilityBps), Simulated: o.Simulated,
	}
}

func (s *Server) wireHistoryPoint(p market.HistoryPoint) apiv1.HistoryPoint {
	wire := apiv1.HistoryPoint{
		At: p.At, GPUs: p.GPUs, Leased: p.Leased, PriceMin: s.moneyIf(p.PriceMin), PriceMedian: s.moneyIf(p.PriceMedian),
	}
	if p.GPUs > 0 {
		wire.UtilisationPercent = percent(p.Leased * bpsPerPercent * bpsPerPercent / p.GPUs)
	}
	return wire
}

func (s *Server) wireExplanation(e placement.Explanation, changes []market.Change) apiv1.Explanation {
	return apiv1.Explanation{
		Blocking: e.Blocking, Summary: e.Summary,
		Funnel: convert(e.Funnel, func(step placement.Step) apiv1.ExplanationStep {
			return apiv1.ExplanationStep{Condition: step.Condition, Hosts: step.Hosts, GPUs: step.GPUs, Excludes: step.Excludes}
		}),
		Changes: convert(changes, s.wireChange),
	}
}

func (s *Server) wireChange(c market.Change) apiv1.Change {
	return apiv1.Change{
		Kind: c.Kind, Summary: c.Summary, Spec: s.wireSpec(c.Spec), PricePerHour: s.money(c.PerHour), QuoteID: optional(c.QuoteID), ExpiresAt: c.ExpiresAt,
	}
}
