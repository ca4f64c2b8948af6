package payouts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

const (
	day          = 24 * time.Hour
	maxEveryDays = 366
)

// Schedule says when runs begin by themselves: each EveryDays from StartsOn on, or on Weekdays, at a time of the UTC day; and whenever
// Threshold is payable. A run that was missed because nobody was there is made up for, the last one only.
type Schedule struct {
	Enabled   bool
	EveryDays int
	Weekdays  []time.Weekday
	At        time.Duration // into the UTC day, whole minutes
	StartsOn  time.Time     // a UTC date
	Threshold money.Amount  // zero: none
	UpdatedBy ids.User
	UpdatedAt *time.Time // nil: it was never set
	NextAt    *time.Time // as an answer
}

// falls reports whether a run begins on a date.
func (s Schedule) falls(date time.Time) bool {
	switch {
	case date.Before(s.StartsOn):
		return false
	case s.EveryDays > 0:
		return int(date.Sub(s.StartsOn)/day)%s.EveryDays == 0
	default:
		return slices.Contains(s.Weekdays, date.Weekday())
	}
}

// last is the newest time by the clock at or before now, zero if there was none in a year.
func (s Schedule) last(now time.Time) time.Time {
	today := now.UTC().Truncate(day)
	for back := range maxEveryDays + 1 {
		if at := today.AddDate(0, 0, -back).Add(s.At); !at.After(now) && s.falls(at.Truncate(day)) {
			return at
		}
	}
	return time.Time{}
}

// next is the first time by the clock after now, nil if there is none.
func (s Schedule) next(now time.Time) *time.Time {
	from := now.UTC().Truncate(day)
	if s.StartsOn.After(from) {
		from = s.StartsOn
	}
	for ahead := range maxEveryDays + 1 {
		if at := from.AddDate(0, 0, ahead).Add(s.At); at.After(now) && s.falls(at.Truncate(day)) {
			return &at
		}
	}
	return nil
}

func (s Schedule) validate() error {
	switch {
	case s.EveryDays < 0 || s.EveryDays > maxEveryDays:
		return errs.InvalidField("every_days", "a run can begin every 1 to %d days", maxEveryDays)
	case s.EveryDays > 0 && len(s.Weekdays) > 0:
		return errs.InvalidField("weekdays", "say either every how many days, or on which weekdays")
	case s.At < 0 || s.At >= day || s.At%time.Minute != 0:
		return errs.InvalidField("at", "the time of day is a whole minute from 00:00 to 23:59")
	case s.Threshold < 0:
		return errs.InvalidField("threshold", "the threshold cannot be negative")
	case s.Enabled && s.EveryDays == 0 && len(s.Weekdays) == 0 && s.Threshold == 0:
		return errs.InvalidField("every_days", "the schedule would never begin a run: say every how many days, on which weekdays, or from which amount on")
	}
	for _, weekday := range s.Weekdays {
		if weekday < time.Sunday || weekday > time.Saturday {
			return errs.InvalidField("weekdays", "weekdays are 0 (Sunday) to 6 (Saturday)")
		}
	}
	return nil
}

// Schedule shows when runs begin by themselves.
func (s *Service) Schedule(ctx context.Context) (Schedule, error) {
	schedule, now, err := s.schedule(ctx)
	if err == nil && schedule.Enabled {
		schedule.NextAt = schedule.next(now)
	}
	return schedule, err
}

// schedule reads it, and the database's time.
func (s *Service) schedule(ctx context.Context) (schedule Schedule, now time.Time, err error) {
	var weekdays []int32
	var minute int
	err = s.pool.QueryRow(ctx, `
		SELECT enabled, coalesce(every_days, 0), weekdays, at_minute, starts_on, coalesce(threshold, 0), updated_by, updated_at, now() FROM payout_schedule`).
		Scan(&schedule.Enabled, &schedule.EveryDays, &weekdays, &minute, &schedule.StartsOn, &schedule.Threshold, &schedule.UpdatedBy,
			&schedule.UpdatedAt, &now)
	if errors.Is(err, pgx.ErrNoRows) {
		err = s.pool.QueryRow(ctx, `SELECT now(), (now() AT TIME ZONE 'UTC')::date`).Scan(&now, &schedule.StartsOn)
	}
	if err != nil {
		return Schedule{}, now, fmt.Errorf("read the payout schedule: %w", err)
	}
	schedule.At = time.Duration(minute) * time.Minute
	for _, weekday := range weekdays {
		schedule.Weekdays = append(schedule.Weekdays, time.Weekday(weekday))
	}
	return schedule, now, nil
}

// SetSchedule replaces the schedule. It begins with the next time that is to come.
func (s *Service) SetSchedule(ctx context.Context, by ids.User, schedule Schedule) error {
	if err := schedule.validate(); err != nil {
		return err
	}
	var weekdays []int32
	slices.Sort(schedule.Weekdays)
	for _, weekday := range slices.Compact(schedule.Weekdays) {
		weekdays = append(weekdays, int32(weekday))
	}
	var startsOn *time.Time
	if !schedule.StartsOn.IsZero() {
		date := schedule.StartsOn.UTC().Truncate(day)
		startsOn = &date
	}
	event := audit.Event{By: by, Action: "schedule.set", Subject: "payout_schedule", Details: map[string]any{
		"enabled": schedule.Enabled, "every_days": schedule.EveryDays, "weekdays": weekdays, "at": schedule.At.String(), "starts_on": startsOn,
		"threshold": schedule.Threshold,
	}}
	return s.logged(ctx, event, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
		INSERT INTO payout_schedule (enabled, every_days, weekdays, at_minute, starts_on, threshold, updated_by)
		VALUES ($1, nullif($2, 0), $3, $4, coalesce($5::date, (now() AT TIME ZONE 'UTC')::date), nullif($6::bigint, 0), $7)
		ON CONFLICT (single) DO UPDATE SET enabled = EXCLUDED.enabled, every_days = EXCLUDED.every_days, weekdays = EXCLUDED.weekdays,
			at_minute = EXCLUDED.at_minute, starts_on = EXCLUDED.starts_on, threshold = EXCLUDED.threshold,
			updated_by = EXCLUDED.updated_by, updated_at = now()`,
			schedule.Enabled, schedule.EveryDays, weekdays, int(schedule.At/time.Minute), startsOn, schedule.Threshold, by)
		if err != nil {
			return fmt.Errorf("set the payout schedule: %w", err)
		}
		return nil
	})
}
