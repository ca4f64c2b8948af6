package deposits_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// inSuspense sends dust to a fresh customer and returns its deposit.
func (b *bench) inSuspense(name string) (ids.Org, deposits.Deposit) {
	b.Helper()
	org, wallet := b.customer(name)
	signature := b.send(wallet, 9_999)
	b.poll()
	list, err := b.Suspense(b.Context(), ids.Deposit{}, 0)
	if err != nil {
		b.Fatal(err)
	}
	for _, d := range list {
		if d.Signature == signature {
			return org, d
		}
	}
	b.Fatal("the dust is not in suspense")
	return org, deposits.Deposit{}
}

func (b *bench) person() ids.User {
	b.Helper()
	user := ids.New[ids.User]()
	b.exec(`INSERT INTO users (id, wallet_address) VALUES ($1, $2)`, user, user.String())
	return user
}

func TestAPersonDecidesAboutTokensInSuspense(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	by := b.person()
	first, credited := b.inSuspense("First")
	_, kept := b.inSuspense("Second")
	third, _ := b.customer("Third")
	_, given := b.inSuspense("Fourth")

	for _, c := range []struct {
		deposit  deposits.Deposit
		decision deposits.Decision
	}{
		{credited, deposits.Decision{Outcome: deposits.OutcomeHeld, Note: "Asked the customer.", By: by}},
		{credited, deposits.Decision{Outcome: deposits.OutcomeCredited, Note: "The customer asked for it.", By: by}},
		{credited, deposits.Decision{Outcome: deposits.OutcomeCredited, Note: "Pressed twice.", By: by}},
		{kept, deposits.Decision{Outcome: deposits.OutcomeKept, Note: "Nobody claims it.", By: by}},
		{given, deposits.Decision{Outcome: deposits.OutcomeCredited, Org: third, Note: "Sent to the wrong address, as both confirm.", By: by}},
	} {
		got, err := b.Decide(t.Context(), c.deposit.ID, c.decision)
		if err != nil || got.Outcome != c.decision.Outcome || got.ID != c.deposit.ID || got.State != "suspense" {
			t.Fatalf("decided %+v: %+v, %v", c.decision, got, err)
		}
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, first), 9_999)
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, third), 9_999)
	b.wantBalance(ledger.Platform(ledger.PlatformCapital), capital+9_999)
	b.wantBalance(ledger.Platform(ledger.Suspense), 0)
	b.wantSound()
}

func TestDecisionsThatAreRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	by := b.person()
	org, wallet := b.customer("Customer")
	b.send(wallet, token)
	foreign, err := b.chain.CreateToken(t.Context(), chain.TokenProgram, 6)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.chain.MintOther(t.Context(), foreign, wallet, 7); err != nil {
		t.Fatal(err)
	}
	_, dust := b.inSuspense("Other")
	credited, err := b.Deposits(t.Context(), org, ids.Deposit{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]ids.Deposit{"dust": dust.ID, "none": ids.New[ids.Deposit]()}
	for _, d := range credited {
		of[d.State] = d.ID // credited, and the foreign token in suspense
	}
	if _, err := b.Decide(t.Context(), dust.ID, deposits.Decision{Outcome: deposits.OutcomeKept, Note: "Dust.", By: by}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		deposit  string
		decision deposits.Decision
		code     errs.Code
	}{
		"without a note":      {"suspense", deposits.Decision{Outcome: deposits.OutcomeHeld, By: by}, errs.Invalid},
		"unknown outcome":     {"suspense", deposits.Decision{Outcome: "burnt", Note: "x", By: by}, errs.Invalid},
		"a foreign token":     {"suspense", deposits.Decision{Outcome: deposits.OutcomeCredited, Note: "x", By: by}, errs.Invalid},
		"what was credited":   {"credited", deposits.Decision{Outcome: deposits.OutcomeKept, Note: "x", By: by}, errs.Conflict},
		"decided differently": {"dust", deposits.Decision{Outcome: deposits.OutcomeCredited, Note: "x", By: by}, errs.Conflict},
		"no such deposit":     {"none", deposits.Decision{Outcome: deposits.OutcomeHeld, Note: "x", By: by}, errs.NotFound},
	} {
		if _, err := b.Decide(t.Context(), of[c.deposit], c.decision); errs.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	_, waits := b.inSuspense("Third")
	if _, err := b.Decide(t.Context(), waits.ID, deposits.Decision{
		Outcome: deposits.OutcomeCredited, Org: ids.New[ids.Org](), Note: "x", By: by,
	}); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("credited nobody: %v", err)
	}
	b.wantBalance(ledger.Platform(ledger.Suspense), 9_999)
	b.wantSound()
}

// feeChain is the real chain with a mint that charges fees.
type feeChain struct{ *chain.Client }

func (c feeChain) Mint(ctx context.Context, mint chain.Address) (chain.Mint, error) {
	found, err := c.Client.Mint(ctx, mint)
	const transferFee = 1
	found.Extensions = append(found.Extensions, chain.ExtensionTokenMetadata, transferFee)
	return found, err
}

func TestAMintThatMayKeepAPartIsNotCredited(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var err error
	b.Service, err = deposits.New(b.pool, b.book, feeChain{b.chain.Client()}, b.chain.Wallets, deposits.Config{
		TokenProgram: chain.TokenProgram, Treasury: b.chain.Treasury, Minimum: 1, Interval: time.Hour,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	org, wallet := b.customer("Customer")
	b.send(wallet, token)
	b.poll()
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 0)
	b.wantBalance(ledger.Of(ledger.ChainDeposits, org), token)
	list, err := b.Suspense(t.Context(), ids.Deposit{}, 0)
	if err != nil || len(list) == 0 || !strings.Contains(list[0].Reason, "the extension 1 of Token-2022") {
		t.Errorf("in suspense is %+v, %v", list, err)
	}
	b.wantSound()
}
