package placement_test

import (
	"math/bits"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
)

func fleets() *rapid.Generator[[]placement.Host] {
	host := rapid.Custom(func(t *rapid.T) placement.Host {
		gpus := rapid.IntRange(1, 4).Draw(t, "gpus")
		return placement.Host{
			ID:     ids.Host(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")),
			Model:  rapid.SampledFrom([]string{"H100", "L40S"}).Draw(t, "model"),
			Region: rapid.SampledFrom([]string{"eu", "us"}).Draw(t, "region"),
			Open:   rapid.IntRange(0, 4).Draw(t, "open") > 0,
			GPUs:   gpus,
			Well:   1<<rapid.IntRange(0, gpus).Draw(t, "free") - 1,
			Prices: [placement.Classes]money.Amount{money.Amount(rapid.Int64Range(1, 5).Draw(t, "price"))},
		}
	})
	return rapid.SliceOfNDistinct(host, 0, 7, func(h placement.Host) ids.Host { return h.ID })
}

func requests() *rapid.Generator[placement.Request] {
	return rapid.Custom(func(t *rapid.T) placement.Request {
		return placement.Request{
			Model:       rapid.SampledFrom([]string{"H100", "L40S", "B200"}).Draw(t, "model"),
			Nodes:       rapid.IntRange(1, 3).Draw(t, "nodes"),
			GPUsPerNode: rapid.IntRange(1, 3).Draw(t, "gpus per node"),
			Regions:     rapid.SampledFrom([][]string{nil, {"eu"}, {"eu", "us"}}).Draw(t, "regions"),
			MaxPrice:    money.Amount(rapid.SampledFrom([]int64{0, 2, 4}).Draw(t, "max price")),
		}
	})
}

func index(hosts []placement.Host) *placement.Index {
	x := placement.NewIndex()
	for _, h := range hosts {
		x.Put(h)
	}
	return x
}

// cheapest tries every set of hosts: the oracle.
func cheapest(hosts []placement.Host, r placement.Request) (best money.Amount, found bool) {
	for set := range 1 << len(hosts) {
		var total money.Amount
		nodes, fits := 0, true
		for i, h := range hosts {
			if set&(1<<i) == 0 {
				continue
			}
			nodes++
			total += h.Prices[0]
			fits = fits && h.Open && h.Model == r.Model && bits.OnesCount64(h.Well) >= r.GPUsPerNode &&
				(len(r.Regions) == 0 || slices.Contains(r.Regions, h.Region)) && (r.MaxPrice == 0 || h.Prices[0] <= r.MaxPrice)
		}
		if fits && nodes == r.Nodes && (!found || total < best) {
			best, found = total, true
		}
	}
	return best, found
}

func TestPlaceIsTheCheapestFeasibleGang(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		hosts, request := fleets().Draw(t, "fleet"), requests().Draw(t, "request")
		want, feasible := cheapest(hosts, request)
		plan, placed := index(hosts).Place(request)
		if placed != feasible {
			t.Fatalf("placed %v, feasible %v", placed, feasible)
		}
		explanation := index(hosts).Explain(request)
		if (explanation.Blocking == "") != feasible {
			t.Fatalf("feasible %v, but explained as blocked by %q", feasible, explanation.Blocking)
		}
		if !placed {
			return
		}
		got := plan.Price()
		if got != want || len(plan.Nodes) != request.Nodes {
			t.Fatalf("placed %d nodes for %d, the cheapest is %d", len(plan.Nodes), got, want)
		}
		slices.Reverse(hosts)
		again, _ := index(hosts).Place(request)
		if !reflect.DeepEqual(again, plan) {
			t.Fatal("the plan depends on the order of the snapshot")
		}
	})
}

func TestTheCheaperHostGoesFirstAndEqualPricesStrandFewest(t *testing.T) {
	t.Parallel()
	host := func(id byte, price money.Amount, free int) placement.Host {
		return placement.Host{ID: ids.Host{id}, Model: "H100", Region: "eu", Open: true, GPUs: 8, Well: 1<<free - 1, Prices: [placement.Classes]money.Amount{price}}
	}
	plan, placed := index([]placement.Host{
		host(1, 5, 2), host(5, 2, 4), host(4, 2, 2), host(3, 2, 2), host(2, 1, 8),
	}).Place(placement.Request{Model: "H100", Nodes: 4, GPUsPerNode: 2})
	if !placed {
		t.Fatal("nothing was placed")
	}
	var order []byte
	for _, n := range plan.Nodes {
		order = append(order, n.Host.ID[0])
	}
	if want := []byte{2, 3, 4, 5}; !slices.Equal(order, want) {
		t.Errorf("took hosts %v, want %v: by price, then fewest stranded, then id", order, want)
	}
}

func TestExplainNamesTheFirstConditionThatLeavesTooFew(t *testing.T) {
	t.Parallel()
	host := func(region string, price money.Amount, free int) placement.Host {
		return placement.Host{ID: ids.New[ids.Host](), Model: "H100", Region: region, Open: true, GPUs: 8, Well: 1<<free - 1, Prices: [placement.Classes]money.Amount{price}}
	}
	fleet := []placement.Host{host("eu", 3, 8), host("eu", 2, 1), host("us", 1, 8)}
	for name, c := range map[string]struct {
		change func(*placement.Request)
		want   string
	}{
		"unknown model":  {func(r *placement.Request) { r.Model = "B200" }, "gpu_model"},
		"far away":       {func(r *placement.Request) { r.Regions = []string{"asia"} }, "region"},
		"too cheap":      {func(r *placement.Request) { r.MaxPrice = 1 }, "price"},
		"large nodes":    {func(r *placement.Request) { r.Nodes, r.GPUsPerNode = 3, 2 }, "gpus_per_node"},
		"already in use": {func(r *placement.Request) { r.Nodes, r.Exclude = 3, []ids.Host{fleet[0].ID} }, "host"},
		"many nodes":     {func(r *placement.Request) { r.Nodes = 4 }, "node_count"},
		"nothing":        {func(*placement.Request) {}, ""},
	} {
		request := placement.Request{Model: "H100", Nodes: 2, GPUsPerNode: 1}
		c.change(&request)
		if got := index(fleet).Explain(request); got.Blocking != c.want {
			t.Errorf("%s: blocked by %q, want %q: %s", name, got.Blocking, c.want, got.Summary)
		}
	}
}
