package deposits_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/localchain"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
	"github.com/muster-gpu/muster/settlement/payouts"
	"github.com/muster-gpu/muster/settlement/reconcile"
	"github.com/muster-gpu/muster/settlement/signer"
)

const (
	dust       = 9_999
	refundTerm = 7
	patience   = 60 * time.Second
)

// refundBench is a deposit service whose refunds go out through a real signer, a sender with tokens, and a customer.
type refundBench struct {
	testing.TB
	*deposits.Service
	pool     *pgxpool.Pool
	book     *ledger.Ledger
	local    *localchain.Chain
	payouts  *payouts.Service
	sender   solana.PrivateKey
	customer ids.Org
	wallet   chain.Address // the customer's deposit wallet
	decider  ids.User
	approver ids.User
}

func newRefundBench(t *testing.T) *refundBench {
	t.Helper()
	b := &refundBench{TB: t, pool: testkit.DB(t), customer: ids.New[ids.Org](), decider: ids.New[ids.User](), approver: ids.New[ids.User]()}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	keys := b.startSigner(log)
	b.book = ledger.New(b.local.Currency())
	b.payouts = payouts.New(b.pool, b.book, b.local.Client(), keys, payouts.Options{
		DualAbove: dust - 1, Poll: 20 * time.Millisecond, Rebroadcast: 200 * time.Millisecond, Retry: 50 * time.Millisecond, Log: log,
	})
	var err error
	b.Service, err = deposits.New(b.pool, b.book, b.local.Client(), keys, deposits.Config{
		TokenProgram: chain.TokenProgram, Treasury: b.local.Treasury, Minimum: deposits.MinimumOf(b.book.Currency()), Interval: time.Hour,
		Refunds: b.payouts,
	}, log)
	b.check(err)
	b.exec(`INSERT INTO organisations (id, name) VALUES ($1, 'Customer')`, b.customer)
	b.exec(`INSERT INTO users (id, wallet_address) VALUES ($1, 'decider'), ($2, 'approver')`, b.decider, b.approver)
	b.exec(`INSERT INTO leadership (role, holder, term, expires_at) VALUES ('settlement', 'test', $1, 'infinity')`, refundTerm)
	address, err := b.Address(t.Context(), b.customer)
	b.check(err)
	b.wallet, err = chain.ParseAddress(address.Wallet)
	b.check(err)
	b.sender, err = solana.NewRandomPrivateKey()
	b.check(err)
	_, err = b.local.MintTo(t.Context(), b.sender.PublicKey(), token)
	b.check(err)
	return b
}

func (b *refundBench) startSigner(log *slog.Logger) *signer.Client {
	b.Helper()
	dir := b.TempDir()
	files := signer.Options{
		Socket: filepath.Join(dir, "s"), KeyFile: filepath.Join(dir, "key"), JournalDir: filepath.Join(dir, "journal"),
		PolicyFile: filepath.Join(dir, "policy"), Log: log,
	}
	treasury, err := signer.Init(files.KeyFile)
	b.check(err)
	b.local = localchaintest.New(b, treasury, capital)
	b.check(b.local.Policy().WriteFile(files.PolicyFile))
	ctx, cancel := context.WithCancel(b.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	files.Ready = func() { close(ready) }
	go func() { done <- signer.Serve(ctx, files) }()
	select {
	case <-ready:
	case err := <-done:
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cancel()
		<-done
	})
	keys := signer.NewClient(files.Socket)
	b.Cleanup(keys.Close)
	return keys
}

func (b *refundBench) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *refundBench) exec(sql string, args ...any) {
	b.Helper()
	_, err := b.pool.Exec(b.Context(), sql, args...)
	b.check(err)
}

// arrives sends dust from the sender to the customer, and returns it as it is in suspense.
func (b *refundBench) arrives() deposits.Deposit {
	b.Helper()
	_, err := b.local.Transfer(b.Context(), b.sender, b.wallet, dust)
	b.check(err)
	return b.newest()
}

func (b *refundBench) newest() deposits.Deposit {
	b.Helper()
	b.check(b.Poll(b.Context()))
	list, err := b.Suspense(b.Context(), ids.Deposit{}, 1)
	b.check(err)
	if len(list) != 1 {
		b.Fatal("nothing is in suspense")
	}
	return list[0]
}

func (b *refundBench) refund(id ids.Deposit) (deposits.Deposit, error) {
	return b.Decide(b.Context(), id, deposits.Decision{Outcome: deposits.OutcomeRefunded, Note: "Sent by mistake, says the sender.", By: b.decider})
}

func (b *refundBench) wantBalance(a ledger.Account, want money.Amount) {
	b.Helper()
	got, err := b.book.Balance(b.Context(), b.pool, a)
	b.check(err)
	if got != want {
		b.Errorf("%s has %d, want %d", a.Kind, got, want)
	}
}

// holds is what the sender has on the chain.
func (b *refundBench) holds() uint64 {
	b.Helper()
	account, err := chain.AssociatedTokenAccount(b.sender.PublicKey(), b.local.Mint, chain.TokenProgram)
	b.check(err)
	balance, err := b.local.Client().TokenBalance(b.Context(), account, 0)
	b.check(err)
	return balance.Amount
}

// payOut drafts what is to be paid, in the clock's name, has people approve it and waits until it is final.
func (b *refundBench) payOut(approvers ...ids.User) {
	b.Helper()
	batches, err := b.payouts.Draft(b.Context(), ids.User{})
	b.check(err)
	if len(batches) != 1 {
		b.Fatalf("%d batches were drafted", len(batches))
	}
	for _, by := range approvers {
		b.check(b.payouts.Approve(b.Context(), batches[0], by))
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- b.payouts.Run(ctx, refundTerm) }()
	testkit.Eventually(b, patience, func() (bool, string) {
		batch, err := b.payouts.Batch(b.Context(), batches[0])
		b.check(err)
		return batch.State == "finalized", "the batch is " + batch.State + ": " + batch.Attention
	})
	cancel()
	b.check(<-done)
}

func TestARefundGoesBackToItsSenderOnce(t *testing.T) {
	t.Parallel()
	b := newRefundBench(t)
	arrived := b.arrives()
	if arrived.Sender != b.sender.PublicKey().String() {
		t.Fatalf("the sender is %q", arrived.Sender)
	}
	for range 2 { // pressed twice
		decided, err := b.refund(arrived.ID)
		b.check(err)
		if decided.Outcome != deposits.OutcomeRefunded || decided.Refund == nil || decided.Refund.State != "requested" || decided.Refund.Wallet != arrived.Sender {
			t.Fatalf("decided: %+v, refund %+v", decided, decided.Refund)
		}
	}
	b.wantBalance(ledger.Platform(ledger.Suspense), 0)
	b.wantBalance(ledger.Of(ledger.PayoutInFlight, b.customer), dust)

	second := ids.New[ids.User]()
	b.exec(`INSERT INTO users (id, wallet_address) VALUES ($1, 'second approver')`, second)
	b.payOut(b.approver, second) // two, for it is above the limit
	if held := b.holds(); held != token {
		t.Errorf("the sender holds %d, want all of %d again", held, token)
	}
	paid := b.newest()
	if paid.Refund == nil || paid.Refund.State != "paid" || paid.Refund.Batch.IsZero() || paid.Refund.Attention != "" {
		t.Errorf("after it was paid: %+v", paid.Refund)
	}
	if batches, err := b.payouts.Draft(t.Context(), ids.User{}); err != nil || len(batches) != 0 {
		t.Errorf("drafted again: %v, %v", batches, err)
	}
	for _, outcome := range []string{deposits.OutcomeHeld, deposits.OutcomeCredited, deposits.OutcomeKept} {
		_, err := b.Decide(t.Context(), arrived.ID, deposits.Decision{Outcome: outcome, Note: "x", By: b.decider})
		if errs.CodeOf(err) != errs.Conflict {
			t.Errorf("%s after it was refunded: %v", outcome, err)
		}
	}
	b.wantBalance(ledger.Of(ledger.PayoutInFlight, b.customer), 0)
	b.check(b.book.Check(t.Context(), b.pool))
	b.wantClean()
	b.wantAudited(arrived.ID)
}

// wantClean expects that the ledger and the chain agree, transaction by transaction.
func (b *refundBench) wantClean() {
	b.Helper()
	service := reconcile.New(b.pool, b.book, b.local.Client(), reconcile.Config{
		Treasury: b.local.TreasuryTokenAccount, CatchUp: b.Poll, Interval: time.Hour,
	}, slog.New(slog.DiscardHandler))
	found, err := service.Reconcile(b.Context(), b.decider)
	b.check(err)
	if found.State != "clean" {
		b.Errorf("the reconciliation found %+v", found)
	}
}

// wantAudited expects one line about a refund: who decided, and why.
func (b *refundBench) wantAudited(id ids.Deposit) {
	b.Helper()
	lines, err := audit.List(b.Context(), b.pool, 0, 100)
	b.check(err)
	found := 0
	for _, line := range lines {
		if line.Action == "suspense.refunded" && line.Subject == id.String() && line.By == b.decider {
			found++
		}
	}
	if found != 1 {
		b.Errorf("the audit log has %d lines about the refund: %+v", found, lines)
	}
}

func TestARefundIsDecidedAnewUntilABatchHasIt(t *testing.T) {
	t.Parallel()
	b := newRefundBench(t)
	arrived := b.arrives()
	_, err := b.refund(arrived.ID)
	b.check(err)
	held, err := b.Decide(t.Context(), arrived.ID, deposits.Decision{Outcome: deposits.OutcomeHeld, Note: "The sender is being asked.", By: b.decider})
	b.check(err)
	if held.Outcome != deposits.OutcomeHeld || held.Refund != nil {
		t.Errorf("held: %+v", held)
	}
	b.wantBalance(ledger.Platform(ledger.Suspense), dust)
	b.wantBalance(ledger.Of(ledger.PayoutInFlight, b.customer), 0)
	_, err = b.refund(arrived.ID)
	b.check(err)
	batches, err := b.payouts.Draft(t.Context(), b.decider)
	b.check(err)
	if _, err := b.Decide(t.Context(), arrived.ID, deposits.Decision{Outcome: deposits.OutcomeKept, Note: "x", By: b.decider}); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("kept while a batch has it: %v", err)
	}
	b.check(b.payouts.Cancel(t.Context(), batches[0], b.decider, "not today"))
	_, err = b.Decide(t.Context(), arrived.ID, deposits.Decision{Outcome: deposits.OutcomeCredited, Note: "It is the customer's.", By: b.decider})
	b.check(err)
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, b.customer), dust)
	b.wantBalance(ledger.Platform(ledger.Suspense), 0)
	if batches, err := b.payouts.Draft(t.Context(), b.decider); err != nil || len(batches) != 0 {
		t.Errorf("drafted after it was credited: %v, %v", batches, err)
	}
	b.check(b.book.Check(t.Context(), b.pool))
}

func TestRefundsThatAreRefused(t *testing.T) {
	t.Parallel()
	b := newRefundBench(t)
	_, err := b.local.MintTo(t.Context(), b.wallet, dust)
	b.check(err)
	issued := b.newest()
	foreign, err := b.local.CreateToken(t.Context(), chain.TokenProgram, 6)
	b.check(err)
	_, err = b.local.MintOther(t.Context(), foreign, b.wallet, 7)
	b.check(err)
	other := b.newest()
	known := b.arrives()
	stranger := ids.New[ids.Org]()
	for name, c := range map[string]struct {
		deposit ids.Deposit
		org     ids.Org
		code    errs.Code
		says    string
	}{
		"the sender is not known":    {issued.ID, ids.Org{}, errs.Invalid, "who sent it is not known"},
		"another token":              {other.ID, ids.Org{}, errs.Invalid, "another token than"},
		"in another customer's name": {known.ID, stranger, errs.Invalid, "name no other"},
	} {
		_, err := b.Decide(t.Context(), c.deposit, deposits.Decision{Outcome: deposits.OutcomeRefunded, Org: c.org, Note: "x", By: b.decider})
		if errs.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.wantBalance(ledger.Platform(ledger.Suspense), 2*dust)
	b.wantBalance(ledger.Of(ledger.PayoutInFlight, b.customer), 0)
}

func TestWhatReachedTheTreasurysWalletIsRefundedInAName(t *testing.T) {
	t.Parallel()
	b := newRefundBench(t)
	arrived := b.arrives()
	b.exec(`UPDATE deposits SET org_id = NULL WHERE id = $1`, arrived.ID)
	for org, code := range map[ids.Org]errs.Code{{}: errs.Invalid, ids.New[ids.Org](): errs.NotFound} {
		_, err := b.Decide(t.Context(), arrived.ID, deposits.Decision{Outcome: deposits.OutcomeRefunded, Org: org, Note: "x", By: b.decider})
		if errs.CodeOf(err) != code {
			t.Errorf("in the name of %q: %v", fmt.Sprint(org), err)
		}
	}
	_, err := b.Decide(t.Context(), arrived.ID, deposits.Decision{Outcome: deposits.OutcomeRefunded, Org: b.customer, Note: "Known to us.", By: b.decider})
	b.check(err)
	b.wantBalance(ledger.Of(ledger.PayoutInFlight, b.customer), dust)
}
