package fleet

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/fleet/fleetdb"
)

// States of nodes that reports bring about; "alive" is not among them, for it is Ray's word and not the host's.
const (
	nodePlanned  = "planned"
	nodeStarting = "starting"
	nodeRunning  = "running"
	nodeAlive    = "alive"
	nodeStopping = "stopping"
	nodeStopped  = "stopped"
	nodeFailed   = "failed"

	clusterDraining = "draining"
)

const (
	maxNodeReason = 2000
	maxLogged     = 4096 // of a host's message
	maxRayNodes   = 1024 // of one summary

	reasonVanished = "the host no longer runs the node: it was restarted, or the node was removed by hand"
	reasonStopped  = "the node stopped by itself"
)

// advance returns the states that a node must pass through for what its host reports, in order, and the reason for the last. status
// is nil if a report that knows the newest desired state does not name the node. A report that does not fit changes nothing: it
// is older than the node's state.
func advance(state string, wantsStop bool, status *agentpb.NodeStatus) (states []string, reason string) {
	if status == nil {
		return vanished(state)
	}
	switch status.GetPhase() {
	case agentpb.NodePhase_NODE_PHASE_STARTING:
		return after(state, nodePlanned, nodeStarting), ""
	case agentpb.NodePhase_NODE_PHASE_RUNNING:
		return after(state, nodePlanned, nodeStarting, nodeRunning), ""
	case agentpb.NodePhase_NODE_PHASE_STOPPING:
		if wantsStop && state != nodeStopping {
			return []string{nodeStopping}, ""
		}
		return nil, ""
	case agentpb.NodePhase_NODE_PHASE_STOPPED:
		return stopped(state, wantsStop)
	case agentpb.NodePhase_NODE_PHASE_FAILED:
		// What follows the first line is the end of a log, with paths of the host in it: for the operator's log, not for customers.
		sentence, _, _ := strings.Cut(status.GetMessage(), "\n")
		return []string{nodeFailed}, clip(sentence, maxNodeReason)
	default:
		return nil, ""
	}
}

// after returns what follows state on a path, or nothing if state is not on it before its end.
func after(state string, path ...string) []string {
	for i, s := range path {
		if s == state {
			return path[i+1:]
		}
	}
	return nil
}

func stopped(state string, wantsStop bool) ([]string, string) {
	switch {
	case state == nodeStopping:
		return []string{nodeStopped}, ""
	case wantsStop:
		return []string{nodeStopping, nodeStopped}, ""
	default:
		return []string{nodeFailed}, reasonStopped
	}
}

func vanished(state string) ([]string, string) {
	switch state {
	case nodeStarting, nodeRunning, nodeAlive:
		return []string{nodeFailed}, reasonVanished
	case nodeStopping:
		return []string{nodeStopped}, ""
	default:
		return nil, ""
	}
}

// changes collects the new states of nodes in rounds, because a node may pass through two in one report and the database
// checks each step.
type changes struct {
	rounds    []round
	ended     map[ids.Host]bool // hosts of nodes that ended
	summaries int
}

type round struct {
	nodes   []uuid.UUID
	states  []string
	reasons []string
}

func (c *changes) add(node fleetdb.LockNodesRow, states []string, reason string) {
	for i, state := range states {
		if i == len(c.rounds) {
			c.rounds = append(c.rounds, round{})
		}
		why := ""
		if i == len(states)-1 {
			why = reason
		}
		r := &c.rounds[i]
		r.nodes, r.states, r.reasons = append(r.nodes, uuid.UUID(node.ID)), append(r.states, state), append(r.reasons, why)
		if state == nodeStopped || state == nodeFailed {
			c.ended[node.HostID] = true
		}
	}
}

// storeReports writes what hosts report of their own nodes; what they say of others is not looked at. It returns the hosts
// of which a node has ended.
func (g *Gateway) storeReports(ctx context.Context, reports map[ids.Host]*agentpb.Report) ([]ids.Host, error) {
	collected := &changes{ended: map[ids.Host]bool{}}
	err := pgx.BeginFunc(ctx, g.options.Pool, func(tx pgx.Tx) error {
		nodes, err := g.queries.LockNodes(ctx, tx, uuidsOf(reports))
		if err != nil {
			return err
		}
		for _, node := range nodes {
			if err = g.applyReport(ctx, tx, node, reports[node.HostID], collected); err != nil {
				return err
			}
		}
		for _, r := range collected.rounds {
			if err = g.queries.SetNodeStates(ctx, tx, r.nodes, r.states, r.reasons); err != nil {
				return err
			}
		}
		if len(collected.rounds) == 0 && collected.summaries == 0 {
			return nil
		}
		return g.queries.WakeScheduler(ctx, tx)
	})
	if err != nil {
		return nil, err
	}
	ended := make([]ids.Host, 0, len(collected.ended))
	for host := range collected.ended {
		ended = append(ended, host)
	}
	return ended, nil
}

func (g *Gateway) applyReport(ctx context.Context, tx pgx.Tx, node fleetdb.LockNodesRow, report *agentpb.Report, collected *changes) error {
	status := statusOf(report, node.ID)
	if status == nil && report.GetAppliedGeneration() < node.DesiredGeneration {
		return nil // the host may not have heard of the node yet
	}
	wantsStop := node.State == nodeStopping || node.ClusterState == clusterDraining
	states, reason := advance(node.State, wantsStop, status)
	if len(states) > 0 {
		g.log.InfoContext(ctx, "node changed", "node_id", node.ID, "host_id", node.HostID, "from", node.State, "to", states[len(states)-1], "reason", reason,
			"report", clip(status.GetMessage(), maxLogged))
	}
	collected.add(node, states, reason)
	if node.Role != roleHead || status.GetRay() == nil {
		return nil
	}
	summary, err := raySummary(status.GetRay())
	if err != nil {
		return err
	}
	collected.summaries++
	return g.queries.UpsertRaySummary(ctx, tx, node.ClusterID, summary, status.GetRay().RunningJobs, status.GetRay().Busy)
}

func statusOf(report *agentpb.Report, node ids.Node) *agentpb.NodeStatus {
	text := node.String()
	for _, status := range report.GetNodes() {
		if status.GetNodeId() == text {
			return status
		}
	}
	return nil
}

type rayNode struct {
	Address string `json:"address"`
	Alive   bool   `json:"alive"`
	GPUs    int32  `json:"gpus"`
	Head    bool   `json:"head"`
}

func raySummary(summary *agentpb.RaySummary) ([]byte, error) {
	nodes := make([]rayNode, 0, len(summary.GetNodes()))
	for _, node := range summary.GetNodes()[:min(len(summary.GetNodes()), maxRayNodes)] {
		nodes = append(nodes, rayNode{
			Address: clip(node.GetAddress(), maxVersionLength), Alive: node.GetAlive(), GPUs: node.GetGpus(), Head: node.GetHead(),
		})
	}
	return json.Marshal(nodes)
}

// uuidsOf returns the keys as Postgres takes them.
func uuidsOf[V any](hosts map[ids.Host]V) []uuid.UUID {
	all := make([]uuid.UUID, 0, len(hosts))
	for host := range hosts {
		all = append(all, uuid.UUID(host))
	}
	return all
}
