package pricing_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
	"github.com/muster-gpu/muster/scheduler/placement"
)

func rules() *rapid.Generator[pricing.Rules] {
	percent := rapid.IntRange(pricing.MinPercent, pricing.MaxPercent)
	off := rapid.IntRange(0, pricing.MaxOff)
	hour := rapid.SampledFrom([]string{"", "00:00", "06:30", "12:00", "22:00"})
	discount := rapid.Custom(func(t *rapid.T) pricing.Discount {
		return pricing.Discount{From: rapid.SampledFrom([]string{"daily", "weekly", "monthly"}).Draw(t, "from"), Percent: off.Draw(t, "off")}
	})
	step := rapid.Custom(func(t *rapid.T) pricing.Step {
		threshold, step := rapid.IntRange(0, 100).Draw(t, "threshold"), pricing.Step{Percent: percent.Draw(t, "percent")}
		if rapid.Bool().Draw(t, "above") {
			step.Above = &threshold
		} else {
			step.Below = &threshold
		}
		return step
	})
	period := rapid.Custom(func(t *rapid.T) pricing.Period {
		days := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"mon", "wed", "sat", "sun"}), 0, 3, rapid.ID[string])
		return pricing.Period{Days: days.Draw(t, "days"), From: hour.Draw(t, "from"), To: hour.Draw(t, "to"), Percent: percent.Draw(t, "percent")}
	})
	return rapid.Custom(func(t *rapid.T) pricing.Rules {
		r := pricing.Rules{
			Discounts:      rapid.SliceOfN(discount, 0, 3).Draw(t, "discounts"),
			Utilisation:    rapid.SliceOfN(step, 0, 4).Draw(t, "utilisation"),
			Calendar:       rapid.SliceOfN(period, 0, 3).Draw(t, "calendar"),
			AuctionPercent: off.Draw(t, "auction"),
		}
		if rapid.Bool().Draw(t, "spot") {
			spot := off.Draw(t, "spot percent")
			r.SpotPercent = &spot
		}
		return r
	}).Filter(func(r pricing.Rules) bool { return r.Validate() == nil })
}

type moment struct {
	rules       pricing.Rules
	at          time.Time
	utilisation int
}

func moments() *rapid.Generator[moment] {
	return rapid.Custom(func(t *rapid.T) moment {
		return moment{
			rules().Draw(t, "rules"), time.Unix(rapid.Int64Range(1_700_000_000, 1_900_000_000).Draw(t, "at"), 0),
			rapid.IntRange(pricing.UtilisationUnknown, 10_000).Draw(t, "utilisation"),
		}
	})
}

func TestPricesStayWithinTheirBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := moments().Draw(t, "moment")
		base := money.Amount(rapid.Int64Range(1, int64(pricing.MaxPrice)).Draw(t, "base"))
		floor := money.Amount(rapid.Int64Range(0, int64(base)).Draw(t, "floor"))
		for class, price := range pricing.Effective(base, floor, m.rules, m.at, m.utilisation) {
			class := placement.Class(class)
			bid := pricing.Bid(base, floor, m.rules, class, m.at, m.utilisation)
			if class == placement.Spot && m.rules.SpotPercent == nil {
				if price != 0 || bid != 0 {
					t.Fatalf("spot is not offered, but priced %d and bid %d", price, bid)
				}
				continue
			}
			if price < max(floor, 1) || price > pricing.MaxPrice {
				t.Fatalf("class %d costs %d with a base of %d and a floor of %d", class, price, base, floor)
			}
			if bid < max(floor, 1) || bid > price {
				t.Fatalf("the bid %d is not between the floor %d and the price %d", bid, floor, price)
			}
		}
	})
}

func TestPricesNeverFallWhenTheBaseRises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := moments().Draw(t, "moment")
		base := money.Amount(rapid.Int64Range(1, int64(pricing.MaxPrice)).Draw(t, "base"))
		more := money.Amount(rapid.Int64Range(int64(base), int64(pricing.MaxPrice)).Draw(t, "more"))
		floor := money.Amount(rapid.Int64Range(0, int64(base)).Draw(t, "floor"))
		before, after := pricing.Effective(base, floor, m.rules, m.at, m.utilisation), pricing.Effective(more, floor, m.rules, m.at, m.utilisation)
		for class := range before {
			if after[class] < before[class] {
				t.Fatalf("a base of %d costs %d, one of %d costs %d", base, before[class], more, after[class])
			}
			low := pricing.Bid(base, floor, m.rules, placement.Class(class), m.at, m.utilisation)
			if high := pricing.Bid(more, floor, m.rules, placement.Class(class), m.at, m.utilisation); high < low {
				t.Fatalf("a base of %d bids %d, one of %d bids %d", base, low, more, high)
			}
		}
	})
}

func TestPricesOnlyMoveWhenTheRulesSaySo(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := moments().Draw(t, "moment")
		if m.rules.Moves() {
			m.rules.Calendar, m.rules.Utilisation = nil, nil
		}
		other := moments().Draw(t, "another moment")
		here, there := pricing.Effective(1000, 0, m.rules, m.at, m.utilisation), pricing.Effective(1000, 0, m.rules, other.at, other.utilisation)
		if m.rules.Moves() || here != there {
			t.Fatalf("%v at one moment, %v at another", here, there)
		}
	})
}

func percent(p int) *int { return &p }

// 2026-11-22 is a Sunday.
func at(clock string) time.Time {
	moment, err := time.Parse(time.DateTime, "2026-11-"+clock+":00")
	if err != nil {
		panic(err)
	}
	return moment
}

func TestEachRule(t *testing.T) {
	t.Parallel()
	night := pricing.Period{Days: []string{"sat"}, From: "22:00", To: "06:00", Percent: -20}
	for name, c := range map[string]struct {
		rules       pricing.Rules
		at          string
		utilisation int
		class       placement.Class
		floor, want money.Amount
	}{
		"no rules":                       {pricing.Rules{}, "22 12:00", 5000, placement.Weekly, 0, 1001},
		"spot is not offered":            {pricing.Rules{}, "22 12:00", 5000, placement.Spot, 0, 0},
		"spot":                           {pricing.Rules{SpotPercent: percent(50)}, "22 12:00", 5000, placement.Spot, 0, 501},
		"spot at the full price":         {pricing.Rules{SpotPercent: percent(0)}, "22 12:00", 5000, placement.Spot, 0, 1001},
		"a discount, rounded up":         {pricing.Rules{Discounts: []pricing.Discount{{"daily", 10}}}, "22 12:00", 0, placement.Daily, 0, 901},
		"not for shorter bookings":       {pricing.Rules{Discounts: []pricing.Discount{{"weekly", 10}}}, "22 12:00", 0, placement.Daily, 0, 1001},
		"a discount goes on":             {pricing.Rules{Discounts: []pricing.Discount{{"daily", 10}}}, "22 12:00", 0, placement.Monthly, 0, 901},
		"the longest discount counts":    {pricing.Rules{Discounts: []pricing.Discount{{"weekly", 20}, {"daily", 10}}}, "22 12:00", 0, placement.Monthly, 0, 801},
		"above":                          {pricing.Rules{Utilisation: []pricing.Step{{Above: percent(80), Percent: 15}}}, "22 12:00", 8001, placement.Hourly, 0, 1152},
		"not above":                      {pricing.Rules{Utilisation: []pricing.Step{{Above: percent(80), Percent: 15}}}, "22 12:00", 8000, placement.Hourly, 0, 1001},
		"the highest step counts":        {pricing.Rules{Utilisation: []pricing.Step{{Above: percent(90), Percent: 30}, {Above: percent(80), Percent: 15}}}, "22 12:00", 9500, placement.Hourly, 0, 1302},
		"below":                          {pricing.Rules{Utilisation: []pricing.Step{{Below: percent(20), Percent: -10}}}, "22 12:00", 1999, placement.Hourly, 0, 901},
		"an unknown utilisation":         {pricing.Rules{Utilisation: []pricing.Step{{Below: percent(20), Percent: -10}}}, "22 12:00", pricing.UtilisationUnknown, placement.Hourly, 0, 1001},
		"a night that began on Saturday": {pricing.Rules{Calendar: []pricing.Period{night}}, "22 05:59", 0, placement.Hourly, 0, 801},
		"it is over":                     {pricing.Rules{Calendar: []pricing.Period{night}}, "22 06:00", 0, placement.Hourly, 0, 1001},
		"Sunday's own night":             {pricing.Rules{Calendar: []pricing.Period{night}}, "22 23:00", 0, placement.Hourly, 0, 1001},
		"Saturday's own morning":         {pricing.Rules{Calendar: []pricing.Period{night}}, "21 05:00", 0, placement.Hourly, 0, 1001},
		"whole days":                     {pricing.Rules{Calendar: []pricing.Period{{Days: []string{"sun"}, Percent: 10}}}, "22 23:59", 0, placement.Hourly, 0, 1102},
		"rules add up":                   {pricing.Rules{Calendar: []pricing.Period{{Percent: -20}}, Discounts: []pricing.Discount{{"daily", 10}}}, "22 12:00", 0, placement.Daily, 0, 701},
		"never more than 90 % off":       {pricing.Rules{Calendar: []pricing.Period{{Percent: -90}, {Percent: -90}}}, "22 12:00", 0, placement.Hourly, 0, 101},
		"never below the floor":          {pricing.Rules{Calendar: []pricing.Period{{Percent: -20}}}, "22 12:00", 0, placement.Hourly, 950, 950},
	} {
		if err := c.rules.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := pricing.Effective(1001, c.floor, c.rules, at(c.at), c.utilisation)[c.class]; got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestABidIsLowerTheLessIsHired(t *testing.T) {
	t.Parallel()
	r := pricing.Rules{AuctionPercent: 20}
	for utilisation, want := range map[int]money.Amount{pricing.UtilisationUnknown: 800, 0: 800, 5000: 900, 10_000: 1000} {
		if got := pricing.Bid(1000, 0, r, placement.Hourly, at("22 12:00"), utilisation); got != want {
			t.Errorf("at %d basis points it bids %d, want %d", utilisation, got, want)
		}
	}
	if got := pricing.Bid(1000, 850, r, placement.Hourly, at("22 12:00"), 0); got != 850 {
		t.Errorf("it bids %d, want its floor", got)
	}
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for document, path := range map[string]string{
		`{"discounts": [{"from": "yearly", "percent": 10}]}`:                                 "rules.discounts[0].from",
		`{"discounts": [{"from": "daily", "percent": 10}, {"from": "daily", "percent": 5}]}`: "rules.discounts[1].from",
		`{"discounts": [{"from": "daily", "percent": 91}]}`:                                  "rules.discounts[0].percent",
		`{"discounts": [{"from": "daily", "percent": -1}]}`:                                  "rules.discounts[0].percent",
		`{"utilisation": [{"percent": 5}]}`:                                                  "rules.utilisation[0]",
		`{"utilisation": [{"above": 1, "below": 2, "percent": 5}]}`:                          "rules.utilisation[0]",
		`{"utilisation": [{"above": 101, "percent": 5}]}`:                                    "rules.utilisation[0].above",
		`{"utilisation": [{"below": -1, "percent": 5}]}`:                                     "rules.utilisation[0].below",
		`{"utilisation": [{"above": 1, "percent": 5}, {"above": 1, "percent": 6}]}`:          "rules.utilisation[1].above",
		`{"utilisation": [{"above": 1, "percent": 301}]}`:                                    "rules.utilisation[0].percent",
		`{"calendar": [{"days": ["sat", "Sunday"], "percent": 5}]}`:                          "rules.calendar[0].days[1]",
		`{"calendar": [{"days": ["sat", "sat"], "percent": 5}]}`:                             "rules.calendar[0].days[1]",
		`{"calendar": [{"from": "24:00", "percent": 5}]}`:                                    "rules.calendar[0].from",
		`{"calendar": [{"from": "+1:00", "percent": 5}]}`:                                    "rules.calendar[0].from",
		`{"calendar": [{"percent": 5}, {"from": "12:00", "to": "25:00", "percent": 5}]}`:     "rules.calendar[1].to",
		`{"calendar": [{"to": "24:01", "percent": 5}]}`:                                      "rules.calendar[0].to",
		`{"calendar": [{"from": "12:00", "to": "12:00", "percent": 5}]}`:                     "rules.calendar[0].to",
		`{"calendar": [{"from": "12:00", "percent": -91}]}`:                                  "rules.calendar[0].percent",
		`{"spot_percent": 91}`:                                                               "rules.spot_percent",
		`{"auction_percent": -5}`:                                                            "rules.auction_percent",
	} {
		var r pricing.Rules
		if err := json.Unmarshal([]byte(document), &r); err != nil {
			t.Fatal(err)
		}
		var refusal *errs.Error
		if err := r.Validate(); !errors.As(err, &refusal) || refusal.Code != errs.Invalid || len(refusal.Fields) != 1 || refusal.Fields[0].Path != path {
			t.Errorf("%s: %v, want an error about %s", document, err, path)
		}
	}
	long := pricing.Rules{Utilisation: make([]pricing.Step, 17)}
	if err := long.Validate(); err == nil {
		t.Error("endless rules are taken")
	}
}
