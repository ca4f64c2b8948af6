package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/rayaddr"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

const (
	summaryMaxAge = 10 * time.Second // an older Ray summary says nothing of nodes: changes are told at once
	// Without a change a summary is told with every tenth heartbeat only.
	activityMaxAge = time.Minute      // an older one says nothing of idleness
	quietAge       = 45 * time.Second // an older one is missed
	heardWithin    = 10 * time.Second // a host that is heard
)

// loaded is a view with the rows that it came from.
type loaded struct {
	View
	cluster schedulerdb.LockClusterRow
}

func (v loaded) node(id ids.Node) Node {
	if i := slices.IndexFunc(v.Nodes, func(n Node) bool { return n.ID == id }); i >= 0 {
		return v.Nodes[i]
	}
	return Node{}
}

// look reads one cluster. With lock, its row and those of its nodes stay as they are read until the transaction ends: the gateway,
// which writes what agents report, waits.
func (l *Lifecycle) look(ctx context.Context, db schedulerdb.DBTX, id ids.Cluster, lock bool) (loaded, error) {
	row, err := l.readCluster(ctx, db, id, lock)
	if err != nil {
		return loaded{}, err
	}
	nodes, err := l.queries.ClusterNodes(ctx, db, id)
	if err != nil {
		return loaded{}, fmt.Errorf("read nodes: %w", err)
	}
	billed, err := l.queries.BilledMilliseconds(ctx, db, id)
	if err != nil {
		return loaded{}, fmt.Errorf("read usage: %w", err)
	}
	v := View{
		State: State(row.State), Now: row.Now, PhaseAt: row.PhaseAt, ReleaseRequested: row.ReleaseRequestedAt != nil,
		ResumeRequested: row.ResumeRequestedAt != nil,
		Duration:        milliseconds(&row.DurationMS), Remaining: time.Duration(row.DurationMS-billed) * time.Millisecond,
		Replacements: int(row.Replacements), GPUsPerNode: int(row.GPUsPerNode),
		Places: places(row.Places), Joining: places(row.JoiningPlaces), PreemptAt: at(row.PreemptAt),
		ParkAfter: milliseconds(row.ParkAfterMS), ReleaseAfter: milliseconds(row.ReleaseAfterMS), ActiveAt: at(row.ActiveAt), Notices: row.Notices,
	}
	for _, n := range nodes {
		v.Nodes = append(v.Nodes, viewNode(n))
	}
	seen, err := l.readRay(ctx, db, id, &v)
	if err != nil {
		return loaded{}, err
	}
	v.Epoch, v.HeadSilent = l.memory(id, v.Now, !seen.IsZero() && v.Now.Sub(seen) > quietAge && headHeard(nodes, v.Now))
	return loaded{v, row}, nil
}

func (l *Lifecycle) readCluster(ctx context.Context, db schedulerdb.DBTX, id ids.Cluster, lock bool) (row schedulerdb.LockClusterRow, err error) {
	if lock {
		row, err = l.queries.LockCluster(ctx, db, id)
	} else {
		var read schedulerdb.ReadClusterRow
		read, err = l.queries.ReadCluster(ctx, db, id)
		row = schedulerdb.LockClusterRow(read)
	}
	if err != nil {
		return row, fmt.Errorf("read cluster: %w", err)
	}
	if lock {
		if err := l.queries.LockNodes(ctx, db, id); err != nil {
			return row, fmt.Errorf("lock nodes: %w", err)
		}
	}
	return row, nil
}

func viewNode(n schedulerdb.ClusterNodesRow) Node {
	return Node{
		ID: n.ID, HostID: n.HostID, Head: n.Role == "head", Ordinal: int(n.Ordinal), State: NodeState(n.State), Reason: n.Reason,
		Address: rayaddr.Address(int(n.Slot)), HostState: n.HostState, HostGone: n.HostGone, GPUsWell: n.GPUsWell, Leased: n.Leased,
		RemoveRequested: n.RemoveRequestedAt != nil, Since: n.CreatedAt, StoppingAt: at(n.StoppingAt),
		Drain: time.Duration(n.DrainMs) * time.Millisecond,
	}
}

// readRay fills in what Ray's head says as far as it is fresh, and returns when it said so.
func (l *Lifecycle) readRay(ctx context.Context, db schedulerdb.DBTX, id ids.Cluster, v *View) (observed time.Time, err error) {
	row, err := l.queries.GetRaySummary(ctx, db, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read Ray summary: %w", err)
	}
	age := v.Now.Sub(row.ObservedAt)
	if age <= summaryMaxAge {
		v.Ray = []RayNode{}
		if err := json.Unmarshal(row.Nodes, &v.Ray); err != nil {
			return time.Time{}, fmt.Errorf("read Ray summary: %w", err)
		}
	}
	if age <= activityMaxAge && row.RunningJobs != nil && row.Busy != nil {
		v.Activity = Idle
		if *row.RunningJobs > 0 || *row.Busy > 0 {
			v.Activity = Busy
		}
	}
	return row.ObservedAt, nil
}

// headHeard reports whether the host of the live head has been heard just now.
func headHeard(nodes []schedulerdb.ClusterNodesRow, now time.Time) bool {
	return slices.ContainsFunc(nodes, func(n schedulerdb.ClusterNodesRow) bool {
		return n.Role == "head" && n.EndedAt == nil && n.HostSeenAt != nil && now.Sub(*n.HostSeenAt) <= heardWithin
	})
}

// memory is what this term knows by itself: when it began, and how long a cluster's head has been silent though its host was heard
// all the time.
func (l *Lifecycle) memory(id ids.Cluster, now time.Time, silent bool) (epoch time.Time, headSilent time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !silent {
		delete(l.silent, id)
		return l.epoch, 0
	}
	since, known := l.silent[id]
	if !known {
		since = now
		l.silent[id] = now
	}
	return l.epoch, now.Sub(since)
}

// forgetOthers drops what is remembered of clusters that have ended.
func (l *Lifecycle) forgetOthers(live []ids.Cluster) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.silent {
		if !slices.Contains(live, id) {
			delete(l.silent, id)
		}
	}
}

// balance compares what a cluster costs an hour with what its customer has.
func (l *Lifecycle) balance(ctx context.Context, v loaded) (*Balance, error) {
	rate, err := l.queries.RatePerHour(ctx, l.pool, v.cluster.ID)
	if err != nil {
		return nil, fmt.Errorf("read rate: %w", err)
	}
	available, err := l.balances.Available(ctx, v.cluster.OrgID)
	if err != nil {
		return nil, fmt.Errorf("read balance: %w", err)
	}
	return &Balance{Available: available, PerHour: money.Amount(rate)}, nil
}

func places(ordinals []int32) []int {
	all := make([]int, len(ordinals))
	for i, ordinal := range ordinals {
		all[i] = int(ordinal)
	}
	return all
}

func at(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

func milliseconds(ms *int64) time.Duration {
	if ms == nil {
		return 0
	}
	return time.Duration(*ms) * time.Millisecond
}
