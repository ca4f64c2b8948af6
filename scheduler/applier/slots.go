package applier

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/rayaddr"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

const (
	slotWords     = (rayaddr.Slots + 63) / 64
	headsInterval = time.Second // between looks at the load of head machines
	headsAtOnce   = 16
	maxFollowed   = 10_000 // machines with changes; with more, all are forgotten
)

// slotSet is a bitmap of slots.
type slotSet [slotWords]uint64

func (s *slotSet) add(slot int)      { s[slot/64] |= 1 << (slot % 64) }
func (s *slotSet) has(slot int) bool { return s[slot/64]&(1<<(slot%64)) != 0 }

func (s *slotSet) len() (n int) {
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

// slots knows which places of which machines nodes have: at least those, for a node that has ended is noticed only when its machine
// is looked at again, which is when no place seems free. Machines are read when they are first needed, so that a new leader need not
// read all nodes before it books. The applier's mutex guards it.
type slots struct {
	first    int // where to begin
	used     map[string]*slotSet
	recent   map[string]*slotSet // given out by the transaction that is open
	lookedAt time.Time           // at heads
	nextHead int
}

// forget has everything read again.
func (s *slots) forget() { s.used, s.recent = nil, nil }

// begin is called at the start of every transaction.
func (s *slots) begin() {
	s.recent = make(map[string]*slotSet)
	if s.used == nil {
		s.used = make(map[string]*slotSet)
	}
}

// know reads machines that have not been read yet.
func (s *slots) know(ctx context.Context, q *schedulerdb.Queries, db schedulerdb.DBTX, machines []string) error {
	return s.refresh(ctx, q, db, slices.DeleteFunc(machines, func(machine string) bool { return s.used[machine] != nil }))
}

// refresh reads some machines again.
func (s *slots) refresh(ctx context.Context, q *schedulerdb.Queries, db schedulerdb.DBTX, machines []string) error {
	if len(machines) == 0 {
		return nil
	}
	rows, err := q.SlotsInUse(ctx, db, machines)
	if err != nil {
		return fmt.Errorf("read slots: %w", err)
	}
	for _, machine := range machines {
		used := slotSet{}
		if recent := s.recent[machine]; recent != nil {
			used = *recent
		}
		s.used[machine] = &used
	}
	for _, row := range rows {
		s.used[row.MachineID].add(int(row.Slot))
	}
	return nil
}

// follow looks again at machines with nodes that something has changed on, and now and then at some of the heads', so that they are
// shared by load.
func (s *slots) follow(ctx context.Context, q *schedulerdb.Queries, db schedulerdb.DBTX, changed []string, heads []census.Head) error {
	if len(changed) > maxFollowed {
		s.forget()
		s.begin()
		changed = nil
	}
	changed = slices.DeleteFunc(changed, func(machine string) bool { return s.used[machine] == nil })
	for _, head := range heads {
		if s.used[head.Machine] == nil {
			changed = append(changed, head.Machine)
		}
	}
	if len(heads) > 0 && time.Since(s.lookedAt) >= headsInterval {
		s.lookedAt = time.Now()
		for range min(headsAtOnce, len(heads)) {
			s.nextHead++
			changed = append(changed, heads[s.nextHead%len(heads)].Machine)
		}
	}
	return s.refresh(ctx, q, db, changed)
}

// give notes a place that the open transaction has given out.
func (s *slots) give(machine string, slot int) {
	set := s.recent[machine]
	if set == nil {
		set = new(slotSet)
		s.recent[machine] = set
	}
	set.add(slot)
}

// load of a machine: how many of its places are used.
func (s *slots) usedOn(machine string) int {
	if set := s.used[machine]; set != nil {
		return set.len()
	}
	return 0
}

// take gives out a place on a machine that no node of the cluster has ever had: its Ray may list an address for a while after the
// node there has ended.
func (s *slots) take(ctx context.Context, q *schedulerdb.Queries, db schedulerdb.DBTX, machine string, cluster *slotSet) (int32, error) {
	if err := s.know(ctx, q, db, []string{machine}); err != nil {
		return 0, err
	}
	for refreshed := false; ; refreshed = true {
		used := s.used[machine]
		for i := range rayaddr.Slots {
			slot := (s.first + i) % rayaddr.Slots
			if !used.has(slot) && !cluster.has(slot) {
				used.add(slot)
				cluster.add(slot)
				s.give(machine, slot)
				return int32(slot), nil
			}
		}
		if refreshed {
			return 0, errs.New(errs.NoCapacity, "All %d node addresses of a machine are in use: try again when a cluster has been released.", rayaddr.Slots)
		}
		if err := s.refresh(ctx, q, db, []string{machine}); err != nil {
			return 0, err
		}
	}
}

// head picks the head host with the fewest nodes on its machine, of a runtime, with a version of Ray and, while one there has room, of a
// region.
func (s *slots) head(heads []census.Head, runtime, rayVersion string, regions []string) (census.Head, error) {
	var best *census.Head
	var bestNear bool
	bestUsed := 0
	for i, h := range heads {
		if h.Runtime != runtime || !slices.Contains(h.Images, rayVersion) {
			continue
		}
		used, near := s.usedOn(h.Machine), slices.Contains(regions, h.Region)
		if used >= rayaddr.Slots {
			near = false // only when nothing else is left, in case some have ended
		}
		if best == nil || near && !bestNear || near == bestNear && used < bestUsed {
			best, bestNear, bestUsed = &heads[i], near, used
		}
	}
	if best == nil {
		return census.Head{}, errs.New(errs.NoCapacity, "No operator machine is online to run the Ray head with Ray %s: try again in a minute.", rayVersion)
	}
	return *best, nil
}
