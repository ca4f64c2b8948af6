package api

import (
	"context"
	"strconv"
	"strings"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/market/query"
	"github.com/muster-gpu/muster/scheduler/placement"
)

// Market is what the API needs of the market; *market.Service is one.
type Market interface {
	Offers(ctx context.Context, filter query.Filter, sort string, page market.Page) (market.OffersPage, error)
	Quote(ctx context.Context, org ids.Org, user ids.User, spec market.Spec) (market.Quote, error)
	GetQuote(ctx context.Context, org ids.Org, id ids.Booking) (market.Quote, error)
	Explain(ctx context.Context, spec market.Spec) (placement.Explanation, []market.Change, error)
	Accept(ctx context.Context, org ids.Org, id ids.Booking, options market.AcceptOptions) (market.Quote, error)
	SetAsk(ctx context.Context, org ids.Org, host ids.Host, ask market.Ask) error
	Asks(ctx context.Context, org ids.Org) (map[ids.Host]market.Ask, error)
}

func (s *Server) listOffers(ctx context.Context, in *offersInput) (*output[apiv1.List[apiv1.Offer]], error) {
	var conditions []string
	if in.GPUModel != "" {
		conditions = append(conditions, "gpu="+strconv.Quote(in.GPUModel))
	}
	if in.Region != "" {
		conditions = append(conditions, "region="+strconv.Quote(in.Region))
	}
	filter, err := query.Parse(strings.Join(conditions, " "), s.Currency)
	if err != nil {
		return nil, err
	}
	found, err := s.Market.Offers(ctx, filter, "model", market.Page{})
	if err != nil {
		return nil, err
	}
	return whole(found.Offers, s.wireOffer), nil
}

func (s *Server) createQuote(ctx context.Context, in *orgBody[apiv1.BookingSpec]) (*output[apiv1.Quote], error) {
	who := callerOf(ctx)
	spec, err := s.readSpec(in.Body)
	if err != nil {
		return nil, err
	}
	quote, err := s.Market.Quote(ctx, who.org.Org, who.User, spec)
	if err != nil {
		return nil, err
	}
	return s.quote(ctx, who.org.Org, quote)
}

func (s *Server) getQuote(ctx context.Context, in *quoteInput) (*output[apiv1.Quote], error) {
	org := callerOf(ctx).org.Org
	quote, err := s.Market.GetQuote(ctx, org, in.ID)
	if err != nil {
		return nil, err
	}
	return s.quote(ctx, org, quote)
}

func (s *Server) quote(ctx context.Context, org ids.Org, quote market.Quote) (*output[apiv1.Quote], error) {
	wallet, err := s.Meter.Wallet(ctx, org)
	if err != nil {
		return nil, err
	}
	return answer(s.wireQuote(quote, wallet.Available)), nil
}

func (s *Server) explain(ctx context.Context, in *plainBody[apiv1.BookingSpec]) (*output[apiv1.Explanation], error) {
	spec, err := s.readSpec(in.Body)
	if err != nil {
		return nil, err
	}
	explanation, _, err := s.Market.Explain(ctx, spec)
	if err != nil {
		return nil, err
	}
	return answer(wireExplanation(explanation)), nil
}

func (s *Server) createBooking(ctx context.Context, in *orgBody[apiv1.BookingCreate]) (*output[apiv1.Booking], error) {
	if in.Body.QuoteID.IsZero() {
		return nil, errs.InvalidField("body.quote_id", "name the quote to book")
	}
	booked, err := s.Market.Accept(ctx, callerOf(ctx).org.Org, in.Body.QuoteID, market.AcceptOptions{ClusterName: strings.TrimSpace(in.Body.ClusterName)})
	if err != nil {
		return nil, err
	}
	return answer(wireBooking(booked)), nil
}

func (s *Server) getBooking(ctx context.Context, in *quoteInput) (*output[apiv1.Booking], error) {
	booked, err := s.Market.GetQuote(ctx, callerOf(ctx).org.Org, in.ID)
	if err != nil {
		return nil, err
	}
	return answer(wireBooking(booked)), nil
}

func (s *Server) readSpec(in apiv1.BookingSpec) (market.Spec, error) {
	duration, err := time.ParseDuration(in.Duration)
	if err != nil {
		return market.Spec{}, errs.InvalidField("body.duration", "%q is not a duration: write it like 30m, 6h or 2h30m", in.Duration)
	}
	spec := market.Spec{
		GPUModel: in.GPUModel, Nodes: in.NodeCount, GPUsPerNode: in.GPUsPerNode, Duration: duration, Regions: in.Regions,
		ClusterName: strings.TrimSpace(in.ClusterName),
	}
	if in.MaxPricePerGPUHour != "" {
		spec.MaxPrice, err = s.amount("body.max_price_per_gpu_hour", in.MaxPricePerGPUHour)
		if err == nil && spec.MaxPrice == 0 {
			err = errs.InvalidField("body.max_price_per_gpu_hour", "a price limit is above zero: leave it out for none")
		}
	}
	return spec, err
}

func (s *Server) wireOffer(o market.Offer) apiv1.Offer {
	return apiv1.Offer{
		GPUModel: o.GPUModel, Region: o.Region, MemoryMiB: o.MemoryMiB, FreeGPUs: o.FreeGPUs, TotalGPUs: o.TotalGPUs, Hosts: o.Hosts,
		LargestNode: o.LargestNode, PriceFrom: s.money(o.PriceFrom), Simulated: o.Simulated,
	}
}

func (s *Server) wireQuote(q market.Quote, available money.Amount) apiv1.Quote {
	fee := money.Share(q.Hold, q.FeeBps)
	return apiv1.Quote{
		ID: q.ID, Spec: s.wireSpec(q.Spec), PricePerHour: s.money(q.PerHour()), Hold: s.money(q.Hold),
		Lines: convert(q.Lines, func(l market.Line) apiv1.QuoteLine {
			return apiv1.QuoteLine{
				HostID: l.HostID, Region: l.Region, Site: l.Site, GPUModel: q.Spec.GPUModel, GPUs: q.Spec.GPUsPerNode,
				PricePerGPUHour: s.money(l.Price),
			}
		}),
		OwnersReceive: s.money(q.Hold - fee), PlatformFee: s.money(fee),
		RefundHalfway: s.money(q.Hold - q.CostOf(q.Spec.Duration/2)), Available: s.money(available),
		Simulated: q.Simulated(), QuotedAt: q.QuotedAt, ExpiresAt: q.ExpiresAt,
	}
}

func (s *Server) wireSpec(spec market.Spec) apiv1.BookingSpec {
	wire := apiv1.BookingSpec{
		GPUModel: spec.GPUModel, NodeCount: spec.Nodes, GPUsPerNode: spec.GPUsPerNode, Duration: shortDuration(spec.Duration),
		Regions: spec.Regions, ClusterName: spec.ClusterName,
	}
	if spec.MaxPrice > 0 {
		wire.MaxPricePerGPUHour = s.Currency.Format(spec.MaxPrice)
	}
	return wire
}

func wireBooking(q market.Quote) apiv1.Booking {
	return apiv1.Booking{ID: q.ID, State: q.State, ClusterID: optional(q.ClusterID), DecidedAt: q.DecidedAt}
}

func wireExplanation(e placement.Explanation) apiv1.Explanation {
	return apiv1.Explanation{Blocking: e.Blocking, Summary: e.Summary, Funnel: convert(e.Funnel, func(step placement.Step) apiv1.ExplanationStep {
		return apiv1.ExplanationStep{Condition: step.Condition, Hosts: step.Hosts, GPUs: step.GPUs}
	})}
}
