package cluster

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/rayaddr"
)

// Receipt is the document of a delivery receipt: what was booked beside what was found. Its JSON, with the fields in this
// order, is what is hashed.
type Receipt struct {
	Cluster ids.Cluster     `json:"cluster_id"`
	Booked  ReceiptBooking  `json:"booked"`
	Nodes   []ReceiptMember `json:"nodes"`
}

// ReceiptBooking is the shape that the customer booked, as far as it is delivered: added nodes count when they have joined.
type ReceiptBooking struct {
	GPUModel    string `json:"gpu_model"`
	Nodes       int32  `json:"node_count"`
	GPUsPerNode int32  `json:"gpus_per_node"`
	RayVersion  string `json:"ray_version"`
}

// ReceiptMember is one GPU node: the GPUs that NVML listed on its host and what Ray says of it.
type ReceiptMember struct {
	Ordinal int32        `json:"ordinal"`
	Node    ids.Node     `json:"node_id"`
	Host    ids.Host     `json:"host_id"`
	Address string       `json:"address"`
	GPUs    []ReceiptGPU `json:"gpus"`
	RayGPUs int          `json:"ray_gpus"`
}

// ReceiptGPU is one GPU as inventoried.
type ReceiptGPU struct {
	UUID      string `json:"uuid"`
	Product   string `json:"product"`
	MemoryMiB int64  `json:"memory_mib"`
}

// receipt compares what is delivered, nodes that are still being added left out, with the booking. It fails if they differ, and then
// neither the cluster becomes ready nor an added node part of it.
func (l *Lifecycle) receipt(ctx context.Context, tx pgx.Tx, v loaded) ([]byte, error) {
	members := v.at(v.core())
	nodes := make([]uuid.UUID, len(members))
	for i, n := range members {
		nodes[i] = uuid.UUID(n.ID)
	}
	leases, err := l.queries.LeasedGPUs(ctx, tx, v.cluster.ID, nodes)
	if err != nil {
		return nil, fmt.Errorf("read leased GPUs: %w", err)
	}
	booked := int32(len(v.core()))
	receipt := Receipt{Cluster: v.cluster.ID, Booked: ReceiptBooking{
		GPUModel: v.cluster.GPUModel, Nodes: booked, GPUsPerNode: v.cluster.GPUsPerNode, RayVersion: v.cluster.RayVersion,
	}}
	for _, lease := range leases {
		if lease.Model != v.cluster.GPUModel || !lease.Healthy {
			return nil, fmt.Errorf("delivery does not match: GPU %s of host %s is %s, healthy %t", lease.UUID, lease.HostID, lease.Model, lease.Healthy)
		}
		if n := len(receipt.Nodes); n == 0 || receipt.Nodes[n-1].Node != lease.NodeID {
			address := rayaddr.Address(int(lease.Slot))
			ray, _ := v.rayNode(address)
			receipt.Nodes = append(receipt.Nodes, ReceiptMember{
				Ordinal: lease.Ordinal, Node: lease.NodeID, Host: lease.HostID, Address: address, RayGPUs: ray.GPUs,
			})
		}
		member := &receipt.Nodes[len(receipt.Nodes)-1]
		member.GPUs = append(member.GPUs, ReceiptGPU{UUID: lease.UUID, Product: lease.Product, MemoryMiB: lease.MemoryMiB})
	}
	if len(receipt.Nodes) != int(booked) {
		return nil, fmt.Errorf("delivery does not match: %d nodes hold leases, %d were booked", len(receipt.Nodes), booked)
	}
	for _, member := range receipt.Nodes {
		if len(member.GPUs) != int(v.cluster.GPUsPerNode) || member.RayGPUs != len(member.GPUs) {
			return nil, fmt.Errorf("delivery does not match: node %d has %d GPUs, %d in Ray, and %d were booked",
				member.Ordinal, len(member.GPUs), member.RayGPUs, v.cluster.GPUsPerNode)
		}
	}
	return json.Marshal(receipt)
}
