package placement

import (
	"cmp"
	"iter"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

const none = -1

// Index is a fleet to place on. Make it with NewIndex.
type Index struct {
	entries []entry
	unused  []int32
	first   map[ids.Host]int32 // of a host's entries, which are chained
	groups  []*group           // by model and runtime
	sites   map[string]*site
	images  map[string][]string // lists of images that hosts share
}

// entry is a host's GPUs of one model, where the index keeps them.
type entry struct {
	Host
	part  *part
	site  *site          // nil: a site of its own
	place [members]int32 // in the sets that it is a member of
	free  int            // GPUs that are well and not leased
	next  int32          // another model of the same host
}

// group is what the nodes of a gang may come from: hosts of one model and runtime.
type group struct {
	model, runtime string
	size           int
	parts          []*part // by region
}

// part is a group's hosts in one region.
type part struct {
	region   string
	group    *group
	hosts    set
	reserved set                         // open hosts with reservations: in no list
	lists    [Classes][maxGPUs + 1]*list // by class and free GPUs; nil while never used
}

const maxGPUs = 64

// maxImageLists is how many different lists of images are shared at most. Hosts have few.
const maxImageLists = 1_024

// NewIndex makes an empty one.
func NewIndex() *Index {
	return &Index{first: map[ids.Host]int32{}, sites: map[string]*site{}, images: map[string][]string{}}
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
		for _, id := range slices.SortedFunc(maps.Keys(x.first), compareIDs) {
			for _, h := range x.Of(id) {
				if !yield(h) {
					return
				}
			}
		}
	}
}

// Regions are those of the hosts that there are or were, some of them more than once.
func (x *Index) Regions() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, g := range x.groups {
			for _, p := range g.parts {
				if !yield(p.region) {
					return
				}
			}
		}
	}
}

// Put inserts a host's GPUs of one model, or replaces what was known of them. The index keeps the slices.
func (x *Index) Put(h Host) {
	at := x.slot(h.ID, h.Model)
	if at == none {
		at = x.add(h)
		x.join(at)
		return
	}
	e := &x.entries[at]
	if e.Runtime != h.Runtime || e.Region != h.Region || e.Site != h.Site {
		x.leave(at)
		e.Host = h
		x.join(at)
		return
	}
	was := *e
	x.replace(e, h)
	if was.Open != e.Open || was.RTT != e.RTT {
		x.unmeasure(&was)
		x.measure(e)
	}
	if was.listed() && e.listed() && was.free == e.free {
		x.reprice(at, was.Prices)
		return
	}
	x.unlist(at, &was)
	x.list(at)
}

// replace takes over what is known of a host, with the strings that its part and site have already.
func (x *Index) replace(e *entry, h Host) {
	h.Model, h.Runtime, h.Region = e.part.group.model, e.part.group.runtime, e.part.region
	if e.site != nil {
		h.Site = e.site.name
	}
	h.Images = x.shared(h.Images)
	e.Host, e.free = h, bits.OnesCount64(h.Well&^h.Leased)
}

// shared returns the first of equal lists.
func (x *Index) shared(images []string) []string {
	name := strings.Join(images, "\x00")
	if known, found := x.images[name]; found {
		return known
	}
	if len(x.images) == maxImageLists {
		clear(x.images)
	}
	x.images[name] = images
	return images
}

func (x *Index) add(h Host) int32 {
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
	return at
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
	e.part, e.site = x.partOf(&e.Host), x.siteOf(e.Site)
	x.replace(e, e.Host)
	e.part.group.size++
	x.enter(&e.part.hosts, ofPart, at)
	if e.site != nil {
		x.enter(&e.site.hosts, ofSite, at)
	}
	x.measure(e)
	x.list(at)
}

// leave takes an entry out of all that join put it into. What is left empty is dropped.
func (x *Index) leave(at int32) {
	e := &x.entries[at]
	x.unlist(at, e)
	x.depart(&e.part.hosts, ofPart, at)
	p, g := e.part, e.part.group
	if g.size--; len(p.hosts) == 0 {
		g.parts = slices.DeleteFunc(g.parts, func(one *part) bool { return one == p })
	}
	if g.size == 0 {
		x.groups = slices.DeleteFunc(x.groups, func(one *group) bool { return one == g })
	}
	if e.site == nil {
		return
	}
	x.depart(&e.site.hosts, ofSite, at)
	x.unmeasure(e)
	if len(e.site.hosts) == 0 {
		delete(x.sites, e.site.name)
	}
}

func (x *Index) partOf(h *Host) *part {
	at, found := slices.BinarySearchFunc(x.groups, h, func(g *group, h *Host) int {
		return cmp.Or(strings.Compare(g.model, h.Model), strings.Compare(g.runtime, h.Runtime))
	})
	if !found {
		x.groups = slices.Insert(x.groups, at, &group{model: h.Model, runtime: h.Runtime})
	}
	g := x.groups[at]
	at, found = slices.BinarySearchFunc(g.parts, h.Region, func(p *part, region string) int { return strings.Compare(p.region, region) })
	if !found {
		g.parts = slices.Insert(g.parts, at, &part{region: h.Region, group: g})
	}
	return g.parts[at]
}

// listed reports whether an entry is in the lists: it can be booked, and without looking at reservations.
func (e *entry) listed() bool { return e.Open && e.free > 0 && len(e.Reserved) == 0 }

// compare orders ranks of one list. Entries of one list have equally many free GPUs.
func (x *Index) compare(a, b rank) int {
	if a.price != b.price {
		return cmp.Compare(a.price, b.price)
	}
	return compareIDs(x.entries[a.slot].ID, x.entries[b.slot].ID)
}

func (x *Index) list(at int32) {
	e := &x.entries[at]
	if e.Open && len(e.Reserved) > 0 {
		x.enter(&e.part.reserved, ofReserved, at)
	}
	if !e.listed() {
		return
	}
	for class, price := range e.Prices {
		if price > 0 {
			e.part.of(class, e.free).insert(rank{int64(price), at}, x.compare)
		}
	}
}

// unlist takes out what list put in for the entry as it was.
func (x *Index) unlist(at int32, was *entry) {
	if was.Open && len(was.Reserved) > 0 {
		x.depart(&was.part.reserved, ofReserved, at)
	}
	if !was.listed() {
		return
	}
	for class, price := range was.Prices {
		if price > 0 {
			was.part.of(class, was.free).remove(rank{int64(price), at}, x.compare)
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
