package market

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// MaxBids is the most hosts that bid in an auction.
const MaxBids = 20

const (
	auctionsAtOnce = 64
	invited        = 10 * MaxBids // hosts whose bids are compared, those that ask least; the rules of a host may make a low bid of a high price
)

// Bid is a host's price in an auction. A bid is sealed until the window has closed.
type Bid struct {
	ID        ids.Bid
	HostID    ids.Host
	Owner     ids.Org
	Region    string
	Site      string
	Price     money.Amount
	State     string // open, won, cancelled
	Quoted    bool   // part of the quote
	Simulated bool
	MadeAt    time.Time
}

// openAuction stores a booking that hosts may bid for. Its hold is what the hosts ask without an auction, which no bid exceeds.
func (s *Service) openAuction(ctx context.Context, who asker, spec Spec, request placement.Request, now time.Time) (Quote, error) {
	unlimited := request
	unlimited.MaxPrice = 0 // a bid may be below the limit where the asked price is not
	plan, found := s.place(Spec{Kind: KindAuction}, unlimited)
	if !found {
		return Quote{}, s.noMatch(ctx, who, spec, unlimited, now)
	}
	quote := quoteOf(spec, unlimited, plan)
	quote.Lines, quote.WorstRTT = nil, rttUnknown
	lifetime := quoteLifetime
	if spec.Choose == ChooseManual {
		lifetime = manualLifetime
	}
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		var err error
		if quote, err = s.store(ctx, tx, who, quote, lifetime); err != nil {
			return err
		}
		if err := s.queries.OpenAuction(ctx, tx, spec.Choose, spec.Window, spec.Window, quote.ID); err != nil {
			return fmt.Errorf("open the auction: %w", err)
		}
		return nil
	})
	if err != nil {
		return Quote{}, err
	}
	return s.GetQuote(ctx, who.org, quote.ID)
}

// Auctions takes the bids of open auctions, closes those whose window is over, and settles the bids of those that are decided. It
// is the leader's to call: a term that has passed writes nothing.
func (s *Service) Auctions(ctx context.Context, term int64) error {
	open, err := s.queries.OpenAuctions(ctx, s.pool, auctionsAtOnce)
	if err != nil {
		return fmt.Errorf("read auctions: %w", err)
	}
	if len(open) > 0 {
		if err := s.fleet.Sync(ctx, s.pool); err != nil {
			return fmt.Errorf("read the fleet: %w", err)
		}
	}
	for _, auction := range open {
		work := s.takeBids
		if !auction.Booking.BidsCloseAt.After(auction.Now) {
			work = s.closeAuction
		}
		if err := s.led(ctx, term, func(tx pgx.Tx) error { return work(ctx, tx, auction) }); err != nil {
			return fmt.Errorf("auction %s: %w", auction.Booking.ID, err)
		}
	}
	return s.settleBids(ctx, term)
}

// led runs something in a transaction that a passed term of leadership fails.
func (s *Service) led(ctx context.Context, term int64, do func(tx pgx.Tx) error) error {
	return s.inTx(ctx, func(tx pgx.Tx) error {
		if err := s.queries.AssertLeader(ctx, tx, leader.RoleScheduler, term); err != nil {
			return err
		}
		return do(tx)
	})
}

// takeBids has the hosts bid that could take a node and have not bid yet, the lowest bids first while there is room.
func (s *Service) takeBids(ctx context.Context, tx pgx.Tx, auction schedulerdb.OpenAuctionsRow) error {
	spec, err := SpecOf(auction.Booking)
	if err != nil {
		return err
	}
	request := s.requestFor(spec, auction.Now)
	request.MaxPrice = 0
	for _, bidder := range auction.Bidders {
		request.Exclude = append(request.Exclude, ids.Host(bidder))
	}
	room := MaxBids - len(auction.Bidders)
	if room < 1 {
		return nil
	}
	var candidates []placement.Node
	s.fleet.Read(func(x *placement.Index) { candidates = x.Candidates(request, invited) })
	if len(candidates) == 0 {
		return nil
	}
	bids, err := s.bidsOf(ctx, tx, candidates, request.Class, auction.Now)
	if err != nil {
		return err
	}
	bids.keep(spec.MaxPrice, room)
	if len(bids.Ids) == 0 {
		return nil
	}
	bids.BookingID = auction.Booking.ID
	if err := s.queries.InsertBids(ctx, tx, bids.InsertBidsParams); err != nil {
		return fmt.Errorf("store bids: %w", err)
	}
	return nil
}

// newBids are bids on their way into the database.
type newBids struct{ schedulerdb.InsertBidsParams }

// keep drops the bids above a limit, of which zero is none, and of the others all but the lowest.
func (b *newBids) keep(limit money.Amount, most int) {
	order := make([]int, 0, len(b.Prices))
	for i, price := range b.Prices {
		if price > 0 && (limit == 0 || price <= int64(limit)) {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(i, j int) int {
		return cmp.Or(cmp.Compare(b.Prices[i], b.Prices[j]), bytes.Compare(b.Hosts[i][:], b.Hosts[j][:]))
	})
	var kept newBids
	for _, i := range order[:min(most, len(order))] {
		kept.add(ids.Bid(b.Ids[i]), ids.Host(b.Hosts[i]), ids.Org(b.Owners[i]), money.Amount(b.Prices[i]))
	}
	*b = kept
}

func (b *newBids) add(id ids.Bid, host ids.Host, owner ids.Org, price money.Amount) {
	b.Ids, b.Hosts = append(b.Ids, uuid.UUID(id)), append(b.Hosts, uuid.UUID(host))
	b.Owners, b.Prices = append(b.Owners, uuid.UUID(owner)), append(b.Prices, int64(price))
}

// bidsOf prices what hosts bid by the rules of their asks.
func (s *Service) bidsOf(
	ctx context.Context, tx pgx.Tx, candidates []placement.Node, class placement.Class, now time.Time,
) (newBids, error) {
	utilisation, err := s.utilisation(ctx, tx)
	if err != nil {
		return newBids{}, err
	}
	hosts := make([]uuid.UUID, len(candidates))
	use := make(map[ids.Host]int, len(candidates))
	for i, c := range candidates {
		hosts[i] = uuid.UUID(c.Host.ID)
		use[c.Host.ID] = utilisation.of(c.Host.Model, c.Host.Region)
	}
	terms, err := s.queries.BidTerms(ctx, tx, hosts)
	if err != nil {
		return newBids{}, fmt.Errorf("read asks: %w", err)
	}
	var bids newBids
	for _, t := range terms {
		var rules pricing.Rules
		if err := json.Unmarshal(t.Rules, &rules); err != nil {
			return newBids{}, fmt.Errorf("read the rules of %s: %w", t.HostID, err)
		}
		price := pricing.Bid(t.PricePerGPUHour, money.Amount(t.Floor), rules, class, now, use[t.HostID])
		bids.add(ids.New[ids.Bid](), t.HostID, t.OrgID, price)
	}
	return bids, nil
}

// utilisation is the share of hired GPUs by model and region, in basis points.
type utilisation map[[2]string]int

func (u utilisation) of(model, region string) int {
	if bps, sampled := u[[2]string{model, region}]; sampled {
		return bps
	}
	return pricing.UtilisationUnknown
}

func (s *Service) utilisation(ctx context.Context, db schedulerdb.DBTX) (utilisation, error) {
	rows, err := s.queries.Utilisation(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("read the market's use: %w", err)
	}
	use := make(utilisation, len(rows))
	for _, row := range rows {
		use[[2]string{row.GPUModel, row.Region}] = int(row.Bps)
	}
	return use, nil
}

// closeAuction makes the cheapest cluster of the bids into a quote; with too few of them the auction expires.
func (s *Service) closeAuction(ctx context.Context, tx pgx.Tx, auction schedulerdb.OpenAuctionsRow) error {
	b := auction.Booking
	bids, err := s.queries.ListBids(ctx, tx, b.ID)
	if err != nil {
		return fmt.Errorf("read bids: %w", err)
	}
	quote, found, err := s.quoteBids(b, bids, auction.Now)
	if err != nil {
		return err
	}
	if !found {
		if err := s.queries.ExpireAuction(ctx, tx, b.ID); err != nil {
			return fmt.Errorf("expire the auction: %w", err)
		}
		return nil
	}
	plan, requirements, err := quote.documents()
	if err != nil {
		return err
	}
	lifetime := quoteLifetime
	if b.Choose == ChooseManual {
		lifetime = manualLifetime
	}
	if err := s.queries.QuoteAuction(ctx, tx, schedulerdb.QuoteAuctionParams{
		ID: b.ID, Plan: plan, Requirements: requirements, HoldBaseUnits: quote.Hold, Lifetime: lifetime,
	}); err != nil {
		return fmt.Errorf("quote the auction: %w", err)
	}
	return nil
}

// quoteBids prices the cheapest cluster that the bidding hosts can still make, at what they bid.
func (s *Service) quoteBids(b schedulerdb.Booking, bids []schedulerdb.ListBidsRow, now time.Time) (quote Quote, found bool, err error) {
	spec, err := SpecOf(b)
	if err != nil {
		return Quote{}, false, err
	}
	request := s.requestFor(spec, now)
	bidding := placement.NewIndex()
	byHost := make(map[ids.Host]ids.Bid, len(bids))
	hourly := make(map[ids.Host]money.Amount, len(bids))
	s.fleet.Read(func(x *placement.Index) {
		for _, bid := range bids {
			if h, known := x.Get(bid.HostID, spec.GPUModel); known {
				byHost[h.ID], hourly[h.ID] = bid.ID, h.Prices[placement.Hourly]
				h.Prices[request.Class] = bid.PricePerGPUHour
				bidding.Put(h)
			}
		}
	})
	plan, found := bidding.Place(request)
	if !found {
		return Quote{}, false, nil
	}
	quote = quoteOf(spec, request, plan)
	for i := range quote.Lines {
		line := &quote.Lines[i]
		line.BidID, line.Hourly = byHost[line.HostID], hourly[line.HostID]
	}
	return quote, true, nil
}

// Bids lists the bids of an auction, cheapest first, once its window has closed.
func (s *Service) Bids(ctx context.Context, org ids.Org, id ids.Booking) ([]Bid, error) {
	quote, err := s.GetQuote(ctx, org, id)
	if err != nil {
		return nil, err
	}
	switch {
	case quote.Kind != KindAuction || quote.Purpose != PurposeCluster:
		return nil, errs.New(errs.Conflict, "%s is not an auction: nobody bids for it", id)
	case quote.State == stateBidding:
		return nil, errs.New(errs.Conflict, "the bids are sealed until %s", quote.BidsCloseAt.UTC().Format(clockFormat))
	}
	rows, err := s.queries.ListBids(ctx, s.pool, id)
	if err != nil {
		return nil, fmt.Errorf("read bids: %w", err)
	}
	bids := make([]Bid, len(rows))
	for i, row := range rows {
		bids[i] = Bid{
			ID: row.ID, HostID: row.HostID, Owner: row.OrgID, Region: row.Region, Site: row.Site, Price: row.PricePerGPUHour, State: row.State,
			Quoted:    slices.ContainsFunc(quote.Lines, func(l Line) bool { return l.BidID == row.ID }),
			Simulated: row.Simulated, MadeAt: row.MadeAt,
		}
	}
	return bids, nil
}

// requestBids accepts an auction with bids chosen by hand: they become its plan.
func (s *Service) requestBids(ctx context.Context, org ids.Org, id ids.Booking, options AcceptOptions) error {
	if err := s.fleet.Sync(ctx, s.pool); err != nil {
		return fmt.Errorf("read the fleet: %w", err)
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		row, err := s.queries.LockBooking(ctx, tx, id, org)
		if errors.Is(err, pgx.ErrNoRows) {
			return noQuote(id)
		}
		if err != nil {
			return fmt.Errorf("read booking: %w", err)
		}
		b := row.Booking
		if b.State != stateQuoted || b.RequestedAt != nil || !b.ExpiresAt.After(row.Now) {
			return nil // its outcome tells
		}
		if b.Choose != ChooseManual {
			return errs.InvalidField("bid_ids", "the cheapest bids win this auction: leave bid_ids out")
		}
		if err := s.choose(ctx, tx, b, options.BidIDs, row.Now); err != nil {
			return err
		}
		if err := s.queries.RequestBooking(ctx, tx, options.ClusterName, id, org); err != nil {
			return fmt.Errorf("request booking: %w", err)
		}
		return nil
	})
}

// choose makes the named bids the plan of an auction.
func (s *Service) choose(ctx context.Context, tx pgx.Tx, b schedulerdb.Booking, chosen []ids.Bid, now time.Time) error {
	all, err := s.queries.ListBids(ctx, tx, b.ID)
	if err != nil {
		return fmt.Errorf("read bids: %w", err)
	}
	var bids []schedulerdb.ListBidsRow
	for i, id := range chosen {
		at := slices.IndexFunc(all, func(row schedulerdb.ListBidsRow) bool { return row.ID == id })
		if at < 0 || slices.Contains(chosen[:i], id) {
			return errs.InvalidField(fmt.Sprintf("bid_ids[%d]", i), "%s is not a bid of this auction, or is named twice", id)
		}
		bids = append(bids, all[at])
	}
	if len(bids) != int(b.NodeCount) {
		return errs.InvalidField("bid_ids", "name one bid for each node: %d, not %d", b.NodeCount, len(bids))
	}
	quote, found, err := s.quoteBids(b, bids, now)
	if err != nil {
		return err
	}
	if !found {
		return errs.New(errs.NoCapacity, "These hosts can no longer make the cluster together: choose other bids.")
	}
	plan, requirements, err := quote.documents()
	if err != nil {
		return err
	}
	if err := s.queries.ChoosePlan(ctx, tx, plan, requirements, quote.Hold, b.ID); err != nil {
		return fmt.Errorf("store the choice: %w", err)
	}
	return nil
}

// settleBids decides the bids of decided auctions: those of the plan have won, if there is a cluster or will be one.
func (s *Service) settleBids(ctx context.Context, term int64) error {
	decided, err := s.queries.DecidedAuctions(ctx, s.pool, auctionsAtOnce)
	if err != nil {
		return fmt.Errorf("read decided auctions: %w", err)
	}
	for _, auction := range decided {
		won := []uuid.UUID{}
		if auction.State == stateAccepted || auction.State == stateScheduled {
			var lines []Line
			if err := json.Unmarshal(auction.Plan, &lines); err != nil {
				return fmt.Errorf("read plan of %s: %w", auction.ID, err)
			}
			for _, line := range lines {
				won = append(won, uuid.UUID(line.BidID))
			}
		}
		if err := s.led(ctx, term, func(tx pgx.Tx) error { return s.queries.SettleBids(ctx, tx, won, auction.ID) }); err != nil {
			return fmt.Errorf("settle the bids of %s: %w", auction.ID, err)
		}
	}
	return nil
}
