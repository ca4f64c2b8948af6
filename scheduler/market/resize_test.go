package market_test

import (
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

func TestAnExtensionGoesOnAtTheClustersPrices(t *testing.T) {
	t.Parallel()
	w := world(t)
	host := w.AddHost("H100", 2, dollar, "eu")
	id := w.Ready(schedulertest.Spec(1, 2))
	w.Exec(`UPDATE asks SET price_per_gpu_hour = 9000000 WHERE host_id = $1`, host)
	quote, err := w.Market.QuoteExtension(t.Context(), w.Customer, w.User, id, 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if quote.Purpose != market.PurposeExtension || quote.Target != id || quote.PerHour() != 2*dollar || quote.Hold != 4*dollar || quote.Lines[0].HostID != host {
		t.Fatalf("quoted %+v", quote)
	}
	booked := w.Accept(quote)
	if booked.State != "accepted" || booked.ClusterID != id || w.Count(`SELECT duration_ms FROM clusters`) != (3*time.Hour).Milliseconds() {
		t.Errorf("booked %s, %v", booked.State, booked.Refusal())
	}
	if held := w.Escrow.Held[quote.ID]; held != 4*dollar {
		t.Errorf("%d are held for it", held)
	}
	if _, err := w.Market.QuoteExtension(t.Context(), w.Customer, w.User, id, 720*time.Hour); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("beyond the longest booking: %v", err)
	}
}

func TestAnExtensionEndsWhereTheGPUsArePromised(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, dollar, "eu")
	id := w.Ready(schedulertest.Spec(1, 1))
	later := schedulertest.Spec(1, 1)
	later.StartsAt = time.Now().Add(3 * time.Hour)
	if booked := w.Accept(w.Quote(later)); booked.State != "scheduled" {
		t.Fatalf("booked %s", booked.State)
	}
	if _, err := w.Market.QuoteExtension(t.Context(), w.Customer, w.User, id, time.Hour); err != nil {
		t.Errorf("before it is promised: %v", err)
	}
	if _, err := w.Market.QuoteExtension(t.Context(), w.Customer, w.User, id, 3*time.Hour); errs.CodeOf(err) != errs.NoCapacity {
		t.Errorf("into what is promised: %v", err)
	}
}

func TestAnAdditionIsPlacedBesideTheCluster(t *testing.T) {
	t.Parallel()
	w := world(t)
	first, second := w.AddHost("H100", 4, dollar, "eu"), w.AddHost("H100", 4, 2*dollar, "eu")
	w.AddHost("H200", 4, dollar/2, "eu")
	id := w.Ready(schedulertest.Spec(1, 2))
	w.Exec(`UPDATE hosts SET images = '{2.61.0}' WHERE id = $1`, w.AddHost("H100", 4, dollar, "eu"))
	quote, err := w.Market.QuoteAddition(t.Context(), w.Customer, w.User, id, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if quote.Purpose != market.PurposeAddition || quote.Target != id || len(quote.Lines) != 1 || quote.Lines[0].HostID != second || quote.GPUModel != "H100" {
		t.Fatalf("quoted %+v beside %s", quote, first)
	}
	if left := quote.Spec.Duration; left > time.Hour || left < 55*time.Minute {
		t.Errorf("it is for %s", left)
	}
	if booked := w.Accept(quote); booked.State != "accepted" || w.Count(`SELECT node_count FROM clusters`) != 2 {
		t.Errorf("booked %s, %v", booked.State, booked.Refusal())
	}
	if _, err := w.Market.QuoteAddition(t.Context(), w.Customer, w.User, id, 1, 0); errs.CodeOf(err) != errs.NoCapacity {
		t.Errorf("with both hosts in use: %v", err)
	}
	if _, err := w.Market.QuoteAddition(t.Context(), w.Customer, w.User, id, market.MaxNodes, 0); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("beyond the largest cluster: %v", err)
	}
}

func TestAnAdditionKeepsToTheClustersSite(t *testing.T) {
	t.Parallel()
	w := world(t)
	farm := w.AddOrg("Farm")
	inFarm := func() ids.Host {
		host := w.AddHost("H100", 1, 2*dollar, "eu")
		w.Exec(`UPDATE asks SET org_id = $2 WHERE host_id = $1`, host, farm)
		w.Exec(`UPDATE hosts SET org_id = $2, site = 'hall' WHERE id = $1`, host, farm)
		return host
	}
	inFarm()
	inFarm()
	spec := schedulertest.Spec(2, 1)
	spec.SameSite = true
	id := w.Ready(spec)
	w.AddHost("H100", 1, dollar, "eu") // cheaper, and elsewhere
	if _, err := w.Market.QuoteAddition(t.Context(), w.Customer, w.User, id, 1, 0); errs.CodeOf(err) != errs.NoCapacity {
		t.Fatalf("with no other host in the site: %v", err)
	}
	third := inFarm()
	quote, err := w.Market.QuoteAddition(t.Context(), w.Customer, w.User, id, 1, 0)
	if err != nil || quote.Lines[0].HostID != third || quote.Lines[0].Site != "hall" {
		t.Errorf("quoted %+v, %v", quote.Lines, err)
	}
}

func TestOnlyARunningClusterOfOnesOwnIsChanged(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, dollar, "eu")
	w.AddHost("H100", 1, dollar, "eu")
	id := w.Book(schedulertest.Spec(1, 1))
	other := w.AddOrg("Other")
	if _, err := w.Market.QuoteAddition(t.Context(), w.Customer, w.User, id, 1, 0); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("before it is ready: %v", err)
	}
	if _, err := w.Market.QuoteAddition(t.Context(), other, w.User, id, 1, 0); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("another's: %v", err)
	}
	if _, err := w.Market.QuoteExtension(t.Context(), other, w.User, id, time.Hour); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("another's: %v", err)
	}
	w.Exec(`UPDATE clusters SET release_requested_at = now()`)
	if _, err := w.Market.QuoteExtension(t.Context(), w.Customer, w.User, id, time.Hour); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("once it is released: %v", err)
	}
}

// TestAChangeIsRefusedThatItsHoldDoesNotCover: what is not held nobody is paid for.
func TestAChangeIsRefusedThatItsHoldDoesNotCover(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"extension", "addition"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			w := world(t)
			w.AddHost("H100", 1, dollar, "eu")
			w.AddHost("H100", 1, dollar, "eu")
			id := w.Ready(schedulertest.Spec(1, 1))
			quotes := map[string]market.Quote{}
			var err error
			if quotes["extension"], err = w.Market.QuoteExtension(t.Context(), w.Customer, w.User, id, time.Hour); err != nil {
				t.Fatal(err)
			}
			if quotes["addition"], err = w.Market.QuoteAddition(t.Context(), w.Customer, w.User, id, 1, 0); err != nil {
				t.Fatal(err)
			}
			if booked := w.Accept(quotes[first]); booked.State != "accepted" {
				t.Fatalf("the %s: %s, %v", first, booked.State, booked.Refusal())
			}
			delete(quotes, first)
			for second, quote := range quotes {
				if booked := w.Accept(quote); booked.State != "refused" || errs.CodeOf(booked.Refusal()) != errs.Conflict || w.Escrow.Held[quote.ID] != 0 {
					t.Errorf("then the %s: %s, %v, held %d", second, booked.State, booked.Refusal(), w.Escrow.Held[quote.ID])
				}
			}
		})
	}
}

func TestAClusterThatLacksANodeIsNotExtended(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, dollar, "eu")
	lost := w.AddHost("H100", 1, 2*dollar, "eu")
	id := w.Ready(schedulertest.Spec(2, 1))
	w.Exec(`UPDATE leases SET state = 'closed', closed_at = now() WHERE cluster_id = $1 AND host_id = $2`, id, lost)
	if _, err := w.Market.QuoteExtension(t.Context(), w.Customer, w.User, id, time.Hour); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("without one of its nodes: %v", err)
	}
}
