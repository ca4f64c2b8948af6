package payouts

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// customer is an organisation with prepaid balance.
func (b *bench) customer(t *testing.T, amount money.Amount) owner {
	t.Helper()
	o := newOwner(t)
	exec(t, b.pool, `INSERT INTO organisations (id, name, payout_address) VALUES ($1, $2, $3)`, o.id, "customer "+o.id.String()[20:], o.address().String())
	b.post(t, b.pool, "deposited:"+o.id.String(), ledger.Leg{
		Debit: ledger.Platform(ledger.PlatformCapital), Credit: ledger.Of(ledger.CustomerAvailable, o.id), Amount: amount,
	})
	return o
}

func TestAWithdrawalGoesOutWithTheNextRun(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	c := b.customer(t, 5*token)
	id, err := s.Withdraw(t.Context(), c.id, b.drafter, 3*token, c.address().String())
	check(t, err)
	if left, flying := b.books(t, b.pool, ledger.CustomerAvailable, c.id), b.books(t, b.pool, ledger.PayoutInFlight, c.id); left != 2*token || flying != 3*token {
		t.Fatalf("%d available, %d in flight", left, flying)
	}
	batches := b.approved(t, s)
	run(t, s, term)
	batch := reach(t, s, batches[0], stateFinalized)
	if held := b.holds(t, c.address()); held != 3*token {
		t.Errorf("the customer holds %d", held)
	}
	w, err := s.Withdrawal(t.Context(), c.id, id)
	check(t, err)
	if w.State != withdrawalPaid || w.Batch != batch.ID || w.Signature != batch.Signature || w.EndedAt == nil || batch.Payouts[0].Purpose != PurposeWithdrawal {
		t.Errorf("withdrawal: %+v", w)
	}
	if flying := b.books(t, b.pool, ledger.PayoutInFlight, c.id); flying != 0 {
		t.Errorf("%d still in flight", flying)
	}
	check(t, b.ledger.Check(t.Context(), b.pool))
}

func TestWithdrawalsThatCannotBeAreRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	c, homeless := b.customer(t, 5*token), b.customer(t, 5*token)
	exec(t, b.pool, `UPDATE organisations SET payout_address = NULL WHERE id = $1`, homeless.id)
	for name, test := range map[string]struct {
		org     owner
		amount  money.Amount
		address string
		code    errs.Code
	}{
		"more than there is":  {c, 6 * token, c.address().String(), errs.InsufficientFunds},
		"too little":          {c, DefaultMinimum - 1, c.address().String(), errs.Invalid},
		"nothing":             {c, 0, c.address().String(), errs.Invalid},
		"to somebody else":    {c, token, newOwner(t).address().String(), errs.Invalid},
		"without an address":  {homeless, token, homeless.address().String(), errs.Conflict},
		"more than one batch": {c, 1 << 61, c.address().String(), errs.Invalid},
	} {
		if _, err := s.Withdraw(t.Context(), test.org.id, b.drafter, test.amount, test.address); errs.CodeOf(err) != test.code {
			t.Errorf("%s: %v, want %s", name, err, test.code)
		}
	}
	if left := b.books(t, b.pool, ledger.CustomerAvailable, c.id); left != 5*token {
		t.Errorf("%d is left after refusals", left)
	}
}

func TestAWithdrawalIsGivenUpWhileNoBatchHasIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	c := b.customer(t, 5*token)
	id, err := s.Withdraw(t.Context(), c.id, b.drafter, 3*token, c.address().String())
	check(t, err)
	if _, err := s.Withdraw(t.Context(), c.id, b.drafter, token, c.address().String()); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a second one at the same time: %v", err)
	}
	if err := s.CancelWithdrawal(t.Context(), ids.New[ids.Org](), id); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("another organisation gave it up: %v", err)
	}
	batches, err := s.Draft(t.Context(), b.drafter)
	check(t, err)
	if err := s.CancelWithdrawal(t.Context(), c.id, id); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("given up while in a batch: %v", err)
	}
	check(t, s.Cancel(t.Context(), batches[0], b.drafter, "not today"))
	w, err := s.Withdrawal(t.Context(), c.id, id)
	check(t, err)
	if w.State != withdrawalRequested || w.Attention == "" {
		t.Errorf("after its batch was cancelled: %+v", w)
	}
	check(t, s.CancelWithdrawal(t.Context(), c.id, id))
	if left, flying := b.books(t, b.pool, ledger.CustomerAvailable, c.id), b.books(t, b.pool, ledger.PayoutInFlight, c.id); left != 5*token || flying != 0 {
		t.Errorf("%d available, %d in flight", left, flying)
	}
	if err := s.CancelWithdrawal(t.Context(), c.id, id); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("given up twice: %v", err)
	}
	list, err := s.Withdrawals(t.Context(), c.id, Page[ids.Withdrawal]{})
	check(t, err)
	if len(list) != 1 || list[0].State != withdrawalCancelled {
		t.Errorf("withdrawals: %+v", list)
	}
}

func TestARefundGoesToWhereTheTokensCameFromAndOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	c, sender := b.customer(t, token), newOwner(t)
	b.post(t, b.pool, "suspended", ledger.Leg{
		Debit: ledger.Platform(ledger.PlatformCapital), Credit: ledger.Platform(ledger.Suspense), Amount: 2 * token,
	})
	request := Request{
		Org: c.id, Purpose: PurposeRefund, From: ledger.Platform(ledger.Suspense), Amount: 2 * token, Wallet: sender.address().String(),
		Reference: "deposit 1", By: b.drafter,
	}
	ask := func() error {
		return pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
			_, err := s.Request(t.Context(), tx, request)
			return err
		})
	}
	check(t, ask())
	if err := ask(); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("refunded twice: %v", err)
	}
	batches := b.approved(t, s)
	run(t, s, term)
	reach(t, s, batches[0], stateFinalized)
	if held := b.holds(t, sender.address()); held != 2*token {
		t.Errorf("the sender got %d", held)
	}
	if held := b.holds(t, c.address()); held != 0 {
		t.Errorf("the customer got %d", held)
	}
}

func TestAnOrganisationsEarningsWaitForItsWithdrawal(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	c := b.customer(t, 2*token)
	b.earns(t, b.pool, c, token)
	_, err := s.Withdraw(t.Context(), c.id, b.drafter, 2*token, c.address().String())
	check(t, err)
	next, err := s.Payable(t.Context())
	check(t, err)
	if next.Total != 2*token || len(next.Payees) != 1 || next.Payees[0].Purpose != PurposeWithdrawal ||
		len(next.LeftOut) != 1 || next.LeftOut[0].Purpose != PurposeEarnings || next.LeftOut[0].Reason == "" {
		t.Errorf("the next run: %+v", next)
	}
	run(t, s, term)
	for _, want := range []string{PurposeWithdrawal, PurposeEarnings} {
		batches := b.approved(t, s)
		batch := reach(t, s, batches[0], stateFinalized)
		if len(batch.Payouts) != 1 || batch.Payouts[0].Purpose != want {
			t.Fatalf("paid %+v, want %s", batch.Payouts, want)
		}
	}
	if held := b.holds(t, c.address()); held != 3*token {
		t.Errorf("the organisation holds %d", held)
	}
}

// refundTo asks for a refund out of suspense, as a decision does.
func (b *bench) refundTo(t *testing.T, s *Service, org, sender owner, amount money.Amount, reference string) ids.Withdrawal {
	t.Helper()
	b.post(t, b.pool, "suspended:"+reference, ledger.Leg{
		Debit: ledger.Platform(ledger.PlatformCapital), Credit: ledger.Platform(ledger.Suspense), Amount: amount,
	})
	var id ids.Withdrawal
	check(t, pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) (err error) {
		id, err = s.Request(t.Context(), tx, Request{
			Org: org.id, Purpose: PurposeRefund, From: ledger.Platform(ledger.Suspense), Amount: amount, Wallet: sender.address().String(),
			Reference: reference, By: b.approver,
		})
		return err
	}))
	return id
}

func TestRefundsThatCannotBePaidHoldNothingElseUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	c, stranger := b.customer(t, 2*token), newOwner(t)
	frozen, err := b.local.CreateTokenAccount(t.Context(), stranger.address())
	check(t, err)
	check(t, b.local.Freeze(t.Context(), frozen))
	first := b.refundTo(t, s, c, stranger, token, "first")
	second := b.refundTo(t, s, c, stranger, token, "second")
	withdrawn, err := s.Withdraw(t.Context(), c.id, b.drafter, 2*token, c.address().String())
	check(t, err)
	batches, err := s.Draft(t.Context(), b.drafter)
	check(t, err)
	if len(batches) != 1 {
		t.Fatalf("%d batches, want that of the withdrawal", len(batches))
	}
	for id, waits := range map[ids.Withdrawal]bool{first: true, second: true, withdrawn: false} {
		w, err := s.Withdrawal(t.Context(), c.id, id)
		check(t, err)
		if (w.State == withdrawalRequested) != waits || (w.Attention != "") != waits {
			t.Errorf("%s of %d is %s: %s", w.Purpose, w.Amount, w.State, w.Attention)
		}
	}
	giveUp := func() error {
		return pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error { return s.GiveUpRefund(t.Context(), tx, first) })
	}
	check(t, giveUp())
	if err := giveUp(); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("given up twice: %v", err)
	}
	if waits := b.books(t, b.pool, ledger.Suspense, ids.Org{}); waits != token {
		t.Errorf("%d is in suspense, want what was given up", waits)
	}
	check(t, b.ledger.Check(t.Context(), b.pool))
}

func TestWhoDecidedOnARefundDoesNotLetItOut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	b.refundTo(t, s, b.customer(t, token), newOwner(t), token, "first")
	run, err := s.StartRun(t.Context(), ids.User{}) // as the clock does: it has no drafter
	check(t, err)
	if _, _, err := s.ApproveRun(t.Context(), run, b.approver); errs.CodeOf(err) != errs.Forbidden {
		t.Errorf("its maker approved the run: %v", err)
	}
	drafts, err := s.PayoutRun(t.Context(), run)
	check(t, err)
	if err := s.Approve(t.Context(), drafts.Payees[0].Batch, b.approver); errs.CodeOf(err) != errs.Forbidden {
		t.Errorf("its maker approved the batch: %v", err)
	}
	if why, err := s.WhyNotApproveRun(t.Context(), run, b.approver); err != nil || !strings.Contains(why, "refund") {
		t.Errorf("its maker is told %q: %v", why, err)
	}
	check(t, s.Approve(t.Context(), drafts.Payees[0].Batch, b.drafter))
}
