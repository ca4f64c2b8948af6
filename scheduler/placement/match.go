package placement

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/muster-gpu/muster/internal/money"
)

// condition is one thing that a host must have for a node. The same list decides and explains.
type condition struct {
	name   string
	passes func(h *Host, r *Request) bool
	blocks func(r *Request) string // the summary when too few hosts remain after it
}

func says(text string) func(*Request) string { return func(*Request) string { return text } }

var conditions = []condition{
	{"gpu_model", func(h *Host, r *Request) bool {
		return (r.Model == "" || h.Model == r.Model) && h.MemoryMiB >= r.MinMemoryMiB && h.Compute >= r.MinCompute && (r.Runtime == "" || h.Runtime == r.Runtime)
	}, func(r *Request) string {
		if r.Model == "" {
			return "hosts have such GPUs"
		}
		return "hosts have " + r.Model
	}},
	{"region", func(h *Host, r *Request) bool { return len(r.Regions) == 0 || slices.Contains(r.Regions, h.Region) }, func(r *Request) string { return "of those are in " + strings.Join(r.Regions, ", ") }},
	{"open", func(h *Host, _ *Request) bool { return h.Open }, says("of those are online and offered")},
	{"tier", func(h *Host, r *Request) bool { return h.Tier >= r.MinTier }, says("of those have the standing that is asked for")},
	{"reliability", func(h *Host, r *Request) bool { return h.Reliability >= r.MinReliability }, says("of those are as reliable as is asked for")},
	{"owner", func(h *Host, r *Request) bool {
		return (len(r.AllowOwners) == 0 || slices.Contains(r.AllowOwners, h.Owner)) && !slices.Contains(r.DenyOwners, h.Owner)
	}, says("of those belong to an owner that is allowed")},
	{"image", func(h *Host, r *Request) bool { return r.Image == "" || slices.Contains(h.Images, r.Image) }, func(r *Request) string { return "of those can start Ray " + r.Image }},
	{"driver", func(h *Host, r *Request) bool { return h.Driver >= r.MinDriver }, says("of those have a driver that is new enough")},
	{"cpu", func(h *Host, r *Request) bool { return r.CPUs <= share(h.CPUs, h, r) }, says("of those have enough CPUs for each node")},
	{"memory", func(h *Host, r *Request) bool { return r.MemoryBytes <= share(h.MemoryBytes, h, r) }, says("of those have enough memory for each node")},
	{"disk", func(h *Host, r *Request) bool { return r.DiskBytes <= share(h.DiskBytes, h, r) }, says("of those have enough disk for each node")},
	{"free", func(h *Host, r *Request) bool { return h.freeFor(r) != 0 }, says("of those have a free GPU")},
	{"price", func(h *Host, r *Request) bool { return within(h.Prices[r.Class], r.MaxPrice) }, says("of those ask no more than the price limit")},
	{"gpus_per_node", func(h *Host, r *Request) bool { return bits.OnesCount64(h.freeFor(r)) >= r.GPUsPerNode }, func(r *Request) string {
		return fmt.Sprintf("of those have %d free GPUs on one machine", r.GPUsPerNode)
	}},
	{"host", func(h *Host, r *Request) bool { return !slices.Contains(r.Exclude, h.ID) }, says("of those are not in use by or given up for this cluster")},
}

func passesAll(h *Host, r *Request) bool {
	for i := range conditions {
		if !conditions[i].passes(h, r) {
			return false
		}
	}
	return true
}

// share is a node's part of what its host has, by GPUs.
func share[N int | int64](whole N, h *Host, r *Request) N {
	if h.GPUs == 0 {
		return 0
	}
	return whole * N(min(r.GPUsPerNode, h.GPUs)) / N(h.GPUs)
}

func within(price, limit money.Amount) bool { return price > 0 && (limit == 0 || price <= limit) }
