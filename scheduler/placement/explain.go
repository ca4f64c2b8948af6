package placement

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

type condition struct {
	name   string
	passes func(h Host, r Request) bool
	blocks func(r Request) string // the summary when too few hosts remain after it
}

func says(text string) func(Request) string { return func(Request) string { return text } }

var conditions = []condition{
	{"gpu_model", func(h Host, r Request) bool {
		return (r.Model == "" || h.Model == r.Model) && h.MemoryMiB >= r.MinMemoryMiB && h.Compute >= r.MinCompute && (r.Runtime == "" || h.Runtime == r.Runtime)
	}, func(r Request) string {
		if r.Model == "" {
			return "hosts have such GPUs"
		}
		return "hosts have " + r.Model
	}},
	{"region", func(h Host, r Request) bool { return len(r.Regions) == 0 || slices.Contains(r.Regions, h.Region) }, func(r Request) string { return "of those are in " + strings.Join(r.Regions, ", ") }},
	{"open", func(h Host, _ Request) bool { return h.Open }, says("of those are online and offered")},
	{"tier", func(h Host, r Request) bool { return h.Tier >= r.MinTier }, says("of those have the standing that is asked for")},
	{"reliability", func(h Host, r Request) bool { return h.Reliability >= r.MinReliability }, says("of those are as reliable as is asked for")},
	{"owner", func(h Host, r Request) bool {
		return (len(r.AllowOwners) == 0 || slices.Contains(r.AllowOwners, h.Owner)) && !slices.Contains(r.DenyOwners, h.Owner)
	}, says("of those belong to an owner that is allowed")},
	{"image", func(h Host, r Request) bool { return r.Image == "" || slices.Contains(h.Images, r.Image) }, func(r Request) string { return "of those can start Ray " + r.Image }},
	{"driver", func(h Host, r Request) bool { return h.Driver >= r.MinDriver }, says("of those have a driver that is new enough")},
	{"cpu", func(h Host, r Request) bool { return share(h.CPUs, h, r) >= r.CPUs }, says("of those have enough CPUs for each node")},
	{"memory", func(h Host, r Request) bool { return share(h.MemoryBytes, h, r) >= r.MemoryBytes }, says("of those have enough memory for each node")},
	{"disk", func(h Host, r Request) bool { return share(h.DiskBytes, h, r) >= r.DiskBytes }, says("of those have enough disk for each node")},
	{"free", func(h Host, r Request) bool { return h.FreeFor(r) != 0 }, says("of those have a free GPU")},
	{"price", func(h Host, r Request) bool { return within(h.Prices[r.Class], r.MaxPrice) }, says("of those ask no more than the price limit")},
	{"gpus_per_node", func(h Host, r Request) bool { return bits.OnesCount64(h.FreeFor(r)) >= r.GPUsPerNode }, func(r Request) string {
		return fmt.Sprintf("of those have %d free GPUs on one machine", r.GPUsPerNode)
	}},
	{"host", func(h Host, r Request) bool { return !slices.Contains(r.Exclude, h.ID) }, says("of those are not in use by or given up for this cluster")},
}

func passesAll(h Host, r Request) bool {
	return !slices.ContainsFunc(conditions, func(c condition) bool { return !c.passes(h, r) })
}

// conditionNodes blocks when there are too few hosts to begin with, whatever they have.
const conditionNodes = "node_count"

// conditionNetwork blocks when there are enough hosts, but not near enough to each other.
const conditionNetwork = "network"

// Explain runs the same conditions one after another and says what each leaves. The blocking one is the first that leaves
// fewer hosts than nodes are wanted; if it took nothing away, too many nodes are wanted.
func (x *Index) Explain(r Request) Explanation {
	var e Explanation
	remaining := slices.Collect(x.All())
	alone := x.excludedAlone(r)
	for _, c := range conditions {
		before := len(remaining)
		remaining = slices.DeleteFunc(remaining, func(h Host) bool { return !c.passes(h, r) })
		step := Step{Condition: c.name, Hosts: len(remaining), Excludes: alone[c.name]}
		for _, h := range remaining {
			step.GPUs += bits.OnesCount64(h.FreeFor(r))
		}
		e.Funnel = append(e.Funnel, step)
		if e.Blocking == "" && len(remaining) < r.Nodes {
			e.Blocking = c.name
			if len(remaining) == before {
				e.Blocking = conditionNodes
			}
			e.Summary = fmt.Sprintf("%s wanted, each on a host of its own, but only %d %s.", count(r.Nodes, "node"), len(remaining), c.blocks(r))
		}
	}
	if _, placed := x.Place(r); e.Blocking == "" && !placed {
		e.Blocking = conditionNetwork
		e.Summary = fmt.Sprintf("%s wanted, but no %d of the hosts are near enough to each other.", count(r.Nodes, "node"), r.Nodes)
	}
	return e
}

// excludedAlone counts the GPUs of hosts that fail one condition and no other.
func (x *Index) excludedAlone(r Request) map[string]int {
	alone := map[string]int{}
	for h := range x.All() {
		failed := ""
		for _, c := range conditions {
			if c.passes(h, r) {
				continue
			}
			if failed != "" {
				failed = ""
				break
			}
			failed = c.name
		}
		if failed != "" {
			alone[failed] += h.GPUs
		}
	}
	return alone
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
