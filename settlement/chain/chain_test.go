package chain_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/localchain"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
)

func TestMain(m *testing.M) { localchaintest.Main(m) }

const patience = 30 * time.Second

// story is a furnished chain on which a wallet received and sent tokens.
type story struct {
	local   *localchain.Chain
	wallet  solana.PrivateKey
	account chain.Address
}

// tell makes history: 100 in, 30 out, 5 in, a transfer of more than there is, which fails, and 75 out.
func tell(t *testing.T) story {
	t.Helper()
	s := story{local: localchaintest.New(t, newKey(t).PublicKey(), 1_000), wallet: newKey(t)}
	var err error
	s.account, err = chain.AssociatedTokenAccount(s.wallet.PublicKey(), s.local.Mint, chain.TokenProgram)
	check(t, err)
	_, err = s.local.MintTo(t.Context(), s.wallet.PublicKey(), 100)
	check(t, err)
	_, err = s.local.Transfer(t.Context(), s.wallet, s.local.Owner.Address, 30)
	check(t, err)
	_, err = s.local.MintTo(t.Context(), s.wallet.PublicKey(), 5)
	check(t, err)
	if _, err = s.local.Transfer(t.Context(), s.wallet, s.local.Owner.Address, 1_000); err == nil {
		t.Fatal("more was sent than there is")
	}
	_, err = s.local.Transfer(t.Context(), s.wallet, s.local.Engineer.Address, 75)
	check(t, err)
	return s
}

// wantStory compares movements with what tell did, and that each begins where the one before ended.
func (s story) wantStory(t *testing.T, movements []chain.Movement) {
	t.Helper()
	want := []struct{ received, sent uint64 }{{100, 0}, {0, 30}, {5, 0}, {0, 0}, {0, 75}}
	if len(movements) != len(want) {
		t.Fatalf("%d movements, want %d: %+v", len(movements), len(want), movements)
	}
	last := uint64(0)
	for i, m := range movements {
		if m.Pre != last || m.Received() != want[i].received || m.Sent() != want[i].sent || (m.Err != "") != (i == 3) {
			t.Errorf("movement %d: %+v", i, m)
		}
		if m.Mint != s.local.Mint || m.Owner != s.wallet.PublicKey() || m.Program != chain.TokenProgram || m.Fee == 0 ||
			m.BlockTime.IsZero() || m.IndexInBlock < 0 || m.FeePayer.IsZero() {
			t.Errorf("movement %d lacks something: %+v", i, m)
		}
		last = m.Post
	}
	to := movements[1].Counterparties
	if len(to) != 1 || to[0].Owner != s.local.Owner.Address || to[0].Post-to[0].Pre != 30 {
		t.Errorf("counterparties of the first transfer: %+v", to)
	}
}

func TestMovementsTellAnAccountsHistory(t *testing.T) {
	t.Parallel()
	s := tell(t)
	client := s.local.Client()
	movements, err := client.Movements(t.Context(), s.account, chain.Cursor{})
	check(t, err)
	s.wantStory(t, movements)
	balance, err := client.TokenBalance(t.Context(), s.account, movements[4].Slot)
	if err != nil || balance.Amount != movements[4].Post || balance.Slot < movements[4].Slot {
		t.Errorf("live balance %+v (%v), the last movement left %d", balance, err, movements[4].Post)
	}
	again, err := client.Movements(t.Context(), s.account, movements[4].Cursor())
	check(t, err)
	if len(again) == 0 || again[len(again)-1].Signature != movements[4].Signature {
		t.Errorf("the overlap does not show the cursor's movement again: %+v", again)
	}
}

func TestMovementsPageThroughLongHistories(t *testing.T) {
	t.Parallel()
	s := tell(t)
	client, err := chain.New(chain.Config{URL: localchaintest.URL()})
	check(t, err)
	defer client.Close()
	for size := 1; size <= 6; size++ {
		movements, err := client.WithPageSize(size).Movements(t.Context(), s.account, chain.Cursor{})
		check(t, err)
		s.wantStory(t, movements)
	}
}

func TestMovementsArePlacedByTheBlockWhenHistoryDoesNotSayTheIndex(t *testing.T) {
	t.Parallel()
	s := tell(t)
	client := through(t, func(method string, answer []byte) []byte {
		if method == "getSignaturesForAddress" {
			answer = bytes.ReplaceAll(answer, []byte(`"transactionIndex"`), []byte(`"unknownToOldEndpoints"`))
		}
		return answer
	})
	movements, err := client.Movements(t.Context(), s.account, chain.Cursor{})
	check(t, err)
	s.wantStory(t, movements)
}

func TestTokenAccountsAreOfAnyMintAndBothPrograms(t *testing.T) {
	t.Parallel()
	s := tell(t)
	for _, program := range []chain.Address{chain.TokenProgram, chain.Token2022Program} {
		mint, err := s.local.CreateToken(t.Context(), program, 2)
		check(t, err)
		_, err = s.local.MintOther(t.Context(), mint, s.wallet.PublicKey(), 7)
		check(t, err)
		described, err := s.local.Client().Mint(t.Context(), mint)
		if err != nil || described.Program != program || described.Decimals != 2 || described.Supply != 7 || len(described.Extensions) > 0 {
			t.Errorf("mint: %+v, %v", described, err)
		}
	}
	accounts, err := s.local.Client().TokenAccounts(t.Context(), s.wallet.PublicKey())
	check(t, err)
	programs := map[chain.Address]int{}
	for _, account := range accounts {
		programs[account.Program]++
		if account.Owner != s.wallet.PublicKey() || (account.Mint != s.local.Mint && account.Amount != 7) {
			t.Errorf("account: %+v", account)
		}
	}
	if programs[chain.TokenProgram] != 2 || programs[chain.Token2022Program] != 1 {
		t.Errorf("accounts: %+v", accounts)
	}
}

func TestAbsentAndWrongAccountsAreNamed(t *testing.T) {
	t.Parallel()
	s := tell(t)
	client := s.local.Client()
	nobody := newKey(t).PublicKey()
	if _, err := client.TokenBalance(t.Context(), nobody, 0); !errors.Is(err, chain.ErrNotFound) {
		t.Errorf("balance of nobody: %v", err)
	}
	if _, err := client.TokenBalance(t.Context(), s.local.Mint, 0); err == nil || errors.Is(err, chain.ErrNotFound) {
		t.Errorf("balance of a mint: %v", err)
	}
	if _, err := client.Nonce(t.Context(), chain.Finalized, 0, s.account); err == nil {
		t.Error("a token account was read as a nonce")
	}
	if _, err := client.Mint(t.Context(), s.account); err == nil {
		t.Error("a token account was read as a mint")
	}
	if _, err := client.Transaction(t.Context(), chain.Signature{1}); !errors.Is(err, chain.ErrNotFound) {
		t.Errorf("unknown transaction: %v", err)
	}
	ended, err := client.Finalized(t.Context(), chain.Signature{1})
	if err != nil || len(ended) != 0 {
		t.Errorf("unknown signature: %v, %v", ended, err)
	}
	movements, err := client.Movements(t.Context(), nobody, chain.Cursor{})
	if err != nil || len(movements) != 0 {
		t.Errorf("movements of nobody: %v, %v", movements, err)
	}
}

func TestWakeupsSignalAChange(t *testing.T) {
	t.Parallel()
	s := tell(t)
	ctx, cancel := context.WithCancel(t.Context())
	wake := s.local.Client().Wakeups(ctx, []chain.Address{s.account})
	receive(t, wake) // connected
	_, err := s.local.MintTo(t.Context(), s.wallet.PublicKey(), 1)
	check(t, err)
	receive(t, wake)
	cancel()
	deadline := time.After(patience)
	for {
		select {
		case _, open := <-wake:
			if !open {
				return
			}
		case <-deadline:
			t.Fatal("the channel stays open after the end of its context")
		}
	}
}

func TestRetriesReadsWithinBoundsAndNeverSends(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status   int
		body     string
		want     error
		attempts int32
	}{
		"too many requests":   {http.StatusTooManyRequests, ``, chain.ErrUnavailable, 4},
		"gateway":             {http.StatusBadGateway, `<html>`, chain.ErrUnavailable, 4},
		"behind":              {http.StatusOK, refusal(-32016), chain.ErrBehind, 4},
		"unhealthy":           {http.StatusOK, refusal(-32005), chain.ErrUnavailable, 4},
		"unsupported version": {http.StatusOK, refusal(-32015), chain.ErrUnsupportedVersion, 1},
		"invalid parameters":  {http.StatusOK, refusal(-32602), nil, 1},
		"no JSON":             {http.StatusOK, `nonsense`, chain.ErrUnavailable, 4},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			client := against(t, func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			})
			_, err := client.Slot(t.Context(), chain.Finalized)
			if err == nil || (test.want != nil && !errors.Is(err, test.want)) || calls.Load() != test.attempts {
				t.Errorf("got %v after %d calls, want %v after %d", err, calls.Load(), test.want, test.attempts)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "127.0.0.1") {
				t.Errorf("the error carries the endpoint's URL: %v", err)
			}
			if chain.IsAlarm(err) != (test.want == chain.ErrUnsupportedVersion) { //nolint:errorlint // which test it is
				t.Errorf("alarm: %v", chain.IsAlarm(err))
			}
			calls.Store(0)
			if _, err := client.Send(t.Context(), []byte{1}); err == nil || calls.Load() != 1 {
				t.Errorf("sending was tried %d times: %v", calls.Load(), err)
			}
		})
	}
}

func TestAnUnreachableEndpointIsUnavailableAndUnnamed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	client, err := chain.New(chain.Config{URL: server.URL + "/?key=secret"})
	check(t, err)
	defer client.Close()
	_, err = client.Slot(t.Context(), chain.Finalized)
	if !errors.Is(err, chain.ErrUnavailable) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestATransactionOfAHigherVersionIsAnAlarmAndNotAnEmptyHistory(t *testing.T) {
	t.Parallel()
	s := tell(t)
	client := through(t, func(method string, answer []byte) []byte {
		if method == "getTransaction" {
			answer = []byte(refusal(-32015))
		}
		return answer
	})
	movements, err := client.Movements(t.Context(), s.account, chain.Cursor{})
	if !chain.IsAlarm(err) || movements != nil {
		t.Errorf("got %v, %v", movements, err)
	}
}

func TestNewRefusesWhatIsNoEndpoint(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "localhost:8899", "ftp://host/?key=secret", "http://", "http://%zz/?key=secret"} {
		if _, err := chain.New(chain.Config{URL: url}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func refusal(code int) string {
	text, err := json.Marshal(map[string]any{
		"jsonrpc": "2.0", "id": 1, "error": map[string]any{"code": code, "message": "refused for the test"},
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// against makes a client of a server whose URL holds a credential.
func against(t *testing.T, handler http.HandlerFunc) *chain.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	client, err := chain.New(chain.Config{URL: server.URL + "/?key=secret"})
	check(t, err)
	t.Cleanup(func() { _ = client.Close() }) // only idle connections
	return client
}

// through makes a client of the real chain whose answers pass through change.
func through(t *testing.T, change func(method string, answer []byte) []byte) *chain.Client {
	t.Helper()
	return against(t, func(w http.ResponseWriter, r *http.Request) {
		body := readAll(t, r)
		var call struct{ Method string }
		if err := json.Unmarshal(body, &call); err != nil {
			t.Error(err)
			return
		}
		if answer, reached := ask(t, r.Context(), body); reached {
			_, _ = w.Write(change(call.Method, answer))
		}
	})
}

func readAll(t *testing.T, r *http.Request) []byte {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	return body
}

// ask brings a request to the real chain; it reports false when the caller has gone.
func ask(t *testing.T, ctx context.Context, body []byte) (answer []byte, reached bool) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, localchaintest.URL(), bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return nil, false
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, false
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return answer, err == nil
}

func receive(t *testing.T, wake <-chan struct{}) {
	t.Helper()
	select {
	case <-wake:
	case <-time.After(patience):
		t.Fatal("no signal came")
	}
}

func newKey(t *testing.T) solana.PrivateKey {
	t.Helper()
	key, err := solana.NewRandomPrivateKey()
	check(t, err)
	return key
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
