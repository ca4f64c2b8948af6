package main

import (
	"crypto/sha256"
	"fmt"
	"strconv"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/nomad/state"
	"github.com/hashicorp/nomad/nomad/structs"
	nomadscheduler "github.com/hashicorp/nomad/scheduler"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
)

const (
	deviceType     = "nvidia/gpu/"
	taskGroup      = "ray"
	taskDriver     = "exec"
	diskMB         = 1 << 20
	affinitySteps  = 5  // price classes that the affinity tells apart
	affinityWeight = 50 // of each
)

// nomad is Nomad's batch scheduler on its in-memory state store, without servers, Raft or the plan queue. Each booking starts
// from the same state: on a snapshot, which Nomad itself makes in constant time.
type nomad struct {
	label    string
	affinity bool
	store    *state.StateStore
	places   map[string]int // by node id

	harness *nomadscheduler.Harness // of the booking that was prepared
	eval    *structs.Evaluation
}

// newNomad fills a state store with the fleet. With affinity, jobs ask for cheap nodes and not only for affordable ones.
func newNomad(label string, fleet []placement.Host, affinity bool) (*nomad, error) {
	store, err := state.NewStateStore(&state.StateStoreConfig{Logger: hclog.NewNullLogger(), Region: "global"})
	if err != nil {
		return nil, fmt.Errorf("make Nomad's state store: %w", err)
	}
	if err := store.SchedulerSetConfig(1, &structs.SchedulerConfiguration{SchedulerAlgorithm: structs.SchedulerAlgorithmBinpack}); err != nil {
		return nil, fmt.Errorf("configure Nomad: %w", err)
	}
	n := &nomad{label: label, affinity: affinity, store: store, places: make(map[string]int, len(fleet))}
	for i, h := range fleet {
		node, err := nomadNode(i, h)
		if err != nil {
			return nil, err
		}
		n.places[node.ID] = i
		if err := store.UpsertNode(structs.NodeRegisterRequestType, uint64(i)+2, node); err != nil {
			return nil, fmt.Errorf("register a Nomad node: %w", err)
		}
	}
	return n, nil
}

// nomadNode offers the free GPUs only, as kubeNode does. Nomad takes nodes of one class for alike, so how many are free is part of
// it. A region is a datacenter, which Nomad filters by before anything else.
func nomadNode(i int, h placement.Host) (*structs.Node, error) {
	id := stableUUID("node", i)
	gpus := make([]*structs.NodeDevice, freeGPUs(h))
	for g := range gpus {
		gpus[g] = &structs.NodeDevice{ID: "GPU-" + strconv.Itoa(g), Healthy: true}
	}
	eligibility := structs.NodeSchedulingEligible
	if !h.Open {
		eligibility = structs.NodeSchedulingIneligible
	}
	node := &structs.Node{
		ID: id, SecretID: id, Name: id, Datacenter: h.Region, NodePool: structs.NodePoolDefault, NodeClass: strconv.Itoa(len(gpus)),
		Drivers:    map[string]*structs.DriverInfo{taskDriver: {Detected: true, Healthy: true}},
		Attributes: map[string]string{"kernel.name": "linux", "arch": "amd64", "driver." + taskDriver: "1"},
		Meta:       map[string]string{priceLabel: strconv.FormatInt(int64(h.Prices[placement.Hourly]), 10)},
		NodeResources: &structs.NodeResources{
			Cpu:      structs.NodeCpuResources{CpuShares: int64(h.CPUs) * 1000},
			Memory:   structs.NodeMemoryResources{MemoryMB: h.MemoryBytes >> 20},
			Disk:     structs.NodeDiskResources{DiskMB: diskMB},
			Networks: []*structs.NetworkResource{{Mode: "host", Device: "eth0", CIDR: "192.0.2.1/32"}},
			Devices: []*structs.NodeDeviceResource{{
				Vendor: "nvidia", Type: "gpu", Name: label(h.Model), Instances: gpus,
			}},
		},
		ReservedResources:     &structs.NodeReservedResources{},
		Status:                structs.NodeStatusReady,
		SchedulingEligibility: eligibility,
	}
	if err := node.ComputeClass(); err != nil {
		return nil, fmt.Errorf("classify a Nomad node: %w", err)
	}
	return node, nil
}

func (n *nomad) name() string { return n.label }

func (n *nomad) prepare(serial int, r placement.Request) error {
	snapshot, err := n.store.Snapshot()
	if err != nil {
		return fmt.Errorf("%s: %w", n.label, err)
	}
	index, err := snapshot.LatestIndex()
	if err != nil {
		return fmt.Errorf("%s: %w", n.label, err)
	}
	job := n.job(serial, r)
	if err := snapshot.UpsertJob(structs.JobRegisterRequestType, index+1, nil, job); err != nil {
		return fmt.Errorf("%s: %w", n.label, err)
	}
	n.eval = &structs.Evaluation{
		ID: stableUUID("eval", serial), Namespace: structs.DefaultNamespace, Priority: job.Priority, Type: job.Type,
		TriggeredBy: structs.EvalTriggerJobRegister, JobID: job.ID, Status: structs.EvalStatusPending,
	}
	if err := snapshot.UpsertEvals(structs.EvalUpdateRequestType, index+2, []*structs.Evaluation{n.eval}); err != nil {
		return fmt.Errorf("%s: %w", n.label, err)
	}
	n.harness = nomadscheduler.NewHarnessWithState(nil, &snapshot.StateStore)
	return nil
}

func (n *nomad) job(serial int, r placement.Request) *structs.Job {
	job := &structs.Job{
		Region: "global", Namespace: structs.DefaultNamespace, ID: fmt.Sprintf("gang-%d", serial),
		Name: fmt.Sprintf("gang-%d", serial), Type: structs.JobTypeBatch, Priority: structs.JobDefaultPriority,
		Datacenters: r.Regions, NodePool: structs.NodePoolDefault, AllAtOnce: true,
		Constraints: []*structs.Constraint{{
			LTarget: "${meta." + priceLabel + "}", Operand: "<=", RTarget: strconv.FormatInt(int64(r.MaxPrice), 10),
		}},
		TaskGroups: []*structs.TaskGroup{{
			Name: taskGroup, Count: r.Nodes, EphemeralDisk: structs.DefaultEphemeralDisk(),
			Tasks: []*structs.Task{{
				Name: taskGroup, Driver: taskDriver, LogConfig: structs.DefaultLogConfig(),
				Resources: &structs.Resources{
					CPU: 100, MemoryMB: 100,
					Devices: []*structs.RequestedDevice{{Name: deviceType + label(r.Model), Count: uint64(r.GPUsPerNode)}},
				},
			}},
		}},
		Status: structs.JobStatusPending,
	}
	if n.affinity {
		for step := range affinitySteps {
			limit := r.MaxPrice * money.Amount(affinitySteps-step) / affinitySteps
			job.Affinities = append(job.Affinities, &structs.Affinity{
				LTarget: "${meta." + priceLabel + "}", Operand: "<=", RTarget: strconv.FormatInt(int64(limit), 10), Weight: affinityWeight,
			})
		}
	}
	job.Canonicalize()
	return job
}

func (n *nomad) book() error {
	events := make(chan any, 1) // port collisions, which jobs without networks cannot have
	sched := nomadscheduler.NewBatchScheduler(hclog.NewNullLogger(), events, n.harness.Snapshot(), n.harness)
	if err := sched.Process(n.eval); err != nil {
		return fmt.Errorf("%s: %w", n.label, err)
	}
	return nil
}

func (n *nomad) booked() []int {
	var hosts []int
	for _, plan := range n.harness.Plans {
		for id, allocations := range plan.NodeAllocation {
			for range allocations {
				hosts = append(hosts, n.places[id])
			}
		}
	}
	return hosts
}

// release drops the snapshot that the booking was made on.
func (n *nomad) release() error {
	n.harness, n.eval = nil, nil
	return nil
}

// stableUUID makes the same id each time: Nomad shuffles nodes by the evaluation's.
func stableUUID(kind string, n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, n))
	return uuid.UUID(sum[:16]).String()
}
