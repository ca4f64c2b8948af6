package payouts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// The kinds and states of runs.
const (
	runManual    = "manual"
	runScheduled = "scheduled"
	runThreshold = "threshold"

	runDrafting = "drafting"
	runDone     = "done"
	runFailed   = "failed"
)

const (
	roundTime     = 5 * time.Minute        // the most a round takes; it also claims the run
	roundWait     = 500 * time.Millisecond // between rounds of a run that waits for nonces
	roundRetry    = 15 * time.Second       // after a round that could not be done
	runPatience   = 24 * time.Hour         // how long a run waits for nonces before it gives up
	maxRunPayees  = 1_000                  // shown with a run
	thresholdRest = time.Hour              // between two runs that a threshold starts
)

// PayoutRun is one drafting of everything that was payable. Times that have not come are nil.
type PayoutRun struct {
	ID           ids.PayoutRun
	Kind         string
	State        string
	Reason       string // why it failed, or what it waits for
	ScheduledFor *time.Time
	RequestedBy  ids.User // zero: by the clock
	StartedAt    time.Time
	FinishedAt   *time.Time
	Rounds       int
	BatchCount   int
	PayeeCount   int
	LeftOutCount int
	Total        money.Amount

	Progress []RunProgress // in PayoutRun's and RunSummary's answers only
	Payees   []RunPayee    // in PayoutRun's answer only
}

// RunProgress is how many batches of a run are in a state.
type RunProgress struct {
	State        string
	Batches      int
	Payees       int
	Total        money.Amount
	FeeLamports  int64 // of those that are final
	RentLamports int64 // for token accounts that they made
}

// Draft makes batches of everything that is payable now, as far as there are free nonces; the rest follows as they come free. It goes
// on with a run that is drafting, and begins one otherwise. Nothing to pay is no batches and no error. The zero user drafts in the
// platform's name.
func (s *Service) Draft(ctx context.Context, by ids.User) ([]ids.Batch, error) {
	id, err := s.drafting(ctx)
	if err != nil {
		return nil, err
	}
	if !id.IsZero() {
		return s.goOn(ctx, id)
	}
	if id, err = s.openRun(ctx, runManual, by, nil); err != nil {
		return nil, err
	}
	return s.makeRound(ctx, id, by, false)
}

// StartRun begins a run and makes its first round. One run drafts at a time.
func (s *Service) StartRun(ctx context.Context, by ids.User) (ids.PayoutRun, error) {
	id, err := s.openRun(ctx, runManual, by, nil)
	if err != nil {
		return id, err
	}
	_, err = s.makeRound(ctx, id, by, false)
	return id, err
}

// drafting is the run that is under way, zero if none is.
func (s *Service) drafting(ctx context.Context) (id ids.PayoutRun, err error) {
	err = s.pool.QueryRow(ctx, `SELECT id FROM payout_runs WHERE state = 'drafting'`).Scan(&id)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return id, fmt.Errorf("find the run under way: %w", err)
	}
	return id, nil
}

// openRun begins a run whose first round the caller makes: nobody else does before that has had its time.
func (s *Service) openRun(ctx context.Context, kind string, by ids.User, scheduledFor *time.Time) (ids.PayoutRun, error) {
	id := ids.New[ids.PayoutRun]()
	err := s.logged(ctx, audit.Event{By: by, Action: "run.start", Subject: id.String(), Details: map[string]string{"kind": kind}}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			INSERT INTO payout_runs (id, kind, requested_by, scheduled_for, due_at) VALUES ($1, $2, $3, $4, clock_timestamp() + $5)`,
			id, kind, by, scheduledFor, roundTime)
		return err
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == uniqueViolation {
		return ids.PayoutRun{}, errs.New(errs.Conflict, "a payout run is under way: it ends when every payee is in a batch, which needs free nonces")
	}
	if err != nil {
		return ids.PayoutRun{}, fmt.Errorf("begin a payout run: %w", err)
	}
	s.log.InfoContext(ctx, "payout run begun", "run_id", id, "kind", kind)
	return id, nil
}

// goOn makes a round of a run if it is due.
func (s *Service) goOn(ctx context.Context, id ids.PayoutRun) ([]ids.Batch, error) {
	var by ids.User
	var overdue bool
	err := s.pool.QueryRow(ctx, `
		UPDATE payout_runs SET due_at = clock_timestamp() + $2 WHERE id = $1 AND state = 'drafting' AND due_at <= clock_timestamp()
		RETURNING requested_by, started_at < clock_timestamp() - $3::interval`, id, roundTime, runPatience).Scan(&by, &overdue)
	if errors.Is(err, pgx.ErrNoRows) {
		return []ids.Batch{}, nil // another process makes it, or it has ended
	}
	if err != nil {
		return nil, fmt.Errorf("go on with run %s: %w", id, err)
	}
	return s.makeRound(ctx, id, by, overdue)
}

// makeRound makes a round of a claimed run, and ends the run when everybody is in a batch.
func (s *Service) makeRound(ctx context.Context, id ids.PayoutRun, by ids.User, overdue bool) ([]ids.Batch, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	made, err := s.draftRound(ctx, id, by)
	switch {
	case err != nil:
		return nil, s.roundFailed(ctx, id, err)
	case len(made.batches) >= made.planned:
		return made.batches, s.endRound(ctx, id, runDone, "", 0)
	case overdue:
		return made.batches, s.endRound(ctx, id, runFailed, "no nonces came free for so long that the run was given up; what is left waits for the next one", 0)
	}
	return made.batches, s.endRound(ctx, id, runDrafting, "it waits for free nonces", roundWait)
}

// roundFailed keeps a run that may go on later, and ends one that has drafted nothing: it can be begun again.
func (s *Service) roundFailed(ctx context.Context, id ids.PayoutRun, cause error) error {
	reason := "an internal error, which the log describes"
	if code := errs.CodeOf(cause); code == errs.Unavailable || code == errs.Conflict {
		reason = cause.Error()
	}
	_, err := s.pool.Exec(context.WithoutCancel(ctx), `
		UPDATE payout_runs
		SET state = CASE WHEN rounds = 0 AND kind = 'manual' THEN 'failed' ELSE state END,
		    finished_at = CASE WHEN rounds = 0 AND kind = 'manual' THEN now() END,
		    reason = $2, due_at = clock_timestamp() + $3 WHERE id = $1`, id, shorten(reason), roundRetry)
	return errors.Join(cause, err)
}

func (s *Service) endRound(ctx context.Context, id ids.PayoutRun, state, reason string, after time.Duration) error {
	_, err := s.pool.Exec(ctx, `
		UPDATE payout_runs SET state = $2, reason = $3, due_at = clock_timestamp() + $4, rounds = rounds + 1,
		       finished_at = CASE WHEN $2 <> 'drafting' THEN clock_timestamp() END,
		       batch_count = (SELECT count(*) FROM payout_batches WHERE run_id = $1),
		       payee_count = (SELECT coalesce(sum(payee_count), 0) FROM payout_batches WHERE run_id = $1),
		       left_out_count = (SELECT count(*) FROM payout_run_payees WHERE run_id = $1 AND batch_id IS NULL),
		       total = (SELECT coalesce(sum(total), 0) FROM payout_batches WHERE run_id = $1)
		WHERE id = $1`, id, state, reason, after)
	if err != nil {
		return fmt.Errorf("end a round of run %s: %w", id, err)
	}
	return nil
}

// driveRuns begins what is due by the schedule, and goes on with a run that waits.
func (s *Service) driveRuns(ctx context.Context) error {
	id, err := s.drafting(ctx)
	if err != nil {
		return err
	}
	if !id.IsZero() {
		_, err = s.goOn(ctx, id)
		return err
	}
	if id, err = s.due(ctx); err != nil || id.IsZero() {
		return err
	}
	_, err = s.makeRound(ctx, id, ids.User{}, false)
	return err
}

// due begins the run that the schedule wants now, if it does.
func (s *Service) due(ctx context.Context) (ids.PayoutRun, error) {
	schedule, now, err := s.schedule(ctx)
	if err != nil || !schedule.Enabled {
		return ids.PayoutRun{}, err
	}
	if at := schedule.last(now); !at.IsZero() && (schedule.UpdatedAt == nil || at.After(*schedule.UpdatedAt)) {
		var made bool
		if err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM payout_runs WHERE scheduled_for = $1)`, at).Scan(&made); err != nil {
			return ids.PayoutRun{}, fmt.Errorf("read runs: %w", err)
		}
		if !made {
			return s.openRun(ctx, runScheduled, ids.User{}, &at)
		}
	}
	if schedule.Threshold == 0 {
		return ids.PayoutRun{}, nil
	}
	var reached bool
	err = s.pool.QueryRow(ctx, `
		SELECT NOT EXISTS (SELECT 1 FROM payout_runs WHERE kind = 'threshold' AND started_at > now() - $5::interval)
		   AND coalesce(sum(a.balance - a.reserved), 0) >= $4
		FROM ledger_accounts a JOIN organisations o ON o.id = a.org_id LEFT JOIN payout_obstacles x ON x.org_id = o.id
		WHERE a.kind = $1 AND a.mint = $2 AND a.balance - a.reserved >= $3 AND o.payout_address IS NOT NULL AND x.org_id IS NULL
		  AND NOT EXISTS (SELECT 1 FROM payouts p WHERE p.payee_org_id = o.id AND p.live)`,
		ledger.OwnerPayable, s.ledger.Currency().Mint, s.options.Minimum, schedule.Threshold, thresholdRest).Scan(&reached)
	if err != nil || !reached {
		return ids.PayoutRun{}, err
	}
	return s.openRun(ctx, runThreshold, ids.User{}, nil)
}

const selectRun = `
	SELECT id, kind, state, reason, scheduled_for, requested_by, started_at, finished_at, rounds, batch_count, payee_count, left_out_count, total
	FROM payout_runs`

// PayoutRuns lists runs, newest first, without their payees.
func (s *Service) PayoutRuns(ctx context.Context, page Page[ids.PayoutRun]) ([]PayoutRun, error) {
	rows, err := s.pool.Query(ctx, selectRun+` WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2`, page.Before, page.limit())
	if err != nil {
		return nil, fmt.Errorf("list payout runs: %w", err)
	}
	runs, err := pgx.CollectRows(rows, scanRun)
	if err != nil {
		return nil, fmt.Errorf("list payout runs: %w", err)
	}
	return runs, nil
}

// PayoutRun shows one run with what became of each payee, those left out first: the first maxRunPayees of them.
func (s *Service) PayoutRun(ctx context.Context, id ids.PayoutRun) (PayoutRun, error) {
	run, err := s.RunSummary(ctx, id)
	if err != nil {
		return run, err
	}
	rows, err := s.pool.Query(ctx, selectRunPayees+` ORDER BY r.batch_id IS NOT NULL, r.amount DESC, r.org_id LIMIT $2`, id, maxRunPayees)
	if err != nil {
		return PayoutRun{}, fmt.Errorf("read payout run: %w", err)
	}
	if run.Payees, err = pgx.CollectRows(rows, scanRunPayee); err != nil {
		return PayoutRun{}, fmt.Errorf("read payout run: %w", err)
	}
	return run, nil
}

// RunSummary shows one run with its progress, without its payees.
func (s *Service) RunSummary(ctx context.Context, id ids.PayoutRun) (PayoutRun, error) {
	rows, err := s.pool.Query(ctx, selectRun+` WHERE id = $1`, id)
	if err != nil {
		return PayoutRun{}, fmt.Errorf("read payout run: %w", err)
	}
	run, err := pgx.CollectExactlyOneRow(rows, scanRun)
	if errors.Is(err, pgx.ErrNoRows) {
		return PayoutRun{}, errs.New(errs.NotFound, "there is no payout run %s", id)
	}
	if err != nil {
		return PayoutRun{}, fmt.Errorf("read payout run: %w", err)
	}
	rows, err = s.pool.Query(ctx, `
		SELECT b.state, count(*), sum(b.payee_count)::bigint, sum(b.total)::bigint, coalesce(sum(coalesce(t.fee_lamports, 0) + coalesce(c.fee_lamports, 0)), 0)::bigint,
		       coalesce(sum(t.rent_lamports), 0)::bigint
		FROM payout_batches b LEFT JOIN payout_transactions t ON t.batch_id = b.id LEFT JOIN payout_cancellations c ON c.batch_id = b.id
		WHERE b.run_id = $1 GROUP BY b.state ORDER BY b.state`, id)
	if err != nil {
		return PayoutRun{}, fmt.Errorf("read payout run: %w", err)
	}
	if run.Progress, err = pgx.CollectRows(rows, pgx.RowToStructByPos[RunProgress]); err != nil {
		return PayoutRun{}, fmt.Errorf("read payout run: %w", err)
	}
	return run, nil
}

func scanRun(row pgx.CollectableRow) (r PayoutRun, err error) {
	err = row.Scan(&r.ID, &r.Kind, &r.State, &r.Reason, &r.ScheduledFor, &r.RequestedBy, &r.StartedAt, &r.FinishedAt, &r.Rounds,
		&r.BatchCount, &r.PayeeCount, &r.LeftOutCount, &r.Total)
	return r, err
}
