package payouts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
)

const (
	// watchedAtOnce bounds how many sent batches one look at the chain is about.
	watchedAtOnce = 2_048
	// landedPatience is for how many intervals nothing is sent again of what has landed and is not final.
	landedPatience = 10
)

// sent is what a look at the chain needs of a sent batch.
type sent struct {
	id           ids.Batch
	signature    chain.Signature
	nonceAccount chain.Address
	nonceValue   chain.Hash
	stale        bool // it was last sent long enough ago to be sent again
	overdue      bool // and many times as long
	attention    bool // something is shown of it that no longer holds
}

// watch looks at all sent batches that are due together: a batch is left alone until its signature is final, its nonce is consumed, or
// its bytes are to be sent again. What it sees is a hint: before anything is booked, the nonce is asked for.
func (s *Service) watch(ctx context.Context, term int64) (worked bool, err error) {
	waiting, err := s.waiting(ctx, term)
	if err != nil || len(waiting) == 0 {
		return false, err
	}
	moved, err := s.moved(ctx, waiting)
	if err != nil { // each asks by itself, and says what holds it up
		s.log.WarnContext(ctx, "sent batches cannot be looked at together", "batches", len(waiting), "error", err)
		moved = moved[:0]
		for _, b := range waiting[:min(len(waiting), together)] {
			moved = append(moved, b.id)
		}
	}
	for group := range slices.Chunk(moved, together) {
		if err := s.resolveNext(ctx, term, group); err != nil {
			return false, err
		}
	}
	return len(moved) > 0, nil
}

func (s *Service) waiting(ctx context.Context, term int64) ([]sent, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT b.id, t.signature, b.nonce_account, b.nonce_value, b.attention <> '' OR b.nonce_changed_at IS NOT NULL,
		       t.last_sent_at IS NULL OR t.last_sent_at < clock_timestamp() - $1::interval,
		       t.last_sent_at IS NULL OR t.last_sent_at < clock_timestamp() - $3::interval
		FROM payout_batches b JOIN payout_transactions t ON t.batch_id = b.id
		WHERE b.state = 'sent' AND `+free+` ORDER BY b.due_at LIMIT $4`,
		s.options.Rebroadcast, term, landedPatience*s.options.Rebroadcast, watchedAtOnce)
	if err != nil {
		return nil, fmt.Errorf("read sent batches: %w", err)
	}
	waiting, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b sent, err error) {
		var signature, account, value string
		if err = row.Scan(&b.id, &signature, &account, &value, &b.attention, &b.stale, &b.overdue); err != nil {
			return b, err
		}
		if b.signature, err = chain.ParseSignature(signature); err != nil {
			return b, err
		}
		b.nonceAccount, b.nonceValue, err = parsePin(account, value)
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("read sent batches: %w", err)
	}
	return waiting, nil
}

// moved are those of the sent batches that there is something to do about.
func (s *Service) moved(ctx context.Context, waiting []sent) ([]ids.Batch, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	signatures := make([]chain.Signature, len(waiting))
	for i, b := range waiting {
		signatures[i] = b.signature
	}
	ended, err := s.chain.Finalized(ctx, signatures...)
	if err != nil {
		return nil, err
	}
	var moved []ids.Batch
	var stale []sent
	for _, b := range waiting {
		if _, final := ended[b.signature]; final || b.attention {
			moved = append(moved, b.id)
		} else if b.stale {
			stale = append(stale, b)
		}
	}
	again, err := s.unlanded(ctx, stale)
	return append(moved, again...), err
}

// unlanded are those of the batches that were sent long ago whose nonce is consumed at finalized, or that no block has yet: only they
// are worth sending again.
func (s *Service) unlanded(ctx context.Context, batches []sent) ([]ids.Batch, error) {
	if len(batches) == 0 {
		return nil, nil
	}
	addresses := make([]chain.Address, len(batches))
	for i, b := range batches {
		addresses[i] = b.nonceAccount
	}
	final, err := s.accounts(ctx, chain.Finalized, addresses)
	if err != nil {
		return nil, err
	}
	confirmed, err := s.accounts(ctx, chain.Confirmed, addresses)
	if err != nil {
		return nil, err
	}
	var again []ids.Batch
	for i, b := range batches {
		landed := decodeNonce(b.nonceAccount, confirmed[i]).value != b.nonceValue
		consumed := decodeNonce(b.nonceAccount, final[i]).value != b.nonceValue
		if consumed || b.overdue || !landed {
			again = append(again, b.id)
		}
	}
	return again, nil
}

// resolveNext claims those of the batches that are still sent, and goes on with them.
func (s *Service) resolveNext(ctx context.Context, term int64, group []ids.Batch) error {
	claimed, err := s.claimOf(ctx, term, group)
	if err != nil || len(claimed) == 0 {
		return err
	}
	batches, err := s.loadAll(ctx, claimed)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if err := s.at(stepClaimed); err != nil {
		return err
	}
	batches = slices.DeleteFunc(batches, func(b *work) bool { return b.state != stateSent })
	return s.resolve(ctx, term, batches)
}

// resolve asks the nonces what became of sent batches.
func (s *Service) resolve(ctx context.Context, term int64, batches []*work) error {
	s.lookAtNonces(ctx, batches)
	var consumed, resend, wait []*work
	for _, b := range batches {
		switch {
		case b.unread != nil:
			if err := s.holdUp(ctx, term, []*work{b}, b.unread); err != nil {
				return err
			}
		case b.seen.value != b.nonceValue:
			consumed = append(consumed, b)
		case b.resend:
			resend = append(resend, b)
		default:
			wait = append(wait, b)
		}
	}
	if err := s.consumed(ctx, term, consumed); err != nil {
		return err
	}
	if err := s.send(ctx, term, resend); err != nil {
		return err
	}
	return s.holdUp(ctx, term, wait, s.release(ctx, term, wait, s.options.Poll, ""))
}

// consumed finds the transactions that consumed the nonces, and ends the batches accordingly.
func (s *Service) consumed(ctx context.Context, term int64, batches []*work) error {
	if len(batches) == 0 {
		return nil
	}
	signatures := make([]chain.Signature, len(batches))
	for i, b := range batches {
		signatures[i] = b.signature
	}
	ended, err := s.chain.Finalized(ctx, signatures...)
	if err != nil {
		ended = nil // each is asked for by itself
	}
	if err := s.each(ctx, batches, func(ctx context.Context, b *work) (err error) {
		if _, final := ended[b.signature]; final {
			b.landed, err = s.landedAs(ctx, b.signature)
		} else {
			b.landed, err = s.findLanded(ctx, b, chain.Nonce{Authority: b.seen.authority, Value: b.seen.value, Slot: b.seen.slot}, b.signature)
		}
		if err == nil && b.landed == nil {
			err = s.missing(ctx, term, b)
		}
		return s.holdUp(ctx, term, []*work{b}, err)
	}); err != nil {
		return err
	}
	found := slices.DeleteFunc(slices.Clone(batches), func(b *work) bool { return b.landed == nil })
	if len(found) == 0 {
		return nil
	}
	if err := s.at(stepResolved); err != nil {
		return err
	}
	return s.end(ctx, term, found)
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
	return s.landedAs(ctx, candidates[at])
}

// landedAs reads a final transaction; nil if the endpoint's parts disagree for a moment.
func (s *Service) landedAs(ctx context.Context, signature chain.Signature) (*chain.Transaction, error) {
	landed, err := s.chain.Transaction(ctx, signature)
	if errors.Is(err, chain.ErrNotFound) {
		return nil, nil //nolint:nilnil // absence is an answer here, too
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

// end books what the chain did with batches whose own transaction it has executed.
func (s *Service) end(ctx context.Context, term int64, batches []*work) error {
	ended, err := s.commitAll(ctx, term, batches, s.storeEnds)
	for _, b := range ended {
		state, reason := b.ending()
		if state == stateFailed {
			s.budgets.forgetAll()
		}
		s.log.InfoContext(ctx, "batch ended", "batch_id", b.id, "state", state, "signature", b.signature, "reason", reason)
	}
	return err
}

// ending is what a batch comes to by the transaction that landed.
func (b *work) ending() (state, reason string) {
	if b.landed.Err != "" {
		return stateFailed, shorten("the chain executed the transaction with the error " + b.landed.Err + ": nothing was paid")
	}
	return stateFinalized, ""
}

func (s *Service) storeEnds(ctx context.Context, tx pgx.Tx, batches []*work) error {
	n := len(batches)
	slots, fees, units, rents := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	times, failures := make([]*time.Time, n), make([]string, n)
	states, reasons := make([]string, n), make([]string, n)
	var paid []payment
	for i, b := range batches {
		slots[i], fees[i], units[i] = int64(b.landed.Slot), int64(b.landed.Fee), int64(b.landed.Units)
		rents[i] = max(int64(b.landed.Spent)-int64(b.landed.Fee), 0) // what the payer spent beside the fee
		times[i], failures[i] = blockTime(b.landed), b.landed.Err
		if states[i], reasons[i] = b.ending(); states[i] == stateFinalized {
			paid = append(paid, payment{b, b.signature.String()})
		}
	}
	wanted := idsOf(batches)
	queries := &pgx.Batch{}
	queries.Queue(`
		UPDATE payout_transactions t
		SET slot = n.slot, block_time = n.block_time, fee_lamports = n.fee, compute_units = n.units, chain_error = n.failure, rent_lamports = n.rent
		FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[])
			AS n (id, slot, block_time, fee, units, failure, rent) WHERE t.batch_id = n.id`,
		wanted, slots, times, fees, units, failures, rents)
	queries.Queue(`
		UPDATE payout_batches b SET state = n.state, state_reason = n.reason, attention = '', claimed_until = NULL,
		       finalized_at = CASE WHEN n.state = 'finalized' THEN clock_timestamp() END
		FROM unnest($1::uuid[], $2::text[], $3::text[]) AS n (id, state, reason) WHERE b.id = n.id`, wanted, states, reasons)
	if err := tx.SendBatch(ctx, queries).Close(); err != nil {
		return err
	}
	for i, b := range batches {
		if states[i] == stateFailed {
			if err := s.returnMoney(ctx, tx, b.id, b.signature.String()); err != nil {
				return err
			}
		}
	}
	return s.bookPaid(ctx, tx, paid)
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

// payment is a batch that left the treasury, and by which transaction.
type payment struct {
	batch     *work
	signature string
}

// bookPaid records that batches left the treasury.
func (s *Service) bookPaid(ctx context.Context, tx pgx.Tx, paid []payment) error {
	if len(paid) == 0 {
		return nil
	}
	entries, batches := make([]ledger.Entry, len(paid)), make([]pgtype.UUID, len(paid))
	for i, p := range paid {
		b := p.batch
		legs := make([]ledger.Leg, len(b.payouts))
		for j, one := range b.payouts {
			legs[j] = ledger.Leg{
				Debit: ledger.Of(ledger.PayoutInFlight, one.payee), Credit: ledger.Platform(ledger.ChainTreasury), Amount: one.amount,
			}
		}
		batches[i] = uuidOf(b.id)
		entries[i] = ledger.Entry{
			Key: "payout_paid:" + b.id.String(), Kind: ledger.KindPayoutPaid, Legs: legs,
			Refs: ledger.Refs{Batch: b.id, Signature: p.signature},
			Memo: fmt.Sprintf("Paid on chain in batch %s", b.id),
		}
	}
	if _, err := s.ledger.PostAll(ctx, tx, entries); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		UPDATE withdrawals w SET state = 'paid', ended_at = now() FROM payouts p WHERE p.batch_id = ANY ($1) AND w.id = p.withdrawal_id`, batches)
	if err != nil {
		return fmt.Errorf("end withdrawals: %w", err)
	}
	if _, err := tx.Exec(ctx, `UPDATE payouts SET live = false WHERE batch_id = ANY ($1)`, batches); err != nil {
		return fmt.Errorf("end payouts: %w", err)
	}
	return nil
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
	// A payee's number is used up by a signature, whether that was ever sent or not. Without one the next payout may have it.
	_, err = tx.Exec(ctx, `
		UPDATE payouts SET live = false, numbered = EXISTS (SELECT 1 FROM payout_transactions t WHERE t.batch_id = $1) WHERE batch_id = $1`, id)
	if err != nil {
		return fmt.Errorf("end payouts: %w", err)
	}
	return nil
}
