// Package localchaintest gives tests a real local chain: one process for a test binary, furnished anew for each test that asks,
// so that tests share slots but no token, treasury, nonce or wallet.
//
// A test binary that uses it has
//
//	func TestMain(m *testing.M) { localchaintest.Main(m) }
package localchaintest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/localchain"
)

const (
	slotMilliseconds = 20
	finalizeSlots    = 2
	startTimeout     = 60 * time.Second
)

var url string

// Main starts the chain, runs the tests, stops the chain and exits.
func Main(m *testing.M) {
	stop, err := start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "local chain:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "local chain:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// URL is the chain's RPC endpoint.
func URL() string { return url }

// New furnishes the chain for one test with a treasury of its own.
func New(t testing.TB, treasury chain.Address, capital uint64) *localchain.Chain {
	t.Helper()
	local, err := localchain.Setup(t.Context(), localchain.Config{
		URL: url, Dir: t.TempDir(), Treasury: treasury, Capital: capital, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
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

func start() (stop func() error, err error) {
	root, err := testkit.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	state, err := os.MkdirTemp("", "muster-localchaintest-")
	if err != nil {
		return nil, err
	}
	process := exec.Command("node", "server.js", "--state", state, "--port", "0", //nolint:gosec // constants
		"--slot-ms", strconv.Itoa(slotMilliseconds), "--finalize-slots", strconv.Itoa(finalizeSlots))
	process.Dir = filepath.Join(root, "deploy", "localnet")
	process.Stderr = os.Stderr
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := process.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(state))
	}
	if err := process.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(state))
	}
	stop = func() error {
		err := process.Process.Signal(syscall.SIGTERM)
		return errors.Join(err, process.Wait(), os.RemoveAll(state))
	}
	timer := time.AfterFunc(startTimeout, func() { _ = process.Process.Kill() })
	defer timer.Stop()
	var ready struct{ RPC string }
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("it did not start: %w", err), stop())
	}
	url = ready.RPC
	return stop, nil
}
