package signer

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/muster-gpu/muster/internal/ids"
)

func runChild(text string) {
	var options Options
	if err := json.Unmarshal([]byte(text), &options); err != nil {
		panic(err)
	}
	options.Log = slog.New(slog.DiscardHandler)
	if probe := os.Getenv(probeVariable); probe != "" {
		probeConfined(options, probe)
	}
	options.Ready = func() { fmt.Print("r") }
	if err := Serve(context.Background(), options); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve runs the signer until the test ends.
func (b *bench) serve(t *testing.T) *Client {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	options := b.options
	options.Ready = func() { close(ready) }
	go func() { done <- Serve(ctx, options) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	client := NewClient(b.options.Socket)
	t.Cleanup(func() {
		client.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return client
}

// serveHandler serves requests that are already wired.
func (b *bench) serveHandler(t *testing.T, h http.Handler) *Client {
	t.Helper()
	listener, err := listen(t.Context(), b.options.Socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.Listener = listener
	server.Start()
	client := NewClient(b.options.Socket)
	t.Cleanup(func() { client.Close(); server.Close() })
	return client
}

func TestClientGetsAddressesSignaturesAndRefusals(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	client := b.serve(t)
	addresses, err := client.Addresses(t.Context())
	if err != nil || addresses.Treasury != b.treasury || addresses.TreasuryTokenAccount != b.tokenAccount(t, b.treasury) ||
		addresses.Mint != b.policy.Mint || len(addresses.Nonces) != 2 || addresses.MaxBaseUnitsPerSweep != 500_000 {
		t.Fatalf("addresses: %+v, %v", addresses, err)
	}
	batch := b.batch(t, 5, 7)
	message := b.draft(t, batch).bytes(t)
	signature, err := client.Sign(t.Context(), message, batch)
	if err != nil || !signature.Verify(b.treasury, message) {
		t.Fatalf("signature: %v, %v", signature, err)
	}
	batch.Payouts[0].Amount++
	_, err = client.Sign(t.Context(), message, batch)
	wantRule(t, err, RuleBatchChanged)
}

func TestDepositAddressesAreStableAndDistinct(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	client := b.serve(t)
	one, two := ids.New[ids.Org](), ids.New[ids.Org]()
	first, err := client.DepositAddress(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	again, err := client.DepositAddress(t.Context(), one)
	if err != nil || again != first {
		t.Fatalf("the same organisation got %s, then %s (%v)", first, again, err)
	}
	other, err := client.DepositAddress(t.Context(), two)
	if err != nil || other == first || other == b.treasury {
		t.Fatalf("another organisation got %s (%v)", other, err)
	}
	if _, err := client.DepositAddress(t.Context(), ids.Org{}); err == nil {
		t.Fatal("no organisation got an address")
	}
}

func TestSocketIsPrivateAndBodiesAreBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.serve(t)
	info, err := os.Stat(b.options.Socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket has mode %v (%v)", info.Mode(), err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", b.options.Socket)
	}}
	defer transport.CloseIdleConnections()
	for body, status := range map[string]int{
		`{"requests":[{"message":"` + strings.Repeat("A", maxRequestBytes) + `"}]}`: http.StatusBadRequest,
		`{"unknown":1}`:   http.StatusBadRequest,
		`{"requests":[]}`: http.StatusBadRequest,
		`{"requests":[` + strings.Repeat(`{"message":"AA=="},`, maxRequests) + `{"message":"AA=="}]}`: http.StatusBadRequest,
		`{"requests":[{"message":"AA==","batch":{"id":"","payouts":[]}}]}`:                            http.StatusOK, // and a refusal
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://signer"+pathSign, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != status {
			t.Errorf("%.40s: status %d, want %d", body, response.StatusCode, status)
		}
	}
}
