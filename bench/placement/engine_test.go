package main

import (
	"slices"
	"testing"
	"time"

	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/placement/placementtest"
)

const (
	testHosts    = 2_000
	testBookings = 20
)

// engines are all of them, on one fleet.
func engines(t *testing.T, fleet []placement.Host) []engine {
	t.Helper()
	kube, err := newKube(t.Context(), kubeVersion, fleet, 0)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := newNomad(nomadVersion, fleet, false)
	if err != nil {
		t.Fatal(err)
	}
	affinity, err := newNomad(nomadVersion+"-price-affinity", fleet, true)
	if err != nil {
		t.Fatal(err)
	}
	return []engine{newMuster(fleet), newScan(fleet), kube, plain, affinity}
}

func TestNoEngineBeatsTheCheapestGang(t *testing.T) {
	t.Parallel()
	fleet, requests := placementtest.Fleet(seed, testHosts), placementtest.Bookings(seed, testBookings)
	var cheapest result
	for _, e := range engines(t, fleet) {
		got, err := measure(e, fleet, requests, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.paid) != testBookings {
			t.Fatalf("%s made %d of %d bookings", e.name(), len(got.paid), testBookings)
		}
		switch e.name() {
		case "muster":
			cheapest = got
		case "linear-scan":
			if !slices.Equal(got.paid, cheapest.paid) {
				t.Errorf("the scan paid %v, the index %v", got.paid, cheapest.paid)
			}
		}
		for i, price := range got.paid {
			if price < cheapest.paid[i] {
				t.Errorf("booking %d: %s paid %d, the cheapest is said to be %d", i, e.name(), price, cheapest.paid[i])
			}
		}
	}
}

func TestEnginesSeeWhatTheyHaveBookedAndReleased(t *testing.T) {
	t.Parallel()
	fleet, requests := placementtest.Fleet(seed, testHosts), placementtest.Bookings(seed, 1)
	r := requests[0]
	for _, e := range engines(t, fleet) {
		if _, isNomad := e.(*nomad); isNomad {
			continue // each of its bookings has a state of its own
		}
		first := book(t, e, r, 0)
		second := book(t, e, r, 1)
		if i := slices.IndexFunc(second, func(host int) bool { return slices.Contains(first, host) }); i >= 0 {
			t.Errorf("%s booked host %d twice", e.name(), second[i])
		}
	}
}

func book(t *testing.T, e engine, r placement.Request, serial int) []int {
	t.Helper()
	if err := e.prepare(serial, r); err != nil {
		t.Fatal(err)
	}
	if err := e.book(); err != nil {
		t.Fatal(err)
	}
	return e.booked()
}

func TestCheckRefusesWhatTheRequestDoesNotAllow(t *testing.T) {
	t.Parallel()
	fleet, requests := placementtest.Fleet(seed, testHosts), placementtest.Bookings(seed, 1)
	r := requests[0]
	gang := book(t, newMuster(fleet), r, 0)
	if _, err := check(fleet, r, slices.Clone(gang)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(fleet []placement.Host, gang []int) []int{
		"a node less":  func(_ []placement.Host, gang []int) []int { return gang[1:] },
		"a host twice": func(_ []placement.Host, gang []int) []int { return append(gang[1:], gang[1]) },
		"closed": func(fleet []placement.Host, gang []int) []int {
			fleet[gang[0]].Open = false
			return gang
		},
		"other model": func(fleet []placement.Host, gang []int) []int {
			fleet[gang[0]].Model += "x"
			return gang
		},
		"other region": func(fleet []placement.Host, gang []int) []int {
			fleet[gang[0]].Region += "x"
			return gang
		},
		"a GPU taken": func(fleet []placement.Host, gang []int) []int {
			fleet[gang[0]].Leased |= 1
			return gang
		},
		"too dear": func(fleet []placement.Host, gang []int) []int {
			fleet[gang[0]].Prices[r.Class] = r.MaxPrice + 1
			return gang
		},
	} {
		changed := slices.Clone(fleet)
		if _, err := check(changed, r, change(changed, slices.Clone(gang))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestQuantilesAreTimesThatWereMeasured(t *testing.T) {
	t.Parallel()
	var r result
	for i := range 200 {
		r.times = append(r.times, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 100, 0.99: 198, 1: 200} {
		if got := r.quantile(q); got != want {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
}
