package simfleet

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/ids"
)

// What starting and stopping a node takes.
const (
	minStart       = 300 * time.Millisecond
	maxStart       = 2500 * time.Millisecond
	maxStop        = time.Second
	summaryMaxWait = 3 * time.Second // a head tells of its cluster at least so often
	ownerDelay     = time.Second     // until an owner sees that a machine has been mended
)

const (
	reasonRestarted = "the machine was switched off and on again"
	faultLost       = "GPU is lost"
	idleCelsius     = 31
	xidOffBus       = 79
)

// machine is what is behind an agent. The agent's mutex guards it.
type machine struct {
	boots  int
	nodes  map[string]*node // nil while there is none
	skew   time.Duration
	lost   map[int]bool    // GPUs that fell off the bus
	xids   map[int][]int32 // hardware errors since it was switched on, by GPU
	doom   time.Duration   // it is switched off for so long as soon as it begins to start a node
	mended bool            // its owner has to have it verified again
}

// node is a node of a cluster on this host.
type node struct {
	id      string
	cluster string
	head    bool
	address string
	gpus    int32
	phase   agentpb.NodePhase
	message string
}

// apply brings the host in line with the desired state, as the real agent's runtime does.
func (a *agent) apply(s *session, desired *agentpb.DesiredState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.session != s {
		return
	}
	named := make(map[string]bool, len(desired.GetNodes()))
	for _, spec := range desired.GetNodes() {
		named[spec.GetNodeId()] = true
		a.applyNode(spec)
	}
	for id, n := range a.machine.nodes {
		if !named[id] {
			a.leave(n)
			delete(a.machine.nodes, id)
		}
	}
	a.applied = desired.GetGeneration()
	a.sendReport()
	if a.machine.doom > 0 && slices.ContainsFunc(slices.Collect(maps.Values(a.machine.nodes)), starting) {
		off := a.machine.doom
		a.machine.doom = 0
		a.switchOff(off)
	}
}

func starting(n *node) bool { return n.phase == agentpb.NodePhase_NODE_PHASE_STARTING }

func (a *agent) applyNode(spec *agentpb.NodeSpec) {
	n := a.machine.nodes[spec.GetNodeId()]
	switch {
	case n == nil && spec.GetStop():
		a.add(spec).phase = agentpb.NodePhase_NODE_PHASE_STOPPED
	case n == nil:
		n = a.add(spec)
		a.later(n, minStart+time.Duration(a.rng.Int64N(int64(maxStart-minStart))), func() { a.begin(n) })
	case spec.GetStop() && n.phase != agentpb.NodePhase_NODE_PHASE_STOPPING && n.phase != agentpb.NodePhase_NODE_PHASE_STOPPED && n.phase != agentpb.NodePhase_NODE_PHASE_FAILED:
		n.phase = agentpb.NodePhase_NODE_PHASE_STOPPING
		drain := min(maxStop, time.Duration(spec.GetDrainMs())*time.Millisecond)
		a.later(n, drain/2+time.Duration(a.rng.Int64N(int64(maxStop/4))), func() { a.end(n) })
	}
}

func (a *agent) add(spec *agentpb.NodeSpec) *node {
	if a.machine.nodes == nil {
		a.machine.nodes = map[string]*node{}
	}
	n := &node{
		id: spec.GetNodeId(), cluster: spec.GetClusterId(), head: spec.GetHead(), address: spec.GetAddress(),
		gpus: int32(len(spec.GetGpuUuids())), phase: agentpb.NodePhase_NODE_PHASE_STARTING,
	}
	a.machine.nodes[n.id] = n
	return n
}

// later calls step with the mutex held, if the node is still there by then.
func (a *agent) later(n *node, delay time.Duration, step func()) {
	a.fleet.clock.after(delay, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.machine.nodes[n.id] == n {
			step()
		}
	})
}

func (a *agent) begin(n *node) {
	if !starting(n) {
		return
	}
	n.phase = agentpb.NodePhase_NODE_PHASE_RUNNING
	a.fleet.clusters.join(n, a)
	a.fleet.count(func(s *Stats) { s.NodesStarted++ })
	a.sendReport()
	if n.head {
		a.tellSummary(n)
	}
}

func (a *agent) end(n *node) {
	a.leave(n)
	n.phase = agentpb.NodePhase_NODE_PHASE_STOPPED
	a.fleet.count(func(s *Stats) { s.NodesStopped++ })
	a.sendReport()
}

func (a *agent) leave(n *node) { a.fleet.clusters.leave(n) }

// tellSummary keeps a head's summary fresh for as long as it runs.
func (a *agent) tellSummary(n *node) {
	a.later(n, summaryMaxWait, func() {
		if n.phase == agentpb.NodePhase_NODE_PHASE_RUNNING {
			a.sendReport()
			a.tellSummary(n)
		}
	})
}

// poke has a head report soon: its cluster has changed. It is called without any agent's mutex.
func (a *agent) poke() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sendReport()
}

func (a *agent) nodeStatuses() []*agentpb.NodeStatus {
	if len(a.machine.nodes) == 0 {
		return nil
	}
	statuses := make([]*agentpb.NodeStatus, 0, len(a.machine.nodes))
	for _, n := range a.machine.nodes {
		status := &agentpb.NodeStatus{NodeId: n.id, Phase: n.phase, Message: n.message}
		if n.head && n.phase == agentpb.NodePhase_NODE_PHASE_RUNNING {
			status.Ray = a.fleet.clusters.summary(n.cluster)
		}
		statuses = append(statuses, status)
	}
	return statuses
}

// cut ends the stream and keeps it away for a while; what runs goes on.
func (a *agent) cut(away time.Duration) {
	if until := time.Now().Add(away); until.After(a.until) {
		a.until = until
	}
	if a.session != nil {
		a.session.end()
	}
}

// switchOff ends the machine and all that runs on it for a while.
func (a *agent) switchOff(away time.Duration) {
	for _, n := range a.machine.nodes {
		a.leave(n)
		if n.phase != agentpb.NodePhase_NODE_PHASE_STOPPED {
			n.phase, n.message = agentpb.NodePhase_NODE_PHASE_FAILED, reasonRestarted
		}
	}
	a.restart()
	a.cut(away)
}

// restart is a reset of the machine, which mends its GPUs.
func (a *agent) restart() {
	a.machine.boots++
	a.machine.mended = a.machine.mended || len(a.machine.lost)+len(a.machine.xids) > 0
	a.machine.lost, a.machine.xids = nil, nil
}

// befall makes an event happen.
func (a *agent) befall(e Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch e.Kind {
	case Join:
		a.absent = false
		select {
		case a.arrive <- struct{}{}:
		default:
		}
	case Flap:
		a.cut(e.For)
	case Vanish:
		a.switchOff(e.For)
	case VanishInAssembly:
		a.machine.doom = e.For
		a.fleet.clock.after(e.For, a.spare)
	case GPULost:
		set(&a.machine.lost, e.GPU, true)
		set(&a.machine.xids, e.GPU, append(a.machine.xids[e.GPU], xidOffBus))
		a.ail(e.For)
	case XID:
		set(&a.machine.xids, e.GPU, append(a.machine.xids[e.GPU], e.XID))
		a.ail(e.For)
	case ClockSkew:
		a.machine.skew = e.Skew
		a.sendHealth()
		a.fleet.clock.after(e.For, a.setClock)
	case PriceChange: // the owner's doing, not the host's
	}
}

// askRecheck has the owner ask for a verification once the machine has been mended. The mutex is held.
func (a *agent) askRecheck() {
	if !a.machine.mended {
		return
	}
	a.machine.mended = false
	a.fleet.clock.after(ownerDelay, func() {
		a.fleet.act(a, func(ctx context.Context, id ids.Host) error { return a.fleet.options.Keeper.Recheck(ctx, a.host, id) })
	})
}

func set[V any](all *map[int]V, gpu int, value V) {
	if *all == nil {
		*all = map[int]V{}
	}
	(*all)[gpu] = value
}

// ail tells of broken GPUs, and mends them later by a restart.
func (a *agent) ail(sick time.Duration) {
	a.sendMeasured()
	a.fleet.clock.after(sick, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.machine.lost)+len(a.machine.xids) > 0 {
			a.switchOff(reconnectBase)
		}
	})
}

func (a *agent) spare() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.machine.doom = 0
}

func (a *agent) setClock() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.machine.skew = 0
	a.sendHealth()
}

func (a *agent) sendMeasured() {
	if a.session != nil {
		a.send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Inventory{Inventory: a.inventory()}})
	}
	a.sendHealth()
}

func (a *agent) sendHealth() {
	if a.session != nil {
		a.send(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Health{Health: a.health()}})
	}
}

func (a *agent) inventory() *agentpb.Inventory {
	h := a.host
	inventory := &agentpb.Inventory{
		MemoryBytes: h.Memory, Cpus: int32(h.CPUs), DiskFreeBytes: h.Disk, Os: "linux", Kernel: "simulated", Simulated: true,
		RayVersions: a.fleet.options.RayVersions, Runtime: Runtime,
	}
	if h.GPUs == 0 {
		return inventory
	}
	inventory.DriverVersion, inventory.NvmlVersion, inventory.CudaVersion = h.Driver, "12."+h.Driver, "12.8"
	for i := range h.GPUs {
		inventory.Gpus = append(inventory.Gpus, a.gpu(i))
	}
	return inventory
}

func (a *agent) gpu(i int) *agentpb.GPU {
	gpu := &agentpb.GPU{Ordinal: int32(i), Uuid: "GPU-" + a.identity.serial("gpu", i)}
	if a.machine.lost[i] {
		gpu.Fault = faultLost
		return gpu
	}
	m := a.host.model
	gpu.Product, gpu.MemoryBytes, gpu.Architecture, gpu.ComputeCapability = m.product, m.bytes, &m.architecture, &m.capability
	gpu.Cores, gpu.MemoryBusBits, gpu.MaxSmClockMhz, gpu.PcieGenerationMax = &m.cores, &m.busBits, &m.clock, &m.pcie
	gpu.MigEnabled, gpu.PcieWidthMax = proto.Bool(false), proto.Int32(16)
	return gpu
}

func (a *agent) health() *agentpb.Health {
	health := &agentpb.Health{ClockUnixMs: time.Now().Add(a.machine.skew).UnixMilli(), DiskFreeBytes: a.host.Disk, Udp: proto.Bool(true)}
	for i := range a.host.GPUs {
		gpu := &agentpb.GPUHealth{Uuid: "GPU-" + a.identity.serial("gpu", i), Xids: a.machine.xids[i]}
		if !a.machine.lost[i] {
			gpu.TemperatureCelsius, gpu.EccUncorrected, gpu.RowsPending = proto.Int32(idleCelsius), proto.Int64(0), proto.Bool(false)
		}
		health.Gpus = append(health.Gpus, gpu)
	}
	return health
}
