package placement

import (
	"cmp"
	"iter"
	"maps"
	"math/bits"
	"slices"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

type key struct {
	id    ids.Host
	model string
}

// Index is a fleet to place on. Make it with NewIndex.
type Index struct{ hosts map[key]Host }

// NewIndex makes an empty one.
func NewIndex() *Index { return &Index{hosts: map[key]Host{}} }

// Put inserts a host's GPUs of one model, or replaces what was known of them.
func (x *Index) Put(h Host) { x.hosts[key{h.ID, h.Model}] = h }

// Remove forgets a host.
func (x *Index) Remove(id ids.Host) {
	maps.DeleteFunc(x.hosts, func(k key, _ Host) bool { return k.id == id })
}

// Get returns a host's GPUs of one model.
func (x *Index) Get(id ids.Host, model string) (Host, bool) {
	h, ok := x.hosts[key{id, model}]
	return h, ok
}

// Of returns all entries of a host.
func (x *Index) Of(id ids.Host) []Host {
	var found []Host
	for h := range x.All() {
		if h.ID == id {
			found = append(found, h)
		}
	}
	return found
}

// Len is how many entries there are.
func (x *Index) Len() int { return len(x.hosts) }

// All returns the entries ordered by host and model.
func (x *Index) All() iter.Seq[Host] {
	all := slices.SortedFunc(maps.Values(x.hosts), func(a, b Host) int {
		return cmp.Or(slices.Compare(a.ID[:], b.ID[:]), cmp.Compare(a.Model, b.Model))
	})
	return slices.Values(all)
}

// Take marks a node's GPUs on a host as leased: the free ones in the lowest places.
func (x *Index) Take(id ids.Host, model string, gpus int, r Request) (mask uint64, ok bool) {
	h, found := x.Get(id, model)
	free := h.FreeFor(r)
	if !found || bits.OnesCount64(free) < gpus {
		return 0, false
	}
	for range gpus {
		lowest := free & -free
		mask |= lowest
		free &^= lowest
	}
	h.Leased |= mask
	x.Put(h)
	return mask, true
}

// Free marks GPUs as no longer leased.
func (x *Index) Free(id ids.Host, model string, mask uint64) {
	if h, found := x.Get(id, model); found {
		h.Leased &^= mask
		h.Spot &^= mask
		x.Put(h)
	}
}

// FreeFor returns the GPUs that a request could take on the host, were the host suitable.
func (h Host) FreeFor(r Request) uint64 {
	taken := h.Leased
	if r.Start > 0 {
		taken = 0
		for _, lease := range h.Leases {
			if lease.To > r.Start {
				taken |= lease.GPUs
			}
		}
	}
	if r.Preempt {
		taken &^= h.Spot
	}
	for _, reserved := range h.Reserved {
		if reserved.From < r.Until && reserved.To > r.Start {
			taken |= reserved.GPUs
		}
	}
	return h.Well &^ taken
}

// Place returns the cheapest plan, or false and nothing. Explain tells why.
func (x *Index) Place(r Request) (Plan, bool) {
	if r.Nodes <= 0 || r.GPUsPerNode <= 0 {
		return Plan{}, false
	}
	var best Plan
	found := false
	for _, hosts := range partitions(x.Candidates(r, x.Len())) {
		for _, group := range gangs(hosts, r) {
			if len(group) < r.Nodes {
				continue
			}
			plan := Plan{Model: group[0].Host.Model, Runtime: group[0].Host.Runtime, Nodes: group[:r.Nodes], WorstRTT: worst(group[:r.Nodes])}
			if !found || better(plan, best, r) {
				best, found = plan, true
			}
		}
	}
	return best, found
}

// Candidates returns hosts that could each take a node, cheapest first.
func (x *Index) Candidates(r Request, limit int) []Node {
	var nodes []Node
	for h := range x.All() {
		if passesAll(h, r) {
			nodes = append(nodes, Node{h, h.Prices[r.Class]})
		}
	}
	slices.SortFunc(nodes, func(a, b Node) int { return compareNodes(a, b, r) })
	return nodes[:min(limit, len(nodes))]
}

func compareNodes(a, b Node, r Request) int {
	return cmp.Or(
		cmp.Compare(a.Price, b.Price),
		cmp.Compare(bits.OnesCount64(a.Host.FreeFor(r)), bits.OnesCount64(b.Host.FreeFor(r))),
		slices.Compare(a.Host.ID[:], b.Host.ID[:]),
	)
}

// partitions splits by model and runtime, keeping the order.
func partitions(nodes []Node) [][]Node {
	type part struct{ model, runtime string }
	groups := map[part][]Node{}
	var order []part
	for _, n := range nodes {
		p := part{n.Host.Model, n.Host.Runtime}
		if groups[p] == nil {
			order = append(order, p)
		}
		groups[p] = append(groups[p], n)
	}
	all := make([][]Node, 0, len(order))
	for _, p := range order {
		all = append(all, groups[p])
	}
	return all
}

// siteOf names the local network that a host is on.
func siteOf(h Host) string {
	if h.Site == "" {
		return h.ID.String()
	}
	return h.Site
}

// gangs are the sets of hosts within each of which any choice keeps the bound on links.
func gangs(nodes []Node, r Request) [][]Node {
	if !r.SameSite && r.MaxRTT == 0 {
		return [][]Node{nodes}
	}
	bySite := map[string][]Node{}
	rtt := map[string]time.Duration{}
	var sites []string
	for _, n := range nodes {
		site := siteOf(n.Host)
		if bySite[site] == nil {
			sites = append(sites, site)
			rtt[site] = n.Host.RTT
		}
		bySite[site] = append(bySite[site], n)
		if rtt[site] == 0 || n.Host.RTT == 0 {
			rtt[site] = 0
		} else {
			rtt[site] = max(rtt[site], n.Host.RTT)
		}
	}
	var all [][]Node
	for _, site := range sites {
		all = append(all, bySite[site])
	}
	if r.SameSite {
		return all
	}
	near := func(bound time.Duration, also string) (group []Node) {
		for _, n := range nodes {
			site := siteOf(n.Host)
			if site == also || rtt[site] > 0 && rtt[site] <= bound {
				group = append(group, n)
			}
		}
		return group
	}
	all = append(all, near(r.MaxRTT/2, ""))
	for _, site := range sites {
		if rtt[site] > r.MaxRTT/2 && rtt[site] < r.MaxRTT {
			all = append(all, near(r.MaxRTT-rtt[site], site))
		}
	}
	return all
}

// worst is the round trip between the two nodes farthest apart.
func worst(nodes []Node) time.Duration {
	rtt := map[string]time.Duration{}
	for _, n := range nodes {
		site := siteOf(n.Host)
		if known, seen := rtt[site]; seen && known == 0 || n.Host.RTT == 0 {
			rtt[site] = 0
		} else {
			rtt[site] = max(known, n.Host.RTT)
		}
	}
	if len(rtt) <= 1 {
		return 0
	}
	longest := slices.Sorted(maps.Values(rtt))
	if longest[0] == 0 {
		return -1
	}
	return longest[len(longest)-1] + longest[len(longest)-2]
}

func better(a, b Plan, r Request) bool {
	stranded := func(p Plan) (n int) {
		for _, node := range p.Nodes {
			n += bits.OnesCount64(node.Host.FreeFor(r))
		}
		return n
	}
	return cmp.Or(
		cmp.Compare(a.Price(), b.Price()),
		cmp.Compare(stranded(a), stranded(b)),
		slices.CompareFunc(a.Nodes, b.Nodes, func(m, n Node) int { return slices.Compare(m.Host.ID[:], n.Host.ID[:]) }),
	) < 0
}

// share is a node's part of what its host has, by GPUs.
func share[N int | int64](whole N, h Host, r Request) N {
	if h.GPUs == 0 {
		return 0
	}
	return whole * N(r.GPUsPerNode) / N(h.GPUs)
}

func within(price, limit money.Amount) bool { return price > 0 && (limit == 0 || price <= limit) }
