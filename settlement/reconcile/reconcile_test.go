package reconcile_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/programs/system"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/internal/chaintest"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
	"github.com/muster-gpu/muster/settlement/reconcile"
	"github.com/muster-gpu/muster/settlement/soljournal"
)

func TestMain(m *testing.M) { localchaintest.Main(m) }

const (
	token   = 1_000_000 // base units
	capital = chaintest.Capital
)

// bench is a real chain with a treasury, a customer who has deposited 5 tokens, and an owner who has 4 in flight.
type bench struct {
	testing.TB
	*reconcile.Service
	pool     *pgxpool.Pool
	chain    *chaintest.Chain
	deposits *deposits.Service
	book     *ledger.Ledger
	customer ids.Org
	wallet   chain.Address // the customer's deposit wallet
	owner    ids.Org
	spam     *spam // nil: nobody has sent any
	sol      *solJournal
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	b := &bench{TB: tb, pool: testkit.DB(tb), chain: chaintest.Start(tb), customer: ids.New[ids.Org](), owner: ids.New[ids.Org]()}
	b.book = ledger.New(b.chain.Currency())
	log := slog.New(slog.DiscardHandler)
	var err error
	b.deposits, err = deposits.New(b.pool, b.book, b.chain.Client(), b.chain.Wallets, deposits.Config{
		TokenProgram: chain.TokenProgram, Treasury: b.chain.Treasury, Minimum: 1, Interval: time.Hour,
	}, log)
	if err != nil {
		tb.Fatal(err)
	}
	b.Service = b.service(b.chain.Client(), b.deposits.Poll)
	b.exec(`INSERT INTO organisations (id, name) VALUES ($1, 'Customer'), ($2, 'Owner')`, b.customer, b.owner)
	b.chain.Wallets.Add(b.customer)
	if _, err := b.deposits.Address(tb.Context(), b.customer); err != nil {
		tb.Fatal(err)
	}
	b.wallet = b.chain.Wallets.Key(b.customer).PublicKey()
	b.deposit(5 * token)
	b.poll()
	b.post(ledger.Entry{Key: "earned", Kind: ledger.KindCharge, Legs: []ledger.Leg{
		{Debit: ledger.Of(ledger.CustomerAvailable, b.customer), Credit: ledger.Of(ledger.PayoutInFlight, b.owner), Amount: 4 * token},
	}})
	return b
}

func (b *bench) service(client reconcile.Chain, catchUp func(context.Context) error) *reconcile.Service {
	b.sol = &solJournal{Service: soljournal.New(b.pool, b.chain.Client(), b.chain.Treasury, slog.New(slog.DiscardHandler))}
	return reconcile.New(b.pool, b.book, client, reconcile.Config{
		Treasury: b.chain.TreasuryTokenAccount, SOL: b.sol, Wallet: b.chain.Treasury, Tokens: b.tokens(), CatchUp: catchUp,
		Interval: time.Hour,
	}, slog.New(slog.DiscardHandler))
}

func (b *bench) exec(sql string, args ...any) {
	b.Helper()
	if _, err := b.pool.Exec(b.Context(), sql, args...); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
}

func (b *bench) poll() {
	b.Helper()
	if err := b.deposits.Poll(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) deposit(amount uint64) {
	b.Helper()
	if _, err := b.chain.MintTo(b.Context(), b.wallet, amount); err != nil {
		b.Fatal(err)
	}
}

// pay sends tokens from the treasury to the owner's wallet on the chain.
func (b *bench) pay(amount uint64) string {
	b.Helper()
	signature, err := b.chain.Transfer(b.Context(), b.chain.TreasuryKey, b.chain.Owner.Address, amount)
	if err != nil {
		b.Fatal(err)
	}
	return signature.String()
}

// record posts a payout in the ledger.
func (b *bench) record(key, signature string, amount money.Amount) {
	b.Helper()
	b.post(ledger.Entry{
		Key: key, Kind: ledger.KindPayoutPaid, Refs: ledger.Refs{Signature: signature},
		Legs: []ledger.Leg{{Debit: ledger.Of(ledger.PayoutInFlight, b.owner), Credit: ledger.Platform(ledger.ChainTreasury), Amount: amount}},
	})
}

func (b *bench) post(e ledger.Entry) {
	b.Helper()
	err := pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := b.book.Post(b.Context(), tx, e)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) reconcile() reconcile.Reconciliation {
	b.Helper()
	result, err := b.Reconcile(b.Context(), ids.User{})
	if err != nil {
		b.Fatal(err)
	}
	return result
}

// wantDifferences runs and expects one difference of each class and nothing else, and returns them.
func (b *bench) wantDifferences(classes ...string) map[string]reconcile.Difference {
	b.Helper()
	result := b.reconcile()
	found := map[string]reconcile.Difference{}
	for _, d := range result.Differences {
		found[d.Class] = d
	}
	for _, class := range classes {
		if _, ok := found[class]; !ok {
			b.Errorf("no %s was found", class)
		}
	}
	want := reconcile.StateClean
	if len(classes) > 0 {
		want = reconcile.StateDifferences
	}
	if len(result.Differences) != len(classes) || result.DifferenceCount != len(classes) || result.State != want {
		b.Errorf("the run is %s (%s) with %+v, want %v", result.State, result.Reason, result.Differences, classes)
	}
	return found
}

func amount(a money.Amount) *money.Amount { return &a }

func wantAmounts(t *testing.T, d reconcile.Difference, inLedger, onChain *money.Amount) {
	t.Helper()
	same := func(got, want *money.Amount) bool {
		return (got == nil) == (want == nil) && (got == nil || *got == *want)
	}
	if !same(d.Ledger, inLedger) || !same(d.Chain, onChain) {
		t.Errorf("%s has the ledger amount %v and the chain amount %v", d.Class, d.Ledger, d.Chain)
	}
}

func TestCleanRunProvesEveryToken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.record("payout", b.pay(3*token), 3*token)
	b.deposit(2 * token) // the run itself catches up
	result := b.reconcile()
	if result.State != reconcile.StateClean || result.Matched != 4 || result.Slot == 0 || len(result.Accounts) != 2 {
		t.Fatalf("the run is %+v", result)
	}
	treasury, deposited := result.Accounts[0], result.Accounts[1]
	if treasury.Name != "treasury" || treasury.In != capital || treasury.Out != 3*token || treasury.ChainClosing != capital-3*token ||
		treasury.LedgerClosing != treasury.ChainClosing || treasury.Transactions != 2 || !treasury.Continuous || treasury.FeeLamports == 0 {
		t.Errorf("the treasury is %+v", treasury)
	}
	if deposited.Name != "deposits of Customer" || deposited.In != 7*token || deposited.Out != 0 || deposited.ChainClosing != 7*token ||
		deposited.LedgerClosing != 7*token || !deposited.Continuous {
		t.Errorf("the deposit account is %+v", deposited)
	}
	list, err := b.List(t.Context(), ids.Reconciliation{}, 0)
	if err != nil || len(list) != 1 || list[0].ID != result.ID || list[0].State != reconcile.StateClean {
		t.Errorf("the runs are %+v, %v", list, err)
	}
}

// TestSOLThatLeavesTheTreasuryIsFound: nothing of ours sends SOL.
func TestSOLThatLeavesTheTreasuryIsFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	signature, failure := b.chain.Execute(t, []solana.PrivateKey{b.chain.TreasuryKey},
		system.NewTransferInstruction(70_000, b.chain.Treasury, b.chain.Owner.Address).Build())
	if failure != "" {
		t.Fatal(failure)
	}
	const left = -70_000 - 5_000 // with the fee
	found := b.wantDifferences(reconcile.ChainOnly)[reconcile.ChainOnly]
	wantAmounts(t, found, nil, amount(left))
	if found.Signature != signature.String() || found.Mint != soljournal.Currency.Mint || found.TokenAccount != b.chain.Treasury.String() {
		t.Errorf("the difference is %+v", found)
	}
	items, err := b.Items(t.Context(), reconcile.Filter{State: reconcile.ItemOpen})
	if err != nil || len(items) != 1 || items[0].Mint != soljournal.Currency.Mint || *items[0].Chain != left {
		t.Fatalf("the items are %+v, %v", items, err)
	}
	resolution := reconcile.ChainExplained
	if _, err := b.UpdateItem(t.Context(), items[0].ID, reconcile.Update{By: b.person(), Resolution: &resolution, Reason: "moved by hand"}); err != nil {
		t.Fatal(err)
	}
	b.wantDifferences(reconcile.ChainOnly)
	result := b.reconcile()
	if items, err := b.Items(t.Context(), reconcile.Filter{State: reconcile.ItemOpen}); err != nil || len(items) != 0 {
		t.Errorf("open again: %+v, %v", items, err)
	}
	if len(result.Wallets) != 1 || !result.Wallets[0].Continuous || result.Wallets[0].Lamports != result.Wallets[0].Journal || result.Wallets[0].Transactions != 2 {
		t.Errorf("the wallet is %+v", result.Wallets)
	}
}

// solJournal is the real journal, whose outcome a test may alter.
type solJournal struct {
	*soljournal.Service
	alter func(*soljournal.State) error
}

func (j *solJournal) Advance(ctx context.Context, fully bool) (soljournal.State, error) {
	state, err := j.Service.Advance(ctx, fully)
	if err == nil && j.alter != nil {
		err = j.alter(&state)
	}
	return state, err
}

// TestSOLThatCannotBeReadDiscardsNoTokens: what was found about tokens is stored, the run is failed with the reason, and what was known of SOL
// stays open.
func TestSOLThatCannotBeReadDiscardsNoTokens(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if _, failure := b.chain.Execute(t, []solana.PrivateKey{b.chain.TreasuryKey},
		system.NewTransferInstruction(70_000, b.chain.Treasury, b.chain.Owner.Address).Build()); failure != "" {
		t.Fatal(failure)
	}
	b.wantDifferences(reconcile.ChainOnly)
	b.sol.alter = func(*soljournal.State) error {
		return errors.Join(errors.New("connection refused"), chain.ErrUnavailable)
	}
	b.record("invented", "", token)
	result := b.reconcile()
	if result.State != reconcile.StateFailed || len(result.Accounts) != 2 || len(result.Wallets) != 0 || result.DifferenceCount != 1 ||
		len(result.Differences) != 1 || result.Differences[0].Class != reconcile.LedgerOnly ||
		result.Reason != "the tokens were compared, but the SOL of the treasury's wallet could not be read: the RPC endpoint does not answer or is behind: try again later" {
		t.Errorf("the run is %+v", result)
	}
	b.wantOpen(soljournal.Currency.Mint, b.chain.Mint.String())
	b.sol.alter = nil
	b.wantDifferences(reconcile.ChainOnly, reconcile.LedgerOnly)
}

// wantOpen expects an open item in each of these mints, and no other.
func (b *bench) wantOpen(mints ...string) {
	b.Helper()
	var found []string
	for _, item := range b.openItems() {
		found = append(found, item.Mint)
	}
	slices.Sort(found)
	slices.Sort(mints)
	if !slices.Equal(found, mints) {
		b.Errorf("items are open of %v, want %v", found, mints)
	}
}

// TestSOLThatWasNotLookedAtIsNotGone: differences that a run did not list because it is behind, lists no more, or compares only newer ones.
func TestSOLThatWasNotLookedAtIsNotGone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if _, failure := b.chain.Execute(t, []solana.PrivateKey{b.chain.TreasuryKey},
		system.NewTransferInstruction(70_000, b.chain.Treasury, b.chain.Owner.Address).Build()); failure != "" {
		t.Fatal(failure)
	}
	b.wantDifferences(reconcile.ChainOnly)
	at := b.openItems()[0].At
	for what, c := range map[string]struct {
		state string
		alter func(*soljournal.State)
	}{
		"behind":        {reconcile.StateBehind, func(s *soljournal.State) { s.Behind, s.Continuous = true, false }},
		"more than fit": {reconcile.StateClean, func(s *soljournal.State) { s.More = true }},
		"long ago":      {reconcile.StateClean, func(s *soljournal.State) { s.Since = at }},
		"another's":     {reconcile.StateClean, func(s *soljournal.State) { s.Wallet = b.chain.Owner.Address.String() }},
	} {
		b.sol.alter = func(s *soljournal.State) error {
			s.Differences = nil
			c.alter(s)
			return nil
		}
		result := b.reconcile()
		if result.State != c.state || (result.Reason != "") != (c.state == reconcile.StateBehind) || result.Wallets[0].Behind != (c.state == reconcile.StateBehind) {
			t.Errorf("%s: the run is %+v", what, result)
		}
		b.wantOpen(soljournal.Currency.Mint)
	}
	b.sol.alter = func(s *soljournal.State) error {
		s.Differences, s.Since = nil, at.Add(-time.Second)
		return nil
	}
	b.wantDifferences()
	b.wantOpen()
}

func TestUnrecordedTreasuryTransferIsFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	signature := b.pay(token)
	found := b.wantDifferences(reconcile.ChainOnly)[reconcile.ChainOnly]
	wantAmounts(t, found, nil, amount(-token))
	if found.Signature != signature || found.TokenAccount != b.chain.TreasuryTokenAccount.String() {
		t.Errorf("the difference is %+v", found)
	}
}

func TestAlteredLedgerAmountIsFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.record("payout", b.pay(token), token+1)
	wantAmounts(t, b.wantDifferences(reconcile.AmountMismatch)[reconcile.AmountMismatch], amount(-token-1), amount(-token))
}

func TestInventedAndRepeatedEntriesAreFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	signature := b.pay(token)
	b.record("payout", signature, token)
	b.record("payout again", signature, token)
	invented := chain.Signature{1, 2, 3}.String()
	b.record("invented", invented, token/2)
	found := b.wantDifferences(reconcile.Duplicate, reconcile.LedgerOnly)
	wantAmounts(t, found[reconcile.Duplicate], amount(-token), nil)
	wantAmounts(t, found[reconcile.LedgerOnly], amount(-token/2), nil)
	if found[reconcile.LedgerOnly].Signature != invented {
		t.Errorf("the difference is %+v", found[reconcile.LedgerOnly])
	}
}

// TestTokensThatLeaveADepositAccountAreFound: nothing of ours takes tokens from there.
func TestTokensThatLeaveADepositAccountAreFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if _, err := b.chain.Transfer(t.Context(), b.chain.Wallets.Key(b.customer), b.chain.Owner.Address, token); err != nil {
		t.Fatal(err)
	}
	wantAmounts(t, b.wantDifferences(reconcile.ChainOnly)[reconcile.ChainOnly], nil, amount(-token))
}

// TestUnresolvedBatchIsOneDifference: its transaction has landed, but the worker has not seen it yet.
func TestUnresolvedBatchIsOneDifference(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	signature := b.pay(token)
	batch, user, nonce := ids.New[ids.Batch](), ids.New[ids.User](), b.chain.Nonces[0].String()
	b.exec(`INSERT INTO users (id, wallet_address) VALUES ($1, 'w')`, user)
	b.exec(`INSERT INTO payout_batches (id, state, mint, total, payee_count, nonce_account, nonce_value, approved_by, approved_at, message, signing_started_at)
		VALUES ($1, 'sent', $2, $3, 1, $4, $4, $5, now(), 'm', now())`, batch, b.chain.Mint.String(), token, nonce, user)
	b.exec(`INSERT INTO payout_transactions (signature, batch_id, nonce_account, nonce_value, wire) VALUES ($1, $2, $3, $3, 'w')`, signature, batch, nonce)
	found := b.wantDifferences(reconcile.UnresolvedNonce)[reconcile.UnresolvedNonce]
	if found.Signature != signature {
		t.Errorf("the difference is %+v", found)
	}
	b.record("payout", signature, token)
	b.exec(`UPDATE payout_batches SET state = 'finalized', finalized_at = now()`)
	b.wantDifferences()
}

// TestWhatHappensDuringARunIsLeftForTheNext lets a deposit arrive and be credited after the chain was read.
func TestWhatHappensDuringARunIsLeftForTheNext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Service = b.service(b.chain.Client(), func(ctx context.Context) error {
		b.deposit(token)
		return b.deposits.Poll(ctx)
	})
	b.wantDifferences()
	b.Service = b.service(b.chain.Client(), b.deposits.Poll)
	b.wantDifferences()
}

// downChain is the real chain until its history is asked for.
type downChain struct{ reconcile.Chain }

func (downChain) Walk(context.Context, chain.Address, chain.Span, func(chain.Movement) error) error {
	return errors.Join(errors.New("connection refused"), chain.ErrUnavailable)
}

// TestUnreadableChainIsNeverClean: and the reason shows nothing of the internals.
func TestUnreadableChainIsNeverClean(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Service = b.service(downChain{b.chain.Client()}, b.deposits.Poll)
	result := b.reconcile()
	if result.State != reconcile.StateFailed || result.Reason != "the RPC endpoint does not answer or is behind: try again later" {
		t.Errorf("the run is %+v", result)
	}
}

// forgetfulChain is the real chain with one transaction missing from every history.
type forgetfulChain struct {
	reconcile.Chain
	forgets string
}

func (c forgetfulChain) Walk(ctx context.Context, account chain.Address, span chain.Span, visit func(chain.Movement) error) error {
	return c.Chain.Walk(ctx, account, span, func(m chain.Movement) error {
		if m.Signature.String() == c.forgets {
			return nil
		}
		return visit(m)
	})
}

func (c forgetfulChain) Movements(ctx context.Context, account chain.Address, since chain.Cursor) ([]chain.Movement, error) {
	all, err := c.Chain.Movements(ctx, account, since)
	return slices.DeleteFunc(all, func(m chain.Movement) bool { return m.Signature.String() == c.forgets }), err
}

// noWalks is the real chain, which nobody may walk from the beginning.
type noWalks struct{ reconcile.Chain }

func (noWalks) Walk(context.Context, chain.Address, chain.Span, func(chain.Movement) error) error {
	return errors.New("the whole history was walked")
}

// TestRunsGoOnFromWhatWasFoundEqual: with the same totals as a full walk, and a late duplicate is still seen as one.
func TestRunsGoOnFromWhatWasFoundEqual(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.pay(token)
	b.record("payout", first, token)
	b.wantDifferences()
	b.record("second payout", b.pay(token), token)
	b.deposit(token)
	b.Service = b.service(noWalks{b.chain.Client()}, b.deposits.Poll)
	b.wantDifferences()
	continued := b.reconcile()
	if full, err := b.ReconcileFully(t.Context(), ids.User{}); err != nil || full.State != reconcile.StateFailed {
		t.Fatalf("a full run went on from a cursor: %+v, %v", full, err)
	}
	b.Service = b.service(b.chain.Client(), b.deposits.Poll)
	full, err := b.ReconcileFully(t.Context(), ids.User{})
	if err != nil || full.State != reconcile.StateClean || full.Matched != continued.Matched {
		t.Fatalf("the full run is %+v, %v", full, err)
	}
	for i, a := range full.Accounts {
		c := continued.Accounts[i]
		a.Slot, c.Slot = 0, 0
		if a != c {
			t.Errorf("the full walk gives %+v, going on gives %+v", a, c)
		}
	}
	b.record("payout again", first, token)
	if found := b.wantDifferences(reconcile.Duplicate)[reconcile.Duplicate]; found.Signature != first {
		t.Errorf("the difference is %+v", found)
	}
}

// TestUnconfirmedCursorIsNotBelieved alters the stored balance on both sides.
func TestUnconfirmedCursorIsNotBelieved(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.wantDifferences()
	b.exec(`UPDATE reconciliation_cursors SET chain_balance = chain_balance + 1, ledger_balance = ledger_balance + 1, total_in = total_in + 1`)
	b.wantDifferences()
	var wrong int
	err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM reconciliation_cursors WHERE chain_balance NOT IN ($1, $2)`, capital, 5*token).Scan(&wrong)
	if err != nil || wrong != 0 {
		t.Errorf("%d cursors are still wrong, %v", wrong, err)
	}
}

// TestHiddenTransactionBreaksContinuity: even one that the ledger does not know either.
func TestHiddenTransactionBreaksContinuity(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Service = b.service(forgetfulChain{b.chain.Client(), b.pay(token)}, b.deposits.Poll)
	b.record("payout", b.pay(token), token)
	wantAmounts(t, b.wantDifferences(reconcile.AmountMismatch)[reconcile.AmountMismatch], nil, amount(-token))
}

// TestUnsoundLedgerIsNeverClean alters a stored balance as somebody with the database's superuser could.
func TestUnsoundLedgerIsNeverClean(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SET LOCAL session_replication_role = replica`); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `UPDATE ledger_accounts SET balance = balance + 1 WHERE kind = 'customer_available'`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if result := b.reconcile(); result.State != reconcile.StateFailed || !strings.Contains(result.Reason, "does not agree with itself") {
		t.Errorf("the run is %+v", result)
	}
}

func TestOneRunAtATime(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.exec(`INSERT INTO reconciliations (id, mint) VALUES ($1, 'm')`, ids.New[ids.Reconciliation]())
	if _, err := b.Reconcile(t.Context(), ids.User{}); errs.CodeOf(err) != errs.Conflict {
		t.Fatalf("a second run gave %v, want a conflict", err)
	}
	b.exec(`UPDATE reconciliations SET started_at = now() - interval '1 hour'`) // its process has died
	b.wantDifferences()
	if _, err := b.Get(t.Context(), ids.New[ids.Reconciliation]()); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("an unknown run gave %v", err)
	}
}
