package api

import (
	"context"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

func (s *Server) checkEarning(ctx context.Context, in *hostInput) (*output[apiv1.EarningCheck], error) {
	earning, err := s.Fleet.Earning(ctx, callerOf(ctx).org.Org, in.ID)
	if err != nil {
		return nil, err
	}
	return answer(apiv1.EarningCheck{
		Earning: earning.Earning, Summary: earning.Summary,
		Checks: convert(earning.Checks, func(c fleet.Check) apiv1.EarningStep {
			return apiv1.EarningStep{Check: c.Name, State: c.State, Measured: c.Measured, Required: c.Required, Fix: c.Fix, Since: c.Since}
		}),
	}), nil
}

func (s *Server) listMaintenance(ctx context.Context, in *windowsInput) (*output[apiv1.List[apiv1.Maintenance]], error) {
	windows, err := s.Fleet.Maintenance(ctx, callerOf(ctx).org.Org, in.ID)
	if err != nil {
		return nil, err
	}
	return whole(windows, wireMaintenance), nil
}

func (s *Server) planMaintenance(ctx context.Context, in *hostBody[apiv1.MaintenanceCreate]) (*output[apiv1.Maintenance], error) {
	who := callerOf(ctx)
	window, err := s.Fleet.PlanMaintenance(ctx, who.org.Org, who.User, in.ID, fleet.WindowPlan{
		StartsAt: in.Body.StartsAt, EndsAt: in.Body.EndsAt, Note: in.Body.Note,
	})
	if err != nil {
		return nil, err
	}
	return answer(wireMaintenance(window)), nil
}

func (s *Server) cancelMaintenance(ctx context.Context, in *windowMutation) (*output[apiv1.Maintenance], error) {
	window, err := s.Fleet.CancelMaintenance(ctx, callerOf(ctx).org.Org, in.ID, in.Window)
	if err != nil {
		return nil, err
	}
	return answer(wireMaintenance(window)), nil
}

func wireMaintenance(w fleet.Window) apiv1.Maintenance {
	return apiv1.Maintenance{
		ID: w.ID, HostID: w.HostID, State: w.State, StartsAt: w.StartsAt, EndsAt: w.EndsAt, Note: w.Note, CreatedAt: w.CreatedAt,
		AnnouncedAt: w.AnnouncedAt, BegunAt: w.BegunAt, EndedAt: w.EndedAt, CancelledAt: w.CancelledAt,
	}
}
