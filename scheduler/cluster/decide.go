package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// Deadlines of the phases, and bounds of the care for a running cluster.
const (
	prepareDeadline = 15 * time.Minute
	headDeadline    = 90 * time.Second
	joinDeadline    = 120 * time.Second
	silenceDeadline = 5 * time.Minute // without a summary by Ray while nodes join
	joiningLimit    = 10 * time.Minute
	stopDeadline    = 50 * time.Second // after a node's drain
	degradedLimit   = 10 * time.Minute
	silenceLimit    = time.Minute // of a head whose host is heard, while the cluster is ready
	maxReplacements = 3
)

// How long Ray may move work off a node before it is stopped.
const (
	drainAtRemoval = 30 * time.Second // the rest of the cluster takes the work over
	drainAtEnd     = 10 * time.Second // nothing does
)

// activeStep is how exactly the time of the last activity is kept.
const activeStep = 15 * time.Second

// Party says on whose account a cluster or lease ended.
type Party string

// The parties.
const (
	PartyCustomer  Party = "customer"
	PartyOwner     Party = "owner"
	PartyPlatform  Party = "platform"
	PartyPreempted Party = "preempted" // a spot cluster's GPUs went to a market booking
)

// Decision is the one next step of a cluster; the zero value is "nothing to do".
type Decision struct {
	Fail     []FailedNode  // nodes to declare failed; those that were not asked to stop are the owner's fault
	Stop     []ids.Node    // nodes to ask to stop
	Drain    time.Duration // for Stop, To Draining and Parked: how long Ray may move work off them
	Close    []ids.Node    // ended nodes that are to have no successor and hold leases still
	Remove   []ids.Node    // nodes to take out at the customer's wish, their places too
	Replace  []int         // places without a live node, to be filled; all of them for a parked cluster, or none
	GiveUp   []int         // places that were to be added and cannot be filled
	Join     []ids.Node    // added nodes that Ray lists alive: they are delivered and billed from now on
	Announce []Notice
	Forget   []string // notices that may come again
	Active   bool     // it is not idle: to be remembered
	To       State    // state to enter, or ""
	Party    Party    // for Draining
	Reason   string   // for To and GiveUp: the event's text
}

// FailedNode is a node that a decision gives up, and why.
type FailedNode struct {
	ID     ids.Node
	Reason string
}

// nothing reports whether there is nothing to do.
func (d Decision) nothing() bool {
	return d.To == "" && !d.Active && len(d.Fail)+len(d.Stop)+len(d.Close)+len(d.Remove)+len(d.Replace)+len(d.GiveUp)+len(d.Join) == 0 &&
		len(d.Announce)+len(d.Forget) == 0
}

// Decide is the state machine. It is pure; the caller applies the decision and asks again until there is none. Each rule looks at
// the cluster as if it were the only one, in the order of their weight.
func Decide(v View) Decision {
	if v.State == Released || v.State == Failed {
		return Decision{}
	}
	if v.State == Draining {
		return v.drained()
	}
	rules := []func() Decision{v.end, v.retire, v.removeNodes, v.keepWhole, v.addNodes, v.advance, v.announce}
	if v.State == Parked {
		rules = []func() Decision{v.end, v.retire, v.leavePark, v.announce}
	}
	for _, rule := range rules {
		if d := rule(); !d.nothing() {
			return d
		}
	}
	return Decision{}
}

// end says why the cluster as a whole has to end.
func (v View) end() Decision {
	drain := func(party Party, reason string) Decision {
		return Decision{To: Draining, Drain: drainAtEnd, Party: party, Reason: reason}
	}
	switch {
	case v.ReleaseRequested:
		return drain(PartyCustomer, "Released by the customer.")
	case v.preempted():
		return drain(PartyPreempted, "The GPUs of this spot cluster went to a market booking.")
	case v.Remaining <= 0:
		return drain(PartyCustomer, "The booked time is used up.")
	case v.State == Parked && v.ReleaseAfter > 0 && !v.ResumeRequested && v.Now.Sub(v.PhaseAt) >= v.ReleaseAfter:
		return drain(PartyCustomer, fmt.Sprintf("Parked for %s, and released as it was set.", inWords(v.ReleaseAfter)))
	}
	if reason := v.headFailure(); reason != "" {
		return drain(PartyPlatform, reason)
	}
	if v.State == Degraded && v.inPhase() > degradedLimit {
		party := PartyOwner // a node's failure degraded it
		if v.HeadSilent > 0 {
			party = PartyPlatform // or the head's silence did; a summary that is merely old says nothing
		}
		return drain(party, "The cluster could not be made whole again in time.")
	}
	return Decision{}
}

// preempted reports whether the time has come. A parked cluster has no GPUs that could be taken.
func (v View) preempted() bool {
	return v.State != Parked && !v.PreemptAt.IsZero() && !v.Now.Before(v.PreemptAt)
}

// headFailure says why the cluster cannot go on: without its head a Ray cluster is lost.
func (v View) headFailure() string {
	head, ok := v.head()
	switch {
	case !ok:
		return "The Ray head ended: " + v.lastHeadReason()
	case head.HostGone:
		return "The machine of the Ray head is " + head.HostState + "."
	case v.State == Reserved && v.inPhase() > prepareDeadline:
		return "The hosts did not begin in time."
	case v.State == Preparing && v.inPhase() > headDeadline:
		return "The Ray head did not start in time."
	case v.State == Joining && v.Ray == nil && v.inPhase() > silenceDeadline:
		return "The Ray head did not say which nodes have joined."
	case v.State == Joining && v.inPhase() > joiningLimit:
		return "The nodes did not come together as booked in time."
	}
	return ""
}

// drained ends a cluster when nothing of it runs any more, or can be waited for. The head stops after the others, which could not
// drain without it.
func (v View) drained() Decision {
	d, waiting := Decision{Drain: drainAtEnd}, false
	for _, n := range v.live() {
		switch {
		case n.Head:
		case v.cannotStop(n):
			d.Fail = append(d.Fail, neverStopped(n))
		case n.State != NodeStopping:
			d.Stop = append(d.Stop, n.ID)
		default:
			waiting = true
		}
	}
	head, ok := v.head()
	switch {
	case len(d.Stop) > 0:
	case waiting:
		return Decision{}
	case ok && v.cannotStop(head):
		d.Fail, d.To = append(d.Fail, neverStopped(head)), Released
	case ok && head.State != NodeStopping:
		d.Stop = []ids.Node{head.ID}
	case !ok:
		d.To = Released
	}
	return d
}

// cannotStop reports whether it makes no sense to wait for a node's end any longer.
func (v View) cannotStop(n Node) bool {
	asked := n.StoppingAt
	if asked.IsZero() {
		asked = v.PhaseAt
	}
	return n.HostGone || n.State == NodeStopping && v.Now.Sub(latest(asked, v.Epoch)) > n.Drain+stopDeadline
}

func neverStopped(n Node) FailedNode { return FailedNode{n.ID, "It could not be seen to stop."} }

// retire follows nodes that are to have no successor to their end, and then closes their leases: those that were removed, and all of
// a parked cluster.
func (v View) retire() Decision {
	d := Decision{Drain: drainAtEnd}
	for _, n := range v.Nodes {
		switch {
		case n.Head || v.State != Parked && slices.Contains(v.Places, n.Ordinal):
		case n.Ended() && n.Leased:
			d.Close = append(d.Close, n.ID)
		case n.Ended():
		case v.cannotStop(n):
			d.Fail = append(d.Fail, neverStopped(n))
		case n.State != NodeStopping:
			d.Stop = append(d.Stop, n.ID)
		}
	}
	return d
}

// removeNodes takes out what the customer does not want any more, whether it still lives or not. The last place stays.
func (v View) removeNodes() Decision {
	if v.State != Ready && v.State != Degraded {
		return Decision{}
	}
	d := Decision{Drain: drainAtRemoval}
	core, vacant := v.core(), v.vacant(v.Places)
	for _, n := range v.Nodes {
		added := slices.Contains(v.Joining, n.Ordinal)
		switch {
		case n.Head || !n.RemoveRequested || n.Ended() && !slices.Contains(vacant, n.Ordinal):
		case added || len(core) > 1 && slices.Contains(core, n.Ordinal):
			d.Remove = append(d.Remove, n.ID)
			core = slices.DeleteFunc(core, func(place int) bool { return place == n.Ordinal })
			vacant = slices.DeleteFunc(vacant, func(place int) bool { return place == n.Ordinal })
		}
	}
	return d
}

// keepWhole replaces failed nodes while the others run; a ready cluster is degraded first, which stops the billing.
func (v View) keepWhole() Decision {
	core := v.core()
	failed, vacant := v.failures(v.at(core)), v.vacant(core)
	degraded := "A node failed and is being replaced. Billing is stopped meanwhile. If no host can take its place within " +
		inWords(degradedLimit) + ", the cluster is released."
	switch {
	case len(failed)+len(vacant) == 0:
		return Decision{}
	case v.State == Ready:
		return Decision{To: Degraded, Fail: failed, Reason: degraded}
	case len(failed) > 0:
		return Decision{Fail: failed}
	case v.Replacements+len(vacant) > maxReplacements:
		return Decision{To: Draining, Drain: drainAtEnd, Party: PartyOwner, Reason: fmt.Sprintf("Nodes failed more than %d times.", maxReplacements)}
	}
	return Decision{Replace: vacant}
}

// addNodes takes the nodes that were added to a ready cluster as far as they go. They never degrade it: one that fails is replaced
// like others, or its place is given up.
func (v View) addNodes() Decision {
	if v.State != Ready {
		return Decision{}
	}
	added := v.at(v.Joining)
	if failed := v.failures(added); len(failed) > 0 {
		return Decision{Fail: failed}
	}
	vacant := v.vacant(v.Joining)
	switch {
	case len(vacant) > 0 && v.Replacements+len(vacant) > maxReplacements:
		return Decision{GiveUp: vacant, Reason: fmt.Sprintf("nodes failed more than %d times", maxReplacements)}
	case len(vacant) > 0:
		return Decision{Replace: vacant}
	}
	var d Decision
	for _, n := range added {
		if v.joined(n) {
			d.Join = append(d.Join, n.ID)
		}
	}
	return d
}

// failures are those of some live GPU nodes that do not do their work.
func (v View) failures(nodes []Node) []FailedNode {
	var failed []FailedNode
	for _, n := range nodes {
		ray, known := v.rayNode(n.Address)
		joined := known && ray.Alive
		switch {
		case n.HostGone:
			failed = append(failed, FailedNode{n.ID, "Its host is " + n.HostState + "."})
		case !n.GPUsWell:
			failed = append(failed, FailedNode{n.ID, "A GPU of it has failed."})
		case n.State == NodeAlive && v.Ray != nil && !joined:
			failed = append(failed, FailedNode{n.ID, "Ray has lost it."})
		case joined && ray.GPUs != v.GPUsPerNode:
			failed = append(failed, FailedNode{n.ID, fmt.Sprintf("It brought %d GPUs to Ray instead of %d.", ray.GPUs, v.GPUsPerNode)})
		case n.State != NodeAlive && v.Ray != nil && !joined && v.assembles(n) && v.Now.Sub(latest(n.Since, latest(v.PhaseAt, v.Epoch))) > joinDeadline:
			failed = append(failed, FailedNode{n.ID, "It did not join Ray in time."})
		}
	}
	return failed
}

func (v View) assembles(n Node) bool {
	return v.State == Joining || v.State == Degraded || v.State == Ready && slices.Contains(v.Joining, n.Ordinal)
}

// advance moves the cluster on by one state.
func (v View) advance() Decision {
	head, _ := v.head()
	switch v.State {
	case Reserved:
		if slices.ContainsFunc(v.live(), func(n Node) bool { return n.State != NodePlanned }) {
			return Decision{To: Preparing, Reason: "The hosts have begun to start Ray."}
		}
	case Preparing:
		if head.State == NodeRunning || head.State == NodeAlive {
			return Decision{To: HeadUp, Reason: "The Ray head is up."}
		}
	case HeadUp:
		return Decision{To: Joining, Reason: fmt.Sprintf("Waiting for %s to join.", count(len(v.Places), "node"))}
	case Joining, Degraded:
		if v.complete() {
			return Decision{To: Ready, Reason: "Every node has joined Ray, as booked. Billing starts now."}
		}
	case Ready:
		switch {
		case v.Ray == nil && v.HeadSilent > silenceLimit:
			return Decision{To: Degraded, Reason: "The Ray head does not say any more how its nodes are. Billing is stopped meanwhile. If it stays silent for " +
				inWords(degradedLimit) + ", the cluster is released."}
		case v.Activity != Idle && v.Now.Sub(v.ActiveAt) > activeStep:
			return Decision{Active: true}
		case v.parkDue():
			return Decision{To: Parked, Drain: drainAtEnd, Reason: fmt.Sprintf(
				"Idle for %s, and parked as it was set: the GPUs are released, the head stays, nothing is billed. Resume it to go on.", inWords(v.ParkAfter))}
		}
	case Parked, Draining, Released, Failed:
	}
	return Decision{}
}

// parkDue reports whether the cluster has been idle for as long as was set. While nodes come or go it is not parked.
func (v View) parkDue() bool {
	return v.parks() && v.Now.Sub(v.idleSince()) >= v.ParkAfter && len(v.at(v.Places)) == len(v.live())-1
}

// parks reports whether the time until parking counts.
func (v View) parks() bool {
	return v.State == Ready && v.ParkAfter > 0 && v.Activity == Idle && len(v.Joining) == 0
}

// leavePark takes a parked cluster up again, once the nodes that it had are gone.
func (v View) leavePark() Decision {
	if !v.ResumeRequested || len(v.live()) > 1 {
		return Decision{}
	}
	return Decision{Replace: v.Places, To: Joining, Reason: fmt.Sprintf("Resumed: waiting for %s to join.", count(len(v.Places), "node"))}
}
