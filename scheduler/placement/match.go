package placement

import (
	"math/bits"
	"slices"

	"github.com/muster-gpu/muster/internal/money"
)

// condition is one thing that a host must have for a node. The same list decides and explains. Each condition judges for itself, so
// that a host which fails several of them is not told off for one and the same lack twice.
type condition struct {
	name   string
	passes func(h *Host, r *Request) bool
}

// conditions are in the order in which explanations go through them.
var conditions = [...]condition{
	{conditionModel, func(h *Host, r *Request) bool {
		return (r.Model == "" || h.Model == r.Model) && (r.Runtime == "" || h.Runtime == r.Runtime) && h.MemoryMiB >= r.MinMemoryMiB && h.Compute >= r.MinCompute
	}},
	{conditionRegion, func(h *Host, r *Request) bool { return len(r.Regions) == 0 || slices.Contains(r.Regions, h.Region) }},
	{"open", func(h *Host, _ *Request) bool { return h.Open }},
	{"tier", func(h *Host, r *Request) bool { return h.Tier >= r.MinTier }},
	{"reliability", func(h *Host, r *Request) bool { return h.Reliability >= r.MinReliability }},
	{conditionOwner, func(h *Host, r *Request) bool {
		return (len(r.AllowOwners) == 0 || slices.Contains(r.AllowOwners, h.Owner)) && !slices.Contains(r.DenyOwners, h.Owner)
	}},
	{conditionImage, func(h *Host, r *Request) bool { return r.Image == "" || slices.Contains(h.Images, r.Image) }},
	{"driver", func(h *Host, r *Request) bool { return h.Driver >= r.MinDriver }},
	{"cpu", func(h *Host, r *Request) bool { return r.CPUs <= share(h.CPUs, h, r) }},
	{"memory", func(h *Host, r *Request) bool { return r.MemoryBytes <= share(h.MemoryBytes, h, r) }},
	{"disk", func(h *Host, r *Request) bool { return r.DiskBytes <= share(h.DiskBytes, h, r) }},
	{conditionFree, func(h *Host, r *Request) bool { return h.idle(r) != 0 }},
	{conditionReserved, func(h *Host, r *Request) bool {
		return len(h.Reserved) == 0 || bits.OnesCount64(h.idle(r)) < r.GPUsPerNode || bits.OnesCount64(h.freeFor(r)) >= r.GPUsPerNode
	}},
	{conditionPrice, func(h *Host, r *Request) bool { return within(h.Prices[r.Class], r.MaxPrice) }},
	{conditionGPUs, func(h *Host, r *Request) bool {
		idle := h.idle(r)
		return idle == 0 && bits.OnesCount64(h.Well) >= r.GPUsPerNode || bits.OnesCount64(idle) >= r.GPUsPerNode
	}},
	{"host", func(h *Host, r *Request) bool { return !slices.Contains(r.Exclude, h.ID) }},
}

// suits reports whether a host could take a node of the request.
func suits(h *Host, r *Request) bool {
	for i := range conditions {
		if !conditions[i].passes(h, r) {
			return false
		}
	}
	return true
}

// FreeFor returns the GPUs that a request could take on the host, were the host suitable.
func (h *Host) FreeFor(r Request) uint64 { return h.freeFor(&r) }

func (h *Host) freeFor(r *Request) uint64 {
	free := h.idle(r)
	for _, reserved := range h.Reserved {
		if reserved.From < r.Until && reserved.To > r.Start {
			free &^= reserved.GPUs
		}
	}
	return free
}

// idle are the GPUs that would be free if nothing were reserved.
func (h *Host) idle(r *Request) uint64 {
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
	return h.Well &^ taken
}

// share is a node's part of what its host has, by GPUs.
func share[N int | int64](whole N, h *Host, r *Request) N {
	if h.GPUs == 0 {
		return 0
	}
	return whole * N(min(r.GPUsPerNode, h.GPUs)) / N(h.GPUs)
}

func within(price, limit money.Amount) bool { return price > 0 && (limit == 0 || price <= limit) }
