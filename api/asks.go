package api

import (
	"context"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
	"github.com/muster-gpu/muster/scheduler/placement"
)

func (s *Server) setAsk(ctx context.Context, in *hostBody[apiv1.AskPut]) (*output[apiv1.Host], error) {
	org := callerOf(ctx).org.Org
	ask, err := s.readAsk(in.Body)
	if err != nil {
		return nil, err
	}
	if err := s.Market.SetAsk(ctx, org, in.ID, ask); err != nil {
		return nil, err
	}
	return s.host(ctx, org, in.ID)
}

func (s *Server) previewAsk(ctx context.Context, in *hostBody[apiv1.AskPut]) (*output[apiv1.AskPreview], error) {
	ask, err := s.readAsk(in.Body)
	if err != nil {
		return nil, err
	}
	preview, err := s.Market.PreviewAsk(ctx, callerOf(ctx).org.Org, in.ID, ask)
	if err != nil {
		return nil, err
	}
	return answer(s.wirePreview(preview)), nil
}

func (s *Server) readAsk(in apiv1.AskPut) (ask market.Ask, err error) {
	ask.Active = in.Active
	if ask.Price, err = s.amount("body.price_per_gpu_hour", in.PricePerGPUHour); err != nil {
		return ask, err
	}
	if in.Floor != "" {
		if ask.Floor, err = s.amount("body.floor", in.Floor); err != nil {
			return ask, err
		}
	}
	if in.Rules != nil {
		ask.Rules = readRules(*in.Rules)
	}
	return ask, nil
}

// The rules of the wire and of package pricing are the same but for their tags.

func readRules(in apiv1.AskRules) pricing.Rules {
	return pricing.Rules{
		Discounts:      mapped(in.Discounts, func(d apiv1.AskDiscount) pricing.Discount { return pricing.Discount(d) }),
		Utilisation:    mapped(in.Utilisation, func(step apiv1.AskStep) pricing.Step { return pricing.Step(step) }),
		Calendar:       mapped(in.Calendar, func(p apiv1.AskPeriod) pricing.Period { return pricing.Period(p) }),
		SpotPercent:    in.SpotPercent,
		AuctionPercent: in.AuctionPercent,
	}
}

func wireRules(r pricing.Rules) apiv1.AskRules {
	return apiv1.AskRules{
		Discounts:      mapped(r.Discounts, func(d pricing.Discount) apiv1.AskDiscount { return apiv1.AskDiscount(d) }),
		Utilisation:    mapped(r.Utilisation, func(step pricing.Step) apiv1.AskStep { return apiv1.AskStep(step) }),
		Calendar:       mapped(r.Calendar, func(p pricing.Period) apiv1.AskPeriod { return apiv1.AskPeriod(p) }),
		SpotPercent:    r.SpotPercent,
		AuctionPercent: r.AuctionPercent,
	}
}

// mapped is convert that leaves nothing as nothing.
func mapped[T, U any](rows []T, wire func(T) U) []U {
	if len(rows) == 0 {
		return nil
	}
	return convert(rows, wire)
}

func (s *Server) wireAsk(a market.Ask) *apiv1.Ask {
	return &apiv1.Ask{
		PricePerGPUHour: s.money(a.Price), Floor: s.moneyIf(a.Floor), Rules: wireRules(a.Rules), Now: s.wirePrices(a.Now), Active: a.Active,
		UpdatedAt: a.UpdatedAt,
	}
}

func (s *Server) wirePrices(prices [placement.Classes]money.Amount) apiv1.AskPrices {
	return apiv1.AskPrices{
		Hourly: s.money(prices[placement.Hourly]), Daily: s.money(prices[placement.Daily]), Weekly: s.money(prices[placement.Weekly]),
		Monthly: s.money(prices[placement.Monthly]), Spot: s.moneyIf(prices[placement.Spot]),
	}
}

func (s *Server) wirePreview(p market.AskPreview) apiv1.AskPreview {
	wire := apiv1.AskPreview{
		Now: s.wirePrices(p.Now), Rank: p.Rank, Peers: p.Peers,
		Hours: convert(p.Hours, func(h market.AskHour) apiv1.AskPriceHour {
			return apiv1.AskPriceHour{At: h.At, Price: s.money(h.Price)}
		}),
	}
	if p.Past != nil {
		wire.Past = &apiv1.AskPast{SampledMS: p.Past.Sampled.Milliseconds(), Earned: s.money(p.Past.Earned), HiredPercent: percent(p.Past.HiredBps)}
	}
	return wire
}
