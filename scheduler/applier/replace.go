package applier

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// replacementCandidates bounds the hosts that are looked at for one near enough, cheapest first.
const replacementCandidates = 4096

// wholeFee is all of a price, in basis points. A price times this fits an int64: asks end at pricing.MaxPrice.
const wholeFee = 10_000

// Replacement describes the node that takes a place in a running cluster.
type Replacement struct {
	Cluster  schedulerdb.LockClusterRow
	Ordinal  int32
	MaxPrice money.Amount // the failed node's, for the hold has to suffice; 0 is no limit
	WaiveFee bool         // take a dearer host too, as far as the platform's fee on the node pays the difference; see terms
	Exclude  []ids.Host   // in use by the cluster, or failed it
	Regions  []string
}

// reach is the highest ask that the node's place can bear.
func (r Replacement) reach() money.Amount {
	if rest := wholeFee - int64(r.Cluster.FeeBps); r.WaiveFee && rest > 0 {
		return money.Amount(int64(r.MaxPrice) * wholeFee / rest)
	}
	return r.MaxPrice
}

// terms are a lease's price and fee at a host that asks so much. The customer never pays more than the failed node cost; of a dearer
// host's, the owner gets what the ask and the booking's fee promise, at the least, because the fee is lowered.
func (r Replacement) terms(ask money.Amount) (price money.Amount, feeBps int32) {
	if r.MaxPrice == 0 || ask <= r.MaxPrice {
		return ask, r.Cluster.FeeBps
	}
	promised := int64(ask) * (wholeFee - int64(r.Cluster.FeeBps))
	share := (promised + int64(r.MaxPrice) - 1) / int64(r.MaxPrice) // rounded up: to the owner's advantage
	return r.MaxPrice, int32(wholeFee - share)
}

// Replace places and writes one node of a running cluster inside the caller's transaction, which must hold the cluster's row
// and have asserted the term. Without a host that fits it returns NoCapacity and has written nothing. The caller must hold Lock
// until it commits, and name in Exclude what it got before in the same transaction: the census learns of it when it commits.
func (a *Applier) Replace(ctx context.Context, tx pgx.Tx, r Replacement) (ids.Host, error) {
	// The census's own connection: what the caller has written may yet be rolled back.
	if err := a.fleet.Sync(ctx, nil); err != nil {
		return ids.Host{}, err
	}
	ever, err := a.queries.NodesEver(ctx, tx, r.Cluster.ID)
	if err != nil {
		return ids.Host{}, fmt.Errorf("read the cluster's nodes: %w", err)
	}
	spec, err := a.booked(ctx, tx, r)
	if err != nil {
		return ids.Host{}, err
	}
	host, mask, found := a.replacement(r, spec, ever)
	if !found {
		return ids.Host{}, errs.New(errs.NoCapacity, "no other host has what the failed node had, at its price")
	}
	used := new(slotSet)
	for _, n := range ever {
		used.add(int(n.Slot))
	}
	a.slots.begin()
	machine := a.fleet.Machine(host.Host.ID)
	slot, err := a.slots.take(ctx, a.queries, a.pool, machine, used)
	if err != nil {
		return ids.Host{}, err
	}
	price, fee := r.terms(host.Price)
	var written rows
	written.addNode(node{
		cluster: r.Cluster.ID, host: host.Host.ID, machine: machine, ordinal: r.Ordinal, slot: slot, gpus: mask, model: r.Cluster.GPUModel,
		customer: r.Cluster.OrgID, price: price, feeBps: fee,
	})
	err = pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error { return written.write(ctx, savepoint, a.rayVersion) })
	if err != nil {
		a.fleet.Stale(host.Host.ID)
		a.slots.forget()
		return ids.Host{}, err
	}
	return host.Host.ID, nil
}

// booked is what the cluster's own booking asked for.
func (a *Applier) booked(ctx context.Context, tx pgx.Tx, r Replacement) (market.Spec, error) {
	row, err := a.queries.GetBooking(ctx, tx, r.Cluster.BookingID, r.Cluster.OrgID)
	if err != nil {
		return market.Spec{}, fmt.Errorf("read the cluster's booking: %w", err)
	}
	return market.SpecOf(row.Booking)
}

// replacement finds the host and its GPUs: one that has what was booked, and is as near to the cluster's other hosts as was asked for.
func (a *Applier) replacement(r Replacement, spec market.Spec, ever []schedulerdb.NodesEverRow) (host placement.Node, mask uint64, found bool) {
	request := market.RequestFor(spec, r.Cluster.Now)
	request.Model, request.Runtime, request.Regions = r.Cluster.GPUModel, r.Cluster.Runtime, r.Regions
	request.Image = r.Cluster.RayVersion
	request.Nodes, request.GPUsPerNode = 1, int(r.Cluster.GPUsPerNode)
	request.SameSite, request.MaxRTT = false, 0 // of one node; see near
	request.MaxPrice, request.Exclude = r.reach(), r.Exclude
	request.Start, request.Until = 0, max(r.Cluster.ForecastEnd.Unix(), r.Cluster.Now.Unix())
	a.fleet.Read(func(x *placement.Index) {
		for _, candidate := range x.Candidates(request, replacementCandidates) {
			if near(candidate.Host, members(x, r.Cluster.GPUModel, ever), spec) {
				host = candidate
				mask, found = census.Lowest(host.Host.FreeFor(request), request.GPUsPerNode)
				return
			}
		}
	})
	return host, mask, found
}

// members are the hosts that a new node has to be near: those of live GPU nodes, or without one those that the cluster had.
func members(x *placement.Index, model string, ever []schedulerdb.NodesEverRow) (hosts []placement.Host) {
	for _, live := range []bool{true, false} {
		for _, n := range ever {
			if h, known := x.Get(n.HostID, model); known && n.Live == live {
				hosts = append(hosts, h)
			}
		}
		if len(hosts) > 0 {
			return hosts
		}
	}
	return nil
}

// near reports whether a host is at the site of others, or close enough to them, if that was asked for.
func near(h placement.Host, others []placement.Host, spec market.Spec) bool {
	for _, other := range others {
		sameSite := h.ID == other.ID || h.Site != "" && h.Site == other.Site
		switch {
		case sameSite:
		case spec.SameSite:
			return false
		case spec.MaxRTT > 0 && (h.RTT == 0 || other.RTT == 0 || h.RTT+other.RTT > spec.MaxRTT):
			return false
		}
	}
	return true
}
