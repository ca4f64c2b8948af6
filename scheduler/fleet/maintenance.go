package fleet

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/fleet/fleetdb"
)

// Bounds of maintenance windows.
const (
	maxWindowLength  = 30 * 24 * time.Hour
	maxWindowAhead   = 366 * 24 * time.Hour
	windowStartSlack = time.Minute // a window that begins "now" has begun when it arrives
	maxOpenWindows   = 50
	maxWindowsListed = 200
	maxWindowNote    = 200 // characters
)

// States of maintenance windows.
const (
	WindowPlanned   = "planned"
	WindowBegun     = "begun"
	WindowEnded     = "ended"
	WindowCancelled = "cancelled"
)

// Window is a stretch of time in which a host takes no work, planned by its owner. From its planning on no booking is placed across it;
// when it begins the host drains, and when it ends the host is open again.
type Window struct {
	ID          ids.Maintenance
	HostID      ids.Host
	State       string
	StartsAt    time.Time
	EndsAt      time.Time
	Note        string
	CreatedAt   time.Time
	AnnouncedAt *time.Time // when the customers with nodes in it were told
	BegunAt     *time.Time
	EndedAt     *time.Time
	CancelledAt *time.Time
}

// WindowPlan is what an owner plans.
type WindowPlan struct {
	StartsAt time.Time
	EndsAt   time.Time
	Note     string
}

func windowView(row fleetdb.MaintenanceWindow) Window {
	w := Window{
		ID: row.ID, HostID: row.HostID, State: WindowPlanned, StartsAt: row.StartsAt, EndsAt: row.EndsAt, Note: row.Note, CreatedAt: row.CreatedAt,
		AnnouncedAt: row.AnnouncedAt, BegunAt: row.BegunAt, EndedAt: row.EndedAt, CancelledAt: row.CancelledAt,
	}
	switch {
	case row.CancelledAt != nil:
		w.State = WindowCancelled
	case row.EndedAt != nil:
		w.State = WindowEnded
	case row.BegunAt != nil:
		w.State = WindowBegun
	}
	return w
}

// Maintenance lists a host's windows, newest first. Errors: NotFound.
func (r *Registry) Maintenance(ctx context.Context, org ids.Org, host ids.Host) ([]Window, error) {
	if _, err := r.Host(ctx, org, host); err != nil {
		return nil, err
	}
	rows, err := r.queries.WindowsOf(ctx, r.pool, host, maxWindowsListed)
	if err != nil {
		return nil, err
	}
	windows := make([]Window, 0, len(rows))
	for _, row := range rows {
		windows = append(windows, windowView(row))
	}
	return windows, nil
}

// PlanMaintenance plans a window. Customers with nodes on the host that reach into it are told. Errors: NotFound; InvalidField for
// starts_at, ends_at and note; Conflict for a window that overlaps another, for too many, and for a retired host.
func (r *Registry) PlanMaintenance(ctx context.Context, org ids.Org, user ids.User, id ids.Host, plan WindowPlan) (Window, error) {
	var planned Window
	err := r.steer(ctx, org, id, func(ctx context.Context, tx pgx.Tx, host fleetdb.LockOwnHostRow) error {
		plan, err := checkPlan(plan, host.Now)
		if err != nil {
			return err
		}
		if host.State == StateRetired {
			return errs.New(errs.Conflict, "the host is retired")
		}
		if err = r.checkRoom(ctx, tx, id, plan); err != nil {
			return err
		}
		row, err := r.queries.InsertWindow(ctx, tx, fleetdb.InsertWindowParams{
			ID: ids.New[ids.Maintenance](), HostID: id, StartsAt: plan.StartsAt, EndsAt: plan.EndsAt, Note: plan.Note, CreatedBy: user,
		})
		planned = windowView(row)
		return err
	})
	if isExclusionViolation(err) { // two at once, which the lock on the host prevents, or the constraint does
		err = errs.New(errs.Conflict, "another maintenance window of this host overlaps: cancel it first, or plan around it")
	}
	return planned, err
}

// checkPlan returns the plan as it is stored.
func checkPlan(plan WindowPlan, now time.Time) (WindowPlan, error) {
	plan.Note = strings.TrimSpace(plan.Note)
	switch {
	case plan.StartsAt.Before(now.Add(-windowStartSlack)):
		return plan, errs.InvalidField("starts_at", "the window begins in the past: it is now %s", now.UTC().Format(time.RFC3339))
	case plan.StartsAt.After(now.Add(maxWindowAhead)):
		return plan, errs.InvalidField("starts_at", "a window is planned at most %d days ahead", int(maxWindowAhead.Hours()/24))
	case !plan.EndsAt.After(plan.StartsAt) || !plan.EndsAt.After(now):
		return plan, errs.InvalidField("ends_at", "the window must end after it begins, and after now")
	case plan.EndsAt.Sub(plan.StartsAt) > maxWindowLength:
		return plan, errs.InvalidField("ends_at", "a window lasts at most %d days: retire a host that is away for longer", int(maxWindowLength.Hours()/24))
	case utf8.RuneCountInString(plan.Note) > maxWindowNote || clip(plan.Note, len(plan.Note)) != plan.Note:
		return plan, errs.InvalidField("note", "a note has at most %d characters", maxWindowNote)
	}
	return plan, nil
}

func (r *Registry) checkRoom(ctx context.Context, tx pgx.Tx, host ids.Host, plan WindowPlan) error {
	other, err := r.queries.OverlappingWindow(ctx, tx, host, plan.StartsAt, plan.EndsAt)
	if err == nil {
		return errs.New(errs.Conflict, "window %s from %s to %s overlaps: cancel it first, or plan around it",
			other.ID, other.StartsAt.UTC().Format(time.RFC3339), other.EndsAt.UTC().Format(time.RFC3339))
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	open, err := r.queries.CountOpenWindows(ctx, tx, host)
	if err != nil {
		return err
	}
	if open >= maxOpenWindows {
		return errs.New(errs.Conflict, "the host has %d windows planned, which is the most: cancel some", maxOpenWindows)
	}
	return nil
}

// CancelMaintenance takes a window back; one that has begun ends now, and the host is open again. Cancelling one that was cancelled or
// has ended changes nothing. Errors: NotFound.
func (r *Registry) CancelMaintenance(ctx context.Context, org ids.Org, id ids.Host, window ids.Maintenance) (Window, error) {
	var cancelled Window
	err := r.steer(ctx, org, id, func(ctx context.Context, tx pgx.Tx, host fleetdb.LockOwnHostRow) error {
		row, err := r.queries.LockWindow(ctx, tx, window, id)
		if errors.Is(err, pgx.ErrNoRows) {
			return errs.New(errs.NotFound, "the host has no maintenance window %s", window)
		}
		if err != nil {
			return err
		}
		begun := row.BegunAt != nil
		if row.CancelledAt == nil && row.EndedAt == nil {
			if row, err = r.queries.CancelWindow(ctx, tx, window); err != nil {
				return err
			}
			if begun {
				err = reopen(ctx, r.queries, tx, id, host.State, host.StateReason)
			}
		}
		cancelled = windowView(row)
		return err
	})
	return cancelled, err
}

// reopen lets work come to a host again whose maintenance has ended. One that its owner cordoned besides stays so.
func reopen(ctx context.Context, queries *fleetdb.Queries, tx pgx.Tx, host ids.Host, state, reason string) error {
	if state != StateDraining || reason != reasonMaintenance {
		return nil
	}
	if err := queries.SetHostState(ctx, tx, StateIdle, "", host); err != nil {
		return err
	}
	return leaseIfBusy(ctx, queries, tx, host)
}

func isExclusionViolation(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "23P01"
}
