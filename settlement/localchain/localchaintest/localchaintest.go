// Package localchaintest gives tests a real local chain: one process for a test binary, furnished anew for each test that asks,
// so that tests share slots but no token, treasury, nonce or wallet.
//
// A test binary that uses it has
//
//	func TestMain(m *testing.M) { localchaintest.Main(m) }
package localchaintest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/muster-gpu/muster/deploy/localnet"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/localchain"
)

const (
	slot          = 20 * time.Millisecond
	finalizeSlots = 2
)

var server *localnet.Server

// Main starts the chain, runs the tests, stops the chain and exits.
func Main(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	state, err := os.MkdirTemp("", "muster-localchaintest-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	server, err = localnet.Start(context.Background(), localnet.Options{StateDir: state, Slot: slot, FinalizeSlots: finalizeSlots})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	return m.Run(), nil
}

// URL is the chain's RPC endpoint.
func URL() string { return server.RPCURL() }

// WebsocketURL is the chain's websocket endpoint.
func WebsocketURL() string { return server.WSURL() }

// New furnishes the chain for one test with a treasury of its own.
func New(t testing.TB, treasury chain.Address, capital uint64) *localchain.Chain {
	t.Helper()
	local, err := localchain.Setup(t.Context(), localchain.Config{
		URL: URL(), WebsocketURL: WebsocketURL(), Dir: t.TempDir(), Treasury: treasury, Capital: capital, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := local.Close(); err != nil {
			t.Error(err)
		}
	})
	return local
}
