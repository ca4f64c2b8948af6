package census

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/muster-gpu/muster/internal/leader"
)

const purgeInterval = time.Minute

// horizon is an oldest running transaction, and when it was the oldest.
type horizon struct {
	at   time.Time
	xmin uint64
}

// Purge deletes rows of the feed that no reader needs any more, under one term of leadership, until ctx ends. What goes has been
// visible for as long as rows are kept: a row counts from the moment when its transaction had ended, not from when it was written.
func (c *Census) Purge(ctx context.Context, term int64) error {
	tick := time.NewTicker(purgeInterval)
	defer tick.Stop()
	var horizons []horizon
	for {
		var err error
		if horizons, err = c.purge(ctx, term, horizons); err != nil && ctx.Err() == nil {
			c.log.WarnContext(ctx, "old changes of the fleet not purged, it will be tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// purge deletes up to the youngest horizon that is old enough, and notes a new one.
func (c *Census) purge(ctx context.Context, term int64, horizons []horizon) ([]horizon, error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	tx, err := c.pool.Begin(ctx)
	if err != nil {
		return horizons, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := c.queries.AssertLeader(ctx, tx, leader.RoleScheduler, term); err != nil {
		return horizons, err
	}
	var text string
	if err := tx.QueryRow(ctx, `SELECT pg_current_snapshot()::text`).Scan(&text); err != nil {
		return horizons, err
	}
	snapshot, err := parseSnapshot(text)
	if err != nil {
		return horizons, err
	}
	now := c.clock()
	horizons = append(horizons, horizon{at: now, xmin: snapshot.xmin})
	old := 0
	for old < len(horizons) && now.Sub(horizons[old].at) >= feedKept {
		old++
	}
	if old == 0 {
		return horizons, nil
	}
	before := pgtype.Uint64{Uint64: horizons[old-1].xmin, Valid: true}
	if _, err := c.queries.PurgeFleetChanges(ctx, tx, before); err != nil {
		return horizons, fmt.Errorf("delete: %w", err)
	}
	if err := tx.Commit(ctx); err != nil {
		return horizons, err
	}
	return horizons[old:], nil
}
