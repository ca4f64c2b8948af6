package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// Offer is what one region has of one GPU model now.
type Offer struct {
	GPUModel    string `json:"gpu_model" example:"H100"`
	Region      string `json:"region" example:"eu-west"`
	MemoryMiB   int64  `json:"memory_mib" doc:"Per GPU, the least of the hosts'"`
	FreeGPUs    int    `json:"free_gpus"`
	TotalGPUs   int    `json:"total_gpus"`
	Hosts       int    `json:"hosts" doc:"With at least one free GPU"`
	LargestNode int    `json:"largest_node" doc:"Most free GPUs on one host"`
	PriceFrom   Money  `json:"price_from" doc:"Cheapest, per GPU-hour"`
	Simulated   bool   `json:"simulated" doc:"Some of these devices are simulated"`
}

// BookingSpec is the cluster that a customer wants.
type BookingSpec struct {
	GPUModel           string   `json:"gpu_model" doc:"As listed by the offers" example:"H100" minLength:"1" maxLength:"40"`
	NodeCount          int      `json:"node_count" doc:"GPU nodes; the head comes on top and is free" example:"2"`
	GPUsPerNode        int      `json:"gpus_per_node" example:"1"`
	Duration           string   `json:"duration" doc:"How long, from ready: 30m, 6h, 2h30m; at least 1m, at most 720h" example:"1h"`
	Regions            []string `json:"regions,omitempty" doc:"Any of these; all when absent" maxItems:"32"`
	MaxPricePerGPUHour string   `json:"max_price_per_gpu_hour,omitempty" doc:"Decimal tokens" example:"2.50"`
	ClusterName        string   `json:"cluster_name,omitempty" maxLength:"80"`
}

// Quote is a price that holds until it expires. Its id is the key under which it can be booked once.
type Quote struct {
	ID            ids.Booking `json:"id"`
	Spec          BookingSpec `json:"spec"`
	Lines         []QuoteLine `json:"lines" doc:"One per node"`
	PricePerHour  Money       `json:"price_per_hour" doc:"For the whole cluster, everything included"`
	Hold          Money       `json:"hold" doc:"Set aside at booking: the most that the cluster can cost"`
	OwnersReceive Money       `json:"owners_receive" doc:"Of the hold, if all of it is used"`
	PlatformFee   Money       `json:"platform_fee" doc:"Of the hold, if all of it is used; contained in the price"`
	RefundHalfway Money       `json:"refund_halfway" doc:"Returned if the cluster is released at half time"`
	Available     Money       `json:"available" doc:"The organisation's balance now"`
	Simulated     bool        `json:"simulated"`
	QuotedAt      time.Time   `json:"quoted_at"`
	ExpiresAt     time.Time   `json:"expires_at"`
}

// QuoteLine is one node of a quote.
type QuoteLine struct {
	HostID          ids.Host `json:"host_id"`
	Region          string   `json:"region"`
	Site            string   `json:"site"`
	GPUModel        string   `json:"gpu_model"`
	GPUs            int      `json:"gpus"`
	PricePerGPUHour Money    `json:"price_per_gpu_hour"`
}

// Explanation says why nothing fits: how many GPUs are left after each condition, and which one blocks.
type Explanation struct {
	Blocking string            `json:"blocking" doc:"The condition that leaves too little: gpu_model, region, price, gpus_per_node, node_count" example:"region"`
	Summary  string            `json:"summary" doc:"One sentence"`
	Funnel   []ExplanationStep `json:"funnel"`
	Known    []string          `json:"known,omitempty" doc:"For an unknown GPU model or region: what there is"`
}

// ExplanationStep is what remains after one condition.
type ExplanationStep struct {
	Condition string `json:"condition"`
	Hosts     int    `json:"hosts"`
	GPUs      int    `json:"gpus"`
}

// BookingCreate accepts a quote. The Idempotency-Key header is optional here: the quote's id already is one.
type BookingCreate struct {
	QuoteID     ids.Booking `json:"quote_id"`
	ClusterName string      `json:"cluster_name,omitempty" maxLength:"80"`
}

// Booking is the outcome of an accepted quote.
type Booking struct {
	ID        ids.Booking  `json:"id"`
	State     string       `json:"state" enum:"quoted,accepted,expired,refused"`
	ClusterID *ids.Cluster `json:"cluster_id,omitempty"`
	DecidedAt *time.Time   `json:"decided_at,omitempty"`
}

// Host is one machine of an owner.
type Host struct {
	ID                   ids.Host   `json:"id"`
	Name                 string     `json:"name"`
	Kind                 string     `json:"kind" enum:"gpu,head"`
	State                string     `json:"state" enum:"enrolled,verifying,idle,leased,draining,quarantined,lost,retired"`
	StateReason          string     `json:"state_reason,omitempty"`
	Region               string     `json:"region"`
	Site                 string     `json:"site,omitempty"`
	Connected            bool       `json:"connected"`
	Simulated            bool       `json:"simulated"`
	LastSeenAt           *time.Time `json:"last_seen_at,omitempty"`
	EnrolledAt           time.Time  `json:"enrolled_at"`
	AgentVersion         string     `json:"agent_version,omitempty"`
	DriverVersion        string     `json:"driver_version,omitempty"`
	CUDAVersion          string     `json:"cuda_version,omitempty"`
	CPUs                 int        `json:"cpus,omitempty"`
	MemoryBytes          int64      `json:"memory_bytes,omitempty"`
	GPUs                 []GPU      `json:"gpus"`
	Ask                  *Ask       `json:"ask,omitempty"`
	WhyNotEarning        string     `json:"why_not_earning,omitempty" doc:"One sentence, absent while it earns"`
	CertificateExpiresAt *time.Time `json:"certificate_expires_at,omitempty"`
}

// GPU is one device of a host, as measured.
type GPU struct {
	ID                ids.GPU `json:"id"`
	UUID              string  `json:"uuid"`
	Model             string  `json:"model"`
	Product           string  `json:"product"`
	MemoryMiB         int64   `json:"memory_mib"`
	ComputeCapability string  `json:"compute_capability,omitempty"`
	Healthy           bool    `json:"healthy"`
	HealthNote        string  `json:"health_note,omitempty"`
	Leased            bool    `json:"leased"`
}

// Ask is an owner's price.
type Ask struct {
	PricePerGPUHour Money     `json:"price_per_gpu_hour"`
	Active          bool      `json:"active"`
	UpdatedAt       time.Time `json:"updated_at"`
}

// AskPut sets it.
type AskPut struct {
	PricePerGPUHour string `json:"price_per_gpu_hour" doc:"Decimal tokens" example:"1.90" minLength:"1" maxLength:"40"`
	Active          bool   `json:"active" doc:"false: take no new bookings"`
}

// JoinTokenCreate asks for a permission to enrol one host.
type JoinTokenCreate struct {
	Region string `json:"region" minLength:"1" maxLength:"40" pattern:"^[a-z0-9-]+$"`
	Site   string `json:"site,omitempty" maxLength:"80"`
	Kind   string `json:"kind,omitempty" enum:"gpu,head" default:"gpu" doc:"head: for operators of the platform only"`
}

// JoinToken is such a permission without its secret.
type JoinToken struct {
	ID        ids.JoinToken `json:"id"`
	State     string        `json:"state" enum:"open,used,expired,revoked"`
	Kind      string        `json:"kind"`
	Region    string        `json:"region"`
	Site      string        `json:"site,omitempty"`
	CreatedAt time.Time     `json:"created_at"`
	ExpiresAt time.Time     `json:"expires_at"`
	HostID    *ids.Host     `json:"host_id,omitempty"`
}

// JoinTokenCreated carries the secret, this once, and the line to run on the host.
type JoinTokenCreated struct {
	JoinToken
	Secret  string `json:"secret"`
	Command string `json:"command"`
}

// Earnings is what an owner has earned.
type Earnings struct {
	Payable  Money          `json:"payable" doc:"Earned and not yet in a payout"`
	InFlight Money          `json:"in_flight" doc:"In a payout that the chain has not finalised"`
	Paid     Money          `json:"paid" doc:"Finalised on chain"`
	Days     []EarningsDay  `json:"days"`
	Hosts    []EarningsHost `json:"hosts"`
}

// EarningsDay is one UTC day.
type EarningsDay struct {
	Day    string `json:"day" example:"2026-11-22"`
	Earned Money  `json:"earned"`
	Paid   Money  `json:"paid"`
}

// EarningsHost is one host's share.
type EarningsHost struct {
	HostID   ids.Host `json:"host_id"`
	Name     string   `json:"name"`
	Earned   Money    `json:"earned"`
	GPUHours string   `json:"gpu_hours" doc:"Decimal text" example:"12.5000"`
}
