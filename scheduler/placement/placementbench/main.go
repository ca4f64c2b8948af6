// Placementbench measures placement: one logfmt line a figure on standard output.
//
//	go run ./scheduler/placement/placementbench
package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/placement/placementtest"
)

const (
	seed        = 1
	hosts       = 100_000
	bookings    = 4_096
	queries     = 200_000
	scans       = 400
	churnShare  = 10 // of a hundred hosts change every second
	churnFor    = 10 * time.Second
	churnEvery  = time.Millisecond
	bytesPerMB  = 1_000_000
	nanosecond  = 1e-3 // in microseconds
	percentile  = 99
	perHundred  = 100
	medianShare = 50
)

func main() {
	before := heap()
	index := placement.NewIndex()
	for _, h := range placementtest.Fleet(seed, hosts) {
		index.Put(h)
	}
	figure("index_mb", float64(heap()-before)/bytesPerMB, "MB", fmt.Sprintf("hosts=%d", hosts))
	requests := placementtest.Bookings(seed, bookings)

	times := make([]time.Duration, queries)
	for i := range times {
		start := time.Now()
		index.Place(requests[i%bookings])
		times[i] = time.Since(start)
	}
	fmt.Fprintf(os.Stderr, "quiet: p50 %.2f us\n", at(times, medianShare))
	figure("gang_p99_us", at(times, percentile), "us", fmt.Sprintf("p50=%.2f queries=%d hosts=%d", at(times, medianShare), queries, hosts))

	quiet, churned := scan(requests), churn(index, requests)
	figure("gang_churn_p99_us", at(churned, percentile), "us", fmt.Sprintf("peer=linear-scan peer_value=%.1f ratio=%.3f p50=%.2f queries=%d changes_per_s=%d",
		at(quiet, percentile), at(quiet, percentile)/at(churned, percentile), at(churned, medianShare), len(churned), hosts*churnShare/perHundred))
}

// heap is what is allocated after a collection.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func figure(name string, value float64, unit, more string) {
	fmt.Printf("figure=%s value=%.3f unit=%s %s\n", name, value, unit, more)
}

// at is a percentile in microseconds.
func at(times []time.Duration, percent int) float64 {
	sorted := slices.Sorted(slices.Values(times))
	return float64(sorted[min(len(sorted)-1, len(sorted)*percent/perHundred)]) * nanosecond
}

// churn asks for gangs while hosts change their prices and states.
func churn(index *placement.Index, requests []placement.Request) []time.Duration {
	var mu sync.RWMutex
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		random := rand.New(rand.NewPCG(seed, 2))
		fleet := placementtest.Fleet(seed, hosts)
		ticker := time.NewTicker(churnEvery)
		defer ticker.Stop()
		each := int(hosts * churnShare / perHundred * churnEvery / time.Second)
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			for range each {
				h := &fleet[random.IntN(len(fleet))]
				if random.IntN(2) == 0 {
					h.Prices = placementtest.Prices(random)
				} else {
					h.Open = !h.Open
				}
				mu.Lock()
				index.Put(*h)
				mu.Unlock()
			}
		}
	})
	var times []time.Duration
	for begin := time.Now(); time.Since(begin) < churnFor; {
		start := time.Now()
		mu.RLock()
		index.Place(requests[len(times)%bookings])
		mu.RUnlock()
		times = append(times, time.Since(start))
	}
	close(done)
	writer.Wait()
	return times
}

// scan answers the same bookings by looking at every host, over arrays: the linear peer.
func scan(requests []placement.Request) []time.Duration {
	fleet := placementtest.Fleet(seed, hosts)
	model, region, price, free := make([]uint8, hosts), make([]uint8, hosts), make([]int64, hosts), make([]uint8, hosts)
	for i, h := range fleet {
		model[i] = uint8(slices.Index(placementtest.Models, h.Model))
		region[i] = 1 << slices.Index(placementtest.Regions, h.Region)
		price[i] = int64(h.Prices[placement.Hourly])
		if h.Open && h.Leased == 0 {
			free[i] = placementtest.GPUs
		}
	}
	times := make([]time.Duration, scans)
	for n := range times {
		r := requests[n%bookings]
		start := time.Now()
		want := uint8(slices.Index(placementtest.Models, r.Model))
		var in uint8
		for _, name := range r.Regions {
			in |= 1 << slices.Index(placementtest.Regions, name)
		}
		var best []int
		for i := range hosts {
			if model[i] != want || region[i]&in == 0 || free[i] < uint8(r.GPUsPerNode) || price[i] > int64(r.MaxPrice) {
				continue
			}
			if len(best) == r.Nodes && price[best[len(best)-1]] <= price[i] {
				continue
			}
			at, _ := slices.BinarySearchFunc(best, price[i], func(other int, p int64) int {
				if price[other] <= p {
					return -1
				}
				return 1
			})
			best = slices.Insert(best, at, i)
			best = best[:min(len(best), r.Nodes)]
		}
		times[n] = time.Since(start)
		runtime.KeepAlive(best)
	}
	return times
}
