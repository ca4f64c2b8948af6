package payouts

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// losing is a cluster that loses the payments of batches, and takes everything else.
func (b *bench) losing() *faulty {
	return &faulty{Chain: b.cluster, send: func(ctx context.Context, wire []byte) (chain.Signature, error) {
		var payment bool
		err := b.pool.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM payout_transactions WHERE wire = $1)`, wire).Scan(&payment)
		if err != nil || payment {
			return chain.Signature{}, errors.Join(chain.ErrUnavailable, err)
		}
		return b.cluster.Send(ctx, wire)
	}}
}

// cancelled waits until a batch is, and compares books and chain: nothing was paid, everything is owed.
func (b *bench) wantCancelled(t *testing.T, s *Service, id ids.Batch, owners []owner) Batch {
	t.Helper()
	batch := reach(t, s, id, stateCancelled)
	for _, o := range owners {
		if due := b.books(t, b.pool, ledger.OwnerPayable, o.id); due != token {
			t.Errorf("the owner is owed %d, want %d", due, token)
		}
	}
	if left := b.holds(t, b.local.Treasury); left != capital {
		t.Errorf("the treasury holds %d, want %d", left, capital)
	}
	if batch.Cancellation == nil || batch.Cancellation.Slot == nil || batch.Cancellation.AskedBy != b.drafter {
		t.Errorf("the cancellation: %+v", batch.Cancellation)
	}
	check(t, b.ledger.Check(t.Context(), b.pool))
	return batch
}

func TestASentBatchIsCancelledOnceWhereverAWorkerDies(t *testing.T) {
	t.Parallel()
	for _, step := range CancelSteps() {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			owners := b.owners(t, 2, true)
			first := b.service(b.pool, b.losing())
			batches := b.approved(t, first)
			stop := run(t, first, term)
			reach(t, first, batches[0], stateSent)
			check(t, stop())
			check(t, first.Cancel(t.Context(), batches[0], b.drafter, "the owner asked for it"))
			if err := first.Cancel(t.Context(), batches[0], b.drafter, "again"); errs.CodeOf(err) != errs.Conflict {
				t.Errorf("cancelled twice: %v", err)
			}
			first.failpoint = func(at string) error {
				if at == step {
					return errors.New("killed")
				}
				return nil
			}
			var killed *killedError
			if err := first.Run(t.Context(), term); !errors.As(err, &killed) || killed.step != step {
				t.Fatalf("the first worker ended with %v", err)
			}
			lead(t, b.pool, term+1)
			second := b.service(b.pool, b.losing())
			stop = run(t, second, term+1)
			dropped := b.wantCancelled(t, second, batches[0], owners)
			check(t, stop())

			// What was signed can still be sent by anybody, and lands nowhere.
			var wire []byte
			check(t, b.pool.QueryRow(t.Context(), `SELECT wire FROM payout_transactions WHERE batch_id = $1`, dropped.ID).Scan(&wire))
			_, _ = b.cluster.Send(t.Context(), wire) // refused or dropped
			third := b.service(b.pool, b.cluster)
			again := b.approved(t, third)
			run(t, third, term+1)
			if paid := reach(t, third, again[0], stateFinalized); paid.Payouts[0].Sequence != 2 {
				t.Errorf("the signed number was used again: %+v", paid.Payouts[0])
			}
			b.wantPaidOnce(t, owners...)
		})
	}
}

func TestAPaymentThatWasFasterThanItsCancellationIsPaid(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 2, true)
	s := b.service(b.pool, b.losing())
	batches := b.approved(t, s)
	stop := run(t, s, term)
	reach(t, s, batches[0], stateSent)
	check(t, stop())
	check(t, s.Cancel(t.Context(), batches[0], b.drafter, "a second thought"))
	raced := &faulty{Chain: b.cluster, send: func(ctx context.Context, wire []byte) (chain.Signature, error) {
		var payment []byte
		if err := b.pool.QueryRow(ctx, `SELECT wire FROM payout_transactions WHERE batch_id = $1`, batches[0]).Scan(&payment); err != nil {
			return chain.Signature{}, err
		}
		if _, err := b.cluster.Send(ctx, payment); err != nil { // a node kept it, and gives it to the leader first
			return chain.Signature{}, err
		}
		return b.cluster.Send(ctx, wire)
	}}
	later := b.service(b.pool, raced)
	run(t, later, term)
	reach(t, later, batches[0], stateFinalized)
	b.wantPaidOnce(t, owners...)
}

func TestTheCancellationIsStoredBeforeItIsSent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 1, true)
	lost := b.losing()
	inner, cancels := lost.send, atomic.Int32{}
	s := b.service(b.pool, lost)
	batches := b.approved(t, s)
	lost.send = func(ctx context.Context, wire []byte) (chain.Signature, error) {
		var payments, stored bool
		err := b.pool.QueryRow(ctx, `
			SELECT EXISTS (SELECT 1 FROM payout_transactions WHERE wire = $1), EXISTS (SELECT 1 FROM payout_cancellations WHERE wire = $1)`, wire).
			Scan(&payments, &stored)
		if err != nil || payments == stored {
			t.Errorf("sent what is not stored, or twice: %v", err)
		}
		if stored {
			cancels.Add(1)
		}
		return inner(ctx, wire)
	}
	run(t, s, term)
	reach(t, s, batches[0], stateSent)
	check(t, s.Cancel(t.Context(), batches[0], b.drafter, "changed my mind"))
	b.wantCancelled(t, s, batches[0], owners)
	if cancels.Load() == 0 {
		t.Error("no cancellation was sent")
	}
}

func TestTheSchemaKeepsCancellationsHonest(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.owners(t, 1, true)
	s := b.service(b.pool, b.losing())
	batches := b.approved(t, s)
	stop := run(t, s, term)
	reach(t, s, batches[0], stateSent)
	check(t, s.Cancel(t.Context(), batches[0], b.drafter, "for the test"))
	reach(t, s, batches[0], stateCancelled)
	check(t, stop())
	for name, sql := range map[string]string{
		"the cancellation's bytes change":  `UPDATE payout_cancellations SET wire = '\x00'`,
		"it moves to another nonce":        `UPDATE payout_cancellations SET nonce_value = nonce_account`,
		"a cancelled batch comes back":     `UPDATE payout_batches SET state = 'sent'`,
		"the consumed value is free again": `UPDATE payout_batches SET voided_by = NULL`,
		"an approval is taken back":        `DELETE FROM payout_approvals`,
	} {
		if _, err := b.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s: the schema allowed it", name)
		}
	}
}

// frozenElsewhere freezes a batch by consuming its nonce with another transaction, whose signature it returns.
func (b *bench) frozenElsewhere(t *testing.T, s *Service) (ids.Batch, chain.Signature) {
	t.Helper()
	batches := b.approved(t, s)
	account, err := chain.ParseAddress(b.state(t, s, batches[0]).NonceAccount)
	check(t, err)
	b.advanceNonce(t, account)
	stop := run(t, s, term)
	reach(t, s, batches[0], stateFrozen)
	check(t, stop())
	history, err := b.cluster.SignaturesFor(t.Context(), account, 0, 1)
	check(t, err)
	return batches[0], history[0].Signature
}

func TestAFrozenBatchThatPaidNobodyIsResolvedByTwoPeople(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 1, true)
	s := b.service(b.pool, b.cluster)
	id, consumer := b.frozenElsewhere(t, s)
	evidence := Evidence{Signature: consumer.String(), Note: "a bare advance from the operator's shell"}
	elsewhere, err := b.local.CreateTokenAccount(t.Context(), newOwner(t).address())
	check(t, err)
	history, err := b.cluster.SignaturesFor(t.Context(), elsewhere, 0, 1)
	check(t, err)
	for name, test := range map[string]struct {
		evidence Evidence
		by       ids.User
		code     errs.Code
	}{
		"it paid":             {Evidence{Paid: true, Signature: consumer.String(), Note: "x"}, b.drafter, errs.Invalid},
		"another transaction": {Evidence{Signature: history[0].Signature.String(), Note: "x"}, b.drafter, errs.Invalid},
		"no transaction":      {Evidence{Signature: chain.Signature{1}.String(), Note: "x"}, b.drafter, errs.Invalid},
		"no signature":        {Evidence{Signature: "nonsense", Note: "x"}, b.drafter, errs.Invalid},
		"without a word":      {Evidence{Signature: consumer.String()}, b.drafter, errs.Invalid},
		"nobody":              {evidence, ids.User{}, errs.Forbidden},
	} {
		if err := s.Resolve(t.Context(), id, test.by, test.evidence); errs.CodeOf(err) != test.code {
			t.Errorf("%s: %v, want %s", name, err, test.code)
		}
	}
	if got := b.state(t, s, id); got.State != stateFrozen || got.Resolution != nil {
		t.Fatalf("after refused evidence: %+v", got)
	}
	check(t, s.Resolve(t.Context(), id, b.drafter, evidence))
	if err := s.Resolve(t.Context(), id, b.drafter, evidence); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("one person did both: %v", err)
	}
	if got := b.state(t, s, id); got.State != stateFrozen || got.Resolution == nil || got.Resolution.ProposedBy != b.drafter {
		t.Fatalf("after the proposal: %+v", got)
	}
	check(t, s.Resolve(t.Context(), id, b.approver, evidence))
	got := b.state(t, s, id)
	if got.State != stateCancelled || got.Resolution.ConfirmedBy != b.approver || !strings.Contains(got.StateReason, "not paid") {
		t.Errorf("after the confirmation: %+v", got)
	}
	if err := s.Resolve(t.Context(), id, b.approver, evidence); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("resolved again: %v", err)
	}
	again := b.approved(t, s)
	run(t, s, term)
	reach(t, s, again[0], stateFinalized)
	b.wantPaidOnce(t, owners...)
}

func TestARestoredDatabaseIsBroughtBackWithTheChainsEvidence(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 2, true)
	restored := b.database(t)
	for _, o := range owners {
		b.earns(t, restored, o, token)
	}
	s := b.service(b.pool, b.cluster)
	paid := b.approved(t, s)
	stop := run(t, s, term)
	lost := reach(t, s, paid[0], stateFinalized)
	check(t, stop())

	later := b.service(restored, b.cluster)
	repeated := b.approved(t, later)
	run(t, later, term)
	reach(t, later, repeated[0], stateFrozen)
	evidence := Evidence{Paid: true, Signature: lost.Signature, Note: "paid before the restore"}
	if err := later.Resolve(t.Context(), repeated[0], b.drafter, evidence); errs.CodeOf(err) != errs.Conflict {
		t.Fatalf("resolved while the batch could still land: %v", err)
	}
	check(t, later.Cancel(t.Context(), repeated[0], b.drafter, "to consume its nonce"))
	var attention string
	eventually(t, func() bool {
		batch := b.state(t, later, repeated[0])
		attention = batch.Attention
		return strings.Contains(attention, "resolve it")
	}, func() string { return "the nonce is not consumed: " + attention })
	if err := later.Cancel(t.Context(), repeated[0], b.drafter, "once more"); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("its nonce was consumed twice: %v", err)
	}
	check(t, later.Resolve(t.Context(), repeated[0], b.drafter, evidence))
	check(t, later.Resolve(t.Context(), repeated[0], b.approver, evidence))
	got := b.state(t, later, repeated[0])
	if got.State != stateFinalized || got.Signature != lost.Signature {
		t.Fatalf("resolved: %+v", got)
	}
	for _, o := range owners {
		if due := b.books(t, restored, ledger.OwnerPayable, o.id) + b.books(t, restored, ledger.PayoutInFlight, o.id); due != 0 {
			t.Errorf("the restored books still owe %d", due)
		}
	}
	check(t, b.ledger.Check(t.Context(), restored))

	// The payees' numbers are the signer's again: what they earn from now on is paid.
	b.earns(t, restored, owners[0], token)
	next := b.approved(t, later)
	reach(t, later, next[0], stateFinalized)
	if held := b.holds(t, owners[0].address()); held != 2*token {
		t.Errorf("the owner holds %d, want %d", held, 2*token)
	}
}

func TestAPaymentIsNoEvidenceForAnotherBatch(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 1, true)
	s := b.service(b.pool, b.cluster)
	batches := b.approved(t, s)
	stop := run(t, s, term)
	paid := reach(t, s, batches[0], stateFinalized)
	check(t, stop())
	b.earns(t, b.pool, owners[0], token) // the same payee, the same amount
	id, _ := b.frozenElsewhere(t, s)
	err := s.Resolve(t.Context(), id, b.drafter, Evidence{Paid: true, Signature: paid.Signature, Note: "it looks the same"})
	if errs.CodeOf(err) != errs.Invalid || !strings.Contains(err.Error(), "in the books already") {
		t.Errorf("another batch's payment was taken: %v", err)
	}
}
