package identity

import (
	"crypto/ed25519"
	"encoding/hex"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var testConfig = SignInConfig{
	Domain: "localhost:8080", URI: "http://localhost:8080", ChainID: "solana:localnet", Statement: "Sign in to Muster.",
}

type bundle struct {
	*Service
	pool *pgxpool.Pool
}

func setup(t *testing.T) bundle {
	t.Helper()
	pool := testkit.DB(t)
	service, err := New(pool, testConfig)
	fatal(t, err)
	return bundle{service, pool}
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code errs.Code) {
	t.Helper()
	if errs.CodeOf(err) != code {
		t.Fatalf("error %v (%s), want %s", err, errs.CodeOf(err), code)
	}
}

func newWallet(t *testing.T) (ed25519.PrivateKey, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	fatal(t, err)
	return private, encodeBase58(public)
}

func encodeBase58(raw []byte) string {
	value, base, digit := new(big.Int).SetBytes(raw), big.NewInt(58), new(big.Int)
	var text []byte
	for value.Sign() > 0 {
		value.DivMod(value, base, digit)
		text = append([]byte{base58Digits[digit.Int64()]}, text...)
	}
	for i := 0; i < len(raw) && raw[i] == 0; i++ {
		text = append([]byte{'1'}, text...)
	}
	return string(text)
}

// attempt is a sign-in that a case may spoil before it is sent.
type attempt struct {
	b       bundle
	key     ed25519.PrivateKey
	message Message
	signed  string // bytes that are signed and returned
	proof   Proof
}

// TestSiwsVectors: what a proof must withstand. Every case starts from a good sign-in and spoils one thing.
func TestSiwsVectors(t *testing.T) {
	t.Parallel()
	cases := map[string]func(t *testing.T, a *attempt){
		"reuse": func(t *testing.T, a *attempt) {
			a.sign()
			_, _, err := a.b.SignIn(t.Context(), a.proof)
			fatal(t, err)
		},
		"expired": func(t *testing.T, a *attempt) {
			a.sign()
			_, err := a.b.pool.Exec(t.Context(), `UPDATE siws_nonces SET expires_at = now() - interval '1 second' WHERE address = $1`, a.proof.Address)
			fatal(t, err)
		},
		"another browser": func(_ *testing.T, a *attempt) { a.sign(); a.proof.Browser = newSecret() },
		"no browser":      func(_ *testing.T, a *attempt) { a.sign(); a.proof.Browser = "" },
		"a nonce of the client's": func(_ *testing.T, a *attempt) {
			a.message.Nonce = "clientmade"
			a.signed = a.message.Text()
			a.sign()
		},
		"another domain":     func(_ *testing.T, a *attempt) { a.message.Domain = "evil.example"; a.resign() },
		"another port":       func(_ *testing.T, a *attempt) { a.message.Domain = "localhost:8081"; a.resign() },
		"another URI":        func(_ *testing.T, a *attempt) { a.message.URI = "http://evil.example"; a.resign() },
		"another chain":      func(_ *testing.T, a *attempt) { a.message.ChainID = "solana:mainnet"; a.resign() },
		"another statement":  func(_ *testing.T, a *attempt) { a.message.Statement = "Send everything."; a.resign() },
		"later expiry":       func(_ *testing.T, a *attempt) { a.message.ExpiresAt = a.message.ExpiresAt.Add(time.Hour); a.resign() },
		"CRLF lines":         func(_ *testing.T, a *attempt) { a.signed = strings.ReplaceAll(a.signed, "\n", "\r\n"); a.sign() },
		"extra bytes":        func(_ *testing.T, a *attempt) { a.signed += "\n"; a.sign() },
		"bytes before":       func(_ *testing.T, a *attempt) { a.signed = " " + a.signed; a.sign() },
		"resources added":    func(_ *testing.T, a *attempt) { a.signed += "\nResources:\n- https://evil.example"; a.sign() },
		"an empty message":   func(_ *testing.T, a *attempt) { a.signed = ""; a.sign() },
		"an endless message": func(_ *testing.T, a *attempt) { a.signed += strings.Repeat("x", maxMessageBytes); a.sign() },
		"signed something else": func(_ *testing.T, a *attempt) {
			a.sign()
			a.proof.Signature = ed25519.Sign(a.key, []byte("something else"))
		},
		"signed by another wallet": func(t *testing.T, a *attempt) {
			a.key, _ = newWallet(t)
			a.sign()
		},
		"claimed for another wallet": func(t *testing.T, a *attempt) {
			a.sign()
			_, a.proof.Address = newWallet(t)
		},
		"a short signature": func(_ *testing.T, a *attempt) { a.sign(); a.proof.Signature = a.proof.Signature[:63] },
		"no signature":      func(_ *testing.T, a *attempt) { a.sign(); a.proof.Signature = nil },
		"S not reduced": func(_ *testing.T, a *attempt) {
			a.sign()
			a.proof.Signature = addGroupOrder(a.proof.Signature)
		},
		"not an address": func(_ *testing.T, a *attempt) { a.sign(); a.proof.Address = "0OIl" },
		"a small-order address": func(_ *testing.T, a *attempt) {
			a.sign()
			a.proof.Address = encodeBase58(smallOrder[0])
		},
	}
	b := setup(t)
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			a := newAttempt(t, b)
			spoil(t, a)
			p, token, err := a.b.SignIn(t.Context(), a.proof)
			wantCode(t, err, errs.Unauthenticated)
			if token != "" || !p.User.IsZero() {
				t.Fatalf("a refused sign-in returned %v and a token", p)
			}
		})
	}
	t.Run("unspoilt", func(t *testing.T) {
		a := newAttempt(t, b)
		a.sign()
		p, token, err := a.b.SignIn(t.Context(), a.proof)
		fatal(t, err)
		if token == "" || p.Wallet != a.message.Address || len(p.Memberships) != 1 {
			t.Fatalf("signed in as %+v", p)
		}
	})
}

func newAttempt(t *testing.T, b bundle) *attempt {
	t.Helper()
	key, address := newWallet(t)
	message, browser, err := b.Nonce(t.Context(), address)
	fatal(t, err)
	return &attempt{b: b, key: key, message: message, signed: message.Text(), proof: Proof{Address: address, Browser: browser}}
}

func (a *attempt) sign() {
	a.proof.SignedMessage = []byte(a.signed)
	a.proof.Signature = ed25519.Sign(a.key, a.proof.SignedMessage)
}

func (a *attempt) resign() {
	a.signed = a.message.Text()
	a.sign()
}

// addGroupOrder makes the other S that satisfies the same equation.
func addGroupOrder(signature []byte) []byte {
	little := make([]byte, 32)
	for i := range little {
		little[i] = signature[63-i]
	}
	sum := new(big.Int).Add(new(big.Int).SetBytes(little), new(big.Int).SetBytes(groupOrder)).FillBytes(make([]byte, 32))
	malleable := append([]byte{}, signature[:32]...)
	for i := range sum {
		malleable = append(malleable, sum[31-i])
	}
	return malleable
}

func TestMessageIsTheTextThatWalletsMake(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 18, 30, 0, 0, time.UTC)
	m := Message{SignInConfig: testConfig, Address: "4Nd1mYQ", Nonce: "abc", IssuedAt: at, ExpiresAt: at.Add(5 * time.Minute)}
	want := `localhost:8080 wants you to sign in with your Solana account:
4Nd1mYQ

Sign in to Muster.

URI: http://localhost:8080
Version: 1
Chain ID: solana:localnet
Nonce: abc
Issued At: 2026-11-22T18:30:00Z
Expiration Time: 2026-11-22T18:35:00Z`
	if m.Text() != want {
		t.Fatalf("text\n%s\nwant\n%s", m.Text(), want)
	}
}

func TestVerifyRefusesKeysThatSignAnything(t *testing.T) {
	t.Parallel()
	nonCanonical := []string{
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 0 again
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 1 again
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	}
	keys := append([][]byte{}, smallOrder...)
	for _, text := range nonCanonical {
		raw, err := hex.DecodeString(text)
		fatal(t, err)
		keys = append(keys, raw)
	}
	for _, key := range keys {
		for _, sign := range []byte{0, 0x80} {
			spelt := append([]byte{}, key...)
			spelt[31] |= sign
			// R = identity and S = 0 satisfy the equation for a key of small order, for a share of all messages.
			signature := make([]byte, 64)
			signature[0] = 1
			for i := range 64 {
				if verify(spelt, []byte{byte(i)}, signature) {
					t.Fatalf("key %x verified a signature of nobody", spelt)
				}
			}
			if _, err := ParseWallet("address", encodeBase58(spelt)); err == nil {
				t.Errorf("%x passes for a wallet", spelt)
			}
		}
	}
}

func TestConcurrentFirstSignInsFoundOneOrganisation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key, address := newWallet(t)
	const browsers = 8
	var together sync.WaitGroup
	for range browsers {
		message, browser, err := b.Nonce(t.Context(), address)
		fatal(t, err)
		together.Go(func() {
			text := []byte(message.Text())
			_, _, err := b.SignIn(t.Context(), Proof{Address: address, SignedMessage: text, Signature: ed25519.Sign(key, text), Browser: browser})
			if err != nil {
				t.Error(err)
			}
		})
	}
	together.Wait()
	var organisations int
	fatal(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FROM organisations`).Scan(&organisations))
	if organisations != 1 {
		t.Fatalf("%d organisations, want 1", organisations)
	}
}

func TestNonceIsSpentOnceByManyAtOnce(t *testing.T) {
	t.Parallel()
	a := newAttempt(t, setup(t))
	a.sign()
	var together sync.WaitGroup
	accepted := make(chan struct{}, 16)
	for range cap(accepted) {
		together.Go(func() {
			if _, _, err := a.b.SignIn(t.Context(), a.proof); err == nil {
				accepted <- struct{}{}
			}
		})
	}
	together.Wait()
	if len(accepted) != 1 {
		t.Fatalf("accepted %d times, want once", len(accepted))
	}
}

func TestSessionEndsByIdlenessAgeAndSignOut(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{
		"idle":     `UPDATE sessions SET last_used_at = now() - interval '12 hours'`,
		"old":      `UPDATE sessions SET expires_at = now()`,
		"sign out": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAttempt(t, setup(t))
			a.sign()
			p, token, err := a.b.SignIn(t.Context(), a.proof)
			fatal(t, err)
			if _, err := a.b.AuthenticateSession(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			if end == "" {
				fatal(t, a.b.SignOut(t.Context(), p.Session))
			} else if _, err := a.b.pool.Exec(t.Context(), end); err != nil {
				t.Fatal(err)
			}
			_, err = a.b.AuthenticateSession(t.Context(), token)
			wantCode(t, err, errs.Unauthenticated)
			_, err = a.b.Recheck(t.Context(), p)
			wantCode(t, err, errs.Unauthenticated)
		})
	}
}

func TestSecretsAreNotStored(t *testing.T) {
	t.Parallel()
	a := newAttempt(t, setup(t))
	a.sign()
	p, token, err := a.b.SignIn(t.Context(), a.proof)
	fatal(t, err)
	_, secret, err := a.b.CreateKey(t.Context(), p.Memberships[0].Org, p.User, KeySpec{Name: "k", Scopes: []Scope{ScopeRead}, Days: 1})
	fatal(t, err)
	var dump string
	fatal(t, a.b.pool.QueryRow(t.Context(), `
		SELECT (SELECT string_agg(s::text, ' ') FROM sessions s) || (SELECT string_agg(k::text, ' ') FROM api_keys k) ||
		       (SELECT string_agg(n::text, ' ') FROM siws_nonces n)`).Scan(&dump))
	for _, hidden := range []string{token, secret, a.message.Nonce, a.proof.Browser} {
		if strings.Contains(dump, hidden) || strings.Contains(dump, hex.EncodeToString([]byte(hidden))) {
			t.Fatalf("the database holds the secret %.6s...", hidden)
		}
	}
}

func TestConfigurationMustBeOneLineEach(t *testing.T) {
	t.Parallel()
	for _, spoil := range []func(*SignInConfig){
		func(c *SignInConfig) { c.Domain = "" }, func(c *SignInConfig) { c.Statement = "a\nURI: http://evil" },
	} {
		config := testConfig
		spoil(&config)
		if _, err := New(nil, config); err == nil {
			t.Errorf("%+v was accepted", config)
		}
	}
}

func TestPurgeKeepsWhatIsAlive(t *testing.T) {
	t.Parallel()
	a := newAttempt(t, setup(t))
	a.sign()
	_, token, err := a.b.SignIn(t.Context(), a.proof)
	fatal(t, err)
	_, err = a.b.pool.Exec(t.Context(), `INSERT INTO sessions (id, token_hash, user_id, expires_at)
		SELECT $1, '\x00', user_id, now() - interval '31 days' FROM sessions`, ids.New[ids.Session]())
	fatal(t, err)
	_, err = a.b.pool.Exec(t.Context(), `UPDATE siws_nonces SET expires_at = now() - interval '2 days'`)
	fatal(t, err)
	fatal(t, a.b.Purge(t.Context()))
	var sessions, nonces int
	fatal(t, a.b.pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM siws_nonces)`).Scan(&sessions, &nonces))
	if sessions != 1 || nonces != 0 {
		t.Fatalf("%d sessions and %d nonces are left, want 1 and 0", sessions, nonces)
	}
	_, err = a.b.AuthenticateSession(t.Context(), token)
	fatal(t, err)
}
