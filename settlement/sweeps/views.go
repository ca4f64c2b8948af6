package sweeps

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// MaxPage bounds a page of sweeps.
const MaxPage = 200

// Sweep is a sweep as people see it.
type Sweep struct {
	ID        ids.Sweep
	Org       ids.Org // whose deposits
	Name      string  // the organisation's
	Amount    money.Amount
	State     string
	Reason    string // why it failed or froze
	Attention string // what holds a live one up
	Signature string // empty before it is signed
	PlannedAt time.Time
	EndedAt   *time.Time
	Fee       *int64 // lamports
}

// List is a page of sweeps, newest first: those before a cursor, which may be zero.
func (s *Service) List(ctx context.Context, before ids.Sweep, limit int) ([]Sweep, error) {
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	rows, err := s.pool.Query(ctx, `
		SELECT s.id, s.org_id, o.name, s.amount, s.state, s.reason, s.attention, coalesce(s.signature, ''), s.planned_at, s.ended_at, s.fee_lamports
		FROM deposit_sweeps s JOIN organisations o ON o.id = s.org_id
		WHERE $1::uuid IS NULL OR s.id < $1 ORDER BY s.id DESC LIMIT $2`, before, limit)
	if err != nil {
		return nil, fmt.Errorf("list sweeps: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Sweep])
	if err != nil {
		return nil, fmt.Errorf("list sweeps: %w", err)
	}
	return list, nil
}
