package placement_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
)

const gpus = 4

// The worlds are small, so that ties, full hosts and contradictions are common.
var (
	models   = []string{"H100", "L40S"}
	runtimes = []string{"docker", "process"}
	regions  = []string{"eu", "us"}
	sites    = []string{"", "lab", "rack"}
	owners   = []ids.Org{{1}, {2}, {3}}
)

func drawMask(t *rapid.T, within uint64, label string) uint64 {
	return rapid.Uint64Range(0, 1<<gpus-1).Draw(t, label) & within
}

func drawSpans(t *rapid.T, label string) []placement.Span {
	var spans []placement.Span
	for range max(0, rapid.IntRange(-3, 2).Draw(t, label)) {
		from := rapid.Int64Range(0, 8).Draw(t, "from")
		spans = append(spans, placement.Span{GPUs: drawMask(t, 1<<gpus-1, "span"), From: from, To: from + rapid.Int64Range(1, 4).Draw(t, "for")})
	}
	return spans
}

func drawHost(t *rapid.T, id ids.Host) placement.Host {
	well := uint64(1<<gpus - 1)
	if rapid.IntRange(0, 3).Draw(t, "unwell") == 0 {
		well = drawMask(t, well, "well")
	}
	h := placement.Host{
		ID: id, Owner: rapid.SampledFrom(owners).Draw(t, "owner"), Model: rapid.SampledFrom(models).Draw(t, "model"),
		Runtime: rapid.SampledFrom(runtimes).Draw(t, "runtime"), MemoryMiB: rapid.SampledFrom([]int64{40, 80}).Draw(t, "memory of a GPU"),
		Compute: rapid.SampledFrom([]int{0, 80, 90}).Draw(t, "compute"), Region: rapid.SampledFrom(regions).Draw(t, "region"),
		Site: rapid.SampledFrom(sites).Draw(t, "site"), RTT: time.Duration(rapid.IntRange(0, 4).Draw(t, "rtt")),
		Open: rapid.IntRange(0, 5).Draw(t, "open") > 0, GPUs: gpus, Well: well,
		CPUs: rapid.SampledFrom([]int{8, 16}).Draw(t, "cpus"), MemoryBytes: rapid.SampledFrom([]int64{8, 16}).Draw(t, "memory"),
		DiskBytes: rapid.SampledFrom([]int64{8, 16}).Draw(t, "disk"), Driver: rapid.SampledFrom([]int{550, 570}).Draw(t, "driver"),
		Images:      rapid.SampledFrom([][]string{{"2.60.0"}, {"2.60.0", "2.61.0"}}).Draw(t, "images"),
		Reliability: rapid.SampledFrom([]int{9_000, 9_900}).Draw(t, "reliability"), Tier: rapid.IntRange(0, 2).Draw(t, "tier"),
		Reserved: drawSpans(t, "reserved"),
	}
	h.Leased = drawMask(t, well, "leased")
	h.Spot = drawMask(t, h.Leased, "spot")
	for place := range gpus {
		if h.Leased&(1<<place) != 0 {
			h.Leases = append(h.Leases, placement.Span{GPUs: 1 << place, To: rapid.Int64Range(1, 10).Draw(t, "lease ends")})
		}
	}
	for class := range h.Prices {
		h.Prices[class] = money.Amount(rapid.Int64Range(0, 4).Draw(t, "price"))
	}
	return h
}

func drawFleet(t *rapid.T, most int) []placement.Host {
	fleet := make([]placement.Host, rapid.IntRange(0, most).Draw(t, "hosts"))
	for i := range fleet {
		fleet[i] = drawHost(t, ids.Host{byte(rapid.IntRange(1, 100).Draw(t, "id")), byte(i)})
	}
	return fleet
}

// sometimes draws one of values, and the first of them mostly: a request with every constraint at once fits nowhere.
func sometimes[T any](t *rapid.T, label string, values ...T) T {
	return values[max(0, rapid.IntRange(-2, len(values)-1).Draw(t, label))]
}

func drawRequest(t *rapid.T) placement.Request {
	r := placement.Request{
		Model: rapid.SampledFrom([]string{"H100", "H100", "L40S", "", "B200"}).Draw(t, "wanted model"),
		Nodes: rapid.IntRange(0, 4).Draw(t, "nodes"), GPUsPerNode: rapid.IntRange(1, gpus).Draw(t, "gpus per node"),
		MinMemoryMiB: sometimes[int64](t, "min memory of a GPU", 0, 80), MinCompute: sometimes(t, "min compute", 0, 90),
		Runtime: sometimes(t, "wanted runtime", "", "docker"), Regions: sometimes(t, "regions", nil, []string{"eu"}, []string{"eu", "us"}),
		SameSite: sometimes(t, "same site", false, true), MaxRTT: time.Duration(sometimes(t, "max rtt", 0, 3, 4, 6)),
		CPUs: sometimes(t, "min cpus", 0, 4, 8), MemoryBytes: sometimes[int64](t, "min memory", 0, 4), DiskBytes: sometimes[int64](t, "min disk", 0, 4),
		MinDriver: sometimes(t, "min driver", 0, 570), Image: sometimes(t, "image", "", "2.61.0"),
		MinReliability: sometimes(t, "min reliability", 0, 9_900), MinTier: sometimes(t, "min tier", 0, 1),
		AllowOwners: sometimes(t, "allow", nil, owners[:2]), DenyOwners: sometimes(t, "deny", nil, owners[:1]),
		MaxPrice: money.Amount(sometimes[int64](t, "max price", 0, 2, 3)), Class: placement.Class(sometimes(t, "class", 0, 1, 4)),
		Start: sometimes[int64](t, "start", 0, 3, 5), Preempt: sometimes(t, "preempt", false, true),
	}
	r.Until = r.Start + rapid.Int64Range(1, 6).Draw(t, "lasts")
	return r
}

func indexOf(hosts []placement.Host) *placement.Index {
	x := placement.NewIndex()
	for _, h := range hosts {
		x.Put(h)
	}
	return x
}

// The oracle says everything again, as the documentation has it and not as the index does it.

func freeOf(h placement.Host, r placement.Request) (n int) {
	for place := range gpus {
		bit := uint64(1) << place
		taken := h.Leased&bit != 0
		if r.Start > 0 {
			taken = slices.ContainsFunc(h.Leases, func(s placement.Span) bool { return s.GPUs&bit != 0 && s.To > r.Start })
		}
		if r.Preempt && h.Spot&bit != 0 {
			taken = false
		}
		if slices.ContainsFunc(h.Reserved, func(s placement.Span) bool { return s.GPUs&bit != 0 && s.From < r.Until && s.To > r.Start }) {
			taken = true
		}
		if h.Well&bit != 0 && !taken {
			n++
		}
	}
	return n
}

func suits(h placement.Host, r placement.Request) bool {
	price := h.Prices[r.Class]
	switch {
	case !h.Open, r.Model != "" && h.Model != r.Model, h.MemoryMiB < r.MinMemoryMiB, h.Compute < r.MinCompute,
		r.Runtime != "" && h.Runtime != r.Runtime, r.Regions != nil && !slices.Contains(r.Regions, h.Region),
		h.CPUs*r.GPUsPerNode/gpus < r.CPUs, h.MemoryBytes*int64(r.GPUsPerNode)/gpus < r.MemoryBytes, h.DiskBytes*int64(r.GPUsPerNode)/gpus < r.DiskBytes,
		h.Driver < r.MinDriver, r.Image != "" && !slices.Contains(h.Images, r.Image), h.Reliability < r.MinReliability, h.Tier < r.MinTier,
		r.AllowOwners != nil && !slices.Contains(r.AllowOwners, h.Owner), slices.Contains(r.DenyOwners, h.Owner),
		price == 0, r.MaxPrice > 0 && price > r.MaxPrice, freeOf(h, r) < r.GPUsPerNode, slices.Contains(r.Exclude, h.ID):
		return false
	}
	return true
}

// siteRTT is the round trip of a host's site: that of its worst open host, 0 if one's is not known.
func siteRTT(fleet []placement.Host, of placement.Host) time.Duration {
	worst := of.RTT
	for _, h := range fleet {
		if of.Site == "" || h.Site != of.Site || !h.Open {
			continue
		}
		if h.RTT == 0 {
			return 0
		}
		worst = max(worst, h.RTT)
	}
	return worst
}

func together(fleet, gang []placement.Host, r placement.Request) bool {
	for i, a := range gang {
		for _, b := range gang[:i] {
			if a.Model != b.Model || a.Runtime != b.Runtime {
				return false
			}
			if a.Site != "" && a.Site == b.Site {
				continue
			}
			x, y := siteRTT(fleet, a), siteRTT(fleet, b)
			if r.SameSite || r.MaxRTT > 0 && (x == 0 || y == 0 || x+y > r.MaxRTT) {
				return false
			}
		}
	}
	return true
}

// oracle tries every set of hosts and returns the ids of the best one.
func oracle(fleet []placement.Host, r placement.Request) (best []ids.Host, price money.Amount) {
	if r.Nodes < 1 {
		return nil, 0
	}
	stranded := 0
	for set := range 1 << len(fleet) {
		if bits.OnesCount(uint(set)) != r.Nodes {
			continue
		}
		var gang []placement.Host
		var cost money.Amount
		left := 0
		for i, h := range fleet {
			if set&(1<<i) != 0 && suits(h, r) {
				gang, cost, left = append(gang, h), cost+h.Prices[r.Class], left+freeOf(h, r)
			}
		}
		if len(gang) < r.Nodes || !together(fleet, gang, r) {
			continue
		}
		names := namesOf(gang)
		if best == nil || cost < price || cost == price && (left < stranded || left == stranded && slices.CompareFunc(names, best, compareIDs) < 0) {
			best, price, stranded = names, cost, left
		}
	}
	return best, price
}

func namesOf(gang []placement.Host) []ids.Host {
	var names []ids.Host
	for _, h := range gang {
		names = append(names, h.ID)
	}
	slices.SortFunc(names, compareIDs)
	return names
}

func compareIDs(a, b ids.Host) int { return slices.Compare(a[:], b[:]) }

func planned(plan placement.Plan) []ids.Host {
	return namesOf(hostsOf(plan))
}

// manyTimes checks a property some hundred times as often as rapid does by itself.
func manyTimes(t *testing.T, hundreds int, property func(*rapid.T)) {
	t.Helper()
	for range hundreds {
		rapid.Check(t, property) // each call draws anew, and prints its seed when it fails
	}
}

func TestPlaceAgreesWithTryingEverySet(t *testing.T) {
	t.Parallel()
	manyTimes(t, 200, func(t *rapid.T) {
		fleet, r := drawFleet(t, 8), drawRequest(t)
		if len(fleet) > 0 && rapid.Bool().Draw(t, "exclude one") {
			r.Exclude = []ids.Host{fleet[0].ID}
		}
		want, price := oracle(fleet, r)
		x := indexOf(fleet)
		plan, placed := x.Place(r)
		if got := planned(plan); placed != (want != nil) || !slices.Equal(got, want) || plan.Price() != price {
			t.Fatalf("placed on %v for %d, the best is %v for %d", got, plan.Price(), want, price)
		}
		e := x.Explain(r)
		if (e.Blocking == "") != placed || (e.Summary == "") != placed {
			t.Fatalf("placed %v, but explained as blocked by %q", placed, e.Blocking)
		}
		if got, want := candidates(x, r), preferred(fleet, r); !slices.Equal(got, want) {
			t.Fatalf("candidates are %v, not %v", got, want)
		}
		if !placed {
			return
		}
		if !slices.IsSortedFunc(plan.Nodes, func(a, b placement.Node) int { return int(a.Price - b.Price) }) {
			t.Fatal("the nodes are not ordered by price")
		}
		checkWorst(t, fleet, plan)
	})
}

func candidates(x *placement.Index, r placement.Request) []ids.Host {
	var all []ids.Host
	for _, n := range x.Candidates(r, x.Len()) {
		all = append(all, n.Host.ID)
	}
	return all
}

// preferred are the hosts that suit, in the order of preference.
func preferred(fleet []placement.Host, r placement.Request) []ids.Host {
	var suitable []placement.Host
	for _, h := range fleet {
		if suits(h, r) {
			suitable = append(suitable, h)
		}
	}
	slices.SortFunc(suitable, func(a, b placement.Host) int {
		return cmp.Or(cmp.Compare(a.Prices[r.Class], b.Prices[r.Class]), cmp.Compare(freeOf(a, r), freeOf(b, r)), compareIDs(a.ID, b.ID))
	})
	var all []ids.Host
	for _, h := range suitable {
		all = append(all, h.ID)
	}
	return all
}

// TestLongListsStayInOrder takes lists through many chunks: they split, empty and are merged in walks.
func TestLongListsStayInOrder(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	host := func(i int) placement.Host {
		return placement.Host{
			ID: ids.Host{byte(i >> 8), byte(i)}, Model: "H100", Region: regions[i%2], Open: random.IntN(20) > 0, GPUs: gpus, Well: 1<<gpus - 1,
			Leased: uint64(random.IntN(1 << gpus)), Prices: [placement.Classes]money.Amount{money.Amount(1 + random.IntN(5))},
		}
	}
	const hosts, rounds, changes = 4_000, 8, 3_000
	x, fleet := placement.NewIndex(), map[ids.Host]placement.Host{}
	for round := range rounds {
		for range changes {
			h := host(random.IntN(hosts))
			if random.IntN(rounds) < round { // more and more of them go
				x.Remove(h.ID)
				delete(fleet, h.ID)
				continue
			}
			x.Put(h)
			fleet[h.ID] = h
		}
		for _, r := range []placement.Request{
			{Model: "H100", GPUsPerNode: 1}, {Model: "H100", GPUsPerNode: gpus}, {Model: "H100", GPUsPerNode: 2, Regions: regions[:1], MaxPrice: 3},
		} {
			all := slices.Collect(maps.Values(fleet))
			if got, want := candidates(x, r), preferred(all, r); len(want) == 0 || !slices.Equal(got, want) {
				t.Fatalf("round %d: %d candidates are not the %d preferred in order", round, len(got), len(want))
			}
		}
	}
}

// TestLinksOfLargeFleetsAgreeWithEveryPairAndTriple needs more hosts than trying every set allows: the search then ends early.
func TestLinksOfLargeFleetsAgreeWithEveryPairAndTriple(t *testing.T) {
	t.Parallel()
	manyTimes(t, 5, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		nodes := rapid.IntRange(2, 3).Draw(t, "nodes")
		fleet := make([]placement.Host, rapid.IntRange(20, 400/(nodes*nodes)).Draw(t, "hosts"))
		spread, steps := rapid.IntRange(1, 100).Draw(t, "sites"), rapid.SampledFrom([]int{2, 4, 60}).Draw(t, "prices")
		for i := range fleet {
			fleet[i] = placement.Host{
				ID: ids.Host{byte(i)}, Model: "H100", Region: "eu", Site: fmt.Sprint(random.IntN(spread)), Open: true, GPUs: gpus, Well: 1<<gpus - 1,
				Leased: uint64(random.IntN(2)), RTT: time.Duration(random.IntN(50)),
				Prices: [placement.Classes]money.Amount{money.Amount(10 + random.IntN(steps))},
			}
			if random.IntN(4) == 0 {
				fleet[i].Site = ""
			}
		}
		r := placement.Request{Model: "H100", Nodes: nodes, GPUsPerNode: 1, MaxRTT: time.Duration(rapid.IntRange(1, 100).Draw(t, "max rtt"))}
		r.SameSite = rapid.IntRange(0, 3).Draw(t, "same site") == 0
		plan, placed := indexOf(fleet).Place(r)
		if got, want := planned(plan), bestOf(fleet, r); placed != (want != nil) || !slices.Equal(got, want) {
			t.Fatalf("placed %v on %v, the best is %v", placed, got, want)
		}
	})
}

// bestOf tries every pair, or every triple.
func bestOf(fleet []placement.Host, r placement.Request) (best []ids.Host) {
	rtts := map[ids.Host]time.Duration{}
	for _, h := range fleet {
		rtts[h.ID] = siteRTT(fleet, h)
	}
	next := func(a, b *placement.Host) bool {
		if a.Site != "" && a.Site == b.Site {
			return true
		}
		x, y := rtts[a.ID], rtts[b.ID]
		return !r.SameSite && x > 0 && y > 0 && x+y <= r.MaxRTT
	}
	var least money.Amount
	consider := func(gang ...*placement.Host) {
		var cost money.Amount // a GPU that is left over weighs less than any price
		var names []ids.Host
		for _, h := range gang {
			cost += h.Prices[0]*1_000 + money.Amount(freeOf(*h, r))
			names = append(names, h.ID)
		}
		slices.SortFunc(names, compareIDs)
		if best == nil || cost < least || cost == least && slices.CompareFunc(names, best, compareIDs) < 0 {
			best, least = names, cost
		}
	}
	for i := range fleet {
		for j := range fleet[:i] {
			a, b := &fleet[i], &fleet[j]
			if !next(a, b) {
				continue
			}
			if r.Nodes == 2 {
				consider(a, b)
				continue
			}
			for k := range fleet[:j] {
				if c := &fleet[k]; next(a, c) && next(b, c) {
					consider(a, b, c)
				}
			}
		}
	}
	return best
}

func hostsOf(plan placement.Plan) []placement.Host {
	var all []placement.Host
	for _, n := range plan.Nodes {
		all = append(all, n.Host)
	}
	return all
}

func checkWorst(t *rapid.T, fleet []placement.Host, plan placement.Plan) {
	want := time.Duration(0)
	for i, a := range plan.Nodes {
		for _, b := range plan.Nodes[:i] {
			if a.Host.Site != "" && a.Host.Site == b.Host.Site || want < 0 {
				continue
			}
			x, y := siteRTT(fleet, a.Host), siteRTT(fleet, b.Host)
			if want = max(want, x+y); x == 0 || y == 0 {
				want = -1
			}
		}
	}
	if plan.WorstRTT != want {
		t.Fatalf("the worst link takes %d, want %d", plan.WorstRTT, want)
	}
}

func TestNearestChangesCanBePlacedAndAreOfDifferentKinds(t *testing.T) {
	t.Parallel()
	manyTimes(t, 30, func(t *rapid.T) {
		fleet, r := drawFleet(t, 8), drawRequest(t)
		r.Nodes = max(1, r.Nodes)
		x := indexOf(fleet)
		if _, placed := x.Place(r); placed {
			return
		}
		kinds, whole := map[string]bool{}, false
		for _, c := range x.Nearest(r, 1) {
			kind := c.Kind
			if kind == "combination" { // of which there may be two
				kind += ": " + c.Summary
			}
			if kinds[kind] || c.Summary == "" {
				t.Fatalf("%q comes twice or says nothing: %q", c.Kind, c.Summary)
			}
			kinds[kind] = true
			whole = whole || c.Kind != "later" && c.Kind != "node_count"
			plan, placed := x.Place(c.Request)
			if !placed || !reflect.DeepEqual(planned(plan), planned(c.Plan)) {
				t.Fatalf("%s: %+v is placed %v on %v, not on %v", c.Kind, c.Request, placed, planned(plan), planned(c.Plan))
			}
			checkChange(t, r, c, 1)
		}
		if !whole && r.Start == 0 {
			checkNoPairHelps(t, x, r)
		}
	})
}

// checkNoPairHelps tries what gives up two of three limits altogether.
func checkNoPairHelps(t *rapid.T, x *placement.Index, r placement.Request) {
	t.Helper()
	for kept := range 3 {
		wide := placement.Request{Regions: r.Regions, SameSite: r.SameSite, MaxRTT: r.MaxRTT, MaxPrice: r.MaxPrice}
		changed := r
		if kept != 0 {
			wide.Regions = nil
		}
		if kept != 1 {
			wide.SameSite, wide.MaxRTT = false, 0
		}
		if kept != 2 {
			wide.MaxPrice = 0
		}
		changed.Regions, changed.SameSite, changed.MaxRTT, changed.MaxPrice = wide.Regions, wide.SameSite, wide.MaxRTT, wide.MaxPrice
		if plan, placed := x.Place(changed); placed {
			t.Fatalf("%+v could be placed as %+v on %v, which is not offered", r, changed, planned(plan))
		}
	}
}

// differences counts the kinds of changes between two requests.
func differences(a, b placement.Request) (n int) {
	for _, same := range []bool{
		slices.Equal(a.Regions, b.Regions), a.SameSite == b.SameSite && a.MaxRTT == b.MaxRTT, a.MaxPrice == b.MaxPrice,
		a.Nodes == b.Nodes && a.GPUsPerNode == b.GPUsPerNode, a.Model == b.Model,
		a.MinReliability == b.MinReliability && a.MinTier == b.MinTier && a.MinDriver == b.MinDriver && a.CPUs == b.CPUs &&
			a.MemoryBytes == b.MemoryBytes && a.DiskBytes == b.DiskBytes && slices.Equal(a.AllowOwners, b.AllowOwners) &&
			slices.Equal(a.DenyOwners, b.DenyOwners),
	} {
		if !same {
			n++
		}
	}
	return n
}

// checkChange holds a change to what its kind says: that alone differs.
func checkChange(t *rapid.T, r placement.Request, c placement.Change, now int64) {
	t.Helper()
	was, is := r, c.Request
	switch c.Kind {
	case "region":
		is.Regions = was.Regions
	case "network":
		is.SameSite, is.MaxRTT = was.SameSite, was.MaxRTT
	case "price":
		if is.MaxPrice <= was.MaxPrice {
			t.Fatalf("a limit of %d is raised to %d", was.MaxPrice, is.MaxPrice)
		}
		is.MaxPrice = was.MaxPrice
	case "gpus_per_node":
		if is.Nodes*is.GPUsPerNode != was.Nodes*was.GPUsPerNode {
			t.Fatalf("%d nodes of %d GPUs instead of %d of %d", is.Nodes, is.GPUsPerNode, was.Nodes, was.GPUsPerNode)
		}
		is.Nodes, is.GPUsPerNode = was.Nodes, was.GPUsPerNode
	case "gpu_model":
		is.Model = was.Model
	case "later":
		if begin := max(was.Start, now); is.Start <= begin || is.Until-is.Start != was.Until-begin {
			t.Fatalf("%d to %d instead of %d to %d", is.Start, is.Until, begin, was.Until)
		}
		is.Start, is.Until, is.Preempt = was.Start, was.Until, was.Preempt
	case "node_count":
		if is.Nodes >= was.Nodes {
			t.Fatalf("%d nodes instead of %d", is.Nodes, was.Nodes)
		}
		is.Nodes = was.Nodes
	case "constraint":
		return
	case "combination":
		if n := differences(was, is); n != 2 || was.Start != is.Start || was.Nodes*was.GPUsPerNode != is.Nodes*is.GPUsPerNode {
			t.Fatalf("%q differs in %d things: %+v instead of %+v", c.Summary, n, is, was)
		}
		return
	}
	if !reflect.DeepEqual(was, is) {
		t.Fatalf("%s changes more than that: %+v to %+v", c.Kind, r, c.Request)
	}
}

// TestAnIndexThatChangedEqualsAFreshOne runs changes against a plain map.
func TestAnIndexThatChangedEqualsAFreshOne(t *testing.T) {
	t.Parallel()
	type name struct {
		id    ids.Host
		model string
	}
	for range 10 {
		rapid.Check(t, func(t *rapid.T) {
			x, model := placement.NewIndex(), map[name]placement.Host{}
			draw := func(t *rapid.T) ids.Host { return ids.Host{byte(rapid.IntRange(1, 6).Draw(t, "host"))} }
			t.Repeat(map[string]func(*rapid.T){
				"put": func(t *rapid.T) {
					h := drawHost(t, draw(t))
					x.Put(h)
					model[name{h.ID, h.Model}] = h
				},
				"remove": func(t *rapid.T) {
					id := draw(t)
					x.Remove(id)
					for _, m := range models {
						delete(model, name{id, m})
					}
				},
				"take": func(t *rapid.T) {
					n, r, wanted := name{draw(t), "H100"}, drawRequest(t), rapid.IntRange(1, gpus).Draw(t, "gpus")
					h, known := model[n]
					mask, ok := x.Take(n.id, n.model, wanted, r)
					if ok != (known && freeOf(h, r) >= wanted) || ok && (bits.OnesCount64(mask) != wanted || mask&^h.FreeFor(r) != 0) {
						t.Fatalf("took %b of %b: %v", mask, h.FreeFor(r), ok)
					}
					if ok {
						h.Leased |= mask
						model[n] = h
					}
				},
				"free": func(t *rapid.T) {
					n, mask := name{draw(t), "H100"}, drawMask(t, 1<<gpus-1, "freed")
					x.Free(n.id, n.model, mask)
					if h, known := model[n]; known {
						h.Leased, h.Spot = h.Leased&^mask, h.Spot&^mask
						model[n] = h
					}
				},
				"": func(t *rapid.T) {
					fresh := placement.NewIndex()
					for _, h := range model {
						fresh.Put(h)
					}
					if x.Len() != len(model) || !reflect.DeepEqual(slices.Collect(x.All()), slices.Collect(fresh.All())) {
						t.Fatal("the indexes hold different hosts")
					}
					r := drawRequest(t)
					got, placed := x.Place(r)
					want, possible := fresh.Place(r)
					if placed != possible || !reflect.DeepEqual(got, want) {
						t.Fatalf("placed %v on %v, a fresh index %v on %v", placed, planned(got), possible, planned(want))
					}
					if !reflect.DeepEqual(x.Explain(r), fresh.Explain(r)) || !reflect.DeepEqual(x.Candidates(r, 3), fresh.Candidates(r, 3)) {
						t.Fatal("explanation or candidates differ from those of a fresh index")
					}
				},
			})
		})
	}
}

func TestAbsurdRequestsAreAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	x := indexOf([]placement.Host{{ID: ids.Host{1}, Model: "H100", Open: true, GPUs: 8, Well: 255, Prices: [placement.Classes]money.Amount{1}}})
	for name, r := range map[string]placement.Request{
		"a billion nodes":         {Model: "H100", Nodes: 1_000_000_000, GPUsPerNode: 1},
		"a billion GPUs a node":   {Model: "H100", Nodes: 1, GPUsPerNode: 1_000_000_000},
		"no nodes":                {Model: "H100", GPUsPerNode: 1},
		"nodes without GPUs":      {Model: "H100", Nodes: 1},
		"fewer nodes than none":   {Model: "H100", Nodes: -1, GPUsPerNode: -1},
		"an owner wanted and not": {Model: "H100", Nodes: 1, GPUsPerNode: 1, AllowOwners: owners[:1], DenyOwners: owners[:1]},
	} {
		if plan, placed := x.Place(r); placed {
			t.Errorf("%s: placed on %v", name, planned(plan))
		}
		x.Explain(r)
		for _, c := range x.Nearest(r, 1) {
			if c.Request.Nodes < 1 || len(c.Plan.Nodes) != c.Request.Nodes {
				t.Errorf("%s: offered %+v", name, c.Request)
			}
		}
	}
}
