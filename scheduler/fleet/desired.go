package fleet

import (
	"context"
	"fmt"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/rayaddr"
	"github.com/muster-gpu/muster/scheduler/fleet/fleetdb"
)

// roleHead is the role of a node that runs Ray's head.
const roleHead = "head"

// desiredState reads what should run on a host.
func (g *Gateway) desiredState(ctx context.Context, host ids.Host) (*agentpb.DesiredState, error) {
	rows, err := g.queries.DesiredNodes(ctx, g.options.Pool, host)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("host %s is gone", host)
	}
	desired := &agentpb.DesiredState{Generation: rows[0].DesiredGeneration}
	for _, row := range rows {
		if row.NodeID.IsZero() {
			continue // a host without nodes
		}
		spec, err := g.nodeSpec(row)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", row.NodeID, err)
		}
		desired.Nodes = append(desired.Nodes, spec)
	}
	return desired, nil
}

func (g *Gateway) nodeSpec(row fleetdb.DesiredNodesRow) (*agentpb.NodeSpec, error) {
	spec := &agentpb.NodeSpec{
		NodeId:     row.NodeID.String(),
		ClusterId:  row.ClusterID.String(),
		Head:       row.Role == roleHead,
		Stop:       row.Stop,
		RayVersion: row.RayVersion,
		Address:    rayaddr.Address(int(row.Slot)),
		PortBase:   int32(rayaddr.PortBase(int(row.Slot))),
		PortCount:  rayaddr.PortCount,
		GpuUuids:   row.GPUUUIDs,
		DrainMs:    row.DrainMs,
		Labels:     map[string]string{"region": row.Region},
	}
	if row.HeadSlot >= 0 {
		head := int(row.HeadSlot)
		spec.HeadAddress = rayaddr.Address(head)
		spec.HeadPort = int32(rayaddr.PortsFrom(rayaddr.PortBase(head), rayaddr.PortCount).GCS)
	}
	if row.Stop {
		return spec, nil // stopping needs no secret
	}
	token, err := g.options.Unsealer.Unseal(row.RayTokenSealed)
	if err != nil {
		return nil, fmt.Errorf("unseal the Ray token: %w", err)
	}
	spec.RayToken = token
	return spec, nil
}
