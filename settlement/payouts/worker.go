package payouts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/signer"
)

// Steps at which tests stop a worker.
const (
	stepClaimed       = "claimed"
	stepMessageStored = "message stored"
	stepSignatureHad  = "signature had"
	stepBytesStored   = "bytes stored"
	stepSent          = "sent"
	stepMarkedSent    = "marked sent"
	stepResolved      = "resolved"

	stepCancelStored   = "cancellation stored"
	stepCancelSigned   = "cancellation signed"
	stepCancelSent     = "cancellation sent"
	stepCancelResolved = "cancellation resolved"
)

// watchedAtOnce bounds how many sent batches one look at the chain is about.
const watchedAtOnce = 1_024

// Steps names the places at which Options.Failpoint can stop a worker, in the order of a batch's life.
func Steps() []string {
	return []string{stepClaimed, stepMessageStored, stepSignatureHad, stepBytesStored, stepSent, stepMarkedSent, stepResolved}
}

// CancelSteps are those of a batch that is cancelled after it was signed.
func CancelSteps() []string {
	return []string{stepClaimed, stepCancelStored, stepCancelSigned, stepCancelSent, stepCancelResolved}
}

// killedError is what a failpoint returns: the worker stops as if it had been killed.
type killedError struct{ step string }

func (e *killedError) Error() string { return "killed at: " + e.step }

// Run drives all batches and runs until ctx ends, under a term of the settlement lead. It returns nil at the end of ctx and ErrDeposed
// when the term has passed. Errors of single batches are logged and shown with the batch; the batch is tried again.
func (s *Service) Run(ctx context.Context, term int64) error {
	ctx, cancel := context.WithCancel(ctx)
	var drafting sync.WaitGroup
	defer drafting.Wait()
	defer cancel()
	drafting.Go(func() { s.keepDrafting(ctx) })
	ticker := time.NewTicker(s.options.Poll)
	defer ticker.Stop()
	wake := s.options.Wake
	for {
		worked, err := s.tick(ctx, term)
		var killed *killedError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrDeposed), errors.As(err, &killed):
			return err
		case err != nil:
			s.log.WarnContext(ctx, "payouts cannot be driven", "error", err)
		}
		if worked && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case _, open := <-wake:
			if !open {
				wake = nil // whoever signalled has stopped; polling goes on
			}
		}
	}
}

// keepDrafting begins and goes on with runs, and looks after the nonces. Two processes at once do no harm: a run is claimed, and the
// schema allows one of each.
func (s *Service) keepDrafting(ctx context.Context) {
	ticker := time.NewTicker(s.options.Poll)
	defer ticker.Stop()
	var watched time.Time
	for {
		if err := s.driveRuns(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "payout runs cannot be driven", "error", err)
		}
		if now := time.Now(); now.Sub(watched) >= nonceInterval {
			watched = now
			if err := s.watchNonces(ctx); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "nonces cannot be read", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// tick claims due batches and takes each as far as it gets.
func (s *Service) tick(ctx context.Context, term int64) (worked bool, err error) {
	claimed, err := s.claim(ctx, term)
	if err != nil || len(claimed) == 0 {
		return false, err
	}
	batches, err := s.loadAll(ctx, claimed)
	if err != nil {
		return false, err
	}
	busy, err := s.watch(ctx, term, batches)
	if err != nil {
		return false, err
	}
	var all sync.WaitGroup
	failures := make([]error, len(busy))
	slots := make(chan struct{}, s.options.Concurrency)
	for i, b := range busy {
		slots <- struct{}{}
		all.Go(func() {
			failures[i] = s.drive(ctx, term, b)
			<-slots
		})
	}
	all.Wait()
	return len(busy) > 0, errors.Join(failures...)
}

// watch looks at the nonces of all sent batches together, and releases those that still wait; the others are to be driven. What it
// sees is a hint: before anything is booked, the nonce is asked for by itself.
func (s *Service) watch(ctx context.Context, term int64, batches []*work) (busy []*work, err error) {
	var sent []*work
	var accounts []chain.Address
	for _, b := range batches {
		if b.state == stateSent {
			sent, accounts = append(sent, b), append(accounts, b.nonceAccount)
		} else {
			busy = append(busy, b)
		}
	}
	if len(sent) == 0 {
		return busy, nil
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	nonces, err := s.readNonces(ctx, accounts)
	if err != nil {
		return append(busy, sent...), nil // each asks by itself, and says what holds it up
	}
	var waiting []pgtype.UUID
	for i, b := range sent {
		if nonces[i].problem == "" && nonces[i].value == b.nonceValue && !b.resend {
			waiting = append(waiting, uuidOf(b.id))
		} else {
			busy = append(busy, b)
		}
	}
	if len(waiting) == 0 {
		return busy, nil
	}
	return busy, deposed(pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := assertLeader(ctx, tx, term); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			UPDATE payout_batches SET due_at = clock_timestamp() + $3, claimed_until = NULL, attention = ''
			WHERE id = ANY ($1) AND state = 'sent' AND claimed_by = $2 AND claimed_term = $4`, waiting, s.self, s.options.Poll, term)
		return err
	}))
}

// drive takes a claimed batch as far as it gets without waiting for the chain, and releases it.
func (s *Service) drive(ctx context.Context, term int64, b *work) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if err := s.at(stepClaimed); err != nil {
		return err
	}
	err := s.step(ctx, term, b)
	var killed *killedError
	if errors.As(err, &killed) || errors.Is(err, ErrDeposed) {
		return err
	}
	if errors.Is(err, errLostClaim) {
		s.log.InfoContext(ctx, "batch moved on elsewhere", "batch_id", b.id)
		return nil
	}
	if err != nil {
		s.log.WarnContext(ctx, "batch is held up", "batch_id", b.id, "state", b.state, "error", err, "alarm", chain.IsAlarm(err))
		if releaseErr := s.release(ctx, term, b, s.options.Retry, inWords(err)); !errors.Is(releaseErr, errLostClaim) {
			return releaseErr
		}
	}
	return nil
}

func (s *Service) step(ctx context.Context, term int64, b *work) error {
	switch b.state {
	case stateApproved:
		if signed, err := s.sign(ctx, term, b); err != nil || !signed {
			return err
		}
		return s.send(ctx, term, b)
	case stateSigned:
		return s.send(ctx, term, b)
	case stateSent:
		return s.resolve(ctx, term, b)
	case stateCancelling, stateFrozen:
		return s.retire(ctx, term, b)
	default:
		return errLostClaim
	}
}

// inWords is what people are shown of an error that holds a batch up; the rest is in the log.
func inWords(err error) string {
	var trial *trialError
	var refused *chain.RPCError
	switch {
	case errors.As(err, &trial):
		return trial.Error()
	case errors.Is(err, chain.ErrDisagree):
		return chain.ErrDisagree.Error() + " about this batch: nothing is concluded until they agree"
	case errors.As(err, &refused):
		return "the chain's endpoint refused: " + refused.Error()
	case errors.Is(err, signer.ErrUnavailable):
		return signer.ErrUnavailable.Error()
	case errors.Is(err, chain.ErrUnavailable):
		return chain.ErrUnavailable.Error()
	default:
		return "an internal error, which the log describes"
	}
}

func (s *Service) at(step string) error {
	if err := s.failpoint(step); err != nil {
		return &killedError{step: step}
	}
	return nil
}

// sign takes an approved batch to signed, still claimed. It reports false when the batch was frozen or released instead.
func (s *Service) sign(ctx context.Context, term int64, b *work) (signed bool, err error) {
	if b.message == nil {
		if done, err := s.prepare(ctx, term, b); done || err != nil {
			return false, err
		}
	}
	if err := s.at(stepMessageStored); err != nil {
		return false, err
	}
	signature, err := s.signer.Sign(ctx, b.message, b.request())
	var refusal *signer.Refusal
	if errors.As(err, &refusal) {
		return false, s.refused(ctx, term, b, refusal)
	}
	if err != nil {
		return false, err
	}
	if err := s.at(stepSignatureHad); err != nil {
		return false, err
	}
	wire, err := assemble(b.message, signature)
	if err != nil {
		return false, err
	}
	err = s.commit(ctx, term, b, func(tx pgx.Tx) error { return storeSigned(ctx, tx, b, signature, wire) })
	if err != nil {
		return false, err
	}
	b.state, b.signature, b.wire = stateSigned, signature, wire
	s.log.InfoContext(ctx, "batch signed", "batch_id", b.id, "signature", signature)
	return true, s.at(stepBytesStored)
}

// prepare builds the message and stores it before anybody is asked to sign it. It reports done when the batch was frozen.
func (s *Service) prepare(ctx context.Context, term int64, b *work) (done bool, err error) {
	keys, err := s.recentKeys(ctx)
	if err != nil {
		return false, err
	}
	nonce, err := s.chain.Nonce(ctx, chain.Finalized, 0, b.nonceAccount)
	if err != nil {
		return false, err
	}
	if nonce.Value != b.nonceValue {
		return true, s.freeze(ctx, term, b,
			"the pinned nonce was consumed before this batch was signed: another transaction used it, or the database is older than the chain")
	}
	message, err := s.buildMessage(ctx, b, keys)
	if err != nil {
		return false, err
	}
	err = s.commit(ctx, term, b, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			UPDATE payout_batches SET message = $2, signing_started_at = clock_timestamp(), attention = '' WHERE id = $1`, b.id, message)
		return err
	})
	b.message = message
	return false, err
}

// refused freezes a batch about which the signer's journal disagrees. Any other refusal means that nothing was signed, so the
// batch can be built anew or cancelled.
func (s *Service) refused(ctx context.Context, term int64, b *work, refusal *signer.Refusal) error {
	if refusal.AgainstHistory() {
		return s.freeze(ctx, term, b, refusal.Error())
	}
	s.log.WarnContext(ctx, "signer refused", "batch_id", b.id, "rule", refusal.Rule, "reason", refusal.Message)
	return s.commit(ctx, term, b, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			UPDATE payout_batches SET message = NULL, signing_started_at = NULL, attention = $2,
			       due_at = clock_timestamp() + $3, claimed_until = NULL WHERE id = $1`,
			b.id, shorten(refusal.Error()), s.options.Retry)
		return err
	})
}

func storeSigned(ctx context.Context, tx pgx.Tx, b *work, signature chain.Signature, wire []byte) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO payout_transactions (signature, batch_id, nonce_account, nonce_value, wire) VALUES ($1, $2, $3, $4, $5)`,
		signature.String(), b.id, b.nonceAccount.String(), b.nonceValue.String(), wire)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE payouts SET signed = true WHERE batch_id = $1`, b.id); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		UPDATE payout_batches SET state = 'signed', attention = '', due_at = clock_timestamp() WHERE id = $1`, b.id)
	return err
}

// send hands over the stored bytes. Whatever the answer, the cluster may have them from now on.
func (s *Service) send(ctx context.Context, term int64, b *work) error {
	returned, sendErr := s.chain.Send(ctx, b.wire)
	if err := s.at(stepSent); err != nil {
		return err
	}
	problem := ""
	switch {
	case sendErr != nil:
		problem = inWords(sendErr)
	case returned != b.signature:
		problem = fmt.Sprintf("the endpoint answered with another signature, %s", returned)
	}
	err := s.commit(ctx, term, b, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			UPDATE payout_transactions
			SET first_sent_at = coalesce(first_sent_at, clock_timestamp()), last_sent_at = clock_timestamp(),
			    send_count = send_count + 1, last_send_error = $2
			WHERE batch_id = $1`, b.id, shorten(problem))
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			UPDATE payout_batches SET state = 'sent', attention = $2, due_at = clock_timestamp() + $3, claimed_until = NULL WHERE id = $1`,
			b.id, shorten(problem), s.options.Poll)
		return err
	})
	if err != nil {
		return err
	}
	s.log.InfoContext(ctx, "batch sent", "batch_id", b.id, "signature", b.signature, "problem", problem)
	return s.at(stepMarkedSent)
}

// resolve asks the nonce what became of a sent batch.
func (s *Service) resolve(ctx context.Context, term int64, b *work) error {
	nonce, err := s.chain.Nonce(ctx, chain.Finalized, 0, b.nonceAccount)
	switch {
	case err != nil:
		return err
	case nonce.Value != b.nonceValue:
		return s.consumed(ctx, term, b, nonce)
	case b.resend:
		return s.send(ctx, term, b)
	default:
		return s.release(ctx, term, b, s.options.Poll, "")
	}
}

// consumed finds the transaction that consumed the nonce and ends the batch accordingly.
func (s *Service) consumed(ctx context.Context, term int64, b *work, nonce chain.Nonce) error {
	landed, err := s.findLanded(ctx, b, nonce, b.signature)
	if err != nil {
		return err
	}
	if landed == nil {
		return s.missing(ctx, term, b)
	}
	if err := s.at(stepResolved); err != nil {
		return err
	}
	return s.landed(ctx, term, b, landed)
}

// landed ends a batch whose own transaction the chain has executed.
func (s *Service) landed(ctx context.Context, term int64, b *work, landed *chain.Transaction) error {
	if landed.Err != "" {
		return s.end(ctx, term, b, landed, stateFailed, "the chain executed the transaction with the error "+landed.Err+": nothing was paid")
	}
	return s.end(ctx, term, b, landed, stateFinalized, "")
}

// findLanded returns the one of a batch's transactions that consumed the nonce, nil if history shows none of them. The zero signature is
// no transaction's.
func (s *Service) findLanded(ctx context.Context, b *work, nonce chain.Nonce, candidates ...chain.Signature) (*chain.Transaction, error) {
	candidates = slices.DeleteFunc(slices.Clone(candidates), func(c chain.Signature) bool { return c.IsZero() })
	ended, err := s.chain.Finalized(ctx, candidates...)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(candidates, func(c chain.Signature) bool { _, found := ended[c]; return found })
	if at < 0 {
		history, err := s.chain.SignaturesFor(ctx, b.nonceAccount, nonce.Slot, historyDepth)
		if err != nil {
			return nil, err
		}
		at = slices.IndexFunc(candidates, func(c chain.Signature) bool {
			return slices.ContainsFunc(history, func(info chain.SignatureInfo) bool { return info.Signature == c })
		})
	}
	if at < 0 {
		return nil, nil //nolint:nilnil // absence is an answer here, and not a failure.
	}
	landed, err := s.chain.Transaction(ctx, candidates[at])
	if errors.Is(err, chain.ErrNotFound) {
		return nil, nil //nolint:nilnil // the endpoint's parts disagree for a moment
	}
	return landed, err
}

// missing waits for a lagging endpoint, then freezes the batch: the nonce was consumed by a transaction that is not ours.
func (s *Service) missing(ctx context.Context, term int64, b *work) error {
	if b.nonceOverdue {
		return s.freeze(ctx, term, b,
			"the nonce was consumed, but not by this batch's transaction: somebody else holds the treasury's key, or the endpoint hides history")
	}
	return s.commit(ctx, term, b, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			UPDATE payout_batches SET nonce_changed_at = coalesce(nonce_changed_at, clock_timestamp()), claimed_until = NULL,
			       due_at = clock_timestamp() + $2, attention = 'the nonce was consumed; its transaction is not in the history yet'
			WHERE id = $1`, b.id, s.options.Poll)
		return err
	})
}

// end books what the chain did.
func (s *Service) end(ctx context.Context, term int64, b *work, landed *chain.Transaction, state, reason string) error {
	err := s.commit(ctx, term, b, func(tx pgx.Tx) error {
		rent := max(int64(landed.Spent)-int64(landed.Fee), 0) // what the payer spent beside the fee
		_, err := tx.Exec(ctx, `
			UPDATE payout_transactions SET slot = $2, block_time = $3, fee_lamports = $4, compute_units = $5, chain_error = $6, rent_lamports = $7
			WHERE batch_id = $1`, b.id, int64(landed.Slot), blockTime(landed), int64(landed.Fee), int64(landed.Units), landed.Err, rent)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			UPDATE payout_batches SET state = $2, state_reason = $3, attention = '', claimed_until = NULL,
			       finalized_at = CASE WHEN $2 = 'finalized' THEN clock_timestamp() END WHERE id = $1`, b.id, state, shorten(reason))
		if err != nil {
			return err
		}
		if state == stateFailed {
			return s.returnMoney(ctx, tx, b.id, b.signature.String())
		}
		return s.bookPaid(ctx, tx, b, b.signature.String())
	})
	if err != nil {
		return err
	}
	s.log.InfoContext(ctx, "batch ended", "batch_id", b.id, "state", state, "signature", b.signature, "reason", reason)
	return nil
}

// freeze stops a batch until a person has compared the records. Its money stays in flight, and its nonce and payees held.
func (s *Service) freeze(ctx context.Context, term int64, b *work, reason string) error {
	err := s.commit(ctx, term, b, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			UPDATE payout_batches SET state = 'frozen', state_reason = $2, attention = '', claimed_until = NULL WHERE id = $1`,
			b.id, shorten(reason))
		return err
	})
	if err == nil {
		s.log.ErrorContext(ctx, "batch frozen", "batch_id", b.id, "reason", reason, "alarm", true)
	}
	return err
}

// bookPaid records that the batch left the treasury.
func (s *Service) bookPaid(ctx context.Context, tx pgx.Tx, b *work, signature string) error {
	legs := make([]ledger.Leg, len(b.payouts))
	for i, p := range b.payouts {
		legs[i] = ledger.Leg{
			Debit: ledger.Of(ledger.PayoutInFlight, p.payee), Credit: ledger.Platform(ledger.ChainTreasury), Amount: p.amount,
		}
	}
	_, err := s.ledger.Post(ctx, tx, ledger.Entry{
		Key: "payout_paid:" + b.id.String(), Kind: ledger.KindPayoutPaid, Legs: legs,
		Refs: ledger.Refs{Batch: b.id, Signature: signature},
		Memo: fmt.Sprintf("Paid on chain in batch %s", b.id),
	})
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		UPDATE withdrawals w SET state = 'paid', ended_at = now() FROM payouts p WHERE p.batch_id = $1 AND w.id = p.withdrawal_id`, b.id)
	if err != nil {
		return fmt.Errorf("end withdrawals: %w", err)
	}
	return endPayouts(ctx, tx, b.id)
}

// returnMoney makes the payees of a batch that paid nothing payable again. Withdrawals wait for the next run, their money stays in flight.
func (s *Service) returnMoney(ctx context.Context, tx pgx.Tx, id ids.Batch, signature string) error {
	_, err := tx.Exec(ctx, `
		UPDATE withdrawals w SET state = 'requested', attention = 'its batch paid nothing; it goes out with the next run'
		FROM payouts p WHERE p.batch_id = $1 AND w.id = p.withdrawal_id`, id)
	if err != nil {
		return fmt.Errorf("return money: %w", err)
	}
	rows, err := tx.Query(ctx, `SELECT payee_org_id, amount FROM payouts WHERE batch_id = $1 AND purpose = 'earnings' ORDER BY id`, id)
	if err != nil {
		return fmt.Errorf("return money: %w", err)
	}
	legs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (leg ledger.Leg, err error) {
		var org ids.Org
		err = row.Scan(&org, &leg.Amount)
		leg.Debit, leg.Credit = ledger.Of(ledger.PayoutInFlight, org), ledger.Of(ledger.OwnerPayable, org)
		return leg, err
	})
	if err != nil {
		return fmt.Errorf("return money: %w", err)
	}
	if len(legs) > 0 {
		_, err = s.ledger.Post(ctx, tx, ledger.Entry{
			Key: "payout_return:" + id.String(), Kind: ledger.KindPayoutReturn, Legs: legs,
			Refs: ledger.Refs{Batch: id, Signature: signature},
			Memo: fmt.Sprintf("Nothing was paid in batch %s", id),
		})
		if err != nil {
			return err
		}
	}
	return endPayouts(ctx, tx, id)
}

func endPayouts(ctx context.Context, tx pgx.Tx, id ids.Batch) error {
	_, err := tx.Exec(ctx, `UPDATE payouts SET live = false WHERE batch_id = $1`, id)
	if err != nil {
		return fmt.Errorf("end payouts: %w", err)
	}
	return nil
}
