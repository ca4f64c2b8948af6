package sweeps

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/signer"
	"github.com/muster-gpu/muster/settlement/txn"
)

// Steps at which tests stop the service.
const (
	stepTried        = "tried"
	stepPlanned      = "planned"
	stepSignatureHad = "signatures had"
	stepBytesStored  = "bytes stored"
	stepSent         = "sent"
	stepMarkedSent   = "marked sent"
	stepResolved     = "resolved"
)

// Steps names the places at which Options.Failpoint can stop a service, in the order of a sweep's life.
func Steps() []string {
	return []string{stepTried, stepPlanned, stepSignatureHad, stepBytesStored, stepSent, stepMarkedSent, stepResolved}
}

// killedError is what a failpoint says: the service stops as if it had been killed.
type killedError struct{ step string }

func (e *killedError) Error() string { return "killed at: " + e.step }

func killed(err error) bool {
	var k *killedError
	return errors.As(err, &k)
}

func (s *Service) failpoint(step string) error {
	if s.options.Failpoint == nil || s.options.Failpoint(step) == nil {
		return nil
	}
	return &killedError{step}
}

// work is a live sweep.
type work struct {
	id           ids.Sweep
	org          ids.Org
	amount       money.Amount
	state        string
	nonceAccount chain.Address
	nonceValue   chain.Hash
	message      []byte
	signature    chain.Signature
	wire         []byte
	resend       bool // the last sending is older than the rebroadcast interval, by the database's clock
	overdue      bool // the nonce has been consumed for longer than the transaction may be missing
}

// drive takes every live sweep as far as it gets.
func (s *Service) drive(ctx context.Context, term int64) error {
	live, err := s.live(ctx)
	if err != nil {
		return err
	}
	var failed error
	for i := range live {
		w := &live[i]
		err := s.driveOne(ctx, term, w)
		if killed(err) {
			return err
		}
		if err != nil && !errors.Is(err, errMoved) {
			failed = errors.Join(failed, fmt.Errorf("sweep %s: %w", w.id, err))
		}
	}
	return failed
}

func (s *Service) live(ctx context.Context) ([]work, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT id, org_id, amount, state, nonce_account, nonce_value, message, coalesce(signature, ''), wire,
		       last_sent_at IS NULL OR last_sent_at < clock_timestamp() - $1::interval,
		       coalesce(nonce_changed_at < clock_timestamp() - $2::interval, false)
		FROM deposit_sweeps WHERE state IN ('planned', 'signed') ORDER BY id`, s.options.Rebroadcast, s.options.FreezeAfter)
	if err != nil {
		return nil, fmt.Errorf("read live sweeps: %w", err)
	}
	live, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (w work, err error) {
		var account, value, signature string
		if err := row.Scan(&w.id, &w.org, &w.amount, &w.state, &account, &value, &w.message, &signature, &w.wire, &w.resend, &w.overdue); err != nil {
			return w, err
		}
		if w.nonceAccount, err = chain.ParseAddress(account); err != nil {
			return w, err
		}
		hash, err := chain.ParseAddress(value) // both are 32 bytes in base58
		w.nonceValue = chain.Hash(hash)
		if err != nil || signature == "" {
			return w, err
		}
		w.signature, err = chain.ParseSignature(signature)
		return w, err
	})
	if err != nil {
		return nil, fmt.Errorf("read live sweeps: %w", err)
	}
	return live, nil
}

func (s *Service) driveOne(ctx context.Context, term int64, w *work) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	var err error
	if w.state == StatePlanned {
		err = s.sign(ctx, term, w)
	}
	if err == nil && w.state == StateSigned {
		err = s.resolve(ctx, term, w)
	}
	if err != nil && ctx.Err() == nil && !killed(err) && !leader.TermPassed(err) && !errors.Is(err, errMoved) {
		attention := inWords(err)
		_, storeErr := s.pool.Exec(ctx, `UPDATE deposit_sweeps SET attention = $2 WHERE id = $1 AND state IN ('planned', 'signed')`, w.id, attention)
		err = errors.Join(err, storeErr)
	}
	return err
}

// inWords is what people are shown of an error that holds a sweep up; the rest is in the log.
func inWords(err error) string {
	for _, known := range []error{signer.ErrUnavailable, chain.ErrUnavailable} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "an error, which the log describes"
}

// sign has the signer sign the stored message, and stores the signed bytes. A refusal ends the sweep: nothing was signed.
func (s *Service) sign(ctx context.Context, term int64, w *work) error {
	signatures, err := s.signer.Sweep(ctx, w.message, signer.Sweep{ID: w.id, Org: w.org, Amount: uint64(w.amount)})
	var refusal *signer.Refusal
	if errors.As(err, &refusal) {
		if refusal.AgainstHistory() {
			return s.end(ctx, term, w, StateFrozen, refusal.Error())
		}
		return s.end(ctx, term, w, StateFailed, refusal.Error())
	}
	if err != nil {
		return err
	}
	if err := s.failpoint(stepSignatureHad); err != nil {
		return err
	}
	wire, err := txn.Join(w.message, signatures[0], signatures[1])
	if err != nil {
		return err
	}
	err = s.step(ctx, term, w, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			UPDATE deposit_sweeps SET state = 'signed', signature = $2, wire = $3, signed_at = clock_timestamp(), attention = '' WHERE id = $1`,
			w.id, signatures[0].String(), wire)
		return err
	})
	if err != nil {
		return err
	}
	w.state, w.signature, w.wire, w.resend = StateSigned, signatures[0], wire, true
	return s.failpoint(stepBytesStored)
}

// resolve asks the nonce what became of a signed sweep, and sends it, again if need be, while nothing has.
func (s *Service) resolve(ctx context.Context, term int64, w *work) error {
	nonce, err := s.chain.Nonce(ctx, chain.Finalized, 0, w.nonceAccount)
	switch {
	case err != nil:
		return err
	case nonce.Value != w.nonceValue:
		return s.consumed(ctx, term, w, nonce)
	case w.resend:
		return s.send(ctx, term, w)
	}
	return nil
}

// send hands over the stored bytes. Whatever the answer, the cluster may have them from now on.
func (s *Service) send(ctx context.Context, term int64, w *work) error {
	_, sendErr := s.chain.Send(ctx, w.wire)
	if err := s.failpoint(stepSent); err != nil {
		return err
	}
	attention := ""
	if sendErr != nil {
		s.log.WarnContext(ctx, "sweep not taken, it will be sent again", "sweep_id", w.id, "signature", w.signature, "error", sendErr)
		attention = inWords(sendErr)
	}
	err := s.step(ctx, term, w, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			UPDATE deposit_sweeps SET last_sent_at = clock_timestamp(), send_count = send_count + 1, attention = $2 WHERE id = $1`, w.id, attention)
		return err
	})
	if err != nil {
		return err
	}
	return s.failpoint(stepMarkedSent)
}

// consumed finds out whether it was the sweep that consumed the nonce.
func (s *Service) consumed(ctx context.Context, term int64, w *work, nonce chain.Nonce) error {
	landed, err := s.landed(ctx, w, nonce)
	switch {
	case err != nil:
		return err
	case landed == nil && w.overdue:
		return s.end(ctx, term, w, StateFrozen,
			"the nonce was consumed, but not by this sweep: somebody else holds the treasury's key, or the endpoint hides history")
	case landed == nil:
		return s.step(ctx, term, w, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `
				UPDATE deposit_sweeps SET nonce_changed_at = coalesce(nonce_changed_at, clock_timestamp()),
				       attention = 'the nonce was consumed; its transaction is not in the history yet' WHERE id = $1`, w.id)
			return err
		})
	}
	if err := s.failpoint(stepResolved); err != nil {
		return err
	}
	return s.book(ctx, term, w, landed)
}

// landed returns the sweep's transaction if the chain has it, nil if history does not show it.
func (s *Service) landed(ctx context.Context, w *work, nonce chain.Nonce) (*chain.Transaction, error) {
	ended, err := s.chain.Finalized(ctx, w.signature)
	if err != nil {
		return nil, err
	}
	_, found := ended[w.signature]
	if !found {
		history, err := s.chain.SignaturesFor(ctx, w.nonceAccount, nonce.Slot, historyDepth)
		if err != nil {
			return nil, err
		}
		for _, info := range history {
			found = found || info.Signature == w.signature
		}
	}
	if !found {
		return nil, nil //nolint:nilnil // absence is an answer here, and not a failure
	}
	transaction, err := s.chain.Transaction(ctx, w.signature)
	if errors.Is(err, chain.ErrNotFound) {
		return nil, nil //nolint:nilnil // the endpoint's parts disagree for a moment
	}
	return transaction, err
}

// book records what the chain did.
func (s *Service) book(ctx context.Context, term int64, w *work, landed *chain.Transaction) error {
	state, reason := StateFinalized, ""
	if landed.Err != "" {
		state, reason = StateFailed, shorten("the chain executed it with the error "+landed.Err+": nothing moved")
	}
	var blockTime *time.Time
	if !landed.BlockTime.IsZero() {
		blockTime = &landed.BlockTime
	}
	err := s.step(ctx, term, w, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			UPDATE deposit_sweeps SET state = $2, reason = $3, attention = '', slot = $4, block_time = $5, fee_lamports = $6,
			       ended_at = clock_timestamp() WHERE id = $1`, w.id, state, reason, int64(landed.Slot), blockTime, int64(landed.Fee))
		if err != nil || state == StateFailed {
			return err
		}
		_, err = s.ledger.Post(ctx, tx, ledger.Entry{
			Key: "sweep:" + w.id.String(), Kind: KindSweep, Refs: ledger.Refs{Signature: w.signature.String()}, Memo: "Deposits moved to the treasury",
			Legs: []ledger.Leg{{Debit: ledger.Platform(ledger.ChainTreasury), Credit: ledger.Of(ledger.ChainDeposits, w.org), Amount: w.amount}},
		})
		return err
	})
	if err == nil {
		s.log.InfoContext(ctx, "sweep ended", "sweep_id", w.id, "state", state, "signature", w.signature, "reason", reason)
	}
	return err
}

// end stops a sweep without a transaction of its own.
func (s *Service) end(ctx context.Context, term int64, w *work, state, reason string) error {
	s.log.ErrorContext(ctx, "sweep stopped", "sweep_id", w.id, "state", state, "reason", reason, "alarm", state == StateFrozen)
	return s.step(ctx, term, w, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			UPDATE deposit_sweeps SET state = $2, reason = $3, attention = '',
			       ended_at = CASE WHEN $2 = 'failed' THEN clock_timestamp() END WHERE id = $1`, w.id, state, shorten(reason))
		return err
	})
}

func shorten(text string) string {
	runes := []rune(text)
	return string(runes[:min(len(runes), maxReason)])
}
