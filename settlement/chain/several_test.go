package chain_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/chaos/proxy"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
)

// several is a client that reaches the real chain through providers of a test's making.
type several struct {
	*chain.Client
	story
	providers []*proxy.Proxy
}

func newSeveral(t *testing.T, providers int) *several {
	t.Helper()
	s := &several{story: tell(t)}
	var urls []string
	for i := range providers {
		p, err := proxy.Start(localchaintest.URL(), uint64(i))
		check(t, err)
		t.Cleanup(func() { check(t, p.Close()) })
		s.providers, urls = append(s.providers, p), append(urls, p.URL())
	}
	var err error
	s.Client, err = chain.New(chain.Config{URLs: urls, Timeout: time.Second})
	check(t, err)
	t.Cleanup(func() { check(t, s.Close()) })
	return s
}

// disagreements is the alarm's count.
func (s *several) disagreements() float64 {
	return testutil.ToFloat64(s.Collectors()[1])
}

func TestTwoProvidersThatAgreeAreBothAsked(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, 2)
	movements, err := s.Movements(t.Context(), s.account, chain.Cursor{})
	check(t, err)
	s.wantStory(t, movements)
	last := movements[len(movements)-1]
	balance, err := s.TokenBalance(t.Context(), s.account, last.Slot)
	if err != nil || balance.Amount != last.Post {
		t.Errorf("balance %+v: %v", balance, err)
	}
	ended, err := s.Finalized(t.Context(), last.Signature, movements[3].Signature)
	if err != nil || ended[last.Signature] != "" || ended[movements[3].Signature] == "" {
		t.Errorf("ends %v: %v", ended, err)
	}
	landed, err := s.Transaction(t.Context(), last.Signature)
	if err != nil || landed.Slot != last.Slot || landed.Err != "" {
		t.Errorf("transaction %+v: %v", landed, err)
	}
	if _, err := s.Transaction(t.Context(), chain.Signature{1}); !errors.Is(err, chain.ErrNotFound) {
		t.Errorf("unknown transaction: %v", err)
	}
	if lamports, err := s.Lamports(t.Context(), s.local.Treasury); err != nil || lamports == 0 {
		t.Errorf("%d lamports: %v", lamports, err)
	}
	if accounts, err := s.TokenAccounts(t.Context(), s.wallet.PublicKey()); err != nil || len(accounts) != 1 {
		t.Errorf("token accounts %v: %v", accounts, err)
	}
	nonces, err := s.Nonces(t.Context(), chain.Finalized, 0, append(s.local.Nonces, s.local.Mint, newKey(t).PublicKey())...)
	if err != nil || len(nonces) != len(s.local.Nonces) {
		t.Errorf("nonces %v: %v", nonces, err)
	}
	for _, p := range s.providers {
		if p.Calls("getTransaction") < len(movements) || p.Calls("getSignaturesForAddress") == 0 || p.Calls("getMultipleAccounts") == 0 {
			t.Error("one provider was not asked")
		}
	}
	if s.disagreements() != 0 {
		t.Errorf("%v disagreements between a chain and itself", s.disagreements())
	}
}

func TestHistoryOfTwoProvidersPages(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, 2)
	for size := 1; size <= 6; size++ {
		movements, err := s.WithPageSize(size).Movements(t.Context(), s.account, chain.Cursor{})
		check(t, err)
		s.wantStory(t, movements)
	}
}

func TestALyingProviderIsADisagreementAndNoAnswer(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		fault proxy.Fault
		ask   func(ctx context.Context, s *several) error
	}{
		"balance": {proxy.WrongBalance, func(ctx context.Context, s *several) error {
			_, err := s.TokenBalance(ctx, s.account, 0)
			return err
		}},
		"lamports": {proxy.WrongBalance, func(ctx context.Context, s *several) error {
			_, err := s.Lamports(ctx, s.local.Treasury)
			return err
		}},
		"one of many accounts": {proxy.WrongBalance, func(ctx context.Context, s *several) error {
			_, err := s.Accounts(ctx, chain.Finalized, 0, s.local.Mint, s.account)
			if err != nil && !strings.Contains(err.Error(), s.account.String()) {
				return errors.New("the error does not name the account: " + err.Error())
			}
			return err
		}},
		"nonce": {proxy.WrongNonce, func(ctx context.Context, s *several) error {
			_, err := s.Nonce(ctx, chain.Finalized, 0, s.local.Nonces[0])
			return err
		}},
		"balances of a transaction": {proxy.WrongBalance, func(ctx context.Context, s *several) error {
			_, err := s.Movements(ctx, s.account, chain.Cursor{})
			return err
		}},
		"signature status": {proxy.Prune, func(ctx context.Context, s *several) error {
			_, err := s.Finalized(ctx, s.newest(ctx))
			return err
		}},
		"transaction": {proxy.Prune, func(ctx context.Context, s *several) error {
			_, err := s.Transaction(ctx, s.newest(ctx))
			return err
		}},
		"history": {proxy.Prune, func(ctx context.Context, s *several) error {
			_, err := s.TokenBalance(ctx, s.account, 0) // from here on the slot is known
			_, historyErr := s.SignaturesFor(ctx, s.account, 0, 10)
			return errors.Join(err, historyErr)
		}},
	}
	for name, test := range tests {
		for liar := range 2 {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSeveral(t, 2)
				check(t, test.ask(t.Context(), s))
				s.providers[liar].Use(proxy.Rule{Fault: test.fault})
				if err := test.ask(t.Context(), s); !errors.Is(err, chain.ErrDisagree) || !chain.IsAlarm(err) || s.disagreements() < 1 {
					t.Errorf("%v disagreements: %v", s.disagreements(), err)
				}
				s.providers[liar].Use()
				check(t, test.ask(t.Context(), s))
			})
		}
	}
}

// newest is the signature of the account's last transaction, which the chain itself tells.
func (s *several) newest(ctx context.Context) chain.Signature {
	history, err := s.local.Client().SignaturesFor(ctx, s.account, 0, 1)
	if err != nil || len(history) != 1 {
		return chain.Signature{}
	}
	return history[0].Signature
}

func TestALaggingProviderDelaysAnswersAndIsNoAlarm(t *testing.T) {
	t.Parallel()
	const lag = 1_000_000
	s := newSeveral(t, 2)
	newest := s.newest(t.Context())
	before, err := s.TokenBalance(t.Context(), s.account, 0)
	check(t, err)
	s.providers[1].Lag(lag)
	_, err = s.Finalized(t.Context(), newest)
	if !errors.Is(err, chain.ErrBehind) || chain.IsAlarm(err) {
		t.Errorf("status: %v", err)
	}
	if _, err = s.Transaction(t.Context(), newest); !errors.Is(err, chain.ErrBehind) {
		t.Errorf("transaction: %v", err)
	}
	if _, err = s.SignaturesFor(t.Context(), s.account, before.Slot, 10); !errors.Is(err, chain.ErrBehind) {
		t.Errorf("history: %v", err)
	}
	if _, err = s.TokenBalance(t.Context(), s.account, 0); !errors.Is(err, chain.ErrUnavailable) && !errors.Is(err, chain.ErrBehind) {
		t.Errorf("balance: %v", err)
	}
	if s.disagreements() != 0 {
		t.Errorf("lagging counted as %v disagreements", s.disagreements())
	}
}

func TestWhatChangedBetweenTwoAnswersIsAskedForAnew(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, 2)
	past, _ := ask(t, t.Context(), fmt.Appendf(nil,
		`{"jsonrpc":"2.0","id":1,"method":"getMultipleAccounts","params":[[%q,%q],{"commitment":"finalized","encoding":"base64"}]}`,
		s.account, s.local.TreasuryTokenAccount))
	_, err := s.local.MintTo(t.Context(), s.wallet.PublicKey(), 9)
	check(t, err)
	now, err := s.local.Client().TokenBalance(t.Context(), s.account, 0)
	check(t, err)
	stale := atomic.Int32{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := readAll(t, r)
		if stale.Add(1) == 1 { // the first answer is from before the last transaction, as a lagging node's
			_, _ = w.Write(past)
			return
		}
		if answer, reached := ask(t, r.Context(), body); reached {
			_, _ = w.Write(answer)
		}
	}))
	t.Cleanup(server.Close)
	client, err := chain.New(chain.Config{URLs: []string{server.URL, s.providers[0].URL()}})
	check(t, err)
	t.Cleanup(func() { check(t, client.Close()) })
	accounts, err := client.Accounts(t.Context(), chain.Finalized, 0, s.account, s.local.TreasuryTokenAccount)
	check(t, err)
	changed, err := chain.DecodeTokenAccount(accounts[0])
	if err != nil || changed.Amount != now.Amount || changed.Slot < now.Slot || stale.Load() != 2 {
		t.Errorf("the account is %+v after %d questions, want %+v: %v", changed, stale.Load(), now, err)
	}
	unchanged, err := chain.DecodeTokenAccount(accounts[1])
	if err != nil || unchanged.Amount != 1_000 {
		t.Errorf("the treasury's account is %+v: %v", unchanged, err)
	}
}

func TestAThirdProviderStandsInForOneThatIsDown(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, 3)
	s.providers[0].Use(proxy.Rule{Fault: proxy.Drop})
	for range 5 {
		if _, err := s.TokenBalance(t.Context(), s.account, 0); err != nil {
			t.Fatal(err)
		}
	}
	asked := s.providers[0].Calls("getMultipleAccounts")
	if asked == 0 || asked > 4 { // two attempts a question until it rests
		t.Errorf("the provider that is down was asked %d times", asked)
	}
	s.providers[1].Use(proxy.Rule{Fault: proxy.Drop})
	if _, err := s.TokenBalance(t.Context(), s.account, 0); !errors.Is(err, chain.ErrUnavailable) {
		t.Errorf("money was read from one provider alone: %v", err)
	}
	if _, err := s.Slot(t.Context(), chain.Finalized); err != nil {
		t.Errorf("what no money depends on needs one provider: %v", err)
	}
	if s.disagreements() != 0 {
		t.Errorf("an outage counted as %v disagreements", s.disagreements())
	}
}

func TestSendGoesToEveryProvider(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, 3)
	wire := s.signed(t)
	s.providers[0].Use(proxy.Rule{Fault: proxy.Reject})
	s.providers[1].Use(proxy.Rule{Fault: proxy.LoseAnswer})
	signature, err := s.Send(t.Context(), wire)
	check(t, err)
	for i, p := range s.providers {
		if p.Calls("sendTransaction") != 1 {
			t.Errorf("provider %d got it %d times", i, p.Calls("sendTransaction"))
		}
	}
	testkit.Eventually(t, patience, func() (bool, string) {
		ended, err := s.local.Client().Finalized(t.Context(), signature)
		check(t, err)
		failure, final := ended[signature]
		return final && failure == "", "it has not landed " + failure
	})
	s.providers[2].Use(proxy.Rule{Fault: proxy.Drop})
	if _, err := s.Send(t.Context(), wire); err == nil {
		t.Error("nobody took it, and no error was returned")
	}
}

// signed is a transaction that does nothing but land.
func (s *several) signed(t *testing.T) []byte {
	t.Helper()
	key, err := s.local.Engineer.Key()
	check(t, err)
	blockhash, _, err := s.local.Client().LatestBlockhash(t.Context(), chain.Confirmed)
	check(t, err)
	const transfer = 2 // the system program's
	nothing := solana.NewInstruction(solana.SystemProgramID, solana.AccountMetaSlice{
		solana.Meta(key.PublicKey()).WRITE().SIGNER(), solana.Meta(key.PublicKey()).WRITE(),
	}, []byte{transfer, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	transaction, err := solana.NewTransaction([]solana.Instruction{nothing}, blockhash, solana.TransactionPayer(key.PublicKey()))
	check(t, err)
	_, err = transaction.Sign(func(solana.PublicKey) *solana.PrivateKey { return &key })
	check(t, err)
	wire, err := transaction.MarshalBinary()
	check(t, err)
	return wire
}

func TestAProviderThatAsksToBeLeftAloneIs(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, 3)
	s.providers[0].Use(proxy.Rule{Fault: proxy.Busy, Delay: time.Minute})
	for range 4 {
		if _, err := s.TokenBalance(t.Context(), s.account, 0); err != nil {
			t.Fatal(err)
		}
	}
	if asked := s.providers[0].Calls("getMultipleAccounts"); asked != 1 {
		t.Errorf("it was asked %d times within its Retry-After", asked)
	}
}

func TestTheRateOfCallsIsLimited(t *testing.T) {
	t.Parallel()
	calls := atomic.Int32{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":1}`)
	}))
	t.Cleanup(server.Close)
	client, err := chain.New(chain.Config{URL: server.URL, RequestsPerSecond: 10})
	check(t, err)
	t.Cleanup(func() { check(t, client.Close()) })
	began := time.Now()
	for range 15 { // ten at once, five more at ten a second
		if _, err := client.Slot(t.Context(), chain.Finalized); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 400*time.Millisecond || calls.Load() != 15 {
		t.Errorf("%d calls in %s", calls.Load(), took)
	}
}

func TestManyAccountsAndStatusesAreReadInFewCalls(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, 2)
	addresses := make([]chain.Address, 1_001)
	signatures := make([]chain.Signature, 1_001)
	for i := range addresses {
		addresses[i] = newKey(t).PublicKey()
		signatures[i] = chain.Signature{byte(i), byte(i >> 8), 1}
	}
	addresses[777], signatures[777] = s.account, s.newest(t.Context())
	accounts, err := s.Accounts(t.Context(), chain.Finalized, 0, addresses...)
	check(t, err)
	for i, account := range accounts {
		if (account != nil) != (i == 777) {
			t.Errorf("account %d: %+v", i, account)
		}
	}
	ended, err := s.Finalized(t.Context(), signatures...)
	if failure, found := ended[signatures[777]]; err != nil || len(ended) != 1 || !found || failure != "" {
		t.Errorf("ends %v: %v", ended, err)
	}
	for _, p := range s.providers {
		if a, b := p.Calls("getMultipleAccounts"), p.Calls("getSignatureStatuses"); a != 11 || b != 4 {
			t.Errorf("%d calls for accounts and %d for statuses", a, b)
		}
	}
}

func TestTheSameEndpointTwiceIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := chain.New(chain.Config{URLs: []string{"http://a.example", "http://a.example"}}); err == nil {
		t.Error("a provider would be compared with itself")
	}
}

func TestAProviderThatIsALittleBehindKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	const lag, rounds = 5, 10
	s := newSeveral(t, 2)
	ask := func() (newest chain.Slot, err error) {
		for _, nonce := range s.local.Nonces {
			read, err := s.Nonce(t.Context(), chain.Finalized, 0, nonce)
			if err != nil {
				return 0, err
			}
			newest = max(newest, read.Slot)
		}
		balance, err := s.TokenBalance(t.Context(), s.account, 0)
		if err == nil && balance.Slot < newest {
			err = fmt.Errorf("an answer from slot %d after one from slot %d", balance.Slot, newest)
		}
		return balance.Slot, err
	}
	before, err := ask() // before it lags, so that it knows the past
	check(t, err)
	s.providers[1].Lag(lag)
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		now, err := s.local.Client().Slot(t.Context(), chain.Finalized)
		return err == nil && now > before+2*lag, "the chain stands still"
	})
	for range rounds {
		now, err := ask()
		check(t, err)
		if now < before {
			t.Fatalf("an answer from slot %d after one from slot %d", now, before)
		}
		before = now
	}
	if s.disagreements() != 0 {
		t.Errorf("%v disagreements", s.disagreements())
	}
}
