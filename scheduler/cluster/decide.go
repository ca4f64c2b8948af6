package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// View is what a decision is made from: one cluster as the database, its hosts' agents and Ray's head describe it.
type View struct {
	State            State
	Now              time.Time
	PhaseAt          time.Time // when State was entered
	ReleaseRequested bool
	Remaining        time.Duration // of the booked time
	Replacements     int
	GPUsPerNode      int
	Places           []int // the ordinals that must have a live GPU node: 1..n
	Nodes            []Node
	Ray              []RayNode // Ray's own summary, nil without a fresh one
}

// Node is one member of a cluster, past members included.
type Node struct {
	ID        ids.Node
	HostID    ids.Host
	Head      bool
	Ordinal   int
	State     NodeState
	Reason    string
	Address   string
	HostState string
	HostGone  bool // lost for good as far as anybody can tell: not only silent for a moment, which restarts of agents are
	GPUsWell  bool
	Since     time.Time
}

// RayNode is one line of Ray's node summary.
type RayNode struct {
	Address string `json:"address"`
	Alive   bool   `json:"alive"`
	GPUs    int    `json:"gpus"`
	Head    bool   `json:"head"`
}

// State is a cluster's state.
type State string

// The states of a cluster, as in the schema.
const (
	Reserved  State = "reserved"
	Preparing State = "preparing"
	HeadUp    State = "head_up"
	Joining   State = "joining"
	Ready     State = "ready"
	Degraded  State = "degraded"
	Draining  State = "draining"
	Released  State = "released"
	Failed    State = "failed"
)

// NodeState is a node's state.
type NodeState string

// The states of a node, as in the schema.
const (
	NodePlanned  NodeState = "planned"
	NodeStarting NodeState = "starting"
	NodeRunning  NodeState = "running"
	NodeAlive    NodeState = "alive"
	NodeStopping NodeState = "stopping"
	NodeStopped  NodeState = "stopped"
	NodeFailed   NodeState = "failed"
)

// Deadlines of the phases, and bounds of the care for a running cluster.
const (
	prepareDeadline = 15 * time.Minute
	headDeadline    = 90 * time.Second
	joinDeadline    = 120 * time.Second
	silenceDeadline = 5 * time.Minute // without a summary by Ray while nodes join
	joiningLimit    = 10 * time.Minute
	drainDeadline   = 60 * time.Second
	degradedLimit   = 10 * time.Minute
	maxReplacements = 3
)

// Party says on whose account a cluster or lease ended.
type Party string

// The parties.
const (
	PartyCustomer Party = "customer"
	PartyOwner    Party = "owner"
	PartyPlatform Party = "platform"
)

// Decision is the one next step of a cluster; the zero value is "nothing to do".
type Decision struct {
	Fail    []FailedNode // nodes to declare failed, each to be replaced
	Replace []int        // places without a live node, to be filled
	To      State        // state to enter, or ""
	Party   Party        // for Draining
	Reason  string       // for Draining, and the event's text
}

// FailedNode is a node that a decision gives up, and why.
type FailedNode struct {
	ID     ids.Node
	Reason string
}

// Decide is the state machine. It is pure; the caller applies the decision and asks again until there is none.
func Decide(v View) Decision {
	switch {
	case v.State == Released || v.State == Failed:
		return Decision{}
	case v.State == Draining:
		return v.drained()
	case v.ReleaseRequested:
		return Decision{To: Draining, Party: PartyCustomer, Reason: "Released by the customer."}
	case v.Remaining <= 0:
		return Decision{To: Draining, Party: PartyCustomer, Reason: "The booked time is used up."}
	}
	head, ok := v.head()
	if reason := v.headFailure(head, ok); reason != "" {
		return Decision{To: Draining, Party: PartyPlatform, Reason: reason}
	}
	if failed := v.failedNodes(); len(failed) > 0 {
		return v.giveUp(failed)
	}
	if vacant := v.vacantPlaces(); len(vacant) > 0 {
		return v.refill(vacant)
	}
	return v.advance(head)
}

// advance moves the assembly on by one state.
func (v View) advance(head Node) Decision {
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
		return Decision{To: Joining, Reason: fmt.Sprintf("Waiting for %d nodes to join.", len(v.Places))}
	case Joining, Degraded:
		if v.complete() {
			return Decision{To: Ready, Reason: "Every node has joined Ray, as booked. Billing starts now."}
		}
	case Ready, Draining, Released, Failed:
	}
	return Decision{}
}

// drained ends a cluster when nothing of it runs any more, or can be waited for.
func (v View) drained() Decision {
	overdue := v.Now.Sub(v.PhaseAt) > drainDeadline
	var failed []FailedNode
	for _, n := range v.live() {
		if !overdue && !n.HostGone {
			return Decision{}
		}
		failed = append(failed, FailedNode{n.ID, "It could not be seen to stop."})
	}
	return Decision{Fail: failed, To: Released}
}

// headFailure says why the cluster cannot go on: without its head a Ray cluster is lost.
func (v View) headFailure(head Node, ok bool) string {
	switch {
	case !ok:
		return "The Ray head ended: " + v.lastHeadReason()
	case head.HostGone:
		return "The machine of the Ray head is " + head.HostState + "."
	case v.State == Reserved && v.Now.Sub(v.PhaseAt) > prepareDeadline:
		return "The hosts did not begin in time."
	case v.State == Preparing && v.Now.Sub(v.PhaseAt) > headDeadline:
		return "The Ray head did not start in time."
	case v.State == Joining && v.Ray == nil && v.Now.Sub(v.PhaseAt) > silenceDeadline:
		return "The Ray head did not say which nodes have joined."
	case v.State == Joining && v.Now.Sub(v.PhaseAt) > joiningLimit:
		return "The nodes did not come together as booked in time."
	case v.State == Degraded && v.Now.Sub(v.PhaseAt) > degradedLimit:
		return "The cluster could not be made whole again in time."
	}
	return ""
}

// failedNodes are live GPU nodes that no longer do their work.
func (v View) failedNodes() []FailedNode {
	var failed []FailedNode
	for _, n := range v.live() {
		if n.Head {
			continue
		}
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
		case n.State != NodeAlive && v.Ray != nil && !joined && v.assembling() && v.Now.Sub(latest(n.Since, v.PhaseAt)) > joinDeadline:
			failed = append(failed, FailedNode{n.ID, "It did not join Ray in time."})
		}
	}
	return failed
}

func (v View) assembling() bool { return v.State == Joining || v.State == Degraded }

// giveUp replaces failed nodes while the others run; a ready cluster is degraded first, which stops the billing.
func (v View) giveUp(failed []FailedNode) Decision {
	if v.State == Ready {
		return Decision{To: Degraded, Fail: failed, Reason: "A node failed and is being replaced. Billing is stopped meanwhile."}
	}
	return Decision{Fail: failed}
}

func (v View) refill(vacant []int) Decision {
	switch {
	case v.State == Ready:
		return Decision{To: Degraded, Reason: "A node failed and is being replaced. Billing is stopped meanwhile."}
	case v.Replacements+len(vacant) > maxReplacements:
		return Decision{To: Draining, Party: PartyOwner, Reason: fmt.Sprintf("Nodes failed more than %d times.", maxReplacements)}
	}
	return Decision{Replace: vacant}
}

// complete reports whether Ray's summary lists exactly the planned addresses, alive and with the planned GPUs.
func (v View) complete() bool {
	if v.Ray == nil {
		return false
	}
	planned := make(map[string]bool)
	for _, n := range v.live() {
		planned[n.Address] = true
		ray, known := v.rayNode(n.Address)
		begun := n.State == NodeStarting || n.State == NodeRunning || n.State == NodeAlive
		if !begun || !known || !ray.Alive || ray.Head != n.Head || (!n.Head && ray.GPUs != v.GPUsPerNode) {
			return false
		}
	}
	for _, ray := range v.Ray {
		if ray.Alive && !planned[ray.Address] {
			return false
		}
	}
	return len(planned) == len(v.Places)+1
}

func (v View) live() []Node {
	return slices.DeleteFunc(slices.Clone(v.Nodes), func(n Node) bool { return n.State == NodeStopped || n.State == NodeFailed })
}

func (v View) head() (Node, bool) {
	live := v.live()
	if i := slices.IndexFunc(live, func(n Node) bool { return n.Head }); i >= 0 {
		return live[i], true
	}
	return Node{}, false
}

func (v View) lastHeadReason() string {
	for _, n := range v.Nodes {
		if n.Head && n.Reason != "" {
			return n.Reason
		}
	}
	return "its process stopped."
}

// vacantPlaces are the places without a live node.
func (v View) vacantPlaces() []int {
	vacant := slices.Clone(v.Places)
	for _, n := range v.live() {
		if !n.Head {
			vacant = slices.DeleteFunc(vacant, func(place int) bool { return place == n.Ordinal })
		}
	}
	return vacant
}

// rayNode finds a node in Ray's summary. Ray keeps dead entries of an address, so an alive one wins.
func (v View) rayNode(address string) (RayNode, bool) {
	var found RayNode
	known := false
	for _, ray := range v.Ray {
		if ray.Address == address && (!known || ray.Alive) {
			found, known = ray, true
		}
	}
	return found, known
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
