// Package leader elects one process at a time for a role, with a term that fences its writes.
//
// The lead is a row of the table leadership: who holds it, its term, and when it expires by the database's clock. A process
// takes the row when it is free or expired, which raises the term, and renews it well before it expires. Every transaction of a
// leader first calls assert_leader(role, term) in SQL: a leader that was paused past its expiry cannot write any more, whatever
// it still believes. A takeover waits for transactions that have already asserted; a renewal does not.
//
//	              free or expired
//	standing by -------------------> leading(term) ---- renewal refused, or not answered until it expires ---> standing by
//	     ^                                |
//	     '------- gives the lead back <---'  the process stops, or what it leads has failed
//
// A leader stops leading by its own clock, which started before the database's did, so that two never lead at once; the term
// stands behind that.
package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Roles.
const (
	RoleScheduler  = "scheduler"
	RoleSettlement = "settlement"
)

const (
	lifetime       = 2 * time.Second // with campaignPeriod it bounds how long a leader that died is missed
	renewInterval  = 400 * time.Millisecond
	campaignPeriod = 150 * time.Millisecond
	queryTimeout   = 800 * time.Millisecond
)

// database is what of a pool the elector uses.
type database interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Elector campaigns for one role. Make it with New.
type Elector struct {
	db     database
	role   string
	holder string
	log    *slog.Logger

	lifetime, renewInterval, campaignPeriod, queryTimeout time.Duration
}

// New makes an elector; holder names this process and should be unique, for people and metrics tell by it who leads. The lead itself
// hangs on the term alone.
func New(pool *pgxpool.Pool, role, holder string, log *slog.Logger) *Elector {
	return &Elector{
		db: pool, role: role, holder: holder, log: log.With("role", role),
		lifetime: lifetime, renewInterval: renewInterval, campaignPeriod: campaignPeriod, queryTimeout: queryTimeout,
	}
}

// Run campaigns until ctx ends, and runs lead once for each term won, on a context that ends with the lead; lead must return when
// its context ends. If it returns before that, with an error or without, Run gives the lead back, so that any process may try,
// and campaigns again after a pause: an error is logged and is never the process's end. ready is called at once: a process that
// stands by is in order. With lead bound, Run is a lifecycle.Func, and it always returns nil.
func (e *Elector) Run(ctx context.Context, ready func(), lead func(ctx context.Context, term int64) error) error {
	ready()
	for ctx.Err() == nil {
		term, err := e.take(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			e.log.WarnContext(ctx, "cannot campaign for the lead, it will be tried again", "error", err)
		case term > 0:
			e.serve(ctx, term, lead)
		}
		wait(ctx, e.campaignPeriod)
	}
	return nil
}

// serve runs lead while the row can be renewed, and returns when lead has.
func (e *Elector) serve(ctx context.Context, term int64, lead func(context.Context, int64) error) {
	log := e.log.With("term", term)
	log.InfoContext(ctx, "leading")
	leadCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- lead(leadCtx, term) }()

	lost := make(chan error, 1)
	go func() { lost <- e.keep(leadCtx, term) }()
	select {
	case err := <-done:
		cancel()
		log.DebugContext(ctx, "renewals have ended", "why", <-lost)
		if ctx.Err() == nil {
			log.WarnContext(ctx, "what is led has ended, giving the lead back", "error", err)
		} else {
			logUnlessCanceled(ctx, log, err)
		}
		e.giveBack(ctx, term)
	case err := <-lost:
		cancel()
		if ctx.Err() == nil {
			log.WarnContext(ctx, "lost the lead", "error", err)
		}
		logUnlessCanceled(ctx, log, <-done)
		if ctx.Err() != nil {
			e.giveBack(ctx, term)
		}
	}
}

func logUnlessCanceled(ctx context.Context, log *slog.Logger, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		log.WarnContext(ctx, "what was led ended with an error", "error", err)
	}
}

// keep renews the lead until ctx ends or the lead is lost, and says by what. take has just had it granted for a lifetime, but
// asked up to queryTimeout ago, so the first renewal is due at once.
func (e *Elector) keep(ctx context.Context, term int64) error {
	expires := time.Now().Add(e.lifetime - e.queryTimeout)
	for {
		asked := time.Now()
		renewed, err := e.renew(ctx, term, expires)
		switch {
		case renewed:
			expires = asked.Add(e.lifetime)
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			return errors.New("another process has taken it, or it has expired")
		case !time.Now().Before(expires):
			return fmt.Errorf("not renewed in time: %w", err)
		}
		wait(ctx, min(e.renewInterval, time.Until(expires)))
	}
}

// take tries to win the next term; 0 is that another process leads. It first locks an expired row against everything, which
// waits for the transactions that have asserted its term.
func (e *Elector) take(ctx context.Context) (term int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.queryTimeout)
	defer cancel()
	err = pgx.BeginFunc(ctx, e.db, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `SELECT term FROM leadership WHERE role = $1 AND expires_at <= clock_timestamp() FOR UPDATE`, e.role).
			Scan(&term)
		switch {
		case err == nil:
			return tx.QueryRow(ctx, `
				UPDATE leadership SET holder = $2, term = term + 1, expires_at = clock_timestamp() + $3::interval
				WHERE role = $1 RETURNING term`, e.role, e.holder, e.lifetime).Scan(&term)
		case errors.Is(err, pgx.ErrNoRows):
			err = tx.QueryRow(ctx, `
				INSERT INTO leadership (role, holder, term, expires_at) VALUES ($1, $2, 1, clock_timestamp() + $3::interval)
				ON CONFLICT (role) DO NOTHING RETURNING term`, e.role, e.holder, e.lifetime).Scan(&term)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			return err
		default:
			return err
		}
	})
	if err != nil {
		return 0, fmt.Errorf("take the lead: %w", err)
	}
	return term, nil
}

// renew moves the expiry on if the lead is still this term's. It gives up when the lead expires.
func (e *Elector) renew(ctx context.Context, term int64, expires time.Time) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, min(e.queryTimeout, time.Until(expires)))
	defer cancel()
	tag, err := e.db.Exec(ctx, `
		UPDATE leadership SET expires_at = clock_timestamp() + $3::interval
		WHERE role = $1 AND term = $2 AND expires_at > clock_timestamp()`, e.role, term, e.lifetime)
	return err == nil && tag.RowsAffected() == 1, err
}

func (e *Elector) giveBack(ctx context.Context, term int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.queryTimeout)
	defer cancel()
	if _, err := e.db.Exec(ctx, `UPDATE leadership SET expires_at = clock_timestamp() WHERE role = $1 AND term = $2`,
		e.role, term); err != nil {
		e.log.WarnContext(ctx, "cannot give the lead back, it expires by itself", "error", err)
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
