package sweeps

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/localchain"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
	"github.com/muster-gpu/muster/settlement/signer"
)

func TestMain(m *testing.M) { localchaintest.Main(m) }

const (
	token    = 1_000_000 // base units
	capital  = 1_000 * token
	deposit  = 5 * token
	term     = 7
	patience = 60 * time.Second
)

// bench is a database, a furnished chain, a signer and a customer who has deposited.
type bench struct {
	testing.TB
	pool     *pgxpool.Pool
	book     *ledger.Ledger
	local    *localchain.Chain
	keys     *signer.Client
	deposits *deposits.Service
	customer ids.Org
	address  deposits.Address
	log      *slog.Logger
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{TB: t, pool: testkit.DB(t), customer: ids.New[ids.Org](), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	dir := t.TempDir()
	files := signer.Options{
		Socket: filepath.Join(dir, "s"), KeyFile: filepath.Join(dir, "key"), JournalDir: filepath.Join(dir, "journal"),
		PolicyFile: filepath.Join(dir, "policy"), Log: b.log,
	}
	treasury, err := signer.Init(files.KeyFile)
	b.check(err)
	b.local = localchaintest.New(t, treasury, capital)
	b.check(b.local.Policy().WriteFile(files.PolicyFile))
	b.serveSigner(files)
	b.keys = signer.NewClient(files.Socket)
	t.Cleanup(b.keys.Close)
	b.book = ledger.New(b.local.Currency())
	b.deposits, err = deposits.New(b.pool, b.book, b.local.Client(), b.keys, deposits.Config{
		TokenProgram: chain.TokenProgram, Treasury: treasury, Minimum: 1, Interval: time.Hour,
	}, b.log)
	b.check(err)
	b.exec(`INSERT INTO organisations (id, name) VALUES ($1, 'Customer')`, b.customer)
	b.exec(`INSERT INTO leadership (role, holder, term, expires_at) VALUES ('settlement', 'test', $1, 'infinity')`, term)
	b.address, err = b.deposits.Address(t.Context(), b.customer)
	b.check(err)
	b.pay(deposit)
	return b
}

func (b *bench) serveSigner(files signer.Options) {
	b.Helper()
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
}

func (b *bench) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) exec(sql string, args ...any) {
	b.Helper()
	_, err := b.pool.Exec(b.Context(), sql, args...)
	b.check(err)
}

// pay sends tokens to the customer's deposit address and has them recorded.
func (b *bench) pay(amount uint64) {
	b.Helper()
	wallet, err := chain.ParseAddress(b.address.Wallet)
	b.check(err)
	_, err = b.local.MintTo(b.Context(), wallet, amount)
	b.check(err)
	b.check(b.deposits.Poll(b.Context()))
}

func (b *bench) service(cluster Chain) *Service {
	b.Helper()
	s, err := New(b.pool, b.book, cluster, b.keys, Options{
		Minimum: token, Poll: 20 * time.Millisecond, PlanEvery: 50 * time.Millisecond, Rebroadcast: 200 * time.Millisecond,
		FreezeAfter: 500 * time.Millisecond, Log: b.log,
	})
	b.check(err)
	return s
}

// run drives a service until a sweep is final, or until the service is stopped at a step.
func (b *bench) run(s *Service) {
	b.Helper()
	planned := time.Time{}
	testkit.Eventually(b, patience, func() (bool, string) {
		if time.Since(planned) > s.options.PlanEvery {
			planned = time.Now()
			if err := s.plan(b.Context(), term); killed(err) {
				return true, ""
			} else if err != nil {
				return false, err.Error()
			}
		}
		if err := s.drive(b.Context(), term); killed(err) {
			return true, ""
		} else if err != nil {
			return false, err.Error()
		}
		var reached int
		b.check(b.pool.QueryRow(b.Context(), `SELECT count(*) FROM deposit_sweeps WHERE state = 'finalized'`).Scan(&reached))
		return reached > 0, "no sweep is final"
	})
}

var errKilled = errors.New("killed")

func (b *bench) count(sql string) (n int) {
	b.Helper()
	b.check(b.pool.QueryRow(b.Context(), sql).Scan(&n))
	return n
}

func (b *bench) balance(a ledger.Account) money.Amount {
	b.Helper()
	balance, err := b.book.Balance(b.Context(), b.pool, a)
	b.check(err)
	return balance
}

func (b *bench) onChain(account string) uint64 {
	b.Helper()
	address, err := chain.ParseAddress(account)
	b.check(err)
	balance, err := b.local.Client().TokenBalance(b.Context(), address, 0)
	b.check(err)
	return balance.Amount
}

// wantSweptOnce compares chain and books after the deposit was swept, and has the deposits' poller look at the treasury too.
func (b *bench) wantSweptOnce() {
	b.Helper()
	b.check(b.deposits.Poll(b.Context()))
	treasury := b.local.TreasuryTokenAccount.String()
	if left, got := b.onChain(b.address.TokenAccount), b.onChain(treasury); left != 0 || got != capital+deposit {
		b.Errorf("the deposit account holds %d, the treasury %d", left, got)
	}
	for account, want := range map[ledger.Account]money.Amount{
		ledger.Of(ledger.ChainDeposits, b.customer): 0, ledger.Of(ledger.CustomerAvailable, b.customer): deposit,
		ledger.Platform(ledger.ChainTreasury): capital + deposit, ledger.Platform(ledger.PlatformCapital): capital,
	} {
		if got := b.balance(account); got != want {
			b.Errorf("the ledger says %d of %s, want %d", got, account.Kind, want)
		}
	}
	if n := b.count(`SELECT count(*) FROM deposit_sweeps WHERE state = 'finalized'`); n != 1 {
		b.Errorf("%d sweeps are final", n)
	}
	b.check(b.book.Check(b.Context(), b.pool))
}

func TestADepositIsSweptIntoTheTreasury(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run(b.service(b.local.Client()))
	b.wantSweptOnce()
	// Less than the minimum stays where it is.
	b.pay(token - 1)
	s := b.service(b.local.Client())
	b.check(s.plan(t.Context(), term))
	if n := b.count(`SELECT count(*) FROM deposit_sweeps`); n != 1 {
		t.Errorf("%d sweeps were planned", n)
	}
}

// TestASweepThatDiesAnywhereHappensOnce stops the service at every step and has another go on.
func TestASweepThatDiesAnywhereHappensOnce(t *testing.T) {
	t.Parallel()
	for _, step := range Steps() {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			dying, died := b.service(b.local.Client()), false
			dying.options.Failpoint = func(at string) error {
				if at == step {
					died = true
					return errKilled
				}
				return nil
			}
			b.run(dying)
			if !died {
				t.Fatal("the service did not come to this step")
			}
			b.run(b.service(b.local.Client()))
			b.wantSweptOnce()
		})
	}
}

// refusingSigner signs nothing.
type refusingSigner struct{ *signer.Client }

func (refusingSigner) Sweep(context.Context, []byte, signer.Sweep) ([2]solana.Signature, error) {
	return [2]solana.Signature{}, &signer.Refusal{Rule: signer.RuleSweepCap, Message: "too much today"}
}

func TestARefusedSweepFreesItsNonceAndIsNotPlannedAgainAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	refused := b.service(b.local.Client())
	refused.signer = refusingSigner{b.keys}
	for range 3 {
		b.check(refused.plan(t.Context(), term))
		b.check(refused.drive(t.Context(), term))
	}
	if n := b.count(`SELECT count(*) FROM deposit_sweeps WHERE state = 'failed' AND reason LIKE '%too much today%'`); n != 1 {
		t.Errorf("%d sweeps have failed", n)
	}
	b.exec(`UPDATE deposit_sweeps SET ended_at = ended_at - interval '2 hours'`)
	b.run(b.service(b.local.Client()))
	b.wantSweptOnce()
}

// deafChain takes transactions and says that it did not.
type deafChain struct{ *chain.Client }

func (c deafChain) Send(ctx context.Context, wire []byte) (chain.Signature, error) {
	_, err := c.Client.Send(ctx, wire)
	return chain.Signature{}, errors.Join(err, chain.ErrUnavailable)
}

func TestAnAnswerThatIsLostChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run(b.service(deafChain{b.local.Client()}))
	b.wantSweptOnce()
}

func TestTwoServicesAtOnceSweepOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for range 2 {
		s := b.service(b.local.Client())
		go func() { done <- s.Run(ctx, term) }()
	}
	testkit.Eventually(t, patience, func() (bool, string) {
		return b.count(`SELECT count(*) FROM deposit_sweeps WHERE state = 'finalized'`) == 1, "no sweep is final"
	})
	cancel()
	b.check(errors.Join(<-done, <-done))
	b.wantSweptOnce()
}

func TestAPassedTermPlansNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.local.Client())
	if err := s.plan(t.Context(), term-1); !leader.TermPassed(err) {
		t.Errorf("planned under a passed term: %v", err)
	}
	if n := b.count(`SELECT count(*) FROM deposit_sweeps`); n != 0 {
		t.Errorf("%d sweeps were planned", n)
	}
}

// TestANonceIsPinnedByOneOfSweepsAndPayouts: the schema refuses what the services avoid.
func TestANonceIsPinnedByOneOfSweepsAndPayouts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.local.Client())
	b.check(s.plan(t.Context(), term))
	var nonce string
	b.check(b.pool.QueryRow(t.Context(), `SELECT nonce_account FROM deposit_sweeps`).Scan(&nonce))
	_, err := b.pool.Exec(t.Context(), `
		INSERT INTO payout_batches (id, mint, total, payee_count, nonce_account, nonce_value) VALUES ($1, $2, 1, 1, $3, $3)`,
		ids.New[ids.Batch](), b.local.Mint.String(), nonce)
	if !isUniqueViolation(err) {
		t.Errorf("a batch took the nonce of a sweep: %v", err)
	}
	for _, account := range b.local.Nonces {
		if account.String() == nonce {
			continue
		}
		b.exec(`INSERT INTO payout_batches (id, mint, total, payee_count, nonce_account, nonce_value) VALUES ($1, $2, 1, 1, $3, $3)`,
			ids.New[ids.Batch](), b.local.Mint.String(), account.String())
	}
	if _, found, err := s.freeNonce(t.Context(), b.addresses()); found || err != nil {
		t.Errorf("a nonce is free beside a sweep and batches that hold all: %v", err)
	}
}

func (b *bench) addresses() signer.Addresses {
	b.Helper()
	keys, err := b.keys.Addresses(b.Context())
	b.check(err)
	return keys
}

// TestALedgerAheadOfTheChainIsNotSwept: it is for reconciliation to find out why.
func TestALedgerAheadOfTheChainIsNotSwept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.exec(`UPDATE deposit_addresses SET token_account = $1`, func() string {
		account, err := chain.AssociatedTokenAccount(b.local.Owner.Address, b.local.Mint, chain.TokenProgram)
		b.check(err)
		_, err = b.local.CreateTokenAccount(t.Context(), b.local.Owner.Address)
		b.check(err)
		return account.String()
	}())
	if err := b.service(b.local.Client()).plan(t.Context(), term); err == nil {
		t.Error("planned a sweep of more than there is")
	}
	if n := b.count(`SELECT count(*) FROM deposit_sweeps`); n != 0 {
		t.Errorf("%d sweeps were planned", n)
	}
}

// TestAccountsThatCannotBeSweptDoNotHoldUpTheOthers has more of them, with more in them by the ledger, than sweeps may live.
func TestAccountsThatCannotBeSweptDoNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for range MaxLive + 1 {
		key, err := solana.NewRandomPrivateKey()
		b.check(err)
		account, err := b.local.CreateTokenAccount(t.Context(), key.PublicKey())
		b.check(err)
		org := ids.New[ids.Org]()
		b.exec(`INSERT INTO organisations (id, name) VALUES ($1, 'Ahead of the chain')`, org)
		b.exec(`INSERT INTO deposit_addresses (org_id, wallet, token_account) VALUES ($1, $2, $3)`, org, key.PublicKey().String(), account.String())
		b.check(pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
			_, err := b.book.Post(t.Context(), tx, ledger.Entry{Key: "invented:" + org.String(), Kind: "test", Legs: []ledger.Leg{{
				Debit: ledger.Of(ledger.ChainDeposits, org), Credit: ledger.Of(ledger.CustomerAvailable, org), Amount: 2 * deposit,
			}}})
			return err
		}))
	}
	if err := b.service(b.local.Client()).plan(t.Context(), term); err == nil {
		t.Error("nothing was said of those that cannot be swept")
	}
	if n := b.count(`SELECT count(*) FROM deposit_sweeps`); n != 1 {
		t.Errorf("%d sweeps were planned, want the customer's", n)
	}
}
