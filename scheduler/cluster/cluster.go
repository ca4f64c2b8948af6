// Package cluster leads a cluster through its life, from reserved to released.
//
//	reserved -> preparing -> head_up -> joining -> ready <-> degraded
//	    \           \           \          \         \          \
//	     '-----------'-----------'----------'---------'----------'--> draining -> released | failed
//
// It is level-triggered: Decide looks at what the database, the hosts' agents and Ray's head say now and names the one next
// step; Lifecycle applies it in a transaction and asks again. Nothing depends on having seen an event, so the process may stop
// and start anywhere. A wake-up only makes the next look come sooner.
//
// Billing follows the state: it starts with ready, when Ray lists exactly the booked nodes and the delivery receipt matches,
// and stops when the cluster leaves ready, back-dated to the last heartbeat of each host. A failed GPU node is replaced by
// another host while the rest run, three times at most; a failed head ends the cluster, on the platform's account.
//
// Lifecycle writes under the scheduler's term of leadership. Service reads for the API and may be used by any process.
package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/rayaddr"
	"github.com/muster-gpu/muster/scheduler/applier"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

const (
	pollInterval  = 500 * time.Millisecond
	stepTimeout   = 10 * time.Second
	stepsPerLook  = 16               // a cluster passes at most this many states at one look
	summaryMaxAge = 10 * time.Second // an older Ray summary counts as none
)

// Replacer places one node of a running cluster; the applier does.
type Replacer interface {
	Replace(ctx context.Context, tx pgx.Tx, r applier.Replacement) (ids.Host, error)
	Lock() (unlock func())
}

// Lifecycle drives all live clusters. Make it with NewLifecycle; only the leader runs it.
type Lifecycle struct {
	pool     *pgxpool.Pool
	queries  *schedulerdb.Queries
	hub      *pgnotify.Hub
	replacer Replacer
	log      *slog.Logger
	metrics  metrics
}

// NewLifecycle makes a lifecycle.
func NewLifecycle(pool *pgxpool.Pool, hub *pgnotify.Hub, replacer Replacer, log *slog.Logger) *Lifecycle {
	return &Lifecycle{pool: pool, queries: schedulerdb.New(), hub: hub, replacer: replacer, log: log, metrics: newMetrics()}
}

// Run looks after all live clusters under one term of leadership until ctx ends.
func (l *Lifecycle) Run(ctx context.Context, term int64) error {
	wake, unsubscribe := l.hub.Subscribe(pgnotify.ChannelScheduler)
	defer unsubscribe()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		pgnotify.Drain(wake)
		if err := l.Look(ctx, term); err != nil && ctx.Err() == nil {
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

// Look takes every live cluster as far as it can go now. One cluster's failure does not hold up the others.
func (l *Lifecycle) Look(ctx context.Context, term int64) error {
	clusters, err := l.queries.LiveClusters(ctx, l.pool)
	if err != nil {
		return fmt.Errorf("list live clusters: %w", err)
	}
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
		before = view
		moved, err = l.apply(ctx, tx, view, Decide(view.View))
		return err
	})
	if err == nil && moved {
		l.observe(ctx, before)
	}
	return moved, err
}

func (d Decision) nothing() bool { return d.To == "" && len(d.Fail) == 0 && len(d.Replace) == 0 }

// loaded is a view with the rows that it came from.
type loaded struct {
	View
	cluster schedulerdb.LockClusterRow
}

// look reads one cluster. With lock, its row and those of its nodes stay as they are read until the transaction ends: the gateway,
// which writes what agents report, waits.
func (l *Lifecycle) look(ctx context.Context, db schedulerdb.DBTX, id ids.Cluster, lock bool) (loaded, error) {
	read := l.queries.ReadCluster
	if lock {
		read = func(ctx context.Context, db schedulerdb.DBTX, id ids.Cluster) (schedulerdb.ReadClusterRow, error) {
			row, err := l.queries.LockCluster(ctx, db, id)
			return schedulerdb.ReadClusterRow(row), err
		}
	}
	row, err := read(ctx, db, id)
	if err != nil {
		return loaded{}, fmt.Errorf("read cluster: %w", err)
	}
	if lock {
		if err := l.queries.LockNodes(ctx, db, id); err != nil {
			return loaded{}, fmt.Errorf("lock nodes: %w", err)
		}
	}
	nodes, err := l.queries.ClusterNodes(ctx, db, id)
	if err != nil {
		return loaded{}, fmt.Errorf("read nodes: %w", err)
	}
	billed, err := l.queries.BilledMilliseconds(ctx, db, id)
	if err != nil {
		return loaded{}, fmt.Errorf("read usage: %w", err)
	}
	view := View{
		State: State(row.State), Now: row.Now, PhaseAt: row.PhaseAt, ReleaseRequested: row.ReleaseRequestedAt != nil,
		Remaining:    time.Duration(row.DurationMS-billed.ConfirmedMS) * time.Millisecond,
		Replacements: int(row.Replacements), GPUsPerNode: int(row.GPUsPerNode),
	}
	for place := range int(row.NodeCount) {
		view.Places = append(view.Places, place+1)
	}
	for _, n := range nodes {
		view.Nodes = append(view.Nodes, viewNode(n))
	}
	view.Ray, err = l.raySummary(ctx, db, id, row.Now)
	return loaded{view, schedulerdb.LockClusterRow(row)}, err
}

func viewNode(n schedulerdb.ClusterNodesRow) Node {
	return Node{
		ID: n.ID, HostID: n.HostID, Head: n.Role == "head", Ordinal: int(n.Ordinal), State: NodeState(n.State), Reason: n.Reason,
		Address: rayaddr.Address(int(n.Slot)), HostState: n.HostState, HostGone: n.HostGone, GPUsWell: n.GPUsWell, Since: n.CreatedAt,
	}
}

func (l *Lifecycle) raySummary(ctx context.Context, db schedulerdb.DBTX, id ids.Cluster, now time.Time) ([]RayNode, error) {
	row, err := l.queries.GetRaySummary(ctx, db, id)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && now.Sub(row.ObservedAt) > summaryMaxAge {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Ray summary: %w", err)
	}
	nodes := []RayNode{}
	if err := json.Unmarshal(row.Nodes, &nodes); err != nil {
		return nil, fmt.Errorf("read Ray summary: %w", err)
	}
	return nodes, nil
}

// apply writes a decision. It reports whether the cluster moved, so that it is worth looking again at once.
func (l *Lifecycle) apply(ctx context.Context, tx pgx.Tx, v loaded, d Decision) (bool, error) {
	if d.nothing() {
		return false, nil
	}
	if v.State == Ready && d.To != "" {
		if err := l.queries.StopBilling(ctx, tx, v.cluster.ID); err != nil {
			return false, fmt.Errorf("stop billing: %w", err)
		}
	}
	for _, failed := range d.Fail {
		if err := l.failNode(ctx, tx, v, failed); err != nil {
			return false, err
		}
	}
	for _, place := range d.Replace {
		if done, err := l.replace(ctx, tx, v, place); err != nil || done {
			return done, err
		}
	}
	if d.To == "" {
		return len(d.Fail) > 0, nil
	}
	return true, l.enter(ctx, tx, v, d)
}

// enter moves the cluster to the decided state with what belongs to it.
func (l *Lifecycle) enter(ctx context.Context, tx pgx.Tx, v loaded, d Decision) error {
	switch d.To {
	case Ready:
		if err := l.deliver(ctx, tx, v); err != nil {
			return err
		}
	case Draining:
		if err := l.stopNodes(ctx, tx, v); err != nil {
			return err
		}
	case Released:
		return l.finish(ctx, tx, v)
	case Reserved, Preparing, HeadUp, Joining, Degraded, Failed:
	}
	return l.setState(ctx, tx, v.cluster.ID, d.To, d.Party, d.Reason)
}

func (l *Lifecycle) setState(ctx context.Context, tx pgx.Tx, id ids.Cluster, to State, party Party, reason string) error {
	endReason := ""
	if to == Draining {
		endReason = reason
	}
	if err := l.queries.SetClusterState(ctx, tx, string(to), optional(string(party)), endReason, id); err != nil {
		return fmt.Errorf("enter %s: %w", to, err)
	}
	state := string(to)
	return l.event(ctx, tx, schedulerdb.InsertEventParams{
		ClusterID: id, Kind: "state", State: &state, Message: reason, FaultParty: optional(string(party)),
	})
}

func (l *Lifecycle) event(ctx context.Context, tx pgx.Tx, e schedulerdb.InsertEventParams) error {
	if err := l.queries.InsertEvent(ctx, tx, e); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	return nil
}

// failNode ends a node and its leases on the owner's account.
func (l *Lifecycle) failNode(ctx context.Context, tx pgx.Tx, v loaded, failed FailedNode) error {
	if err := l.queries.SetNodeState(ctx, tx, string(NodeFailed), failed.Reason, failed.ID); err != nil {
		return fmt.Errorf("fail node: %w", err)
	}
	return l.endNode(ctx, tx, v, failed.ID, failed.Reason)
}

// endNode closes a failed node's leases, frees its host and tells the timeline.
func (l *Lifecycle) endNode(ctx context.Context, tx pgx.Tx, v loaded, id ids.Node, reason string) error {
	if v.State != Draining {
		if err := l.event(ctx, tx, schedulerdb.InsertEventParams{
			ClusterID: v.cluster.ID, Kind: "node", NodeID: id, FaultParty: optional(string(PartyOwner)),
			Message: fmt.Sprintf("Node %d failed. %s", v.node(id).Ordinal, reason),
		}); err != nil {
			return err
		}
	}
	if err := l.queries.TouchCluster(ctx, tx, v.cluster.ID); err != nil {
		return fmt.Errorf("touch cluster: %w", err)
	}
	party := string(PartyOwner)
	if err := l.queries.CloseLeases(ctx, tx, &party, &reason, v.cluster.ID, uuid.NullUUID{UUID: uuid.UUID(id), Valid: true}); err != nil {
		return fmt.Errorf("close leases: %w", err)
	}
	return l.freeHosts(ctx, tx, []uuid.UUID{uuid.UUID(v.node(id).HostID)})
}

// replace fills a place whose node has failed. Without a host that fits, an assembling cluster ends and a degraded one waits
// for one, within its limit.
func (l *Lifecycle) replace(ctx context.Context, tx pgx.Tx, v loaded, place int) (moved bool, err error) {
	r := applier.Replacement{Cluster: v.cluster, Ordinal: int32(place), Regions: v.cluster.Regions}
	for _, n := range v.Nodes {
		if n.Head {
			continue
		}
		r.Exclude = append(r.Exclude, n.HostID)
		if n.Ordinal != place {
			continue
		}
		price, err := l.queries.NodePrice(ctx, tx, n.ID)
		if err != nil {
			return false, fmt.Errorf("read price: %w", err)
		}
		if r.MaxPrice == 0 || price < r.MaxPrice {
			r.MaxPrice = price
		}
		// A node that failed by its agent's report still has its leases.
		if err := l.endReported(ctx, tx, v, n); err != nil {
			return false, err
		}
	}
	host, err := l.replacer.Replace(ctx, tx, r)
	switch {
	case errs.CodeOf(err) == errs.NoCapacity && v.State == Degraded:
		return false, nil
	case errs.CodeOf(err) == errs.NoCapacity:
		return true, l.enter(ctx, tx, v, Decision{
			To: Draining, Party: PartyOwner, Reason: fmt.Sprintf("Node %d failed and cannot be replaced: %s.", place, err),
		})
	case err != nil:
		return false, err
	}
	if err := l.queries.CountReplacement(ctx, tx, v.cluster.ID); err != nil {
		return false, fmt.Errorf("count replacement: %w", err)
	}
	return true, l.event(ctx, tx, schedulerdb.InsertEventParams{
		ClusterID: v.cluster.ID, Kind: "node", Message: fmt.Sprintf("Node %d is being replaced by host %s.", place, host),
	})
}

// endReported closes what a node left that its agent, not this package, declared failed.
func (l *Lifecycle) endReported(ctx context.Context, tx pgx.Tx, v loaded, n Node) error {
	open, err := l.queries.HasOpenLeases(ctx, tx, n.ID)
	if err != nil {
		return fmt.Errorf("read leases: %w", err)
	}
	if !open {
		return nil
	}
	return l.endNode(ctx, tx, v, n.ID, n.Reason)
}

// deliver makes the delivery receipt, marks the nodes alive and starts the billing.
func (l *Lifecycle) deliver(ctx context.Context, tx pgx.Tx, v loaded) error {
	document, err := l.receipt(ctx, tx, v)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(document)
	if err := l.queries.InsertReceipt(ctx, tx, v.cluster.ID, string(document), hash[:]); err != nil {
		return fmt.Errorf("write receipt: %w", err)
	}
	for _, n := range v.live() {
		if n.State == NodeStarting {
			if err := l.queries.SetNodeState(ctx, tx, string(NodeRunning), "", n.ID); err != nil {
				return fmt.Errorf("mark node running: %w", err)
			}
		}
		if n.State != NodeAlive {
			if err := l.queries.SetNodeState(ctx, tx, string(NodeAlive), "", n.ID); err != nil {
				return fmt.Errorf("mark node alive: %w", err)
			}
		}
	}
	if err := l.queries.StartBilling(ctx, tx, v.Remaining, v.cluster.ID); err != nil {
		return fmt.Errorf("start billing: %w", err)
	}
	return l.event(ctx, tx, schedulerdb.InsertEventParams{
		ClusterID: v.cluster.ID, Kind: "receipt", Message: fmt.Sprintf("Delivered as booked; receipt %x.", hash[:8]),
	})
}

// stopNodes asks the hosts to stop everything of the cluster.
func (l *Lifecycle) stopNodes(ctx context.Context, tx pgx.Tx, v loaded) error {
	var hosts []uuid.UUID
	for _, n := range v.live() {
		if err := l.queries.SetNodeState(ctx, tx, string(NodeStopping), "", n.ID); err != nil {
			return fmt.Errorf("stop node: %w", err)
		}
		hosts = append(hosts, uuid.UUID(n.HostID))
	}
	if err := l.queries.BumpDesired(ctx, tx, hosts); err != nil {
		return fmt.Errorf("wake hosts: %w", err)
	}
	return nil
}

// finish ends a drained cluster: its leases close, its hosts are free, and settlement is told.
func (l *Lifecycle) finish(ctx context.Context, tx pgx.Tx, v loaded) error {
	party, reason := Party(*v.cluster.FaultParty), v.cluster.EndReason
	if err := l.queries.CloseLeases(ctx, tx, v.cluster.FaultParty, &reason, v.cluster.ID, uuid.NullUUID{}); err != nil {
		return fmt.Errorf("close leases: %w", err)
	}
	var hosts []uuid.UUID
	for _, n := range v.Nodes {
		hosts = append(hosts, uuid.UUID(n.HostID))
	}
	if err := l.freeHosts(ctx, tx, hosts); err != nil {
		return err
	}
	to, message := Released, "Released. What was not used goes back to the balance."
	if party == PartyOwner || party == PartyPlatform {
		to, message = Failed, "Ended by a failure. What was not delivered is not charged."
	}
	if err := l.setState(ctx, tx, v.cluster.ID, to, party, message); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "SELECT pg_notify($1, '')", pgnotify.ChannelSettlement)
	return err
}

func (l *Lifecycle) freeHosts(ctx context.Context, tx pgx.Tx, hosts []uuid.UUID) error {
	if err := l.queries.MarkHostsLeased(ctx, tx, hosts); err != nil {
		return fmt.Errorf("free hosts: %w", err)
	}
	if err := l.queries.BumpDesired(ctx, tx, hosts); err != nil {
		return fmt.Errorf("wake hosts: %w", err)
	}
	return nil
}

func (v loaded) node(id ids.Node) Node {
	for _, n := range v.Nodes {
		if n.ID == id {
			return n
		}
	}
	return Node{}
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
