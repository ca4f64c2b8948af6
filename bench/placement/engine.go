package main

import (
	"fmt"
	"math"
	"math/bits"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
)

// engine books gangs on the fleet that it was made with. For each booking its methods are called in this order.
type engine interface {
	name() string
	// prepare gets ready for a booking. It is not timed: it stands for the client that writes pods or a job.
	prepare(serial int, r placement.Request) error
	// book decides and holds the GPUs, so that the next decision would see them taken. Only this is timed.
	book() error
	// booked are the places in the fleet of the hosts that it took, one a node.
	booked() []int
	// release frees them: each booking finds the same fleet.
	release() error
}

// result is what an engine took for a number of bookings.
type result struct {
	times []time.Duration // sorted
	paid  []money.Amount  // the gangs' prices, in the order of the requests
}

// measure lets the engine make the bookings until they or the time run out, but at least minBookings. The first one, made before
// the clock starts, fills caches. Each decision is checked against the request, so that an engine which was told less than
// the whole of it would be found out.
func measure(e engine, fleet []placement.Host, requests []placement.Request, limit time.Duration) (result, error) {
	if _, err := once(e, fleet, requests[0], len(requests), &result{}); err != nil {
		return result{}, err
	}
	runtime.GC()
	var res result
	var spent time.Duration
	for i, r := range requests {
		if spent > limit && i >= minBookings {
			break
		}
		took, err := once(e, fleet, r, i, &res)
		if err != nil {
			return result{}, err
		}
		spent += took
	}
	slices.Sort(res.times)
	return res, nil
}

func once(e engine, fleet []placement.Host, r placement.Request, serial int, res *result) (time.Duration, error) {
	if err := e.prepare(serial, r); err != nil {
		return 0, err
	}
	started := time.Now()
	err := e.book()
	took := time.Since(started)
	if err != nil {
		return 0, err
	}
	price, err := check(fleet, r, e.booked())
	if err != nil {
		return 0, fmt.Errorf("%s: booking %d: %w", e.name(), serial, err)
	}
	res.times, res.paid = append(res.times, took), append(res.paid, price)
	return took, e.release()
}

// check tells whether the hosts are a gang that the request allows, and what it costs an hour and GPU, summed over nodes.
func check(fleet []placement.Host, r placement.Request, hosts []int) (money.Amount, error) {
	if len(hosts) != r.Nodes {
		return 0, fmt.Errorf("%d of %d nodes were placed", len(hosts), r.Nodes)
	}
	slices.Sort(hosts)
	if len(slices.Compact(slices.Clone(hosts))) != len(hosts) {
		return 0, fmt.Errorf("two nodes share a host: %v", hosts)
	}
	var sum money.Amount
	for _, i := range hosts {
		h := fleet[i]
		if !h.Open || h.Model != r.Model || !slices.Contains(r.Regions, h.Region) || freeGPUs(h) < r.GPUsPerNode ||
			h.Prices[r.Class] > r.MaxPrice {
			return 0, fmt.Errorf("host %d does not meet the request: %+v", i, h)
		}
		sum += h.Prices[r.Class]
	}
	return sum, nil
}

// quantile is the nearest rank: a time that was measured, never one between two.
func (r result) quantile(q float64) time.Duration {
	return r.times[max(int(math.Ceil(q*float64(len(r.times))))-1, 0)]
}

// markup is how much more the engine paid than the cheapest gangs of the same requests.
func (r result) markup(cheapest result) float64 {
	var paid, least money.Amount
	for i, price := range r.paid {
		paid += price
		least += cheapest.paid[i]
	}
	return float64(paid)/float64(least) - 1
}

// freeGPUs counts what a booking that starts now may take.
func freeGPUs(h placement.Host) int { return bits.OnesCount64(h.Well &^ h.Leased) }

// label is a model's name as Kubernetes and Nomad take it.
func label(model string) string { return strings.ReplaceAll(model, " ", "-") }
