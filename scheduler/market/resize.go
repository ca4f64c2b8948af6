package market

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// QuoteExtension prices more time for a running cluster: its nodes go on at the prices that they have. Its GPUs must not be promised
// to others, or to maintenance, before the new end.
func (s *Service) QuoteExtension(ctx context.Context, org ids.Org, user ids.User, id ids.Cluster, extra time.Duration) (Quote, error) {
	target, err := s.target(ctx, org, id)
	if err != nil {
		return Quote{}, err
	}
	total := time.Duration(target.Cluster.DurationMS)*time.Millisecond + extra
	if extra < MinDuration || total > MaxDuration {
		return Quote{}, errs.InvalidField("duration", "an extension lasts at least 1m, and a booking with all of its extensions at most %dh", int(MaxDuration.Hours()))
	}
	nodes, err := s.queries.TargetNodes(ctx, s.pool, target.Now.Add(MaxAhead+MaxDuration), id)
	if err != nil {
		return Quote{}, fmt.Errorf("read the cluster's nodes: %w", err)
	}
	if len(nodes) == 0 {
		return Quote{}, errs.New(errs.Conflict, "the cluster has no nodes to extend: resume it first")
	}
	if len(nodes) < int(target.Cluster.NodeCount) {
		return Quote{}, errs.New(errs.Conflict, "a node of the cluster is being replaced: ask again when it is whole")
	}
	if err := freeUntil(nodes, target.Cluster.ForecastEnd, extra); err != nil {
		return Quote{}, err
	}
	spec, err := target.spec(len(nodes), extra)
	if err != nil {
		return Quote{}, err
	}
	quote := Quote{
		Spec: spec, Kind: spec.Kind, Purpose: PurposeExtension, Target: id, GPUModel: target.Cluster.GPUModel, Runtime: target.Cluster.Runtime,
		Class: classOf(spec), Lines: extensionLines(nodes), WorstRTT: rttUnknown, State: stateQuoted,
	}
	quote.Hold = HoldFor(quote.Lines, spec.GPUsPerNode, extra)
	return s.store(ctx, s.pool, asker{org, user}, quote, quoteLifetime)
}

func freeUntil(nodes []schedulerdb.TargetNodesRow, end time.Time, extra time.Duration) error {
	first := slices.MinFunc(nodes, func(a, b schedulerdb.TargetNodesRow) int { return a.PromisedAt.Compare(b.PromisedAt) }).PromisedAt
	possible := first.Sub(end).Truncate(time.Minute)
	switch {
	case possible >= extra:
		return nil
	case possible < MinDuration:
		return errs.New(errs.NoCapacity, "The cluster's GPUs are promised from %s on: it cannot be extended.", first.UTC().Format(time.RFC3339))
	default:
		return errs.New(errs.NoCapacity, "The cluster's GPUs are promised from %s on: it can be extended by at most %s.",
			first.UTC().Format(time.RFC3339), ShortDuration(possible))
	}
}

func extensionLines(nodes []schedulerdb.TargetNodesRow) []Line {
	lines := make([]Line, len(nodes))
	for i, n := range nodes {
		lines[i] = Line{
			HostID: n.HostID, Owner: n.OwnerOrgID, Region: n.Region, Site: n.Site, Price: n.PricePerGPUHour, Hourly: n.PricePerGPUHour,
			Simulated: n.Simulated,
		}
	}
	return lines
}

// QuoteAddition prices more nodes for a running cluster, like those that it has, until its end. Without a limit of its own the price
// limit of the cluster's booking counts.
func (s *Service) QuoteAddition(
	ctx context.Context, org ids.Org, user ids.User, id ids.Cluster, nodes int, limit money.Amount,
) (Quote, error) {
	target, err := s.target(ctx, org, id)
	if err != nil {
		return Quote{}, err
	}
	if err := target.takesNodes(nodes); err != nil {
		return Quote{}, err
	}
	spec, err := target.spec(nodes, target.Cluster.ForecastEnd.Sub(target.Now))
	if err != nil {
		return Quote{}, err
	}
	if limit > 0 {
		spec.MaxPrice = limit
	}
	if err := s.validatePrice(&spec); err != nil {
		return Quote{}, err
	}
	members, err := s.queries.OpenNodeHosts(ctx, s.pool, id)
	if err != nil {
		return Quote{}, fmt.Errorf("read the cluster's nodes: %w", err)
	}
	request := s.requestFor(spec, target.Now)
	plan, explanation, err := s.placeBeside(ctx, request, members)
	if err != nil {
		return Quote{}, err
	}
	if len(plan.Nodes) == 0 {
		return Quote{}, s.refuse(NoMatch{Explanation: explanation})
	}
	quote := quoteOf(spec, request, plan)
	quote.Purpose, quote.Target = PurposeAddition, id
	return s.store(ctx, s.pool, asker{org, user}, quote, quoteLifetime)
}

// placeBeside finds hosts beside those that a cluster has, in reach of them. Without a plan the explanation says why.
func (s *Service) placeBeside(
	ctx context.Context, request placement.Request, members []ids.Host,
) (plan placement.Plan, explanation placement.Explanation, err error) {
	request.Exclude = members
	err = s.look(ctx, func(x *placement.Index) {
		if request.SameSite || request.MaxRTT > 0 {
			x = withinReach(x, request, members)
		}
		var found bool
		if plan, found = x.Place(request); !found {
			explanation = x.Explain(request)
		}
	})
	return plan, explanation, err
}

// withinReach is the part of the fleet near a cluster's hosts: in their site, or where that is not asked for behind a short enough link.
func withinReach(x *placement.Index, request placement.Request, members []ids.Host) *placement.Index {
	var site string
	var farthest time.Duration
	measured := true
	for _, member := range members {
		if h, known := x.Get(member, request.Model); known {
			site, farthest, measured = h.Site, max(farthest, h.RTT), measured && h.RTT > 0
		}
	}
	near := placement.NewIndex()
	for h := range x.All() {
		linked := !request.SameSite && measured && h.RTT > 0 && h.RTT+farthest <= request.MaxRTT
		if h.Model == request.Model && (linked || site != "" && h.Site == site) {
			near.Put(h)
		}
	}
	return near
}

// target is a cluster that is to be changed, and what was booked for it.
type target struct{ schedulerdb.TargetClusterRow }

// target reads a running cluster; one that is ending is a Conflict.
func (s *Service) target(ctx context.Context, org ids.Org, id ids.Cluster) (target, error) {
	row, err := s.queries.TargetCluster(ctx, s.pool, id, org)
	if errors.Is(err, pgx.ErrNoRows) {
		return target{}, errs.New(errs.NotFound, "there is no cluster %s", id)
	}
	if err != nil {
		return target{}, fmt.Errorf("read cluster: %w", err)
	}
	c := row.Cluster
	switch {
	case c.EndedAt != nil || c.State == "draining" || c.ReleaseRequestedAt != nil:
		return target{}, errs.New(errs.Conflict, "the cluster has ended or is being released: book a new one")
	case c.PreemptAt != nil:
		return target{}, errs.New(errs.Conflict, "the cluster's GPUs go to a market booking at %s: book a new one", c.PreemptAt.UTC().Format(clockFormat))
	}
	return target{row}, nil
}

func (t target) takesNodes(nodes int) error {
	c := t.Cluster
	switch {
	case c.State != "ready" && c.State != "degraded":
		return errs.New(errs.Conflict, "the cluster is %s: nodes can be added while it is ready", c.State)
	case nodes < 1 || int(c.NodeCount)+nodes > MaxNodes:
		return errs.InvalidField("node_count", "the cluster has %d of at most %d nodes: %d cannot be added", c.NodeCount, MaxNodes, nodes)
	case c.ForecastEnd.Sub(t.Now) < MinDuration:
		return errs.New(errs.Conflict, "the cluster ends in less than a minute: extend it first")
	}
	return nil
}

// spec is what the cluster was booked with, for other nodes and another time. What was won by auction goes on at asked prices.
func (t target) spec(nodes int, duration time.Duration) (Spec, error) {
	spec, err := SpecOf(t.Booking)
	if err != nil {
		return Spec{}, err
	}
	spec.Kind = t.Cluster.Kind
	if spec.Kind == KindAuction {
		spec.Kind = KindMarket
	}
	spec.GPUModel, spec.Runtime, spec.Image, spec.GPUsPerNode = t.Cluster.GPUModel, t.Cluster.Runtime, t.Cluster.RayVersion, int(t.Cluster.GPUsPerNode)
	spec.Nodes, spec.Duration, spec.StartsAt = nodes, duration.Truncate(time.Millisecond), time.Time{}
	spec.Window, spec.Choose, spec.ParkAfter, spec.ReleaseAfter = 0, "", 0, 0
	spec.ClusterName = strings.TrimSpace(t.Cluster.Name)
	return spec, nil
}
