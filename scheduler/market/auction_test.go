package market_test

import (
	"slices"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

func auction(nodes int) market.Spec {
	spec := schedulertest.Spec(nodes, 1)
	spec.Kind = market.KindAuction
	return spec
}

// auctions does the leader's work on auctions once.
func auctions(w *schedulertest.World) {
	w.Helper()
	if err := w.Market.Auctions(w.Context(), schedulertest.Term); err != nil {
		w.Fatalf("auctions: %v", err)
	}
}

// windowCloses lets an auction's time pass.
func windowCloses(w *schedulertest.World, id ids.Booking) {
	w.Helper()
	w.Exec(`UPDATE bookings SET bids_close_at = clock_timestamp() WHERE id = $1`, id)
	auctions(w)
}

func read(w *schedulertest.World, id ids.Booking) market.Quote {
	w.Helper()
	quote, err := w.Market.GetQuote(w.Context(), w.Customer, id)
	if err != nil {
		w.Fatal(err)
	}
	return quote
}

func bidsOf(w *schedulertest.World, id ids.Booking) []market.Bid {
	w.Helper()
	bids, err := w.Market.Bids(w.Context(), w.Customer, id)
	if err != nil {
		w.Fatalf("bids: %v", err)
	}
	return bids
}

func TestAnAuctionFromItsWindowToItsWinners(t *testing.T) {
	t.Parallel()
	w := world(t)
	eager, proud := w.AddHost("H100", 1, dollar, "eu"), w.AddHost("H100", 1, dollar*95/100, "eu")
	modest := w.AddHost("H100", 1, dollar, "eu")
	ask(w, eager, dollar, pricing.Rules{AuctionPercent: 20})
	ask(w, modest, dollar, pricing.Rules{AuctionPercent: 10})
	opened := w.Quote(auction(2))
	if opened.State != "bidding" || opened.BidsCloseAt == nil || len(opened.Lines) != 0 || opened.Hold <= 0 {
		t.Fatalf("opened %+v", opened)
	}
	if window := opened.BidsCloseAt.Sub(opened.QuotedAt); window != 10*time.Second {
		t.Errorf("the window is %s", window)
	}
	auctions(w)
	auctions(w) // nobody bids twice
	if n := w.Count(`SELECT count(*) FROM bids`); n != 3 {
		t.Errorf("%d bids, want 3", n)
	}
	if _, err := w.Market.Bids(t.Context(), w.Customer, opened.ID); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("the bids are open before the window closes: %v", err)
	}
	if _, err := w.Market.Accept(t.Context(), w.Customer, opened.ID, market.AcceptOptions{}); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("it is accepted before the window closes: %v", err)
	}
	windowCloses(w, opened.ID)
	quoted := read(w, opened.ID)
	if quoted.State != "quoted" || len(quoted.Lines) != 2 || quoted.PerHour() != dollar*8/10+dollar*9/10 || quoted.Hold != quoted.PerHour() {
		t.Fatalf("quoted %+v", quoted)
	}
	if left := time.Until(quoted.ExpiresAt); left < 30*time.Second || left > 90*time.Second {
		t.Errorf("it holds for %s", left)
	}
	bids := bidsOf(w, opened.ID)
	prices := []money.Amount{bids[0].Price, bids[1].Price, bids[2].Price}
	if !slices.Equal(prices, []money.Amount{dollar * 8 / 10, dollar * 9 / 10, dollar * 95 / 100}) || !bids[0].Quoted || bids[2].Quoted || bids[2].HostID != proud {
		t.Errorf("the bids are %+v", bids)
	}
	booked := w.Accept(quoted)
	if booked.State != "accepted" || w.Escrow.Held[booked.ID] != quoted.Hold {
		t.Fatalf("booked %s, %v", booked.State, booked.Refusal())
	}
	auctions(w)
	var states []string
	for _, bid := range bidsOf(w, opened.ID) {
		states = append(states, bid.State)
	}
	if !slices.Equal(states, []string{"won", "won", "cancelled"}) {
		t.Errorf("the bids are %v", states)
	}
	if low := w.Count(`SELECT min(price_per_gpu_hour) FROM leases`); money.Amount(low) != dollar*8/10 {
		t.Errorf("leased for %d, not for what was bid", low)
	}
}

func TestBidsCanBeChosenByHand(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, dollar, "eu")
	w.AddHost("H100", 1, 2*dollar, "eu")
	w.AddHost("H100", 1, 3*dollar, "eu")
	spec := auction(1)
	spec.Choose, spec.Window = market.ChooseManual, 5*time.Second
	opened := w.Quote(spec)
	auctions(w)
	windowCloses(w, opened.ID)
	if left := time.Until(read(w, opened.ID).ExpiresAt); left < 100*time.Second {
		t.Errorf("there are %s to choose", left)
	}
	bids := bidsOf(w, opened.ID)
	for name, chosen := range map[string][]ids.Bid{
		"too many": {bids[0].ID, bids[1].ID}, "unknown": {ids.New[ids.Bid]()}, "twice": {bids[0].ID, bids[0].ID},
	} {
		if _, err := w.Market.Accept(t.Context(), w.Customer, opened.ID, market.AcceptOptions{BidIDs: chosen}); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	service := open(t, w)
	booked, err := service.Accept(t.Context(), w.Customer, opened.ID, market.AcceptOptions{BidIDs: []ids.Bid{bids[1].ID}, ClusterName: "chosen"})
	if err != nil || booked.State != "accepted" || booked.Hold != 2*dollar || booked.Spec.ClusterName != "chosen" {
		t.Fatalf("booked %+v, %v", booked, err)
	}
	auctions(w)
	for _, bid := range bidsOf(w, opened.ID) {
		if want := map[bool]string{true: "won", false: "cancelled"}[bid.ID == bids[1].ID]; bid.State != want {
			t.Errorf("the bid of %d is %s, want %s", bid.Price, bid.State, want)
		}
	}
}

func TestOnlyTheCheapestWinUnlessChosenByHand(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, dollar, "eu")
	opened := w.Quote(auction(1))
	auctions(w)
	windowCloses(w, opened.ID)
	options := market.AcceptOptions{BidIDs: []ids.Bid{bidsOf(w, opened.ID)[0].ID}}
	if _, err := w.Market.Accept(t.Context(), w.Customer, opened.ID, options); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("choosing: %v", err)
	}
}

func TestAnAuctionWithTooFewBidsExpires(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, dollar, "eu")
	gone := w.AddHost("H100", 1, dollar, "eu")
	opened := w.Quote(auction(2))
	auctions(w)
	w.Exec(`UPDATE hosts SET connected = false WHERE id = $1`, gone)
	windowCloses(w, opened.ID)
	if quote := read(w, opened.ID); quote.State != "expired" || quote.DecidedAt == nil {
		t.Fatalf("the auction is %+v", quote)
	}
	if _, err := w.Market.Accept(t.Context(), w.Customer, opened.ID, market.AcceptOptions{}); errs.CodeOf(err) != errs.Expired {
		t.Errorf("accepting it: %v", err)
	}
	for _, bid := range bidsOf(w, opened.ID) {
		if bid.State != "cancelled" {
			t.Errorf("a bid is %s", bid.State)
		}
	}
}

func TestACancelledAuctionCancelsItsBids(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, dollar, "eu")
	opened := w.Quote(auction(1))
	auctions(w)
	if cancelled, err := w.Market.Cancel(t.Context(), w.Customer, opened.ID); err != nil || cancelled.State != "cancelled" {
		t.Fatalf("cancelled %+v, %v", cancelled, err)
	}
	auctions(w)
	if bids := bidsOf(w, opened.ID); len(bids) != 1 || bids[0].State != "cancelled" {
		t.Errorf("the bids are %+v", bids)
	}
}

func TestAtMostTwentyBidAndNoneAboveTheLimit(t *testing.T) {
	t.Parallel()
	w := world(t)
	for i := range market.MaxBids + 5 {
		host := w.AddHost("H100", 1, dollar+money.Amount(i), "eu")
		if i == 0 {
			ask(w, host, dollar, pricing.Rules{AuctionPercent: 50})
		}
	}
	many, few := w.Quote(auction(1)), auction(1)
	few.MaxPrice = dollar / 2
	limited := w.Quote(few)
	auctions(w)
	auctions(w)
	if n := w.Count(`SELECT count(*) FROM bids WHERE booking_id = $1`, many.ID); n != market.MaxBids {
		t.Errorf("%d bid", n)
	}
	if n := w.Count(`SELECT count(*) FROM bids WHERE booking_id = $1`, limited.ID); n != 1 {
		t.Errorf("%d bid within the limit, want 1", n)
	}
	windowCloses(w, limited.ID)
	if quote := read(w, limited.ID); quote.State != "quoted" || quote.PerHour() != dollar/2 {
		t.Errorf("quoted %+v", quote)
	}
}

func TestTheLowestBidsCountWhateverTheirHostsAsk(t *testing.T) {
	t.Parallel()
	w := world(t)
	for range market.MaxBids {
		w.AddHost("H100", 1, dollar, "eu")
	}
	eager := w.AddHost("H100", 1, dollar+dollar/10, "eu")
	ask(w, eager, dollar+dollar/10, pricing.Rules{AuctionPercent: 50})
	limited := auction(1)
	limited.MaxPrice = dollar * 6 / 10
	open, within := w.Quote(auction(1)), w.Quote(limited)
	auctions(w)
	auctions(w)
	windowCloses(w, open.ID)
	windowCloses(w, within.ID)
	if n := w.Count(`SELECT count(*) FROM bids WHERE booking_id = $1`, open.ID); n != market.MaxBids {
		t.Errorf("%d bid", n)
	}
	for _, id := range []ids.Booking{open.ID, within.ID} {
		if quote := read(w, id); quote.State != "quoted" || quote.PerHour() != dollar*55/100 || quote.Lines[0].HostID != eager {
			t.Errorf("quoted %s at %d", quote.State, quote.PerHour())
		}
	}
}

func TestAPassedTermTakesNoBids(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, dollar, "eu")
	w.Quote(auction(1))
	if err := w.Market.Auctions(t.Context(), schedulertest.Term+1); err == nil {
		t.Error("a term that is not the leader's takes bids")
	}
	if err := w.Market.Sample(t.Context(), schedulertest.Term+1); err == nil {
		t.Error("a term that is not the leader's samples")
	}
	if n := w.Count(`SELECT count(*) FROM bids`) + w.Count(`SELECT count(*) FROM market_history`); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

func TestTheLeaderRunsTheAuctionsByItself(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, dollar, "eu")
	spec := auction(1)
	spec.Window = market.MinWindow
	opened := w.Quote(spec)
	runs(t, w)
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		state := read(w, opened.ID).State
		return state == "quoted", state
	})
}
