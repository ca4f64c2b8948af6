package main

import (
	"errors"
	"fmt"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/placement"
)

// muster is placement's index, as the applier uses it: a plan, and then the GPUs of each of its nodes.
type muster struct {
	index  *placement.Index
	places map[hostModel]int

	request placement.Request
	plan    placement.Plan
	masks   []uint64 // of the plan's nodes
}

// hostModel is what an index tells entries apart by.
type hostModel struct {
	host  ids.Host
	model string
}

func newMuster(fleet []placement.Host) *muster {
	m := &muster{index: newIndex(fleet), places: make(map[hostModel]int, len(fleet))}
	for i, h := range fleet {
		m.places[hostModel{h.ID, h.Model}] = i
	}
	return m
}

func newIndex(fleet []placement.Host) *placement.Index {
	index := placement.NewIndex()
	for _, h := range fleet {
		index.Put(h)
	}
	return index
}

func (m *muster) name() string { return "muster" }

func (m *muster) prepare(_ int, r placement.Request) error {
	m.request, m.masks = r, make([]uint64, 0, r.Nodes)
	return nil
}

func (m *muster) book() error {
	plan, ok := m.index.Place(m.request)
	if !ok {
		return errors.New("muster: no gang was found")
	}
	m.plan = plan
	for _, node := range plan.Nodes {
		mask, ok := m.index.Take(node.Host.ID, node.Host.Model, m.request.GPUsPerNode, m.request)
		if !ok {
			return fmt.Errorf("muster: %s of the plan cannot be taken", node.Host.ID)
		}
		m.masks = append(m.masks, mask)
	}
	return nil
}

func (m *muster) booked() []int {
	hosts := make([]int, 0, len(m.plan.Nodes))
	for _, node := range m.plan.Nodes {
		hosts = append(hosts, m.places[hostModel{node.Host.ID, node.Host.Model}])
	}
	return hosts
}

func (m *muster) release() error {
	for i, node := range m.plan.Nodes {
		m.index.Free(node.Host.ID, node.Host.Model, m.masks[i])
	}
	return nil
}
