package placement

import (
	"bytes"
	"math/bits"
	"slices"
	"strings"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// found is a host that can take a node, and what the order is made of.
type found struct {
	price int64
	free  int
	slot  int32
}

// before reports whether a host is preferred to another: it is cheaper, or leaves fewer GPUs over, or has the lower id. Hosts with two
// models have two entries of one id; for bids on any model the model decides.
func (x *Index) before(a, b found) bool {
	switch {
	case a.price != b.price:
		return a.price < b.price
	case a.free != b.free:
		return a.free < b.free
	}
	one, other := &x.entries[a.slot], &x.entries[b.slot]
	if c := compareIDs(one.ID, other.ID); c != 0 {
		return c < 0
	}
	return one.Model < other.Model
}

// walk yields the hosts of some parts that can each take a node of the request, the preferred ones first. A yield of false ends it.
func (x *Index) walk(parts []*part, r *Request, yield func(found) bool) {
	if r.GPUsPerNode < 1 || r.GPUsPerNode > maxGPUs {
		return
	}
	var room [32]source // most walks need no more
	merge := merger{x: x, sources: x.sources(room[:0], parts, r)}
	merge.build()
	for len(merge.sources) > 0 {
		next := merge.sources[0].head
		if r.MaxPrice > 0 && next.price > int64(r.MaxPrice) {
			return
		}
		merge.next()
		if suits(&x.entries[next.slot].Host, r) && !yield(next) {
			return
		}
	}
}

// sources are what a walk merges: the lists with enough free GPUs, and the hosts of which no list tells how many are free. Those
// are the ones with reservations, and all of them when leases that end or can be ended count as free.
func (x *Index) sources(sources []source, parts []*part, r *Request) []source {
	loose := r.Start > 0 || r.Preempt
	var apart []found
	for _, p := range parts {
		if loose {
			apart = x.gather(apart, p.hosts, r)
			continue
		}
		apart = x.gather(apart, p.reserved, r)
		for free := r.GPUsPerNode; free <= maxGPUs; free++ {
			if l := p.lists[r.Class][free]; l != nil && l.size > 0 {
				sources = append(sources, source{cursor: cursor{chunks: l.chunks}, free: free})
			}
		}
	}
	if len(apart) == 0 {
		return sources
	}
	heapify(apart, func(i, j int) bool { return x.before(apart[i], apart[j]) })
	return append(sources, source{apart: apart})
}

// gather adds the hosts that have enough free GPUs.
func (x *Index) gather(all []found, hosts set, r *Request) []found {
	for _, at := range hosts {
		h := &x.entries[at].Host
		if !h.Open || !within(h.Prices[r.Class], r.MaxPrice) {
			continue
		}
		if free := bits.OnesCount64(h.freeFor(r)); free >= r.GPUsPerNode {
			all = append(all, found{int64(h.Prices[r.Class]), free, at})
		}
	}
	return all
}

// source is one of those that a walk merges: a list, or a heap of hosts.
type source struct {
	head   found
	cursor cursor
	free   int // of a list; 0 for a heap
	apart  []found
}

// advance takes the next of the source into head.
func (s *source) advance(x *Index) bool {
	if s.free > 0 {
		r, ok := s.cursor.head()
		if ok {
			s.head = found{r.price, s.free, r.slot}
			s.cursor.next()
		}
		return ok
	}
	if len(s.apart) == 0 {
		return false
	}
	s.head = s.apart[0]
	last := len(s.apart) - 1
	s.apart[0] = s.apart[last]
	s.apart = s.apart[:last]
	sink(s.apart, 0, func(i, j int) bool { return x.before(s.apart[i], s.apart[j]) })
	return true
}

// merger is a heap of sources by their heads.
type merger struct {
	x       *Index
	sources []source
}

func (m *merger) build() {
	kept := 0
	for i := range m.sources {
		if m.sources[i].advance(m.x) {
			m.sources[kept] = m.sources[i]
			kept++
		}
	}
	m.sources = m.sources[:kept]
	heapify(m.sources, m.before)
}

func (m *merger) next() {
	if !m.sources[0].advance(m.x) {
		last := len(m.sources) - 1
		m.sources[0] = m.sources[last]
		m.sources = m.sources[:last]
	}
	sink(m.sources, 0, m.before)
}

func (m *merger) before(i, j int) bool { return m.x.before(m.sources[i].head, m.sources[j].head) }

// heapify puts the first of the elements in front, and below each one two that it is before. before compares by position, so that
// heaps may live on the stack.
func heapify[T any](heap []T, before func(i, j int) bool) {
	for at := len(heap)/2 - 1; at >= 0; at-- {
		sink(heap, at, before)
	}
}

func sink[T any](heap []T, at int, before func(i, j int) bool) {
	for {
		child := 2*at + 1
		if child >= len(heap) {
			return
		}
		if right := child + 1; right < len(heap) && before(right, child) {
			child = right
		}
		if !before(child, at) {
			return
		}
		heap[at], heap[child] = heap[child], heap[at]
		at = child
	}
}

// gang is a set of hosts under construction, in the order of preference.
type gang struct {
	nodes    []found
	price    int64
	stranded int
}

func (g *gang) add(f found) {
	g.nodes = append(g.nodes, f)
	g.price += f.price
	g.stranded += f.free
}

// beats reports whether a complete gang is preferred to another, or to none.
func (x *Index) beats(a, b *gang) bool {
	switch {
	case b == nil:
		return true
	case a.price != b.price:
		return a.price < b.price
	case a.stranded != b.stranded:
		return a.stranded < b.stranded
	default:
		return slices.CompareFunc(x.sortedIDs(a), x.sortedIDs(b), compareIDs) < 0
	}
}

func (x *Index) sortedIDs(g *gang) []ids.Host {
	all := make([]ids.Host, len(g.nodes))
	for i, n := range g.nodes {
		all[i] = x.entries[n.slot].ID
	}
	slices.SortFunc(all, compareIDs)
	return all
}

func compareIDs(a, b ids.Host) int { return bytes.Compare(a[:], b[:]) }

// Place returns the cheapest plan, or false and nothing. Explain tells why.
func (x *Index) Place(r Request) (Plan, bool) {
	var best *gang
	var of *group
	for _, g := range x.groupsFor(&r) {
		if r.Nodes < 1 || r.Nodes > g.size {
			continue
		}
		parts := g.partsIn(r.Regions)
		var candidate *gang
		switch {
		case r.SameSite:
			candidate = x.sameSite(parts, &r, best)
		case r.MaxRTT > 0:
			candidate = x.near(parts, &r, best)
		default:
			candidate = x.cheapest(parts, &r, best, func(*entry) bool { return true })
		}
		if candidate != nil && x.beats(candidate, best) {
			best, of = candidate, g
		}
	}
	if best == nil {
		return Plan{}, false
	}
	plan := Plan{Model: of.model, Runtime: of.runtime, Nodes: make([]Node, len(best.nodes)), WorstRTT: x.worst(best.nodes)}
	for i, n := range best.nodes {
		plan.Nodes[i] = Node{x.entries[n.slot].Host, money.Amount(n.price)}
	}
	return plan, true
}

// groupsFor are the groups that a request may use, in a fixed order.
func (x *Index) groupsFor(r *Request) []*group {
	groups := x.groups
	if r.Model != "" {
		from, _ := slices.BinarySearchFunc(groups, r.Model, func(g *group, model string) int { return strings.Compare(g.model, model) })
		to := from
		for to < len(groups) && groups[to].model == r.Model {
			to++
		}
		groups = groups[from:to]
	}
	if r.Runtime == "" {
		return groups
	}
	var running []*group
	for _, g := range groups {
		if g.runtime == r.Runtime {
			running = append(running, g)
		}
	}
	return running
}

func (g *group) partsIn(regions []string) []*part {
	if len(regions) == 0 {
		return g.parts
	}
	var parts []*part
	for _, p := range g.parts {
		if slices.Contains(regions, p.region) {
			parts = append(parts, p)
		}
	}
	return parts
}

// cheapest is the gang of the first hosts that may be used; nil without enough of them, or when it cannot match best.
func (x *Index) cheapest(parts []*part, r *Request, best *gang, may func(*entry) bool) *gang {
	g := &gang{nodes: make([]found, 0, r.Nodes)}
	x.walk(parts, r, func(f found) bool {
		if best != nil && g.price+f.price*int64(r.Nodes-len(g.nodes)) > best.price {
			return false
		}
		if may(&x.entries[f.slot]) {
			g.add(f)
		}
		return len(g.nodes) < r.Nodes
	})
	if len(g.nodes) < r.Nodes {
		return nil
	}
	return g
}

// Candidates returns hosts that could each take a node, the preferred ones first, at most limit of them.
func (x *Index) Candidates(r Request, limit int) []Node {
	var parts []*part
	for _, g := range x.groupsFor(&r) {
		parts = append(parts, g.partsIn(r.Regions)...)
	}
	var nodes []Node
	if limit < 1 {
		return nil
	}
	x.walk(parts, &r, func(f found) bool {
		nodes = append(nodes, Node{x.entries[f.slot].Host, money.Amount(f.price)})
		return len(nodes) < limit
	})
	return nodes
}
