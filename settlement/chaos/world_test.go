package chaos_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
	"github.com/muster-gpu/muster/settlement/chaos/proxy"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/localchain"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
	"github.com/muster-gpu/muster/settlement/signer"
)

var seedsPerStep = flag.Int("chaos.seeds", 1, "runs for each step at which a process is killed")

func TestMain(m *testing.M) {
	flag.Parse()
	localchaintest.Main(m)
}

const (
	token     = 1_000_000 // base units
	capital   = 1_000 * token
	firstTerm = 7
	// patience bounds every wait for settlement to come through.
	patience = 90 * time.Second
	// rpcTimeout is short, so that an answer that never comes is given up soon.
	rpcTimeout  = 400 * time.Millisecond
	connections = 8
)

// world is a database, a part of the local chain reached through two faulty providers, a signer and people.
type world struct {
	testing.TB
	seed      uint64
	dice      *rand.Rand
	database  string // its URL
	pool      *pgxpool.Pool
	book      *ledger.Ledger
	local     *localchain.Chain
	truth     *chain.Client // past the providers
	providers [2]*proxy.Proxy
	client    *chain.Client // through them
	keys      *signer.Client
	files     signer.Options
	log       *slog.Logger
	drafter   ids.User
	approver  ids.User
	payees    []payee
	income    uint64 // what the treasury is to have beside its capital
	term      int64

	stopSigner func()
}

// payee is who is paid: an owner what it earned, a customer what it withdraws, a stranger what is refunded.
type payee struct {
	org    ids.Org
	wallet chain.Address
	from   ledger.Account // where the money is until it is paid
	earned money.Amount
}

// inSeveral has the signer's cap spread a run's payees over several batches, which a worker takes through their steps in groups.
func inSeveral(policy *signer.Policy) { policy.MaxBaseUnitsPerBatch = 12 * token }

func newWorld(t testing.TB, seed uint64, change ...func(*signer.Policy)) *world {
	t.Helper()
	w := &world{
		TB: t, seed: seed, dice: rand.New(rand.NewPCG(seed, 0)),
		database: testkit.DatabaseURL(t), log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		drafter: ids.New[ids.User](), approver: ids.New[ids.User](), term: firstTerm,
	}
	dir := t.TempDir()
	w.files = signer.Options{
		Socket: filepath.Join(dir, "s"), KeyFile: filepath.Join(dir, "key"), JournalDir: filepath.Join(dir, "journal"),
		PolicyFile: filepath.Join(dir, "policy"), Log: w.log,
	}
	treasury, err := signer.Init(w.files.KeyFile)
	w.check(err)
	w.local = localchaintest.New(t, treasury, capital)
	w.truth = w.local.Client()
	policy := w.local.Policy()
	for _, f := range change {
		f(&policy)
	}
	w.check(policy.WriteFile(w.files.PolicyFile))
	w.startSigner()
	w.keys = signer.NewClient(w.files.Socket)
	t.Cleanup(w.keys.Close)
	w.book = ledger.New(w.local.Currency())
	w.connect()
	w.pool = w.newPool(nil)
	w.fillDatabase()
	return w
}

// connect makes the providers and the client that compares them.
func (w *world) connect() {
	w.Helper()
	var urls []string
	for i := range w.providers {
		p, err := proxy.Start(localchaintest.URL(), w.seed+uint64(i))
		w.check(err)
		w.Cleanup(func() { w.check(p.Close()) })
		w.providers[i], urls = p, append(urls, p.URL())
	}
	var err error
	w.client, err = chain.New(chain.Config{URLs: urls, WebsocketURL: localchaintest.WebsocketURL(), Timeout: rpcTimeout})
	w.check(err)
	w.Cleanup(func() { w.check(w.client.Close()) })
}

// newPool is another process's pool on the world's database; change may be nil.
func (w *world) newPool(change func(*pgxpool.Config)) *pgxpool.Pool {
	w.Helper()
	config, err := pgxpool.ParseConfig(w.database)
	w.check(err)
	config.MaxConns = connections
	if change != nil {
		change(config)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	w.check(err)
	w.Cleanup(pool.Close)
	return pool
}

func (w *world) fillDatabase() {
	w.Helper()
	for user, wallet := range map[ids.User]string{w.drafter: "drafter", w.approver: "approver"} {
		w.exec(`INSERT INTO users (id, wallet_address) VALUES ($1, $2)`, user, wallet)
	}
	w.lead(w.term)
	w.post("capital", ledger.Leg{
		Debit: ledger.Platform(ledger.ChainTreasury), Credit: ledger.Platform(ledger.PlatformCapital), Amount: capital,
	})
}

// lead lets another process take the settlement lead.
func (w *world) lead(term int64) {
	w.Helper()
	w.exec(`
		INSERT INTO leadership (role, holder, term, expires_at) VALUES ('settlement', 'chaos', $1, 'infinity')
		ON CONFLICT (role) DO UPDATE SET term = EXCLUDED.term`, term)
	w.term = term
}

func (w *world) post(key string, legs ...ledger.Leg) {
	w.Helper()
	w.check(pgx.BeginFunc(w.Context(), w.pool, func(tx pgx.Tx) error {
		_, err := w.book.Post(w.Context(), tx, ledger.Entry{Key: key, Kind: "test", Legs: legs})
		return err
	}))
}

// earn makes owners of random earnings; the last has no token account yet.
func (w *world) earn(owners int) {
	w.Helper()
	for i := range owners {
		key, err := solana.NewRandomPrivateKey()
		w.check(err)
		org := ids.New[ids.Org]()
		p := payee{org: org, wallet: key.PublicKey(), from: ledger.Of(ledger.OwnerPayable, org), earned: token + money.Amount(w.dice.IntN(10*token))}
		if i < owners-1 {
			_, err := w.local.CreateTokenAccount(w.Context(), p.wallet)
			w.check(err)
		}
		w.exec(`INSERT INTO organisations (id, name, payout_address) VALUES ($1, $2, $3)`, p.org, fmt.Sprintf("owner %d", i), p.wallet.String())
		w.post("earned:"+p.org.String(), ledger.Leg{
			Debit: ledger.Platform(ledger.PlatformCapital), Credit: p.from, Amount: p.earned,
		})
		w.payees = append(w.payees, p)
	}
}

// holds is what a wallet has on the chain.
func (w *world) holds(wallet chain.Address) uint64 {
	w.Helper()
	account, err := chain.AssociatedTokenAccount(wallet, w.local.Mint, chain.TokenProgram)
	w.check(err)
	balance, err := w.truth.TokenBalance(w.Context(), account, 0)
	if errors.Is(err, chain.ErrNotFound) {
		return 0
	}
	w.check(err)
	return balance.Amount
}

func (w *world) balance(account ledger.Account) money.Amount {
	w.Helper()
	balance, err := w.book.Balance(w.Context(), w.pool, account)
	w.check(err)
	return balance
}

func (w *world) startSigner() {
	w.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.Context()))
	ready, done := make(chan struct{}), make(chan error, 1)
	options := w.files
	options.Ready = func() { close(ready) }
	go func() { done <- signer.Serve(ctx, options) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		w.Fatal(err)
	}
	stopped := false
	w.stopSigner = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			w.Logf("the signer was stopped in the middle of something: %v", err) // as a kill would, which is what this is for
		}
	}
	w.Cleanup(w.stopSigner)
}

// treasuryKey reads the signer's key, as a thief would.
func (w *world) treasuryKey() solana.PrivateKey {
	w.Helper()
	text, err := os.ReadFile(w.files.KeyFile)
	w.check(err)
	var content struct {
		Seed []byte `json:"treasury_seed"`
	}
	w.check(json.Unmarshal(text, &content))
	return solana.PrivateKey(ed25519.NewKeyFromSeed(content.Seed))
}

func (w *world) exec(sql string, arguments ...any) {
	w.Helper()
	_, err := w.pool.Exec(w.Context(), sql, arguments...)
	w.check(err)
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("seed %d: %v", w.seed, err)
	}
}

// rolls is true for one throw in n.
func (w *world) rolls(n int) bool { return w.dice.IntN(n) == 0 }

// weather lets each of the faults befall a part of the calls, or none, as the seed will have it. Lies, which only a comparison can
// find, are the second provider's.
func (w *world) weather() {
	for i, p := range w.providers {
		rules := []proxy.Rule{
			{Fault: proxy.LoseAnswer, Methods: []string{"sendTransaction"}, Chance: 0.3},
			{Fault: proxy.Timeout, Methods: []string{"sendTransaction"}, Chance: 0.1},
			{Fault: proxy.Late, Chance: 0.3, Delay: time.Duration(20+w.dice.IntN(400)) * time.Millisecond},
			{Fault: proxy.Duplicate, Chance: 0.3},
			{Fault: proxy.Swallow, Chance: 0.2},
			{Fault: proxy.Reject, Chance: 0.2},
			{Fault: proxy.Busy, Chance: 0.04},
			{Fault: proxy.Gateway, Chance: 0.04},
			{Fault: proxy.Malformed, Chance: 0.04},
			{Fault: proxy.CutBody, Chance: 0.04},
			{Fault: proxy.Drop, Chance: 0.04},
			{Fault: proxy.Unhealthy, Chance: 0.04},
			{Fault: proxy.Behind, Chance: 0.04},
			{Fault: proxy.Timeout, Chance: 0.02},
			{Fault: proxy.Unsupported, Chance: 0.1, Limit: 2},
		}
		if i == 1 {
			rules = append(rules,
				proxy.Rule{Fault: proxy.WrongBalance, Chance: 0.2, Limit: 5},
				proxy.Rule{Fault: proxy.WrongNonce, Chance: 0.2, Limit: 5},
				proxy.Rule{Fault: proxy.Prune, Chance: 0.2, Limit: 5})
			if w.rolls(3) {
				p.Lag(uint64(2 + w.dice.IntN(10)))
			}
		}
		chosen := rules[:0]
		for _, rule := range rules {
			if w.rolls(2) {
				chosen = append(chosen, rule)
			}
		}
		p.Use(chosen...)
	}
}

// clear ends all faults.
func (w *world) clear() {
	for _, p := range w.providers {
		p.Use()
		p.Lag(0)
	}
}
