package payouts

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/signer"
	"github.com/muster-gpu/muster/settlement/txn"
)

func TestPaysTwoOwnersOnceAndShowsIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	owners := append(b.owners(t, 1, true), b.owners(t, 1, false)...) // one has a token account, one gets it made
	payableBefore, err := s.Payable(t.Context())
	check(t, err)
	if payableBefore.Total != 2*token || len(payableBefore.Payees) != 2 || *payableBefore.Treasury != capital {
		t.Fatalf("payable: %+v", payableBefore)
	}
	batches := b.approved(t, s)
	if len(batches) != 1 {
		t.Fatalf("%d batches, want 1", len(batches))
	}
	run(t, s, term)
	batch := reach(t, s, batches[0], stateFinalized)
	b.wantPaidOnce(t, owners...)

	if batch.Total != 2*token || batch.DraftedBy != b.drafter || batch.ApprovedBy != b.approver || batch.FinalizedAt == nil ||
		batch.Slot == nil || *batch.FeeLamports <= 5_000 || *batch.ComputeUnits == 0 || len(batch.Payouts) != 2 {
		t.Errorf("batch: %+v", batch)
	}
	payer, err := s.FeePayer(t.Context())
	check(t, err)
	if payer.Fees != *batch.FeeLamports || payer.Rent != *batch.RentLamports || payer.Rent == 0 {
		t.Errorf("fee payer: %+v, batch: fee %d, rent %d", payer, *batch.FeeLamports, *batch.RentLamports)
	}
	landed, err := b.cluster.Transaction(t.Context(), mustSignature(t, batch.Signature))
	check(t, err)
	if landed.Memo != batches[0].String() || landed.Nonce.String() != batch.NonceValue {
		t.Errorf("on chain: memo %q, nonce %s", landed.Memo, landed.Nonce)
	}
	movements, err := b.cluster.Movements(t.Context(), b.local.TreasuryTokenAccount, chain.Cursor{})
	check(t, err)
	last := movements[len(movements)-1]
	if last.Signature.String() != batch.Signature || last.Sent() != 2*token || len(last.Counterparties) != 2 || last.Fee != uint64(*batch.FeeLamports) {
		t.Errorf("the treasury's last movement: %+v", last)
	}
	paid, err := s.OwnerPayouts(t.Context(), owners[0].id, Page[ids.Payout]{})
	check(t, err)
	if len(paid) != 1 || paid[0].Signature != batch.Signature || paid[0].State != stateFinalized || paid[0].Amount != token {
		t.Errorf("the owner's payouts: %+v", paid)
	}
	list, err := s.Batches(t.Context(), BatchFilter{}, Page[ids.Batch]{})
	check(t, err)
	if len(list) != 1 || list[0].ID != batches[0] {
		t.Errorf("batches: %+v", list)
	}
	again, err := s.Draft(t.Context(), b.drafter)
	if err != nil || len(again) != 0 {
		t.Errorf("a second draft made %v, %v", again, err)
	}
}

func TestPays56OwnersInOneTransaction(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	owners := b.owners(t, MaxPayees, true)
	batches := b.approved(t, s)
	run(t, s, term)
	batch := reach(t, s, batches[0], stateFinalized)
	if len(batches) != 1 || batch.PayeeCount != MaxPayees {
		t.Fatalf("%d batches, the first of %d payees", len(batches), batch.PayeeCount)
	}
	b.wantPaidOnce(t, owners...)
	t.Logf("%d payees: %d CU, %d lamports, %d a payee", MaxPayees, *batch.ComputeUnits, *batch.FeeLamports, *batch.FeeLamports/MaxPayees)
	if *batch.FeeLamports/MaxPayees > 104 {
		t.Errorf("%d lamports a payee, more than 104", *batch.FeeLamports/MaxPayees)
	}
}

func TestOneTransactionCreatesAsManyAccountsAsThePlanSays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	existing := 0
	for room := roomIn(t, txn.V1); room.fits(MaxNewAccounts+existing+1, MaxNewAccounts, 0); {
		existing++
	}
	owners := append(b.owners(t, existing, true), b.owners(t, MaxNewAccounts, false)...)
	batches := b.approved(t, s)
	run(t, s, term)
	for _, id := range batches {
		reach(t, s, id, stateFinalized)
	}
	if len(batches) != 1 {
		t.Errorf("%d batches, want 1", len(batches))
	}
	b.wantPaidOnce(t, owners...)
}

func TestBytesAreStoredBeforeTheFirstSend(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 2, true)
	sends := atomic.Int32{}
	cluster := &faulty{Chain: b.cluster}
	s := b.service(b.pool, cluster)
	cluster.send = func(ctx context.Context, wire []byte) (chain.Signature, error) {
		sends.Add(1)
		var stored []byte
		var signature, state string
		err := b.pool.QueryRow(ctx, `
			SELECT t.wire, t.signature, b.state FROM payout_transactions t JOIN payout_batches b ON b.id = t.batch_id`).
			Scan(&stored, &signature, &state)
		if err != nil || !bytes.Equal(stored, wire) || (state != stateSigned && state != stateSent) {
			t.Errorf("sending what is not stored: %v, state %s", err, state)
		}
		sent, err := b.cluster.Send(ctx, wire)
		if err == nil && sent.String() != signature {
			t.Errorf("sent %s, stored %s", sent, signature)
		}
		return sent, err
	}
	batches := b.approved(t, s)
	run(t, s, term)
	reach(t, s, batches[0], stateFinalized)
	if sends.Load() == 0 {
		t.Fatal("nothing was sent through the double")
	}
	b.wantPaidOnce(t, owners...)
}

func TestPaysOnceWhereverAWorkerDies(t *testing.T) {
	t.Parallel()
	for _, step := range []string{
		stepClaimed, stepMessageStored, stepSignatureHad, stepBytesStored, stepSent, stepMarkedSent, stepResolved,
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			owners := b.owners(t, 2, true)
			first := b.service(b.pool, b.cluster)
			first.failpoint = func(at string) error {
				if at == step {
					return errors.New("killed")
				}
				return nil
			}
			batches := b.approved(t, first)
			err := first.Run(t.Context(), term)
			var killed *killedError
			if !errors.As(err, &killed) || killed.step != step {
				t.Fatalf("the first worker ended with %v", err)
			}
			lead(t, b.pool, term+1)
			second := b.service(b.pool, b.cluster)
			run(t, second, term+1)
			reach(t, second, batches[0], stateFinalized)
			b.wantPaidOnce(t, owners...)
		})
	}
}

func TestPaysOnceWhenTheAnswerToSendIsLost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 2, true)
	cluster := &faulty{Chain: b.cluster, send: func(ctx context.Context, wire []byte) (chain.Signature, error) {
		_, _ = b.cluster.Send(ctx, wire) // accepted or not, the answer is lost
		return chain.Signature{}, chain.ErrUnavailable
	}}
	s := b.service(b.pool, cluster)
	batches := b.approved(t, s)
	run(t, s, term)
	reach(t, s, batches[0], stateFinalized)
	b.wantPaidOnce(t, owners...)
}

func TestKeepsSendingTheSameBytesWhileNothingLands(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 2, true)
	sends := atomic.Int32{}
	cluster := &faulty{Chain: b.cluster}
	cluster.send = func(ctx context.Context, wire []byte) (chain.Signature, error) {
		if sends.Add(1) < 4 {
			return chain.Signature{}, chain.ErrUnavailable // dropped on the way
		}
		return b.cluster.Send(ctx, wire)
	}
	s := b.service(b.pool, cluster)
	batches := b.approved(t, s)
	run(t, s, term)
	batch := reach(t, s, batches[0], stateFinalized)
	if batch.SendCount < 4 {
		t.Errorf("%d sendings are counted, want at least 4", batch.SendCount)
	}
	b.wantPaidOnce(t, owners...)
}

func TestATransactionThatFailsOnChainPaysNobodyAndIsRequeued(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 2, true)
	cluster := &faulty{Chain: b.cluster}
	s := b.service(b.pool, cluster)
	frozen := atomic.Bool{}
	cluster.send = func(ctx context.Context, wire []byte) (chain.Signature, error) {
		if frozen.CompareAndSwap(false, true) { // after signing, the token's issuer freezes one payee's account
			account, err := chain.AssociatedTokenAccount(owners[1].address(), b.local.Mint, chain.TokenProgram)
			if err := errors.Join(err, b.local.Freeze(ctx, account)); err != nil {
				return chain.Signature{}, err
			}
		}
		return b.cluster.Send(ctx, wire)
	}
	batches := b.approved(t, s)
	run(t, s, term)
	failed := reach(t, s, batches[0], stateFailed)
	if failed.StateReason == "" || failed.FeeLamports == nil {
		t.Errorf("the failed batch does not say what happened: %+v", failed)
	}
	for _, o := range owners {
		if due := b.books(t, b.pool, ledger.OwnerPayable, o.id); due != token {
			t.Errorf("the owner is owed %d, want %d", due, token)
		}
	}
	batches = b.approved(t, s) // the frozen payee is left out, the other is paid on its next number
	batch := reach(t, s, batches[0], stateFinalized)
	if len(batch.Payouts) != 1 || batch.Payouts[0].Sequence != 2 {
		t.Errorf("the second batch: %+v", batch.Payouts)
	}
	b.wantPaidOnce(t, owners[0])
	left, err := s.Payable(t.Context())
	check(t, err)
	if len(left.LeftOut) != 1 || !strings.Contains(left.LeftOut[0].Reason, "frozen") {
		t.Errorf("left out: %+v", left.LeftOut)
	}
}

func TestATreasuryThatIsShortHoldsTheBatchUpUntilItIsFilled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	rich := newOwner(t)
	_, err := b.local.CreateTokenAccount(t.Context(), rich.address())
	check(t, err)
	b.earns(t, b.pool, rich, capital+token)
	s := b.service(b.pool, b.cluster)
	batches := b.approved(t, s)
	run(t, s, term)
	eventually(t, func() bool {
		batch, err := s.Batch(t.Context(), batches[0])
		check(t, err)
		return strings.Contains(batch.Attention, "short of tokens")
	}, func() string { return "the batch does not say that the treasury is short" })
	_, err = b.local.MintTo(t.Context(), b.local.Treasury, token)
	check(t, err)
	reach(t, s, batches[0], stateFinalized)
	if held := b.holds(t, rich.address()); held != capital+token {
		t.Errorf("paid %d", held)
	}
}

func TestATreasuryThatRanOutSinceTheLastTrialHoldsTheBatchUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 2, true)
	s := b.service(b.pool, b.cluster)
	run(t, s, term)
	reach(t, s, b.approved(t, s)[0], stateFinalized)
	b.wantPaidOnce(t, owners...)
	s.budgets.age(triedFor)
	for _, o := range owners { // a batch of the same shape, for more than is left
		b.earns(t, b.pool, o, capital)
	}
	batches := b.approved(t, s)
	eventually(t, func() bool {
		batch, err := s.Batch(t.Context(), batches[0])
		check(t, err)
		if batch.SendCount > 0 {
			t.Fatalf("a batch that the treasury cannot pay was sent, and is %s", batch.State)
		}
		return strings.Contains(batch.Attention, "short of tokens")
	}, func() string { return "the batch does not say that the treasury is short" })
	_, err := b.local.MintTo(t.Context(), b.local.Treasury, 2*capital)
	check(t, err)
	reach(t, s, batches[0], stateFinalized)
}

func TestANonceConsumedBySomebodyElseFreezesTheBatch(t *testing.T) {
	t.Parallel()
	for name, afterSigning := range map[string]bool{"before signing": false, "after signing": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			owners := b.owners(t, 1, true)
			advanced := atomic.Bool{}
			cluster := &faulty{Chain: b.cluster}
			s := b.service(b.pool, cluster)
			batches := b.approved(t, s)
			account := func() chain.Address {
				batch, err := s.Batch(t.Context(), batches[0])
				check(t, err)
				address, err := chain.ParseAddress(batch.NonceAccount)
				check(t, err)
				return address
			}
			cluster.send = func(ctx context.Context, wire []byte) (chain.Signature, error) {
				if advanced.CompareAndSwap(false, true) {
					b.advanceNonce(t, account())
				}
				return b.cluster.Send(ctx, wire)
			}
			if !afterSigning {
				advanced.Store(true)
				b.advanceNonce(t, account())
			}
			run(t, s, term)
			batch := reach(t, s, batches[0], stateFrozen)
			if !strings.Contains(batch.StateReason, "nonce") {
				t.Errorf("frozen because of %q", batch.StateReason)
			}
			if held := b.holds(t, owners[0].address()); held != 0 {
				t.Errorf("the owner was paid %d", held)
			}
			if flying := b.books(t, b.pool, ledger.PayoutInFlight, owners[0].id); flying != token {
				t.Errorf("%d is in flight, want it to stay", flying)
			}
			if again, err := s.Draft(t.Context(), b.drafter); err != nil || len(again) != 0 {
				t.Errorf("a frozen payee was drafted again: %v, %v", again, err)
			}
		})
	}
}

func TestTwoWorkersAtOncePayOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 2*MaxNewAccounts+2, false) // three batches
	s := b.service(b.pool, b.cluster)
	batches := b.approved(t, s)
	if len(batches) != 3 {
		t.Fatalf("%d batches, want 3", len(batches))
	}
	run(t, s, term)
	run(t, b.service(b.pool, b.cluster), term)
	for _, id := range batches {
		reach(t, s, id, stateFinalized)
	}
	b.wantPaidOnce(t, owners...)
}

func TestAPassedTermWritesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.owners(t, 1, true)
	s := b.service(b.pool, b.cluster)
	batches := b.approved(t, s)
	lead(t, b.pool, term+1)
	if err := s.Run(t.Context(), term); !errors.Is(err, ErrDeposed) {
		t.Fatalf("a deposed worker ended with %v", err)
	}
	reach(t, s, batches[0], stateApproved)
}

func TestASignerThatRefusesHoldsTheBatchUpAndItCanBeCancelled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 2, true)
	s := b.service(b.pool, b.cluster)
	batches := b.approved(t, s)
	b.stopSigner()
	policy := b.local.Policy()
	policy.MaxBaseUnitsPerBatch, policy.MaxBaseUnitsPerDay = token, token // since the draft, the cap was lowered
	check(t, policy.WriteFile(b.files.PolicyFile))
	b.startSigner(t)
	stop := run(t, s, term)
	eventually(t, func() bool {
		batch, err := s.Batch(t.Context(), batches[0])
		check(t, err)
		return strings.Contains(batch.Attention, string(signer.RuleBatchCap))
	}, func() string { return "the batch does not say what the signer refused" })
	check(t, stop())
	check(t, s.Cancel(t.Context(), batches[0], b.drafter, "the cap was lowered"))
	for _, o := range owners {
		if due := b.books(t, b.pool, ledger.OwnerPayable, o.id); due != token {
			t.Errorf("the owner is owed %d, want %d", due, token)
		}
	}
	if err := s.Approve(t.Context(), batches[0], b.approver); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a cancelled batch was approved: %v", err)
	}
}

func TestASignerThatWasRestartedGivesTheSameSignature(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 2, true)
	first := b.service(b.pool, b.cluster)
	first.failpoint = func(at string) error {
		if at == stepSignatureHad {
			return errors.New("killed")
		}
		return nil
	}
	batches := b.approved(t, first)
	if err := first.Run(t.Context(), term); err == nil {
		t.Fatal("the first worker was not killed")
	}
	b.stopSigner()
	lead(t, b.pool, term+1)
	second := b.service(b.pool, b.cluster)
	run(t, second, term+1)
	eventually(t, func() bool {
		batch, err := second.Batch(t.Context(), batches[0])
		check(t, err)
		return strings.Contains(batch.Attention, signer.ErrUnavailable.Error())
	}, func() string { return "the batch does not say that the signer is down" })
	if err := second.Cancel(t.Context(), batches[0], b.drafter, "tired of waiting"); errs.CodeOf(err) != errs.Conflict {
		t.Fatalf("a batch that may be signed was cancelled: %v", err)
	}
	b.startSigner(t)
	reach(t, second, batches[0], stateFinalized)
	b.wantPaidOnce(t, owners...)
}

func TestSignerAfterDbRollback(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 2, true)
	restored := b.database(t) // what a backup from before the payout holds
	for _, o := range owners {
		b.earns(t, restored, o, token)
	}
	s := b.service(b.pool, b.cluster)
	paid := b.approved(t, s)
	stop := run(t, s, term)
	reach(t, s, paid[0], stateFinalized)
	check(t, stop())

	later := b.service(restored, b.cluster)
	repeated := b.approved(t, later)
	before, err := s.Batch(t.Context(), paid[0])
	check(t, err)
	after, err := later.Batch(t.Context(), repeated[0])
	check(t, err)
	if before.NonceValue == after.NonceValue {
		t.Fatal("the restored database did not pin another nonce value")
	}
	run(t, later, term)
	frozen := reach(t, later, repeated[0], stateFrozen)
	if !strings.Contains(frozen.StateReason, string(signer.RuleSequence)) {
		t.Errorf("frozen because of %q", frozen.StateReason)
	}
	// New earnings do not get past it either: the payee is held until a person has decided.
	b.earns(t, restored, owners[0], token)
	if again, err := later.Draft(t.Context(), b.drafter); err != nil || len(again) != 0 {
		t.Errorf("the restored database drafted %v, %v", again, err)
	}
	b.wantPaidOnce(t, owners...)
}

func TestABadPayeeIsLeftOutAndTheOthersArePaid(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 5, true)
	good, handedOver, frozen, tokenAccount, nonsense := owners[0], owners[1], owners[2], owners[3], owners[4]
	check(t, b.local.HandOver(t.Context(), handedOver.wallet, good.address()))
	account := func(o owner) chain.Address {
		address, err := chain.AssociatedTokenAccount(o.address(), b.local.Mint, chain.TokenProgram)
		check(t, err)
		return address
	}
	check(t, b.local.Freeze(t.Context(), account(frozen)))
	exec(t, b.pool, `UPDATE organisations SET payout_address = $2 WHERE id = $1`, tokenAccount.id, account(tokenAccount).String())
	exec(t, b.pool, `UPDATE organisations SET payout_address = 'nonsense' WHERE id = $1`, nonsense.id)
	poor, homeless := newOwner(t), newOwner(t)
	b.earns(t, b.pool, poor, DefaultMinimum-1)
	b.earns(t, b.pool, homeless, token)
	exec(t, b.pool, `UPDATE organisations SET payout_address = NULL WHERE id = $1`, homeless.id)

	s := b.service(b.pool, b.cluster)
	batches := b.approved(t, s)
	run(t, s, term)
	if batch := reach(t, s, batches[0], stateFinalized); len(batch.Payouts) != 1 || batch.Payouts[0].Org != good.id {
		t.Fatalf("paid: %+v", batch.Payouts)
	}
	b.wantPaidOnce(t, good)
	left, err := s.Payable(t.Context())
	check(t, err)
	for id, want := range map[ids.Org]string{
		handedOver.id: "another owner", frozen.id: "frozen", tokenAccount.id: "must be the wallet", nonsense.id: "not a Solana address",
		poor.id: "below the minimum", homeless.id: "no payout address",
	} {
		at := slices.IndexFunc(left.LeftOut, func(p Payee) bool { return p.Org == id })
		if at < 0 || !strings.Contains(left.LeftOut[at].Reason, want) {
			t.Errorf("no word of %q among %+v", want, left.LeftOut)
		}
	}
	if left.Total != 0 || len(left.Payees) != 0 {
		t.Errorf("payable: %+v", left.Payees)
	}
}

func TestApprovalIsByAnotherPerson(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.owners(t, 1, false)
	s := b.service(b.pool, b.cluster)
	batches, err := s.Draft(t.Context(), b.drafter)
	check(t, err)
	for name, test := range map[string]struct {
		id   ids.Batch
		by   ids.User
		code errs.Code
	}{
		"the drafter": {batches[0], b.drafter, errs.Forbidden},
		"nobody":      {batches[0], ids.User{}, errs.Forbidden},
		"no batch":    {ids.New[ids.Batch](), b.approver, errs.NotFound},
	} {
		if err := s.Approve(t.Context(), test.id, test.by); errs.CodeOf(err) != test.code {
			t.Errorf("%s: %v, want %s", name, err, test.code)
		}
	}
	check(t, s.Approve(t.Context(), batches[0], b.approver))
	if err := s.Approve(t.Context(), batches[0], b.approver); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("approved twice: %v", err)
	}
}

func TestTheSchemaRefusesShortcuts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.owners(t, 1, true)
	s := b.service(b.pool, b.cluster)
	batches := b.approved(t, s)
	stop := run(t, s, term)
	reach(t, s, batches[0], stateFinalized)
	check(t, stop())
	for name, sql := range map[string]string{
		"a finalized batch goes back": `UPDATE payout_batches SET state = 'approved', finalized_at = NULL`,
		"the nonce is pinned anew":    `UPDATE payout_batches SET nonce_value = nonce_account`,
		"the bytes change":            `UPDATE payout_transactions SET wire = '\x00'`,
		"the amount changes":          `UPDATE payouts SET amount = amount + 1`,
		"a live payee is paid twice":  `INSERT INTO payouts SELECT gen_random_uuid(), batch_id, payee_org_id, wallet, token_account, false, 1, 2 FROM payouts`,
		"a nonce value is pinned again": `INSERT INTO payout_batches (id, mint, total, payee_count, nonce_account, nonce_value)
			SELECT gen_random_uuid(), mint, total, payee_count, nonce_account, nonce_value FROM payout_batches`,
	} {
		if _, err := b.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s: the schema allowed it", name)
		}
	}
}

func mustSignature(t *testing.T, text string) chain.Signature {
	t.Helper()
	signature, err := chain.ParseSignature(text)
	check(t, err)
	return signature
}
