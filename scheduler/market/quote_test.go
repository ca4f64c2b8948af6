package market_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

// dollar is a whole token.
const dollar = money.Amount(1_000_000)

// world is a market with an operator's head host.
func world(t testing.TB) *schedulertest.World {
	t.Helper()
	w := schedulertest.New(t)
	w.AddHead()
	return w
}

// owner is who owns a host.
func owner(w *schedulertest.World, host ids.Host) (org ids.Org) {
	w.Helper()
	if err := w.Pool.QueryRow(w.Context(), `SELECT org_id FROM hosts WHERE id = $1`, host).Scan(&org); err != nil {
		w.Fatal(err)
	}
	return org
}

// ask sets the price and rules of a host.
func ask(w *schedulertest.World, host ids.Host, price money.Amount, rules pricing.Rules) {
	w.Helper()
	if err := w.Market.SetAsk(w.Context(), owner(w, host), host, market.Ask{Price: price, Rules: rules, Active: true}); err != nil {
		w.Fatalf("set ask: %v", err)
	}
}

func spot(limit money.Amount) market.Spec {
	spec := schedulertest.Spec(1, 1)
	spec.Kind, spec.MaxPrice = market.KindSpot, limit
	return spec
}

func percent(p int) *int { return &p }

func TestARegionHoldsItsParts(t *testing.T) {
	t.Parallel()
	w := world(t)
	for _, region := range []string{"eu-west", "eu-north", "us-east"} {
		w.AddHost("H100", 1, dollar, region)
	}
	spec := schedulertest.Spec(2, 1)
	spec.Regions = []string{"EU", "eu-north"}
	if got := w.Quote(spec).Spec.Regions; !slices.Equal(got, []string{"eu-north", "eu-west"}) {
		t.Errorf("eu is %v", got)
	}
	w.AddHost("H100", 1, dollar/2, "eu-south") // a region that nobody has asked for by its name
	if quote := w.Quote(spec); len(quote.Spec.Regions) != 3 || quote.Lines[0].Region != "eu-south" {
		t.Errorf("eu is %v, and the cheapest host is in %s", quote.Spec.Regions, quote.Lines[0].Region)
	}
	spec.Regions = []string{"e"}
	_, err := w.Market.Quote(t.Context(), w.Customer, w.User, spec)
	if errs.CodeOf(err) != errs.Invalid || !strings.Contains(err.Error(), "there are eu-north, eu-south, eu-west, us-east") {
		t.Errorf("a part of a name was taken: %v", err)
	}
}

func TestSpecsThatNoFleetCouldSatisfyAreRefusedByField(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 8, dollar, "eu")
	someone := ids.New[ids.Org]()
	for name, c := range map[string]struct {
		change func(*market.Spec)
		field  string
	}{
		"no model":            {func(s *market.Spec) { s.GPUModel = "" }, "gpu_model"},
		"unknown model":       {func(s *market.Spec) { s.GPUModel = "H1000" }, "gpu_model"},
		"a billion nodes":     {func(s *market.Spec) { s.Nodes = 1_000_000_000 }, "node_count"},
		"no nodes":            {func(s *market.Spec) { s.Nodes = 0 }, "node_count"},
		"endless GPUs":        {func(s *market.Spec) { s.GPUsPerNode = math.MaxInt }, "gpus_per_node"},
		"a second":            {func(s *market.Spec) { s.Duration = time.Second }, "duration"},
		"a century":           {func(s *market.Spec) { s.Duration = 876_000 * time.Hour }, "duration"},
		"unknown region":      {func(s *market.Spec) { s.Regions = []string{"eu", "mars"} }, "regions[1]"},
		"unknown kind":        {func(s *market.Spec) { s.Kind = "barter" }, "kind"},
		"negative limit":      {func(s *market.Spec) { s.MaxPrice = -1 }, "max_price_per_gpu_hour"},
		"limit above all":     {func(s *market.Spec) { s.MaxPrice = math.MaxInt64 }, "max_price_per_gpu_hour"},
		"spot without limit":  {func(s *market.Spec) { s.Kind = market.KindSpot }, "max_price_per_gpu_hour"},
		"negative memory":     {func(s *market.Spec) { s.MinMemoryMiB = -1 }, "min_vram_gb"},
		"absurd disk":         {func(s *market.Spec) { s.DiskBytes = math.MaxInt64 }, "disk_gib"},
		"better than trusted": {func(s *market.Spec) { s.MinTier = 3 }, "min_tier"},
		"allowed and denied":  {func(s *market.Spec) { s.AllowOwners, s.DenyOwners = []ids.Org{someone}, []ids.Org{w.Customer, someone} }, "deny_owners[1]"},
		"in the past":         {func(s *market.Spec) { s.StartsAt = time.Now().Add(-time.Minute) }, "starts_at"},
		"too far ahead":       {func(s *market.Spec) { s.StartsAt = time.Now().Add(31 * 24 * time.Hour) }, "starts_at"},
		"spot with a start": {func(s *market.Spec) {
			s.Kind, s.MaxPrice, s.StartsAt = market.KindSpot, dollar, time.Now().Add(time.Hour)
		}, "starts_at"},
		"a window for nothing":   {func(s *market.Spec) { s.Window = 5 * time.Second }, "bid_window"},
		"a choice of nothing":    {func(s *market.Spec) { s.Choose = market.ChooseManual }, "choose"},
		"a window too short":     {func(s *market.Spec) { s.Kind, s.Window = market.KindAuction, time.Second }, "bid_window"},
		"a window too long":      {func(s *market.Spec) { s.Kind, s.Window = market.KindAuction, time.Hour }, "bid_window"},
		"an unknown choice":      {func(s *market.Spec) { s.Kind, s.Choose = market.KindAuction, "dearest" }, "choose"},
		"an auction of anything": {func(s *market.Spec) { s.Kind, s.GPUModel, s.MinMemoryMiB = market.KindAuction, "", 1 }, "gpu_model"},
		"parking at once":        {func(s *market.Spec) { s.ParkAfter = time.Second }, "auto_stop.park_after"},
		"an endless name":        {func(s *market.Spec) { s.ClusterName = strings.Repeat("x", 81) }, "cluster_name"},
	} {
		spec := schedulertest.Spec(1, 1)
		c.change(&spec)
		_, err := w.Market.Quote(t.Context(), w.Customer, w.User, spec)
		var refusal *errs.Error
		if !errors.As(err, &refusal) || refusal.Code != errs.Invalid || len(refusal.Fields) != 1 || refusal.Fields[0].Path != c.field {
			t.Errorf("%s: %v, want an error about %s", name, err, c.field)
		}
	}
	if n := w.Count(`SELECT count(*) FROM bookings`); n != 0 {
		t.Errorf("%d quotes were stored", n)
	}
}

func TestALongBookingPaysTheDiscountedPrice(t *testing.T) {
	t.Parallel()
	w := world(t)
	host := w.AddHost("H100", 2, dollar, "eu")
	ask(w, host, dollar, pricing.Rules{Discounts: []pricing.Discount{{From: "daily", Percent: 10}}})
	spec := schedulertest.Spec(1, 2)
	spec.Duration = 24 * time.Hour
	quote := w.Quote(spec)
	line := quote.Lines[0]
	if quote.Class != placement.Daily || line.Price != dollar*9/10 || line.Hourly != dollar || quote.Hold != 2*24*dollar*9/10 {
		t.Errorf("quoted class %d, %+v, hold %d", quote.Class, line, quote.Hold)
	}
}

func TestAClassOfGPUIsQuotedAsItsCheapestModel(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H200", 1, 3*dollar, "eu")
	w.AddHost("H100", 1, 2*dollar, "eu")
	small := w.AddHost("T4", 1, dollar, "eu")
	w.Exec(`UPDATE gpus SET memory_mib = 15360 WHERE host_id = $1`, small)
	spec := schedulertest.Spec(1, 1)
	spec.GPUModel, spec.MinMemoryMiB = "", market.MemoryMiB(80)
	quote := w.Quote(spec)
	if quote.GPUModel != "H100" || quote.Spec.GPUModel != "" {
		t.Fatalf("quoted %q for %q", quote.GPUModel, quote.Spec.GPUModel)
	}
	booked := w.Accept(quote)
	if booked.State != "accepted" || booked.GPUModel != "H100" || booked.Spec.GPUModel != "" || booked.Spec.MinMemoryMiB != spec.MinMemoryMiB {
		t.Errorf("booked %+v", booked)
	}
}

func TestConstraintsAreKeptWithTheQuote(t *testing.T) {
	t.Parallel()
	w := world(t)
	host := w.AddHost("H100", 2, dollar, "eu")
	w.Exec(`UPDATE hosts SET cpus = 64, memory_bytes = 1000000000000, disk_free_bytes = 1000000000000, driver_major = 570,
		images = '{2.60.0}', reliability_bps = 9900, trust_tier = 1 WHERE id = $1`, host)
	spec := schedulertest.Spec(1, 1)
	spec.CPUs, spec.MemoryBytes, spec.DiskBytes, spec.MinDriver, spec.Image = 16, 1<<30, 1<<30, 560, "2.60.0"
	spec.MinReliability, spec.MinTier, spec.AllowOwners, spec.DenyOwners = 9000, 1, []ids.Org{owner(w, host)}, []ids.Org{w.Customer}
	spec.ParkAfter, spec.ReleaseAfter, spec.SameSite, spec.Regions = time.Hour, 2*time.Hour, true, []string{"eu"}
	stored, err := w.Market.GetQuote(t.Context(), w.Customer, w.Quote(spec).ID)
	if err != nil {
		t.Fatal(err)
	}
	got, want := market.RequestFor(stored.Spec, time.Unix(1, 0)), market.RequestFor(spec, time.Unix(1, 0))
	got.Runtime = want.Runtime
	if !sameRequest(got, want) || stored.Spec.ParkAfter != time.Hour || stored.Spec.ReleaseAfter != 2*time.Hour || stored.WorstRTT != 0 {
		t.Errorf("asked for %+v, stored %+v", want, stored.Spec)
	}
	for name, change := range map[string]func(*market.Spec){
		"cpu":    func(s *market.Spec) { s.CPUs = 64 }, // a node of one GPU gets half of the host
		"driver": func(s *market.Spec) { s.MinDriver = 580 },
		"tier":   func(s *market.Spec) { s.MinTier = 2 },
		"owner":  func(s *market.Spec) { s.AllowOwners, s.DenyOwners = nil, []ids.Org{owner(w, host)} },
	} {
		wanting := spec
		change(&wanting)
		var refusal *errs.Error
		_, err := w.Market.Quote(t.Context(), w.Customer, w.User, wanting)
		if !errors.As(err, &refusal) || refusal.Code != errs.NoCapacity {
			t.Errorf("%s: %v, want no capacity", name, err)
			continue
		}
		if details, ok := refusal.Details.(market.NoMatch); !ok || details.Blocking != name {
			t.Errorf("%s: blocked by %+v", name, refusal.Details)
		}
	}
}

func sameRequest(a, b placement.Request) bool {
	return a.Model == b.Model && a.CPUs == b.CPUs && a.MemoryBytes == b.MemoryBytes && a.DiskBytes == b.DiskBytes && a.MinDriver == b.MinDriver &&
		a.Image == b.Image && a.MinReliability == b.MinReliability && a.MinTier == b.MinTier && a.SameSite == b.SameSite && a.Until == b.Until &&
		len(a.AllowOwners) == len(b.AllowOwners) && len(a.DenyOwners) == len(b.DenyOwners) && len(a.Regions) == len(b.Regions)
}

func TestSpotTakesOnlyHostsThatOfferItWithinTheLimit(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, dollar/10, "eu") // takes no spot bookings, however cheap
	host := w.AddHost("H100", 1, dollar, "eu")
	ask(w, host, dollar, pricing.Rules{SpotPercent: percent(40)})
	if _, err := w.Market.Quote(t.Context(), w.Customer, w.User, spot(dollar/2)); errs.CodeOf(err) != errs.NoCapacity {
		t.Errorf("below the spot price: %v", err)
	}
	quote := w.Quote(spot(dollar * 6 / 10))
	if quote.Lines[0].HostID != host || quote.Lines[0].Price != dollar*6/10 || quote.Class != placement.Spot || quote.Kind != market.KindSpot {
		t.Fatalf("quoted %+v", quote)
	}
	if booked := w.Accept(quote); booked.State != "accepted" || w.Count(`SELECT count(*) FROM clusters WHERE kind = 'spot'`) != 1 {
		t.Errorf("booked %s", booked.State)
	}
}

func TestAMarketBookingThatFitsOnlyByPreemptingSaysSo(t *testing.T) {
	t.Parallel()
	w := world(t)
	host := w.AddHost("H100", 2, dollar, "eu")
	ask(w, host, dollar, pricing.Rules{SpotPercent: percent(40)})
	w.Book(spot(dollar))
	plain := w.Quote(schedulertest.Spec(1, 1))
	if plain.Preempts() || plain.StartsAt != nil {
		t.Errorf("there is a free GPU, but it preempts: %+v", plain)
	}
	quote := w.Quote(schedulertest.Spec(1, 2))
	if !quote.Preempts() || quote.StartsAt == nil || quote.StartsAt.Sub(quote.QuotedAt) != market.DrainNotice {
		t.Fatalf("quoted %+v", quote)
	}
	if _, err := w.Market.Quote(t.Context(), w.Customer, w.User, spot(dollar*2)); err != nil {
		t.Errorf("a spot booking of the free GPU: %v", err)
	}
	if booked := w.Accept(quote); booked.State != "scheduled" || w.Count(`SELECT count(*) FROM clusters WHERE preempt_at IS NOT NULL`) != 1 {
		t.Errorf("booked %s", booked.State)
	}
	if _, err := w.Market.Cancel(t.Context(), w.Customer, quote.ID); err != nil {
		t.Fatal(err)
	}
	if w.Count(`SELECT count(*) FROM clusters WHERE preempt_at IS NOT NULL`) != 0 {
		t.Error("a spot cluster makes way for a booking that was cancelled")
	}
}

func TestAScheduledBookingCanBeCancelledAndItsMoneyComesBack(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 2, dollar, "eu")
	spec := schedulertest.Spec(1, 2)
	spec.StartsAt = time.Now().Add(3 * time.Hour).Truncate(time.Second)
	quote := w.Quote(spec)
	if quote.StartsAt == nil || !quote.StartsAt.Equal(spec.StartsAt) {
		t.Fatalf("quoted for %v", quote.StartsAt)
	}
	before := w.Escrow.Balance
	booked := w.Accept(quote)
	if booked.State != "scheduled" || w.Escrow.Balance != before-quote.Hold {
		t.Fatalf("booked %s, %d held", booked.State, before-w.Escrow.Balance)
	}
	listed, err := w.Market.Bookings(t.Context(), w.Customer, "scheduled", ids.Booking{}, 10)
	if err != nil || len(listed) != 1 || listed[0].ID != quote.ID {
		t.Fatalf("listed %+v, %v", listed, err)
	}
	for range 2 {
		cancelled, err := w.Market.Cancel(t.Context(), w.Customer, quote.ID)
		if err != nil || cancelled.State != "cancelled" {
			t.Fatalf("cancelled %+v, %v", cancelled, err)
		}
	}
	if w.Escrow.Balance != before || w.Count(`SELECT count(*) FROM reservations WHERE released_at IS NULL`) != 0 {
		t.Errorf("%d are still held", before-w.Escrow.Balance)
	}
	if _, err := w.Market.Accept(t.Context(), w.Customer, quote.ID, market.AcceptOptions{}); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("accepting it then gave %v", err)
	}
	if _, err := w.Market.Cancel(t.Context(), w.AddOrg("Other"), quote.ID); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("another organisation cancels: %v", err)
	}
}

func TestWhatHasBegunCannotBeCancelled(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 1, dollar, "eu")
	quote := w.Quote(schedulertest.Spec(1, 1))
	w.Exec(`UPDATE bookings SET requested_at = now() WHERE id = $1`, quote.ID)
	if _, err := w.Market.Cancel(t.Context(), w.Customer, quote.ID); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("while it is decided: %v", err)
	}
	w.Accept(quote)
	if _, err := w.Market.Cancel(t.Context(), w.Customer, quote.ID); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("with a cluster: %v", err)
	}
}

func TestDurationsAreShortAsPeopleWriteThem(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		time.Hour: "1h", 90 * time.Minute: "1h30m", time.Minute: "1m", 10 * time.Second: "10s", time.Hour + time.Second: "1h0m1s", 0: "0s",
	} {
		if got := market.ShortDuration(d); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestOnlyHostsThatCanStartTheRayOfNewClustersAreOffered(t *testing.T) {
	t.Parallel()
	w := world(t)
	old := w.AddHost("H100", 1, dollar, "eu")
	w.Exec(`UPDATE hosts SET images = '{2.59.0}' WHERE id = $1`, old)
	current := w.AddHost("H100", 1, 2*dollar, "eu")
	w.Exec(`UPDATE hosts SET images = '{2.59.0,2.60.0}' WHERE id = $1`, current)
	if quote := w.Quote(schedulertest.Spec(1, 1)); quote.Lines[0].HostID != current {
		t.Error("a host with another Ray was quoted")
	}
	if found := offers(w, "gpu=H100", "", market.Page{}); len(found.Offers) != 1 || found.Offers[0].TotalGPUs != 1 {
		t.Errorf("offered is %+v", found.Offers)
	}
	var refusal *errs.Error
	_, err := w.Market.Quote(t.Context(), w.Customer, w.User, schedulertest.Spec(2, 1))
	if !errors.As(err, &refusal) || refusal.Code != errs.NoCapacity {
		t.Fatalf("two nodes: %v", err)
	}
	if details, ok := refusal.Details.(market.NoMatch); !ok || details.Blocking != "image" || !strings.Contains(details.Summary, "Ray 2.60.0") {
		t.Errorf("two nodes are blocked by %+v", refusal.Details)
	}
}
