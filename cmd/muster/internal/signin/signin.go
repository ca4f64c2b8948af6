// Package signin signs a person in with a Solana wallet and makes them an API key.
//
// The wallet signs the server's text only after it was checked to be a sign-in for the very host that was asked: a server cannot
// obtain a signature for another site, nor for a transaction. The session lives in memory; End gives it back. A Session is
// not safe for concurrent use.
package signin

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/mr-tron/base58"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

// Scopes are all that a key can do, so that its person's roles alone decide.
var Scopes = []string{"read", "book", "jobs", "wallet", "hosts", "finance"}

// KeyDays is how long a key lasts, the longest there is.
const KeyDays = 90

const maxKeypairBytes = 4 << 10

// Wallet is a key that signs.
type Wallet struct{ key ed25519.PrivateKey }

// ReadKeypair reads a key file of solana-keygen: a JSON array of the 64 bytes of an Ed25519 key.
func ReadKeypair(path string) (Wallet, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return Wallet{}, fmt.Errorf("read the wallet: %w", err)
	}
	var numbers []int
	if len(content) > maxKeypairBytes || json.Unmarshal(content, &numbers) != nil || len(numbers) != ed25519.PrivateKeySize {
		return Wallet{}, fmt.Errorf("%s is not a key file of solana-keygen: it should hold a JSON array of %d numbers", path, ed25519.PrivateKeySize)
	}
	key := make(ed25519.PrivateKey, len(numbers))
	for i, n := range numbers {
		if n < 0 || n > 255 {
			return Wallet{}, fmt.Errorf("%s is not a key file of solana-keygen: %d is not a byte", path, n)
		}
		key[i] = byte(n)
	}
	if !ed25519.NewKeyFromSeed(key.Seed()).Equal(key) {
		return Wallet{}, fmt.Errorf("%s is damaged: its two halves are not one key", path)
	}
	return Wallet{key}, nil
}

// Address is the wallet's public key in base58.
func (w Wallet) Address() string { return base58.Encode(w.key[ed25519.SeedSize:]) }

// Session is a signed-in person.
type Session struct {
	Me  apiv1.Me
	api *client.Client
}

// Start signs in to the Muster at server.
func Start(ctx context.Context, server string, transport http.RoundTripper, wallet Wallet) (*Session, error) {
	base, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("%q is not an address: %w", server, err)
	}
	api, err := client.New(server, "", "", &cookies{next: transport, held: make(map[string]*http.Cookie)})
	if err != nil {
		return nil, err
	}
	address := wallet.Address()
	var input apiv1.SignInInput
	if err := api.Post(ctx, "/v1/auth/nonce", apiv1.NonceRequest{Address: address}, &input); err != nil {
		return nil, err
	}
	if err := checkMessage(base, address, input.Message); err != nil {
		return nil, err
	}
	s := &Session{api: api}
	err = api.Post(ctx, "/v1/auth/sign-in", apiv1.SignInRequest{
		Address: address, SignedMessage: base64.StdEncoding.EncodeToString([]byte(input.Message)),
		Signature: base64.StdEncoding.EncodeToString(ed25519.Sign(wallet.key, []byte(input.Message))),
	}, &s.Me)
	return s, err
}

// checkMessage refuses to sign anything but a sign-in of this wallet to this host.
func checkMessage(base *url.URL, address, message string) error {
	domain, rest, isSignIn := strings.Cut(message, " wants you to sign in with your Solana account:\n")
	if !isSignIn || !strings.HasPrefix(rest, address+"\n") {
		return errors.New("the server asked for a signature on something else than a sign-in of this wallet: nothing was signed")
	}
	if domain == base.Host {
		return nil
	}
	return fmt.Errorf("the server at %s asked for a sign-in to %s: nothing was signed. If you know that address, use --server %s://%s",
		base.Host, domain, base.Scheme, domain)
}

// CreateKey makes an API key for one organisation.
func (s *Session) CreateKey(ctx context.Context, org ids.Org, name string) (apiv1.KeyCreated, error) {
	var created apiv1.KeyCreated
	err := s.api.Do(ctx, http.MethodPost, "/v1/keys", url.Values{"org": {org.String()}}, nil,
		apiv1.KeyCreate{Name: name, Scopes: Scopes, Days: KeyDays}, &created)
	return created, err
}

// End signs out.
func (s *Session) End(ctx context.Context) error {
	return s.api.Post(ctx, "/v1/auth/sign-out", nil, nil)
}

// cookies keeps the session between requests to one server. The standard jar will not do: on a loopback address it would
// withhold the server's Secure cookies from plain http, where browsers send them.
type cookies struct {
	next http.RoundTripper
	held map[string]*http.Cookie
}

// RoundTrip implements http.RoundTripper.
func (c *cookies) RoundTrip(request *http.Request) (*http.Response, error) {
	private := request.URL.Scheme == "https" || isLoopback(request.URL.Hostname())
	request = request.Clone(request.Context())
	for _, cookie := range c.held {
		if private || !cookie.Secure {
			request.AddCookie(cookie)
		}
	}
	response, err := c.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	for _, cookie := range response.Cookies() {
		if cookie.MaxAge < 0 || cookie.Value == "" {
			delete(c.held, cookie.Name)
			continue
		}
		c.held[cookie.Name] = cookie
	}
	return response, nil
}

func isLoopback(name string) bool {
	ip := net.ParseIP(name)
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || ip != nil && ip.IsLoopback()
}
