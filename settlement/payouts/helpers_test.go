package payouts

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/localchain"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
	"github.com/muster-gpu/muster/settlement/signer"
	"github.com/muster-gpu/muster/settlement/txn"
)

func TestMain(m *testing.M) { localchaintest.Main(m) }

const (
	token   = 1_000_000 // base units
	capital = 1_000 * token
	term    = 7
	// patience bounds every wait for the chain.
	patience = 60 * time.Second
)

// bench is a database, a furnished chain and a signer, with two people.
type bench struct {
	pool     *pgxpool.Pool
	ledger   *ledger.Ledger
	local    *localchain.Chain
	cluster  *chain.Client
	keys     *signer.Client
	files    signer.Options
	log      *slog.Logger
	drafter  ids.User
	approver ids.User

	stopSigner func()
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	dir := t.TempDir()
	b.files = signer.Options{
		Socket: filepath.Join(dir, "s"), KeyFile: filepath.Join(dir, "key"), JournalDir: filepath.Join(dir, "journal"),
		PolicyFile: filepath.Join(dir, "policy"), Log: b.log,
	}
	treasury, err := signer.Init(b.files.KeyFile)
	check(t, err)
	b.local = localchaintest.New(t, treasury, capital)
	b.cluster = b.local.Client()
	check(t, b.local.Policy().WriteFile(b.files.PolicyFile))
	b.startSigner(t)
	b.keys = signer.NewClient(b.files.Socket)
	t.Cleanup(b.keys.Close)
	b.ledger = ledger.New(b.local.Currency())
	b.drafter, b.approver = ids.New[ids.User](), ids.New[ids.User]()
	b.pool = b.database(t)
	return b
}

// database makes a database with the bench's people, the lead and the treasury's capital in the books.
func (b *bench) database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := testkit.DB(t)
	for user, wallet := range map[ids.User]string{b.drafter: "drafter", b.approver: "approver"} {
		exec(t, pool, `INSERT INTO users (id, wallet_address) VALUES ($1, $2)`, user, wallet)
	}
	lead(t, pool, term)
	b.post(t, pool, "capital", ledger.Leg{
		Debit: ledger.Platform(ledger.ChainTreasury), Credit: ledger.Platform(ledger.PlatformCapital), Amount: capital,
	})
	return pool
}

func lead(t *testing.T, pool *pgxpool.Pool, term int64) {
	t.Helper()
	exec(t, pool, `
		INSERT INTO leadership (role, holder, term, expires_at) VALUES ('settlement', 'test', $1, 'infinity')
		ON CONFLICT (role) DO UPDATE SET term = EXCLUDED.term`, term)
}

func (b *bench) post(t *testing.T, pool *pgxpool.Pool, key string, legs ...ledger.Leg) {
	t.Helper()
	check(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := b.ledger.Post(t.Context(), tx, ledger.Entry{Key: key, Kind: "test", Legs: legs})
		return err
	}))
}

// owner is an organisation with earnings and a wallet.
type owner struct {
	id     ids.Org
	wallet solana.PrivateKey
}

func newOwner(t *testing.T) owner {
	t.Helper()
	key, err := solana.NewRandomPrivateKey()
	check(t, err)
	return owner{id: ids.New[ids.Org](), wallet: key}
}

func (o owner) address() chain.Address { return o.wallet.PublicKey() }

// earns makes an owner known to a database and credits earnings.
func (b *bench) earns(t *testing.T, pool *pgxpool.Pool, o owner, amount money.Amount) {
	t.Helper()
	exec(t, pool, `INSERT INTO organisations (id, name, payout_address) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING`,
		o.id, "owner "+o.id.String()[20:], o.address().String())
	b.post(t, pool, "earned:"+ids.New[ids.Lease]().String(), ledger.Leg{
		Debit: ledger.Platform(ledger.PlatformCapital), Credit: ledger.Of(ledger.OwnerPayable, o.id), Amount: amount,
	})
}

// owners makes n owners with one token each; withAccount gives them token accounts on the chain.
func (b *bench) owners(t *testing.T, n int, withAccount bool) []owner {
	t.Helper()
	owners := make([]owner, n)
	created := make(chan error, n)
	for i := range owners {
		owners[i] = newOwner(t)
		if !withAccount {
			created <- nil
		} else {
			go func() {
				_, err := b.local.CreateTokenAccount(t.Context(), owners[i].address())
				created <- err
			}()
		}
	}
	for range owners {
		check(t, <-created)
	}
	for _, o := range owners {
		b.earns(t, b.pool, o, token)
	}
	return owners
}

// service makes a payouts service that polls and retries fast.
func (b *bench) service(pool *pgxpool.Pool, cluster Chain) *Service {
	return New(pool, b.ledger, cluster, b.keys, Options{
		Poll: 20 * time.Millisecond, Rebroadcast: 200 * time.Millisecond, Retry: 50 * time.Millisecond,
		FreezeAfter: 500 * time.Millisecond, Log: b.log,
	})
}

// approved drafts everything payable and approves it.
func (b *bench) approved(t *testing.T, s *Service) []ids.Batch {
	t.Helper()
	batches, err := s.Draft(t.Context(), b.drafter)
	check(t, err)
	for _, id := range batches {
		check(t, s.Approve(t.Context(), id, b.approver))
	}
	return batches
}

// run drives a service until the test ends or stop is called; the worker's error is then returned.
func run(t *testing.T, s *Service, term int64) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, term) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() }) // tests that care ask themselves
	return stop
}

// reach waits until a batch is in a state.
func reach(t *testing.T, s *Service, id ids.Batch, state string) Batch {
	t.Helper()
	var batch Batch
	eventually(t, func() bool {
		var err error
		batch, err = s.Batch(t.Context(), id)
		check(t, err)
		if ended := batch.State == stateFinalized || batch.State == stateFailed || batch.State == stateFrozen; ended && batch.State != state {
			t.Fatalf("batch is %s, want %s: %s", batch.State, state, batch.StateReason)
		}
		return batch.State == state
	}, func() string {
		return "batch is " + batch.State + ", want " + state + ": " + batch.StateReason + batch.Attention
	})
	return batch
}

func eventually(t *testing.T, done func() bool, complain func() string) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-deadline.C:
			t.Fatal(complain())
		case <-ticker.C:
		}
	}
}

// holds is what a wallet's token account has on the chain.
func (b *bench) holds(t *testing.T, wallet chain.Address) uint64 {
	t.Helper()
	account, err := chain.AssociatedTokenAccount(wallet, b.local.Mint, chain.TokenProgram)
	check(t, err)
	balance, err := b.cluster.TokenBalance(t.Context(), account, 0)
	if errors.Is(err, chain.ErrNotFound) {
		return 0
	}
	check(t, err)
	return balance.Amount
}

// books is an owner's balance in the ledger.
func (b *bench) books(t *testing.T, pool *pgxpool.Pool, kind ledger.Kind, org ids.Org) money.Amount {
	t.Helper()
	balance, err := b.ledger.Balance(t.Context(), pool, ledger.Account{Kind: kind, Org: org})
	check(t, err)
	return balance
}

// wantPaidOnce compares chain and books after owners were paid one token each.
func (b *bench) wantPaidOnce(t *testing.T, owners ...owner) {
	t.Helper()
	for _, o := range owners {
		if held := b.holds(t, o.address()); held != token {
			t.Errorf("the owner holds %d base units, want %d", held, token)
		}
		if due := b.books(t, b.pool, ledger.OwnerPayable, o.id) + b.books(t, b.pool, ledger.PayoutInFlight, o.id); due != 0 {
			t.Errorf("the ledger still owes the owner %d", due)
		}
	}
	left := b.holds(t, b.local.Treasury)
	if booked := b.books(t, b.pool, ledger.ChainTreasury, ids.Org{}); uint64(booked) != left || left != capital-uint64(len(owners))*token {
		t.Errorf("the treasury holds %d, the ledger says %d, %d owners were paid", left, booked, len(owners))
	}
	check(t, b.ledger.Check(t.Context(), b.pool))
}

func (b *bench) startSigner(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, done := make(chan struct{}), make(chan error, 1)
	options := b.files
	options.Ready = func() { close(ready) }
	go func() { done <- signer.Serve(ctx, options) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	stopped := false
	b.stopSigner = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(b.stopSigner)
}

// treasuryKey reads the signer's key, as a thief would.
func (b *bench) treasuryKey(t *testing.T) solana.PrivateKey {
	t.Helper()
	text, err := os.ReadFile(b.files.KeyFile)
	check(t, err)
	var content struct {
		Seed []byte `json:"treasury_seed"`
	}
	check(t, json.Unmarshal(text, &content))
	return solana.PrivateKey(ed25519.NewKeyFromSeed(content.Seed))
}

// advanceNonce consumes a nonce with a transaction of its own and waits until that is final.
func (b *bench) advanceNonce(t *testing.T, account chain.Address) {
	t.Helper()
	key := b.treasuryKey(t)
	before, err := b.cluster.Nonce(t.Context(), chain.Finalized, 0, account)
	check(t, err)
	treasury, err := txn.New(txn.Keys{
		Treasury: key.PublicKey(), TokenAccount: b.local.TreasuryTokenAccount, Mint: b.local.Mint, TokenProgram: chain.TokenProgram,
	}, nil)
	check(t, err)
	message, err := treasury.Cancel(txn.Legacy, &txn.Cancel{Nonce: txn.Nonce{Account: account, Value: before.Value}, Budget: txn.Budget{Units: 10_000}})
	check(t, err)
	signature, err := key.Sign(message)
	check(t, err)
	wire, err := txn.Join(message, signature)
	check(t, err)
	_, err = b.cluster.Send(t.Context(), wire)
	check(t, err)
	eventually(t, func() bool {
		now, err := b.cluster.Nonce(t.Context(), chain.Finalized, 0, account)
		check(t, err)
		return now.Value != before.Value
	}, func() string { return "the nonce did not advance" })
}

// age lets trial runs be older than they are.
func (b *budgets) age(by time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for of, known := range b.known {
		known.at = known.at.Add(-by)
		b.known[of] = known
	}
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, arguments ...any) {
	t.Helper()
	_, err := pool.Exec(t.Context(), sql, arguments...)
	check(t, err)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// faulty is a cluster that delegates, but for what a test puts in place of Send.
type faulty struct {
	Chain
	send func(ctx context.Context, wire []byte) (chain.Signature, error)
}

func (f *faulty) Send(ctx context.Context, wire []byte) (chain.Signature, error) {
	return f.send(ctx, wire)
}
