package placement

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// Span is when some GPUs of a host are taken, [From, To) in Unix seconds.
type Span struct {
	GPUs     uint64
	From, To int64
}

// Host is what a snapshot says of one host's GPUs of one model.
type Host struct {
	ID        ids.Host
	Owner     ids.Org
	Model     string
	Runtime   string // what its agent runs nodes with; runtimes do not mix within a cluster
	MemoryMiB int64  // per GPU
	Compute   int    // compute capability times ten; 0 unknown
	Region    string
	Site      string        // hosts of one site share a local network; "" is a site of its own
	RTT       time.Duration // round trip to the control plane; 0 unknown. A site's is that of its worst open host
	Open      bool          // connected, well and offered by its owner
	GPUs      int           // at most 64

	Well   uint64 // bitmaps by the GPU's place on the host
	Leased uint64
	Spot   uint64 // the part of Leased that spot bookings hold

	Leases   []Span // open leases: To is their forecast end
	Reserved []Span // scheduled bookings and maintenance windows

	Prices      [Classes]money.Amount // per GPU-hour now; 0: not offered in that class
	CPUs        int                   // the host's, like the next two; a node counts with its share, by GPUs
	MemoryBytes int64
	DiskBytes   int64
	Driver      int      // major version
	Images      []string // Ray versions that its runtime can start
	Reliability int      // basis points of observed time
	Tier        int      // trust: 0 new, 1 proven, 2 trusted
	Simulated   bool
}

// Request is what is to be placed.
type Request struct {
	Model        string // or "", and then any model with:
	MinMemoryMiB int64
	MinCompute   int
	Runtime      string // "": any, the cheapest

	Nodes       int
	GPUsPerNode int
	Regions     []string // empty: any
	SameSite    bool
	MaxRTT      time.Duration // between the two nodes farthest apart; 0 any

	CPUs        int // per node
	MemoryBytes int64
	DiskBytes   int64
	MinDriver   int
	Image       string

	MinReliability int
	MinTier        int
	AllowOwners    []ids.Org
	DenyOwners     []ids.Org
	MaxPrice       money.Amount // per GPU-hour; 0 any
	Class          Class

	// Start 0 is now, on GPUs that no lease holds. A later start is on GPUs whose leases are forecast to end by then. Neither takes
	// GPUs that are reserved before Until. Both are Unix seconds.
	Start, Until int64
	Preempt      bool       // GPUs under spot leases count as free
	Exclude      []ids.Host // hosts that failed this cluster, or are already in it
}

// Node is a host that takes one node, and what it asks per GPU-hour.
type Node struct {
	Host  Host
	Price money.Amount
}

// Plan names the host of each node, cheapest first.
type Plan struct {
	Model    string
	Runtime  string
	Nodes    []Node
	WorstRTT time.Duration // between the two nodes farthest apart: 0 within a site, -1 when it is not known
}

// Price is the sum of the nodes' prices per GPU-hour.
func (p Plan) Price() money.Amount {
	var sum money.Amount
	for _, n := range p.Nodes {
		sum += n.Price
	}
	return sum
}

// Step is what one condition leaves of the fleet.
type Step struct {
	Condition string
	Hosts     int
	GPUs      int // all of these hosts; from "free" on those that are free, from "reserved" on those that are not promised either
	Excludes  int // GPUs that pass every other condition and fail this one alone
}

// Explanation says which condition blocks a request. Blocking is "" when nothing does.
type Explanation struct {
	Blocking string
	Summary  string
	Funnel   []Step
}

// Change is a request near another that can be placed.
type Change struct {
	Kind    string // region, gpu_model, gpus_per_node, node_count, later, price, network, constraint; combination of two
	Summary string
	Request Request
	Plan    Plan
}
