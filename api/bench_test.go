package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-gpu/muster/api/identity"
	"github.com/muster-gpu/muster/api/rayproxy"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/seal"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/cluster"
	"github.com/muster-gpu/muster/scheduler/fleet"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/settlement/chain"
	closing "github.com/muster-gpu/muster/settlement/close"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/metering"
	"github.com/muster-gpu/muster/settlement/payouts"
	"github.com/muster-gpu/muster/settlement/proof/manifests"
	"github.com/muster-gpu/muster/settlement/reconcile"
	"github.com/muster-gpu/muster/settlement/signer"
	"github.com/muster-gpu/muster/settlement/soljournal"
	"github.com/muster-gpu/muster/settlement/statements"
	"github.com/muster-gpu/muster/settlement/sweeps"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const testTimeout = 30 * time.Second

// bench is a whole server over a database of its own, with the real domain services. Only the chain, the signer and the agents
// are away: what needs them answers unavailable.
type bench struct {
	t        *testing.T
	pool     *pgxpool.Pool
	identity *identity.Service
	server   *Server
	url      string
	host     string
	client   *http.Client
	hub      *pgnotify.Hub
	shutdown func()
}

func newBench(t *testing.T, adjust ...func(*Options)) *bench {
	t.Helper()
	pool := testkit.DB(t)
	listener := httptest.NewUnstartedServer(nil)
	address := listener.Listener.Addr().String()
	b := &bench{t: t, pool: pool, url: "http://" + address, host: address, client: &http.Client{Timeout: testTimeout}}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	options := b.options(log)
	for _, f := range adjust {
		f(&options)
	}
	var err error
	if b.server, err = New(options); err != nil {
		t.Fatal(err)
	}
	listener.Config = b.server.HTTPServer(b.server.Handler())
	listener.Start()
	ctx, cancel := context.WithCancel(context.Background())
	listening, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_ = b.hub.Run(ctx, func() { closeOnce(listening) })
	}()
	<-listening
	b.shutdown = func() {
		stop, stopped := context.WithTimeout(context.Background(), testTimeout)
		defer stopped()
		if err := listener.Config.Shutdown(stop); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	}
	t.Cleanup(func() {
		b.client.CloseIdleConnections()
		b.shutdown()
		listener.Close()
		cancel()
		<-done
	})
	return b
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// options wires the server as musterd does.
func (b *bench) options(log *slog.Logger) Options {
	t, pool := b.t, b.pool
	currency := money.Currency{Symbol: "USDC", Mint: "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", Decimals: 6}
	var err error
	b.identity, err = identity.New(pool, identity.SignInConfig{
		Domain: b.host, URI: b.url, ChainID: "solana:localnet", Statement: "Sign in to Muster.",
	})
	fatal(t, err)
	box, err := seal.New(seal.NewKey())
	fatal(t, err)
	b.hub = pgnotify.New(pool, log)
	authority, err := fleet.OpenAuthority(t.TempDir())
	fatal(t, err)
	book := ledger.New(currency)
	away, err := chain.New(chain.Config{URL: "http://" + closedPort(t), Timeout: time.Second})
	fatal(t, err)
	treasury, err := addresses{}.DepositAddress(t.Context(), ids.New[ids.Org]())
	fatal(t, err)
	tokenProgram, err := chain.ParseAddress("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
	fatal(t, err)
	keys := signer.NewClient(filepath.Join(t.TempDir(), "signer.sock"))
	t.Cleanup(keys.Close)
	paying := payouts.New(pool, book, away, keys, payouts.Options{Log: log})
	incoming, err := deposits.New(pool, book, away, addresses{}, deposits.Config{
		TokenProgram: tokenProgram, Treasury: treasury, Minimum: deposits.MinimumOf(currency), Interval: time.Hour, Refunds: paying,
	}, log)
	fatal(t, err)
	proxy := rayproxy.New(rayproxy.Options{
		Pool: pool, Dialer: noAgents{}, Unsealer: box, Sessions: cluster.NewService(pool), PublicURL: b.url, DashboardSuffix: "dashboards.test", Log: log,
	})
	swept, err := sweeps.New(pool, book, away, keys, sweeps.Options{Minimum: 1, Log: log})
	fatal(t, err)
	return Options{
		Log: log, Registry: prometheus.NewRegistry(), Pool: pool, Seal: box, PublicURL: b.url,
		Limits:  Limits{SignIn: Limit{1000, 1000}, Address: Limit{10_000, 10_000}, Principal: Limit{10_000, 10_000}},
		Network: apiv1.Network{Name: "local", Mint: currency.Mint, Symbol: currency.Symbol, Decimals: currency.Decimals}, Currency: currency,
		Identity: b.identity, Market: market.New(pool, b.hub, census.New(pool, log), book, currency, market.FlatFee(500), "2.60.0", log), Clusters: cluster.NewService(pool),
		Fleet: fleet.NewRegistry(pool, currency, "2.60.0"), JoinTokens: fleet.NewTokens(pool, authority), Ray: proxy,
		Meter: metering.New(pool, book, time.Hour, log), Deposits: incoming, Sweeps: swept,
		Payouts:         paying,
		Manifests:       manifests.New(pool, manifests.Config{Network: "test", Mint: currency.Mint, Treasury: treasury.String()}),
		Periods:         closing.New(pool, closing.Options{Currency: currency}),
		Reconciliations: reconcile.New(pool, book, away, reconcile.Config{Treasury: treasury, CatchUp: incoming.Poll, Interval: time.Hour}, log),
		SOLJournal:      soljournal.New(pool, away, treasury, log),
		Statements:      statements.New(pool, book, log), Fees: statements.NewFees(pool),
		Notifications: b.hub, Faucet: dryFaucet{}, GatewayAddress: "gateway.test:7443", Ready: pool.Ping,
		Console: fstest.MapFS{
			"index.html":                  {Data: []byte("<!doctype html><title>Muster</title>")},
			"assets/index-Ab3dEf9h.js":    {Data: []byte("console.log('plain')")},
			"assets/index-Ab3dEf9h.js.br": {Data: []byte("brotli bytes")},
			"assets/index-Ab3dEf9h.js.gz": {Data: []byte("gzip bytes")},
			"favicon.svg":                 {Data: []byte("<svg/>")},
		},
		RayProxy: proxy.Programs(), Dashboards: proxy.Dashboards(), IsDashboard: proxy.IsDashboard,
	}
}

// addresses derives a deposit wallet from the organisation, as the signer does.
type addresses struct{}

func (addresses) DepositAddress(_ context.Context, org ids.Org) (chain.Address, error) {
	seed := sha256.Sum256(org[:])
	return chain.ParseAddress(base58(ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)))
}

type noAgents struct{}

func (noAgents) DialNode(context.Context, ids.Host, ids.Node, int) (net.Conn, error) {
	return nil, errors.New("no agent is connected")
}

type dryFaucet struct{}

func (dryFaucet) Drip(context.Context, ids.Org, money.Amount) (string, error) {
	return "signature", nil
}

// closedPort is an address that refuses connections.
func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// person is a wallet with, once signed in, a session.
type person struct {
	key     ed25519.PrivateKey
	address string
	cookie  string
	me      apiv1.Me
}

func newPerson() *person {
	_, key, _ := ed25519.GenerateKey(nil)
	return &person{key: key, address: base58(key.Public().(ed25519.PublicKey))}
}

func base58(raw []byte) string {
	const digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	value, base, digit := new(big.Int).SetBytes(raw), big.NewInt(58), new(big.Int)
	var text []byte
	for value.Sign() > 0 {
		value.DivMod(value, base, digit)
		text = append([]byte{digits[digit.Int64()]}, text...)
	}
	for i := 0; i < len(raw) && raw[i] == 0; i++ {
		text = append([]byte{'1'}, text...)
	}
	return string(text)
}

// signIn does what a browser with a wallet does.
func (b *bench) signIn(p *person) *person {
	b.t.Helper()
	asked := b.do(request{method: post, path: "/v1/auth/nonce", body: apiv1.NonceRequest{Address: p.address}})
	asked.is(http.StatusOK)
	var input apiv1.SignInInput
	asked.decode(&input)
	signed := b.do(request{method: post, path: "/v1/auth/sign-in", cookie: asked.cookie(browserCookie), body: apiv1.SignInRequest{
		Address: p.address, SignedMessage: base64.StdEncoding.EncodeToString([]byte(input.Message)),
		Signature: base64.StdEncoding.EncodeToString(ed25519.Sign(p.key, []byte(input.Message))),
	}})
	signed.is(http.StatusOK)
	signed.decode(&p.me)
	p.cookie = signed.cookie(sessionCookie)
	return p
}

// member signs a new person in whose only organisation is org, with these roles.
func (b *bench) member(org ids.Org, roles ...identity.Role) *person {
	b.t.Helper()
	p := newPerson()
	_, err := b.identity.SeedUser(b.t.Context(), p.address, "", []identity.Seed{{Org: org, Roles: roles}})
	fatal(b.t, err)
	return b.signIn(p)
}

func (b *bench) org(name string, platform bool) ids.Org {
	b.t.Helper()
	org, err := b.identity.SeedOrg(b.t.Context(), name, platform, "")
	fatal(b.t, err)
	return org
}

// keyOf mints an API key of a member.
func (b *bench) keyOf(org ids.Org, p *person, scopes ...identity.Scope) string {
	b.t.Helper()
	secret, err := b.identity.MintKey(b.t.Context(), org, p.me.UserID, identity.KeySpec{Name: "test", Scopes: scopes, Days: 1})
	fatal(b.t, err)
	return secret
}

type request struct {
	method, path string
	cookie       string
	bearer       string
	header       map[string]string
	body         any // marshalled, unless it is a string
}

func (r request) reader(t *testing.T) io.Reader {
	t.Helper()
	switch body := r.body.(type) {
	case nil:
		return nil
	case string:
		return strings.NewReader(body)
	default:
		data, err := json.Marshal(body)
		fatal(t, err)
		return bytes.NewReader(data)
	}
}

func (b *bench) do(r request) *reply {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), r.method, b.url+r.path, r.reader(b.t))
	fatal(b.t, err)
	if r.body != nil {
		req.Header.Set("Content-Type", jsonType)
	}
	if r.cookie != "" {
		req.Header.Set("Cookie", r.cookie)
	}
	if r.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+r.bearer)
	}
	for name, value := range r.header {
		if name == "Host" {
			req.Host = value
			continue
		}
		req.Header.Set(name, value)
	}
	resp, err := b.client.Do(req)
	fatal(b.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	fatal(b.t, err)
	return &reply{t: b.t, Response: resp, body: body}
}

type reply struct {
	*http.Response
	t    *testing.T
	body []byte
}

func (r *reply) is(status int) *reply {
	r.t.Helper()
	if r.StatusCode != status {
		r.t.Fatalf("%s %s: status %d, want %d: %s", r.Request.Method, r.Request.URL.Path, r.StatusCode, status, r.body)
	}
	return r
}

func (r *reply) decode(into any) {
	r.t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(r.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		r.t.Fatalf("%s %s: %v in %s", r.Request.Method, r.Request.URL.Path, err, r.body)
	}
}

// problem checks that the answer is a well-formed problem document of a code, and returns it.
func (r *reply) problem(status int, code string) apiv1.Problem {
	r.t.Helper()
	r.is(status)
	if kind := r.Header.Get("Content-Type"); kind != problemType {
		r.t.Fatalf("content type %q, want %q: %s", kind, problemType, r.body)
	}
	var p apiv1.Problem
	r.decode(&p)
	if p.Code != code || p.Status != status || p.Detail == "" || p.Title == "" || p.RequestID != r.Header.Get("X-Request-Id") {
		r.t.Fatalf("problem %+v, want code %s, status %d, a title, a detail and the request's id", p, code, status)
	}
	return p
}

// cookie returns a cookie that the answer sets, as a request sends it.
func (r *reply) cookie(name string) string {
	r.t.Helper()
	for _, c := range r.Cookies() {
		if c.Name == name {
			return c.Name + "=" + c.Value
		}
	}
	r.t.Fatalf("no cookie %s in %v", name, r.Header["Set-Cookie"])
	return ""
}
