package payouts

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
)

// logged does what a person has asked for, and tells the audit log of it in the same transaction.
func (s *Service) logged(ctx context.Context, event audit.Event, do func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := do(tx); err != nil {
			return err
		}
		return audit.Record(ctx, tx, event)
	})
}

// approvalsNeeded is by how many people a batch is approved, its drafter not counted.
func (s *Service) approvalsNeeded(total money.Amount) int {
	if s.options.DualAbove > 0 && total > s.options.DualAbove && !s.options.SelfApproval {
		return 2
	}
	return 1
}

// Approve lets a draft be paid, once enough people have. Neither who drafted a batch nor who decided on a
// refund in it can approve it, and each person counts once.
func (s *Service) Approve(ctx context.Context, id ids.Batch, by ids.User) error {
	if by.IsZero() {
		return errs.New(errs.Forbidden, "a batch is approved by a person")
	}
	return s.logged(ctx, audit.Event{By: by, Action: "batch.approve", Subject: id.String()}, func(tx pgx.Tx) error {
		state, draftedBy, err := lockBatch(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case state != stateDraft:
			return errs.New(errs.Conflict, "the batch is %s already; only a draft can be approved", state)
		}
		if err := s.refuseMaker(ctx, tx, id, draftedBy, by); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `INSERT INTO payout_approvals (batch_id, approver) VALUES ($1, $2) ON CONFLICT DO NOTHING`, id, by)
		if err != nil {
			return fmt.Errorf("approve batch: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errs.New(errs.Conflict, "you have approved this batch already; it waits for another person")
		}
		_, err = approveComplete(ctx, tx, `b.id = $2`, by, id)
		return err
	})
}

// refuseMaker keeps a draft from who made it, or decided on a refund in it.
func (s *Service) refuseMaker(ctx context.Context, tx pgx.Tx, id ids.Batch, draftedBy, by ids.User) error {
	if draftedBy == by && !s.options.SelfApproval {
		return errs.New(errs.Forbidden, "you drafted this batch: somebody else must approve it")
	}
	return s.refuseOwnRefunds(ctx, tx, `b.id = $2`, by, id)
}

// WhyNotApprove is why a person cannot approve a draft, empty if they can.
func (s *Service) WhyNotApprove(ctx context.Context, batch *Batch, by ids.User) (string, error) {
	for _, approval := range batch.Approvals {
		if approval.By == by {
			return "you have approved this batch: it waits for another person", nil
		}
	}
	return s.obstacle(ctx, func(tx pgx.Tx) error { return s.refuseMaker(ctx, tx, batch.ID, batch.DraftedBy, by) })
}

// WhyNotApproveRun is why a person cannot approve the drafts of a run, empty if they can.
func (s *Service) WhyNotApproveRun(ctx context.Context, id ids.PayoutRun, by ids.User) (string, error) {
	return s.obstacle(ctx, func(tx pgx.Tx) error {
		var own, open int
		err := tx.QueryRow(ctx, `
			SELECT count(*) FILTER (WHERE drafted_by = $2),
			       count(*) FILTER (WHERE NOT EXISTS (SELECT 1 FROM payout_approvals a WHERE a.batch_id = b.id AND a.approver = $2))
			FROM payout_batches b WHERE run_id = $1 AND state = 'draft'`, id, by).Scan(&own, &open)
		switch {
		case err != nil:
			return fmt.Errorf("read the run's drafts: %w", err)
		case own > 0 && !s.options.SelfApproval:
			return errs.New(errs.Forbidden, "you started this run: somebody else must approve it")
		case open == 0:
			return errs.New(errs.Conflict, "you have approved every draft of this run: it waits for another person")
		}
		return s.refuseOwnRefunds(ctx, tx, `b.run_id = $2`, by, id)
	})
}

// obstacle is what a check says to a person, empty if it has no objection.
func (s *Service) obstacle(ctx context.Context, check func(tx pgx.Tx) error) (string, error) {
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, check)
	if code := errs.CodeOf(err); err != nil && (code == errs.Forbidden || code == errs.Conflict) {
		return err.Error(), nil
	}
	return "", err
}

// ApproveRun approves all drafts that a run has made so far. Of those, waiting ones need another person too.
func (s *Service) ApproveRun(ctx context.Context, id ids.PayoutRun, by ids.User) (approved, waiting int, err error) {
	if by.IsZero() {
		return 0, 0, errs.New(errs.Forbidden, "a batch is approved by a person")
	}
	err = s.logged(ctx, audit.Event{By: by, Action: "run.approve", Subject: id.String()}, func(tx pgx.Tx) error {
		var drafts, own int
		err := tx.QueryRow(ctx, `
			WITH locked AS (SELECT drafted_by FROM payout_batches WHERE run_id = $1 AND state = 'draft' ORDER BY id FOR UPDATE)
			SELECT count(*), count(*) FILTER (WHERE drafted_by = $2) FROM locked`, id, by).Scan(&drafts, &own)
		switch {
		case err != nil:
			return fmt.Errorf("approve run: %w", err)
		case drafts == 0:
			return errs.New(errs.Conflict, "the run has no draft to approve")
		case own > 0 && !s.options.SelfApproval:
			return errs.New(errs.Forbidden, "you started this run: somebody else must approve it")
		}
		if err := s.refuseOwnRefunds(ctx, tx, `b.run_id = $2`, by, id); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO payout_approvals (batch_id, approver)
			SELECT id, $2 FROM payout_batches WHERE run_id = $1 AND state = 'draft' ORDER BY id ON CONFLICT DO NOTHING`, id, by)
		if err != nil {
			return fmt.Errorf("approve run: %w", err)
		}
		approved, err = approveComplete(ctx, tx, `b.run_id = $2`, by, id)
		waiting = drafts - approved
		return err
	})
	return approved, waiting, err
}

// refuseOwnRefunds keeps who decided on a refund from letting it out: a run that the clock began has no drafter.
func (s *Service) refuseOwnRefunds(ctx context.Context, tx pgx.Tx, which string, by ids.User, id any) error {
	if s.options.SelfApproval {
		return nil
	}
	var own bool
	err := tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT 1 FROM payout_batches b
			JOIN payouts p ON p.batch_id = b.id AND p.live AND p.withdrawal_id IS NOT NULL -- as in the index of payouts of withdrawals
			JOIN withdrawals w ON w.id = p.withdrawal_id
			WHERE `+which+` AND b.state = 'draft' AND w.purpose = 'refund' AND w.requested_by = $1)`, by, id).Scan(&own)
	if err != nil {
		return fmt.Errorf("look for refunds: %w", err)
	}
	if own {
		return errs.New(errs.Forbidden, "you decided on a refund that is in it: somebody else must approve it")
	}
	return nil
}

// approveComplete moves on those drafts that enough people have approved.
func approveComplete(ctx context.Context, tx pgx.Tx, which string, by ids.User, id any) (approved int, err error) {
	tag, err := tx.Exec(ctx, `
		UPDATE payout_batches b SET state = 'approved', approved_by = $1, approved_at = now(), due_at = now()
		WHERE `+which+` AND b.state = 'draft'
		  AND (SELECT count(*) FROM payout_approvals a WHERE a.batch_id = b.id) >= b.approvals_needed`, by, id)
	if err != nil {
		return 0, fmt.Errorf("approve batch: %w", err)
	}
	return int(tag.RowsAffected()), notify(ctx, tx)
}

// notify wakes the worker; polling guarantees.
func notify(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `SELECT pg_notify($1, '')`, pgnotify.ChannelSettlement); err != nil {
		return fmt.Errorf("wake the worker: %w", err)
	}
	return nil
}

func lockBatch(ctx context.Context, tx pgx.Tx, id ids.Batch) (state string, draftedBy ids.User, err error) {
	err = tx.QueryRow(ctx, `SELECT state, drafted_by FROM payout_batches WHERE id = $1 FOR UPDATE`, id).Scan(&state, &draftedBy)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", draftedBy, errs.New(errs.NotFound, "there is no batch %s", id)
	}
	if err != nil {
		return "", draftedBy, fmt.Errorf("lock batch: %w", err)
	}
	return state, draftedBy, nil
}
