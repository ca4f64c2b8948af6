package api

import (
	"context"
	"errors"
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
	History(ctx context.Context, model, region string, from, to time.Time, step time.Duration) ([]market.HistoryPoint, error)
	Explain(ctx context.Context, spec market.Spec) (placement.Explanation, []market.Change, error)

	Quote(ctx context.Context, org ids.Org, user ids.User, spec market.Spec) (market.Quote, error)
	QuoteAddition(ctx context.Context, org ids.Org, user ids.User, cluster ids.Cluster, nodes int, maxPrice money.Amount) (market.Quote, error)
	QuoteExtension(ctx context.Context, org ids.Org, user ids.User, cluster ids.Cluster, duration time.Duration) (market.Quote, error)
	GetQuote(ctx context.Context, org ids.Org, id ids.Booking) (market.Quote, error)
	Bids(ctx context.Context, org ids.Org, id ids.Booking) ([]market.Bid, error)
	Bookings(ctx context.Context, org ids.Org, state string, before ids.Booking, limit int) ([]market.Quote, error)
	Accept(ctx context.Context, org ids.Org, id ids.Booking, options market.AcceptOptions) (market.Quote, error)
	Cancel(ctx context.Context, org ids.Org, id ids.Booking) (market.Quote, error)

	SetAsk(ctx context.Context, org ids.Org, host ids.Host, ask market.Ask) error
	PreviewAsk(ctx context.Context, org ids.Org, host ids.Host, ask market.Ask) (market.AskPreview, error)
	Asks(ctx context.Context, org ids.Org) (map[ids.Host]market.Ask, error)
}

const (
	historySpan = 24 * time.Hour // what is shown when nothing else is asked for
	historyStep = 15 * time.Minute
)

func (s *Server) listOffers(ctx context.Context, in *offersInput) (*output[apiv1.List[apiv1.Offer]], error) {
	filter, err := query.Parse(in.Query, s.Currency)
	if err != nil {
		return nil, inQuery(err)
	}
	page, err := s.Market.Offers(ctx, filter, in.Sort, market.Page{Cursor: in.Cursor, Limit: in.Limit})
	if err != nil {
		return nil, inParameters(err)
	}
	return answer(apiv1.List[apiv1.Offer]{Items: convert(page.Offers, s.wireOffer), NextCursor: page.Next}), nil
}

// inQuery says where in the query text the mistake is.
func inQuery(err error) error {
	var mistake *query.Error
	if !errors.As(err, &mistake) {
		return err
	}
	domain := errs.InvalidField("query.q", "%s", mistake.Message)
	domain.Fields[0].Position = &mistake.Offset
	return domain
}

// inParameters says that inputs which a domain names by itself are query parameters here.
func inParameters(err error) error {
	var domain *errs.Error
	if !errors.As(err, &domain) || len(domain.Fields) == 0 {
		return err
	}
	moved := *domain
	moved.Fields = make([]errs.Field, len(domain.Fields))
	for i, field := range domain.Fields {
		field.Path = "query." + field.Path
		moved.Fields[i] = field
	}
	return &moved
}

func (s *Server) getMarketHistory(ctx context.Context, in *historyInput) (*output[apiv1.MarketHistory], error) {
	step := historyStep
	if in.Step != "" {
		var err error
		if step, err = duration("query.step", in.Step); err != nil {
			return nil, err
		}
	}
	to := in.To.UTC()
	if in.To.IsZero() {
		to = time.Now().UTC()
	}
	from := in.From.UTC()
	if in.From.IsZero() {
		from = to.Add(-historySpan)
	}
	points, err := s.Market.History(ctx, in.GPUModel, in.Region, from, to, step)
	if err != nil {
		return nil, inParameters(err)
	}
	return answer(apiv1.MarketHistory{
		GPUModel: in.GPUModel, Region: in.Region, From: from, To: to, StepMS: step.Milliseconds(), Points: convert(points, s.wireHistoryPoint),
	}), nil
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

func (s *Server) quoteExtension(ctx context.Context, in *clusterBody[apiv1.ExtensionCreate]) (*output[apiv1.Quote], error) {
	who := callerOf(ctx)
	more, err := duration("body.duration", in.Body.Duration)
	if err != nil {
		return nil, err
	}
	quote, err := s.Market.QuoteExtension(ctx, who.org.Org, who.User, in.ID, more)
	if err != nil {
		return nil, err
	}
	return s.quote(ctx, who.org.Org, quote)
}

func (s *Server) quoteAddition(ctx context.Context, in *clusterBody[apiv1.AdditionCreate]) (*output[apiv1.Quote], error) {
	who := callerOf(ctx)
	limit, err := s.priceLimit(in.Body.MaxPricePerGPUHour)
	if err != nil {
		return nil, err
	}
	quote, err := s.Market.QuoteAddition(ctx, who.org.Org, who.User, in.ID, in.Body.NodeCount, limit)
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

func (s *Server) listBids(ctx context.Context, in *bidsInput) (*output[apiv1.List[apiv1.Bid]], error) {
	bids, err := s.Market.Bids(ctx, callerOf(ctx).org.Org, in.ID)
	if err != nil {
		return nil, err
	}
	return whole(bids, s.wireBid), nil
}

func (s *Server) explain(ctx context.Context, in *plainBody[apiv1.BookingSpec]) (*output[apiv1.Explanation], error) {
	spec, err := s.readSpec(in.Body)
	if err != nil {
		return nil, err
	}
	explanation, changes, err := s.Market.Explain(ctx, spec)
	if err != nil {
		return nil, err
	}
	return answer(s.wireExplanation(explanation, changes)), nil
}

func (s *Server) listBookings(ctx context.Context, in *bookingsInput) (*output[apiv1.List[apiv1.Booking]], error) {
	from, err := readCursor(ids.Booking{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	bookings, err := s.Market.Bookings(ctx, callerOf(ctx).org.Org, in.State, from, in.Limit)
	if err != nil {
		return nil, err
	}
	return page(bookings, in.Limit, func(q market.Quote) ids.Booking { return q.ID }, s.wireBooking), nil
}

func (s *Server) createBooking(ctx context.Context, in *orgBody[apiv1.BookingCreate]) (*output[apiv1.Booking], error) {
	if in.Body.QuoteID.IsZero() {
		return nil, errs.InvalidField("body.quote_id", "name the quote to book")
	}
	booked, err := s.Market.Accept(ctx, callerOf(ctx).org.Org, in.Body.QuoteID, market.AcceptOptions{
		ClusterName: strings.TrimSpace(in.Body.ClusterName), BidIDs: in.Body.BidIDs,
	})
	if err != nil {
		return nil, err
	}
	return answer(s.wireBooking(booked)), nil
}

func (s *Server) getBooking(ctx context.Context, in *quoteInput) (*output[apiv1.Booking], error) {
	booked, err := s.Market.GetQuote(ctx, callerOf(ctx).org.Org, in.ID)
	if err != nil {
		return nil, err
	}
	return answer(s.wireBooking(booked)), nil
}

func (s *Server) cancelBooking(ctx context.Context, in *bookingMutation) (*output[apiv1.Booking], error) {
	cancelled, err := s.Market.Cancel(ctx, callerOf(ctx).org.Org, in.ID)
	if err != nil {
		return nil, err
	}
	return answer(s.wireBooking(cancelled)), nil
}
