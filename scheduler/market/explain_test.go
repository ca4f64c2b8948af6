package market_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

// refused asks for a quote that nothing fits, and returns what it is told.
func refused(w *schedulertest.World, spec market.Spec) market.NoMatch {
	w.Helper()
	_, err := w.Market.Quote(w.Context(), w.Customer, w.User, spec)
	var refusal *errs.Error
	if !errors.As(err, &refusal) || refusal.Code != errs.NoCapacity {
		w.Fatalf("got %v, want no capacity", err)
	}
	details, ok := refusal.Details.(market.NoMatch)
	if !ok {
		w.Fatalf("the details are %T", refusal.Details)
	}
	if len(details.Changes) > 0 && !strings.Contains(refusal.Message, "The nearest that fits: "+details.Changes[0].Summary+", for ") {
		w.Errorf("it says %q", refusal.Message)
	}
	return details
}

// tight is a fleet, and a spec that it can nearly satisfy, in several ways.
func tight(w *schedulertest.World) market.Spec {
	w.Helper()
	w.AddHost("H100", 2, 2*dollar, "eu")
	w.AddHost("H100", 2, 3*dollar, "eu")
	for range 2 {
		w.AddHost("H100", 4, 2*dollar, "us")
		w.AddHost("H200", 4, 2*dollar, "eu")
	}
	spec := schedulertest.Spec(2, 4)
	spec.Regions, spec.MaxPrice = []string{"eu"}, 5*dollar
	return spec
}

func TestEveryCounterOfferCanBeBooked(t *testing.T) {
	t.Parallel()
	kinds := func() []string {
		w := world(t)
		var kinds []string
		for _, change := range refused(w, tight(w)).Changes {
			kinds = append(kinds, change.Kind)
		}
		return kinds
	}()
	for _, wanted := range []string{"region", "gpu_model"} {
		if !slices.Contains(kinds, wanted) {
			t.Errorf("there is no change of kind %s among %v", wanted, kinds)
		}
	}
	for i, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := world(t)
			change := refused(w, tight(w)).Changes[i]
			if change.Kind != kind || change.Summary == "" || change.QuoteID.IsZero() || change.ExpiresAt == nil {
				t.Fatalf("the change is %+v", change)
			}
			offered, err := w.Market.GetQuote(t.Context(), w.Customer, change.QuoteID)
			if err != nil || offered.PerHour() != change.PerHour {
				t.Fatalf("the quote is %+v, %v", offered, err)
			}
			booked := w.Accept(offered)
			if booked.State != "accepted" || w.Count(`SELECT count(*) FROM leases`) != int64(change.Spec.Nodes*change.Spec.GPUsPerNode) {
				t.Errorf("booking it: %s, %v", booked.State, booked.Refusal())
			}
		})
	}
}

func TestTwoChangesAtOnceAreOfferedWhereOneIsNotEnough(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, 2*dollar, "eu")
	w.AddHost("H100", 1, 3*dollar, "us")
	w.AddHost("H200", 1, 2*dollar, "us")
	spec := schedulertest.Spec(2, 1)
	spec.Regions, spec.MaxPrice = []string{"eu"}, 2*dollar
	var offered []market.Change
	for _, change := range refused(w, spec).Changes {
		if change.Kind == "combination" {
			offered = append(offered, change)
		}
	}
	if len(offered) != 1 || offered[0].Summary != "In eu, us and at a higher price" || offered[0].PerHour != 5*dollar {
		t.Fatalf("offered %+v", offered)
	}
	if booked := w.Accept(market.Quote{ID: offered[0].QuoteID}); booked.State != "accepted" || booked.Spec.MaxPrice != 3*dollar || len(booked.Spec.Regions) != 2 {
		t.Errorf("booking it: %s, %+v", booked.State, booked.Spec)
	}
}

func TestALaterStartIsOfferedWhenLeasesEndAndCanBeBooked(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 2, dollar, "eu")
	w.Book(schedulertest.Spec(1, 2))
	details := refused(w, schedulertest.Spec(1, 2))
	i := slices.IndexFunc(details.Changes, func(c market.Change) bool { return c.Kind == "later" })
	if i < 0 || details.Changes[i].Spec.StartsAt.Before(time.Now().Add(50*time.Minute)) {
		t.Fatalf("offered %+v", details.Changes)
	}
	offered, err := w.Market.GetQuote(t.Context(), w.Customer, details.Changes[i].QuoteID)
	if err != nil {
		t.Fatal(err)
	}
	if booked := w.Accept(offered); booked.State != "scheduled" {
		t.Errorf("booking it: %s, %v", booked.State, booked.Refusal())
	}
}

func TestAHigherPriceIsOfferedAndCanBeBooked(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, 3*dollar, "eu")
	spec := schedulertest.Spec(1, 1)
	spec.MaxPrice = 2 * dollar
	details := refused(w, spec)
	if details.Blocking != "price" || len(details.Changes) == 0 || details.Changes[0].Kind != "price" || details.Changes[0].PerHour != 3*dollar {
		t.Fatalf("blocked by %s, offered %+v", details.Blocking, details.Changes)
	}
	if booked := w.Accept(market.Quote{ID: details.Changes[0].QuoteID}); booked.State != "accepted" || booked.Spec.MaxPrice < 3*dollar {
		t.Errorf("booking it: %s", booked.State)
	}
}

func TestExplainGivesSpecsAndPricesAndStoresNothing(t *testing.T) {
	t.Parallel()
	w := world(t)
	spec := tight(w)
	explanation, changes, err := w.Market.Explain(t.Context(), spec)
	if err != nil || explanation.Blocking == "" || len(changes) == 0 {
		t.Fatalf("explained by %+v, %+v, %v", explanation, changes, err)
	}
	for _, change := range changes {
		if !change.QuoteID.IsZero() || change.PerHour == 0 || change.Spec.Nodes == 0 {
			t.Errorf("the change is %+v", change)
		}
		if explanation, _, err := w.Market.Explain(t.Context(), change.Spec); err != nil || explanation.Blocking != "" {
			t.Errorf("%s does not fit: %+v, %v", change.Kind, explanation, err)
		}
	}
	if n := w.Count(`SELECT count(*) FROM bookings`); n != 0 {
		t.Errorf("%d quotes were stored", n)
	}
	spec.Nodes, spec.GPUsPerNode = 1, 2
	if explanation, changes, err := w.Market.Explain(t.Context(), spec); err != nil || explanation.Blocking != "" || len(changes) > 0 {
		t.Errorf("what fits is explained by %+v, %+v, %v", explanation, changes, err)
	}
}

func TestARefusedAuctionIsOfferedTheMarket(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, dollar, "eu")
	w.AddHost("H100", 1, dollar, "us")
	spec := schedulertest.Spec(2, 1)
	spec.Kind, spec.Regions = market.KindAuction, []string{"eu"}
	details := refused(w, spec)
	if len(details.Changes) == 0 {
		t.Fatal("nothing is offered")
	}
	for _, change := range details.Changes {
		if change.Spec.Kind != market.KindMarket || change.Spec.Window != 0 {
			t.Errorf("offered %+v", change.Spec)
		}
	}
	if booked := w.Accept(market.Quote{ID: details.Changes[0].QuoteID}); booked.State != "accepted" {
		t.Errorf("booking it: %s, %v", booked.State, booked.Refusal())
	}
}

func TestARefusalKeepsItsExplanation(t *testing.T) {
	t.Parallel()
	w := world(t)
	host := w.AddHost("H100", 1, dollar, "eu")
	quote := w.Quote(schedulertest.Spec(1, 1))
	w.Exec(`UPDATE asks SET active = false WHERE host_id = $1`, host)
	decided := w.Accept(quote)
	refusal := decided.Refusal()
	if decided.State != "refused" || refusal == nil || refusal.Code != errs.NoCapacity {
		t.Fatalf("decided %s, %v", decided.State, refusal)
	}
	if details, ok := refusal.Details.(market.NoMatch); !ok || details.Blocking == "" || len(details.Funnel) == 0 {
		t.Errorf("the details are %+v", refusal.Details)
	}
}

func TestAnotherOrganisationsQuoteIsNotFound(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, dollar, "eu")
	quote, other := w.Quote(schedulertest.Spec(1, 1)), w.AddOrg("Other")
	for name, ask := range map[string]func() error{
		"reading": func() error { _, err := w.Market.GetQuote(t.Context(), other, quote.ID); return err },
		"accepting": func() error {
			_, err := w.Market.Accept(t.Context(), other, quote.ID, market.AcceptOptions{})
			return err
		},
		"bids": func() error { _, err := w.Market.Bids(t.Context(), other, quote.ID); return err },
		"choosing": func() error {
			_, err := w.Market.Accept(t.Context(), other, quote.ID, market.AcceptOptions{BidIDs: []ids.Bid{ids.New[ids.Bid]()}})
			return err
		},
	} {
		if err := ask(); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	if total := money.Amount(w.Count(`SELECT count(*) FROM bookings WHERE requested_at IS NOT NULL`)); total != 0 {
		t.Errorf("%d were requested", total)
	}
}
