package placement

import (
	"cmp"
	"slices"
	"time"
)

// A link within a site takes no time, and one between two sites the sum of their round trips to the control plane: a star. Two sites
// that are both farther than half a bound are too far from each other, so a gang within the bound lies
//
//	within one site, however far,
//	or within the sites of at most half the bound,
//	or within one farther site and the sites that are near enough to that one.
//
// Each of these sets allows any choice of its hosts, so its best gang are its first hosts in the order of preference. The sets of the
// third kind grow as the far site comes nearer: from the farthest on, one pass over the sites by distance meets all of them.

// site is the hosts that share a local network.
type site struct {
	name    string
	hosts   set
	worst   time.Duration // round trip of the open hosts whose round trip is known
	unknown int           // open hosts whose round trip is not known
}

// rtt is the round trip of the entry's site to the control plane, which is that of its worst open host; 0 when one's is not known.
func (e *entry) rtt() time.Duration {
	switch {
	case e.site == nil:
		return e.RTT
	case e.site.unknown > 0:
		return 0
	default:
		return e.site.worst
	}
}

// siteOf finds or makes a site. A host without the name of one is a site of its own, for which nothing is kept.
func (x *Index) siteOf(name string) *site {
	if name == "" {
		return nil
	}
	s := x.sites[name]
	if s == nil {
		s = &site{name: name}
		x.sites[name] = s
	}
	return s
}

// measure counts an entry's round trip into its site's.
func (x *Index) measure(e *entry) {
	switch {
	case e.site == nil || !e.Open:
	case e.RTT == 0:
		e.site.unknown++
	default:
		e.site.worst = max(e.site.worst, e.RTT)
	}
}

// unmeasure takes out what measure counted for the entry as it was. Only when the worst is gone, the others are looked at again.
func (x *Index) unmeasure(was *entry) {
	switch {
	case was.site == nil || !was.Open:
	case was.RTT == 0:
		was.site.unknown--
	case was.RTT == was.site.worst:
		was.site.worst = 0
		for _, at := range was.site.hosts {
			if e := &x.entries[at]; e.Open {
				was.site.worst = max(was.site.worst, e.RTT)
			}
		}
	}
}

// boundEvery is how many hosts a walk over sites looks at between two looks at whether it may end.
const boundEvery = 16

// sameSite is the cheapest gang that lies within one site. Each site's first hosts are its best gang; the walk ends when no site that
// is still incomplete can match the best complete one.
func (x *Index) sameSite(parts []*part, r *Request, best *gang) *gang {
	gangs := map[*site]*gang{}
	var winner *gang
	looked := 0
	x.walk(parts, r, func(f found) bool {
		if looked++; best != nil && looked%boundEvery == 0 && hopeless(gangs, f.price, r.Nodes, best.price) {
			return false
		}
		s := x.entries[f.slot].site
		g := gangs[s]
		if s == nil { // a site of its own
			g = &gang{}
		} else if g == nil {
			g = &gang{}
			gangs[s] = g
		}
		if len(g.nodes) == r.Nodes {
			return true
		}
		g.add(f)
		if len(g.nodes) == r.Nodes && x.beats(g, best) {
			best, winner = g, g
		}
		return true
	})
	return winner
}

// hopeless reports whether no incomplete gang can cost as little as limit when every further host costs at least price.
func hopeless(gangs map[*site]*gang, price int64, nodes int, limit int64) bool {
	if price*int64(nodes) <= limit {
		return false
	}
	for _, g := range gangs {
		if missing := nodes - len(g.nodes); missing > 0 && g.price+price*int64(missing) <= limit {
			return false
		}
	}
	return true
}

// near is the cheapest gang whose nodes are near enough to each other.
func (x *Index) near(parts []*part, r *Request, best *gang) *gang {
	var across *gang
	if r.Nodes > 1 {
		if across = x.acrossSites(parts, r, best); across != nil {
			best = across
		}
	}
	if within := x.sameSite(parts, r, best); within != nil {
		return within
	}
	return across
}

// firstLook is how many hosts acrossSites looks at before it tries to end; each further look takes lookFactor times as many.
const (
	firstLook  = 16
	lookFactor = 4
)

// acrossSites is the cheapest gang within the bound that beats best. It decides on the preferred hosts first, and takes in more of
// them until a gang with one that it has not looked at would cost too much.
func (x *Index) acrossSites(parts []*part, r *Request, best *gang) *gang {
	var winner *gang
	var hosts []found
	var floor int64 // the price of all nodes but one, at the least
	decided, look := 0, max(firstLook, lookFactor*r.Nodes)
	decide := func() {
		decided = len(hosts)
		if g := x.decide(hosts, r, best); g != nil {
			best, winner = g, g
		}
	}
	x.walk(parts, r, func(f found) bool {
		if rtt := x.entries[f.slot].rtt(); rtt == 0 || rtt >= r.MaxRTT {
			return true // with no other site
		}
		if len(hosts) >= look {
			decide()
			look *= lookFactor
		}
		if len(hosts) < r.Nodes-1 {
			floor += f.price
		} else if best != nil && floor+f.price > best.price {
			return false
		}
		hosts = append(hosts, f)
		return true
	})
	if decided < len(hosts) {
		decide()
	}
	return winner
}

// place is a site's part in a decision: its hosts, by their position in the order of preference.
type place struct {
	rtt   time.Duration
	hosts []int
}

// decide finds the best gang across sites of the hosts, which come in the order of preference, if it beats best. Positions in that
// order stand for hosts.
func (x *Index) decide(hosts []found, r *Request, best *gang) (winner *gang) {
	consider := func(chosen []int) {
		if len(chosen) < r.Nodes {
			return
		}
		g := &gang{nodes: make([]found, 0, r.Nodes)}
		for _, at := range chosen[:r.Nodes] {
			g.add(hosts[at])
		}
		if x.beats(g, best) {
			best, winner = g, g
		}
	}
	var near []int // the first r.Nodes of the sites that have joined
	merged := make([]int, 0, 2*r.Nodes)
	stars(x.places(hosts), r.MaxRTT, func(p place) {
		near = keep(near, p.hosts, r.Nodes)
	}, func(far place) {
		merged = append(merged[:0], near...)
		consider(keep(merged, far.hosts, r.Nodes))
	})
	return winner
}

// stars meets every largest set of sites within a bound. The sites come nearest first, and each is nearer than the bound. join adds a
// site to the near ones; set says that these are a set together with a far site, or without one.
func stars(places []place, bound time.Duration, join, set func(place)) {
	taken := 0
	for i := len(places) - 1; i >= 0 && 2*places[i].rtt > bound; i-- {
		for ; places[taken].rtt+places[i].rtt <= bound; taken++ { // ends at the far site itself
			join(places[taken])
		}
		set(places[i])
	}
	for ; taken < len(places) && 2*places[taken].rtt <= bound; taken++ {
		join(places[taken])
	}
	set(place{})
}

// places gathers hosts by site, the nearest site first.
func (x *Index) places(hosts []found) []place {
	var all []place
	known := map[*site]int{}
	for at, f := range hosts {
		e := &x.entries[f.slot]
		i, seen := known[e.site]
		if !seen || e.site == nil {
			i = len(all)
			known[e.site] = i
			all = append(all, place{rtt: e.rtt()})
		}
		all[i].hosts = append(all[i].hosts, at)
	}
	slices.SortStableFunc(all, func(a, b place) int { return cmp.Compare(a.rtt, b.rtt) })
	return all
}

// keep merges more positions into ordered ones and keeps the first few. Both are in order.
func keep(ordered, more []int, limit int) []int {
	for _, at := range more {
		i, _ := slices.BinarySearch(ordered, at)
		if i == limit {
			break
		}
		ordered = slices.Insert(ordered[:min(len(ordered), limit-1)], i, at)
	}
	return ordered
}

// crowd is a number of hosts and of the GPUs that they have.
type crowd struct{ hosts, gpus int }

func (c crowd) plus(d crowd) crowd { return crowd{c.hosts + d.hosts, c.gpus + d.gpus} }

func (c crowd) larger(d crowd) crowd {
	if d.hosts > c.hosts || d.hosts == c.hosts && d.gpus > c.gpus {
		return d
	}
	return c
}

// widest measures the largest set of hosts that are near enough to each other, and all of them.
func (x *Index) widest(hosts []found, r *Request) (set, all crowd) {
	size := func(p place) (c crowd) {
		for _, at := range p.hosts {
			c = c.plus(crowd{1, hosts[at].free})
		}
		return c
	}
	places := x.places(hosts)
	for _, p := range places {
		set, all = set.larger(size(p)), all.plus(size(p))
	}
	if r.SameSite {
		return set, all
	}
	places = slices.DeleteFunc(places, func(p place) bool { return p.rtt == 0 || p.rtt >= r.MaxRTT })
	var near crowd
	stars(places, r.MaxRTT, func(p place) { near = near.plus(size(p)) }, func(far place) { set = set.larger(near.plus(size(far))) })
	return set, all
}

// worst is the round trip between the two nodes farthest apart: 0 within a site, -1 when it is not known.
func (x *Index) worst(nodes []found) time.Duration {
	first := &x.entries[nodes[0].slot]
	apart := slices.ContainsFunc(nodes[1:], func(n found) bool {
		e := &x.entries[n.slot]
		return e.site == nil || e.site != first.site
	})
	if !apart {
		return 0
	}
	var farthest, second time.Duration
	var of *entry
	for _, n := range nodes {
		e := &x.entries[n.slot]
		rtt := e.rtt()
		switch {
		case rtt == 0:
			return -1
		case of != nil && e.site != nil && e.site == of.site:
		case rtt > farthest:
			farthest, second, of = rtt, farthest, e
		default:
			second = max(second, rtt)
		}
	}
	return farthest + second
}
