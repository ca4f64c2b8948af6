package applier

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// Replacement describes the node that takes a place in a running cluster.
type Replacement struct {
	Cluster  schedulerdb.LockClusterRow
	Ordinal  int32
	MaxPrice money.Amount // the failed node's: the hold has to suffice
	Exclude  []ids.Host   // in use by the cluster, or failed it
	Regions  []string
}

// Replace places and writes one node of a running cluster inside the caller's transaction, which must hold the cluster's row
// and have asserted the term. Without a host that fits it returns NoCapacity and has written nothing. The caller must hold Lock
// until it commits, and name in Exclude what it got before in the same transaction: the census learns of it when it commits.
func (a *Applier) Replace(ctx context.Context, tx pgx.Tx, r Replacement) (ids.Host, error) {
	// The census's own connection: what the caller has written may yet be rolled back.
	if err := a.fleet.Sync(ctx, nil); err != nil {
		return ids.Host{}, err
	}
	host, mask, found := a.replacement(r)
	if !found {
		return ids.Host{}, errs.New(errs.NoCapacity, "no other host has what the failed node had, at its price")
	}
	ever, err := a.queries.NodesEver(ctx, tx, r.Cluster.ID)
	if err != nil {
		return ids.Host{}, fmt.Errorf("read the cluster's nodes: %w", err)
	}
	used := new(slotSet)
	for _, n := range ever {
		used.add(int(n.Slot))
	}
	if err := a.slots.load(ctx, a.queries, a.pool); err != nil {
		return ids.Host{}, fmt.Errorf("read slots: %w", err)
	}
	machine := a.fleet.Machine(host.Host.ID)
	slot, err := a.slots.take(ctx, a.queries, a.pool, machine, used)
	if err != nil {
		return ids.Host{}, err
	}
	var written rows
	written.addNode(node{
		cluster: r.Cluster.ID, host: host.Host.ID, machine: machine, ordinal: r.Ordinal, slot: slot, gpus: mask, model: r.Cluster.GPUModel,
		customer: r.Cluster.OrgID, price: host.Price, feeBps: r.Cluster.FeeBps,
	})
	err = pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error { return written.write(ctx, savepoint, a.rayVersion) })
	if err != nil {
		a.fleet.Stale(host.Host.ID)
		a.slots.forget()
		return ids.Host{}, err
	}
	return host.Host.ID, nil
}

// replacement finds the host and its GPUs.
func (a *Applier) replacement(r Replacement) (host placement.Node, mask uint64, found bool) {
	request := placement.Request{
		Model: r.Cluster.GPUModel, Nodes: 1, GPUsPerNode: int(r.Cluster.GPUsPerNode), MaxPrice: r.MaxPrice, Exclude: r.Exclude,
		Regions: r.Regions, Runtime: r.Cluster.Runtime, Until: max(r.Cluster.ForecastEnd.Unix(), r.Cluster.Now.Unix()),
		Class: placement.ClassOf(time.Duration(r.Cluster.DurationMS) * time.Millisecond),
	}
	if r.Cluster.Kind == market.KindSpot {
		request.Class = placement.Spot
	}
	a.fleet.Read(func(x *placement.Index) {
		plan, placed := x.Place(request)
		if !placed {
			return
		}
		host = plan.Nodes[0]
		mask, found = census.Lowest(host.Host.FreeFor(request), request.GPUsPerNode)
	})
	return host, mask, found
}
