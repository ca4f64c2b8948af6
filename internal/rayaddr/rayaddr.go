// Package rayaddr says where the Ray processes of a node listen under the process runtime.
//
// Nodes of the process runtime share their machine's network, so every live node has a slot of its own, and with it a loopback
// address and a range of ports. Ray binds several of its ports on every interface, hence ranges that do not overlap as well.
// The ranges lie below Linux's ephemeral ports (32768 and up), so that outgoing connections never take one.
package rayaddr

import "fmt"

// Slots is how many nodes the process runtime can hold on one machine; the schema's check on nodes.slot says the same.
const Slots = 220

// PortCount is the length of a slot's range: ten ports for Ray's own services and the rest for its workers.
const PortCount = 100

const (
	firstPort       = 10_000
	firstWorkerPort = 10
	hostsPerOctet   = 250
)

// Address returns the loopback address of a slot. Ray replaces 127.0.0.1 by the machine's own address and keeps others.
func Address(slot int) string {
	return fmt.Sprintf("127.77.%d.%d", slot/hostsPerOctet, slot%hostsPerOctet+2)
}

// PortBase returns the first port of a slot.
func PortBase(slot int) int { return firstPort + slot*PortCount }

// Ports are the ports of one node.
type Ports struct {
	GCS                int // heads only
	Dashboard          int // heads only: Ray's HTTP API and dashboard
	RayClient          int // heads only
	NodeManager        int
	ObjectManager      int
	RuntimeEnvAgent    int
	DashboardAgentGRPC int
	DashboardAgentHTTP int
	Metrics            int
	MinWorker          int
	MaxWorker          int
}

// PortsFrom lays out the range that begins at base and has count ports.
func PortsFrom(base, count int) Ports {
	return Ports{
		GCS:                base,
		Dashboard:          base + 1,
		RayClient:          base + 2,
		NodeManager:        base + 3,
		ObjectManager:      base + 4,
		RuntimeEnvAgent:    base + 5,
		DashboardAgentGRPC: base + 6,
		DashboardAgentHTTP: base + 7,
		Metrics:            base + 8,
		MinWorker:          base + firstWorkerPort,
		MaxWorker:          base + count - 1,
	}
}
