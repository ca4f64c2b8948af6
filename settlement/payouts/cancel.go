package payouts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
)

// cancellation is the bare advance of a batch's nonce, as far as it has come.
type cancellation struct {
	message   []byte
	signature chain.Signature
	wire      []byte
	resend    bool // the last sending is older than the rebroadcast interval
}

// Cancel drops a batch. What nobody was asked to sign is cancelled at once, and its payees are payable again. A signed or sent batch is
// cancelling until its nonce is consumed: by the cancellation or, if that was slower, by the batch's own transaction. Of a frozen batch
// the nonce is consumed, so that nothing of it can land any more; it stays frozen until it is resolved.
func (s *Service) Cancel(ctx context.Context, id ids.Batch, by ids.User, reason string) error {
	if reason == "" || len(reason) > maxReason {
		return errs.InvalidField("reason", "say why the batch is cancelled, in at most %d characters", maxReason)
	}
	event := audit.Event{By: by, Action: "batch.cancel", Subject: id.String(), Details: map[string]string{"reason": reason}}
	return s.logged(ctx, event, func(tx pgx.Tx) error {
		state, _, err := lockBatch(ctx, tx, id)
		if err != nil {
			return err
		}
		var signing, asked, consumed bool
		err = tx.QueryRow(ctx, `
			SELECT signing_started_at IS NOT NULL, cancel_asked_at IS NOT NULL, nonce_changed_at IS NOT NULL FROM payout_batches WHERE id = $1`, id).
			Scan(&signing, &asked, &consumed)
		if err != nil {
			return fmt.Errorf("cancel batch: %w", err)
		}
		switch {
		case (state == stateDraft || state == stateApproved) && !signing:
			return s.drop(ctx, tx, id, reason)
		case state == stateApproved:
			return errs.New(errs.Conflict, "the batch is being signed: it can be cancelled once it is; try again in a moment")
		case state == stateFrozen && consumed:
			return errs.New(errs.Conflict, "the batch's nonce is consumed already: nothing of it can land any more, so it can be resolved")
		case asked && (state == stateCancelling || state == stateFrozen):
			return errs.New(errs.Conflict, "the batch's cancellation is under way")
		case state == stateSigned || state == stateSent || state == stateFrozen:
			return s.askCancel(ctx, tx, id, by, reason)
		default:
			return errs.New(errs.Conflict, "the batch is %s: it has ended", state)
		}
	})
}

func (s *Service) drop(ctx context.Context, tx pgx.Tx, id ids.Batch, reason string) error {
	_, err := tx.Exec(ctx, `UPDATE payout_batches SET state = 'cancelled', state_reason = $2, attention = '' WHERE id = $1`, id, reason)
	if err != nil {
		return fmt.Errorf("cancel batch: %w", err)
	}
	return s.returnMoney(ctx, tx, id, "")
}

// askCancel leaves the rest to the worker. Whoever works on the batch now finds it in another state, and drops what it did.
func (s *Service) askCancel(ctx context.Context, tx pgx.Tx, id ids.Batch, by ids.User, reason string) error {
	_, err := tx.Exec(ctx, `
		UPDATE payout_batches
		SET state_reason = CASE WHEN state = 'frozen' THEN state_reason ELSE $3 END,
		    state = CASE WHEN state = 'frozen' THEN state ELSE 'cancelling' END,
		    cancel_asked_at = now(), cancel_asked_by = $2, attention = '', due_at = now(), claimed_until = NULL, claimed_by = NULL
		WHERE id = $1`, id, by, reason)
	if err != nil {
		return fmt.Errorf("cancel batch: %w", err)
	}
	return notify(ctx, tx)
}

// retire takes the cancellation of a batch one step on.
func (s *Service) retire(ctx context.Context, term int64, b *work) error {
	nonce, err := s.chain.Nonce(ctx, chain.Finalized, 0, b.nonceAccount)
	switch {
	case err != nil:
		return err
	case nonce.Value != b.nonceValue:
		return s.retired(ctx, term, b, nonce)
	case b.cancel.wire == nil:
		if signed, err := s.signCancel(ctx, term, b); err != nil || !signed {
			return err
		}
		return s.sendCancel(ctx, term, b)
	case b.cancel.resend:
		return s.sendCancel(ctx, term, b)
	default:
		return s.release(ctx, term, []*work{b}, s.options.Poll, "")
	}
}

// signCancel stores the message, then asks for its signature, then stores that: only then may it be sent.
func (s *Service) signCancel(ctx context.Context, term int64, b *work) (signed bool, err error) {
	if b.cancel.message == nil {
		keys, err := s.signer.Addresses(ctx)
		if err != nil {
			return false, err
		}
		message, err := s.buildCancel(ctx, b, keys)
		if err != nil {
			return false, err
		}
		err = s.commit(ctx, term, b, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `
				INSERT INTO payout_cancellations (batch_id, nonce_account, nonce_value, message) VALUES ($1, $2, $3, $4)
				ON CONFLICT (batch_id) DO UPDATE SET message = EXCLUDED.message`, b.id, b.nonceAccount.String(), b.nonceValue.String(), message)
			return err
		})
		if err != nil {
			return false, err
		}
		b.cancel.message = message
	}
	if err := s.at(stepCancelStored); err != nil {
		return false, err
	}
	signature, err := s.signer.Cancel(ctx, b.cancel.message, b.id)
	var refusal *signer.Refusal
	if errors.As(err, &refusal) {
		s.log.WarnContext(ctx, "signer refused to cancel", "batch_id", b.id, "rule", refusal.Rule, "reason", refusal.Message)
		return false, s.cancelRefused(ctx, term, b, refusal)
	}
	if err != nil {
		return false, err
	}
	wire, err := assemble(b.cancel.message, signature)
	if err != nil {
		return false, err
	}
	err = s.commit(ctx, term, b, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE payout_cancellations SET signature = $2, wire = $3, signed_at = clock_timestamp() WHERE batch_id = $1`,
			b.id, signature.String(), wire)
		return err
	})
	b.cancel.signature, b.cancel.wire = signature, wire
	if err != nil {
		return false, err
	}
	return true, s.at(stepCancelSigned)
}

// cancelRefused forgets a message that was not signed, so that another can be made.
func (s *Service) cancelRefused(ctx context.Context, term int64, b *work, refusal *signer.Refusal) error {
	return s.commit(ctx, term, b, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM payout_cancellations WHERE batch_id = $1 AND signature IS NULL`, b.id); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			UPDATE payout_batches SET attention = $2, due_at = clock_timestamp() + $3, claimed_until = NULL WHERE id = $1`,
			b.id, shorten(refusal.Error()), s.options.Retry)
		return err
	})
}

func (s *Service) sendCancel(ctx context.Context, term int64, b *work) error {
	_, sendErr := s.chain.Send(ctx, b.cancel.wire)
	if err := s.at(stepCancelSent); err != nil {
		return err
	}
	problem := ""
	if sendErr != nil {
		problem = inWords(sendErr)
	}
	err := s.commit(ctx, term, b, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			UPDATE payout_cancellations
			SET first_sent_at = coalesce(first_sent_at, clock_timestamp()), last_sent_at = clock_timestamp(),
			    send_count = send_count + 1, last_send_error = $2
			WHERE batch_id = $1`, b.id, shorten(problem))
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			UPDATE payout_batches SET attention = $2, due_at = clock_timestamp() + $3, claimed_until = NULL WHERE id = $1`,
			b.id, shorten(problem), s.options.Poll)
		return err
	})
	if err == nil {
		s.log.InfoContext(ctx, "cancellation sent", "batch_id", b.id, "signature", b.cancel.signature, "problem", problem)
	}
	return err
}

// retired ends a cancellation whose nonce has been consumed, by whichever of the two transactions it was.
func (s *Service) retired(ctx context.Context, term int64, b *work, nonce chain.Nonce) error {
	if b.state == stateFrozen {
		return s.noteRetired(ctx, term, b, nonce)
	}
	landed, err := s.findLanded(ctx, b, nonce, b.signature, b.cancel.signature)
	switch {
	case err != nil:
		return err
	case landed == nil:
		return s.missing(ctx, term, b)
	}
	if err := s.at(stepCancelResolved); err != nil {
		return err
	}
	if landed.Signature == b.signature {
		b.landed = landed
		return s.end(ctx, term, []*work{b})
	}
	err = s.commit(ctx, term, b, func(tx pgx.Tx) error {
		if err := storeCancelled(ctx, tx, b, landed); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			UPDATE payout_batches SET state = 'cancelled', attention = '', claimed_until = NULL, voided_by = $2 WHERE id = $1`,
			b.id, landed.Signature.String())
		if err != nil {
			return err
		}
		return s.returnMoney(ctx, tx, b.id, "")
	})
	if err == nil {
		s.log.InfoContext(ctx, "batch ended", "batch_id", b.id, "state", stateCancelled, "signature", landed.Signature)
	}
	return err
}

// noteRetired records that nothing of a frozen batch can land any more.
func (s *Service) noteRetired(ctx context.Context, term int64, b *work, nonce chain.Nonce) error {
	var landed *chain.Transaction
	if !b.cancel.signature.IsZero() {
		var err error
		if landed, err = s.findLanded(ctx, b, nonce, b.cancel.signature); err != nil {
			return err
		}
	}
	return s.commit(ctx, term, b, func(tx pgx.Tx) error {
		if landed != nil {
			if err := storeCancelled(ctx, tx, b, landed); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `
			UPDATE payout_batches
			SET nonce_changed_at = clock_timestamp(), claimed_until = NULL, attention = 'its nonce is consumed, nothing of it can land any more: resolve it'
			WHERE id = $1`, b.id)
		return err
	})
}

// storeCancelled records how the chain finalized a cancellation. Whether it succeeded does not matter: it consumed the nonce.
func storeCancelled(ctx context.Context, tx pgx.Tx, b *work, landed *chain.Transaction) error {
	_, err := tx.Exec(ctx, `
		UPDATE payout_cancellations SET slot = $2, block_time = $3, fee_lamports = $4, chain_error = $5 WHERE batch_id = $1`,
		b.id, int64(landed.Slot), blockTime(landed), int64(landed.Fee), landed.Err)
	return err
}

func blockTime(landed *chain.Transaction) *time.Time {
	if landed.BlockTime.IsZero() {
		return nil
	}
	return &landed.BlockTime
}
