package proxy_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/chaos/proxy"
	"github.com/muster-gpu/muster/settlement/internal/chaintest"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
)

func TestMain(m *testing.M) { localchaintest.Main(m) }

const (
	seed      = 7
	patience  = 30 * time.Second
	impatient = 300 * time.Millisecond // of the client, where an answer never comes
)

// bench is a client that reaches the real chain through a proxy.
type bench struct {
	*proxy.Proxy
	client  *chain.Client
	local   *chaintest.Chain
	account chain.Address // the treasury's token account
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{local: chaintest.Start(t)}
	b.account = b.local.TreasuryTokenAccount
	b.Proxy = start(t, seed)
	var err error
	b.client, err = chain.New(chain.Config{URL: b.URL(), WebsocketURL: localchaintest.WebsocketURL(), Timeout: 5 * time.Second})
	check(t, err)
	t.Cleanup(func() { check(t, b.client.Close()) })
	return b
}

func start(t *testing.T, seed uint64) *proxy.Proxy {
	t.Helper()
	p, err := proxy.Start(localchaintest.URL(), seed)
	check(t, err)
	t.Cleanup(func() { check(t, p.Close()) })
	return p
}

// hurry makes the client give up soon.
func (b *bench) hurry(t *testing.T) {
	t.Helper()
	client, err := chain.New(chain.Config{URL: b.URL(), Timeout: impatient})
	check(t, err)
	t.Cleanup(func() { check(t, client.Close()) })
	b.client = client
}

// transfer signs a transfer of one base unit to a fresh wallet's account, and returns its bytes, signature and destination.
func (b *bench) transfer(t *testing.T) (wire []byte, signature chain.Signature, to chain.Address) {
	t.Helper()
	key, err := solana.NewRandomPrivateKey()
	check(t, err)
	to, err = b.local.CreateTokenAccount(t.Context(), key.PublicKey())
	check(t, err)
	blockhash, _, err := b.local.Client().LatestBlockhash(t.Context(), chain.Confirmed)
	check(t, err)
	const transfer = 3 // the token program's plain Transfer
	instruction := solana.NewInstruction(chain.TokenProgram, solana.AccountMetaSlice{
		solana.Meta(b.account).WRITE(), solana.Meta(to).WRITE(), solana.Meta(b.local.Treasury).SIGNER(),
	}, []byte{transfer, 1, 0, 0, 0, 0, 0, 0, 0})
	transaction, err := solana.NewTransaction([]solana.Instruction{instruction}, blockhash, solana.TransactionPayer(b.local.Treasury))
	check(t, err)
	signatures, err := transaction.Sign(func(solana.PublicKey) *solana.PrivateKey { return &b.local.TreasuryKey })
	check(t, err)
	wire, err = transaction.MarshalBinary()
	check(t, err)
	return wire, signatures[0], to
}

func (b *bench) lands(t *testing.T, signature chain.Signature) {
	t.Helper()
	testkit.Eventually(t, patience, func() (bool, string) {
		ended, err := b.local.Client().Finalized(t.Context(), signature)
		check(t, err)
		failure, final := ended[signature]
		return final && failure == "", "the transaction has not landed: " + failure
	})
}

func (b *bench) holds(t *testing.T, account chain.Address, want uint64) {
	t.Helper()
	balance, err := b.local.Client().TokenBalance(t.Context(), account, 0)
	if err != nil || balance.Amount != want {
		t.Errorf("the account holds %d, want %d: %v", balance.Amount, want, err)
	}
}

func TestWithoutRulesItChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	through, err := b.client.TokenBalance(t.Context(), b.account, 0)
	check(t, err)
	if through.Amount != chaintest.Capital || b.Calls("getMultipleAccounts") != 1 {
		t.Errorf("read %+v with %d calls", through, b.Calls("getMultipleAccounts"))
	}
	wire, signature, to := b.transfer(t)
	sent, err := b.client.Send(t.Context(), wire)
	if err != nil || sent != signature {
		t.Fatalf("sent %s: %v", sent, err)
	}
	b.lands(t, signature)
	b.holds(t, to, 1)
}

func TestATransactionWhoseAnswerIsLostLands(t *testing.T) {
	t.Parallel()
	for _, fault := range []proxy.Fault{proxy.LoseAnswer, proxy.Timeout, proxy.CutBody, proxy.Malformed} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.hurry(t)
			wire, signature, to := b.transfer(t)
			b.Use(proxy.Rule{Fault: fault, Limit: 1})
			if _, err := b.client.Send(t.Context(), wire); !errors.Is(err, chain.ErrUnavailable) {
				t.Errorf("the caller was told %v", err)
			}
			b.lands(t, signature)
			b.holds(t, to, 1)
		})
	}
}

func TestATransactionThatIsKeptFromTheChainDoesNotLand(t *testing.T) {
	t.Parallel()
	for fault, accepted := range map[proxy.Fault]bool{
		proxy.Drop: false, proxy.Busy: false, proxy.Gateway: false, proxy.Unhealthy: false, proxy.Reject: false, proxy.Swallow: true,
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			wire, signature, to := b.transfer(t)
			b.Use(proxy.Rule{Fault: fault, Methods: []string{"sendTransaction"}})
			sent, err := b.client.Send(t.Context(), wire)
			if accepted != (err == nil && sent == signature) || b.Injected(fault) != 1 {
				t.Errorf("sent %s: %v", sent, err)
			}
			other, otherSignature, _ := b.transfer(t)
			_, err = b.local.Client().Send(t.Context(), other)
			check(t, err)
			b.lands(t, otherSignature) // so would the first have by now
			b.holds(t, to, 0)
		})
	}
}

func TestALateTransactionIsAnsweredAtOnceAndLandsAfterwards(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	wire, signature, to := b.transfer(t)
	b.Use(proxy.Rule{Fault: proxy.Late, Delay: 200 * time.Millisecond})
	sent, err := b.client.Send(t.Context(), wire)
	if err != nil || sent != signature {
		t.Fatalf("sent %s: %v", sent, err)
	}
	b.holds(t, to, 0)
	b.lands(t, signature)
	b.holds(t, to, 1)
}

func TestADuplicateLandsOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	wire, signature, to := b.transfer(t)
	b.Use(proxy.Rule{Fault: proxy.Duplicate})
	_, err := b.client.Send(t.Context(), wire)
	check(t, err)
	b.lands(t, signature)
	b.holds(t, to, 1)
}

func TestReadsOutliveTransientFaults(t *testing.T) {
	t.Parallel()
	for _, fault := range []proxy.Fault{
		proxy.Drop, proxy.LoseAnswer, proxy.Timeout, proxy.CutBody, proxy.Malformed, proxy.Busy, proxy.Gateway, proxy.Unhealthy, proxy.Behind,
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.hurry(t)
			b.Use(proxy.Rule{Fault: fault, Limit: 1})
			balance, err := b.client.TokenBalance(t.Context(), b.account, 0)
			if err != nil || balance.Amount != chaintest.Capital || b.Calls("getMultipleAccounts") != 2 {
				t.Errorf("read %+v with %d calls: %v", balance, b.Calls("getMultipleAccounts"), err)
			}
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Use(proxy.Rule{Fault: proxy.Busy, Limit: 1, Delay: time.Second})
	began := time.Now()
	_, err := b.client.Slot(t.Context(), chain.Finalized)
	if waited := time.Since(began); err != nil || waited < time.Second {
		t.Errorf("asked again after %s: %v", waited, err)
	}
}

func TestFaultsThatAreNoneOfTheNetworksAreTyped(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Use(proxy.Rule{Fault: proxy.Unsupported})
	if _, err := b.client.Movements(t.Context(), b.account, chain.Cursor{}); !errors.Is(err, chain.ErrUnsupportedVersion) || !chain.IsAlarm(err) {
		t.Errorf("a hidden version: %v", err)
	}
	b.Use(proxy.Rule{Fault: proxy.Behind})
	if _, err := b.client.TokenBalance(t.Context(), b.account, 1); !errors.Is(err, chain.ErrBehind) {
		t.Errorf("behind: %v", err)
	}
}

func TestLies(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	nonce := b.local.Nonces[0]
	truth, err := b.client.Nonce(t.Context(), chain.Finalized, 0, nonce)
	check(t, err)
	lamports, err := b.client.Lamports(t.Context(), b.local.Treasury)
	check(t, err)
	b.Use(proxy.Rule{Fault: proxy.WrongBalance})
	balance, err := b.client.TokenBalance(t.Context(), b.account, 0)
	if err != nil || balance.Amount != chaintest.Capital+1 {
		t.Errorf("balance %+v: %v", balance, err)
	}
	if more, err := b.client.Lamports(t.Context(), b.local.Treasury); err != nil || more != lamports+1 {
		t.Errorf("%d lamports: %v", more, err)
	}
	movements, err := b.client.Movements(t.Context(), b.account, chain.Cursor{})
	if err != nil || len(movements) != 1 || movements[0].Post != chaintest.Capital+1 {
		t.Errorf("movements %+v: %v", movements, err)
	}
	b.Use(proxy.Rule{Fault: proxy.WrongNonce})
	lie, err := b.client.Nonce(t.Context(), chain.Finalized, 0, nonce)
	if err != nil || lie.Value == truth.Value || lie.Authority != truth.Authority {
		t.Errorf("nonce %+v: %v", lie, err)
	}
	b.Use(proxy.Rule{Fault: proxy.Prune})
	signature := movements[0].Signature
	ended, err := b.client.Finalized(t.Context(), signature)
	if err != nil || len(ended) != 0 {
		t.Errorf("statuses %v: %v", ended, err)
	}
	if history, err := b.client.SignaturesFor(t.Context(), b.account, 0, 10); err != nil || len(history) != 0 {
		t.Errorf("history %v: %v", history, err)
	}
	if _, err := b.client.Transaction(t.Context(), signature); !errors.Is(err, chain.ErrNotFound) {
		t.Errorf("transaction: %v", err)
	}
}

func TestALaggingProviderShowsThePastAndKnowsItsSlot(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	before, err := b.client.TokenBalance(t.Context(), b.account, 0)
	check(t, err)
	const lag = 1_000_000 // further back than the test lasts, but never before the chain's beginning
	wire, signature, _ := b.transfer(t)
	_, err = b.client.Send(t.Context(), wire)
	check(t, err)
	b.lands(t, signature)
	now, err := b.local.Client().TokenBalance(t.Context(), b.account, 0)
	check(t, err)
	if now.Amount != before.Amount-1 {
		t.Fatalf("the treasury holds %d", now.Amount)
	}
	b.Lag(uint64(now.Slot - before.Slot)) // as far back as the first reading, or a little less
	past, err := b.client.TokenBalance(t.Context(), b.account, 0)
	if err != nil || past != before {
		t.Errorf("the lagging provider says %+v, it was %+v: %v", past, before, err)
	}
	b.Lag(lag)
	if _, err := b.client.TokenBalance(t.Context(), b.account, 0); !errors.Is(err, chain.ErrUnavailable) {
		t.Errorf("asked for what it had not seen yet: %v", err)
	}
	if _, err := b.client.SignaturesFor(t.Context(), b.account, now.Slot, 10); !errors.Is(err, chain.ErrBehind) {
		t.Errorf("asked for a slot that it has not reached: %v", err)
	}
	if ended, err := b.client.Finalized(t.Context(), signature); err != nil || len(ended) != 0 {
		t.Errorf("statuses %v: %v", ended, err)
	}
	if _, err := b.client.Transaction(t.Context(), signature); !errors.Is(err, chain.ErrNotFound) {
		t.Errorf("transaction: %v", err)
	}
	if slot, err := b.client.Slot(t.Context(), chain.Finalized); err != nil || slot != 0 {
		t.Errorf("slot %d: %v", slot, err)
	}
	b.Lag(0)
	if ended, err := b.client.Finalized(t.Context(), signature); err != nil || len(ended) != 1 {
		t.Errorf("statuses after catching up %v: %v", ended, err)
	}
}

func TestASeedGivesTheSameFaultsAgain(t *testing.T) {
	t.Parallel()
	const calls = 64
	faults := func(seed uint64) (pattern [calls]bool) {
		p := start(t, seed)
		p.Use(proxy.Rule{Fault: proxy.Reject, Chance: 0.5})
		client, err := chain.New(chain.Config{URL: p.URL()})
		check(t, err)
		defer func() { check(t, client.Close()) }()
		for i := range pattern {
			before := p.Injected(proxy.Reject)
			_, _ = client.Send(context.WithoutCancel(t.Context()), []byte{1}) // what is refused is counted by the proxy
			pattern[i] = p.Injected(proxy.Reject) > before
		}
		return pattern
	}
	first := faults(1)
	if first != faults(1) {
		t.Error("the same seed gave other faults")
	}
	if first == faults(2) {
		t.Error("another seed gave the same faults")
	}
	hits := 0
	for _, hit := range first {
		if hit {
			hits++
		}
	}
	if hits < calls/4 || hits > calls*3/4 {
		t.Errorf("%d of %d calls were befallen, about half should be", hits, calls)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
