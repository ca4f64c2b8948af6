// Package applier is the one writer of leases.
//
// It decides the bookings that wait, a batch at a time: it gathers them for up to two milliseconds or sixty-four, places one after
// another in memory, each on what the ones before have left, and writes the clusters, nodes, leases, events, booking states and
// escrow holds of all in one transaction of few statements. The transaction begins by asserting the leader's term, so that a
// process which has lost the lead writes nothing.
//
// # Decisions
//
//	quoted, requested --+-- cluster now -------> accepted, with a cluster
//	                    +-- cluster for later -> scheduled, with reservations
//	                    +-- preempting --------> accepted if it fits without, else scheduled in a minute on spot clusters' GPUs
//	                    +-- addition ----------> accepted, its nodes are in the cluster
//	                    +-- extension ---------> accepted, the cluster may run longer
//	scheduled, due -----+-- the reserved GPUs, else others at no more than the quoted price -> accepted
//
// Any of them may be refused instead, with the reason. A booking gets the hosts that it was quoted at the quoted prices while they are
// free; otherwise it is placed anew at no more than the quoted price. A scheduled booking whose GPUs are still held by a cluster that
// is late waits for them for three minutes before that.
//
// # What a failure costs
//
// A hold that its balance cannot bear drops that booking alone. If the database refuses a batch, because of a lease that the census
// did not know, say, the fleet is read again and each booking of the batch is decided in a transaction of its own; one that cannot be
// decided at all is put off and holds up nobody. What was taken in memory for a transaction that did not commit is given back. The
// database is the judge throughout: the unique index on open leases, the exclusion constraint on reservations and the term.
//
// # Locking
//
// A mutex is held from reading the fleet until the commit, and by Lock for whoever calls Replace.
package applier

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

const (
	batchSize      = 64
	gatherTime     = 2 * time.Millisecond
	busyTime       = 20 * time.Millisecond // after a batch of several, more are expected to come
	pollInterval   = 500 * time.Millisecond
	expireInterval = time.Second
	expireBatch    = 1000
	applyTimeout   = 10 * time.Second
	placeTries     = 3               // of one booking by itself, before it is put off
	putOff         = 5 * time.Second // a booking that cannot be decided
	reservedWait   = 3 * time.Minute // for reserved GPUs that a late cluster holds
	reservedRetry  = 500 * time.Millisecond
)

// EscrowHold is what one booking sets aside. It is an alias of an unnamed type, so that settlement, which must not import this
// package, can name the same one.
type EscrowHold = struct {
	Org     ids.Org
	Booking ids.Booking
	Amount  money.Amount
}

// Escrow sets bookings' money aside inside the applier's transaction, and gives it back. HoldAll names the holds that a balance
// cannot bear; it has made the others. After an error the transaction is rolled back.
type Escrow interface {
	HoldAll(ctx context.Context, tx pgx.Tx, holds []EscrowHold) (refused map[ids.Booking]*errs.Error, err error)
	Release(ctx context.Context, tx pgx.Tx, org ids.Org, booking ids.Booking, amount money.Amount) error
}

// Sealer makes a secret unreadable for storage.
type Sealer interface{ Seal(secret string) []byte }

// Applier writes leases. Make it with New; its methods are safe for concurrent use.
type Applier struct {
	pool       *pgxpool.Pool
	queries    *schedulerdb.Queries
	hub        *pgnotify.Hub
	fleet      *census.Census
	escrow     Escrow
	sealer     Sealer
	rayVersion string
	size       int // of a batch
	log        *slog.Logger
	metrics    metrics

	mu       sync.Mutex // held from reading the fleet until the commit
	slots    slots
	deferred map[ids.Booking]time.Time // not to be looked at before
}

// New makes an applier of clusters that run the given version of Ray, on the fleet of a census over the same pool.
func New(pool *pgxpool.Pool, hub *pgnotify.Hub, fleet *census.Census, escrow Escrow, sealer Sealer, rayVersion string, log *slog.Logger) *Applier {
	return &Applier{
		pool: pool, queries: schedulerdb.New(), hub: hub, fleet: fleet, escrow: escrow, sealer: sealer, rayVersion: rayVersion,
		size: batchSize, log: log, metrics: newMetrics(), deferred: make(map[ids.Booking]time.Time),
	}
}

// StartAtSlot says where to begin looking for free node addresses, so that several control planes can share a machine. Call it
// before the applier is used.
func (a *Applier) StartAtSlot(slot int) { a.slots.first = slot }

// Alone has the applier take one booking a transaction. Call it before the applier is used.
func (a *Applier) Alone() { a.size = 1 }

// Run decides bookings as they come, under one term of leadership, until ctx ends; what fails is tried again. The error is always
// nil; it is there for leader.Elector.
func (a *Applier) Run(ctx context.Context, term int64) error {
	wake, unsubscribe := a.hub.Subscribe(pgnotify.ChannelBookings)
	defer unsubscribe()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	a.begin()
	var expired, busy time.Time
	for {
		pgnotify.Drain(wake)
		decided, err := a.Apply(ctx, term)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			a.log.WarnContext(ctx, "booking batch failed, it will be tried again", "error", err)
		case decided >= a.size:
			continue // there may be more
		}
		if decided > 1 {
			busy = time.Now().Add(busyTime)
		}
		if time.Since(expired) > expireInterval {
			expired = time.Now()
			a.expire(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			if time.Now().Before(busy) {
				gather(ctx)
			}
		case <-poll.C:
		}
	}
}

// begin forgets what another leader may have changed meanwhile.
func (a *Applier) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.slots.forget()
	clear(a.deferred)
}

// gather gives bookings that come at about the same time the time to come.
func gather(ctx context.Context) {
	timer := time.NewTimer(gatherTime)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// expire ends quotes that nobody accepted in time. Readers of a quote judge by its time, so that this may come late.
func (a *Applier) expire(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	if _, err := a.queries.ExpireOpenQuotes(ctx, a.pool, expireBatch); err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "quotes not expired, it will be tried again", "error", err)
	}
}

// Apply decides one batch of waiting bookings, oldest first, and returns how many it decided.
func (a *Applier) Apply(ctx context.Context, term int64) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	a.mu.Lock()
	defer a.mu.Unlock()
	decided := 0
	for {
		together := &batch{Applier: a, term: term}
		err := together.run(ctx)
		switch {
		case err == nil && together.again:
			decided += together.decided()
			continue
		case err == nil:
			return decided + together.decided(), nil
		case !together.refusedByDatabase(err):
			return decided, err
		}
		n, err := a.applyEach(ctx, term, together, err)
		return decided + n, err
	}
}

// applyEach decides the bookings of a batch that the database refused one by one.
func (a *Applier) applyEach(ctx context.Context, term int64, together *batch, err error) (decided int, _ error) {
	a.log.WarnContext(ctx, "the database refused a batch, its bookings are decided one by one", "bookings", len(together.bookings), "error", err)
	for _, booking := range together.bookings {
		n, err := a.applyAlone(ctx, term, booking.ID)
		if err != nil {
			return decided, err
		}
		decided += n
	}
	return decided, nil
}

// applyAlone decides one booking in a transaction of its own, anew each time the database refuses it.
func (a *Applier) applyAlone(ctx context.Context, term int64, booking ids.Booking) (int, error) {
	var err error
	for range placeTries {
		alone := &batch{Applier: a, term: term, only: booking}
		if err = alone.run(ctx); err == nil {
			return alone.decided(), nil
		}
		if !alone.refusedByDatabase(err) {
			return 0, err
		}
	}
	a.log.WarnContext(ctx, "booking not decided, it will be tried again", "booking_id", booking, "error", err)
	a.deferred[booking] = time.Now().Add(putOff)
	return 0, nil
}

// Lock keeps bookings from being placed while the caller plans and commits a replacement.
func (a *Applier) Lock() (unlock func()) {
	a.mu.Lock()
	return a.mu.Unlock
}

// deferredNow are the bookings that are not to be looked at yet.
func (a *Applier) deferredNow() []uuid.UUID {
	list := []uuid.UUID{}
	now := time.Now()
	for booking, until := range a.deferred {
		if now.After(until) {
			delete(a.deferred, booking)
			continue
		}
		list = append(list, uuid.UUID(booking))
	}
	return list
}

var errStale = errors.New("the database has other GPUs than the census")
