package applier

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// schedule promises a booking GPUs from its start on, and holds its money now.
func (b *batch) schedule(d *decision) error {
	if err := b.ask(d, d.spec.StartsAt); err != nil {
		return err
	}
	if !b.takeQuoted(d) {
		if err := b.takeAnew(d); err != nil {
			return err
		}
	}
	b.reserve(d, d.spec.StartsAt)
	return nil
}

// preempt promises a booking the GPUs of spot clusters, which are told to drain until then.
func (b *batch) preempt(d *decision) error {
	startsAt := b.now.Add(market.DrainNotice)
	if err := b.ask(d, startsAt); err != nil {
		return err
	}
	d.request.Preempt = true
	if !b.takeQuoted(d) {
		if err := b.takeAnew(d); err != nil {
			return err
		}
	}
	b.reserve(d, startsAt)
	reserve := d.write
	d.write = func(ctx context.Context, tx pgx.Tx) error {
		b.preempted = append(b.preempted, d)
		return reserve(ctx, tx)
	}
	return nil
}

// reserve has the taken GPUs written as reservations.
func (b *batch) reserve(d *decision, startsAt time.Time) {
	b.exact = false
	d.state, d.startsAt, d.hold = stateScheduled, startsAt, holdFor(d)
	until := startsAt.Add(d.spec.Duration + market.SetupAllowance)
	d.write = func(context.Context, pgx.Tx) error {
		for i, line := range d.lines {
			b.rows.addReservation(d.booking.ID, line.HostID, d.booking.GPUModel, d.masks[i], startsAt, until)
		}
		return nil
	}
}

// start makes a scheduled booking's cluster of the GPUs that it was promised. Those that a late cluster still holds are waited for;
// otherwise, and after that, it is placed anew.
func (b *batch) start(ctx context.Context, tx pgx.Tx, d *decision) error {
	reservations, err := b.queries.OpenReservations(ctx, tx, d.booking.ID)
	if err != nil {
		return fmt.Errorf("read reservations: %w", err)
	}
	b.exact = false
	if err := b.ask(d, time.Time{}); err != nil {
		return err
	}
	promised := b.lift(d, reservations)
	taken, late := b.takePromised(d, promised)
	if !taken {
		b.lift(d, reservations)
		overdue := b.now.Sub(*d.booking.StartsAt)
		if late && overdue < reservedWait {
			return b.wait(d)
		}
		if err := b.takeAnew(d); err != nil {
			if overdue < reservedWait {
				return b.wait(d)
			}
			return err
		}
	}
	if err := b.accept(ctx, tx, d); err != nil {
		if b.now.Sub(*d.booking.StartsAt) < reservedWait {
			return b.wait(d)
		}
		return err
	}
	write := d.write
	d.write = func(ctx context.Context, tx pgx.Tx) error {
		b.rows.outcomes.unreserve = append(b.rows.outcomes.unreserve, uuid.UUID(d.booking.ID))
		return write(ctx, tx)
	}
	return nil
}

// wait leaves a booking scheduled, to be looked at again soon.
func (b *batch) wait(d *decision) error {
	d.part.Back()
	d.state, d.write = "", nil
	b.deferred[d.booking.ID] = time.Now().Add(reservedRetry)
	return nil
}

// lift takes a booking's own reservations out of its way, and returns the GPUs promised by host.
func (b *batch) lift(d *decision, reservations []schedulerdb.OpenReservationsRow) map[ids.Host]uint64 {
	promised := make(map[ids.Host]uint64)
	for _, r := range reservations {
		mask := uint64(1) << r.Ordinal
		promised[r.HostID] |= mask
		d.part.Lift(r.HostID, r.Model, census.SpanOf(mask, r.StartsAt, r.EndsAt))
	}
	return promised
}

// takePromised takes exactly the promised GPUs. late says that it failed for a lease that still holds one.
func (b *batch) takePromised(d *decision, promised map[ids.Host]uint64) (taken, late bool) {
	d.lines, d.masks, d.anew = d.quoted, nil, false
	taken = true
	for _, line := range d.quoted {
		mask := promised[line.HostID]
		if mask != 0 && d.part.TakeThese(line.HostID, d.booking.GPUModel, mask, d.request) {
			d.masks = append(d.masks, mask)
			continue
		}
		taken = false
		b.fleet.Read(func(x *placement.Index) {
			h, known := x.Get(line.HostID, d.booking.GPUModel)
			late = late || known && h.Open && h.Well&mask == mask && h.Leased&mask != 0
		})
	}
	if !taken {
		d.part.Back()
	}
	return taken, late
}

// placeAddition adds nodes to a running cluster until its end.
func (b *batch) placeAddition(ctx context.Context, tx pgx.Tx, d *decision) error {
	cluster, err := b.target(ctx, tx, d)
	if err != nil {
		return err
	}
	if cluster.State != "ready" && cluster.State != "degraded" {
		return errs.New(errs.Conflict, "Nodes can be added to a cluster that is running; this one is %s.", cluster.State)
	}
	if cluster.ForecastEnd.Sub(b.now) > d.spec.Duration {
		return errs.New(errs.Conflict, "The cluster runs longer than when its nodes were quoted: ask for a new quote.")
	}
	if int(cluster.NodeCount)+len(d.quoted) > market.MaxNodes {
		return errs.New(errs.Conflict, "A cluster has at most %d nodes: this one has %d.", market.MaxNodes, cluster.NodeCount)
	}
	ever, err := b.queries.NodesEver(ctx, tx, cluster.ID)
	if err != nil {
		return fmt.Errorf("read the cluster's nodes: %w", err)
	}
	used, last := new(slotSet), int32(0)
	if err := b.ask(d, time.Time{}); err != nil {
		return err
	}
	d.request.Runtime, d.request.Until = cluster.Runtime, cluster.ForecastEnd.Unix()
	for _, n := range ever {
		used.add(int(n.Slot))
		last = max(last, n.Ordinal)
		if n.Live {
			d.request.Exclude = append(d.request.Exclude, n.HostID)
		}
	}
	if err := b.takeAddition(d); err != nil {
		return err
	}
	nodes, added := make([]node, len(d.lines)), make([]int32, len(d.lines))
	for i, line := range d.lines {
		added[i] = last + int32(i) + 1
		nodes[i] = b.gpuNode(d, cluster.ID, added[i], line, d.masks[i])
		if nodes[i].slot, err = b.slots.take(ctx, b.queries, tx, nodes[i].machine, used); err != nil {
			return err
		}
	}
	b.exact = false
	d.state, d.hold = stateAccepted, holdFor(d)
	d.write = func(ctx context.Context, tx pgx.Tx) error {
		for _, n := range nodes {
			b.rows.addNode(n)
		}
		b.rows.addEvent(cluster.ID, cluster.OrgID, "node", "", fmt.Sprintf("%s added to the cluster.", countNodes(len(added))))
		if err := b.queries.AddPlaces(ctx, tx, added, d.hold, cluster.ID); err != nil {
			return fmt.Errorf("add places: %w", err)
		}
		return nil
	}
	return nil
}

// takeAddition takes the quoted hosts, unless the cluster has come to use one of them meanwhile, or others.
func (b *batch) takeAddition(d *decision) error {
	excluded := make(map[ids.Host]bool, len(d.request.Exclude))
	for _, host := range d.request.Exclude {
		excluded[host] = true
	}
	for _, line := range d.quoted {
		if excluded[line.HostID] {
			return b.takeAnew(d)
		}
	}
	if b.takeQuoted(d) {
		return nil
	}
	return b.takeAnew(d)
}

func countNodes(n int) string {
	if n == 1 {
		return "1 node was"
	}
	return fmt.Sprintf("%d nodes were", n)
}

// target locks the cluster that a booking changes. One that is about to end cannot be changed.
func (b *batch) target(ctx context.Context, tx pgx.Tx, d *decision) (schedulerdb.Cluster, error) {
	cluster, err := b.queries.LockTarget(ctx, tx, d.booking.TargetClusterID)
	if err != nil {
		return cluster, fmt.Errorf("lock cluster: %w", err)
	}
	switch {
	case cluster.EndedAt != nil || cluster.State == "draining" || cluster.ReleaseRequestedAt != nil:
		return cluster, errs.New(errs.Conflict, "The cluster is being released or has ended.")
	case cluster.PreemptAt != nil:
		return cluster, errs.New(errs.Conflict, "The cluster is being preempted: a market booking gets its GPUs.")
	}
	return cluster, nil
}

// placeExtension lets a cluster run longer on the GPUs that it has, if nobody was promised them meanwhile.
func (b *batch) placeExtension(ctx context.Context, tx pgx.Tx, d *decision) error {
	cluster, err := b.target(ctx, tx, d)
	if err != nil {
		return err
	}
	held, err := b.queries.LeasedPlaces(ctx, tx, cluster.ID)
	if err != nil {
		return fmt.Errorf("read the cluster's GPUs: %w", err)
	}
	if !covers(d, cluster.NodeCount, held) {
		return errs.New(errs.Conflict, "The cluster's nodes have changed since the extension was quoted: ask for a new quote.")
	}
	longer := d.spec.Duration
	end := cluster.ForecastEnd.Add(longer)
	var promised time.Time
	b.fleet.Read(func(x *placement.Index) {
		for _, place := range held {
			if from, clash := promisedFrom(x, place, b.now, end); clash && (promised.IsZero() || from.Before(promised)) {
				promised = from
			}
		}
	})
	if !promised.IsZero() {
		return errs.New(errs.Conflict, "A GPU of this cluster is promised to another booking, or its host to maintenance, from %s on: it cannot run until %s.",
			promised.UTC().Format(time.DateTime), end.UTC().Format(time.DateTime))
	}
	for _, place := range held {
		d.part.Block(place.HostID, place.Model, census.SpanOf(1<<place.Ordinal, cluster.ForecastEnd, end))
	}
	b.exact = false
	d.state, d.hold = stateAccepted, d.booking.HoldBaseUnits
	d.write = func(ctx context.Context, tx pgx.Tx) error {
		if err := b.queries.ExtendCluster(ctx, tx, longer.Milliseconds(), d.hold, longer, cluster.ID); err != nil {
			return fmt.Errorf("extend the cluster: %w", err)
		}
		if err := b.queries.ExtendUsage(ctx, tx, longer, cluster.ID); err != nil {
			return fmt.Errorf("extend its usage: %w", err)
		}
		b.rows.addEvent(cluster.ID, cluster.OrgID, "notice", "", fmt.Sprintf("Extended by %s.", market.ShortDuration(longer)))
		return nil
	}
	return nil
}

// covers reports whether the hold of an extension suffices for all nodes that run on: as many were quoted at least, and what is leased costs
// no more. What the hold does not cover nobody would be paid for.
func covers(d *decision, nodes int32, held []schedulerdb.LeasedPlacesRow) bool {
	var quoted, leased money.Amount
	for _, line := range d.quoted {
		quoted += line.Price * money.Amount(d.booking.GPUsPerNode)
	}
	for _, place := range held {
		leased += place.PricePerGPUHour
	}
	return int(nodes) <= len(d.quoted) && leased <= quoted
}

// promisedFrom says from when on a GPU is promised to somebody within a time.
func promisedFrom(x *placement.Index, place schedulerdb.LeasedPlacesRow, from, to time.Time) (time.Time, bool) {
	h, known := x.Get(place.HostID, place.Model)
	if !known {
		return time.Time{}, false
	}
	for _, s := range h.Reserved {
		if s.GPUs&(1<<place.Ordinal) != 0 && s.From < to.Unix() && s.To > from.Unix() {
			return time.Unix(s.From, 0), true
		}
	}
	return time.Time{}, false
}
