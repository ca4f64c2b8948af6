package api

import (
	"math"
	"sort"
	"strconv"
	"strings"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market"
)

const (
	gib       = 1 << 30
	maxVRAMGB = 10_000 // as the wire type's schema has it
	tenths    = 10     // a compute capability of 9.0 is 90
)

// readSpec reads what the schema has let pass. What only the market can judge it leaves to the market.
func (s *Server) readSpec(in apiv1.BookingSpec) (spec market.Spec, err error) {
	spec = market.Spec{
		Kind: in.Kind, GPUModel: in.GPUModel, Nodes: in.NodeCount, GPUsPerNode: in.GPUsPerNode, Regions: in.Regions,
		ClusterName: strings.TrimSpace(in.ClusterName), MinCompute: readCompute(in.MinComputeCapability), SameSite: in.SameSite,
		MaxRTT: time.Duration(in.MaxRTTMS) * time.Millisecond, CPUs: in.CPUs, MemoryBytes: int64(in.MemoryGiB) * gib,
		DiskBytes: int64(in.DiskGiB) * gib, MinDriver: in.MinDriver, MinReliability: int(math.Round(in.MinReliabilityPercent * bpsPerPercent)),
		AllowOwners: in.AllowOwners, DenyOwners: in.DenyOwners, Choose: in.Choose,
	}
	if in.MinVRAMGB > 0 {
		spec.MinMemoryMiB = market.MemoryMiB(in.MinVRAMGB)
	}
	for tier, name := range tiers {
		if in.MinTier == name {
			spec.MinTier = tier
		}
	}
	if in.StartsAt != nil {
		spec.StartsAt = *in.StartsAt
	}
	if spec.MaxPrice, err = s.priceLimit(in.MaxPricePerGPUHour); err != nil {
		return spec, err
	}
	err = readDurations(in, &spec)
	return spec, err
}

func readDurations(in apiv1.BookingSpec, spec *market.Spec) (err error) {
	if spec.Duration, err = duration("body.duration", in.Duration); err != nil {
		return err
	}
	if spec.Window, err = optionalDuration("body.bid_window", in.BidWindow); err != nil || in.AutoStop == nil {
		return err
	}
	if spec.ParkAfter, err = optionalDuration("body.auto_stop.park_after", in.AutoStop.ParkAfter); err != nil {
		return err
	}
	spec.ReleaseAfter, err = optionalDuration("body.auto_stop.release_after", in.AutoStop.ReleaseAfter)
	return err
}

func (s *Server) priceLimit(text string) (money.Amount, error) {
	if text == "" {
		return 0, nil
	}
	limit, err := s.amount("body.max_price_per_gpu_hour", text)
	if err == nil && limit == 0 {
		err = errs.InvalidField("body.max_price_per_gpu_hour", "a price limit is above zero: leave it out for none")
	}
	return limit, err
}

// readCompute reads 9.0 as 90; the schema admits nothing else.
func readCompute(text string) int {
	major, minor, _ := strings.Cut(text, ".")
	whole, _ := strconv.Atoi(major)
	rest, _ := strconv.Atoi(minor)
	return whole*tenths + rest
}

func (s *Server) wireSpec(spec market.Spec) apiv1.BookingSpec {
	wire := apiv1.BookingSpec{
		Kind: kindOf(spec), GPUModel: spec.GPUModel, NodeCount: spec.Nodes, GPUsPerNode: spec.GPUsPerNode, Duration: market.ShortDuration(spec.Duration),
		Regions: spec.Regions, ClusterName: spec.ClusterName, SameSite: spec.SameSite, MaxRTTMS: int(spec.MaxRTT.Milliseconds()), CPUs: spec.CPUs,
		MemoryGiB: int(spec.MemoryBytes / gib), DiskGiB: int(spec.DiskBytes / gib), MinDriver: spec.MinDriver,
		MinReliabilityPercent: percent(spec.MinReliability), AllowOwners: spec.AllowOwners, DenyOwners: spec.DenyOwners,
		AutoStop: wireAutoStop(spec.ParkAfter, spec.ReleaseAfter),
	}
	if spec.MaxPrice > 0 {
		wire.MaxPricePerGPUHour = s.Currency.Format(spec.MaxPrice)
	}
	if spec.MinMemoryMiB > 0 {
		wire.MinVRAMGB = sort.Search(maxVRAMGB, func(gigabytes int) bool { return market.MemoryMiB(gigabytes) >= spec.MinMemoryMiB })
	}
	if spec.MinCompute > 0 {
		wire.MinComputeCapability = strconv.Itoa(spec.MinCompute/tenths) + "." + strconv.Itoa(spec.MinCompute%tenths)
	}
	if spec.MinTier > 0 {
		wire.MinTier = tierName(spec.MinTier)
	}
	if !spec.StartsAt.IsZero() {
		starts := spec.StartsAt.UTC()
		wire.StartsAt = &starts
	}
	if spec.Kind == market.KindAuction {
		wire.BidWindow, wire.Choose = market.ShortDuration(spec.Window), spec.Choose
	}
	return wire
}

func kindOf(spec market.Spec) string {
	if spec.Kind == "" {
		return market.KindMarket
	}
	return spec.Kind
}

// wireAutoStop is nil when neither stage is on.
func wireAutoStop(park, release time.Duration) *apiv1.AutoStop {
	if park == 0 && release == 0 {
		return nil
	}
	var wire apiv1.AutoStop
	if park > 0 {
		wire.ParkAfter = market.ShortDuration(park)
	}
	if release > 0 {
		wire.ReleaseAfter = market.ShortDuration(release)
	}
	return &wire
}
