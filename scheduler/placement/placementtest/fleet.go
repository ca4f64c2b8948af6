// Package placementtest makes fleets and bookings from seeds, for measurements of placement and of its peers on the same input. It is
// deterministic: a seed and a size give the same fleet on every machine.
package placementtest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
)

// GPUs is how many every host of a fleet has.
const GPUs = 8

// Shapes of the fleets.
var (
	Models  = []string{"A100", "H100", "H200", "L40S"}
	Regions = []string{"ap-south", "eu-central", "eu-west", "us-east", "us-west"}
)

const (
	hostsPerSite  = 20
	owners        = 500
	wholeLeased   = 6 // of ten hosts
	partlyLeased  = 2 // of ten hosts
	cheapest      = 1_000_000
	priceSteps    = 300
	priceStep     = 10_000
	reliabilityLo = 9_000
)

// Fleet makes n hosts of 8 GPUs: 60 % are leased whole, 20 % in part, and a host in fifty is closed.
func Fleet(seed uint64, n int) []placement.Host { return fleet(seed, n, true) }

// Empty makes the same hosts with nothing leased.
func Empty(seed uint64, n int) []placement.Host { return fleet(seed, n, false) }

func fleet(seed uint64, n int, leased bool) []placement.Host {
	random := rand.New(rand.NewPCG(seed, uint64(n))) //nolint:gosec // the same fleet each time
	images := []string{"2.60.0"}
	hosts := make([]placement.Host, n)
	for i := range hosts {
		h := placement.Host{
			ID: hostID(i), Owner: ownerID(random.IntN(owners)), Model: Models[random.IntN(len(Models))], Runtime: "docker",
			MemoryMiB: 81_559, Compute: 90, Region: Regions[random.IntN(len(Regions))],
			RTT: time.Duration(5+random.IntN(120)) * time.Millisecond, Open: random.IntN(50) > 0, GPUs: GPUs, Well: 1<<GPUs - 1,
			CPUs: 128, MemoryBytes: 1 << 40, DiskBytes: 4 << 40, Driver: 550 + 10*random.IntN(4), Images: images,
			Reliability: reliabilityLo + random.IntN(1_000), Tier: random.IntN(3),
		}
		h.Site = fmt.Sprintf("%s/%d", h.Region, i/hostsPerSite)
		h.Prices = Prices(random)
		use := random.IntN(10)
		part := uint64(1)<<(1+random.IntN(GPUs-1)) - 1
		switch {
		case !leased:
		case use < wholeLeased:
			h.Leased = h.Well
		case use < wholeLeased+partlyLeased:
			h.Leased = part
		}
		hosts[i] = h
	}
	return hosts
}

// Prices draws what a host asks.
func Prices(random *rand.Rand) (prices [placement.Classes]money.Amount) {
	base := money.Amount(cheapest + random.IntN(priceSteps)*priceStep)
	prices[placement.Hourly] = base
	prices[placement.Daily] = base * 95 / 100
	prices[placement.Weekly] = base * 90 / 100
	prices[placement.Monthly] = base * 80 / 100
	prices[placement.Spot] = base * 60 / 100
	return prices
}

// Bookings draws gangs of 8 nodes of 8 GPUs with a model, one to three regions and a price limit.
func Bookings(seed uint64, n int) []placement.Request {
	random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // the same bookings each time
	requests := make([]placement.Request, n)
	for i := range requests {
		requests[i] = placement.Request{
			Model: Models[random.IntN(len(Models))], Nodes: 8, GPUsPerNode: GPUs,
			MaxPrice: money.Amount(cheapest + (priceSteps/2+random.IntN(priceSteps/2))*priceStep),
		}
		for _, region := range random.Perm(len(Regions))[:1+random.IntN(3)] {
			requests[i].Regions = append(requests[i].Regions, Regions[region])
		}
	}
	return requests
}

// Owners names the first n owners of a fleet.
func Owners(n int) []ids.Org {
	all := make([]ids.Org, n)
	for i := range all {
		all[i] = ownerID(i)
	}
	return all
}

func hostID(i int) (id ids.Host) {
	binary.BigEndian.PutUint64(id[8:], uint64(i)+1)
	return id
}

func ownerID(i int) (id ids.Org) {
	binary.BigEndian.PutUint64(id[8:], uint64(i)+1)
	return id
}
