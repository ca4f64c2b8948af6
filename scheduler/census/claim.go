package census

import (
	"slices"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/placement"
)

// Claim is what one transaction of this process takes of the fleet before it commits. Its methods, and those of its parts, are for
// one goroutine.
type Claim struct {
	census    *Census
	xid       uint64
	byHost    map[ids.Host][]taken // guarded by the census's lock
	committed bool                 // likewise
}

// Part is what one booking takes; it can be given back without the rest of the claim.
type Part struct {
	claim *Claim
	taken []taken
}

type effect int

const (
	leased   effect = iota
	reserved        // promised for a time
	lifted          // a reservation taken away
)

// taken is one mark that a claim has made on a host.
type taken struct {
	part   *Part
	host   ids.Host
	model  string
	effect effect
	span   placement.Span
	spot   bool
}

// Claim begins the claim of the transaction with an id.
func (c *Census) Claim(xid uint64) *Claim {
	k := &Claim{census: c, xid: xid, byHost: make(map[ids.Host][]taken)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claims = append(c.claims, k)
	return k
}

// Part begins a part of the claim.
func (k *Claim) Part() *Part { return &Part{claim: k} }

// Take leases the first GPUs of a host that the request could have now, and says which, by place. It reports false, and has done
// nothing, for a host that is not open or has too few.
func (p *Part) Take(host ids.Host, model string, r placement.Request) (mask uint64, ok bool) {
	c := p.claim.census
	c.mu.Lock()
	defer c.mu.Unlock()
	h, known := c.index.Get(host, model)
	if !known || !starts(&h, &r) {
		return 0, false
	}
	if mask, ok = Lowest(h.FreeFor(r), r.GPUsPerNode); ok {
		p.mark(taken{host: host, model: model, effect: leased, spot: r.Class == placement.Spot, span: placement.Span{GPUs: mask, To: r.Until}})
	}
	return mask, ok
}

// starts reports whether the host can start a node of the request at all; whether it was worth its price was decided with the quote.
func starts(h *placement.Host, r *placement.Request) bool {
	return h.Open && (r.Image == "" || slices.Contains(h.Images, r.Image))
}

// TakeThese leases just these GPUs of a host, if the request could have them.
func (p *Part) TakeThese(host ids.Host, model string, mask uint64, r placement.Request) bool {
	c := p.claim.census
	c.mu.Lock()
	defer c.mu.Unlock()
	h, known := c.index.Get(host, model)
	if !known || !starts(&h, &r) || mask&^h.FreeFor(r) != 0 {
		return false
	}
	p.mark(taken{host: host, model: model, effect: leased, spot: r.Class == placement.Spot, span: placement.Span{GPUs: mask, To: r.Until}})
	return true
}

// Reserve promises the first GPUs of a host that the request, which is for later, could have, and says which.
func (p *Part) Reserve(host ids.Host, model string, r placement.Request) (mask uint64, ok bool) {
	c := p.claim.census
	c.mu.Lock()
	defer c.mu.Unlock()
	h, known := c.index.Get(host, model)
	if !known || !starts(&h, &r) {
		return 0, false
	}
	if mask, ok = Lowest(h.FreeFor(r), r.GPUsPerNode); ok {
		p.mark(taken{host: host, model: model, effect: reserved, span: placement.Span{GPUs: mask, From: r.Start, To: r.Until}})
	}
	return mask, ok
}

// Block promises GPUs for a time, whoever holds them now.
func (p *Part) Block(host ids.Host, model string, span placement.Span) {
	c := p.claim.census
	c.mu.Lock()
	defer c.mu.Unlock()
	p.mark(taken{host: host, model: model, effect: reserved, span: span})
}

// Lift takes a promise away.
func (p *Part) Lift(host ids.Host, model string, span placement.Span) {
	c := p.claim.census
	c.mu.Lock()
	defer c.mu.Unlock()
	p.mark(taken{host: host, model: model, effect: lifted, span: span})
}

// mark makes a mark. The caller holds the lock.
func (p *Part) mark(t taken) {
	t.part = p
	p.taken = append(p.taken, t)
	p.claim.byHost[t.host] = append(p.claim.byHost[t.host], t)
	t.lay(p.claim.census.index)
}

// Back gives the part back: its hosts are as before, and are read again by the next Sync.
func (p *Part) Back() {
	c := p.claim.census
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range slices.Backward(p.taken) {
		t.undo(c.index)
		p.claim.byHost[t.host] = slices.DeleteFunc(p.claim.byHost[t.host], func(other taken) bool { return other.part == p })
		c.stale[t.host] = true
	}
	p.taken = nil
}

// Committed ends the claim of a transaction that has committed. exact says that the leases of the claim are all that it changed of
// its hosts, so that they need not be read again.
func (k *Claim) Committed(exact bool) {
	c := k.census
	c.mu.Lock()
	defer c.mu.Unlock()
	k.committed = true
	if exact {
		c.own[k.xid] = struct{}{}
	}
}

// Failed ends the claim of a transaction that has not committed, or about which nobody knows: the database is asked again.
func (k *Claim) Failed() {
	c := k.census
	c.mu.Lock()
	defer c.mu.Unlock()
	for host := range k.byHost {
		c.stale[host] = true
	}
	c.claims = slices.DeleteFunc(c.claims, func(other *Claim) bool { return other == k })
}

// Lowest are the first places of a bitmap, if it has so many.
func Lowest(bits uint64, count int) (mask uint64, ok bool) {
	for range count {
		if bits == 0 {
			return 0, false
		}
		bit := bits & -bits
		mask |= bit
		bits &^= bit
	}
	return mask, true
}

// overlay lays what claims have taken of a host, and a look did not see, over what it read.
func (c *Census) overlay(x *placement.Index, host ids.Host, s snapshot) {
	for _, claim := range c.claims {
		if s.sees(claim.xid) {
			continue
		}
		for _, t := range claim.byHost[host] {
			t.lay(x)
		}
	}
}

func (t taken) lay(x *placement.Index) {
	h, known := x.Get(t.host, t.model)
	if !known {
		return
	}
	switch t.effect {
	case leased:
		h.Leased |= t.span.GPUs
		h.Leases = append(slices.Clone(h.Leases), t.span)
		if t.spot {
			h.Spot |= t.span.GPUs
		}
	case reserved:
		h.Reserved = append(slices.Clone(h.Reserved), t.span)
	case lifted:
		h.Reserved = without(h.Reserved, t.span)
	}
	x.Put(h)
}

func (t taken) undo(x *placement.Index) {
	h, known := x.Get(t.host, t.model)
	if !known {
		return
	}
	switch t.effect {
	case leased:
		h.Leased &^= t.span.GPUs
		h.Spot &^= t.span.GPUs
		h.Leases = without(h.Leases, t.span)
	case reserved:
		h.Reserved = without(h.Reserved, t.span)
	case lifted:
		h.Reserved = append(slices.Clone(h.Reserved), t.span)
	}
	x.Put(h)
}

// without takes the GPUs of a span out of the spans of the same time.
func without(spans []placement.Span, gone placement.Span) []placement.Span {
	var left []placement.Span
	for _, s := range spans {
		if s.From == gone.From && s.To == gone.To {
			s.GPUs &^= gone.GPUs
		}
		if s.GPUs != 0 {
			left = append(left, s)
		}
	}
	return left
}
