package reconcile_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/programs/system"
	tokenprogram "github.com/gagliardetto/solana-go/programs/token"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
	"github.com/muster-gpu/muster/settlement/reconcile"
)

// furtherAccount makes another token account of the treasury's wallet, of the settlement token.
func (b *bench) furtherAccount(seed string) chain.Address {
	b.Helper()
	return b.openAccount(seed, b.chain.Mint, b.chain.Treasury)
}

// openAccount makes a token account whose address depends on the seed alone, so that a closed one can be opened again for another mint.
func (b *bench) openAccount(seed string, mint, wallet chain.Address) chain.Address {
	b.Helper()
	const size = 165
	rent, err := b.chain.Client().RentExempt(b.Context(), size)
	if err != nil {
		b.Fatal(err)
	}
	payer := b.chain.Engineer.Address
	account, err := solana.CreateWithSeed(payer, seed, chain.TokenProgram)
	if err != nil {
		b.Fatal(err)
	}
	b.execute(nil,
		system.NewCreateAccountWithSeedInstruction(payer, seed, rent, size, chain.TokenProgram, payer, account, payer).Build(),
		tokenprogram.NewInitializeAccountInstruction(account, mint, wallet, solana.SysVarRentPubkey).Build())
	return account
}

// closeAccount moves what an account of our token holds into the mirrored one of its wallet, and closes it.
func (b *bench) closeAccount(account, mirrored chain.Address, key solana.PrivateKey, amount uint64) {
	b.Helper()
	owner := key.PublicKey()
	b.execute(key, tokenprogram.NewTransferInstruction(amount, account, mirrored, owner, nil).Build(),
		tokenprogram.NewCloseAccountInstruction(account, owner, owner, nil).Build())
}

// send has a stranger send tokens of ours to an account.
func (b *bench) send(account chain.Address, amount uint64) {
	b.Helper()
	if _, err := b.chain.MintTo(b.Context(), b.chain.Engineer.Address, amount); err != nil {
		b.Fatal(err)
	}
	b.chain.TransferToAccount(b, account, amount)
}

// execute runs instructions that a stranger pays for and a key of ours, which may be nil, signs.
func (b *bench) execute(key solana.PrivateKey, instructions ...solana.Instruction) {
	b.Helper()
	payer, err := b.chain.Engineer.Key()
	if err != nil {
		b.Fatal(err)
	}
	keys := []solana.PrivateKey{payer}
	if key != nil {
		keys = append(keys, key)
	}
	if _, failure := b.chain.Execute(b, keys, instructions...); failure != "" {
		b.Fatal(failure)
	}
}

// tokens is the chain with what a test adds to it.
func (b *bench) tokens() reconcile.Tokens {
	if b.spam != nil {
		return *b.spam
	}
	return b.chain.Client()
}

func (b *bench) newKey() solana.PrivateKey {
	b.Helper()
	key, err := solana.NewRandomPrivateKey()
	if err != nil {
		b.Fatal(err)
	}
	return key
}

// mintTo makes units of another token of the classic program in an account that is there.
func (b *bench) mintTo(mint, account chain.Address, units uint64) {
	b.Helper()
	if _, err := b.chain.MintOther(b.Context(), mint, b.chain.Engineer.Address, units); err != nil {
		b.Fatal(err)
	}
	from, err := chain.AssociatedTokenAccount(b.chain.Engineer.Address, mint, chain.TokenProgram)
	if err != nil {
		b.Fatal(err)
	}
	b.execute(nil, tokenprogram.NewTransferInstruction(units, from, account, b.chain.Engineer.Address, nil).Build())
}

// crowd adds deposit wallets of so many other customers.
func (b *bench) crowd(count int) {
	b.Helper()
	for i := range count {
		org := ids.New[ids.Org]()
		b.exec(`INSERT INTO organisations (id, name) VALUES ($1, $2)`, org, fmt.Sprint("other ", i))
		b.exec(`INSERT INTO deposit_addresses (org_id, wallet, token_account) VALUES ($1, $2, $3)`, org, b.newKey().PublicKey().String(), b.newKey().PublicKey().String())
	}
}

// holdingAsked is when the customer's wallet was asked last.
func (b *bench) holdingAsked() (at time.Time) {
	b.Helper()
	if err := b.pool.QueryRow(b.Context(), `SELECT asked_at FROM holding_wallets WHERE wallet = $1`, b.wallet.String()).Scan(&at); err != nil {
		b.Fatal(err)
	}
	return at
}

// correct takes an arrival out of suspense, as who has found where its tokens went.
func (b *bench) correct(deposit ids.Deposit, moved money.Amount) {
	b.Helper()
	b.post(ledger.Entry{Key: "correction", Kind: ledger.KindSuspense, Refs: ledger.Refs{Deposit: deposit}, Legs: []ledger.Leg{
		{Debit: ledger.Platform(ledger.Suspense), Credit: ledger.Platform(ledger.ChainSuspense), Amount: moved},
	}})
}

// holdings are all that are known.
func (b *bench) holdings(kind string) []reconcile.Holding {
	b.Helper()
	list, err := b.Holdings(b.Context(), reconcile.HoldingFilter{Kind: kind})
	if err != nil {
		b.Fatal(err)
	}
	return list
}

func (b *bench) openItems() []reconcile.Item {
	b.Helper()
	items, err := b.Items(b.Context(), reconcile.Filter{State: reconcile.ItemOpen})
	if err != nil {
		b.Fatal(err)
	}
	return items
}

// TestFurtherAccountOfTheSettlementTokenIsToBeExplained: its balance is a work item, whether it is in suspense or not, until the account
// is empty. What the ledger has in suspense for it is then the difference, until a correction says where it went.
func TestFurtherAccountOfTheSettlementTokenIsToBeExplained(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	account := b.furtherAccount("further")
	b.wantDifferences() // it has nothing to explain
	b.send(account, 3*token)
	found := b.wantDifferences(reconcile.ChainOnly)[reconcile.ChainOnly]
	wantAmounts(t, found, nil, amount(3*token))
	if found.TokenAccount != account.String() || !strings.Contains(found.Text, "3.00 "+b.chain.Currency().Symbol+" of it is in suspense") {
		t.Errorf("the difference is %+v", found)
	}
	items := b.openItems()
	list := b.holdings(reconcile.KindSettlement)
	if len(items) != 1 || len(list) != 1 || list[0].Difference != items[0].ID || list[0].Amount != "3.000000" || list[0].InSuspense != "3.000000" ||
		len(list[0].Deposits) != 1 || !list[0].Org.IsZero() || !list[0].Present {
		t.Fatalf("the items are %+v, the holdings %+v", items, list)
	}

	b.execute(b.chain.TreasuryKey, tokenprogram.NewTransferInstruction(3*token, account, b.chain.TreasuryTokenAccount, b.chain.Treasury, nil).Build())
	left := b.wantDifferences(reconcile.LedgerOnly)[reconcile.LedgerOnly]
	wantAmounts(t, left, amount(3*token), amount(0))
	if item, err := b.Item(t.Context(), items[0].ID); err != nil || item.State != reconcile.ItemGone {
		t.Errorf("the item of an empty account is %+v, %v", item, err)
	}
	list = b.holdings(reconcile.KindSettlement)
	if len(list) != 1 || list[0].Amount != "0.000000" || list[0].ChangedAt == nil || !list[0].Difference.IsZero() {
		t.Errorf("the holdings are %+v", list)
	}

	b.correct(list[0].Deposits[0], 3*token)
	b.wantDifferences()
}

// TestAccountThatWasOpenedAgainForAnotherMint is of that mint then, with its decimals, and what it held of ours before
// stays a difference.
func TestAccountThatWasOpenedAgainForAnotherMint(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	account := b.furtherAccount("twice")
	b.send(account, 3*token)
	b.wantDifferences(reconcile.ChainOnly)
	before := b.holdings("")[0]
	b.closeAccount(account, b.chain.TreasuryTokenAccount, b.chain.TreasuryKey, 3*token)
	other, err := b.chain.CreateToken(t.Context(), chain.TokenProgram, 2)
	if err != nil {
		t.Fatal(err)
	}
	if again := b.openAccount("twice", other, b.chain.Treasury); again != account {
		t.Fatalf("it is %s now and was %s", again, account)
	}
	b.mintTo(other, account, 3*token) // as many base units as before

	left := b.wantDifferences(reconcile.LedgerOnly)[reconcile.LedgerOnly]
	wantAmounts(t, left, amount(3*token), amount(0))
	list := b.holdings("")
	if len(list) != 1 {
		t.Fatalf("the holdings are %+v", list)
	}
	h := list[0]
	if h.ID != before.ID || h.Settlement || h.Mint != other.String() || h.Decimals != 2 || h.Amount != "30000.00" || h.ChangedAt == nil {
		t.Errorf("the holding is %+v", h)
	}
	if h.InSuspense != "30000.00" || len(h.Deposits) != 1 {
		t.Errorf("of it %s are in suspense, of the deposits %v", h.InSuspense, h.Deposits)
	}
}

// TestAccountThatWasClosedBeforeItsFirstSurvey: what the ledger has in suspense for it is a difference, and its wallet waits for its turn like
// any other afterwards.
func TestAccountThatWasClosedBeforeItsFirstSurvey(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	mirrored, err := chain.AssociatedTokenAccount(b.wallet, b.chain.Mint, chain.TokenProgram)
	if err != nil {
		t.Fatal(err)
	}
	account := b.openAccount("short", b.chain.Mint, b.wallet)
	b.send(account, 2*token)
	b.poll() // and no run sees the account
	b.closeAccount(account, mirrored, b.chain.Wallets.Key(b.customer), 2*token)
	left := b.wantDifferences(reconcile.LedgerOnly)[reconcile.LedgerOnly]
	wantAmounts(t, left, amount(2*token), amount(0))
	if left.TokenAccount != account.String() {
		t.Errorf("the difference is %+v", left)
	}
	b.crowd(600)
	asked := b.holdingAsked()
	b.spam = &spam{Tokens: b.chain.Client(), only: []chain.Address{b.wallet, b.chain.Treasury}}
	b.Service = b.service(quietChain{b.chain.Client(), []chain.Address{mirrored, b.chain.TreasuryTokenAccount}}, func(context.Context) error { return nil })
	b.wantDifferences(reconcile.LedgerOnly)
	if again := b.holdingAsked(); !again.Equal(asked) {
		t.Errorf("its wallet was asked at %s and, before 600 others that never were, at %s", asked, again)
	}
}

// TestFurtherAccountOfACustomersWalletIsAskedForAgain also when many other wallets wait for their turn.
func TestFurtherAccountOfACustomersWalletIsAskedForAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stranger := b.newKey()
	if _, err := b.chain.MintTo(t.Context(), stranger.PublicKey(), 2*token); err != nil {
		t.Fatal(err)
	}
	if err := b.chain.HandOver(t.Context(), stranger, b.wallet); err != nil {
		t.Fatal(err)
	}
	b.wantDifferences(reconcile.ChainOnly)
	b.crowd(600)
	account, err := chain.AssociatedTokenAccount(b.wallet, b.chain.Mint, chain.TokenProgram)
	if err != nil {
		t.Fatal(err)
	}
	b.spam = &spam{Tokens: b.chain.Client(), only: []chain.Address{b.wallet, b.chain.Treasury}}
	b.Service = b.service(quietChain{b.chain.Client(), []chain.Address{account, b.chain.TreasuryTokenAccount}}, func(context.Context) error { return nil })
	result := b.reconcile()
	if s := result.Survey; s == nil || s.Wallets != 602 || s.Asked != 502 || s.Settlement != 1 {
		t.Errorf("the survey is %+v of %+v", s, result)
	}
	if items := b.openItems(); len(items) != 1 || !items[0].Present {
		t.Errorf("the items are %+v", items)
	}
	full, err := b.ReconcileFully(t.Context(), ids.User{})
	if err != nil || full.Survey == nil || full.Survey.Asked != 602 {
		t.Errorf("the full run is %+v, %v", full, err)
	}
}

// quietChain is the real chain, on which only some accounts have a history: to ask for those of hundreds of strangers takes long.
type quietChain struct {
	reconcile.Chain
	loud []chain.Address
}

func (c quietChain) TokenBalance(ctx context.Context, account chain.Address, slot chain.Slot) (chain.Balance, error) {
	if slices.Contains(c.loud, account) {
		return c.Chain.TokenBalance(ctx, account, slot)
	}
	return chain.Balance{}, nil
}

func (c quietChain) Movements(ctx context.Context, account chain.Address, since chain.Cursor) ([]chain.Movement, error) {
	if slices.Contains(c.loud, account) {
		return c.Chain.Movements(ctx, account, since)
	}
	return nil, nil
}

func (c quietChain) Walk(ctx context.Context, account chain.Address, span chain.Span, visit func(chain.Movement) error) error {
	if slices.Contains(c.loud, account) {
		return c.Chain.Walk(ctx, account, span, visit)
	}
	return nil
}

// TestForeignTokensAreShownAndNeverADifference, of both programs; what is in suspense is linked.
func TestForeignTokensAreShownAndNeverADifference(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var mints []chain.Address
	for i, program := range []chain.Address{chain.TokenProgram, chain.Token2022Program} {
		mint, err := b.chain.CreateToken(t.Context(), program, uint8(2+i))
		if err != nil {
			t.Fatal(err)
		}
		mints = append(mints, mint)
	}
	if _, err := b.chain.MintOther(t.Context(), mints[0], b.wallet, 1_234); err != nil {
		t.Fatal(err)
	}
	b.wantDifferences() // and the deposit is in suspense now
	if _, err := b.chain.MintOther(t.Context(), mints[1], b.chain.Treasury, 5); err != nil {
		t.Fatal(err)
	}
	b.Service = b.service(b.chain.Client(), func(context.Context) error { return nil })
	b.wantDifferences()
	if list := b.holdings(reconcile.KindSettlement); len(list) != 0 {
		t.Errorf("settlement holdings: %+v", list)
	}
	list := b.holdings(reconcile.KindForeign)
	if len(list) != 2 {
		t.Fatalf("the holdings are %+v", list)
	}
	treasurys, customers := list[0], list[1]
	if customers.Amount != "12.34" || customers.InSuspense != "12.34" || len(customers.Deposits) != 1 || customers.Org != b.customer ||
		customers.Customer != "Customer" || customers.Program != "token" || customers.Mint != mints[0].String() || customers.ChangedAt != nil ||
		!strings.Contains(customers.Note(), "in suspense") {
		t.Errorf("the customer's is %+v", customers)
	}
	if treasurys.Amount != "0.005" || len(treasurys.Deposits) != 0 || !treasurys.Org.IsZero() || treasurys.Program != "token_2022" ||
		!strings.Contains(treasurys.Note(), "Anybody can send") {
		t.Errorf("the treasury's is %+v", treasurys)
	}
	if _, err := b.chain.MintOther(t.Context(), mints[1], b.chain.Treasury, 5); err != nil {
		t.Fatal(err)
	}
	b.wantDifferences()
	if again := b.holdings(reconcile.KindForeign)[0]; again.ID != treasurys.ID || again.Amount != "0.010" || again.ChangedAt == nil || !again.FirstSeen.Equal(treasurys.FirstSeen) {
		t.Errorf("after more came it is %+v", again)
	}
}

// TestMirroredAccountsInOtherHandsAreFound: handed over, frozen, or with a delegate. A resolution is of these reasons only.
func TestMirroredAccountsInOtherHandsAreFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	key, thief := b.chain.Wallets.Key(b.customer), b.newKey().PublicKey()
	account, err := chain.AssociatedTokenAccount(b.wallet, b.chain.Mint, chain.TokenProgram)
	if err != nil {
		t.Fatal(err)
	}
	b.execute(key, tokenprogram.NewApproveInstruction(token, account, thief, b.wallet, nil).Build())
	found := b.wantDifferences(reconcile.ChainOnly)[reconcile.ChainOnly]
	wantAmounts(t, found, nil, amount(5*token))
	if found.TokenAccount != account.String() || !strings.Contains(found.Text, thief.String()+" may take up to 1000000 base units") {
		t.Errorf("the difference is %+v", found)
	}
	resolution := reconcile.ChainExplained
	if _, err := b.UpdateItem(t.Context(), b.openItems()[0].ID, reconcile.Update{By: b.person(), Resolution: &resolution, Reason: "ours"}); err != nil {
		t.Fatal(err)
	}
	b.wantDifferences(reconcile.ChainOnly)
	if items := b.openItems(); len(items) != 0 {
		t.Errorf("open again: %+v", items)
	}
	if err := b.chain.Freeze(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	if found := b.wantDifferences(reconcile.ChainOnly)[reconcile.ChainOnly]; !strings.Contains(found.Text, "frozen") {
		t.Errorf("the difference is %+v", found)
	}
	if items := b.openItems(); len(items) != 1 {
		t.Errorf("an account that was frozen after its delegate was explained has the items %+v", items)
	}
}

func TestMirroredAccountThatWasHandedOverIsFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	thief := b.newKey().PublicKey()
	if err := b.chain.HandOver(t.Context(), b.chain.Wallets.Key(b.customer), thief); err != nil {
		t.Fatal(err)
	}
	found := b.wantDifferences(reconcile.ChainOnly)[reconcile.ChainOnly]
	wantAmounts(t, found, nil, amount(5*token))
	if !strings.Contains(found.Text, "belongs to the wallet "+thief.String()+" now") {
		t.Errorf("the difference is %+v", found)
	}
}

// spam is the real chain with so many more accounts of strangers' tokens in one wallet.
type spam struct {
	reconcile.Tokens
	only    []chain.Address // wallets that have anything; empty: all may
	wallet  chain.Address
	count   int
	tooLong bool
	ofOurs  bool // the accounts of our token are too many to be read, too
}

func (s spam) TokenAccountsOf(ctx context.Context, owner, mint chain.Address) ([]chain.TokenAccount, chain.Slot, error) {
	if len(s.only) > 0 && !slices.Contains(s.only, owner) {
		return nil, 1, nil
	}
	if owner == s.wallet && s.ofOurs {
		return nil, 0, fmt.Errorf("list: %w", chain.ErrTooLong)
	}
	return s.Tokens.TokenAccountsOf(ctx, owner, mint)
}

func (s spam) TokenAccounts(ctx context.Context, owner chain.Address) ([]chain.TokenAccount, error) {
	if len(s.only) > 0 && !slices.Contains(s.only, owner) {
		return nil, nil
	}
	all, err := s.Tokens.TokenAccounts(ctx, owner)
	if owner != s.wallet || err != nil {
		return all, err
	}
	if s.tooLong {
		return nil, fmt.Errorf("list: %w", chain.ErrTooLong)
	}
	for i := range s.count {
		address := chain.Address{7, byte(i >> 16), byte(i >> 8), byte(i)}
		all = append(all, chain.TokenAccount{Address: address, Mint: chain.Address{8, byte(i >> 16), byte(i >> 8), byte(i)}, Owner: owner, Program: chain.TokenProgram, Amount: 1})
	}
	return all, nil
}

// TestAWalletFullOfSpamIsCountedAndTheRunGoesOn, and money of the settlement token is found in the middle of it.
func TestAWalletFullOfSpamIsCountedAndTheRunGoesOn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	account := b.furtherAccount("buried")
	b.send(account, token)
	b.poll()
	const many = 3_000
	for _, tooLong := range []bool{false, true} {
		b.spam = &spam{Tokens: b.chain.Client(), wallet: b.chain.Treasury, count: many, tooLong: tooLong}
		b.Service = b.service(b.chain.Client(), b.deposits.Poll)
		found := b.wantDifferences(reconcile.ChainOnly)[reconcile.ChainOnly]
		if found.TokenAccount != account.String() {
			t.Errorf("the difference is %+v", found)
		}
		result := b.reconcile()
		want := reconcile.Survey{Wallets: 2, Asked: 2, Settlement: 1, Foreign: reconcile.MaxHoldings, LeftOut: many - reconcile.MaxHoldings}
		if tooLong {
			want.LeftOut, want.TooMany = 0, 1
		}
		if result.Survey == nil || *result.Survey != want {
			t.Errorf("the survey is %+v, want %+v", result.Survey, want)
		}
	}
	if list := b.holdings(reconcile.KindForeign); len(list) != reconcile.MaxHoldings || !list[0].Present {
		t.Errorf("%d holdings, the first %+v", len(list), list[0])
	}
}

// TestAWalletFullOfOurTokensAccountsIsADifference: a stranger who opens more of them than can be read stops no run. What was known of the wallet
// stays, and the difference names it until it can be read again.
func TestAWalletFullOfOurTokensAccountsIsADifference(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	account := b.openAccount("full", b.chain.Mint, b.wallet)
	b.send(account, 2*token)
	b.wantDifferences(reconcile.ChainOnly)
	b.spam = &spam{Tokens: b.chain.Client(), wallet: b.wallet, tooLong: true, ofOurs: true}
	b.Service = b.service(b.chain.Client(), b.deposits.Poll)
	for range 2 {
		result := b.reconcile()
		if result.State != reconcile.StateDifferences || len(result.Differences) != 2 || result.Survey == nil || result.Survey.TooMany != 1 || len(result.Accounts) != 2 {
			t.Fatalf("the run is %+v", result)
		}
		for _, d := range result.Differences {
			about := map[string]bool{b.wallet.String(): d.Ledger == nil && d.Chain == nil, account.String(): d.Chain != nil && *d.Chain == 2*token}
			if d.Class != reconcile.ChainOnly || !about[d.TokenAccount] || !strings.Contains(d.Text, b.wallet.String()) {
				t.Errorf("the difference is %+v", d)
			}
		}
	}
	b.spam = nil
	b.Service = b.service(b.chain.Client(), b.deposits.Poll)
	if left := b.wantDifferences(reconcile.ChainOnly)[reconcile.ChainOnly]; left.TokenAccount != account.String() {
		t.Errorf("when it can be read again: %+v", left)
	}
}

// TestProvidersThatDisagreeAboutAccountsFailTheRun has one that says of each account of our token that it holds one unit more.
func TestProvidersThatDisagreeAboutAccountsFailTheRun(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	account := b.furtherAccount("disputed")
	b.send(account, token)
	two, err := chain.New(chain.Config{URLs: []string{localchaintest.URL(), b.liar()}, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = two.Close() })
	b.spam = &spam{Tokens: two}
	b.Service = b.service(b.chain.Client(), b.deposits.Poll)
	result := b.reconcile()
	if result.State != reconcile.StateFailed || !strings.Contains(result.Reason, "endpoints disagree") {
		t.Errorf("the run is %+v", result)
	}
	if list := b.holdings(""); len(list) != 0 {
		t.Errorf("a run that failed has stored %+v", list)
	}
}

// liar is a provider that gives an account of one token a unit more.
func (b *bench) liar() string {
	b.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := passOn(r)
		if err != nil && r.Context().Err() == nil {
			b.Error(err)
		}
		_, _ = w.Write(b.falsify(answer))
	}))
	b.Cleanup(server.Close)
	return server.URL
}

func passOn(r *http.Request) ([]byte, error) {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, localchaintest.URL(), r.Body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return answer, errors.Join(err, r.Body.Close())
}

// falsify replaces what the further account's data begins with: mint, owner, amount.
func (b *bench) falsify(answer []byte) []byte {
	mint, owner := b.chain.Mint, b.chain.Treasury
	head := append(append([]byte{}, mint[:]...), owner[:]...)
	encode := func(amount uint64) []byte {
		data := binary.LittleEndian.AppendUint64(bytes.Clone(head), amount)
		return []byte(base64.StdEncoding.EncodeToString(data))
	}
	return bytes.ReplaceAll(answer, encode(token), encode(token+1))
}
