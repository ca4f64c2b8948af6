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

const none = -1

// Index is a fleet to place on. Make it with NewIndex.
//
// Hosts of one model, runtime and region form a part. A part keeps its open hosts in lists, one for each class of price and
// number of free GPUs, each in the order of prices and ids:
//
//	H100, process, eu-west   hourly   8 free: 1.90 host_b, 1.95 host_a, ...
//	                                  7 free: 1.80 host_k, ...
//	                         daily    ...
//
// A query for g GPUs a node merges the lists with g free GPUs and more of the parts that it may use, and so meets hosts exactly
// in the order in which they are preferred and never one that is too full. A gang of n nodes looks at n hosts and at those that
// its further constraints turn away: O((n + turned away) log lists), whatever the size of the fleet. A change costs O(log hosts)
// a class. Hosts with reservations are few; they are kept apart, since how many of their GPUs are free depends on the request.
type Index struct {
	entries []entry
	unused  []int32
	first   map[ids.Host]int32 // of a host's entries, which are chained
	groups  map[groupKey]*group
	sites   map[string]*site
}

// entry is a host's GPUs of one model, where the index keeps them.
type entry struct {
	Host
	part *part
	site *site // nil: a site of its own
	free int   // GPUs that are well and not leased
	next int32 // another model of the same host
}

// groupKey is what all nodes of a gang share.
type groupKey struct{ model, runtime string }

type group struct {
	groupKey
	size  int
	parts []*part // by region
}

type part struct {
	region   string
	group    *group
	slots    map[int32]struct{}
	reserved map[int32]struct{}          // open hosts with reservations: in no list
	lists    [Classes][maxGPUs + 1]*list // by class and free GPUs; nil while never used
}

const maxGPUs = 64

type site struct {
	slots map[int32]struct{}
	rtt   time.Duration // of its worst host; 0 while one's is not known
}

// NewIndex makes an empty one.
func NewIndex() *Index {
	return &Index{first: map[ids.Host]int32{}, groups: map[groupKey]*group{}, sites: map[string]*site{}}
}

// Len is how many entries there are.
func (x *Index) Len() int { return len(x.entries) - len(x.unused) }

// slot finds an entry.
func (x *Index) slot(id ids.Host, model string) int32 {
	at, found := x.first[id]
	if !found {
		return none
	}
	for at != none && x.entries[at].Model != model {
		at = x.entries[at].next
	}
	return at
}

// Get returns a host's GPUs of one model.
func (x *Index) Get(id ids.Host, model string) (Host, bool) {
	if at := x.slot(id, model); at != none {
		return x.entries[at].Host, true
	}
	return Host{}, false
}

// Of returns all entries of a host, by model.
func (x *Index) Of(id ids.Host) []Host {
	at, found := x.first[id]
	if !found {
		return nil
	}
	var all []Host
	for ; at != none; at = x.entries[at].next {
		all = append(all, x.entries[at].Host)
	}
	slices.SortFunc(all, func(a, b Host) int { return cmp.Compare(a.Model, b.Model) })
	return all
}

// All returns the entries ordered by host and model.
func (x *Index) All() iter.Seq[Host] {
	return func(yield func(Host) bool) {
		for _, id := range slices.SortedFunc(maps.Keys(x.first), func(a, b ids.Host) int { return slices.Compare(a[:], b[:]) }) {
			for _, h := range x.Of(id) {
				if !yield(h) {
					return
				}
			}
		}
	}
}

// Put inserts a host's GPUs of one model, or replaces what was known of them.
func (x *Index) Put(h Host) {
	at := x.slot(h.ID, h.Model)
	if at == none {
		x.add(h)
		return
	}
	e := &x.entries[at]
	if e.Runtime != h.Runtime || e.Region != h.Region || e.Site != h.Site || e.RTT != h.RTT {
		x.leave(at)
		e.Host = h
		x.join(at)
		return
	}
	was := *e
	e.Host, e.free = h, bits.OnesCount64(h.Well&^h.Leased)
	if x.listed(&was) && x.listed(e) && was.free == e.free {
		x.reprice(at, was.Prices)
		return
	}
	now := e.Host
	e.Host, e.free = was.Host, was.free
	x.unlist(at)
	e.Host, e.free = now, bits.OnesCount64(now.Well&^now.Leased)
	x.list(at)
}

func (x *Index) add(h Host) {
	var at int32
	if n := len(x.unused); n > 0 {
		at, x.unused = x.unused[n-1], x.unused[:n-1]
	} else {
		at = int32(len(x.entries))
		x.entries = append(x.entries, entry{})
	}
	next, found := x.first[h.ID]
	if !found {
		next = none
	}
	x.entries[at] = entry{Host: h, next: next}
	x.first[h.ID] = at
	x.join(at)
}

// Remove forgets a host.
func (x *Index) Remove(id ids.Host) {
	at, found := x.first[id]
	if !found {
		return
	}
	delete(x.first, id)
	for at != none {
		next := x.entries[at].next
		x.leave(at)
		x.entries[at] = entry{}
		x.unused = append(x.unused, at)
		at = next
	}
}

// join puts an entry into its part, site and lists.
func (x *Index) join(at int32) {
	e := &x.entries[at]
	e.free = bits.OnesCount64(e.Well &^ e.Leased)
	e.part = x.partOf(e.Host)
	e.part.slots[at] = struct{}{}
	e.part.group.size++
	if e.Site != "" {
		if e.site = x.sites[e.Site]; e.site == nil {
			e.site = &site{slots: map[int32]struct{}{}}
			x.sites[e.Site] = e.site
		}
		e.site.slots[at] = struct{}{}
		x.measure(e.site)
	}
	x.list(at)
}

// leave takes an entry out of all that join put it into. What is left empty is dropped.
func (x *Index) leave(at int32) {
	x.unlist(at)
	e := &x.entries[at]
	p, g := e.part, e.part.group
	delete(p.slots, at)
	g.size--
	if len(p.slots) == 0 {
		g.parts = slices.DeleteFunc(g.parts, func(one *part) bool { return one == p })
	}
	if g.size == 0 {
		delete(x.groups, g.groupKey)
	}
	if e.site != nil {
		delete(e.site.slots, at)
		x.measure(e.site)
		if len(e.site.slots) == 0 {
			delete(x.sites, e.Site)
		}
		e.site = nil
	}
}

func (x *Index) partOf(h Host) *part {
	key := groupKey{h.Model, h.Runtime}
	g := x.groups[key]
	if g == nil {
		g = &group{groupKey: key}
		x.groups[key] = g
	}
	at, found := slices.BinarySearchFunc(g.parts, h.Region, func(p *part, region string) int { return cmp.Compare(p.region, region) })
	if !found {
		g.parts = slices.Insert(g.parts, at, &part{region: h.Region, group: g, slots: map[int32]struct{}{}, reserved: map[int32]struct{}{}})
	}
	return g.parts[at]
}

// measure finds a site's round trip anew.
func (x *Index) measure(s *site) {
	s.rtt = 0
	for at := range s.slots {
		rtt := x.entries[at].RTT
		if rtt == 0 {
			s.rtt = 0
			return
		}
		s.rtt = max(s.rtt, rtt)
	}
}

// listed reports whether an entry is in the lists: it can be booked, and without looking at reservations.
func (x *Index) listed(e *entry) bool { return e.Open && e.free > 0 && len(e.Reserved) == 0 }

// compare orders ranks of one list. Entries of one list have equally many free GPUs.
func (x *Index) compare(a, b rank) int {
	if c := cmp.Compare(a.price, b.price); c != 0 {
		return c
	}
	return slices.Compare(x.entries[a.slot].ID[:], x.entries[b.slot].ID[:])
}

func (x *Index) list(at int32) {
	e := &x.entries[at]
	if e.Open && len(e.Reserved) > 0 {
		e.part.reserved[at] = struct{}{}
	}
	if !x.listed(e) {
		return
	}
	for class, price := range e.Prices {
		if price > 0 {
			e.part.of(class, e.free).insert(rank{int64(price), at}, x.compare)
		}
	}
}

func (x *Index) unlist(at int32) {
	e := &x.entries[at]
	delete(e.part.reserved, at)
	if !x.listed(e) {
		return
	}
	for class, price := range e.Prices {
		if price > 0 {
			e.part.of(class, e.free).remove(rank{int64(price), at}, x.compare)
		}
	}
}

// reprice moves a listed entry within the lists of the classes whose price has changed.
func (x *Index) reprice(at int32, was [Classes]money.Amount) {
	e := &x.entries[at]
	for class, price := range e.Prices {
		if price == was[class] {
			continue
		}
		l := e.part.of(class, e.free)
		if was[class] > 0 {
			l.remove(rank{int64(was[class]), at}, x.compare)
		}
		if price > 0 {
			l.insert(rank{int64(price), at}, x.compare)
		}
	}
}

func (p *part) of(class, free int) *list {
	if p.lists[class][free] == nil {
		p.lists[class][free] = &list{}
	}
	return p.lists[class][free]
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
