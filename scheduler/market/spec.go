package market

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// Kinds of booking.
const (
	KindMarket  = "market"  // at the asked prices, at once or at a time
	KindAuction = "auction" // at the prices that hosts bid in a short window
	KindSpot    = "spot"    // at the hosts' spot prices, until a market booking needs the GPUs
)

// What accepting a quote does.
const (
	PurposeCluster   = "cluster"
	PurposeAddition  = "addition"  // more nodes for a cluster
	PurposeExtension = "extension" // more time for a cluster
)

const (
	// SetupAllowance is the time between a cluster's start and its readiness that GPUs are kept free for beside the booked time.
	SetupAllowance = 5 * time.Minute
	// DrainNotice is how long a spot cluster may drain before its GPUs go to a market booking.
	DrainNotice = 60 * time.Second
)

// Requirements is the document of bookings.requirements: what a booking asks for beyond its columns.
type Requirements struct {
	AnyModel       bool      `json:"any_model,omitempty"` // the customer left the model open; the row has the one that was quoted
	MinMemoryMiB   int64     `json:"min_memory_mib,omitempty"`
	MinCompute     int       `json:"min_compute,omitempty"`
	SameSite       bool      `json:"same_site,omitempty"`
	MaxRTTUS       int64     `json:"max_rtt_us,omitempty"`
	CPUs           int       `json:"cpus,omitempty"`
	MemoryBytes    int64     `json:"memory_bytes,omitempty"`
	DiskBytes      int64     `json:"disk_bytes,omitempty"`
	MinDriver      int       `json:"min_driver,omitempty"`
	Image          string    `json:"image,omitempty"`
	MinReliability int       `json:"min_reliability_bps,omitempty"`
	MinTier        int       `json:"min_tier,omitempty"`
	AllowOwners    []ids.Org `json:"allow_owners,omitempty"`
	DenyOwners     []ids.Org `json:"deny_owners,omitempty"`
	Runtime        string    `json:"runtime,omitempty"`       // of the quoted hosts: what the booking is placed on anew must run the same
	QuotedRTTUS    *int64    `json:"quoted_rtt_us,omitempty"` // between the two quoted nodes farthest apart; absent: not known
}

// SpecOf is the spec of a stored booking, with the model that it was quoted of.
func SpecOf(b schedulerdb.Booking) (Spec, error) {
	spec, _, err := readSpec(b)
	return spec, err
}

func readSpec(b schedulerdb.Booking) (Spec, Requirements, error) {
	var r Requirements
	if err := json.Unmarshal(b.Requirements, &r); err != nil {
		return Spec{}, r, fmt.Errorf("read requirements of %s: %w", b.ID, err)
	}
	spec := Spec{
		Kind: b.Kind, GPUModel: b.GPUModel, MinMemoryMiB: r.MinMemoryMiB, MinCompute: r.MinCompute,
		Nodes: int(b.NodeCount), GPUsPerNode: int(b.GPUsPerNode), Duration: milliseconds(&b.DurationMS), Regions: b.Regions,
		SameSite: r.SameSite, MaxRTT: time.Duration(r.MaxRTTUS) * time.Microsecond, CPUs: r.CPUs, MemoryBytes: r.MemoryBytes,
		DiskBytes: r.DiskBytes, MinDriver: r.MinDriver, Image: r.Image, MinReliability: r.MinReliability, MinTier: r.MinTier,
		AllowOwners: r.AllowOwners, DenyOwners: r.DenyOwners, Choose: b.Choose,
		Runtime: r.Runtime, ParkAfter: milliseconds(b.ParkAfterMS), ReleaseAfter: milliseconds(b.ReleaseAfterMS), ClusterName: b.ClusterName,
	}
	if b.MaxPricePerGPUHour != nil {
		spec.MaxPrice = money.Amount(*b.MaxPricePerGPUHour)
	}
	if b.StartsAt != nil {
		spec.StartsAt = *b.StartsAt
	}
	if b.BidsCloseAt != nil {
		spec.Window = b.BidsCloseAt.Sub(b.QuotedAt)
	}
	return spec, r, nil
}

// RequestFor is the placement request of a spec at a moment.
func RequestFor(spec Spec, now time.Time) placement.Request {
	r := placement.Request{
		Model: spec.GPUModel, Runtime: spec.Runtime, MinMemoryMiB: spec.MinMemoryMiB, MinCompute: spec.MinCompute, Nodes: spec.Nodes, GPUsPerNode: spec.GPUsPerNode,
		Regions: spec.Regions, SameSite: spec.SameSite, MaxRTT: spec.MaxRTT, CPUs: spec.CPUs, MemoryBytes: spec.MemoryBytes,
		DiskBytes: spec.DiskBytes, MinDriver: spec.MinDriver, Image: spec.Image, MinReliability: spec.MinReliability, MinTier: spec.MinTier,
		AllowOwners: spec.AllowOwners, DenyOwners: spec.DenyOwners, MaxPrice: spec.MaxPrice, Class: classOf(spec),
	}
	begin := now
	if !spec.StartsAt.IsZero() {
		begin, r.Start = spec.StartsAt, spec.StartsAt.Unix()
	}
	r.Until = begin.Add(spec.Duration + SetupAllowance).Unix()
	return r
}

func classOf(spec Spec) placement.Class {
	if spec.Kind == KindSpot {
		return placement.Spot
	}
	return placement.ClassOf(spec.Duration)
}

func milliseconds(n *int64) time.Duration {
	if n == nil {
		return 0
	}
	return time.Duration(*n) * time.Millisecond
}
