// Package cluster leads a cluster through its life, from reserved to released.
//
//	reserved -> preparing -> head_up -> joining -> ready <-> degraded
//	    \           \           \       ^  \         \  \      \
//	     \           \           \      |   \         \  '-> parked -> (joining)
//	      '-----------'-----------'-----+----'---------'-------'---'--> draining -> released | failed
//
// It is level-triggered: Decide looks at what the database, the hosts' agents and Ray's head say now and names the one next
// step; Lifecycle applies it in a transaction and asks again. Nothing depends on having seen an event, so the process may stop
// and start anywhere. A wake-up only makes the next look come sooner.
//
// Billing follows the state: it starts with ready, when Ray lists exactly the booked nodes and the delivery receipt matches,
// and stops when the cluster leaves ready, back-dated to the last heartbeat of each host. A failed GPU node is replaced by
// another host while the rest run, three times at most; a failed head ends the cluster, on the platform's account.
//
// Nodes come and go while a cluster is ready. An added one is in joining_places until Ray lists it alive: then it is delivered with
// a receipt and billed; until then it can neither degrade the cluster nor keep it from ready, and a place that cannot be filled is
// given up. One that the customer removes is billed no longer from that moment, drains, and takes its place with it. What a cluster
// was billed is the union of its leases' intervals.
//
// An idle cluster is parked and then released, as its customer has set: parked, its GPUs are free, its head and hold stay, and nothing
// is billed; resuming it places its nodes again at no more than they cost. Idleness is Ray's word that nothing runs, and that no
// session was seen; when Ray says nothing the cluster counts as active. What is about to happen is announced, each notice once.
//
// Nodes drain before they stop, and a head stops last. Deadlines count from the beginning of the term of leadership if that is later
// than the phase's, so that an outage of the control plane ends nothing.
//
// Lifecycle writes under the scheduler's term of leadership. Service reads for the API, takes its wishes, and may be used by any
// process. Both are safe for concurrent use; a cluster's row is locked before its nodes'.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/scheduler/applier"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

const (
	pollInterval = 500 * time.Millisecond
	stepTimeout  = 10 * time.Second
	stepsPerLook = 16 // a cluster passes at most this many decisions at one look
)

// Replacer places one node of a running cluster; the applier does.
type Replacer interface {
	Replace(ctx context.Context, tx pgx.Tx, r applier.Replacement) (ids.Host, error)
	Lock() (unlock func())
}

// Balances says what an organisation can still spend; settlement knows.
type Balances interface {
	Available(ctx context.Context, org ids.Org) (money.Amount, error)
}

// Lifecycle drives all live clusters. Make it with NewLifecycle; only the leader runs it.
type Lifecycle struct {
	pool     *pgxpool.Pool
	queries  *schedulerdb.Queries
	hub      *pgnotify.Hub
	replacer Replacer
	balances Balances
	log      *slog.Logger
	metrics  metrics

	mu     sync.Mutex
	epoch  time.Time                 // when Run began, by the database's clock
	silent map[ids.Cluster]time.Time // since when a head's host has been heard without its Ray
}

// NewLifecycle makes a lifecycle; all its parts are required.
func NewLifecycle(pool *pgxpool.Pool, hub *pgnotify.Hub, replacer Replacer, balances Balances, log *slog.Logger) *Lifecycle {
	return &Lifecycle{
		pool: pool, queries: schedulerdb.New(), hub: hub, replacer: replacer, balances: balances, log: log, metrics: newMetrics(),
		silent: map[ids.Cluster]time.Time{},
	}
}

// Run looks after all live clusters under one term of leadership until ctx ends.
func (l *Lifecycle) Run(ctx context.Context, term int64) error {
	wake, unsubscribe := l.hub.Subscribe(pgnotify.ChannelScheduler)
	defer unsubscribe()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	begun := false
	for {
		pgnotify.Drain(wake)
		var err error
		if !begun {
			err = l.begin(ctx)
			begun = err == nil
		}
		if begun {
			err = l.Look(ctx, term)
		}
		if err != nil && ctx.Err() == nil {
			l.log.WarnContext(ctx, "look at clusters failed, it will be tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-poll.C:
		}
	}
}

// begin notes when the term began: what happened before it, nobody may have acted on.
func (l *Lifecycle) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	now, err := l.queries.Clock(ctx, l.pool)
	if err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch = now
	clear(l.silent)
	return nil
}

// Look takes every live cluster as far as it can go now. One cluster's failure does not hold up the others.
func (l *Lifecycle) Look(ctx context.Context, term int64) error {
	clusters, err := l.queries.LiveClusters(ctx, l.pool)
	if err != nil {
		return fmt.Errorf("list live clusters: %w", err)
	}
	l.forgetOthers(clusters)
	var failures error
	for _, id := range clusters {
		if err := l.settle(ctx, term, id); err != nil {
			failures = errors.Join(failures, fmt.Errorf("cluster %s: %w", id, err))
		}
	}
	return failures
}

// settle applies decisions to one cluster until there are none, each in a transaction of its own.
func (l *Lifecycle) settle(ctx context.Context, term int64, id ids.Cluster) error {
	for range stepsPerLook {
		moved, err := l.step(ctx, term, id)
		if err != nil || !moved {
			return err
		}
	}
	return nil
}

func (l *Lifecycle) step(ctx context.Context, term int64, id ids.Cluster) (moved bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	view, err := l.look(ctx, l.pool, id, false)
	if err != nil || Decide(view.View).nothing() {
		return false, err // nearly always: no lock was taken, nothing written
	}
	var balance *Balance
	if view.endDue() { // asked before the transaction begins: it is not the scheduler's to know
		if balance, err = l.balance(ctx, view); err != nil {
			return false, err
		}
	}
	defer l.replacer.Lock()()
	var before loaded
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		if err := l.queries.AssertLeader(ctx, tx, leader.RoleScheduler, term); err != nil {
			return err
		}
		view, err := l.look(ctx, tx, id, true)
		if err != nil {
			return err
		}
		view.Balance = balance
		before = view
		moved, err = l.apply(ctx, tx, view, Decide(view.View))
		return err
	})
	if err == nil && moved {
		l.observe(ctx, before)
	}
	return moved, err
}
