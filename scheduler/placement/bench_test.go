package placement_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/placement/placementtest"
)

const (
	benchSeed     = 4
	benchHosts    = 100_000
	benchBookings = 4_096
)

// benchIndex is the fleet of `make bench-placement`, made once.
var benchIndex = sync.OnceValue(func() *placement.Index { return indexOf(placementtest.Fleet(benchSeed, benchHosts)) })

// BenchmarkGang places 8 nodes of 8 GPUs on 100,000 hosts, under regions and a price limit, and under one more condition each.
func BenchmarkGang(b *testing.B) {
	for _, c := range []struct {
		name   string
		change func(*placement.Request)
	}{
		{"plain", func(*placement.Request) {}},
		{"any_model", func(r *placement.Request) { r.Model = "" }},
		{"part_of_host", func(r *placement.Request) { r.GPUsPerNode = 1 }},
		{"same_site", func(r *placement.Request) { r.SameSite, r.Nodes = true, 2 }},
		{"same_site_none", func(r *placement.Request) { r.SameSite = true }},
		{"bound", func(r *placement.Request) { r.MaxRTT = 150 * time.Millisecond }},
		{"bound_none", func(r *placement.Request) { r.MaxRTT = 10 * time.Millisecond }},
		{"scheduled", func(r *placement.Request) { r.Start = 1 }},
		{"owners", func(r *placement.Request) { r.AllowOwners = placementtest.Owners(3) }},
		{"1000_nodes", func(r *placement.Request) { r.Nodes, r.MaxPrice = 1_000, 0 }},
	} {
		b.Run(c.name, func(b *testing.B) {
			x, requests := benchIndex(), placementtest.Bookings(benchSeed, benchBookings)
			for i := range requests {
				c.change(&requests[i])
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				x.Place(requests[i%len(requests)])
			}
		})
	}
}

// BenchmarkGangOnEmptyFleet is the plain one where nothing is leased.
func BenchmarkGangOnEmptyFleet(b *testing.B) {
	x, requests := indexOf(placementtest.Empty(benchSeed, benchHosts)), placementtest.Bookings(benchSeed, benchBookings)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		x.Place(requests[i%len(requests)])
	}
}

// BenchmarkGangChurn places while another goroutine changes prices and states as fast as it gets the lock.
func BenchmarkGangChurn(b *testing.B) {
	fleet := placementtest.Fleet(benchSeed, benchHosts)
	x, requests := indexOf(fleet), placementtest.Bookings(benchSeed, benchBookings)
	var mu sync.RWMutex
	var writer sync.WaitGroup
	stop := make(chan struct{})
	writer.Go(func() {
		random := rand.New(rand.NewPCG(benchSeed, 1))
		for {
			select {
			case <-stop:
				return
			default:
			}
			h := &fleet[random.IntN(len(fleet))]
			churn(h, random)
			mu.Lock()
			x.Put(*h)
			mu.Unlock()
		}
	})
	for i := 0; b.Loop(); i++ {
		mu.RLock()
		x.Place(requests[i%len(requests)])
		mu.RUnlock()
	}
	close(stop)
	writer.Wait()
}

func churn(h *placement.Host, random *rand.Rand) {
	if random.IntN(2) == 0 {
		h.Prices = placementtest.Prices(random)
	} else {
		h.Open = !h.Open
	}
}

func BenchmarkPut(b *testing.B) {
	fleet := placementtest.Fleet(benchSeed, benchHosts)
	x, random := indexOf(fleet), rand.New(rand.NewPCG(benchSeed, 1))
	b.ReportAllocs()
	for b.Loop() {
		h := &fleet[random.IntN(len(fleet))]
		churn(h, random)
		x.Put(*h)
	}
}

// BenchmarkExplain and BenchmarkNearest answer a gang that fits nowhere.
func BenchmarkExplain(b *testing.B) {
	x, r := benchIndex(), impossible()
	for b.Loop() {
		x.Explain(r)
	}
}

func BenchmarkNearest(b *testing.B) {
	x, r := benchIndex(), impossible()
	for b.Loop() {
		x.Nearest(r, 1)
	}
}

func impossible() placement.Request {
	r := placementtest.Bookings(benchSeed, 1)[0]
	r.SameSite, r.MinReliability, r.Until = true, 9_900, 3_600
	return r
}
