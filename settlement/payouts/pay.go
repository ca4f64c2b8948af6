package payouts

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/sync/errgroup"

	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
)

// payNext claims a group of batches and lets it be paid beside the others, once there is room for it.
func (s *Service) payNext(ctx context.Context, term int64, lanes *errgroup.Group, slots chan struct{}) (worked bool, err error) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return false, nil
	}
	claimed, err := s.claim(ctx, term, `state IN ('approved', 'signed')`)
	if err != nil || len(claimed) == 0 {
		<-slots
		return false, err
	}
	lanes.Go(func() error {
		defer func() { <-slots }()
		ctx, cancel := context.WithTimeout(ctx, stepTimeout)
		defer cancel()
		batches, err := s.loadAll(ctx, claimed)
		if err != nil {
			s.log.WarnContext(ctx, "claimed batches cannot be read", "batches", len(claimed), "error", err)
			return nil // others may have them when the claim is over
		}
		return s.pay(ctx, term, batches)
	})
	return true, nil
}

// pay takes claimed batches as far as they get without waiting for the chain, which is until they are sent, and releases them. They
// take each step together; what holds one up leaves it behind. It returns errors that end the worker.
func (s *Service) pay(ctx context.Context, term int64, batches []*work) error {
	if err := s.at(stepClaimed); err != nil {
		return err
	}
	var approved, signed []*work
	for _, b := range batches {
		switch b.state {
		case stateApproved:
			approved = append(approved, b)
		case stateSigned:
			signed = append(signed, b)
		}
	}
	ready, err := s.prepare(ctx, term, approved)
	if err != nil {
		return err
	}
	fresh, err := s.sign(ctx, term, ready)
	if err != nil {
		return err
	}
	return s.send(ctx, term, append(signed, fresh...))
}

// prepare builds the messages and stores them before anybody is asked to sign them. It returns the batches that have one.
func (s *Service) prepare(ctx context.Context, term int64, batches []*work) (ready []*work, err error) {
	var bare []*work
	for _, b := range batches {
		if b.message == nil {
			bare = append(bare, b)
		} else {
			ready = append(ready, b)
		}
	}
	built, err := s.build(ctx, term, bare)
	if err != nil {
		return nil, err
	}
	stored, err := s.commitAll(ctx, term, built, storeMessages)
	if err != nil {
		return nil, err
	}
	if ready = append(ready, stored...); len(ready) == 0 {
		return nil, nil
	}
	return ready, s.at(stepMessageStored)
}

// build gives batches their messages, if their nonces are as they were pinned.
func (s *Service) build(ctx context.Context, term int64, batches []*work) (built []*work, err error) {
	if len(batches) == 0 {
		return nil, nil
	}
	keys, err := s.recentKeys(ctx)
	if err != nil {
		return nil, s.holdUp(ctx, term, batches, err)
	}
	s.lookAtNonces(ctx, batches)
	one := func(ctx context.Context, b *work) error {
		switch {
		case b.unread != nil:
			return s.holdUp(ctx, term, []*work{b}, b.unread)
		case b.seen.value != b.nonceValue:
			return s.holdUp(ctx, term, []*work{b}, s.freeze(ctx, term, b,
				"the pinned nonce was consumed before this batch was signed: another transaction used it, or the database is older than the chain"))
		}
		message, err := s.buildMessage(ctx, b, keys)
		b.message = message
		return s.holdUp(ctx, term, []*work{b}, err)
	}
	// The first one's trial run is mostly enough for all.
	if err := s.each(ctx, batches[:1], one); err != nil {
		return nil, err
	}
	if err := s.each(ctx, batches[1:], one); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(batches), func(b *work) bool { return b.message == nil }), nil
}

// lookAtNonces reads what the chain has finalized of the batches' nonces, in as few calls as it can. When that fails each is asked
// for by itself, so that one nonce about which endpoints disagree does not hold up the others.
func (s *Service) lookAtNonces(ctx context.Context, batches []*work) {
	addresses := make([]chain.Address, len(batches))
	for i, b := range batches {
		addresses[i] = b.nonceAccount
	}
	seen, err := s.readNonces(ctx, addresses)
	if err != nil && len(batches) > 1 {
		_ = s.each(ctx, batches, func(ctx context.Context, b *work) error {
			s.lookAtNonces(ctx, []*work{b})
			return nil // it is noted with the batch
		})
		return
	}
	for i, b := range batches {
		switch {
		case err != nil:
			b.unread = err
		case seen[i].problem != "":
			b.unread = fmt.Errorf("nonce account %s: %s", b.nonceAccount, seen[i].problem)
		default:
			b.seen, b.unread = seen[i], nil
		}
	}
}

func storeMessages(ctx context.Context, tx pgx.Tx, batches []*work) error {
	messages := make([][]byte, len(batches))
	for i, b := range batches {
		messages[i] = b.message
	}
	_, err := tx.Exec(ctx, `
		UPDATE payout_batches b SET message = n.message, signing_started_at = clock_timestamp(), attention = ''
		FROM unnest($1::uuid[], $2::bytea[]) AS n (id, message) WHERE b.id = n.id`, idsOf(batches), messages)
	return err
}

// sign takes batches whose messages are stored to signed, still claimed.
func (s *Service) sign(ctx context.Context, term int64, batches []*work) (signed []*work, err error) {
	if len(batches) == 0 {
		return nil, nil
	}
	orders := make([]signer.Order, len(batches))
	for i, b := range batches {
		orders[i] = signer.Order{Message: b.message, Batch: b.request()}
	}
	answers, err := s.signer.SignAll(ctx, orders)
	if err != nil {
		return nil, s.holdUp(ctx, term, batches, err)
	}
	for i, b := range batches {
		if refusal := answers[i].Refusal; refusal != nil {
			if err := s.holdUp(ctx, term, []*work{b}, s.refused(ctx, term, b, refusal)); err != nil {
				return nil, err
			}
			continue
		}
		b.signature = answers[i].Signatures[0]
		signed = append(signed, b)
	}
	if len(signed) == 0 {
		return nil, nil
	}
	if err := s.at(stepSignatureHad); err != nil {
		return nil, err
	}
	return s.storeSigned(ctx, term, signed)
}

// storeSigned verifies the signatures, and stores the bytes that are sent.
func (s *Service) storeSigned(ctx context.Context, term int64, batches []*work) (signed []*work, err error) {
	err = s.each(ctx, batches, func(ctx context.Context, b *work) (err error) {
		b.wire, err = assemble(b.message, b.signature)
		return s.holdUp(ctx, term, []*work{b}, err)
	})
	if err != nil {
		return nil, err
	}
	signed = slices.DeleteFunc(slices.Clone(batches), func(b *work) bool { return b.wire == nil })
	if signed, err = s.commitAll(ctx, term, signed, insertSigned); err != nil || len(signed) == 0 {
		return nil, err
	}
	for _, b := range signed {
		b.state = stateSigned
		s.log.InfoContext(ctx, "batch signed", "batch_id", b.id, "signature", b.signature)
	}
	return signed, s.at(stepBytesStored)
}

func insertSigned(ctx context.Context, tx pgx.Tx, batches []*work) error {
	n := len(batches)
	signatures, accounts, values, wires := make([]string, n), make([]string, n), make([]string, n), make([][]byte, n)
	for i, b := range batches {
		signatures[i], accounts[i], values[i], wires[i] = b.signature.String(), b.nonceAccount.String(), b.nonceValue.String(), b.wire
	}
	wanted := idsOf(batches)
	queries := &pgx.Batch{}
	queries.Queue(`
		INSERT INTO payout_transactions (signature, batch_id, nonce_account, nonce_value, wire)
		SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::bytea[])`, signatures, wanted, accounts, values, wires)
	queries.Queue(`UPDATE payout_batches SET state = 'signed', attention = '', due_at = clock_timestamp() WHERE id = ANY ($1)`, wanted)
	return tx.SendBatch(ctx, queries).Close()
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

// send hands over the stored bytes, and releases the batches. Whatever the answer, the cluster may have them from now on.
func (s *Service) send(ctx context.Context, term int64, batches []*work) error {
	if len(batches) == 0 {
		return nil
	}
	err := s.each(ctx, batches, func(ctx context.Context, b *work) error {
		returned, err := s.chain.Send(ctx, b.wire)
		b.problem = ""
		switch {
		case err != nil:
			b.problem = shorten(inWords(err))
		case returned != b.signature:
			b.problem = fmt.Sprintf("the endpoint answered with another signature, %s", returned)
		}
		return s.at(stepSent)
	})
	if err != nil {
		return err
	}
	sent, err := s.commitAll(ctx, term, batches, s.markSent)
	if err != nil || len(sent) == 0 {
		return err
	}
	for _, b := range sent {
		s.log.InfoContext(ctx, "batch sent", "batch_id", b.id, "signature", b.signature, "problem", b.problem)
	}
	return s.at(stepMarkedSent)
}

func (s *Service) markSent(ctx context.Context, tx pgx.Tx, batches []*work) error {
	wanted, problems := idsOf(batches), make([]string, len(batches))
	for i, b := range batches {
		problems[i] = b.problem
	}
	queries := &pgx.Batch{}
	queries.Queue(`
		UPDATE payout_transactions t
		SET first_sent_at = coalesce(first_sent_at, clock_timestamp()), last_sent_at = clock_timestamp(),
		    send_count = send_count + 1, last_send_error = n.problem
		FROM unnest($1::uuid[], $2::text[]) AS n (id, problem) WHERE t.batch_id = n.id`, wanted, problems)
	queries.Queue(`
		UPDATE payout_batches b SET state = 'sent', attention = n.problem, due_at = clock_timestamp() + $3, claimed_until = NULL
		FROM unnest($1::uuid[], $2::text[]) AS n (id, problem) WHERE b.id = n.id`, wanted, problems, s.options.Poll)
	return tx.SendBatch(ctx, queries).Close()
}

func idsOf(batches []*work) []pgtype.UUID {
	list := make([]pgtype.UUID, len(batches))
	for i, b := range batches {
		list[i] = uuidOf(b.id)
	}
	return list
}
