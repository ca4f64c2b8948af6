package placement

import (
	"fmt"
	"math/bits"
	"slices"
)

// conditionNodes blocks when there are too few hosts to begin with, whatever they have.
const conditionNodes = "node_count"

// conditionNetwork blocks when there are enough hosts, but not near enough to each other.
const conditionNetwork = "network"

// Explain runs the same conditions one after another and says what each leaves. The blocking one is the first that leaves
// fewer hosts than nodes are wanted; if it took nothing away, too many nodes are wanted.
func (x *Index) Explain(r Request) Explanation {
	var e Explanation
	remaining := make([]*Host, 0, x.Len())
	for i := range x.entries {
		if x.entries[i].part != nil {
			remaining = append(remaining, &x.entries[i].Host)
		}
	}
	alone := excludedAlone(remaining, &r)
	for _, c := range conditions {
		before := len(remaining)
		remaining = slices.DeleteFunc(remaining, func(h *Host) bool { return !c.passes(h, &r) })
		step := Step{Condition: c.name, Hosts: len(remaining), Excludes: alone[c.name]}
		for _, h := range remaining {
			step.GPUs += bits.OnesCount64(h.freeFor(&r))
		}
		e.Funnel = append(e.Funnel, step)
		if e.Blocking == "" && len(remaining) < r.Nodes {
			e.Blocking = c.name
			if len(remaining) == before {
				e.Blocking = conditionNodes
			}
			e.Summary = fmt.Sprintf("%s wanted, each on a host of its own, but only %d %s.", count(r.Nodes, "node"), len(remaining), c.blocks(&r))
		}
	}
	if _, placed := x.Place(r); e.Blocking == "" && !placed {
		e.Blocking = conditionNetwork
		e.Summary = fmt.Sprintf("%s wanted, but no %d of the hosts are near enough to each other.", count(r.Nodes, "node"), r.Nodes)
	}
	return e
}

// excludedAlone counts the GPUs of hosts that fail one condition and no other.
func excludedAlone(hosts []*Host, r *Request) map[string]int {
	alone := map[string]int{}
	for _, h := range hosts {
		failed, times := "", 0
		for i := range conditions {
			if !conditions[i].passes(h, r) {
				if times++; times > 1 {
					break
				}
				failed = conditions[i].name
			}
		}
		if times == 1 {
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
