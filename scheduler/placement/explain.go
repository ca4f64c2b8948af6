package placement

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/muster-gpu/muster/internal/ids"
)

// Names of conditions that explanations treat by name.
const (
	conditionModel    = "gpu_model"
	conditionClass    = "gpu_class" // the same for requests without a model
	conditionRegion   = "region"
	conditionOwner    = "owner"
	conditionImage    = "image"
	conditionFree     = "free"
	conditionReserved = "reserved"
	conditionPrice    = "price"
	conditionGPUs     = "gpus_per_node"
	conditionSite     = "site"       // hosts enough, but not on one site
	conditionNetwork  = "network"    // hosts enough, but not near enough to each other
	conditionNodes    = "node_count" // too few hosts to begin with, whatever they have
)

// Explain puts the fleet through the conditions one after another and says what each leaves. The blocking one is the first that
// leaves fewer hosts of one model and runtime than nodes are wanted. A request that contradicts itself is told so before anything
// else. It looks at every host once: O(hosts).
func (x *Index) Explain(r Request) Explanation {
	s := x.survey(&r)
	e := Explanation{Funnel: s.funnel}
	var found bool
	if e.Blocking, e.Summary, found = x.contradiction(&r); found {
		return e
	}
	if x.Len() < r.Nodes && s.gang[0] > 0 {
		e.Blocking = conditionNodes
		e.Summary = fmt.Sprintf("%s wanted, each on a host of its own, but there are only %s at all.", count(r.Nodes, "node"), count(x.Len(), "host"))
		return e
	}
	for i, step := range s.funnel {
		if s.gang[i] < r.Nodes {
			e.Blocking, e.Summary = step.Condition, s.blocks(i, &r)
			return e
		}
	}
	return e
}

// survey is what the conditions leave of the fleet.
type survey struct {
	funnel []Step
	gang   []int // by step: the hosts of the largest set of one model and runtime
}

// survey goes through the fleet.
func (x *Index) survey(r *Request) survey {
	links := linksCondition(r)
	s := survey{funnel: make([]Step, 0, len(conditions)+1)}
	for i := range conditions {
		s.funnel = append(s.funnel, Step{Condition: conditions[i].name})
	}
	if r.Model == "" {
		s.funnel[0].Condition = conditionClass
	}
	if links != "" {
		s.funnel = append(s.funnel, Step{Condition: links})
	}
	s.gang = make([]int, len(s.funnel))
	for _, g := range x.groups {
		left := make([]int, len(s.funnel))
		eligible := x.countGroup(g, r, &s, left)
		if links != "" {
			set, all := x.widest(eligible, r)
			last := len(conditions)
			left[last] = set.hosts
			s.funnel[last].Hosts += set.hosts
			s.funnel[last].GPUs += set.gpus
			s.funnel[last].Excludes += all.gpus - set.gpus
		}
		for i := range left {
			s.gang[i] = max(s.gang[i], left[i])
		}
	}
	return s
}

// linksCondition is what comes after the conditions on single hosts; "" when any hosts may go together.
func linksCondition(r *Request) string {
	switch {
	case r.SameSite:
		return conditionSite
	case r.MaxRTT > 0:
		return conditionNetwork
	}
	return ""
}

// countGroup counts a group's hosts, in all and in left, and returns those that pass.
func (x *Index) countGroup(g *group, r *Request, s *survey, left []int) []found {
	var eligible []found
	for _, p := range g.parts {
		for _, at := range p.hosts {
			if h := &x.entries[at].Host; s.count(h, r, left) {
				eligible = append(eligible, found{free: bits.OnesCount64(h.freeFor(r)), slot: at})
			}
		}
	}
	return eligible
}

// count puts one host through the conditions and reports whether it passes all of them. It stops at the second that it fails: the
// first one ends its way through the funnel, and only a host that fails no second one is excluded by that alone.
func (s *survey) count(h *Host, r *Request, left []int) bool {
	failed, gpus := -1, h.GPUs
	for i := range conditions {
		c := &conditions[i]
		switch c.name {
		case conditionFree:
			gpus = bits.OnesCount64(h.idle(r))
		case conditionReserved:
			gpus = bits.OnesCount64(h.freeFor(r))
		}
		if c.passes(h, r) {
			if failed < 0 {
				s.funnel[i].Hosts++
				s.funnel[i].GPUs += gpus
				left[i]++
			}
			continue
		}
		if failed >= 0 {
			return false
		}
		failed = i
	}
	if failed >= 0 {
		s.funnel[failed].Excludes += kept(h, r, conditions[failed].name)
	}
	return failed < 0
}

// kept are the GPUs of a host that one condition alone keeps out: they pass every other one, so they are free unless that is what they
// fail, and not promised to others unless that is.
func kept(h *Host, r *Request, condition string) int {
	switch condition {
	case conditionFree:
		return bits.OnesCount64(h.Well)
	case conditionReserved:
		return bits.OnesCount64(h.idle(r))
	default:
		return bits.OnesCount64(h.freeFor(r))
	}
}

// blocks says that a step leaves too few hosts.
func (s *survey) blocks(step int, r *Request) string {
	wanted := count(r.Nodes, "node") + " wanted, "
	if r.Nodes > 1 {
		wanted += "each on a host of its own, "
	}
	left, condition := s.gang[step], s.funnel[step].Condition
	switch condition {
	case conditionSite:
		return wanted + fmt.Sprintf("but no site has more than %d that would do.", left)
	case conditionNetwork:
		return wanted + fmt.Sprintf("but of the hosts that would do only %d are within %s of each other.", left, r.MaxRTT)
	}
	mixed := ""
	if s.funnel[step].Hosts > left {
		mixed = " of one model and runtime"
	}
	few := fmt.Sprintf("but only %d hosts%s are left ", left, mixed)
	switch left {
	case 0:
		few = "but no host is left "
	case 1:
		few = "but only 1 host" + mixed + " is left "
	}
	return wanted + few + leaves(condition, r) + "."
}

// leaves says which hosts a condition leaves.
func leaves(condition string, r *Request) string {
	switch condition {
	case conditionModel:
		return "with " + r.Model
	case conditionRegion:
		return "in " + strings.Join(r.Regions, ", ")
	case conditionImage:
		return "that can start Ray " + r.Image
	case conditionGPUs:
		return fmt.Sprintf("with %s free at once", count(r.GPUsPerNode, "GPU"))
	default:
		return plainly[condition]
	}
}

// plainly are the conditions that are said without naming what was asked for.
var plainly = map[string]string{
	conditionClass:    "with such GPUs",
	"open":            "online and offered",
	"tier":            "of the standing that is asked for",
	"reliability":     "as reliable as is asked for",
	conditionOwner:    "of an owner that is allowed",
	"driver":          "with a driver that is new enough",
	"cpu":             "with enough CPUs for each node",
	"memory":          "with enough memory for each node",
	"disk":            "with enough disk for each node",
	conditionFree:     "with a free GPU",
	conditionReserved: "with enough GPUs that are not promised to later bookings or maintenance",
	conditionPrice:    "within the price limit",
	"host":            "besides those that this cluster uses or has given up",
}

// contradiction finds conditions of a request that no fleet like this one could meet together.
func (x *Index) contradiction(r *Request) (blocking, summary string, found bool) {
	switch {
	case r.Nodes < 1:
		return conditionNodes, "A cluster has at least one node: ask for more than none.", true
	case r.GPUsPerNode < 1:
		return conditionGPUs, "A node has at least one GPU: ask for more than none.", true
	case r.GPUsPerNode > maxGPUs:
		return conditionGPUs, fmt.Sprintf("A host has at most %d GPUs, and so has a node: ask for more nodes of fewer GPUs.", maxGPUs), true
	case r.MaxPrice < 0:
		return conditionPrice, "The price limit is below zero, and no host pays to be booked.", true
	case len(r.AllowOwners) > 0 && !slices.ContainsFunc(r.AllowOwners, func(owner ids.Org) bool { return !slices.Contains(r.DenyOwners, owner) }):
		return conditionOwner, "Every owner that is allowed is denied as well: take them off one of the lists.", true
	case r.Model == "":
		return "", "", false
	}
	return x.contradictsModel(r)
}

// contradictsModel compares a request with the most that the hosts of its model have.
func (x *Index) contradictsModel(r *Request) (blocking, summary string, found bool) {
	var memory int64
	var compute, gpus int
	hosts, running := false, false
	for _, g := range x.groups {
		if g.model != r.Model {
			continue
		}
		hosts, running = true, running || r.Runtime == "" || g.runtime == r.Runtime
		for _, p := range g.parts {
			for _, at := range p.hosts {
				h := &x.entries[at].Host
				memory, compute, gpus = max(memory, h.MemoryMiB), max(compute, h.Compute), max(gpus, h.GPUs)
			}
		}
	}
	switch {
	case !hosts:
		return "", "", false
	case !running:
		return conditionModel, fmt.Sprintf("No host with %s runs nodes with %s.", r.Model, r.Runtime), true
	case memory < r.MinMemoryMiB:
		return conditionModel, fmt.Sprintf("%s has %d MiB a GPU, and at least %d MiB are asked for: leave out one of the two.", r.Model, memory, r.MinMemoryMiB), true
	case compute < r.MinCompute:
		return conditionModel, fmt.Sprintf("%s has compute capability %s, and at least %s is asked for: leave out one of the two.", r.Model, capability(compute), capability(r.MinCompute)), true
	case gpus < r.GPUsPerNode:
		return conditionGPUs, fmt.Sprintf("No host has more than %d %s, and a node is on one host: ask for more nodes of fewer GPUs.", gpus, r.Model), true
	}
	return "", "", false
}

// capability writes a compute capability as NVIDIA does: 90 is 9.0.
func capability(tenfold int) string { return fmt.Sprintf("%d.%d", tenfold/10, tenfold%10) }

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
