package statements

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/ledger"
)

const (
	maxFeeBps   = 10_000
	maxFeeRates = 1_000 // shown at once
)

// beginning is when the configured first row took effect: before anything was booked.
var beginning = time.Unix(0, 0).UTC()

// Fees is the platform's fee schedule. Make it with NewFees.
type Fees struct{ pool *pgxpool.Pool }

// NewFees makes the schedule of a database.
func NewFees(pool *pgxpool.Pool) *Fees { return &Fees{pool: pool} }

// Rate is one row of the schedule.
type Rate struct {
	Org       ids.Org // whose bookings; zero: everybody's without rows of their own
	Name      string  // of the organisation
	Bps       int
	ValidFrom time.Time
	State     string
	Note      string
	CreatedAt time.Time
	CreatedBy ids.User
}

// Begin puts the configured fee into an empty schedule, and reports the fee that is in force for those without a row of their own. Later
// changes of the configuration change nothing: the schedule is changed by Add.
func (f *Fees) Begin(ctx context.Context, bps int) (current int, err error) {
	_, err = f.pool.Exec(ctx, `
		INSERT INTO fee_schedule (fee_bps, valid_from, note)
		SELECT $1, $2, 'As configured at first' WHERE NOT EXISTS (SELECT 1 FROM fee_schedule)
		ON CONFLICT DO NOTHING`, bps, beginning)
	if err != nil && constraintOf(err) != "fee_schedule_past" { // another process was first
		return 0, fmt.Errorf("begin the fee schedule: %w", err)
	}
	return f.FeeBps(ctx, f.pool, ids.Org{})
}

// FeeBps is the fee that is in force now for a customer's bookings.
func (*Fees) FeeBps(ctx context.Context, db ledger.DB, customer ids.Org) (int, error) {
	var bps *int
	if err := db.QueryRow(ctx, `SELECT platform_fee($1, now())`, customer).Scan(&bps); err != nil {
		return 0, fmt.Errorf("read the fee schedule: %w", err)
	}
	if bps == nil {
		return 0, errors.New("the fee schedule is empty")
	}
	return *bps, nil
}

// Add puts a row into the schedule, from a moment on that has not passed; the zero time is now. Org is whose bookings it is for, or zero.
func (f *Fees) Add(ctx context.Context, rate Rate) (Rate, error) {
	if rate.Bps < 0 || rate.Bps > maxFeeBps {
		return Rate{}, errs.InvalidField("body.fee_bps", "a fee is 0 to %d basis points", maxFeeBps)
	}
	var from *time.Time
	if !rate.ValidFrom.IsZero() {
		from = &rate.ValidFrom
	}
	var added Rate
	subject := "everybody"
	if !rate.Org.IsZero() {
		subject = rate.Org.String()
	}
	err := pgx.BeginFunc(ctx, f.pool, func(tx pgx.Tx) (err error) {
		row := tx.QueryRow(ctx, `
		WITH added AS (
			INSERT INTO fee_schedule (org_id, fee_bps, valid_from, note, created_by) VALUES ($1, $2, coalesce($3, now()), $4, $5) RETURNING *
		)
		SELECT a.org_id, coalesce(o.name, ''), a.fee_bps, a.valid_from, CASE WHEN a.valid_from <= now() THEN 'current' ELSE 'coming' END, a.note,
		       a.created_at, a.created_by
		FROM added a LEFT JOIN organisations o ON o.id = a.org_id`, rate.Org, rate.Bps, from, rate.Note, rate.CreatedBy)
		if added, err = scanRate(row); err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{By: rate.CreatedBy, Action: "fee.add", Subject: subject, Details: map[string]any{
			"fee_bps": added.Bps, "valid_from": added.ValidFrom, "note": added.Note,
		}})
	})
	switch constraintOf(err) {
	case "":
	case "fee_schedule_past":
		return Rate{}, errs.InvalidField("body.valid_from", "a fee cannot change the past: name a time that is still to come, or none for now")
	case "fee_schedule_org_id_fkey":
		return Rate{}, errs.InvalidField("body.org_id", "there is no organisation %s", rate.Org)
	case "fee_schedule_org_id_valid_from_key":
		return Rate{}, errs.New(errs.Conflict, "there is a fee from that very moment on already: it stays, so choose another time")
	}
	if err != nil {
		return Rate{}, fmt.Errorf("add to the fee schedule: %w", err)
	}
	return added, nil
}

// List is the schedule: what is in force and what comes first, then the past, for everybody before single organisations.
func (f *Fees) List(ctx context.Context) ([]Rate, error) {
	rows, err := f.pool.Query(ctx, `
		SELECT org_id, name, fee_bps, valid_from, state, note, created_at, created_by
		FROM (
			SELECT f.*, coalesce(o.name, '') AS name, CASE
				WHEN f.valid_from > now() THEN 'coming'
				WHEN f.valid_from = max(f.valid_from) FILTER (WHERE f.valid_from <= now()) OVER (PARTITION BY f.org_id) THEN 'current'
				ELSE 'past' END AS state
			FROM fee_schedule f LEFT JOIN organisations o ON o.id = f.org_id
		) rates
		ORDER BY state = 'past', org_id IS NOT NULL, name, org_id, valid_from DESC LIMIT $1`, maxFeeRates)
	if err != nil {
		return nil, fmt.Errorf("read the fee schedule: %w", err)
	}
	rates, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Rate, error) { return scanRate(row) })
	if err != nil {
		return nil, fmt.Errorf("read the fee schedule: %w", err)
	}
	return rates, nil
}

func scanRate(row pgx.Row) (Rate, error) {
	var r Rate
	err := row.Scan(&r.Org, &r.Name, &r.Bps, &r.ValidFrom, &r.State, &r.Note, &r.CreatedAt, &r.CreatedBy)
	r.ValidFrom, r.CreatedAt = r.ValidFrom.UTC(), r.CreatedAt.UTC()
	return r, err
}

// constraintOf names the rule of the schema that an error is about.
func constraintOf(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.ConstraintName
	}
	return ""
}
