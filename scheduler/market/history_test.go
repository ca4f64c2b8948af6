package market_test

import (
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

func history(w *schedulertest.World, region string, from, to time.Time, step time.Duration) []market.HistoryPoint {
	w.Helper()
	points, err := w.Market.History(w.Context(), "H100", region, from, to, step)
	if err != nil {
		w.Fatalf("history: %v", err)
	}
	return points
}

func TestTheMarketIsSampledOnceAMinute(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.AddHost("H100", 3, 2*dollar, "eu")
	w.AddHost("H100", 1, 5*dollar, "eu")
	w.AddHost("H100", 2, dollar, "us")
	w.Book(market.Spec{GPUModel: "H100", Nodes: 1, GPUsPerNode: 2, Duration: time.Hour, Regions: []string{"eu"}})
	before := time.Now()
	for range 3 {
		if err := w.Market.Sample(t.Context(), schedulertest.Term); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.Count(`SELECT count(*) FROM market_history`); n != 2 && time.Since(before.Truncate(time.Minute)) < time.Minute {
		t.Errorf("%d samples of two regions", n)
	}
	points := history(w, "eu", time.Time{}, time.Time{}, 0)
	if len(points) == 0 {
		t.Fatal("there is no history")
	}
	at := points[0].At
	if want := (market.HistoryPoint{At: at, GPUs: 4, Leased: 2, PriceMin: 2 * dollar, PriceMedian: 2 * dollar}); points[0] != want {
		t.Errorf("eu was %+v, want %+v", points[0], want)
	}
	if all := history(w, "", time.Time{}, time.Time{}, 0); all[0].GPUs != 6 || all[0].Leased != 2 || all[0].PriceMin != dollar {
		t.Errorf("all together were %+v", all[0])
	}
}

func TestUtilisationOfTheLastSampleMovesPrices(t *testing.T) {
	t.Parallel()
	w := world(t)
	host := w.AddHost("H100", 2, dollar, "eu")
	ask(w, host, dollar, pricing.Rules{Utilisation: []pricing.Step{{Above: percent(40), Percent: 50}}})
	w.Book(schedulertest.Spec(1, 1))
	if err := w.Market.Sample(t.Context(), schedulertest.Term); err != nil {
		t.Fatal(err)
	}
	asks, err := w.Market.Asks(t.Context(), owner(w, host))
	if err != nil || asks[host].Now[0] != dollar*3/2 {
		t.Errorf("at half its GPUs hired it asks %d, %v", asks[host].Now[0], err)
	}
}

func TestHistoryIsAveragedOverSteps(t *testing.T) {
	t.Parallel()
	w := world(t)
	day := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	w.Exec(`INSERT INTO market_history (gpu_model, region, at, gpus, leased, price_min, price_median)
		SELECT 'H100', region, $1::timestamptz + n * interval '10 minutes', 10, n, 1000000 + n, 2000000
		FROM generate_series(0, 8) n, unnest(ARRAY['eu', 'us']) region`, day)
	points := history(w, "eu", day, day.Add(time.Hour+30*time.Minute), 30*time.Minute)
	if len(points) != 3 {
		t.Fatalf("%d points", len(points))
	}
	for i, want := range []market.HistoryPoint{
		{At: day, GPUs: 10, Leased: 1, PriceMin: 1_000_000, PriceMedian: 2_000_000},
		{At: day.Add(30 * time.Minute), GPUs: 10, Leased: 4, PriceMin: 1_000_003, PriceMedian: 2_000_000},
		{At: day.Add(time.Hour), GPUs: 10, Leased: 7, PriceMin: 1_000_006, PriceMedian: 2_000_000},
	} {
		points[i].At = points[i].At.UTC()
		if points[i] != want {
			t.Errorf("step %d is %+v, want %+v", i, points[i], want)
		}
	}
	if all := history(w, "", day, day.Add(time.Hour), time.Hour); len(all) != 1 || all[0].GPUs != 20 || all[0].Leased != 6 {
		t.Errorf("all regions together are %+v", all)
	}
	for field, ask := range map[string]func() error{
		"no model":  func() error { return second(w.Market.History(t.Context(), "", "", day, day.Add(time.Hour), 0)) },
		"backwards": func() error { return second(w.Market.History(t.Context(), "H100", "", day, day, 0)) },
		"too fine": func() error {
			return second(w.Market.History(t.Context(), "H100", "", day, day.Add(time.Hour), time.Second))
		},
		"too many": func() error {
			return second(w.Market.History(t.Context(), "H100", "", day, day.AddDate(1, 0, 0), time.Minute))
		},
	} {
		if err := ask(); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestHistoryGetsCoarserAndThenEnds(t *testing.T) {
	t.Parallel()
	w := world(t)
	w.Exec(`INSERT INTO market_history (gpu_model, region, at, gpus, leased)
		SELECT 'H100', 'eu', date_trunc('hour', now()) - age * interval '1 hour' + n * interval '10 minutes', 1, 0
		FROM generate_series(0, 5) n, unnest(ARRAY[1, 48, 91 * 24]) age`)
	for range 2 {
		if err := w.Market.Thin(t.Context(), schedulertest.Term); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.Count(`SELECT count(*) FROM market_history WHERE at > now() - interval '1 day'`); n != 6 {
		t.Errorf("of the last hour %d of 6 samples are left", n)
	}
	if n := w.Count(`SELECT count(*) FROM market_history WHERE at < now() - interval '1 day' AND at = date_trunc('hour', at)`); n != 1 {
		t.Errorf("of two days ago %d first samples are left, want 1", n)
	}
	if n := w.Count(`SELECT count(*) FROM market_history`); n != 7 {
		t.Errorf("%d samples are left, want 7", n)
	}
}
