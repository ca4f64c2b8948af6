package simfleet_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/simfleet"
	"github.com/muster-gpu/muster/scheduler/fleet"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
)

// realH100 is what the local stack's real hosts ask for theirs.
const realH100 = 1_900_000

func TestASeedMakesOneFleet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seed, small := rapid.Uint64().Draw(t, "seed"), rapid.IntRange(0, 60).Draw(t, "small")
		large := small + rapid.IntRange(0, 60).Draw(t, "more")
		first, second := simfleet.Generate(seed, small), simfleet.Generate(seed, large)
		if !reflect.DeepEqual(first, second[:len(first)]) {
			t.Error("a smaller fleet is not the beginning of a larger one")
		}
		names := map[string]bool{}
		for i, h := range second {
			checkHost(t, i, h)
			if names[h.Name] {
				t.Errorf("two hosts are called %s", h.Name)
			}
			names[h.Name] = true
		}
	})
}

func checkHost(t *rapid.T, index int, h simfleet.Host) {
	if h.Index != index || !strings.HasPrefix(h.Name, "sim-") || !slices.Contains(simfleet.Regions(), h.Region) || h.Site == "" || h.CPUs <= 0 || h.Memory <= 0 {
		t.Errorf("host %d is %+v", index, h)
	}
	if h.Kind == simfleet.KindHead {
		if h.Owner != simfleet.Platform || h.GPUs != 0 {
			t.Errorf("a head host is %+v", h)
		}
		return
	}
	if h.Kind != simfleet.KindGPU || h.Owner < 0 || h.Owner >= len(simfleet.Owners) || h.GPUs < 1 || h.GPUs > 8 || h.Ask.Floor <= 0 || h.Ask.Floor > h.Ask.Price {
		t.Errorf("a GPU host is %+v", h)
	}
	var rules pricing.Rules
	if len(h.Ask.Rules) > 0 {
		decoder := json.NewDecoder(bytes.NewReader(h.Ask.Rules))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&rules); err != nil {
			t.Errorf("the market does not read %s: %v", h.Ask.Rules, err)
		}
	}
	if err := rules.Validate(); err != nil {
		t.Errorf("the market does not take %s: %v", h.Ask.Rules, err)
	}
	if fleet.ModelName(h.Product, 0) == "H100" && h.Ask.Floor <= realH100 {
		t.Errorf("an H100 of %s may cost %d, no more than a real one", h.Name, h.Ask.Floor)
	}
}

func TestALargeFleetIsAMarket(t *testing.T) {
	t.Parallel()
	products, regions, owners, heads, ruled := map[string]int{}, map[string]int{}, map[int]int{}, 0, 0
	for _, h := range simfleet.Generate(42, 1000) {
		if h.Kind == simfleet.KindHead {
			heads++
			continue
		}
		products[h.Product]++
		regions[h.Region]++
		owners[h.Owner]++
		if len(h.Ask.Rules) > 0 {
			ruled++
		}
	}
	if len(products) < 5 || len(regions) < 4 || len(owners) != len(simfleet.Owners) || heads != len(simfleet.Regions()) || ruled < 300 {
		t.Errorf("products %v, regions %v, owners %v, %d heads, %d with rules", products, regions, owners, heads, ruled)
	}
}

func TestASeedMakesOnePlan(t *testing.T) {
	t.Parallel()
	rates := simfleet.Rates{
		simfleet.Join: 5, simfleet.Flap: 20, simfleet.Vanish: 5, simfleet.VanishInAssembly: 5, simfleet.PriceChange: 10,
		simfleet.GPULost: 5, simfleet.XID: 5, simfleet.ClockSkew: 5,
	}
	const span = time.Minute
	hosts := simfleet.Generate(1, 50)
	first, again, other := simfleet.Plan(9, hosts, span, rates), simfleet.Plan(9, hosts, span, rates), simfleet.Plan(10, hosts, span, rates)
	if !reflect.DeepEqual(first, again) {
		t.Error("one seed gave two plans")
	}
	if fmt.Sprint(first) == fmt.Sprint(other) {
		t.Error("two seeds gave one plan")
	}
	if len(first) < 55 || !slices.IsSortedFunc(first, func(a, b simfleet.Event) int { return int(a.At - b.At) }) {
		t.Errorf("the plan is %v", first)
	}
	for _, e := range first {
		if e.At+e.For > span || hosts[e.Host].Kind != simfleet.KindGPU || e.GPU >= hosts[e.Host].GPUs {
			t.Errorf("planned: %s", e)
		}
		if e.Kind == simfleet.PriceChange && e.Ask.Price < e.Ask.Floor {
			t.Errorf("a price falls below its floor: %s", e)
		}
	}
	if simfleet.Plan(9, nil, span, rates) != nil {
		t.Error("there is a plan for nobody")
	}
}
