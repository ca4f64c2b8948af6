package api

import (
	"context"
	"encoding/hex"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/cluster"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
	"github.com/muster-gpu/muster/settlement/metering"
)

// Clusters is what the API needs of the clusters; *cluster.Service is one.
type Clusters interface {
	List(ctx context.Context, org ids.Org, live bool, before ids.Cluster, limit int) ([]cluster.Summary, error)
	Get(ctx context.Context, org ids.Org, id ids.Cluster) (cluster.Detail, error)
	Release(ctx context.Context, org ids.Org, id ids.Cluster) error
	RemoveNode(ctx context.Context, org ids.Org, id ids.Cluster, node ids.Node) error
	SetAutoStop(ctx context.Context, org ids.Org, id ids.Cluster, parkAfter, releaseAfter *time.Duration) error
	Resume(ctx context.Context, org ids.Org, id ids.Cluster) error
	Runway(ctx context.Context, org ids.Org) (cluster.Runway, error)
	Events(ctx context.Context, org ids.Org, id ids.Cluster, after int64, limit int) ([]schedulerdb.ClusterEvent, error)
	OrgEvents(ctx context.Context, org ids.Org, after int64, limit int) ([]schedulerdb.OrgEventsRow, error)
	LastEvent(ctx context.Context, org ids.Org) (int64, error)
}

// Ray is what the API needs of the clusters' Ray: credentials of ours, and jobs as Ray tells them. All methods answer NotFound
// for another organisation's cluster.
type Ray interface {
	Token(ctx context.Context, org ids.Org, id ids.Cluster, user ids.User) (apiv1.RayToken, error)
	Ticket(ctx context.Context, org ids.Org, id ids.Cluster, user ids.User) (apiv1.DashboardTicket, error)
	Jobs(ctx context.Context, org ids.Org, id ids.Cluster) ([]apiv1.Job, error)
	JobLogs(ctx context.Context, org ids.Org, id ids.Cluster, job string) (apiv1.JobLogs, error)
	StopJob(ctx context.Context, org ids.Org, id ids.Cluster, job string) (apiv1.Job, error)
}

const (
	liveClusters = "live"
	maxScans     = 10 // reads of a page when most clusters are in another state than asked for
)

func (s *Server) listClusters(ctx context.Context, in *clustersInput) (*output[apiv1.List[apiv1.Cluster]], error) {
	from, err := readCursor(ids.Cluster{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	org := callerOf(ctx).org.Org
	list := apiv1.List[apiv1.Cluster]{Items: []apiv1.Cluster{}}
	for range maxScans {
		rows, err := s.Clusters.List(ctx, org, in.State == liveClusters, from, in.Limit)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			from = row.ID
			if in.State == "" || in.State == liveClusters || in.State == row.State {
				list.Items = append(list.Items, wireCluster(row))
			}
			if len(list.Items) == in.Limit {
				break
			}
		}
		if len(rows) < in.Limit {
			return answer(list), nil
		}
		list.NextCursor = cursorOf(from)
		if len(list.Items) == in.Limit {
			break
		}
	}
	return answer(list), nil
}

func (s *Server) getCluster(ctx context.Context, in *clusterInput) (*output[apiv1.Cluster], error) {
	return s.cluster(ctx, callerOf(ctx).org.Org, in.ID)
}

func (s *Server) releaseCluster(ctx context.Context, in *clusterMutation) (*output[apiv1.Cluster], error) {
	org := callerOf(ctx).org.Org
	if err := s.Clusters.Release(ctx, org, in.ID); err != nil {
		return nil, err
	}
	return s.cluster(ctx, org, in.ID)
}

func (s *Server) removeNode(ctx context.Context, in *nodeMutation) (*output[apiv1.Cluster], error) {
	org := callerOf(ctx).org.Org
	if err := s.Clusters.RemoveNode(ctx, org, in.ID, in.Node); err != nil {
		return nil, err
	}
	return s.cluster(ctx, org, in.ID)
}

func (s *Server) setAutoStop(ctx context.Context, in *clusterBody[apiv1.AutoStop]) (*output[apiv1.Cluster], error) {
	org := callerOf(ctx).org.Org
	park, err := stage("body.park_after", in.Body.ParkAfter)
	if err != nil {
		return nil, err
	}
	release, err := stage("body.release_after", in.Body.ReleaseAfter)
	if err != nil {
		return nil, err
	}
	if err := s.Clusters.SetAutoStop(ctx, org, in.ID, park, release); err != nil {
		return nil, err
	}
	return s.cluster(ctx, org, in.ID)
}

// stage is nil for a stage of auto-stop that is off.
func stage(path, text string) (*time.Duration, error) {
	after, err := optionalDuration(path, text)
	if err != nil || after == 0 {
		return nil, err
	}
	return &after, nil
}

func (s *Server) resumeCluster(ctx context.Context, in *clusterMutation) (*output[apiv1.Cluster], error) {
	org := callerOf(ctx).org.Org
	if err := s.Clusters.Resume(ctx, org, in.ID); err != nil {
		return nil, err
	}
	return s.cluster(ctx, org, in.ID)
}

func (s *Server) cluster(ctx context.Context, org ids.Org, id ids.Cluster) (*output[apiv1.Cluster], error) {
	detail, err := s.Clusters.Get(ctx, org, id)
	if err != nil {
		return nil, err
	}
	cost, err := s.Meter.ClusterCost(ctx, org, id)
	if err != nil {
		return nil, err
	}
	return answer(s.wireClusterDetail(detail, cost)), nil
}

func (s *Server) listClusterEvents(ctx context.Context, in *eventsInput) (*output[apiv1.List[apiv1.ClusterEvent]], error) {
	rows, err := s.Clusters.Events(ctx, callerOf(ctx).org.Org, in.ID, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	return whole(rows, wireClusterEvent), nil
}

func (s *Server) getClusterCost(ctx context.Context, in *clusterInput) (*output[apiv1.ClusterCost], error) {
	org := callerOf(ctx).org.Org
	detail, err := s.Clusters.Get(ctx, org, in.ID)
	if err != nil {
		return nil, err
	}
	cost, err := s.Meter.ClusterCost(ctx, org, in.ID)
	if err != nil {
		return nil, err
	}
	return answer(s.wireClusterCost(cost, detail.BilledMS)), nil
}

func (s *Server) createRayToken(ctx context.Context, in *clusterMutation) (*output[apiv1.RayToken], error) {
	who := callerOf(ctx)
	token, err := s.Ray.Token(ctx, who.org.Org, in.ID, who.User)
	return answer(token), err
}

func (s *Server) createDashboardTicket(ctx context.Context, in *clusterMutation) (*output[apiv1.DashboardTicket], error) {
	who := callerOf(ctx)
	ticket, err := s.Ray.Ticket(ctx, who.org.Org, in.ID, who.User)
	return answer(ticket), err
}

func (s *Server) listJobs(ctx context.Context, in *clusterInput) (*output[apiv1.List[apiv1.Job]], error) {
	jobs, err := s.Ray.Jobs(ctx, callerOf(ctx).org.Org, in.ID)
	return whole(jobs, func(j apiv1.Job) apiv1.Job { return j }), err
}

func (s *Server) getJobLogs(ctx context.Context, in *jobInput) (*output[apiv1.JobLogs], error) {
	logs, err := s.Ray.JobLogs(ctx, callerOf(ctx).org.Org, in.ID, in.Job)
	return answer(logs), err
}

func (s *Server) stopJob(ctx context.Context, in *jobMutation) (*output[apiv1.Job], error) {
	job, err := s.Ray.StopJob(ctx, callerOf(ctx).org.Org, in.ID, in.Job)
	return answer(job), err
}

func wireCluster(c cluster.Summary) apiv1.Cluster {
	return apiv1.Cluster{
		ID: c.ID, OrgID: c.OrgID, BookingID: c.BookingID, Name: c.Name, State: c.State, Version: c.Version, GPUModel: c.GPUModel,
		NodeCount: int(c.NodeCount), GPUsPerNode: int(c.GPUsPerNode), RayVersion: c.RayVersion, Simulated: c.Simulated,
		Billing: c.State == string(cluster.Ready), CreatedAt: c.CreatedAt, ReadyAt: c.ReadyAt, EndedAt: c.EndedAt, SettledAt: c.SettledAt,
		FaultParty: textOf(c.FaultParty), EndReason: c.EndReason, Replacements: int(c.Replacements),
		Kind: c.Kind, RayReachable: c.Runtime != runtimeSimulated, PreemptAt: c.PreemptAt, ActiveAt: c.ActiveAt,
		AutoStop: apiv1.AutoStop{ParkAfter: stageText(c.ParkAfterMS), ReleaseAfter: stageText(c.ReleaseAfterMS)},
	}
}

// runtimeSimulated is of hosts that play a node's life and run none.
const runtimeSimulated = "simulated"

func stageText(milliseconds *int64) string {
	if milliseconds == nil {
		return ""
	}
	return market.ShortDuration(time.Duration(*milliseconds) * time.Millisecond)
}

func (s *Server) wireClusterDetail(d cluster.Detail, cost metering.ClusterCost) apiv1.Cluster {
	wire := wireCluster(d.Summary)
	wire.Billing = cost.PerHour > 0
	wire.EndsAt, wire.ParksAt, wire.ReleasesAt = d.EndsAt, d.ParksAt, d.ReleasesAt
	wire.Nodes = convert(d.Nodes, s.wireNode)
	wire.Phases = convert(d.Phases, wirePhase)
	wireCost := s.wireClusterCost(cost, d.BilledMS)
	wire.Cost = &wireCost
	if d.Receipt != nil {
		wire.Receipt = &apiv1.Receipt{
			MadeAt: d.Receipt.MadeAt, SHA256: hex.EncodeToString(d.Receipt.Sha256), Document: d.Receipt.Document,
		}
	}
	return wire
}

func (s *Server) wireNode(n cluster.NodeDetail) apiv1.Node {
	wire := apiv1.Node{
		ID: n.ID, HostID: n.HostID, Role: n.Role, Ordinal: int(n.Ordinal), State: n.State, Reason: n.Reason, Address: n.Address,
		Region: n.Region, GPUs: int(n.GPUs), CreatedAt: n.CreatedAt, AliveAt: n.AliveAt, EndedAt: n.EndedAt,
	}
	if n.PricePerGPUHour > 0 {
		price := s.money(n.PricePerGPUHour)
		wire.PricePerGPUHour = &price
	}
	return wire
}

func wirePhase(p cluster.Phase) apiv1.Phase {
	wire := apiv1.Phase{State: p.State, EnteredAt: p.EnteredAt}
	if p.EndedAt != nil {
		took := p.EndedAt.Sub(p.EnteredAt).Milliseconds()
		wire.DurationMS = &took
	}
	return wire
}

func wireClusterEvent(e schedulerdb.ClusterEvent) apiv1.ClusterEvent {
	return apiv1.ClusterEvent{
		Seq: e.Seq, ClusterID: e.ClusterID, At: e.At, Kind: e.Kind, State: textOf(e.State), NodeID: optional(e.NodeID),
		Message: e.Message, FaultParty: textOf(e.FaultParty),
	}
}

// wireClusterCost takes the billed time from the cluster: nodes that came and went do not count in it by themselves.
func (s *Server) wireClusterCost(c metering.ClusterCost, billedMS int64) apiv1.ClusterCost {
	return apiv1.ClusterCost{
		Hold: s.money(c.Hold), Charged: s.money(c.Charged), PerHour: s.money(c.PerHour), RefundNow: s.money(c.RefundNow),
		Refunded: s.money(c.Refunded), AsOf: c.AsOf, BilledMS: billedMS, DurationMS: c.DurationMS,
	}
}
