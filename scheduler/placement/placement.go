// Package placement decides which hosts a cluster goes to. It is pure: a snapshot and a request in, a plan or an explanation
// out; it reads no clock, no randomness and no store.
//
// A node takes GPUs of one model on one host, and a cluster's nodes go to different hosts, so that one machine's failure costs
// one node. Under these rules the plan is exactly the cheapest feasible one: the price of a gang is the sum of its nodes' prices
// and hosts do not influence each other, so the cheapest hosts that each can take a node are the cheapest gang. Among equal
// prices the host that strands fewest GPUs is taken, then the one with the lower id, so equal input gives equal output.
package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// Host is what a snapshot says of one host's GPUs of one model.
type Host struct {
	ID        ids.Host
	Owner     ids.Org
	Model     string
	MemoryMiB int64 // per GPU
	Region    string
	Site      string
	Open      bool // connected, well and offered by its owner
	GPUs      int
	Free      int // well and not leased
	Price     money.Amount
	Simulated bool
}

// Request is what is to be placed.
type Request struct {
	Model       string
	Nodes       int
	GPUsPerNode int
	Regions     []string     // empty: any
	MaxPrice    money.Amount // per GPU-hour; zero: any
	Exclude     []ids.Host   // hosts that may not be used: those that failed this cluster, or are already in it
}

// Plan names the host of each node, cheapest first.
type Plan struct{ Hosts []Host }

// Step is what one condition leaves of the fleet.
type Step struct {
	Condition string // gpu_model, region, open, free, price, gpus_per_node, host
	Hosts     int
	GPUs      int // free ones, from "free" on
}

// Explanation says which condition blocks a request. Blocking is "" when nothing does.
type Explanation struct {
	Blocking string
	Summary  string
	Funnel   []Step
}

type condition struct {
	name   string
	passes func(Host) bool
	blocks string // the summary when too few hosts remain after it; %s is what remains
}

func (r Request) conditions() []condition {
	return []condition{
		{"gpu_model", func(h Host) bool { return h.Model == r.Model }, "hosts have " + r.Model},
		{"region", func(h Host) bool { return len(r.Regions) == 0 || slices.Contains(r.Regions, h.Region) }, "of those are in " + strings.Join(r.Regions, ", ")},
		{"open", func(h Host) bool { return h.Open }, "of those are online and offered"},
		{"free", func(h Host) bool { return h.Free > 0 }, "of those have a free GPU"},
		{"price", func(h Host) bool { return r.MaxPrice == 0 || h.Price <= r.MaxPrice }, "of those ask no more than the price limit"},
		{"gpus_per_node", func(h Host) bool { return h.Free >= r.GPUsPerNode }, fmt.Sprintf("of those have %d free GPUs on one machine", r.GPUsPerNode)},
		{"host", func(h Host) bool { return !slices.Contains(r.Exclude, h.ID) }, "of those are not in use by or given up for this cluster"},
	}
}

// Place returns the cheapest plan, or false and nothing. Explain tells why.
func Place(hosts []Host, r Request) (Plan, bool) {
	conditions := r.conditions()
	feasible := make([]Host, 0, len(hosts))
	for _, h := range hosts {
		if !slices.ContainsFunc(conditions, func(c condition) bool { return !c.passes(h) }) {
			feasible = append(feasible, h)
		}
	}
	if r.Nodes <= 0 || len(feasible) < r.Nodes {
		return Plan{}, false
	}
	slices.SortFunc(feasible, func(a, b Host) int {
		return cmp.Or(
			cmp.Compare(a.Price, b.Price),
			cmp.Compare(a.Free, b.Free), // each takes the same number, so fewer free is fewer stranded
			slices.Compare(a.ID[:], b.ID[:]),
		)
	})
	return Plan{Hosts: feasible[:r.Nodes]}, true
}

// conditionNodes blocks when there are too few hosts to begin with, whatever they have.
const conditionNodes = "node_count"

// Explain runs the same conditions one after another and says what each leaves. The blocking one is the first that leaves
// fewer hosts than nodes are wanted; if it took nothing away, too many nodes are wanted.
func Explain(hosts []Host, r Request) Explanation {
	var e Explanation
	remaining := slices.Clone(hosts)
	for _, c := range r.conditions() {
		before := len(remaining)
		remaining = slices.DeleteFunc(remaining, func(h Host) bool { return !c.passes(h) })
		step := Step{Condition: c.name, Hosts: len(remaining)}
		for _, h := range remaining {
			step.GPUs += h.Free
		}
		e.Funnel = append(e.Funnel, step)
		if e.Blocking == "" && len(remaining) < r.Nodes {
			e.Blocking = c.name
			if len(remaining) == before {
				e.Blocking = conditionNodes
			}
			e.Summary = fmt.Sprintf("%s wanted, each on a host of its own, but only %d %s.", count(r.Nodes, "node"), len(remaining), c.blocks)
		}
	}
	return e
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
