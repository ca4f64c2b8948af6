// Package runtime says what the agent asks of whatever runs Ray nodes on its host.
//
// A runtime is level-triggered: it is told which nodes should exist, converges on its own, and reports what does exist. The
// invariants that every runtime keeps:
//
//   - a node that is not desired does not run for long, whoever started it;
//   - a node that ended by itself is FAILED and is never started again under the same id, for the control plane decides;
//   - nodes outlive the agent: a new runtime over the same state adopts them.
package runtime

import (
	"context"
	"net"

	"github.com/muster-gpu/muster/internal/agentpb"
)

// Runtime runs the nodes of one host. All methods may be called at the same time.
type Runtime interface {
	// Apply replaces the desired set. It returns at once; convergence goes on in Run.
	Apply(desired []*agentpb.NodeSpec)
	// Run converges until ctx ends, and calls ready once it has adopted what already ran. Nodes outlive it unless the
	// runtime was told otherwise. It returns an error only if it could not begin.
	Run(ctx context.Context, ready func()) error
	// Status is a snapshot of every node that is desired or still exists, ordered by node id.
	Status() []*agentpb.NodeStatus
	// Changed is signalled (capacity 1) after a change of any status.
	Changed() <-chan struct{}
	// DialNode opens a TCP connection to one of a running node's own ports. Other ports and other nodes are refused with a
	// domain error.
	DialNode(ctx context.Context, nodeID string, port int) (net.Conn, error)
}
