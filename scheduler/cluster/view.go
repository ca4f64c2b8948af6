package cluster

import (
	"slices"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// View is what a decision is made from: one cluster as the database, its hosts' agents and Ray's head describe it.
type View struct {
	State            State
	Now              time.Time
	PhaseAt          time.Time // when State was entered
	Epoch            time.Time // when the present term began: deadlines count from here at the earliest, for nobody acted before
	ReleaseRequested bool
	ResumeRequested  bool
	Duration         time.Duration // booked
	Remaining        time.Duration // of it
	Replacements     int
	GPUsPerNode      int
	Places           []int // the ordinals that must have a live GPU node
	Joining          []int // of those, the ones added to a running cluster and not yet delivered
	Nodes            []Node
	Ray              []RayNode     // Ray's own summary, nil without a fresh one
	HeadSilent       time.Duration // how long the head's host has been heard without its Ray
	PreemptAt        time.Time     // when the GPUs go to a market booking; zero if they do not
	ParkAfter        time.Duration // idle this long, and the nodes are released; 0 is never
	ReleaseAfter     time.Duration // parked this long, and the cluster is released; 0 is never
	ActiveAt         time.Time     // when it was last seen not to be idle
	Activity         Activity
	Notices          []string // announced already
	Balance          *Balance // nil unless endDue
}

// Node is one member of a cluster, past members included.
type Node struct {
	ID              ids.Node
	HostID          ids.Host
	Head            bool
	Ordinal         int
	State           NodeState
	Reason          string
	Address         string
	HostState       string
	HostGone        bool // lost for good as far as anybody can tell: not only silent for a moment, which restarts of agents are
	GPUsWell        bool
	Leased          bool // it holds leases
	RemoveRequested bool
	Since           time.Time
	StoppingAt      time.Time     // when it was asked to stop; zero if it was not
	Drain           time.Duration // how long it may then drain
}

// RayNode is one line of Ray's node summary.
type RayNode struct {
	Address string `json:"address"`
	Alive   bool   `json:"alive"`
	GPUs    int    `json:"gpus"`
	Head    bool   `json:"head"`
}

// Activity is what Ray says that it is doing.
type Activity uint8

// Activities. What is not known is never taken for idleness.
const (
	ActivityUnknown Activity = iota
	Idle
	Busy
)

// Balance is what an organisation can still spend, beside what a cluster costs an hour.
type Balance struct{ Available, PerHour money.Amount }

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
	Parked    State = "parked"
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

// Ended reports whether the node is over.
func (n Node) Ended() bool { return n.State == NodeStopped || n.State == NodeFailed }

// inPhase is how long a deadline of the present state has run.
func (v View) inPhase() time.Duration { return v.Now.Sub(latest(v.PhaseAt, v.Epoch)) }

// idleSince is when the time until parking began to count.
func (v View) idleSince() time.Time { return latest(v.ActiveAt, v.PhaseAt) }

// core are the places that the cluster is not whole without.
func (v View) core() []int {
	return slices.DeleteFunc(slices.Clone(v.Places), func(place int) bool { return slices.Contains(v.Joining, place) })
}

func (v View) live() []Node {
	return slices.DeleteFunc(slices.Clone(v.Nodes), Node.Ended)
}

// at are the live GPU nodes of some places.
func (v View) at(places []int) []Node {
	return slices.DeleteFunc(v.live(), func(n Node) bool { return n.Head || !slices.Contains(places, n.Ordinal) })
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

// vacant are those of some places without a live node.
func (v View) vacant(places []int) []int {
	vacant := slices.Clone(places)
	for _, n := range v.at(places) {
		vacant = slices.DeleteFunc(vacant, func(place int) bool { return place == n.Ordinal })
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

// joined reports whether Ray lists a node as it was planned.
func (v View) joined(n Node) bool {
	ray, known := v.rayNode(n.Address)
	begun := n.State == NodeStarting || n.State == NodeRunning || n.State == NodeAlive
	return begun && known && ray.Alive && ray.Head == n.Head && (n.Head || ray.GPUs == v.GPUsPerNode)
}

// complete reports whether Ray's summary lists exactly the planned addresses, alive and with the planned GPUs. Nodes that are being
// added or taken out may be there or not.
func (v View) complete() bool {
	core := v.core()
	members := v.at(core)
	head, ok := v.head()
	if v.Ray == nil || !ok || len(members) != len(core) || !v.joined(head) {
		return false
	}
	if slices.ContainsFunc(members, func(n Node) bool { return !v.joined(n) }) {
		return false
	}
	ours := make(map[string]bool)
	for _, n := range v.live() {
		ours[n.Address] = true
	}
	return !slices.ContainsFunc(v.Ray, func(ray RayNode) bool { return ray.Alive && !ours[ray.Address] })
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
