package market_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

// runs has the market's led work done until the test's end.
func runs(t *testing.T, w *schedulertest.World) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = w.Market.Run(ctx, schedulertest.Term) })
	t.Cleanup(func() { cancel(); work.Wait() })
}

func TestAsksThatMakeNoSenseAreRefusedByField(t *testing.T) {
	t.Parallel()
	w := world(t)
	host := w.AddHost("H100", 1, dollar, "eu")
	for name, c := range map[string]struct {
		ask   market.Ask
		field string
	}{
		"for nothing":     {market.Ask{}, "price_per_gpu_hour"},
		"negative":        {market.Ask{Price: -1}, "price_per_gpu_hour"},
		"above all":       {market.Ask{Price: math.MaxInt64}, "price_per_gpu_hour"},
		"below its floor": {market.Ask{Price: dollar, Floor: dollar + 1}, "floor"},
		"negative floor":  {market.Ask{Price: dollar, Floor: -1}, "floor"},
		"endless floor":   {market.Ask{Price: dollar, Floor: math.MaxInt64}, "floor"},
		"a wrong rule":    {market.Ask{Price: dollar, Rules: pricing.Rules{Calendar: []pricing.Period{{From: "25:00"}}}}, "rules.calendar[0].from"},
	} {
		for what, err := range map[string]error{
			"set":     w.Market.SetAsk(t.Context(), owner(w, host), host, c.ask),
			"preview": second(w.Market.PreviewAsk(t.Context(), owner(w, host), host, c.ask)),
		} {
			var refusal *errs.Error
			if !errors.As(err, &refusal) || refusal.Code != errs.Invalid || len(refusal.Fields) != 1 || refusal.Fields[0].Path != c.field {
				t.Errorf("%s, %s: %v, want an error about %s", name, what, err, c.field)
			}
		}
	}
	valid := market.Ask{Price: dollar}
	for what, err := range map[string]error{
		"another's host": w.Market.SetAsk(t.Context(), w.Customer, host, valid),
		"no host":        w.Market.SetAsk(t.Context(), w.Customer, ids.New[ids.Host](), valid),
		"a preview":      second(w.Market.PreviewAsk(t.Context(), w.Customer, host, valid)),
	} {
		if errs.CodeOf(err) != errs.NotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestAnAskIsReplacedWithItsRulesAndShowsItsPricesOfNow(t *testing.T) {
	t.Parallel()
	w := world(t)
	host := w.AddHost("H100", 1, dollar, "eu")
	org := owner(w, host)
	set := market.Ask{
		Price: 2 * dollar, Floor: dollar, Active: true,
		Rules: pricing.Rules{SpotPercent: percent(60), Discounts: []pricing.Discount{{From: "weekly", Percent: 25}}},
	}
	if err := w.Market.SetAsk(t.Context(), org, host, set); err != nil {
		t.Fatal(err)
	}
	asks, err := w.Market.Asks(t.Context(), org)
	got := asks[host]
	if err != nil || got.Price != set.Price || got.Floor != set.Floor || !got.Active || len(got.Rules.Discounts) != 1 {
		t.Fatalf("the ask is %+v, %v", got, err)
	}
	if got.Now[placement.Hourly] != 2*dollar || got.Now[placement.Weekly] != dollar*3/2 || got.Now[placement.Spot] != dollar {
		t.Errorf("its prices are %v", got.Now)
	}
	if err := w.Market.SetAsk(t.Context(), org, host, market.Ask{Price: dollar}); err != nil {
		t.Fatal(err)
	}
	asks, err = w.Market.Asks(t.Context(), org)
	if got := asks[host]; err != nil || got.Active || got.Floor != 0 || got.Rules.SpotPercent != nil || got.Now[placement.Spot] != 0 {
		t.Errorf("without rules it is %+v, %v", got, err)
	}
}

func TestAPreviewShowsWhatAnAskWouldDoAndSavesNothing(t *testing.T) {
	t.Parallel()
	w := world(t)
	host := w.AddHost("H100", 4, dollar, "eu")
	w.AddHost("H100", 1, dollar, "eu")
	w.AddHost("H100", 1, 3*dollar, "eu")
	w.AddHost("H100", 1, dollar/2, "us")
	// Of the last three hours one was cheaper than the ask, one dearer, and in one nothing was free.
	w.Exec(`INSERT INTO market_history (gpu_model, region, at, gpus, leased, price_min, price_median) VALUES
		('H100', 'eu', now() - interval '3 hours', 6, 3, 1000000, 1000000), ('H100', 'eu', now() - interval '2 hours', 6, 3, 3000000, 3000000),
		('H100', 'eu', now() - interval '1 hour', 6, 6, NULL, NULL)`)
	weekend := pricing.Rules{Calendar: []pricing.Period{{Days: []string{"sat", "sun"}, Percent: 50}}}
	preview, err := w.Market.PreviewAsk(t.Context(), owner(w, host), host, market.Ask{Price: 2 * dollar, Rules: weekend, Active: true})
	if err != nil {
		t.Fatal(err)
	}
	dear := 0
	for i, hour := range preview.Hours {
		if i > 0 && hour.At.Sub(preview.Hours[i-1].At) != time.Hour {
			t.Fatalf("hour %d is %s", i, hour.At)
		}
		if hour.Price == 3*dollar {
			dear++
		}
	}
	if len(preview.Hours) != 168 || dear != 48 {
		t.Errorf("%d hours, %d of them at the weekend's price", len(preview.Hours), dear)
	}
	if preview.Rank != 2 || preview.Peers != 3 {
		// At the weekend it asks 3, as the dearest does.
		t.Errorf("its rank is %d of %d", preview.Rank, preview.Peers)
	}
	if past := preview.Past; past == nil || past.Sampled.Round(time.Minute) != 3*time.Hour || past.HiredBps < 6600 || past.HiredBps > 6700 || past.Earned < 4*4*dollar-10 {
		t.Errorf("its past is %+v", preview.Past)
	}
	if price := w.Count(`SELECT price_per_gpu_hour FROM asks WHERE host_id = $1`, host); price != int64(dollar) {
		t.Errorf("the ask is %d now", price)
	}
}

func TestARuleThatMovesPricesMovesTheOffer(t *testing.T) {
	t.Parallel()
	w := world(t)
	host := w.AddHost("H100", 1, dollar, "eu")
	ask(w, host, dollar, pricing.Rules{Calendar: []pricing.Period{{Percent: 100}}})
	if quote := w.Quote(schedulertest.Spec(1, 1)); quote.PerHour() != 2*dollar {
		t.Errorf("it costs %d", quote.PerHour())
	}
}
