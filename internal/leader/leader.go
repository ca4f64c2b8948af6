// Package leader elects one process at a time for a role, with a term that fences its writes.
//
// The lead is a row of the table leadership: who holds it, its term, and when it expires by the database's clock. A process
// takes the row when it is free or expired, which raises the term, and renews it well before it expires. Every transaction of a
// leader first calls assert_leader(role, term) in SQL: a leader that was paused past its expiry cannot write any more, whatever
// it still believes, and a takeover waits for transactions that have already asserted.
//
//	              free or expired
//	standing by -------------------> leading(term) ---- renewal fails or expires ---> standing by
//
// A clean stop gives the row back, so that the next process leads at once.
package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Roles.
const (
	RoleScheduler  = "scheduler"
	RoleSettlement = "settlement"
)

const (
	lifetime       = 4 * time.Second
	renewInterval  = time.Second
	campaignPeriod = 500 * time.Millisecond
	queryTimeout   = 2 * time.Second
)

// Elector campaigns for one role. Make it with New.
type Elector struct {
	pool   *pgxpool.Pool
	role   string
	holder string
	log    *slog.Logger
}

// New makes an elector; holder names this process and must be unique among them.
func New(pool *pgxpool.Pool, role, holder string, log *slog.Logger) *Elector {
	return &Elector{pool: pool, role: role, holder: holder, log: log.With("role", role)}
}

// Run campaigns until ctx ends, and runs lead once for each term won, on a context that ends with the lead. lead must return
// when its context ends; if it returns an error before that, Run gives the lead back and returns the error. ready is called at
// once: a process that stands by is in order. It has the shape of a lifecycle.Func with lead bound.
func (e *Elector) Run(ctx context.Context, ready func(), lead func(ctx context.Context, term int64) error) error {
	ready()
	for ctx.Err() == nil {
		term, err := e.take(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			e.log.WarnContext(ctx, "cannot campaign for the lead", "error", err)
		case term > 0:
			e.log.InfoContext(ctx, "leading", "term", term)
			if err := e.serve(ctx, term, lead); err != nil {
				return err
			}
		}
		wait(ctx, campaignPeriod)
	}
	return nil
}

// serve runs lead while the row can be renewed.
func (e *Elector) serve(ctx context.Context, term int64, lead func(context.Context, int64) error) error {
	leadCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- lead(leadCtx, term) }()

	expires := time.Now().Add(lifetime)
	for {
		select {
		case err := <-done:
			e.giveBack(ctx, term)
			if leadCtx.Err() == nil && err != nil {
				return fmt.Errorf("lead as %s: %w", e.role, err)
			}
			return nil
		case <-ctx.Done():
			err := <-done
			e.giveBack(ctx, term)
			return ignoreCanceled(err)
		case <-time.After(renewInterval):
		}
		asked := time.Now()
		renewed, err := e.renew(ctx, term)
		if renewed {
			expires = asked.Add(lifetime)
			continue
		}
		if err == nil || time.Now().After(expires) {
			e.log.WarnContext(ctx, "lost the lead", "term", term, "error", err)
			cancel()
			return ignoreCanceled(<-done)
		}
	}
}

func (e *Elector) take(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var term int64
	err := e.pool.QueryRow(ctx, `
		INSERT INTO leadership AS l (role, holder, term, expires_at)
		VALUES ($1, $2, 1, clock_timestamp() + $3::interval)
		ON CONFLICT (role) DO UPDATE
		SET holder = excluded.holder, term = l.term + 1, expires_at = excluded.expires_at
		WHERE l.expires_at <= clock_timestamp()
		RETURNING term`, e.role, e.holder, lifetime).Scan(&term)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return term, err
}

func (e *Elector) renew(ctx context.Context, term int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	tag, err := e.pool.Exec(ctx, `
		UPDATE leadership SET expires_at = clock_timestamp() + $3::interval
		WHERE role = $1 AND term = $2 AND expires_at > clock_timestamp()`, e.role, term, lifetime)
	return err == nil && tag.RowsAffected() == 1, err
}

func (e *Elector) giveBack(ctx context.Context, term int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
	defer cancel()
	if _, err := e.pool.Exec(ctx, `UPDATE leadership SET expires_at = clock_timestamp() WHERE role = $1 AND term = $2`,
		e.role, term); err != nil {
		e.log.WarnContext(ctx, "cannot give the lead back, it expires by itself", "error", err)
	}
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
