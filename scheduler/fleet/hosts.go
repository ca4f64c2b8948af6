package fleet

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/fleet/fleetdb"
)

const maxHostsListed = 1000

// Registry reads and steers the hosts of organisations. It is safe for concurrent use, in any process.
type Registry struct {
	pool     *pgxpool.Pool
	queries  *fleetdb.Queries
	currency money.Currency // that prices are told in

	rayVersion string // of new clusters
}

// NewRegistry makes a registry over a pool, for a platform whose new clusters run the given version of Ray.
func NewRegistry(pool *pgxpool.Pool, currency money.Currency, rayVersion string) *Registry {
	return &Registry{pool: pool, queries: fleetdb.New(), currency: currency, rayVersion: rayVersion}
}

// HostView is a host as its owner sees it.
type HostView struct {
	ID                   ids.Host
	OrgID                ids.Org
	Name                 string
	Kind                 string
	State                string
	StateReason          string
	Region               string
	Site                 string
	Connected            bool
	Liveness             string // LivenessLive and the like
	SuspectSince         *time.Time
	RTT                  time.Duration // to the control plane; 0: not known
	FailingGate          string        // the first gate that closes it to new work, "" if none does
	Gates                []GateView    // in a fixed order; none before the first verdict
	ReliabilityBps       int           // of observed time
	TrustTier            int           // 0 new, 1 proven, 2 trusted
	Windows              []Window      // of maintenance, planned or begun, soonest first
	Simulated            bool
	LastSeenAt           *time.Time
	EnrolledAt           time.Time
	AgentVersion         string
	CertificateExpiresAt time.Time
	DesiredGeneration    int64
	AppliedGeneration    int64
	Inventory            *agentpb.Inventory // as last stored; empty before the first
	GPUs                 []GPUView
	Nodes                []HostNodeView // what runs, or should
}

// GateView is one health gate of a host.
type GateView struct {
	Gate     string
	State    string // Pass, Fail or Unknown
	Measured string
	Required string
	Fix      string // what the owner can do, "" if nothing need be done
	Closes   bool   // failing, it keeps new work away
	Since    time.Time
}

// GPUView is a GPU of a host.
type GPUView struct {
	ID                ids.GPU
	UUID              string
	Ordinal           int
	Model             string
	Product           string
	MemoryMiB         int64
	ComputeCapability string
	Healthy           bool
	HealthNote        string
	Leased            bool
}

// HostNodeView is a cluster's node on a host.
type HostNodeView struct {
	ID        ids.Node
	ClusterID ids.Cluster
	Role      string
	State     string
	GPUs      int
	CreatedAt time.Time
}

// Hosts lists an organisation's hosts, newest first.
func (r *Registry) Hosts(ctx context.Context, org ids.Org) ([]HostView, error) {
	return r.read(ctx, org, uuid.NullUUID{})
}

// Host returns one host. Errors: NotFound, also for another organisation's.
func (r *Registry) Host(ctx context.Context, org ids.Org, id ids.Host) (HostView, error) {
	hosts, err := r.read(ctx, org, uuid.NullUUID{UUID: uuid.UUID(id), Valid: true})
	if err != nil {
		return HostView{}, err
	}
	if len(hosts) == 0 {
		return HostView{}, errNoHost(id)
	}
	return hosts[0], nil
}

func errNoHost(id ids.Host) error { return errs.New(errs.NotFound, "there is no host %s", id) }

func (r *Registry) read(ctx context.Context, org ids.Org, only uuid.NullUUID) ([]HostView, error) {
	rows, err := r.queries.HostsOf(ctx, r.pool, org, only, maxHostsListed)
	if err != nil {
		return nil, err
	}
	hosts, places, all := make([]HostView, 0, len(rows)), make(map[ids.Host]int, len(rows)), make([]uuid.UUID, 0, len(rows))
	for i, row := range rows {
		view, err := hostView(row)
		if err != nil {
			return nil, err
		}
		hosts, places[row.ID], all = append(hosts, view), i, append(all, uuid.UUID(row.ID))
	}
	gpus, err := r.queries.GPUsOf(ctx, r.pool, all)
	if err != nil {
		return nil, err
	}
	for _, gpu := range gpus {
		host := &hosts[places[gpu.HostID]]
		host.GPUs = append(host.GPUs, GPUView{
			ID: gpu.ID, UUID: gpu.UUID, Ordinal: int(gpu.Ordinal), Model: gpu.Model, Product: gpu.Product, MemoryMiB: gpu.MemoryMiB,
			ComputeCapability: gpu.ComputeCapability, Healthy: gpu.Healthy, HealthNote: gpu.HealthNote, Leased: gpu.Leased,
		})
	}
	if err = r.readHealth(ctx, hosts, places, all); err != nil {
		return nil, err
	}
	nodes, err := r.queries.NodesOf(ctx, r.pool, all)
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		host := &hosts[places[node.HostID]]
		host.Nodes = append(host.Nodes, HostNodeView{
			ID: node.ID, ClusterID: node.ClusterID, Role: node.Role, State: node.State, GPUs: int(node.GPUs), CreatedAt: node.CreatedAt,
		})
	}
	return hosts, nil
}

// readHealth adds the gates and the maintenance windows.
func (r *Registry) readHealth(ctx context.Context, hosts []HostView, places map[ids.Host]int, all []uuid.UUID) error {
	gates, err := r.queries.GatesOf(ctx, r.pool, all)
	if err != nil {
		return err
	}
	for _, row := range gates {
		host := &hosts[places[row.HostID]]
		host.Gates = append(host.Gates, GateView{
			Gate: row.Gate, State: row.State, Measured: row.Measured, Required: row.Required, Fix: row.Fix, Since: row.Since,
			Closes: gateCloses(row.Gate, host.Inventory.GetRuntime()),
		})
	}
	for i := range hosts {
		slices.SortFunc(hosts[i].Gates, func(a, b GateView) int {
			return slices.Index(gateOrder, a.Gate) - slices.Index(gateOrder, b.Gate)
		})
	}
	windows, err := r.queries.OpenWindowsOf(ctx, r.pool, all)
	if err != nil {
		return err
	}
	for _, row := range windows {
		host := &hosts[places[row.HostID]]
		host.Windows = append(host.Windows, windowView(row))
	}
	return nil
}

func liveness(row fleetdb.HostsOfRow) string {
	switch {
	case row.State == StateLost:
		return LivenessLost
	case row.Connected:
		return LivenessLive
	case row.SuspectSince != nil && row.State != StateQuarantined && row.State != StateRetired:
		return LivenessSuspect
	default:
		return LivenessLost
	}
}

func hostView(row fleetdb.HostsOfRow) (HostView, error) {
	inventory := &agentpb.Inventory{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(row.Inventory, inventory); err != nil {
		return HostView{}, err
	}
	roundTrip := time.Duration(0)
	if row.RTTUS != nil {
		roundTrip = time.Duration(*row.RTTUS) * time.Microsecond
	}
	return HostView{
		Liveness: liveness(row), SuspectSince: row.SuspectSince, RTT: roundTrip, FailingGate: row.FailingGate, Gates: []GateView{},
		ReliabilityBps: int(row.ReliabilityBps), TrustTier: int(row.TrustTier), Windows: []Window{},
		ID: row.ID, OrgID: row.OrgID, Name: row.Name, Kind: row.Kind, State: row.State, StateReason: row.StateReason,
		Region: row.Region, Site: row.Site, Connected: row.Connected, Simulated: row.Simulated, LastSeenAt: row.LastSeenAt,
		EnrolledAt: row.EnrolledAt, AgentVersion: row.AgentVersion, CertificateExpiresAt: row.CertificateExpiresAt,
		DesiredGeneration: row.DesiredGeneration, AppliedGeneration: row.AppliedGeneration, Inventory: inventory,
		GPUs: []GPUView{}, Nodes: []HostNodeView{},
	}, nil
}

// Cordon stops new work from coming to a host; what runs goes on. Cordoning twice is not an error. Errors: NotFound, Conflict for a
// host that does not take work anyway.
func (r *Registry) Cordon(ctx context.Context, org ids.Org, id ids.Host) error {
	return r.steer(ctx, org, id, func(ctx context.Context, tx pgx.Tx, host fleetdb.LockOwnHostRow) error {
		switch host.State {
		case StateDraining:
			// In maintenance it opens by itself; cordoned it does not.
			return r.queries.SetHostState(ctx, tx, StateDraining, reasonCordoned, id)
		case StateIdle, StateLeased:
			return r.queries.SetHostState(ctx, tx, StateDraining, reasonCordoned, id)
		default:
			return errs.New(errs.Conflict, "the host is %s, so it takes no work anyway", host.State)
		}
	})
}

// Uncordon lets work come again; it is not an error for a host that is not cordoned. Errors: NotFound, Conflict for a host that
// cannot take work for another reason.
func (r *Registry) Uncordon(ctx context.Context, org ids.Org, id ids.Host) error {
	return r.steer(ctx, org, id, func(ctx context.Context, tx pgx.Tx, host fleetdb.LockOwnHostRow) error {
		switch {
		case host.State == StateDraining:
			inMaintenance, err := r.queries.InMaintenance(ctx, tx, id)
			if err != nil {
				return err
			}
			if inMaintenance && host.StateReason == reasonMaintenance {
				return errs.New(errs.Conflict, "the host is in a maintenance window: cancel that to open it now")
			}
			if inMaintenance {
				return r.queries.SetHostState(ctx, tx, StateDraining, reasonMaintenance, id)
			}
			if err := r.queries.SetHostState(ctx, tx, StateIdle, "", id); err != nil {
				return err
			}
			return leaseIfBusy(ctx, r.queries, tx, id)
		case host.State == StateIdle || host.State == StateLeased:
			return nil
		case host.StateReason == reasonCordonedLost:
			return r.queries.SetHostState(ctx, tx, host.State, reasonLost, id)
		default:
			return errs.New(errs.Conflict, "the host is %s: %s", host.State, host.StateReason)
		}
	})
}

// Retire takes a host out for good: its certificate is worth nothing from now on and its stream ends within seconds. Retiring twice
// is not an error. Errors: NotFound, Conflict while nodes run on the host.
func (r *Registry) Retire(ctx context.Context, org ids.Org, id ids.Host) error {
	return r.steer(ctx, org, id, func(ctx context.Context, tx pgx.Tx, host fleetdb.LockOwnHostRow) error {
		if host.State == StateRetired {
			return nil
		}
		busy, err := r.queries.HasOpenWork(ctx, tx, id)
		if err != nil {
			return err
		}
		if busy || host.State == StateLeased {
			return errs.New(errs.Conflict, "the host runs customers' nodes: cordon it and retire it when they have ended")
		}
		reason := ""
		if host.State == StateQuarantined && !forHardware(host.StateReason) {
			reason = quarantinedPrefix + host.StateReason
		}
		if err = r.queries.CancelWindowsOf(ctx, tx, id); err != nil {
			return err
		}
		return r.queries.SetHostState(ctx, tx, StateRetired, reason, id)
	})
}

// Readmit lets a quarantined host try again; it is verified from the beginning. It is for operators of the platform, who name the
// host's organisation. Errors: NotFound, Conflict for a host that is not quarantined.
func (r *Registry) Readmit(ctx context.Context, org ids.Org, id ids.Host) error {
	return r.steer(ctx, org, id, func(ctx context.Context, tx pgx.Tx, host fleetdb.LockOwnHostRow) error {
		if host.State != StateQuarantined {
			return errs.New(errs.Conflict, "the host is %s, not quarantined", host.State)
		}
		return r.queries.SetHostState(ctx, tx, StateVerifying, "", id)
	})
}

// Recheck lets a host that is quarantined for its hardware be verified again: it greets anew, and is quarantined again unless all that it
// then says is well. For a host that is not quarantined there is nothing to do. Errors: NotFound, Conflict for a retired host and
// for a quarantine that only an operator may lift.
func (r *Registry) Recheck(ctx context.Context, org ids.Org, id ids.Host) error {
	return r.steer(ctx, org, id, func(ctx context.Context, tx pgx.Tx, host fleetdb.LockOwnHostRow) error {
		switch {
		case host.State == StateRetired:
			return errs.New(errs.Conflict, "the host is retired")
		case host.State != StateQuarantined:
			return nil
		case !forHardware(host.StateReason):
			return errs.New(errs.Conflict, "an operator has to look at this quarantine: %s", host.StateReason)
		default:
			return r.queries.SetHostState(ctx, tx, StateVerifying, "", id)
		}
	})
}

// SetTier says whether a host is trusted. It is for operators of the platform, who name the host's organisation. Errors: NotFound,
// InvalidField for a tier that is earned and not given.
func (r *Registry) SetTier(ctx context.Context, org ids.Org, id ids.Host, tier int) error {
	if tier != tierNew && tier != tierTrust {
		return errs.InvalidField("trust_tier", "a host is given tier %d or %d: tier %d is earned", tierNew, tierTrust, tierProven)
	}
	return r.steer(ctx, org, id, func(ctx context.Context, tx pgx.Tx, _ fleetdb.LockOwnHostRow) error {
		return r.queries.SetTier(ctx, tx, int16(tier), id)
	})
}

// steer changes one's own host and tells gateways and scheduler.
func (r *Registry) steer(ctx context.Context, org ids.Org, id ids.Host, change func(context.Context, pgx.Tx, fleetdb.LockOwnHostRow) error) error {
	return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		host, err := r.queries.LockOwnHost(ctx, tx, id, org)
		if errors.Is(err, pgx.ErrNoRows) {
			return errNoHost(id)
		}
		if err != nil {
			return err
		}
		if err = change(ctx, tx, host); err != nil {
			return err
		}
		if err = r.queries.WakeGateway(ctx, tx, id); err != nil {
			return err
		}
		return r.queries.WakeScheduler(ctx, tx)
	})
}
