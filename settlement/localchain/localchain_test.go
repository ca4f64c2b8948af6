package localchain_test

import (
	"crypto/ed25519"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/localchain"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
)

func TestMain(m *testing.M) { localchaintest.Main(m) }

func config(t *testing.T, url string) localchain.Config {
	t.Helper()
	key, err := solana.NewRandomPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return localchain.Config{
		URL: url, Dir: t.TempDir(), Treasury: key.PublicKey(), Capital: 500, Nonces: 2, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func setup(t *testing.T, config localchain.Config) *localchain.Chain {
	t.Helper()
	local, err := localchain.Setup(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = local.Close() }) // only idle connections
	return local
}

func TestSetupFurnishesOnceAndKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	config := config(t, localchaintest.URL())
	first := setup(t, config)
	if _, err := first.MintTo(t.Context(), first.Treasury, 7); err != nil {
		t.Fatal(err)
	}
	second := setup(t, config)
	if second.Mint != first.Mint || second.Owner != first.Owner || second.Nonces[1] != first.Nonces[1] {
		t.Errorf("the second setup made other things: %+v, %+v", first, second)
	}
	client := second.Client()
	balance, err := client.TokenBalance(t.Context(), second.TreasuryTokenAccount, 0)
	if err != nil || balance.Amount != 507 {
		t.Errorf("the treasury holds %d (%v), want 507", balance.Amount, err)
	}
	for _, account := range second.Nonces {
		nonce, err := client.Nonce(t.Context(), chain.Finalized, 0, account)
		if err != nil || nonce.Authority != second.Treasury {
			t.Errorf("nonce: %+v, %v", nonce, err)
		}
	}
	mint, err := client.Mint(t.Context(), second.Mint)
	if err != nil || mint.Decimals != localchain.Decimals || mint.Supply != 507 {
		t.Errorf("mint: %+v, %v", mint, err)
	}
	if err := second.Policy().Validate(); err != nil {
		t.Errorf("the policy: %v", err)
	}
}

func TestWalletsAreInSolanaKeygensFormatAndHaveSOL(t *testing.T) {
	t.Parallel()
	local := setup(t, config(t, localchaintest.URL()))
	for _, wallet := range []localchain.Wallet{local.Owner, local.Engineer, local.Finance} {
		text, err := os.ReadFile(wallet.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		var numbers []int
		if err := json.Unmarshal(text, &numbers); err != nil || len(numbers) != ed25519.PrivateKeySize {
			t.Errorf("%s: %v", wallet.Name, err)
		}
		key, err := wallet.Key()
		if err != nil || key.PublicKey() != wallet.Address {
			t.Errorf("%s: %v", wallet.Name, err)
		}
		if info, err := os.Stat(wallet.KeyFile); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v (%v)", wallet.Name, info.Mode(), err)
		}
		lamports, err := local.Client().Lamports(t.Context(), wallet.Address)
		if err != nil || lamports == 0 {
			t.Errorf("%s has %d lamports (%v)", wallet.Name, lamports, err)
		}
	}
}

func TestSetupRefusesPublicClusters(t *testing.T) {
	t.Parallel()
	for name, genesis := range map[string]string{
		"mainnet": "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d",
		"testnet": "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY",
		"devnet":  "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil || !strings.Contains(string(body), "getGenesisHash") {
				t.Errorf("asked a public cluster %s (%v)", body, err)
			}
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":"`+genesis+`"}`)
		}))
		_, err := localchain.Setup(t.Context(), config(t, server.URL))
		server.Close()
		if errs.CodeOf(err) != errs.Invalid || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSetupRefusesAKeyFileThatIsNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "[]", "[1,2,3]", `"secret"`, "[" + strings.Repeat("300,", 63) + "1]", "[" + strings.Repeat("1,", 63) + "1]"} {
		config := config(t, localchaintest.URL())
		if err := os.WriteFile(config.Dir+"/bootstrap.json", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := localchain.Setup(t.Context(), config); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
