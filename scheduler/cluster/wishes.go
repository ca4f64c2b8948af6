package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// Bounds of the times of auto-stop.
const (
	MinAutoStop = time.Minute
	MaxAutoStop = 30 * 24 * time.Hour
)

// wish changes one of an organisation's clusters, whose row is locked meanwhile, and wakes the scheduler.
func (s *Service) wish(ctx context.Context, org ids.Org, id ids.Cluster, change func(tx pgx.Tx, c schedulerdb.Cluster) error) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		c, err := s.queries.LockOwnCluster(ctx, tx, id, org)
		if errors.Is(err, pgx.ErrNoRows) {
			return notFound(id)
		}
		if err != nil {
			return fmt.Errorf("read cluster: %w", err)
		}
		if err := change(tx, c); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_notify($1, '')", pgnotify.ChannelScheduler); err != nil {
			return fmt.Errorf("wake the scheduler: %w", err)
		}
		return nil
	})
}

// RemoveNode asks for one GPU node to leave a running cluster. Asking twice changes nothing. The last node cannot leave.
func (s *Service) RemoveNode(ctx context.Context, org ids.Org, id ids.Cluster, node ids.Node) error {
	return s.wish(ctx, org, id, func(tx pgx.Tx, c schedulerdb.Cluster) error {
		nodes, err := s.queries.ClusterNodes(ctx, tx, id)
		if err != nil {
			return fmt.Errorf("read nodes: %w", err)
		}
		i := slices.IndexFunc(nodes, func(n schedulerdb.ClusterNodesRow) bool { return n.ID == node && n.EndedAt == nil })
		switch {
		case i < 0:
			return errs.New(errs.NotFound, "cluster %s has no living node %s", id, node)
		case nodes[i].Role == "head":
			return errs.New(errs.Invalid, "the head cannot be removed: release the cluster instead")
		case nodes[i].RemoveRequestedAt != nil || !slices.Contains(c.Places, nodes[i].Ordinal):
			return nil // it is leaving
		case c.State != string(Ready) && c.State != string(Degraded) || c.ReleaseRequestedAt != nil:
			return errs.New(errs.Conflict, "cluster %s is %s: nodes can be removed while it is ready", id, c.State)
		case !slices.Contains(c.JoiningPlaces, nodes[i].Ordinal) && staying(c, nodes, nodes[i].Ordinal) == 0:
			return errs.New(errs.Conflict, "this is the last node of cluster %s: release the cluster instead", id)
		}
		if err := s.queries.RequestRemoval(ctx, tx, node); err != nil {
			return fmt.Errorf("request removal: %w", err)
		}
		return nil
	})
}

// staying counts the places that a cluster would keep without one, added ones that have not joined left out.
func staying(c schedulerdb.Cluster, nodes []schedulerdb.ClusterNodesRow, less int32) int {
	left := slices.DeleteFunc(slices.Clone(c.Places), func(place int32) bool {
		return place == less || slices.Contains(c.JoiningPlaces, place)
	})
	for _, n := range nodes {
		if n.RemoveRequestedAt != nil && n.EndedAt == nil {
			left = slices.DeleteFunc(left, func(place int32) bool { return place == n.Ordinal })
		}
	}
	return len(left)
}

// SetAutoStop sets after how long an idle cluster is parked, and a parked one released; nil is never. The time until parking begins
// anew.
func (s *Service) SetAutoStop(ctx context.Context, org ids.Org, id ids.Cluster, parkAfter, releaseAfter *time.Duration) error {
	for field, d := range map[string]*time.Duration{"park_after": parkAfter, "release_after": releaseAfter} {
		if d != nil && (*d < MinAutoStop || *d > MaxAutoStop) {
			return errs.InvalidField(field, "must be between %s and %s", inWords(MinAutoStop), inWords(MaxAutoStop))
		}
	}
	return s.wish(ctx, org, id, func(tx pgx.Tx, c schedulerdb.Cluster) error {
		if c.State == string(Draining) || c.EndedAt != nil {
			return errs.New(errs.Conflict, "cluster %s is %s: it stops already", id, c.State)
		}
		if err := s.queries.SetAutoStop(ctx, tx, inMilliseconds(parkAfter), inMilliseconds(releaseAfter), id); err != nil {
			return fmt.Errorf("set auto-stop: %w", err)
		}
		return nil
	})
}

func inMilliseconds(d *time.Duration) *int64 {
	if d == nil {
		return nil
	}
	ms := d.Milliseconds()
	return &ms
}

// Resume asks for a parked cluster's nodes to be placed again. Asking twice changes nothing; whether they could be is told by the
// timeline.
func (s *Service) Resume(ctx context.Context, org ids.Org, id ids.Cluster) error {
	return s.wish(ctx, org, id, func(tx pgx.Tx, c schedulerdb.Cluster) error {
		if c.State != string(Parked) || c.ReleaseRequestedAt != nil {
			return errs.New(errs.Conflict, "cluster %s is %s: only a parked one can be resumed", id, c.State)
		}
		if err := s.queries.RequestResume(ctx, tx, id); err != nil {
			return fmt.Errorf("request to resume: %w", err)
		}
		return nil
	})
}

// Touch says that somebody uses a cluster at the moment. One that has ended, or does not exist, is left alone.
func (s *Service) Touch(ctx context.Context, id ids.Cluster) error {
	if err := s.queries.TouchActive(ctx, s.pool, id); err != nil {
		return fmt.Errorf("remember activity: %w", err)
	}
	return nil
}

// Runway is what an organisation's clusters cost as they run now, and how long they go on.
type Runway struct {
	PerHour  money.Amount
	HoldLeft money.Amount
	Clusters []RunwayCluster
}

// RunwayCluster is one live cluster's part of a runway.
type RunwayCluster struct {
	ID       ids.Cluster
	Name     string
	State    string
	PerHour  money.Amount // zero while nothing is billed
	HoldLeft money.Amount // what a release now would return
	Plan
}

// Runway reads an organisation's live clusters, oldest first.
func (s *Service) Runway(ctx context.Context, org ids.Org) (Runway, error) {
	rows, err := s.queries.Runway(ctx, s.pool, org)
	if err != nil {
		return Runway{}, fmt.Errorf("read runway: %w", err)
	}
	var all Runway
	for _, row := range rows {
		c := RunwayCluster{
			ID: row.ID, Name: row.Name, State: row.State, PerHour: money.Amount(row.PerHour), HoldLeft: max(0, row.HoldBaseUnits-money.Amount(row.Spent)),
			Plan: planOf(schedule{State(row.State), row.PhaseAt, row.ForecastEnd, row.PreemptAt, row.ParkAfterMS, row.ReleaseAfterMS, row.ActiveAt}),
		}
		all.PerHour += c.PerHour
		all.HoldLeft += c.HoldLeft
		all.Clusters = append(all.Clusters, c)
	}
	return all, nil
}
