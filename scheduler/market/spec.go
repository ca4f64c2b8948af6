package market

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// Kinds of booking.
const (
	KindMarket  = "market"  // at the asked prices, at once or at a time
	KindAuction = "auction" // at the prices that hosts bid in a short window
	KindSpot    = "spot"    // at the hosts' spot prices, until a market booking needs the GPUs
)

// Who picks the winning bids of an auction.
const (
	ChooseCheapest = "cheapest"
	ChooseManual   = "manual"
)

// Bounds of a booking.
const (
	MaxNodes       = 64
	MaxGPUsPerNode = 16
	MinDuration    = time.Minute
	MaxDuration    = 720 * time.Hour
	MaxAhead       = 30 * 24 * time.Hour // of a scheduled start
	MinWindow      = 2 * time.Second     // of an auction
	MaxWindow      = 60 * time.Second
	MinIdle        = time.Minute // before a cluster parks, or a parked one is released
	MaxIdle        = 30 * 24 * time.Hour
)

const (
	// SetupAllowance is the time between a cluster's start and its readiness that GPUs are kept free for beside the booked time.
	SetupAllowance = 5 * time.Minute
	// DrainNotice is how long a spot cluster may drain before its GPUs go to a market booking.
	DrainNotice = 60 * time.Second
)

const (
	defaultWindow  = 10 * time.Second
	maxRegions     = 32    // that are named
	maxWithin      = 1_024 // that those stand for: owners name regions as they like
	maxOwners      = 64
	maxNameLength  = 80
	maxCPUs        = 1 << 12
	maxMemoryMiB   = 1 << 24
	maxBytes       = int64(1) << 50
	maxCompute     = 1000
	maxDriver      = 100_000
	maxTier        = 2
	maxReliability = 10_000
	maxRTT         = time.Minute
	maxPrice       = pricing.MaxPrice
)

// Spec is the cluster that a customer wants. The zero value of a field beyond the shape is no condition.
type Spec struct {
	Kind           string // KindMarket when empty
	GPUModel       string // empty: the cheapest model with the memory and the compute capability below
	MinMemoryMiB   int64
	MinCompute     int // compute capability times ten
	Nodes          int
	GPUsPerNode    int
	Duration       time.Duration
	Regions        []string
	SameSite       bool
	MaxRTT         time.Duration
	CPUs           int // per node, as memory and disk
	MemoryBytes    int64
	DiskBytes      int64
	MinDriver      int
	Image          string // a version of Ray; empty: the one that new clusters run
	MinReliability int    // basis points
	MinTier        int
	AllowOwners    []ids.Org
	DenyOwners     []ids.Org
	MaxPrice       money.Amount  // per GPU-hour
	StartsAt       time.Time     // zero: at once
	Window         time.Duration // auctions: how long hosts may bid; zero: ten seconds
	Choose         string        // auctions: ChooseCheapest when empty
	ParkAfter      time.Duration // auto-stop; zero: never
	ReleaseAfter   time.Duration
	ClusterName    string
	Runtime        string // of stored bookings: what the quoted hosts run nodes with, which does not mix
}

// MemoryMiB is the least memory, in MiB, of a GPU that is sold under a number of gigabytes.
func MemoryMiB(gigabytes int) int64 {
	const bytesPerGB, bytesPerMiB = 1_000_000_000, 1 << 20
	return int64(gigabytes) * bytesPerGB / bytesPerMiB
}

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

func requirementsOf(spec Spec) Requirements {
	return Requirements{
		AnyModel: spec.GPUModel == "", MinMemoryMiB: spec.MinMemoryMiB, MinCompute: spec.MinCompute, SameSite: spec.SameSite,
		MaxRTTUS: spec.MaxRTT.Microseconds(), CPUs: spec.CPUs, MemoryBytes: spec.MemoryBytes, DiskBytes: spec.DiskBytes,
		MinDriver: spec.MinDriver, Image: spec.Image, MinReliability: spec.MinReliability, MinTier: spec.MinTier,
		AllowOwners: spec.AllowOwners, DenyOwners: spec.DenyOwners,
	}
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

// validate refuses what no fleet could ever satisfy, naming the field as the API does, and fills in defaults.
func (s *Service) validate(spec *Spec, now time.Time) error {
	if spec.Kind == "" {
		spec.Kind = KindMarket
	}
	for _, check := range []func(*Spec) error{validateShape, s.validatePrice, validateHosts, validateOwners, validateAuction, validateIdle} {
		if err := check(spec); err != nil {
			return err
		}
	}
	return validateStart(spec, now)
}

func validateShape(spec *Spec) error {
	switch {
	case spec.Kind != KindMarket && spec.Kind != KindAuction && spec.Kind != KindSpot:
		return errs.InvalidField("kind", "a booking is of kind market, auction or spot, not %q", spec.Kind)
	case spec.GPUModel == "" && spec.MinMemoryMiB <= 0 && spec.MinCompute <= 0:
		return errs.InvalidField("gpu_model", "name a GPU model, such as H100, or say how much memory or which compute capability it needs")
	case spec.GPUModel == "" && spec.Kind == KindAuction:
		return errs.InvalidField("gpu_model", "an auction is for one GPU model: name it")
	case spec.Nodes < 1 || spec.Nodes > MaxNodes:
		return errs.InvalidField("node_count", "a cluster has between 1 and %d nodes, not %d", MaxNodes, spec.Nodes)
	case spec.GPUsPerNode < 1 || spec.GPUsPerNode > MaxGPUsPerNode:
		return errs.InvalidField("gpus_per_node", "a node has between 1 and %d GPUs, not %d", MaxGPUsPerNode, spec.GPUsPerNode)
	case spec.Duration < MinDuration || spec.Duration > MaxDuration:
		return errs.InvalidField("duration", "a booking lasts between 1m and %dh, not %s", int(MaxDuration.Hours()), ShortDuration(spec.Duration))
	case utf8.RuneCountInString(spec.ClusterName) > maxNameLength:
		return errs.InvalidField("cluster_name", "a name has at most %d characters", maxNameLength)
	case len(spec.Regions) > maxRegions:
		return errs.InvalidField("regions", "name at most %d regions, or none for all", maxRegions)
	}
	return nil
}

func (s *Service) validatePrice(spec *Spec) error {
	switch {
	case spec.MaxPrice < 0 || spec.MaxPrice > maxPrice:
		return errs.InvalidField("max_price_per_gpu_hour", "a price limit is at most %s", s.amount(maxPrice))
	case spec.Kind == KindSpot && spec.MaxPrice == 0:
		return errs.InvalidField("max_price_per_gpu_hour", "a spot booking needs a limit: the most that you would pay per GPU-hour")
	}
	return nil
}

// validateHosts checks the conditions on hosts against what any host could have.
func validateHosts(spec *Spec) error {
	for _, bound := range []struct {
		field       string
		value, most int64
	}{
		{"min_vram_gb", spec.MinMemoryMiB, maxMemoryMiB},
		{"min_compute_capability", int64(spec.MinCompute), maxCompute},
		{"max_rtt_ms", int64(spec.MaxRTT), int64(maxRTT)},
		{"cpus", int64(spec.CPUs), maxCPUs},
		{"memory_gib", spec.MemoryBytes, maxBytes},
		{"disk_gib", spec.DiskBytes, maxBytes},
		{"min_driver", int64(spec.MinDriver), maxDriver},
		{"min_reliability_percent", int64(spec.MinReliability), maxReliability},
		{"min_tier", int64(spec.MinTier), maxTier},
	} {
		if bound.value < 0 {
			return errs.InvalidField(bound.field, "it cannot be below zero: leave it out for no condition")
		}
		if bound.value > bound.most {
			return errs.InvalidField(bound.field, "no host has as much as that")
		}
	}
	return nil
}

func validateOwners(spec *Spec) error {
	for field, owners := range map[string][]ids.Org{"allow_owners": spec.AllowOwners, "deny_owners": spec.DenyOwners} {
		if len(owners) > maxOwners {
			return errs.InvalidField(field, "name at most %d owners", maxOwners)
		}
	}
	for i, denied := range spec.DenyOwners {
		if slices.Contains(spec.AllowOwners, denied) {
			return errs.InvalidField(fmt.Sprintf("deny_owners[%d]", i), "%s is both allowed and denied", denied)
		}
	}
	return nil
}

func validateAuction(spec *Spec) error {
	if spec.Kind != KindAuction {
		switch {
		case spec.Window != 0:
			return errs.InvalidField("bid_window", "only an auction has a window for bids")
		case spec.Choose != "":
			return errs.InvalidField("choose", "only an auction has bids to choose from")
		}
		return nil
	}
	if spec.Window == 0 {
		spec.Window = defaultWindow
	}
	if spec.Choose == "" {
		spec.Choose = ChooseCheapest
	}
	switch {
	case spec.Window < MinWindow || spec.Window > MaxWindow:
		return errs.InvalidField("bid_window", "hosts may bid for between %s and %s, not %s", MinWindow, ShortDuration(MaxWindow), ShortDuration(spec.Window))
	case spec.Choose != ChooseCheapest && spec.Choose != ChooseManual:
		return errs.InvalidField("choose", "bids are chosen cheapest or manual, not %q", spec.Choose)
	}
	return nil
}

func validateIdle(spec *Spec) error {
	for field, d := range map[string]time.Duration{"auto_stop.park_after": spec.ParkAfter, "auto_stop.release_after": spec.ReleaseAfter} {
		if d != 0 && (d < MinIdle || d > MaxIdle) {
			return errs.InvalidField(field, "it is between 1m and %dh, not %s: leave it out for never", int(MaxIdle.Hours()), ShortDuration(d))
		}
	}
	return nil
}

func validateStart(spec *Spec, now time.Time) error {
	switch {
	case spec.StartsAt.IsZero():
		return nil
	case spec.Kind != KindMarket:
		return errs.InvalidField("starts_at", "a booking of kind %s starts at once: leave the start out", spec.Kind)
	case spec.StartsAt.Before(now):
		return errs.InvalidField("starts_at", "%s is in the past: leave the start out to begin at once", spec.StartsAt.UTC().Format(time.RFC3339))
	case spec.StartsAt.After(now.Add(MaxAhead)):
		return errs.InvalidField("starts_at", "a booking starts at most %d days ahead", int(MaxAhead.Hours()/24))
	}
	return nil
}

// matchNames writes the model and the regions as the fleet does, a region that has others within it as those, and refuses names that
// no host has ever reported, listing those that are known.
func (s *Service) matchNames(spec *Spec) error {
	model, models := s.names.model(s.fleet, spec.GPUModel)
	if model == "" && spec.GPUModel != "" {
		return errs.InvalidField("gpu_model", "there is no GPU model %q; there %s", spec.GPUModel, known(models))
	}
	spec.GPUModel = model
	var all []string
	for i, name := range spec.Regions {
		regions, found := s.names.within(s.fleet, name)
		if !found {
			return errs.InvalidField(fmt.Sprintf("regions[%d]", i), "there is no region %q; there %s", name, known(regions))
		}
		for _, region := range regions {
			if !slices.Contains(all, region) {
				all = append(all, region)
			}
		}
	}
	if len(all) > maxWithin {
		return errs.InvalidField("regions", "these are %d regions, of at most %d: name some of those, or none for all", len(all), maxWithin)
	}
	spec.Regions = all
	return nil
}

func known(names []string) string {
	switch len(names) {
	case 0:
		return "are no hosts on offer yet"
	case 1:
		return "is only " + names[0]
	default:
		return "are " + strings.Join(names, ", ")
	}
}

// ShortDuration leaves out what is zero: 1h, not 1h0m0s.
func ShortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func milliseconds(n *int64) time.Duration {
	if n == nil {
		return 0
	}
	return time.Duration(*n) * time.Millisecond
}
