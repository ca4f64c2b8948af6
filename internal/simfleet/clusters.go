package simfleet

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/muster-gpu/muster/internal/agentpb"
)

// joinDelay is how long a head takes to notice that a node has come or gone.
const joinDelay = 200 * time.Millisecond

// clusters is what the heads of a fleet know of each other's nodes: the part of Ray's control store.
type clusters struct {
	clock *wheel
	mu    sync.Mutex
	all   map[string]*rayCluster
}

type rayCluster struct {
	head  *agent // nil while none runs
	nodes []*agentpb.RayNode
}

// join adds a node that runs. n's agent is a.
func (c *clusters) join(n *node, a *agent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.all[n.cluster]
	if known == nil {
		known = &rayCluster{}
		c.all[n.cluster] = known
	}
	if n.head {
		known.head = a
	}
	known.nodes = slices.DeleteFunc(known.nodes, func(r *agentpb.RayNode) bool { return r.GetAddress() == n.address })
	known.nodes = append(known.nodes, &agentpb.RayNode{Address: n.address, Alive: true, Gpus: n.gpus, Head: n.head})
	slices.SortFunc(known.nodes, func(a, b *agentpb.RayNode) int { return cmp.Compare(a.GetAddress(), b.GetAddress()) })
	c.tell(known)
}

// leave marks a node dead. With its head a cluster is forgotten.
func (c *clusters) leave(n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.all[n.cluster]
	if known == nil {
		return
	}
	for i, r := range known.nodes {
		if r.GetAddress() == n.address && r.GetHead() == n.head {
			known.nodes[i] = &agentpb.RayNode{Address: r.GetAddress(), Gpus: r.GetGpus(), Head: r.GetHead()}
		}
	}
	if n.head {
		known.head = nil
	}
	if !slices.ContainsFunc(known.nodes, (*agentpb.RayNode).GetAlive) {
		delete(c.all, n.cluster)
		return
	}
	c.tell(known)
}

// tell has the head report what it knows, a moment later.
func (c *clusters) tell(known *rayCluster) {
	if head := known.head; head != nil {
		c.clock.after(joinDelay, head.poke)
	}
}

// summary is what a cluster's head says of its nodes. Nothing computes on a simulated cluster.
func (c *clusters) summary(cluster string) *agentpb.RaySummary {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.all[cluster]
	if known == nil {
		return nil
	}
	return &agentpb.RaySummary{Nodes: slices.Clone(known.nodes), RunningJobs: proto.Int32(0), Busy: proto.Int32(0)}
}
