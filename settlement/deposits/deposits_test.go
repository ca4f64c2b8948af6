package deposits_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sync/errgroup"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/internal/chaintest"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
)

func TestMain(m *testing.M) { localchaintest.Main(m) }

const (
	token   = 1_000_000 // base units
	capital = chaintest.Capital
)

// bench is a deposit service over a real chain and a database of its own.
type bench struct {
	testing.TB
	*deposits.Service
	pool  *pgxpool.Pool
	chain *chaintest.Chain
	book  *ledger.Ledger
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	b := &bench{TB: tb, pool: testkit.DB(tb), chain: chaintest.Start(tb)}
	b.book = ledger.New(b.chain.Currency())
	var err error
	b.Service, err = deposits.New(b.pool, b.book, b.chain.Client(), b.chain.Wallets, deposits.Config{
		TokenProgram: chain.TokenProgram, Treasury: b.chain.Treasury, Minimum: deposits.MinimumOf(b.book.Currency()), Interval: time.Hour,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// customer is an organisation with its deposit wallet.
func (b *bench) customer(name string) (ids.Org, chain.Address) {
	b.Helper()
	org := ids.New[ids.Org]()
	b.exec(`INSERT INTO organisations (id, name) VALUES ($1, $2)`, org, name)
	b.chain.Wallets.Add(org)
	address, err := b.Address(b.Context(), org)
	if err != nil {
		b.Fatal(err)
	}
	wallet, err := chain.ParseAddress(address.Wallet)
	if err != nil {
		b.Fatal(err)
	}
	return org, wallet
}

func (b *bench) exec(sql string, args ...any) {
	b.Helper()
	if _, err := b.pool.Exec(b.Context(), sql, args...); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
}

func (b *bench) send(wallet chain.Address, amount uint64) string {
	b.Helper()
	signature, err := b.chain.MintTo(b.Context(), wallet, amount)
	if err != nil {
		b.Fatal(err)
	}
	return signature.String()
}

func (b *bench) poll() {
	b.Helper()
	if err := b.Poll(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) balance(book *ledger.Ledger, a ledger.Account) money.Amount {
	b.Helper()
	balance, err := book.Balance(b.Context(), b.pool, a)
	if err != nil {
		b.Fatal(err)
	}
	return balance
}

func (b *bench) wantBalance(a ledger.Account, want money.Amount) {
	b.Helper()
	if got := b.balance(b.book, a); got != want {
		b.Errorf("%s has %d, want %d", a.Kind, got, want)
	}
}

func (b *bench) wantSound() {
	b.Helper()
	if err := b.book.Check(b.Context(), b.pool); err != nil {
		b.Error(err)
	}
}

func TestDepositsAreCreditedOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	org, wallet := b.customer("Customer")
	other, otherWallet := b.customer("Other customer")
	first := b.send(wallet, 5*token)
	for range 2 {
		b.poll()
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 5*token)

	b.send(wallet, 2*token)
	b.send(otherWallet, token/100)
	group, ctx := errgroup.WithContext(t.Context())
	for range 4 {
		group.Go(func() error { return b.Poll(ctx) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 7*token)
	b.wantBalance(ledger.Of(ledger.ChainDeposits, org), 7*token)
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, other), token/100)
	b.wantSound()

	list, err := b.Deposits(t.Context(), org, ids.Deposit{}, 0)
	if err != nil || len(list) != 2 || list[1].Signature != first || list[1].Amount != "5.000000" || list[1].State != "credited" {
		t.Errorf("the deposits are %+v, %v", list, err)
	}
}

func TestAddressIsAssignedOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	org, wallet := b.customer("Customer")
	again, err := b.Address(t.Context(), org)
	if err != nil || again.Wallet != wallet.String() || b.chain.Wallets.Asked() != 1 {
		t.Errorf("the address is %+v after %d derivations, %v; want %s after one", again, b.chain.Wallets.Asked(), err, wallet)
	}
	account, err := chain.AssociatedTokenAccount(wallet, b.chain.Mint, chain.TokenProgram)
	if err != nil || again.TokenAccount != account.String() {
		t.Errorf("the token account is %s, want %s, %v", again.TokenAccount, account, err)
	}
}

// TestCrashBetweenTheSteps makes the database fail at each step, as a crash would, and expects one credit after the restart.
func TestCrashBetweenTheSteps(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	org, wallet := b.customer("Customer")
	b.exec(`CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'crash'; END $$`)
	var want money.Amount
	for _, step := range []string{"INSERT ON ledger_transfers", "INSERT ON deposits", "UPDATE ON watched_accounts"} {
		b.send(wallet, token)
		b.exec(`CREATE TRIGGER crash BEFORE ` + step + ` FOR EACH ROW EXECUTE FUNCTION crash()`)
		if err := b.Poll(t.Context()); err == nil || !strings.Contains(err.Error(), "crash") {
			t.Fatalf("%s: the poll gave %v, want the crash", step, err)
		}
		b.wantSound()
		_, table, _ := strings.Cut(step, " ON ")
		b.exec(`DROP TRIGGER crash ON ` + table)
		want += token
		for range 2 {
			b.poll()
			b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), want)
		}
	}
	b.wantSound()
}

func TestEverythingElseGoesIntoSuspense(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	org, wallet := b.customer("Customer")
	dust := b.send(wallet, 9_999)
	wrong, err := b.chain.CreateToken(t.Context(), chain.Token2022Program, 9)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.chain.MintOther(t.Context(), wrong, wallet, 1_500_000_000); err != nil {
		t.Fatal(err)
	}
	huge, err := b.chain.CreateToken(t.Context(), chain.TokenProgram, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.chain.MintOther(t.Context(), huge, wallet, 1<<64-1); err != nil { // more than the ledger can count
		t.Fatal(err)
	}
	for range 2 {
		b.poll()
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 0)
	b.wantBalance(ledger.Of(ledger.ChainDeposits, org), 9_999)
	b.wantBalance(ledger.Platform(ledger.Suspense), 9_999)
	foreign := ledger.New(money.Currency{Mint: wrong.String(), Decimals: 9})
	if got := b.balance(foreign, ledger.Platform(ledger.Suspense)); got != 1_500_000_000 {
		t.Errorf("%d of the foreign token are in suspense", got)
	}
	if got := b.balance(foreign, ledger.Platform(ledger.ChainSuspense)); got != 1_500_000_000 {
		t.Errorf("%d of the foreign token are on the chain, says the ledger", got)
	}
	b.wantSound()
	arrivals, _ := b.Collectors()[0].(*prometheus.CounterVec)
	if counted := testutil.ToFloat64(arrivals.WithLabelValues("suspense")); counted != 3 {
		t.Errorf("%v arrivals in suspense are counted, want 3", counted)
	}

	list, err := b.Suspense(t.Context(), ids.Deposit{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, d := range list {
		got[d.Amount] = d.Reason
		if d.Org != org || d.State != "suspense" || (d.Mint == b.chain.Mint.String()) != (d.Signature == dust) {
			t.Errorf("in suspense is %+v", d)
		}
	}
	for amount, reason := range map[string]string{"0.009999": "minimum of 0.010000 USDC", "1.500000000": "another token", "18446744073709551615": "another token"} {
		if !strings.Contains(got[amount], reason) {
			t.Errorf("%s is in suspense because %q, want %q", amount, got[amount], reason)
		}
	}
	if len(got) != 3 {
		t.Errorf("in suspense are %v", got)
	}
}

func TestHijackedDepositAccountIsNotCredited(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	org, wallet := b.customer("Customer")
	b.send(wallet, token)
	b.poll()
	if err := b.chain.HandOver(t.Context(), b.chain.Wallets.Key(org), b.chain.Engineer.Address); err != nil {
		t.Fatal(err)
	}
	account, err := chain.AssociatedTokenAccount(wallet, b.chain.Mint, chain.TokenProgram)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.chain.MintTo(t.Context(), b.chain.Engineer.Address, 3*token); err != nil {
		t.Fatal(err)
	}
	b.chain.TransferToAccount(t, account, 3*token)
	b.poll()
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), token)
	list, err := b.Suspense(t.Context(), ids.Deposit{}, 0)
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Reason, "another wallet") {
		t.Errorf("in suspense is %+v, %v", list, err)
	}
	b.wantSound()
}

func TestTreasuryFundingIsCapital(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.poll()
	b.wantBalance(ledger.Platform(ledger.ChainTreasury), capital)
	b.wantBalance(ledger.Platform(ledger.PlatformCapital), capital)
	b.send(b.chain.Treasury, 1) // no dust here
	b.poll()
	b.wantBalance(ledger.Platform(ledger.PlatformCapital), capital+1)
	b.wantSound()
}

// TestLeaderIsWokenByTheChain polls every hour, so only the websocket can tell of the second deposit, which goes to an account
// that the service did not know when it began.
func TestLeaderIsWokenByTheChain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	org, wallet := b.customer("Customer")
	b.exec(`INSERT INTO leadership (role, holder, term, expires_at) VALUES ($1, 'test', 3, now() + interval '1 hour')`, leader.RoleSettlement)
	if err := b.Run(t.Context(), 2); err != nil { // an old term returns at once
		t.Fatal(err)
	}
	b.wantBalance(ledger.Platform(ledger.PlatformCapital), 0)

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, 3) }()
	for i := range 2 {
		b.send(wallet, token)
		want := money.Amount(i+1) * token
		testkit.Eventually(t, 30*time.Second, func() (bool, string) {
			return b.balance(b.book, ledger.Of(ledger.CustomerAvailable, org)) == want, "the deposit is not credited"
		})
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
