package main

import (
	"errors"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
)

// scan is the best that looking at each host can be: arrays of small values, one pass, the cheapest kept in order. It knows
// only the conditions of these bookings.
type scan struct {
	codes  map[string]uint16 // of models and regions
	model  []uint16
	region []uint16
	free   []uint8 // 0 where the host is not open
	price  []money.Amount

	request placement.Request
	best    []int
}

func newScan(fleet []placement.Host) *scan {
	s := &scan{
		codes: map[string]uint16{}, model: make([]uint16, len(fleet)), region: make([]uint16, len(fleet)),
		free: make([]uint8, len(fleet)), price: make([]money.Amount, len(fleet)),
	}
	for i, h := range fleet {
		s.put(i, h)
	}
	return s
}

func (s *scan) put(i int, h placement.Host) {
	s.model[i], s.region[i], s.price[i] = s.code(h.Model), s.code(h.Region), h.Prices[placement.Hourly]
	s.free[i] = 0
	if h.Open {
		s.free[i] = uint8(freeGPUs(h))
	}
}

func (s *scan) code(text string) uint16 {
	code, ok := s.codes[text]
	if !ok {
		code = uint16(len(s.codes)) + 1
		s.codes[text] = code
	}
	return code
}

func (s *scan) name() string { return "linear-scan" }

func (s *scan) prepare(_ int, r placement.Request) error {
	s.request = r
	return nil
}

func (s *scan) book() error {
	if !s.place(s.request) {
		return errors.New("linear scan: no gang was found")
	}
	for _, i := range s.best {
		s.free[i] -= uint8(s.request.GPUsPerNode)
	}
	return nil
}

// place leaves the cheapest gang in s.best, by price and then by place in the fleet.
func (s *scan) place(r placement.Request) bool {
	s.best = s.best[:0]
	model, wanted := s.codes[r.Model], s.regions(r)
	for i := range s.model {
		if s.model[i] != model || int(s.free[i]) < r.GPUsPerNode || s.price[i] > r.MaxPrice || !wanted[s.region[i]] {
			continue
		}
		if len(s.best) == r.Nodes {
			if s.price[s.best[r.Nodes-1]] <= s.price[i] {
				continue
			}
			s.best = s.best[:r.Nodes-1]
		}
		at := len(s.best)
		for at > 0 && s.price[s.best[at-1]] > s.price[i] {
			at--
		}
		s.best = append(s.best, 0)
		copy(s.best[at+1:], s.best[at:])
		s.best[at] = i
	}
	return len(s.best) == r.Nodes
}

// regions says by code which regions the request takes.
func (s *scan) regions(r placement.Request) []bool {
	wanted := make([]bool, len(s.codes)+1)
	for _, region := range r.Regions {
		wanted[s.codes[region]] = true
	}
	return wanted
}

func (s *scan) booked() []int { return append([]int(nil), s.best...) }

func (s *scan) release() error {
	for _, i := range s.best {
		s.free[i] += uint8(s.request.GPUsPerNode)
	}
	return nil
}
