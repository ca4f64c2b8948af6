// Package chaintest gives a test a real local chain of its own, furnished with a token and a treasury.
package chaintest

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/localchain"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
	capital      = 1_000_000_000 // base units in a fresh treasury
)

// Chain is a local chain that ends with its test.
type Chain struct {
	*localchain.Chain
	TreasuryKey solana.PrivateKey
	Wallets     *Wallets
}

// Start runs the local chain with the shortest slots and furnishes it.
func Start(t testing.TB) *Chain {
	t.Helper()
	treasury := newKey(t)
	furnished, err := localchain.Setup(t.Context(), localchain.Config{
		URL: run(t), Dir: t.TempDir(), Treasury: treasury.PublicKey(), Capital: capital, Nonces: 1, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := furnished.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Chain{Chain: furnished, TreasuryKey: treasury, Wallets: &Wallets{keys: map[ids.Org]solana.PrivateKey{}, t: t}}
}

// run starts the chain's process and returns its address.
func run(t testing.TB) string {
	t.Helper()
	root, err := testkit.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, "node", "server.js", "--state", t.TempDir(), "--port", "0", "--slot-ms", "10", "--finalize-slots", "2") //nolint:gosec // fixed
	command.Dir = filepath.Join(root, "deploy", "localnet")
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = stopTimeout
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		cancel()
		t.Fatalf("start the local chain: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		_ = command.Wait()
	})
	first := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(output).ReadString('\n')
		first <- line
		_, _ = io.Copy(io.Discard, output)
	}()
	var listening struct{ RPC string }
	select {
	case line := <-first:
		if err := json.Unmarshal([]byte(line), &listening); err != nil || listening.RPC == "" {
			t.Fatalf("the local chain says %q: run `npm ci` in deploy/localnet", line)
		}
	case <-time.After(startTimeout):
		t.Fatal("the local chain does not start")
	}
	return listening.RPC
}

// TransferToAccount sends tokens from the engineer's wallet straight to a token account, whoever owns it, and waits until that is
// final. The other ways to send make sure of the owner.
func (c *Chain) TransferToAccount(t testing.TB, account chain.Address, amount uint64) chain.Signature {
	t.Helper()
	key, err := c.Engineer.Key()
	if err != nil {
		t.Fatal(err)
	}
	source, err := chain.AssociatedTokenAccount(key.PublicKey(), c.Mint, chain.TokenProgram)
	if err != nil {
		t.Fatal(err)
	}
	const transfer = 3 // the token program's plain Transfer
	instruction := solana.NewInstruction(chain.TokenProgram, solana.AccountMetaSlice{
		solana.Meta(source).WRITE(), solana.Meta(account).WRITE(), solana.Meta(key.PublicKey()).SIGNER(),
	}, binary.LittleEndian.AppendUint64([]byte{transfer}, amount))
	blockhash, _, err := c.Client().LatestBlockhash(t.Context(), chain.Confirmed)
	if err != nil {
		t.Fatal(err)
	}
	transaction, err := solana.NewTransaction([]solana.Instruction{instruction}, blockhash, solana.TransactionPayer(key.PublicKey()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transaction.Sign(func(solana.PublicKey) *solana.PrivateKey { return &key }); err != nil {
		t.Fatal(err)
	}
	wire, err := transaction.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	signature, err := c.Client().Send(t.Context(), wire)
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, startTimeout, func() (bool, string) {
		ended, err := c.Client().Finalized(t.Context(), signature)
		failure, final := ended[signature]
		return final && failure == "", fmt.Sprintf("the transfer is not final: %q %v", failure, err)
	})
	return signature
}

// Wallets gives each organisation a deposit wallet, as the signer does, and counts how often it was asked.
type Wallets struct {
	keys  map[ids.Org]solana.PrivateKey
	asked atomic.Int64
	t     testing.TB
}

// Key is the private key of an organisation's wallet. Add the organisation first.
func (w *Wallets) Key(org ids.Org) solana.PrivateKey { return w.keys[org] }

// Add makes the wallet of an organisation.
func (w *Wallets) Add(org ids.Org) { w.keys[org] = newKey(w.t) }

// Asked is how often a deposit address was derived.
func (w *Wallets) Asked() int64 { return w.asked.Load() }

// DepositAddress implements deposits.AddressSource.
func (w *Wallets) DepositAddress(_ context.Context, org ids.Org) (chain.Address, error) {
	w.asked.Add(1)
	return w.keys[org].PublicKey(), nil
}

func newKey(t testing.TB) solana.PrivateKey {
	t.Helper()
	key, err := solana.NewRandomPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
