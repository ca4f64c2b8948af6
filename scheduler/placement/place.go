package placement

import (
	"bytes"
	"cmp"
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

// better orders hosts by how much they are preferred: cheaper, then fewer GPUs left over, then by id.
func (x *Index) better(a, b found) int {
	if a.price != b.price {
		return cmp.Compare(a.price, b.price)
	}
	if a.free != b.free {
		return cmp.Compare(a.free, b.free)
	}
	return compareIDs(x.entries[a.slot].ID, x.entries[b.slot].ID)
}

// walk yields the hosts of some parts that can each take a node of the request, the preferred ones first. A yield of false ends it.
func (x *Index) walk(parts []*part, r *Request, yield func(found) bool) {
	if r.GPUsPerNode < 1 || r.GPUsPerNode > maxGPUs {
		return
	}
	if r.Start > 0 || r.Preempt {
		x.walkAll(parts, r, yield)
		return
	}
	var room [32]source // most walks need no more
	sources := room[:0]
	for _, p := range parts {
		for free := r.GPUsPerNode; free <= maxGPUs; free++ {
			if l := p.lists[r.Class][free]; l != nil && l.size > 0 {
				sources = append(sources, source{cursor: cursor{chunks: l.chunks}, free: free})
			}
		}
	}
	if reserved := x.reserved(parts, r); len(reserved) > 0 {
		sources = append(sources, source{sorted: reserved})
	}
	merge := heap{x: x, sources: sources}
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

// walkAll is walk for requests whose free GPUs the lists do not tell: it looks at every host of the parts.
func (x *Index) walkAll(parts []*part, r *Request, yield func(found) bool) {
	var all []found
	for _, p := range parts {
		for _, at := range p.hosts {
			if h := &x.entries[at].Host; suits(h, r) {
				all = append(all, found{int64(h.Prices[r.Class]), bits.OnesCount64(h.freeFor(r)), at})
			}
		}
	}
	slices.SortFunc(all, x.better)
	for _, f := range all {
		if !yield(f) {
			return
		}
	}
}

// reserved are the parts' hosts with reservations that could take a node, in order.
func (x *Index) reserved(parts []*part, r *Request) []found {
	var all []found
	for _, p := range parts {
		for _, at := range p.reserved {
			h := &x.entries[at].Host
			if free := bits.OnesCount64(h.freeFor(r)); free >= r.GPUsPerNode && h.Prices[r.Class] > 0 {
				all = append(all, found{int64(h.Prices[r.Class]), free, at})
			}
		}
	}
	slices.SortFunc(all, x.better)
	return all
}

// source is one of the lists that a walk merges.
type source struct {
	head   found
	cursor cursor
	free   int
	sorted []found // instead of a cursor
}

// advance takes the next of the source into head.
func (s *source) advance() bool {
	if s.free == 0 {
		if len(s.sorted) == 0 {
			return false
		}
		s.head, s.sorted = s.sorted[0], s.sorted[1:]
		return true
	}
	r, ok := s.cursor.head()
	if ok {
		s.head = found{r.price, s.free, r.slot}
		s.cursor.next()
	}
	return ok
}

// heap merges sources: the one with the preferred head is first.
type heap struct {
	x       *Index
	sources []source
}

func (h *heap) build() {
	kept := h.sources[:0]
	for _, s := range h.sources {
		if s.advance() {
			kept = append(kept, s)
		}
	}
	h.sources = kept
	for at := len(kept)/2 - 1; at >= 0; at-- {
		h.sink(at)
	}
}

func (h *heap) next() {
	if !h.sources[0].advance() {
		last := len(h.sources) - 1
		h.sources[0] = h.sources[last]
		h.sources = h.sources[:last]
	}
	h.sink(0)
}

func (h *heap) sink(at int) {
	for {
		child := 2*at + 1
		if child >= len(h.sources) {
			return
		}
		if right := child + 1; right < len(h.sources) && h.x.better(h.sources[right].head, h.sources[child].head) < 0 {
			child = right
		}
		if h.x.better(h.sources[at].head, h.sources[child].head) <= 0 {
			return
		}
		h.sources[at], h.sources[child] = h.sources[child], h.sources[at]
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
