package main

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
)

const (
	churnShare  = 0.1 // of the hosts change each second
	churnFor    = 5 * time.Second
	churnTick   = time.Millisecond
	churnWithin = 0.9 // of the wanted rate must have been reached
)

// market is what bookings are placed on while it changes.
type market interface {
	put(i int, h placement.Host)
	place(r placement.Request) bool
}

// indexMarket is placement's index as a market.
type indexMarket struct{ *placement.Index }

func (m indexMarket) put(_ int, h placement.Host) { m.Put(h) }

func (m indexMarket) place(r placement.Request) bool {
	_, ok := m.Place(r)
	return ok
}

// churn places one gang after the other, each under a read lock as the census gives it, while a writer changes churnShare of the
// hosts each second: prices, GPUs that are taken or freed, hosts that close or open. The wait for the lock counts. It returns how many
// hosts changed each second, which are fewer where gangs hold the lock for long.
func churn(m market, fleet []placement.Host, requests []placement.Request) (result, float64, error) {
	var lock sync.RWMutex
	stop, done := make(chan struct{}), make(chan int)
	runtime.GC()
	started := time.Now()
	go func() { done <- change(m, slices.Clone(fleet), &lock, stop) }()
	var res result
	placed := 0
	for i := 0; time.Since(started) < churnFor; i++ {
		r := requests[i%len(requests)]
		began := time.Now()
		lock.RLock()
		ok := m.place(r)
		lock.RUnlock()
		res.times = append(res.times, time.Since(began))
		if ok {
			placed++
		}
	}
	close(stop)
	changes := float64(<-done) / time.Since(started).Seconds()
	slices.Sort(res.times)
	if placed*2 < len(res.times) {
		return result{}, 0, errors.New("under half of the gangs were placed: the changes have used the fleet up")
	}
	return res, changes, nil
}

// change changes hosts at the wanted rate until stop is closed, and returns how many.
func change(m market, fleet []placement.Host, lock *sync.RWMutex, stop <-chan struct{}) int {
	random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // the same changes each time
	ticker := time.NewTicker(churnTick)
	defer ticker.Stop()
	started, changed := time.Now(), 0
	for {
		select {
		case <-stop:
			return changed
		case <-ticker.C:
		}
		due := int(time.Since(started).Seconds() * churnShare * float64(len(fleet)))
		for ; changed < due; changed++ {
			i := random.IntN(len(fleet))
			mutate(&fleet[i], random)
			lock.Lock()
			m.put(i, fleet[i])
			lock.Unlock()
		}
	}
}

func mutate(h *placement.Host, random *rand.Rand) {
	switch random.IntN(4) {
	case 0:
		h.Open = !h.Open
	case 1:
		h.Leased ^= h.Well // what was free is taken, what was taken is free
	default:
		percent := money.Amount(90 + random.IntN(21))
		for class := range h.Prices {
			h.Prices[class] = h.Prices[class] * percent / 100
		}
	}
}
