// Package applier is the one writer of leases.
//
// It decides the bookings that wait, up to a batch at a time, in one transaction: each gets the hosts that it was quoted while they
// are free, or is placed in memory against a snapshot that the ones before it have already taken from, and its cluster, nodes, leases and escrow hold are written together, behind a
// savepoint. A booking that cannot be placed or paid for is refused by itself, and one that fails otherwise waits for the next
// batch; the others go on. The transaction begins by asserting the leader's term, so that a process which has lost the lead
// writes nothing, and the schema's unique index on open leases stands behind all of it.
//
// Replace uses the same writing for one node of a running cluster. A mutex keeps the two from planning for the same GPUs.
package applier

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/rayaddr"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

const (
	batchSize    = 64
	pollInterval = 500 * time.Millisecond
	applyTimeout = 10 * time.Second
)

// Escrow sets a booking's money aside inside the applier's transaction. A refusal is an *errs.Error, usually
// InsufficientFunds; after any other error the booking is tried again.
type Escrow interface {
	Hold(ctx context.Context, tx pgx.Tx, org ids.Org, booking ids.Booking, amount money.Amount) error
}

// Sealer makes a secret unreadable for storage.
type Sealer interface{ Seal(secret string) []byte }

// Applier writes leases. Make it with New; its methods are safe for concurrent use.
type Applier struct {
	pool       *pgxpool.Pool
	queries    *schedulerdb.Queries
	hub        *pgnotify.Hub
	escrow     Escrow
	sealer     Sealer
	rayVersion string
	firstSlot  int32
	log        *slog.Logger
	metrics    metrics
	mu         sync.Mutex // held from reading a snapshot until the commit
}

// New makes an applier of clusters that run the given version of Ray.
func New(pool *pgxpool.Pool, hub *pgnotify.Hub, escrow Escrow, sealer Sealer, rayVersion string, log *slog.Logger) *Applier {
	return &Applier{
		pool: pool, queries: schedulerdb.New(), hub: hub, escrow: escrow, sealer: sealer, rayVersion: rayVersion, log: log,
		metrics: newMetrics(),
	}
}

// StartAtSlot says where to begin looking for free node addresses, so that several control planes can share a machine. Call it
// before the applier is used.
func (a *Applier) StartAtSlot(slot int) { a.firstSlot = int32(slot % rayaddr.Slots) }

// Run decides bookings as they come, under one term of leadership, until ctx ends; what fails is tried again. The error is always
// nil; it is there for leader.Elector.
func (a *Applier) Run(ctx context.Context, term int64) error {
	wake, unsubscribe := a.hub.Subscribe(pgnotify.ChannelBookings)
	defer unsubscribe()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		pgnotify.Drain(wake)
		decided, err := a.Apply(ctx, term)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			a.log.WarnContext(ctx, "booking batch failed, it will be tried again", "error", err)
		case decided == batchSize:
			continue // there may be more
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-poll.C:
		}
	}
}

// Apply looks at one batch of waiting bookings, oldest first, and returns how many it decided.
func (a *Applier) Apply(ctx context.Context, term int64) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	a.mu.Lock()
	defer a.mu.Unlock()
	var decided []ids.Booking
	err := pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		if err := a.queries.AssertLeader(ctx, tx, leader.RoleScheduler, term); err != nil {
			return err
		}
		if _, err := a.queries.ExpireQuotes(ctx, tx); err != nil {
			return fmt.Errorf("expire quotes: %w", err)
		}
		bookings, err := a.queries.WaitingBookings(ctx, tx, batchSize)
		if err != nil || len(bookings) == 0 {
			return err
		}
		decided, err = a.applyBatch(ctx, tx, bookings)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("apply bookings: %w", err)
	}
	a.observe(ctx, decided)
	return len(decided), nil
}

func (a *Applier) applyBatch(ctx context.Context, tx pgx.Tx, bookings []schedulerdb.Booking) (decided []ids.Booking, err error) {
	var fleet *placement.Index // read by the first booking that does not get what it was quoted
	for _, booking := range bookings {
		var plan []market.Line
		err := pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error {
			var err error
			plan, err = a.apply(ctx, savepoint, &fleet, booking)
			return err
		})
		var refusal *errs.Error
		switch {
		case errors.As(err, &refusal):
			if err := a.refuse(ctx, tx, booking.ID, refusal); err != nil {
				return nil, err
			}
		case err != nil && (ctx.Err() != nil || tx.Conn().IsClosed()):
			return nil, err
		case err != nil:
			a.log.WarnContext(ctx, "booking not decided, it will be tried again", "booking_id", booking.ID, "error", err)
			continue
		}
		decided = append(decided, booking.ID)
		take(fleet, booking, plan)
		if _, err := tx.Exec(ctx, "SELECT pg_notify($1, $2)", pgnotify.ChannelDecided, uuid.UUID(booking.ID).String()); err != nil {
			return nil, fmt.Errorf("tell the waiting: %w", err)
		}
	}
	return decided, nil
}

// take removes what a booking got from the snapshot, for the bookings after it.
func take(hosts *placement.Index, booking schedulerdb.Booking, plan []market.Line) {
	if hosts == nil {
		return
	}
	for _, line := range plan {
		hosts.Take(line.HostID, booking.GPUModel, int(booking.GPUsPerNode), placement.Request{})
	}
}

// apply places one booking and writes everything that it becomes.
func (a *Applier) apply(ctx context.Context, tx pgx.Tx, fleet **placement.Index, booking schedulerdb.Booking) ([]market.Line, error) {
	lines, err := a.choose(ctx, tx, fleet, booking)
	if err != nil {
		return nil, err
	}
	hold := max(1, market.Cost(lines, int(booking.GPUsPerNode), time.Duration(booking.DurationMS)*time.Millisecond))
	if err := a.escrow.Hold(ctx, tx, booking.OrgID, booking.ID, hold); err != nil {
		return nil, err
	}
	cluster := ids.New[ids.Cluster]()
	if err := a.insertCluster(ctx, tx, cluster, booking, hold); err != nil {
		return nil, err
	}
	slots, err := a.freeSlots(ctx, tx, len(lines)+1)
	if err != nil {
		return nil, err
	}
	head, err := a.headHost(ctx, tx)
	if err != nil {
		return nil, err
	}
	touched := []uuid.UUID{uuid.UUID(head)}
	if err := a.queries.InsertNode(ctx, tx, schedulerdb.InsertNodeParams{
		ID: ids.New[ids.Node](), ClusterID: cluster, HostID: head, Role: "head", Slot: slots[0],
	}); err != nil {
		return nil, fmt.Errorf("write head: %w", err)
	}
	for i, line := range lines {
		touched = append(touched, uuid.UUID(line.HostID))
		if err := a.writeNode(ctx, tx, nodeToWrite{
			cluster: cluster, customer: booking.OrgID, host: line.HostID, model: booking.GPUModel, ordinal: int32(i + 1),
			gpus: booking.GPUsPerNode, price: line.Price, feeBps: booking.FeeBps, slot: slots[i+1],
		}); err != nil {
			return nil, err
		}
	}
	return lines, a.announce(ctx, tx, booking, cluster, touched)
}

func (a *Applier) insertCluster(ctx context.Context, tx pgx.Tx, cluster ids.Cluster, booking schedulerdb.Booking, hold money.Amount) error {
	name := booking.ClusterName
	if name == "" {
		name = fmt.Sprintf("%s x%d", booking.GPUModel, booking.NodeCount*booking.GPUsPerNode)
	}
	places := make([]int32, booking.NodeCount)
	for i := range places {
		places[i] = int32(i + 1)
	}
	err := a.queries.InsertCluster(ctx, tx, schedulerdb.InsertClusterParams{
		ID: cluster, OrgID: booking.OrgID, BookingID: booking.ID, CreatedBy: booking.CreatedBy, Name: name,
		GPUModel: booking.GPUModel, NodeCount: booking.NodeCount, GPUsPerNode: booking.GPUsPerNode, DurationMS: booking.DurationMS,
		HoldBaseUnits: hold, FeeBps: booking.FeeBps, RayVersion: a.rayVersion, RayTokenSealed: a.sealer.Seal(rand.Text()),
		Places: places, Expected: time.Duration(booking.DurationMS) * time.Millisecond,
	})
	if err != nil {
		return fmt.Errorf("write cluster: %w", err)
	}
	return nil
}

// announce marks the booking accepted, tells the timeline and wakes the hosts, all when the transaction commits.
func (a *Applier) announce(ctx context.Context, tx pgx.Tx, booking schedulerdb.Booking, cluster ids.Cluster, hosts []uuid.UUID) error {
	if err := a.queries.AcceptBooking(ctx, tx, booking.ID); err != nil {
		return fmt.Errorf("accept booking: %w", err)
	}
	reserved := "reserved"
	if err := a.queries.InsertEvent(ctx, tx, schedulerdb.InsertEventParams{
		ClusterID: cluster, Kind: "state", State: &reserved,
		Message: fmt.Sprintf("Reserved %d x %d %s and set the money aside.", booking.NodeCount, booking.GPUsPerNode, booking.GPUModel),
	}); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	return a.wakeHosts(ctx, tx, hosts)
}

func (a *Applier) wakeHosts(ctx context.Context, tx pgx.Tx, hosts []uuid.UUID) error {
	if err := a.queries.MarkHostsLeased(ctx, tx, hosts); err != nil {
		return fmt.Errorf("mark hosts: %w", err)
	}
	if err := a.queries.BumpDesired(ctx, tx, hosts); err != nil {
		return fmt.Errorf("wake hosts: %w", err)
	}
	_, err := tx.Exec(ctx, "SELECT pg_notify($1, '')", pgnotify.ChannelScheduler)
	return err
}

// choose keeps the quoted hosts at their quoted prices while they are still free; otherwise it places anew, at no more than the
// quoted price. Only that needs the fleet, which is read once for a batch, its earlier bookings included.
func (a *Applier) choose(ctx context.Context, tx pgx.Tx, fleet **placement.Index, booking schedulerdb.Booking) ([]market.Line, error) {
	var quoted []market.Line
	if err := json.Unmarshal(booking.Plan, &quoted); err != nil {
		return nil, fmt.Errorf("read plan of %s: %w", booking.ID, err)
	}
	if len(quoted) != int(booking.NodeCount) {
		return nil, fmt.Errorf("the plan of %s has %d hosts for %d nodes", booking.ID, len(quoted), booking.NodeCount)
	}
	planned := make([]ids.Host, len(quoted))
	for i, line := range quoted {
		planned[i] = line.HostID
	}
	hosts, err := market.Snapshot(ctx, a.queries, tx, planned...)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(planned, func(host ids.Host) bool { return !canTake(hosts, host, booking) }) {
		return quoted, nil
	}
	if *fleet == nil {
		if *fleet, err = market.Snapshot(ctx, a.queries, tx); err != nil {
			return nil, err
		}
	}
	return placeAnew(*fleet, quoted, booking)
}

// placeAnew finds other hosts for a booking, together no dearer than the quoted ones.
func placeAnew(hosts *placement.Index, quoted []market.Line, booking schedulerdb.Booking) ([]market.Line, error) {
	request := placement.Request{
		Model: booking.GPUModel, Nodes: int(booking.NodeCount), GPUsPerNode: int(booking.GPUsPerNode), Regions: booking.Regions,
	}
	if booking.MaxPricePerGPUHour != nil {
		request.MaxPrice = money.Amount(*booking.MaxPricePerGPUHour)
	}
	plan, ok := hosts.Place(request)
	if !ok {
		explanation := hosts.Explain(request)
		return nil, errs.New(errs.NoCapacity, "The quoted GPUs have gone and no others fit. %s", explanation.Summary).WithDetails(explanation)
	}
	lines, limit := market.LinesOf(plan), money.Amount(0)
	for _, line := range quoted {
		limit += line.Price
	}
	if plan.Price() > limit {
		return nil, errs.New(errs.NoCapacity, "The quoted GPUs have gone and what is left is dearer: ask for a new quote.")
	}
	return lines, nil
}

func canTake(hosts *placement.Index, id ids.Host, booking schedulerdb.Booking) bool {
	h, found := hosts.Get(id, booking.GPUModel)
	return found && h.Open && bits.OnesCount64(h.FreeFor(placement.Request{})) >= int(booking.GPUsPerNode)
}

func (a *Applier) refuse(ctx context.Context, tx pgx.Tx, booking ids.Booking, refusal *errs.Error) error {
	var details []byte
	if refusal.Details != nil {
		var err error
		if details, err = json.Marshal(refusal.Details); err != nil {
			return fmt.Errorf("encode refusal: %w", err)
		}
	}
	code := string(refusal.Code)
	if err := a.queries.RefuseBooking(ctx, tx, &code, &refusal.Message, details, booking); err != nil {
		return fmt.Errorf("refuse booking: %w", err)
	}
	return nil
}

type nodeToWrite struct {
	cluster  ids.Cluster
	customer ids.Org
	host     ids.Host
	model    string
	ordinal  int32
	gpus     int32
	price    money.Amount
	feeBps   int32
	slot     int32
}

// writeNode writes one GPU node with a lease for each of its GPUs. The caller undoes what was written before an error.
func (a *Applier) writeNode(ctx context.Context, tx pgx.Tx, n nodeToWrite) error {
	node := ids.New[ids.Node]()
	if err := a.queries.InsertNode(ctx, tx, schedulerdb.InsertNodeParams{
		ID: node, ClusterID: n.cluster, HostID: n.host, Role: "gpu", Ordinal: n.ordinal, Slot: n.slot, GPUs: n.gpus,
	}); err != nil {
		return fmt.Errorf("write node: %w", err)
	}
	leases := make([]uuid.UUID, n.gpus)
	for i := range leases {
		leases[i] = uuid.UUID(ids.New[ids.Lease]())
	}
	leased, err := a.queries.LeaseGPUs(ctx, tx, schedulerdb.LeaseGPUsParams{
		Ids: leases, ClusterID: n.cluster, NodeID: node, HostID: n.host, Model: n.model, CustomerOrgID: n.customer,
		PricePerGPUHour: n.price, FeeBps: n.feeBps,
	})
	if err != nil {
		return fmt.Errorf("write leases: %w", err)
	}
	if leased < int64(n.gpus) {
		return errs.New(errs.NoCapacity, "The GPUs have gone: ask for a new quote.")
	}
	return nil
}

func (a *Applier) headHost(ctx context.Context, tx pgx.Tx) (ids.Host, error) {
	heads, err := a.queries.HeadHosts(ctx, tx)
	if err != nil {
		return ids.Host{}, fmt.Errorf("read head hosts: %w", err)
	}
	if len(heads) == 0 {
		return ids.Host{}, errs.New(errs.NoCapacity, "No operator machine is online to run the Ray head: try again in a minute.")
	}
	return heads[0].ID, nil
}

func (a *Applier) freeSlots(ctx context.Context, tx pgx.Tx, wanted int) ([]int32, error) {
	used, err := a.queries.UsedSlots(ctx, tx)
	if err != nil {
		return nil, fmt.Errorf("read slots: %w", err)
	}
	free := make([]int32, 0, wanted)
	for i := int32(0); i < rayaddr.Slots && len(free) < wanted; i++ {
		slot := (a.firstSlot + i) % rayaddr.Slots
		if _, taken := slices.BinarySearch(used, slot); !taken {
			free = append(free, slot)
		}
	}
	if len(free) < wanted {
		return nil, errs.New(errs.NoCapacity, "All %d node addresses are in use: try again when a cluster has been released.", rayaddr.Slots)
	}
	return free, nil
}

// Replacement describes the node that takes a failed one's place.
type Replacement struct {
	Cluster  schedulerdb.LockClusterRow
	Ordinal  int32
	MaxPrice money.Amount // the failed node's: the hold has to suffice
	Exclude  []ids.Host   // in use by the cluster, or failed it
	Regions  []string
}

// Replace places and writes one node of a running cluster inside the caller's transaction, which must hold the cluster's row
// and have asserted the term. Without a host that fits it returns NoCapacity and has written nothing. The caller must hold Lock
// until it commits.
func (a *Applier) Replace(ctx context.Context, tx pgx.Tx, r Replacement) (ids.Host, error) {
	hosts, err := market.Snapshot(ctx, a.queries, tx)
	if err != nil {
		return ids.Host{}, err
	}
	plan, ok := hosts.Place(placement.Request{
		Model: r.Cluster.GPUModel, Nodes: 1, GPUsPerNode: int(r.Cluster.GPUsPerNode), MaxPrice: r.MaxPrice, Exclude: r.Exclude,
		Regions: r.Regions,
	})
	if !ok {
		return ids.Host{}, errs.New(errs.NoCapacity, "no other host has what the failed node had, at its price")
	}
	slots, err := a.freeSlots(ctx, tx, 1)
	if err != nil {
		return ids.Host{}, err
	}
	host, price := plan.Nodes[0].Host, plan.Nodes[0].Price
	err = pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error {
		return a.writeNode(ctx, savepoint, nodeToWrite{
			cluster: r.Cluster.ID, customer: r.Cluster.OrgID, host: host.ID, model: r.Cluster.GPUModel, ordinal: r.Ordinal,
			gpus: r.Cluster.GPUsPerNode, price: price, feeBps: r.Cluster.FeeBps, slot: slots[0],
		})
	})
	if err != nil {
		return ids.Host{}, err
	}
	return host.ID, a.wakeHosts(ctx, tx, []uuid.UUID{uuid.UUID(host.ID)})
}

// Lock keeps bookings from being placed while the caller plans and commits a replacement.
func (a *Applier) Lock() (unlock func()) {
	a.mu.Lock()
	return a.mu.Unlock
}
