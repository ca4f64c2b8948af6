package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// Cluster is a Ray cluster.
type Cluster struct {
	ID           ids.Cluster  `json:"id"`
	OrgID        ids.Org      `json:"org_id"`
	BookingID    ids.Booking  `json:"booking_id"`
	Name         string       `json:"name"`
	State        string       `json:"state" enum:"reserved,preparing,head_up,joining,ready,degraded,parked,draining,released,failed" doc:"parked: idle, its GPU nodes released, nothing billed; resume brings them back"`
	Kind         string       `json:"kind" enum:"market,auction,spot"`
	Version      int64        `json:"version" doc:"Grows with every change"`
	GPUModel     string       `json:"gpu_model"`
	NodeCount    int          `json:"node_count"`
	GPUsPerNode  int          `json:"gpus_per_node"`
	RayVersion   string       `json:"ray_version"`
	RayReachable bool         `json:"ray_reachable" doc:"false: its hosts are simulated, and no Ray runs on them"`
	Simulated    bool         `json:"simulated"`
	Billing      bool         `json:"billing" doc:"Whether time is being charged now"`
	CreatedAt    time.Time    `json:"created_at"`
	ReadyAt      *time.Time   `json:"ready_at,omitempty"`
	EndsAt       *time.Time   `json:"ends_at,omitempty" doc:"When the booked time is used up, if it stays ready"`
	EndedAt      *time.Time   `json:"ended_at,omitempty"`
	SettledAt    *time.Time   `json:"settled_at,omitempty"`
	FaultParty   string       `json:"fault_party,omitempty" enum:"customer,owner,platform,funds,preempted" doc:"On whose account it ended"`
	EndReason    string       `json:"end_reason,omitempty"`
	Replacements int          `json:"replacements"`
	PreemptAt    *time.Time   `json:"preempt_at,omitempty" doc:"Spot: when its GPUs go to a market booking"`
	ActiveAt     *time.Time   `json:"active_at,omitempty" doc:"When a job, task or session was last seen"`
	AutoStop     AutoStop     `json:"auto_stop"`
	ParksAt      *time.Time   `json:"parks_at,omitempty" doc:"When it is parked if it stays idle; absent in lists"`
	ReleasesAt   *time.Time   `json:"releases_at,omitempty" doc:"Parked: when it is released; absent in lists"`
	Nodes        []Node       `json:"nodes,omitempty" doc:"Absent in lists"`
	Phases       []Phase      `json:"phases,omitempty" doc:"The assembly, step by step; absent in lists"`
	Cost         *ClusterCost `json:"cost,omitempty" doc:"Absent in lists"`
	Receipt      *Receipt     `json:"receipt,omitempty" doc:"The latest delivery receipt"`
}

// Node is a cluster's member.
type Node struct {
	ID              ids.Node   `json:"id"`
	HostID          ids.Host   `json:"host_id"`
	Role            string     `json:"role" enum:"head,gpu"`
	Ordinal         int        `json:"ordinal"`
	State           string     `json:"state" enum:"planned,starting,running,alive,stopping,stopped,failed"`
	Reason          string     `json:"reason,omitempty"`
	Address         string     `json:"address"`
	Region          string     `json:"region"`
	GPUs            int        `json:"gpus"`
	PricePerGPUHour *Money     `json:"price_per_gpu_hour,omitempty"`
	CreatedAt       time.Time  `json:"created_at"`
	AliveAt         *time.Time `json:"alive_at,omitempty"`
	EndedAt         *time.Time `json:"ended_at,omitempty"`
}

// Phase is one step of the assembly.
type Phase struct {
	State      string    `json:"state"`
	EnteredAt  time.Time `json:"entered_at"`
	DurationMS *int64    `json:"duration_ms,omitempty" doc:"Absent while it lasts"`
}

// Receipt compares what was delivered with what was booked.
type Receipt struct {
	MadeAt   time.Time `json:"made_at"`
	SHA256   string    `json:"sha256" doc:"Of the document's bytes, hexadecimal"`
	Document string    `json:"document" doc:"Canonical JSON"`
}

// ClusterCost is what a cluster costs, so far and at most.
type ClusterCost struct {
	Hold       Money     `json:"hold" doc:"Set aside at booking"`
	Charged    Money     `json:"charged" doc:"Posted so far"`
	PerHour    Money     `json:"per_hour" doc:"The rate now; zero while nothing is billed"`
	RefundNow  Money     `json:"refund_now" doc:"Returned if it were released now"`
	Refunded   Money     `json:"refunded" doc:"Already returned"`
	AsOf       time.Time `json:"as_of" doc:"What charged counts up to, for a meter to tick from"`
	BilledMS   int64     `json:"billed_ms" doc:"Cluster time billed so far"`
	DurationMS int64     `json:"duration_ms" doc:"Cluster time booked"`
}

// ClusterEvent is an entry of the timeline.
type ClusterEvent struct {
	Seq        int64       `json:"seq"`
	ClusterID  ids.Cluster `json:"cluster_id"`
	At         time.Time   `json:"at"`
	Kind       string      `json:"kind" doc:"state, node, receipt, release, credit, notice, ..."`
	State      string      `json:"state,omitempty"`
	NodeID     *ids.Node   `json:"node_id,omitempty"`
	Message    string      `json:"message"`
	FaultParty string      `json:"fault_party,omitempty"`
}

// RayToken opens one cluster's Ray API to stock Ray clients for a while.
type RayToken struct {
	Token     string            `json:"token"`
	ExpiresAt time.Time         `json:"expires_at"`
	Env       map[string]string `json:"env" doc:"What to export: RAY_API_SERVER_ADDRESS, RAY_AUTH_MODE, RAY_AUTH_TOKEN"`
}

// DashboardTicket is a one-time address of the cluster's Ray dashboard.
type DashboardTicket struct {
	URL       string    `json:"url"`
	ExpiresAt time.Time `json:"expires_at" doc:"The address must be opened by then, once"`
}

// Job is a Ray job of a cluster, as Ray tells it.
type Job struct {
	ID         string     `json:"id" doc:"Ray's submission id"`
	Status     string     `json:"status" doc:"PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED"`
	Entrypoint string     `json:"entrypoint"`
	Message    string     `json:"message,omitempty"`
	StartedAt  *time.Time `json:"started_at,omitempty"`
	EndedAt    *time.Time `json:"ended_at,omitempty"`
}

// JobLogs is what a job has printed, the end of it if it is long.
type JobLogs struct {
	Logs      string `json:"logs"`
	Truncated bool   `json:"truncated"`
}

// ExtensionCreate asks for the price of more time. The quote is accepted like any other.
type ExtensionCreate struct {
	Duration string `json:"duration" doc:"On top of what is booked: 1h, 6h" example:"6h"`
}

// AdditionCreate asks for the price of more nodes, like those the cluster has, until its end.
type AdditionCreate struct {
	NodeCount          int    `json:"node_count" example:"1"`
	MaxPricePerGPUHour string `json:"max_price_per_gpu_hour,omitempty" doc:"Decimal tokens" example:"2.50"`
}

// Runway is how long an organisation's clusters go on.
type Runway struct {
	AsOf        time.Time       `json:"as_of"`
	Available   Money           `json:"available"`
	BurnPerHour Money           `json:"burn_per_hour" doc:"Of everything that is billed now"`
	HoursLeft   *float64        `json:"hours_left,omitempty" doc:"How long the available balance would pay for that beyond what is held; absent while nothing is billed"`
	HoldLeft    Money           `json:"hold_left" doc:"Of all clusters: returned if they were released now"`
	Clusters    []RunwayCluster `json:"clusters" doc:"Those that have not ended, the first to stop first"`
	Warnings    []string        `json:"warnings" doc:"Sentences for people; empty when all is well"`
}

// RunwayCluster is one cluster's part.
type RunwayCluster struct {
	ClusterID  ids.Cluster `json:"cluster_id"`
	Name       string      `json:"name"`
	State      string      `json:"state"`
	PerHour    Money       `json:"per_hour" doc:"Zero while nothing is billed"`
	HoldLeft   Money       `json:"hold_left" doc:"Returned if it were released now"`
	StopsAt    *time.Time  `json:"stops_at,omitempty" doc:"When its booked time is used up or it is preempted; absent while it does not run down"`
	ParksAt    *time.Time  `json:"parks_at,omitempty" doc:"When it is parked if it stays idle"`
	ReleasesAt *time.Time  `json:"releases_at,omitempty" doc:"Parked: when it is released"`
}
