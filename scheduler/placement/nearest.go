package placement

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// Bounds of the search.
const (
	maxChanges  = 6
	maxPairs    = 2                // changes of two things
	laterWithin = 7 * 24 * 60 * 60 // seconds
	laterStep   = 60
	laterTries  = 32
	rttStep     = time.Millisecond
	farthest    = 2 * time.Second // no useful link takes longer
	maxNodes    = 64              // of a booking with smaller nodes
)

// Nearest finds requests near one that cannot be placed, each with its plan: one thing changed, the least of it that helps, and two
// things where no one change gives all that was asked for at once, of what is to start at once. now is in Unix seconds; a later start is
// looked for among the forecast ends of leases within a week. At most one change of a kind comes back and two of two things, the less
// intrusive first.
func (x *Index) Nearest(r Request, now int64) []Change {
	var changes []Change
	try := func(tries ...func(Request, int64) (Change, bool)) {
		for _, try := range tries {
			if len(changes) == maxChanges {
				return
			}
			if change, found := try(r, now); found {
				changes = append(changes, change)
			}
		}
	}
	try(x.elsewhere, x.otherNetwork, x.withoutOne, x.dearer, x.splitNodes, x.otherModel)
	whole := len(changes) > 0
	try(x.later, x.fewerNodes)
	if !whole && r.Start == 0 { // a later start has been looked for, and each look at one costs most
		changes = append(changes, x.pairs(r, now)...)
	}
	return changes
}

// pairs changes two things: of where, how far apart and for how much, one is left open while another change is looked for, and then
// only as far as that change needs it.
func (x *Index) pairs(r Request, now int64) (changes []Change) {
	var anything Request
	steps := []struct {
		try   func(Request, int64) (Change, bool)
		bound bool                         // the request says something that can be left open
		like  func(q *Request, as Request) // as another has it
	}{
		{x.elsewhere, len(r.Regions) > 0, func(q *Request, as Request) { q.Regions = as.Regions }},
		{x.otherNetwork, r.SameSite || r.MaxRTT > 0, func(q *Request, as Request) { q.SameSite, q.MaxRTT = as.SameSite, as.MaxRTT }},
		{x.dearer, r.MaxPrice > 0, func(q *Request, as Request) { q.MaxPrice = as.MaxPrice }},
		{try: x.withoutOne},
		{try: x.splitNodes},
		{try: x.otherModel},
	}
	for i, first := range steps {
		for _, second := range steps[i+1:] {
			if !first.bound || len(changes) == maxPairs {
				break
			}
			request := r
			first.like(&request, anything)
			with, found := second.try(request, now)
			if !found {
				continue
			}
			first.like(&with.Request, r)
			if one, found := x.change(with.Kind, with.Summary, with.Request); found {
				// Another model's hosts differ: those that made it the choice cost more than those that are taken.
				if !slices.ContainsFunc(changes, func(c Change) bool { return c.Kind == one.Kind }) {
					changes = append(changes, one)
				}
				continue
			}
			if both, found := first.try(with.Request, now); found {
				both.Kind, both.Summary = "combination", both.Summary+" and "+strings.ToLower(with.Summary[:1])+with.Summary[1:]
				changes = append(changes, both)
			}
		}
	}
	return changes
}

func (x *Index) change(kind, summary string, r Request) (Change, bool) {
	plan, found := x.Place(r)
	return Change{Kind: kind, Summary: summary, Request: r, Plan: plan}, found
}

// elsewhere takes any region, and names those that the plan uses.
func (x *Index) elsewhere(r Request, _ int64) (Change, bool) {
	if len(r.Regions) == 0 {
		return Change{}, false
	}
	r.Regions = nil
	c, found := x.change("region", "", r)
	if !found {
		return c, false
	}
	var regions []string
	for _, n := range c.Plan.Nodes {
		regions = append(regions, n.Host.Region)
	}
	slices.Sort(regions)
	c.Request.Regions = slices.Compact(regions)
	c.Summary = "In " + strings.Join(c.Request.Regions, ", ")
	return c, true
}

// otherNetwork lets the gang spread: within the bound if there is one beside the same site, else within the least bound that does.
func (x *Index) otherNetwork(r Request, _ int64) (Change, bool) {
	if r.SameSite && r.MaxRTT > 0 {
		spread := r
		spread.SameSite = false
		if c, found := x.change("network", fmt.Sprintf("Across sites within %s", r.MaxRTT), spread); found {
			return c, true
		}
	}
	bound := r.MaxRTT
	if !r.SameSite && bound == 0 {
		return Change{}, false
	}
	r.SameSite, r.MaxRTT = false, 0
	across, found := x.change("network", "Across sites", r)
	if bound == 0 || !found {
		return across, found
	}
	widened := func(i int) Request {
		changed := r
		changed.MaxRTT = bound + time.Duration(i)*rttStep
		return changed
	}
	steps := max(0, int((farthest-bound)/rttStep))
	least := sort.Search(steps, func(i int) bool {
		_, fits := x.Place(widened(i))
		return fits
	})
	if least == steps {
		return x.change("network", "Without a bound on the links", r)
	}
	return x.change("network", fmt.Sprintf("Across sites within %s", widened(least).MaxRTT), widened(least))
}

// withoutOne drops one soft constraint: the one without which it costs least.
func (x *Index) withoutOne(r Request, _ int64) (Change, bool) {
	var best Change
	found := false
	for _, soft := range []struct {
		asked   bool
		summary string
		drop    func(*Request)
	}{
		{r.MinReliability > 0, "Without the reliability", func(r *Request) { r.MinReliability = 0 }},
		{r.MinTier > 0, "With hosts of any standing", func(r *Request) { r.MinTier = 0 }},
		{r.MinDriver > 0, "With any driver", func(r *Request) { r.MinDriver = 0 }},
		{r.CPUs > 0, "With fewer CPUs", func(r *Request) { r.CPUs = 0 }},
		{r.MemoryBytes > 0, "With less memory", func(r *Request) { r.MemoryBytes = 0 }},
		{r.DiskBytes > 0, "With less disk", func(r *Request) { r.DiskBytes = 0 }},
		{len(r.AllowOwners) > 0, "From other owners too", func(r *Request) { r.AllowOwners = nil }},
		{len(r.DenyOwners) > 0, "From every owner", func(r *Request) { r.DenyOwners = nil }},
	} {
		if !soft.asked {
			continue
		}
		changed := r
		soft.drop(&changed)
		if c, ok := x.change("constraint", soft.summary, changed); ok && (!found || c.Plan.Price() < best.Plan.Price()) {
			best, found = c, true
		}
	}
	return best, found
}

func (x *Index) dearer(r Request, _ int64) (Change, bool) {
	if r.MaxPrice == 0 {
		return Change{}, false
	}
	r.MaxPrice = 0
	c, found := x.change("price", "At a higher price", r)
	if found {
		c.Request.MaxPrice = c.Plan.Nodes[len(c.Plan.Nodes)-1].Price
	}
	return c, found
}

// splitNodes spreads the same GPUs over more nodes.
func (x *Index) splitNodes(r Request, _ int64) (Change, bool) {
	if r.Nodes > maxNodes || r.GPUsPerNode > maxGPUs {
		return Change{}, false
	}
	total := r.Nodes * r.GPUsPerNode
	for each := r.GPUsPerNode - 1; each > 0 && total/each <= maxNodes; each-- {
		if total%each != 0 {
			continue
		}
		changed := r
		changed.Nodes, changed.GPUsPerNode = total/each, each
		if c, found := x.change("gpus_per_node", fmt.Sprintf("%s of %s", count(changed.Nodes, "node"), count(each, "GPU")), changed); found {
			return c, true
		}
	}
	return Change{}, false
}

// otherModel takes the cheapest model with at least the memory and compute capability of the one that was asked for.
func (x *Index) otherModel(r Request, _ int64) (Change, bool) {
	if r.Model == "" {
		return Change{}, false
	}
	wanted, memory, compute := r.Model, r.MinMemoryMiB, r.MinCompute
	r.Model = ""
	for _, g := range x.groups {
		if g.model != wanted {
			continue
		}
		for _, p := range g.parts {
			for _, at := range p.hosts {
				h := &x.entries[at].Host
				r.MinMemoryMiB, r.MinCompute = max(r.MinMemoryMiB, h.MemoryMiB), max(r.MinCompute, h.Compute)
			}
		}
	}
	plan, found := x.Place(r)
	if !found {
		return Change{}, false
	}
	r.Model, r.MinMemoryMiB, r.MinCompute = plan.Model, memory, compute
	return x.change("gpu_model", "With "+plan.Model, r)
}

// later finds the first forecast end of a lease or reservation from which on the request can be placed. The later, the more GPUs are
// free, but for reservations that begin meanwhile: where those are in the way of the search, it tries the next ends one by one.
func (x *Index) later(r Request, now int64) (Change, bool) {
	begin := max(r.Start, now)
	ends := x.ends(&r, begin)
	at := func(start int64) Request {
		changed := r
		changed.Start, changed.Until, changed.Preempt = start, start+r.Until-begin, false
		return changed
	}
	fits := func(i int) bool {
		_, found := x.Place(at(ends[i]))
		return found
	}
	first := sort.Search(len(ends), fits)
	for i := 0; first == len(ends) && i < min(laterTries, len(ends)); i++ {
		if fits(i) {
			first = i
		}
	}
	if first == len(ends) {
		return Change{}, false
	}
	return x.change("later", "With a later start", at(ends[first]))
}

// ends are when leases and reservations that matter to the request are to end, to the minute, in order.
func (x *Index) ends(r *Request, after int64) []int64 {
	var all []int64
	gather := func(spans []Span) {
		for _, s := range spans {
			if s.To > after && s.To <= after+laterWithin {
				all = append(all, (s.To+laterStep-1)/laterStep*laterStep)
			}
		}
	}
	for _, g := range x.groupsFor(r) {
		for _, p := range g.partsIn(r.Regions) {
			for _, at := range p.hosts {
				gather(x.entries[at].Leases)
				gather(x.entries[at].Reserved)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// fewerNodes finds the most nodes that fit: a part of a gang is a gang.
func (x *Index) fewerNodes(r Request, _ int64) (Change, bool) {
	at := func(nodes int) Request {
		changed := r
		changed.Nodes = nodes
		return changed
	}
	most := sort.Search(min(r.Nodes-1, x.Len()), func(i int) bool {
		_, fits := x.Place(at(i + 1))
		return !fits
	})
	if most < 1 {
		return Change{}, false
	}
	return x.change("node_count", fmt.Sprintf("%s instead of %d", count(most, "node"), r.Nodes), at(most))
}
