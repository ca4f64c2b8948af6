package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/rayaddr"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// MaxPage is the longest page of a list.
const MaxPage = 200

// Summary is a cluster as a list shows it.
type Summary struct {
	schedulerdb.Cluster
	Simulated bool
}

// Live reports whether the cluster still exists.
func (s Summary) Live() bool { return s.EndedAt == nil }

// Detail is everything of one cluster.
type Detail struct {
	Summary
	Nodes    []NodeDetail
	Phases   []Phase
	Receipt  *schedulerdb.LatestReceiptRow // the latest, if any
	BilledMS int64                         // cluster time: while any of its nodes was billed
	Plan
}

// Plan is when what happens to a cluster, if nothing else does.
type Plan struct {
	EndsAt     *time.Time // the booked time is used up, or the GPUs go to a market booking; while it is billed
	ParksAt    *time.Time // it is parked, if it stays idle
	ReleasesAt *time.Time // it is released; while it is parked
}

// NodeDetail is a node with its place and price.
type NodeDetail struct {
	schedulerdb.ClusterNodesRow
	Address         string
	PricePerGPUHour money.Amount // zero for the head
}

// Phase is one state that the cluster was in; EndedAt is nil for the present one.
type Phase struct {
	State     string
	EnteredAt time.Time
	EndedAt   *time.Time
}

// Service reads clusters for an organisation and takes its wishes. Make it with NewService; it is safe for concurrent use.
type Service struct {
	pool    *pgxpool.Pool
	queries *schedulerdb.Queries
}

// NewService makes a service.
func NewService(pool *pgxpool.Pool) *Service {
	return &Service{pool: pool, queries: schedulerdb.New()}
}

// List returns an organisation's clusters, newest first, those before a given one if it is not zero; live leaves out ended ones.
func (s *Service) List(ctx context.Context, org ids.Org, live bool, before ids.Cluster, limit int) ([]Summary, error) {
	limit = min(max(limit, 1), MaxPage)
	cursor := uuid.NullUUID{UUID: uuid.UUID(before), Valid: !before.IsZero()}
	rows, err := s.queries.ListClusters(ctx, s.pool, org, live, cursor, int32(limit))
	if err != nil {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	clusters := make([]Summary, len(rows))
	for i, row := range rows {
		clusters[i] = Summary{row.Cluster, row.Simulated}
	}
	return clusters, nil
}

// Get returns one cluster with its nodes, phases and receipt.
func (s *Service) Get(ctx context.Context, org ids.Org, id ids.Cluster) (Detail, error) {
	row, err := s.queries.GetCluster(ctx, s.pool, id, org)
	if errors.Is(err, pgx.ErrNoRows) {
		return Detail{}, notFound(id)
	}
	if err != nil {
		return Detail{}, fmt.Errorf("read cluster: %w", err)
	}
	detail := Detail{Summary: Summary{row.Cluster, row.Simulated}}
	if err := s.fillNodes(ctx, &detail); err != nil {
		return Detail{}, err
	}
	if err := s.fillPhases(ctx, &detail); err != nil {
		return Detail{}, err
	}
	receipt, err := s.queries.LatestReceipt(ctx, s.pool, id)
	switch {
	case err == nil:
		detail.Receipt = &receipt
	case !errors.Is(err, pgx.ErrNoRows):
		return Detail{}, fmt.Errorf("read receipt: %w", err)
	}
	billed, err := s.queries.BilledMilliseconds(ctx, s.pool, id)
	if err != nil {
		return Detail{}, fmt.Errorf("read usage: %w", err)
	}
	detail.BilledMS = billed
	c := row.Cluster
	detail.Plan = planOf(schedule{State(c.State), c.PhaseAt, c.ForecastEnd, c.PreemptAt, c.ParkAfterMS, c.ReleaseAfterMS, c.ActiveAt})
	return detail, nil
}

// schedule is what of a cluster's row decides when it ends.
type schedule struct {
	state                       State
	phaseAt, forecastEnd        time.Time
	preemptAt                   *time.Time
	parkAfterMS, releaseAfterMS *int64
	activeAt                    *time.Time
}

func planOf(s schedule) (p Plan) {
	switch s.state {
	case Ready:
		p.EndsAt = &s.forecastEnd
		if s.preemptAt != nil && s.preemptAt.Before(s.forecastEnd) {
			p.EndsAt = s.preemptAt
		}
		if s.parkAfterMS != nil {
			parks := latest(at(s.activeAt), s.phaseAt).Add(milliseconds(s.parkAfterMS))
			p.ParksAt = &parks
		}
	case Parked:
		if s.releaseAfterMS != nil {
			releases := s.phaseAt.Add(milliseconds(s.releaseAfterMS))
			p.ReleasesAt = &releases
		}
	case Reserved, Preparing, HeadUp, Joining, Degraded, Draining, Released, Failed:
	}
	return p
}

func (s *Service) fillNodes(ctx context.Context, detail *Detail) error {
	nodes, err := s.queries.ClusterNodes(ctx, s.pool, detail.ID)
	if err != nil {
		return fmt.Errorf("read nodes: %w", err)
	}
	prices, err := s.queries.NodePrices(ctx, s.pool, detail.ID)
	if err != nil {
		return fmt.Errorf("read prices: %w", err)
	}
	byNode := make(map[ids.Node]money.Amount, len(prices))
	for _, price := range prices {
		byNode[price.NodeID] = money.Amount(price.Price)
	}
	for _, n := range nodes {
		detail.Nodes = append(detail.Nodes, NodeDetail{
			ClusterNodesRow: n, Address: rayaddr.Address(int(n.Slot)), PricePerGPUHour: byNode[n.ID],
		})
	}
	return nil
}

// fillPhases reads the states passed from the timeline.
func (s *Service) fillPhases(ctx context.Context, detail *Detail) error {
	phases, err := s.queries.ClusterPhases(ctx, s.pool, detail.ID)
	if err != nil {
		return fmt.Errorf("read timeline: %w", err)
	}
	for _, phase := range phases {
		if n := len(detail.Phases); n > 0 {
			detail.Phases[n-1].EndedAt = &phase.At
		}
		detail.Phases = append(detail.Phases, Phase{State: phase.State, EnteredAt: phase.At})
	}
	return nil
}

// Release asks for a cluster's end. Asking twice, or for one that has ended, changes nothing.
func (s *Service) Release(ctx context.Context, org ids.Org, id ids.Cluster) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		_, err := s.queries.RequestRelease(ctx, tx, id, org)
		if errors.Is(err, pgx.ErrNoRows) {
			return notFound(id)
		}
		if err != nil {
			return fmt.Errorf("request release: %w", err)
		}
		if _, err = tx.Exec(ctx, "SELECT pg_notify($1, '')", pgnotify.ChannelScheduler); err != nil {
			return fmt.Errorf("wake the scheduler: %w", err)
		}
		return nil
	})
}

// Events returns a cluster's timeline after a sequence number, oldest first.
func (s *Service) Events(ctx context.Context, org ids.Org, id ids.Cluster, after int64, limit int) ([]schedulerdb.ClusterEvent, error) {
	_, err := s.queries.GetCluster(ctx, s.pool, id, org)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound(id)
	}
	if err != nil {
		return nil, fmt.Errorf("read cluster: %w", err)
	}
	events, err := s.queries.ClusterEvents(ctx, s.pool, id, org, after, int32(min(max(limit, 1), MaxPage)))
	if err != nil {
		return nil, fmt.Errorf("read timeline: %w", err)
	}
	return events, nil
}

// OrgEvents returns what happened to any of an organisation's clusters after a sequence number, oldest first.
func (s *Service) OrgEvents(ctx context.Context, org ids.Org, after int64, limit int) ([]schedulerdb.OrgEventsRow, error) {
	events, err := s.queries.OrgEvents(ctx, s.pool, org, after, int32(min(max(limit, 1), MaxPage)))
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return events, nil
}

// LastEvent returns the newest sequence number of an organisation, where a new stream begins.
func (s *Service) LastEvent(ctx context.Context, org ids.Org) (int64, error) {
	seq, err := s.queries.LastOrgEvent(ctx, s.pool, org)
	if err != nil {
		return 0, fmt.Errorf("read the last event: %w", err)
	}
	return seq, nil
}

func notFound(id ids.Cluster) error { return errs.New(errs.NotFound, "there is no cluster %s", id) }
