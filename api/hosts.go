package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/fleet"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/settlement/metering"
	"github.com/muster-gpu/muster/settlement/payouts"
)

// Fleet is what the API needs of the hosts; *fleet.Registry is one.
type Fleet interface {
	Hosts(ctx context.Context, org ids.Org) ([]fleet.HostView, error)
	Host(ctx context.Context, org ids.Org, id ids.Host) (fleet.HostView, error)
	Cordon(ctx context.Context, org ids.Org, id ids.Host) error
	Uncordon(ctx context.Context, org ids.Org, id ids.Host) error
	Retire(ctx context.Context, org ids.Org, id ids.Host) error
	Recheck(ctx context.Context, org ids.Org, id ids.Host) error
	Earning(ctx context.Context, org ids.Org, id ids.Host) (fleet.Earning, error)
	Maintenance(ctx context.Context, org ids.Org, id ids.Host) ([]fleet.Window, error)
	PlanMaintenance(ctx context.Context, org ids.Org, user ids.User, id ids.Host, plan fleet.WindowPlan) (fleet.Window, error)
	CancelMaintenance(ctx context.Context, org ids.Org, id ids.Host, window ids.Maintenance) (fleet.Window, error)
}

// JoinTokens is what the API needs of the join tokens; *fleet.Tokens is one.
type JoinTokens interface {
	Create(ctx context.Context, org ids.Org, user ids.User, kind, region, site string) (fleet.JoinToken, string, error)
	List(ctx context.Context, org ids.Org) ([]fleet.JoinToken, error)
	Revoke(ctx context.Context, org ids.Org, id ids.JoinToken) error
}

func (s *Server) listHosts(ctx context.Context, in *orgListInput) (*output[apiv1.List[apiv1.Host]], error) {
	from, err := readCursor(ids.Host{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	org := callerOf(ctx).org.Org
	hosts, err := s.Fleet.Hosts(ctx, org)
	if err != nil {
		return nil, err
	}
	asks, err := s.Market.Asks(ctx, org)
	if err != nil {
		return nil, err
	}
	if !from.IsZero() {
		hosts = slices.DeleteFunc(hosts, func(h fleet.HostView) bool { return slices.Compare(h.ID[:], from[:]) >= 0 })
	}
	if len(hosts) > in.Limit {
		hosts = hosts[:in.Limit]
	}
	return page(hosts, in.Limit, func(h fleet.HostView) ids.Host { return h.ID }, func(h fleet.HostView) apiv1.Host {
		return s.wireHost(h, asks)
	}), nil
}

func (s *Server) getHost(ctx context.Context, in *hostInput) (*output[apiv1.Host], error) {
	return s.host(ctx, callerOf(ctx).org.Org, in.ID)
}

func (s *Server) drainHost(ctx context.Context, in *hostMutation) (*output[apiv1.Host], error) {
	return s.steerHost(ctx, in.ID, s.Fleet.Cordon)
}

func (s *Server) undrainHost(ctx context.Context, in *hostMutation) (*output[apiv1.Host], error) {
	return s.steerHost(ctx, in.ID, s.Fleet.Uncordon)
}

func (s *Server) retireHost(ctx context.Context, in *hostMutation) (*output[apiv1.Host], error) {
	return s.steerHost(ctx, in.ID, s.Fleet.Retire)
}

func (s *Server) recheckHost(ctx context.Context, in *hostMutation) (*output[apiv1.Host], error) {
	return s.steerHost(ctx, in.ID, s.Fleet.Recheck)
}

func (s *Server) steerHost(ctx context.Context, id ids.Host, steer func(context.Context, ids.Org, ids.Host) error) (*output[apiv1.Host], error) {
	org := callerOf(ctx).org.Org
	if err := steer(ctx, org, id); err != nil {
		return nil, err
	}
	return s.host(ctx, org, id)
}

func (s *Server) host(ctx context.Context, org ids.Org, id ids.Host) (*output[apiv1.Host], error) {
	host, err := s.Fleet.Host(ctx, org, id)
	if err != nil {
		return nil, err
	}
	asks, err := s.Market.Asks(ctx, org)
	if err != nil {
		return nil, err
	}
	return answer(s.wireHost(host, asks)), nil
}

func (s *Server) listJoinTokens(ctx context.Context, _ *orgListInput) (*output[apiv1.List[apiv1.JoinToken]], error) {
	tokens, err := s.JoinTokens.List(ctx, callerOf(ctx).org.Org)
	if err != nil {
		return nil, err
	}
	return whole(tokens, wireJoinToken), nil
}

func (s *Server) createJoinToken(ctx context.Context, in *orgBody[apiv1.JoinTokenCreate]) (*output[apiv1.JoinTokenCreated], error) {
	who := callerOf(ctx)
	if in.Body.Kind == fleet.KindHead && !who.org.Has(identity.Operator) {
		return nil, errs.New(errs.Forbidden, "a host for Ray heads needs the role operator in the organisation that runs this Muster")
	}
	token, secret, err := s.JoinTokens.Create(ctx, who.org.Org, who.User, in.Body.Kind, in.Body.Region, in.Body.Site)
	if err != nil {
		return nil, err
	}
	return answer(apiv1.JoinTokenCreated{
		JoinToken: wireJoinToken(token), Secret: secret,
		Command: fmt.Sprintf("muster-worker join --server %s --token %s --run", s.GatewayAddress, secret),
	}), nil
}

func (s *Server) revokeJoinToken(ctx context.Context, in *joinTokenInput) (*nothing, error) {
	return &nothing{}, s.JoinTokens.Revoke(ctx, callerOf(ctx).org.Org, in.ID)
}

func (s *Server) getEarnings(ctx context.Context, _ *orgInput) (*output[apiv1.Earnings], error) {
	earnings, err := s.Meter.Earnings(ctx, callerOf(ctx).org.Org)
	if err != nil {
		return nil, err
	}
	return answer(s.wireEarnings(earnings)), nil
}

func (s *Server) listPayouts(ctx context.Context, in *orgListInput) (*output[apiv1.List[apiv1.Payout]], error) {
	from, err := readCursor(ids.Payout{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	rows, err := s.Payouts.OwnerPayouts(ctx, callerOf(ctx).org.Org, payouts.Page[ids.Payout]{Before: from, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	return page(rows, in.Limit, func(p payouts.Payout) ids.Payout { return p.ID }, s.wirePayout), nil
}

func (s *Server) wireHost(h fleet.HostView, asks map[ids.Host]market.Ask) apiv1.Host {
	ask, offered := asks[h.ID]
	expires := h.CertificateExpiresAt
	wire := apiv1.Host{
		ID: h.ID, Name: h.Name, Kind: h.Kind, State: h.State, StateReason: h.StateReason, Region: h.Region, Site: h.Site,
		Connected: h.Connected, Simulated: h.Simulated, LastSeenAt: h.LastSeenAt, EnrolledAt: h.EnrolledAt, AgentVersion: h.AgentVersion,
		DriverVersion: h.Inventory.GetDriverVersion(), CUDAVersion: h.Inventory.GetCudaVersion(), CPUs: int(h.Inventory.GetCpus()),
		MemoryBytes: h.Inventory.GetMemoryBytes(), GPUs: convert(h.GPUs, wireGPU), WhyNotEarning: whyNotEarning(h, ask, offered),
		CertificateExpiresAt: &expires, Liveness: h.Liveness, Gates: convert(h.Gates, wireGate),
		ReliabilityPercent: percent(h.ReliabilityBps), Tier: tierName(h.TrustTier), Maintenance: convert(h.Windows, wireMaintenance),
	}
	if h.RTT > 0 {
		rtt := milliseconds(h.RTT)
		wire.RTTMS = &rtt
	}
	if offered {
		wire.Ask = s.wireAsk(ask)
	}
	return wire
}

// whyNotEarning names the first thing that keeps a host from earning, "" while GPUs of it are leased.
func whyNotEarning(h fleet.HostView, ask market.Ask, offered bool) string {
	switch {
	case h.State == fleet.StateRetired:
		return "It was retired."
	case h.Kind == fleet.KindHead:
		return "It runs Ray heads, which are free."
	case slices.ContainsFunc(h.GPUs, func(g fleet.GPUView) bool { return g.Leased }):
		return ""
	case h.State == fleet.StateQuarantined:
		return "It is quarantined: " + h.StateReason
	case h.State == fleet.StateLost || !h.Connected:
		return "Its agent is not connected: check that muster-worker runs on it."
	case h.State == fleet.StateEnrolled || h.State == fleet.StateVerifying:
		return "It is being verified."
	case h.State == fleet.StateDraining:
		return "It takes no new clusters: undrain it."
	case h.FailingGate != "":
		return gateText(h)
	case len(h.GPUs) == 0:
		return "No GPU was found on it: " + h.Inventory.GetProbeError()
	case !slices.ContainsFunc(h.GPUs, func(g fleet.GPUView) bool { return g.Healthy }):
		return "None of its GPUs is healthy: " + h.GPUs[0].HealthNote
	case !offered:
		return "It has no price yet: set one."
	case !ask.Active:
		return "Its offer is switched off."
	default:
		return "Nobody has booked it yet."
	}
}

// gateText says which gate closes a host, and what to do.
func gateText(h fleet.HostView) string {
	for _, g := range h.Gates {
		if g.Gate == h.FailingGate {
			return strings.TrimSpace(fmt.Sprintf("It fails the health gate %s: %s, %s wanted. %s", g.Gate, g.Measured, g.Required, g.Fix))
		}
	}
	return "It fails the health gate " + h.FailingGate + "."
}

func wireGate(g fleet.GateView) apiv1.Gate {
	return apiv1.Gate{
		Gate: g.Gate, State: g.State, Closes: g.Closes, Measured: g.Measured, Required: g.Required, Fix: g.Fix, Since: g.Since,
	}
}

func wireGPU(g fleet.GPUView) apiv1.GPU {
	return apiv1.GPU{
		ID: g.ID, UUID: g.UUID, Model: g.Model, Product: g.Product, MemoryMiB: g.MemoryMiB, ComputeCapability: g.ComputeCapability,
		Healthy: g.Healthy, HealthNote: g.HealthNote, Leased: g.Leased,
	}
}

func wireJoinToken(t fleet.JoinToken) apiv1.JoinToken {
	return apiv1.JoinToken{
		ID: t.ID, State: t.State, Kind: t.Kind, Region: t.Region, Site: t.Site, CreatedAt: t.CreatedAt, ExpiresAt: t.ExpiresAt,
		HostID: optional(t.HostID),
	}
}

func (s *Server) wireEarnings(e metering.Earnings) apiv1.Earnings {
	return apiv1.Earnings{
		Payable: s.money(e.Payable), InFlight: s.money(e.InFlight), Paid: s.money(e.Paid),
		Days: convert(e.Days, func(d metering.EarningsDay) apiv1.EarningsDay {
			return apiv1.EarningsDay{Day: d.Day, Earned: s.money(d.Earned), Paid: s.money(d.Paid)}
		}),
		Hosts: convert(e.Hosts, func(h metering.EarningsHost) apiv1.EarningsHost {
			return apiv1.EarningsHost{HostID: h.Host, Name: h.Name, Earned: s.money(h.Earned), GPUHours: hours(h.BilledMS)}
		}),
	}
}

// hours writes milliseconds as hours with four decimals, rounded down, in integers.
func hours(milliseconds int64) string {
	tenThousandths := milliseconds / 360
	return strconv.FormatInt(tenThousandths/10_000, 10) + fmt.Sprintf(".%04d", tenThousandths%10_000)
}
