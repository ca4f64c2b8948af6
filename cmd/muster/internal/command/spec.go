package command

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

// Kinds of a booking.
const (
	kindAuction = "auction"
	kindSpot    = "spot"
)

// specFlags describe the wanted cluster.
type specFlags struct {
	spec             apiv1.BookingSpec
	vram, start      string
	maxRTT           time.Duration
	allow, deny      []string
	spot, auction    bool
	park, releaseAll time.Duration
	window           time.Duration
}

func (f *specFlags) add(a *App, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.spec.GPUModel, "gpu", "", "GPU model, as muster offer ls lists them; or any model with --min-vram or --compute")
	flags.IntVar(&f.spec.NodeCount, "nodes", 1, "GPU nodes; the Ray head comes on top and is free")
	flags.IntVar(&f.spec.GPUsPerNode, "gpus-per-node", 1, "GPUs of each node")
	flags.StringVar(&f.spec.Duration, "for", "1h", "how long, from ready: 30m, 6h, 2h30m")
	flags.StringSliceVar(&f.spec.Regions, "region", nil, "any of these regions, where eu is all of eu-west, eu-north and so on (repeat or separate by commas; default: all)")
	flags.StringVar(&f.spec.MaxPricePerGPUHour, "max-price", "", "most tokens per GPU-hour")
	flags.StringVar(&f.vram, "min-vram", "", "memory of a GPU at least, such as 80GB")
	flags.StringVar(&f.spec.MinComputeCapability, "compute", "", "compute capability at least, such as 9.0")
	flags.BoolVar(&f.spec.SameSite, "same-site", false, "all nodes in one local network")
	flags.DurationVar(&f.maxRTT, "max-rtt", 0, "round trip between any two nodes at most, such as 20ms")
	flags.IntVar(&f.spec.CPUs, "cpus", 0, "CPU cores per node at least")
	flags.IntVar(&f.spec.MemoryGiB, "memory", 0, "GiB of memory per node at least")
	flags.IntVar(&f.spec.DiskGiB, "disk", 0, "GiB of free disk per node at least")
	flags.IntVar(&f.spec.MinDriver, "min-driver", 0, "major version of the GPU driver at least, such as 570")
	flags.Float64Var(&f.spec.MinReliabilityPercent, "min-reliability", 0, "reliability of each host at least, in percent")
	flags.StringVar(&f.spec.MinTier, "min-tier", "", "standing of each host at least: new, proven or trusted")
	flags.StringSliceVar(&f.allow, "allow-owner", nil, "only hosts of these organisations (ids)")
	flags.StringSliceVar(&f.deny, "deny-owner", nil, "no hosts of these organisations (ids)")
	flags.BoolVar(&f.spot, "spot", false, "cheaper, and given up within 60 s when a market booking needs the GPUs; needs --max-price")
	flags.BoolVar(&f.auction, "auction", false, "let hosts bid below their prices for a few seconds")
	flags.DurationVar(&f.window, "bid-window", 0, "auction: how long hosts may bid, 2s to 60s")
	flags.StringVar(&f.spec.Choose, "choose", "", "auction: cheapest, or manual to pick the bids yourself")
	flags.StringVar(&f.start, "start", "", "when it is to start: +2h, 2026-11-23T08:00Z (default: at once)")
	flags.DurationVar(&f.park, "park-after", 0, "idle this long, release the GPU nodes and keep the head")
	flags.DurationVar(&f.releaseAll, "release-after", 0, "parked this long, release the cluster")
	_ = cmd.RegisterFlagCompletionFunc("gpu", a.completeModels())
	_ = cmd.RegisterFlagCompletionFunc("region", a.completeRegions())
	_ = cmd.RegisterFlagCompletionFunc("min-tier", cobra.FixedCompletions([]string{"new", "proven", "trusted"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("choose", cobra.FixedCompletions([]string{"cheapest", "manual"}, cobra.ShellCompDirectiveNoFileComp))
}

// readSpec turns flags into what the API is asked for.
func (f *specFlags) readSpec(now time.Time) (spec apiv1.BookingSpec, err error) {
	spec = f.spec
	if spec.GPUModel == "" && f.vram == "" && spec.MinComputeCapability == "" {
		return spec, fail(exitUsage, "say which GPUs: --gpu H100, or any model with --min-vram 80GB or --compute 9.0")
	}
	switch {
	case f.spot && f.auction:
		return spec, fail(exitUsage, "--spot and --auction exclude each other: spot pays the hosts' spot price, an auction what they bid")
	case f.spot:
		spec.Kind = kindSpot
	case f.auction:
		spec.Kind = kindAuction
	}
	if f.vram != "" {
		if spec.MinVRAMGB, err = strconv.Atoi(strings.TrimSuffix(strings.ToUpper(f.vram), "GB")); err != nil {
			return spec, fail(exitUsage, "--min-vram %s is not a size: write it like 80GB", f.vram)
		}
	}
	if f.start != "" {
		at, err := moment(f.start, now)
		if err != nil {
			return spec, fail(exitUsage, "--start %w", err)
		}
		spec.StartsAt = &at
	}
	if spec.AllowOwners, err = orgIDs("--allow-owner", f.allow); err != nil {
		return spec, err
	}
	if spec.DenyOwners, err = orgIDs("--deny-owner", f.deny); err != nil {
		return spec, err
	}
	if f.maxRTT > 0 {
		spec.MaxRTTMS = int(max(f.maxRTT.Round(time.Millisecond), time.Millisecond).Milliseconds())
	}
	if f.window > 0 {
		spec.BidWindow = f.window.String()
	}
	spec.AutoStop = autoStop(f.park, f.releaseAll)
	return spec, nil
}

// autoStop is nil when neither stage is wanted.
func autoStop(park, release time.Duration) *apiv1.AutoStop {
	if park <= 0 && release <= 0 {
		return nil
	}
	var rule apiv1.AutoStop
	if park > 0 {
		rule.ParkAfter = park.String()
	}
	if release > 0 {
		rule.ReleaseAfter = release.String()
	}
	return &rule
}

func orgIDs(flag string, texts []string) ([]ids.Org, error) {
	var orgs []ids.Org
	for _, text := range texts {
		var org ids.Org
		if err := org.UnmarshalText([]byte(text)); err != nil {
			return nil, fail(exitUsage, "%s %s: %w", flag, text, err)
		}
		orgs = append(orgs, org)
	}
	return orgs, nil
}

// moments are the forms that a time is written in. Without a zone it is UTC, as all times that are shown.
var moments = []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05Z", "2006-01-02 15:04", "2006-01-02"}

// moment reads a time, or how long it is until then.
func moment(text string, now time.Time) (time.Time, error) {
	if ahead, found := strings.CutPrefix(text, "+"); found {
		if d, err := time.ParseDuration(ahead); err == nil && d >= 0 {
			return now.Add(d).UTC().Truncate(time.Second), nil
		}
	}
	for _, form := range moments {
		if at, err := time.Parse(form, text); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time: write it like +2h or 2026-11-23T08:00Z", text)
}
