package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market"
)

func TestOffersAreSearched(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owner := b.org("Owner", false)
	b.fixture(owner)
	b.exec(`UPDATE hosts SET region = 'us-east' WHERE id = $1`, b.fixture(owner).host)
	for query, regions := range map[string]string{
		"": "eu-west us-east", "region=eu": "eu-west", "gpu=H100 price<2 region=us-east": "us-east", "gpu=h100": "eu-west us-east", "price<1.90": "", "vram>=90GB": "",
	} {
		var offers apiv1.List[apiv1.Offer]
		b.do(request{method: get, path: "/v1/offers?sort=region&q=" + url.QueryEscape(query)}).is(http.StatusOK).decode(&offers)
		var got []string
		for _, o := range offers.Items {
			got = append(got, o.Region)
		}
		if strings.Join(got, " ") != regions {
			t.Errorf("%q: %v, want %q", query, got, regions)
		}
	}
}

func TestAMistakeInAQueryHasItsPosition(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for query, position := range map[string]int{"gpu=H100 price<cheap": 15, "gpu=H100 colour=red": 9, "é=1": 0} {
		wrong := b.do(request{method: get, path: "/v1/offers?q=" + url.QueryEscape(query)}).problem(http.StatusUnprocessableEntity, "invalid")
		if len(wrong.Errors) != 1 || wrong.Errors[0].Path != "query.q" || wrong.Errors[0].Position == nil || *wrong.Errors[0].Position != position {
			t.Errorf("%q: errors %+v, want position %d", query, wrong.Errors, position)
		}
	}
	for _, path := range []string{"/v1/offers?sort=beauty", "/v1/offers?gpu_model=H100", "/v1/offers?cursor=nonsense", "/v1/market/history", "/v1/market/history?gpu_model=H100&step=soon", "/v1/market/history?gpu_model=H100&from=2026-11-22T00:00:00Z&to=2026-11-21T00:00:00Z", "/v1/market/history?gpu_model=H100&step=1ns"} {
		wrong := b.do(request{method: get, path: path}).problem(http.StatusUnprocessableEntity, "invalid")
		if len(wrong.Errors) == 0 || !strings.HasPrefix(wrong.Errors[0].Path, "query.") {
			t.Errorf("%s: errors %+v, want a query parameter", path, wrong.Errors)
		}
	}
}

func TestPricesAndUseOverTime(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.fixture(b.org("Owner", false))
	at := time.Now().UTC().Truncate(time.Hour).Add(-2 * time.Hour)
	b.exec(`INSERT INTO market_history (gpu_model, region, at, gpus, leased, price_min, price_median) VALUES
		('H100', 'eu-west', $1, 8, 2, 1900000, 2100000), ('H100', 'eu-west', $2, 8, 8, NULL, NULL)`, at, at.Add(time.Hour))
	var history apiv1.MarketHistory
	b.do(request{method: get, path: "/v1/market/history?gpu_model=H100&region=eu-west&step=1h&from=" + at.Format(time.RFC3339)}).is(http.StatusOK).decode(&history)
	if len(history.Points) != 2 || history.StepMS != 3_600_000 {
		t.Fatalf("history %+v", history)
	}
	if p := history.Points[0]; p.UtilisationPercent != 25 || p.PriceMin == nil || p.PriceMin.Text != "1.900000" || p.PriceMedian == nil {
		t.Errorf("first point %+v", p)
	}
	if p := history.Points[1]; p.UtilisationPercent != 100 || p.PriceMin != nil {
		t.Errorf("without a free GPU %+v, want no price", p)
	}
}

func TestAQuoteIsItemisedToTheLastUnit(t *testing.T) {
	t.Parallel()
	s := newBench(t).server
	rapid.Check(t, func(t *rapid.T) {
		owners := []ids.Org{ids.New[ids.Org](), ids.New[ids.Org]()}
		q := market.Quote{
			Spec:   market.Spec{GPUsPerNode: rapid.IntRange(1, 8).Draw(t, "gpus"), Duration: time.Duration(rapid.Int64Range(60_000, 2_592_000_000).Draw(t, "ms")) * time.Millisecond},
			FeeBps: rapid.IntRange(0, 10_000).Draw(t, "fee"),
		}
		for range rapid.IntRange(1, 5).Draw(t, "nodes") {
			q.Lines = append(q.Lines, market.Line{Owner: owners[rapid.IntRange(0, 1).Draw(t, "owner")], Price: money.Amount(rapid.Int64Range(1, 1_000_000_000_000).Draw(t, "price"))})
		}
		q.Hold = max(1, q.CostOf(q.Spec.Duration))
		items, fee := s.quoteItems(q)
		sum := money.Amount(0)
		for _, item := range items {
			amount, err := s.Currency.Parse(item.Amount.Text)
			if err != nil || amount < 0 {
				t.Fatalf("item %+v: %v", item, err)
			}
			sum += amount
		}
		if sum != q.Hold || fee < money.Share(q.Hold, q.FeeBps)-money.Amount(len(owners)) {
			t.Errorf("items %+v add up to %d, the hold is %d and the fee %d", items, sum, q.Hold, fee)
		}
	})
}

// TestSpecsSurviveTheWire: what a customer asked for comes back as it was, so that it can be asked for again.
func TestSpecsSurviveTheWire(t *testing.T) {
	t.Parallel()
	s := newBench(t).server
	rapid.Check(t, func(t *rapid.T) {
		sometimes := func(name string, least, most int) int {
			if !rapid.Bool().Draw(t, name) {
				return 0
			}
			return rapid.IntRange(least, most).Draw(t, name)
		}
		in := market.Spec{
			Kind: rapid.SampledFrom([]string{market.KindMarket, market.KindAuction, market.KindSpot}).Draw(t, "kind"), GPUModel: "H100", Nodes: 2, GPUsPerNode: 4,
			Duration: time.Duration(rapid.IntRange(60, 2_592_000).Draw(t, "s")) * time.Second, SameSite: rapid.Bool().Draw(t, "site"),
			MaxRTT: time.Duration(sometimes("rtt", 1, 1000)) * time.Millisecond, CPUs: sometimes("cpus", 1, 256), MemoryBytes: int64(sometimes("memory", 1, 2048)) * gib,
			DiskBytes: int64(sometimes("disk", 1, 10_000)) * gib, MinDriver: sometimes("driver", 1, 999), MinReliability: sometimes("reliability", 1, 10_000),
			MinTier: sometimes("tier", 1, 2), MinCompute: sometimes("compute", 10, 120), MaxPrice: money.Amount(sometimes("price", 1, 10_000_000)),
			ParkAfter: time.Duration(sometimes("park", 1, 999)) * time.Minute, ReleaseAfter: time.Duration(sometimes("release", 1, 999)) * time.Minute,
			AllowOwners: []ids.Org{ids.New[ids.Org]()}, Regions: []string{"eu-west"},
		}
		if vram := sometimes("vram", 1, 200); vram > 0 {
			in.MinMemoryMiB = market.MemoryMiB(vram)
		}
		if in.Kind == market.KindAuction {
			in.Window, in.Choose = time.Duration(rapid.IntRange(2, 60).Draw(t, "window"))*time.Second, "manual"
		}
		wire := s.wireSpec(in)
		out, err := s.readSpec(wire)
		if err != nil {
			t.Fatalf("%+v: %v", wire, err)
		}
		if a, b := asJSON(t, in), asJSON(t, out); a != b {
			t.Errorf("%s came back as %s", a, b)
		}
	})
}

func asJSON(t *rapid.T, value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWrongSpecsNameTheInput(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.fixture(b.org("Owner", false))
	for body, path := range map[string]string{
		`{"node_count": 1, "gpus_per_node": 1, "duration": "1h"}`:                                                             "body.gpu_model",
		`{"gpu_model": "H100", "node_count": 1000000000, "gpus_per_node": 1, "duration": "1h"}`:                               "body.node_count",
		`{"gpu_model": "H100", "node_count": 1, "gpus_per_node": 1, "duration": "soon"}`:                                      "body.duration",
		`{"gpu_model": "H100", "node_count": 1, "gpus_per_node": 1, "duration": "1h", "kind": "gift"}`:                        "body.kind",
		`{"gpu_model": "H100", "node_count": 1, "gpus_per_node": 1, "duration": "1h", "cpus": -1}`:                            "body.cpus",
		`{"gpu_model": "H100", "node_count": 1, "gpus_per_node": 1, "duration": "1h", "min_compute_capability": "nine"}`:      "body.min_compute_capability",
		`{"gpu_model": "H100", "node_count": 1, "gpus_per_node": 1, "duration": "1h", "min_reliability_percent": 101}`:        "body.min_reliability_percent",
		`{"gpu_model": "H100", "node_count": 1, "gpus_per_node": 1, "duration": "1h", "kind": "auction", "bid_window": "1h"}`: "body.bid_window",
		`{"gpu_model": "H100", "node_count": 1, "gpus_per_node": 1, "duration": "1h", "auto_stop": {"park_after": "-1m"}}`:    "body.auto_stop.park_after",
		`{"gpu_model": "H100", "node_count": 1, "gpus_per_node": 1, "duration": "1h", "starts_at": "2020-01-01T00:00:00Z"}`:   "body.starts_at",
		`{"gpu_model": "H100", "node_count": 1, "gpus_per_node": 1, "duration": "1h", "kind": "spot"}`:                        "body.max_price_per_gpu_hour",
		`{"gpu_model": "H100", "node_count": 1, "gpus_per_node": 1, "duration": "1h", "max_price_per_gpu_hour": "0"}`:         "body.max_price_per_gpu_hour",
		`{"gpu_model": "H100", "node_count": 1, "gpus_per_node": 1, "duration": "1h", "memory_gib": 99999999999999}`:          "body.memory_gib",
		`{"gpu_model": "H100", "node_count": 1, "gpus_per_node": 1, "duration": "1h", "allow_owners": ["somebody"]}`:          "body.allow_owners[0]",
	} {
		wrong := b.do(request{method: post, path: "/v1/explain", body: body}).problem(http.StatusUnprocessableEntity, "invalid")
		if len(wrong.Errors) == 0 || wrong.Errors[0].Path != path {
			t.Errorf("%s: errors %+v, want %s", body, wrong.Errors, path)
		}
	}
}

func TestWhatDoesNotFitIsCounteredWithQuotes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.fixture(b.org("Owner", false))
	p := b.member(b.org("Customer", false), identity.Engineer)
	spec := apiv1.BookingSpec{GPUModel: "H100", NodeCount: 1, GPUsPerNode: 1, Duration: "1h", MaxPricePerGPUHour: "1.50"}
	refused := b.do(request{method: post, path: "/v1/quotes", cookie: p.cookie, body: spec}).problem(http.StatusConflict, "no_capacity")
	var explanation apiv1.Explanation
	text, err := json.Marshal(refused.Details)
	fatal(t, err)
	fatal(t, json.Unmarshal(text, &explanation))
	if explanation.Blocking != "price" || len(explanation.Changes) == 0 {
		t.Fatalf("explanation %s", text)
	}
	for _, change := range explanation.Changes {
		if change.QuoteID == nil || change.ExpiresAt == nil || change.Summary == "" {
			t.Fatalf("change %+v has no quote", change)
		}
		var quote apiv1.Quote
		b.do(request{method: get, path: "/v1/quotes/" + change.QuoteID.String(), cookie: p.cookie}).is(http.StatusOK).decode(&quote)
		if quote.State != "quoted" || quote.PricePerHour != change.PricePerHour || len(quote.Items) != 2 {
			t.Errorf("quote %+v of change %+v", quote, change)
		}
	}
	var public apiv1.Explanation
	b.do(request{method: post, path: "/v1/explain", body: spec}).is(http.StatusOK).decode(&public)
	if len(public.Changes) == 0 || public.Changes[0].QuoteID != nil || public.Funnel[0].Condition == "" {
		t.Errorf("anybody is told %+v", public)
	}
}

func TestAnAuctionIsSealedAndCanBeGivenUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.fixture(b.org("Owner", false))
	p := b.member(b.org("Customer", false), identity.Engineer)
	spec := apiv1.BookingSpec{Kind: "auction", GPUModel: "H100", NodeCount: 1, GPUsPerNode: 1, Duration: "1h", BidWindow: "30s"}
	var quote apiv1.Quote
	b.do(request{method: post, path: "/v1/quotes", cookie: p.cookie, body: spec}).is(http.StatusCreated).decode(&quote)
	if quote.State != "bidding" || quote.BidsCloseAt == nil || len(quote.Lines) != 0 || len(quote.Items) != 0 || quote.Spec.BidWindow != "30s" {
		t.Errorf("quote %+v", quote)
	}
	b.do(request{method: get, path: "/v1/quotes/" + quote.ID.String() + "/bids", cookie: p.cookie}).problem(http.StatusConflict, "conflict")
	for state, want := range map[string]int{"bidding": 1, "cancelled": 0, "": 1} {
		if got := b.bookings(p, state); len(got) != want {
			t.Errorf("state %q: %+v, want %d", state, got, want)
		}
	}
	var booking apiv1.Booking
	b.do(request{method: post, path: "/v1/bookings/" + quote.ID.String() + "/cancel", cookie: p.cookie}).is(http.StatusOK).decode(&booking)
	if booking.State != "cancelled" || len(b.bookings(p, "cancelled")) != 1 {
		t.Errorf("booking %+v", booking)
	}
}

func (b *bench) bookings(p *person, state string) []apiv1.Booking {
	b.t.Helper()
	path := "/v1/bookings"
	if state != "" {
		path += "?state=" + state
	}
	var list apiv1.List[apiv1.Booking]
	b.do(request{method: get, path: path, cookie: p.cookie}).is(http.StatusOK).decode(&list)
	return list.Items
}

func TestAskIsPreviewedAndSet(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Owner", false))
	p := b.member(f.org, identity.Owner)
	path := "/v1/hosts/" + f.host.String() + "/ask"
	ask := apiv1.AskPut{PricePerGPUHour: "2.00", Floor: "1.50", Active: true, Rules: &apiv1.AskRules{
		Discounts: []apiv1.AskDiscount{{From: "daily", Percent: 10}, {From: "weekly", Percent: 50}}, SpotPercent: new(20),
	}}
	var preview apiv1.AskPreview
	b.do(request{method: post, path: path + "/preview", cookie: p.cookie, body: ask}).is(http.StatusOK).decode(&preview)
	if preview.Now.Daily.Text != "1.800000" || preview.Now.Weekly.Text != "1.500000" || preview.Now.Spot == nil || preview.Now.Spot.Text != "1.600000" || len(preview.Hours) != 168 || preview.Rank < 1 {
		t.Errorf("preview %+v", preview)
	}
	var host apiv1.Host
	b.do(request{method: get, path: "/v1/hosts/" + f.host.String(), cookie: p.cookie}).is(http.StatusOK).decode(&host)
	if host.Ask.PricePerGPUHour.Text != "1.900000" || host.Ask.Floor != nil || host.Ask.Now.Spot != nil {
		t.Errorf("the preview was saved: %+v", host.Ask)
	}
	var changed apiv1.Host
	b.do(request{method: put, path: path, cookie: p.cookie, body: ask}).is(http.StatusOK).decode(&changed)
	if changed.Ask.Floor == nil || changed.Ask.Floor.Text != "1.500000" || len(changed.Ask.Rules.Discounts) != 2 || changed.Ask.Now != preview.Now && changed.Ask.Now.Daily != preview.Now.Daily {
		t.Errorf("ask %+v", changed.Ask)
	}
}

func TestWrongAsksNameTheInput(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Owner", false))
	p := b.member(f.org, identity.Owner)
	for body, path := range map[string]string{
		`{"price_per_gpu_hour": "1.00", "floor": "1.50", "active": true}`:                                         "body.floor",
		`{"price_per_gpu_hour": "99999999999999999999", "active": true}`:                                          "body.price_per_gpu_hour",
		`{"price_per_gpu_hour": "9000000000000", "active": true}`:                                                 "body.price_per_gpu_hour",
		`{"price_per_gpu_hour": "0", "active": true}`:                                                             "body.price_per_gpu_hour",
		`{"price_per_gpu_hour": "1", "active": true, "rules": {"calendar": [{"from": "25:00", "percent": 5}]}}`:   "body.rules.calendar[0].from",
		`{"price_per_gpu_hour": "1", "active": true, "rules": {"discounts": [{"from": "yearly", "percent": 5}]}}`: "body.rules.discounts[0].from",
		`{"price_per_gpu_hour": "1", "active": true, "rules": {"utilisation": [{"above": 80, "percent": 900}]}}`:  "body.rules.utilisation[0].percent",
	} {
		for _, r := range []request{{method: put, path: "/v1/hosts/" + f.host.String() + "/ask"}, {method: post, path: "/v1/hosts/" + f.host.String() + "/ask/preview"}} {
			r.cookie, r.body = p.cookie, body
			wrong := b.do(r).problem(http.StatusUnprocessableEntity, "invalid")
			if len(wrong.Errors) == 0 || wrong.Errors[0].Path != path {
				t.Errorf("%s: errors %+v, want %s", body, wrong.Errors, path)
			}
		}
	}
}

func TestMoreTimeForARunningCluster(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Customer", false))
	p := b.member(f.org, identity.Engineer)
	path := "/v1/clusters/" + f.cluster.String()
	for _, body := range []string{`{"duration": "soon"}`, `{"duration": "0s"}`, `{"duration": "9999h"}`} {
		wrong := b.do(request{method: post, path: path + "/extension-quote", cookie: p.cookie, body: body}).problem(http.StatusUnprocessableEntity, "invalid")
		if len(wrong.Errors) == 0 || wrong.Errors[0].Path != "body.duration" {
			t.Errorf("%s: errors %+v", body, wrong.Errors)
		}
	}
	// Nodes join while it is ready, and this one is not yet.
	b.do(request{method: post, path: path + "/addition-quote", cookie: p.cookie, body: apiv1.AdditionCreate{NodeCount: 1}}).problem(http.StatusConflict, "conflict")
}
