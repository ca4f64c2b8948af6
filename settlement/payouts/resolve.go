package payouts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// How a frozen batch can have ended.
const (
	OutcomePaid    = "paid"
	OutcomeNotPaid = "not_paid"
)

// Evidence is what a person says of a frozen batch, with the transaction that shows it.
type Evidence struct {
	Paid      bool
	Signature string // Paid: of the transaction that paid exactly the batch; else of the one that consumed its nonce and paid none of it
	Note      string
}

func (e Evidence) outcome() string {
	if e.Paid {
		return OutcomePaid
	}
	return OutcomeNotPaid
}

// Resolve ends a frozen batch with evidence that the chain confirms: one person proposes, another says the same. Nothing is resolved
// while a transaction on the batch's nonce value could still land.
func (s *Service) Resolve(ctx context.Context, id ids.Batch, by ids.User, evidence Evidence) error {
	if by.IsZero() {
		return errs.New(errs.Forbidden, "a batch is resolved by people")
	}
	if evidence.Note == "" || len(evidence.Note) > maxReason {
		return errs.InvalidField("note", "say what was found, in at most %d characters", maxReason)
	}
	signature, err := chain.ParseSignature(evidence.Signature)
	if err != nil {
		return errs.InvalidField("signature", "%s", err.Error())
	}
	b, err := s.load(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return errs.New(errs.NotFound, "there is no batch %s", id)
	}
	if err != nil {
		return err
	}
	if b.state != stateFrozen {
		return notFrozen(b.state)
	}
	if err := s.verify(ctx, b, evidence.Paid, signature); err != nil {
		return err
	}
	event := audit.Event{By: by, Action: "batch.resolve", Subject: id.String(), Details: map[string]string{
		"outcome": evidence.outcome(), "signature": evidence.Signature, "note": evidence.Note,
	}}
	return s.logged(ctx, event, func(tx pgx.Tx) error { return s.storeResolution(ctx, tx, b, by, evidence) })
}

func notFrozen(state string) error {
	return errs.New(errs.Conflict, "the batch is %s: only a frozen one is resolved by hand", state)
}

// verify compares the evidence with the chain.
func (s *Service) verify(ctx context.Context, b *work, paid bool, signature chain.Signature) error {
	nonce, err := s.chain.Nonce(ctx, chain.Finalized, 0, b.nonceAccount)
	if err != nil {
		return s.evidenceUnread(ctx, err)
	}
	if nonce.Value == b.nonceValue {
		return errs.New(errs.Conflict, "the batch's nonce is not consumed, so a transaction of it could still land: cancel the batch first")
	}
	landed, err := s.chain.Transaction(ctx, signature)
	if errors.Is(err, chain.ErrNotFound) {
		return errs.InvalidField("signature", "the chain has no final transaction of this signature")
	}
	if err != nil {
		return s.evidenceUnread(ctx, err)
	}
	if !paid {
		return b.showsNotPaid(landed)
	}
	keys, err := s.signer.Addresses(ctx)
	if err != nil {
		return s.evidenceUnread(ctx, err)
	}
	if err := b.showsPaid(landed, keys.Mint, keys.TreasuryTokenAccount); err != nil {
		return err
	}
	return s.othersPayment(ctx, b, landed)
}

func (s *Service) evidenceUnread(ctx context.Context, err error) error {
	s.log.WarnContext(ctx, "evidence cannot be read", "error", err, "alarm", chain.IsAlarm(err))
	return errs.New(errs.Unavailable, "the chain or the signer does not answer, so the evidence cannot be checked; try again")
}

// showsNotPaid wants a transaction that lived by the batch's nonce value, of which there is one at most, and gave its payees nothing.
func (b *work) showsNotPaid(landed *chain.Transaction) error {
	if landed.Nonce != b.nonceValue {
		return errs.InvalidField("signature", "this transaction did not consume the batch's nonce value %s", b.nonceValue)
	}
	for _, change := range landed.Tokens {
		if change.Post > change.Pre && slices.ContainsFunc(b.payouts, func(p workPayout) bool { return p.tokenAccount == change.TokenAccount }) {
			return errs.InvalidField("signature", "this transaction gave tokens to %s, a payee of the batch", change.TokenAccount)
		}
	}
	return nil
}

// showsPaid wants a transaction that moved exactly the batch's amounts from the treasury to its payees, and nothing else of the token.
func (b *work) showsPaid(landed *chain.Transaction, mint, treasury chain.Address) error {
	if landed.Err != "" {
		return errs.InvalidField("signature", "the chain executed this transaction with the error %s: it paid nothing", landed.Err)
	}
	owed := map[chain.Address]money.Amount{}
	var total money.Amount
	for _, p := range b.payouts {
		owed[p.tokenAccount] = p.amount
		total += p.amount
	}
	owed[treasury] = -total
	for _, change := range landed.Tokens {
		if change.Mint != mint {
			continue
		}
		want, expected := owed[change.TokenAccount]
		if moved := money.Amount(change.Post) - money.Amount(change.Pre); !expected || moved != want {
			return errs.InvalidField("signature", "this transaction changed %s by %d base units, the batch wants %d", change.TokenAccount, moved, want)
		}
		delete(owed, change.TokenAccount)
	}
	for account, amount := range owed {
		return errs.InvalidField("signature", "this transaction did not change %s, the batch wants %d base units", account, amount)
	}
	return nil
}

// othersPayment refuses a payment that the books know already, or that names another batch of this database.
func (s *Service) othersPayment(ctx context.Context, b *work, landed *chain.Transaction) error {
	name, _, _ := strings.Cut(landed.Memo, " ")
	var named ids.Batch
	_ = named.UnmarshalText([]byte(name)) // a memo that names no batch names none of ours
	var booked, other bool
	err := s.pool.QueryRow(ctx, `
		SELECT EXISTS (SELECT 1 FROM ledger_entries WHERE signature = $1)
		    OR EXISTS (SELECT 1 FROM payout_transactions WHERE signature = $1 AND batch_id <> $2),
		       EXISTS (SELECT 1 FROM payout_batches WHERE id = $3 AND id <> $2)`, landed.Signature.String(), b.id, named).Scan(&booked, &other)
	switch {
	case err != nil:
		return fmt.Errorf("look for the payment in the books: %w", err)
	case booked:
		return errs.InvalidField("signature", "this transaction is in the books already, as something else")
	case other:
		return errs.InvalidField("signature", "this transaction paid %s, another batch", named)
	}
	return nil
}

// storeResolution notes a proposal, or applies one that somebody else has made.
func (s *Service) storeResolution(ctx context.Context, tx pgx.Tx, b *work, by ids.User, evidence Evidence) error {
	state, _, err := lockBatch(ctx, tx, b.id)
	if err != nil {
		return err
	}
	if state != stateFrozen {
		return notFrozen(state)
	}
	var proposer ids.User
	var same bool
	err = tx.QueryRow(ctx, `SELECT proposed_by, outcome = $2 AND signature = $3 FROM payout_resolutions WHERE batch_id = $1`,
		b.id, evidence.outcome(), evidence.Signature).Scan(&proposer, &same)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && !same:
		_, err = tx.Exec(ctx, `
			INSERT INTO payout_resolutions (batch_id, outcome, signature, note, proposed_by) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (batch_id) DO UPDATE SET outcome = EXCLUDED.outcome, signature = EXCLUDED.signature, note = EXCLUDED.note,
				proposed_by = EXCLUDED.proposed_by, proposed_at = now()`, b.id, evidence.outcome(), evidence.Signature, evidence.Note, by)
		if err != nil || !s.options.SelfApproval {
			return err
		}
	case err != nil:
		return fmt.Errorf("read resolution: %w", err)
	case proposer == by && !s.options.SelfApproval:
		return errs.New(errs.Conflict, "you proposed this: somebody else must confirm it")
	}
	if _, err := tx.Exec(ctx, `UPDATE payout_resolutions SET confirmed_by = $2, confirmed_at = now() WHERE batch_id = $1`, b.id, by); err != nil {
		return fmt.Errorf("store resolution: %w", err)
	}
	s.log.WarnContext(ctx, "frozen batch resolved", "batch_id", b.id, "outcome", evidence.outcome(), "signature", evidence.Signature)
	if evidence.Paid {
		return s.resolvePaid(ctx, tx, b, evidence)
	}
	_, err = tx.Exec(ctx, `
		UPDATE payout_batches SET state = 'cancelled', state_reason = $2, attention = '', voided_by = $3 WHERE id = $1`,
		b.id, shorten("resolved as not paid: "+evidence.Note), evidence.Signature)
	if err != nil {
		return fmt.Errorf("store resolution: %w", err)
	}
	return s.returnMoney(ctx, tx, b.id, "")
}

// resolvePaid books a payment. Its payouts keep their numbers, which are used up in the signer's journal too.
func (s *Service) resolvePaid(ctx context.Context, tx pgx.Tx, b *work, evidence Evidence) error {
	_, err := tx.Exec(ctx, `
		UPDATE payout_batches SET state = 'finalized', finalized_at = now(), state_reason = $2, attention = '', paid_by = $3 WHERE id = $1`,
		b.id, shorten("resolved as paid: "+evidence.Note), evidence.Signature)
	if err != nil {
		return fmt.Errorf("store resolution: %w", err)
	}
	return s.bookPaid(ctx, tx, []payment{{b, evidence.Signature}})
}
