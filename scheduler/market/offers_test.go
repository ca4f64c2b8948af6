package market_test

import (
	"slices"
	"testing"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
	"github.com/muster-gpu/muster/scheduler/market/query"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

func offers(w *schedulertest.World, text, sort string, page market.Page) market.OffersPage {
	w.Helper()
	filter, err := query.Parse(text, money.Currency{Symbol: "USDC", Decimals: 6})
	if err != nil {
		w.Fatal(err)
	}
	found, err := w.Market.Offers(w.Context(), filter, sort, page)
	if err != nil {
		w.Fatalf("offers: %v", err)
	}
	return found
}

func places(found market.OffersPage) (names []string) {
	for _, o := range found.Offers {
		names = append(names, o.GPUModel+" "+o.Region)
	}
	return names
}

// bazaar has five offers.
func bazaar(w *schedulertest.World) {
	w.Helper()
	w.AddHost("H100", 4, 2*dollar, "eu-west")
	w.AddHost("H100", 2, 3*dollar, "eu-west")
	w.AddHost("H100", 8, 4*dollar, "us")
	w.AddHost("L40S", 1, dollar, "eu-north")
	w.AddHost("L40S", 2, dollar, "us")
	full := w.AddHost("T4", 1, dollar/2, "us")
	w.Exec(`UPDATE gpus SET healthy = false WHERE host_id = $1`, full)
}

func TestOffersAreFilteredAndSorted(t *testing.T) {
	t.Parallel()
	w := world(t)
	bazaar(w)
	for _, c := range []struct {
		query, sort string
		want        []string
	}{
		{"", "", []string{"L40S eu-north", "L40S us", "H100 eu-west", "H100 us", "T4 us"}},
		{"", "-price", []string{"T4 us", "H100 us", "H100 eu-west", "L40S eu-north", "L40S us"}},
		{"gpu=h100", "price", []string{"H100 eu-west", "H100 us"}},
		{"region=eu", "model", []string{"H100 eu-west", "L40S eu-north"}},
		{"price<2.5 free>=2", "region", []string{"H100 eu-west", "L40S us"}},
		{"gpu!=T4", "-free", []string{"H100 us", "H100 eu-west", "L40S us", "L40S eu-north"}},
		{"gpu=B200", "", nil},
	} {
		if got := places(offers(w, c.query, c.sort, market.Page{})); !slices.Equal(got, c.want) {
			t.Errorf("%q by %q: %v, want %v", c.query, c.sort, got, c.want)
		}
	}
	if _, err := w.Market.Offers(t.Context(), query.Filter{}, "beauty", market.Page{}); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("sorting by beauty: %v", err)
	}
}

func TestAnOfferCountsWhatItsHostsHave(t *testing.T) {
	t.Parallel()
	w := world(t)
	cheap := w.AddHost("H100", 4, 2*dollar, "eu")
	w.AddHost("H100", 2, 3*dollar, "eu")
	ask(w, cheap, 2*dollar, pricing.Rules{SpotPercent: percent(50)})
	w.Book(schedulertest.Spec(1, 3))
	found := offers(w, "gpu=H100", "", market.Page{})
	if len(found.Offers) != 1 {
		t.Fatalf("found %v", places(found))
	}
	want := market.Offer{
		GPUModel: "H100", Region: "eu", MemoryMiB: 81920, FreeGPUs: 3, TotalGPUs: 6, Hosts: 2, LargestNode: 2, PriceFrom: 2 * dollar,
		PriceMedian: 3 * dollar, SpotFrom: dollar, UtilisationBps: 5000,
	}
	if got := found.Offers[0]; got != want {
		t.Errorf("the offer is %+v, want %+v", got, want)
	}
}

func TestPagesFitTogetherInEveryOrder(t *testing.T) {
	t.Parallel()
	w := world(t)
	bazaar(w)
	for _, sort := range []string{"", "price", "-price", "free", "-free", "vram", "model", "region", "-region", "utilisation", "reliability", "spot"} {
		whole := offers(w, "", sort, market.Page{})
		var pages []string
		cursor := ""
		for range 10 {
			found := offers(w, "", sort, market.Page{Cursor: cursor, Limit: 2})
			pages = append(pages, places(found)...)
			if found.Total != 5 || len(found.Offers) > 2 {
				t.Fatalf("by %q: a page of %d of %d", sort, len(found.Offers), found.Total)
			}
			if cursor = found.Next; cursor == "" {
				break
			}
		}
		if !slices.Equal(pages, places(whole)) {
			t.Errorf("by %q: %v in pages, %v at once", sort, pages, places(whole))
		}
	}
	next := offers(w, "", "price", market.Page{Limit: 1}).Next
	for _, page := range []struct{ cursor, sort string }{{"nonsense", "price"}, {next, "-price"}} {
		if _, err := w.Market.Offers(t.Context(), query.Filter{}, page.sort, market.Page{Cursor: page.cursor}); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("the cursor %q by %s: %v", page.cursor, page.sort, err)
		}
	}
}
