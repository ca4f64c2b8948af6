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
func Start(tb testing.TB) *Chain {
	tb.Helper()
	treasury := newKey(tb)
	furnished, err := localchain.Setup(tb.Context(), localchain.Config{
		URL: run(tb), Dir: tb.TempDir(), Treasury: treasury.PublicKey(), Capital: capital, Nonces: 1, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := furnished.Close(); err != nil {
			tb.Error(err)
		}
	})
	return &Chain{Chain: furnished, TreasuryKey: treasury, Wallets: &Wallets{keys: map[ids.Org]solana.PrivateKey{}, tb: tb}}
}

// run starts the chain's process and returns its address.
func run(tb testing.TB) string {
	tb.Helper()
	root, err := testkit.RepositoryRoot()
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, "node", "server.js", "--state", tb.TempDir(), "--port", "0", "--slot-ms", "10", "--finalize-slots", "2")
	command.Dir = filepath.Join(root, "deploy", "localnet")
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = stopTimeout
	output, err := command.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := command.Start(); err != nil {
		cancel()
		tb.Fatalf("start the local chain: %v", err)
	}
	tb.Cleanup(func() {
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
			tb.Fatalf("the local chain says %q: run `npm ci` in deploy/localnet", line)
		}
	case <-time.After(startTimeout):
		tb.Fatal("the local chain does not start")
	}
	return listening.RPC
}

// TransferToAccount sends tokens from the engineer's wallet straight to a token account, whoever owns it, and waits until that is
// final. The other ways to send make sure of the owner.
func (c *Chain) TransferToAccount(tb testing.TB, account chain.Address, amount uint64) chain.Signature {
	tb.Helper()
	key, err := c.Engineer.Key()
	if err != nil {
		tb.Fatal(err)
	}
	source, err := chain.AssociatedTokenAccount(key.PublicKey(), c.Mint, chain.TokenProgram)
	if err != nil {
		tb.Fatal(err)
	}
	const transfer = 3 // the token program's plain Transfer
	instruction := solana.NewInstruction(chain.TokenProgram, solana.AccountMetaSlice{
		solana.Meta(source).WRITE(), solana.Meta(account).WRITE(), solana.Meta(key.PublicKey()).SIGNER(),
	}, binary.LittleEndian.AppendUint64([]byte{transfer}, amount))
	blockhash, _, err := c.Client().LatestBlockhash(tb.Context(), chain.Confirmed)
	if err != nil {
		tb.Fatal(err)
	}
	transaction, err := solana.NewTransaction([]solana.Instruction{instruction}, blockhash, solana.TransactionPayer(key.PublicKey()))
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := transaction.Sign(func(solana.PublicKey) *solana.PrivateKey { return &key }); err != nil {
		tb.Fatal(err)
	}
	wire, err := transaction.MarshalBinary()
	if err != nil {
		tb.Fatal(err)
	}
	signature, err := c.Client().Send(tb.Context(), wire)
	if err != nil {
		tb.Fatal(err)
	}
	testkit.Eventually(tb, startTimeout, func() (bool, string) {
		ended, err := c.Client().Finalized(tb.Context(), signature)
		failure, final := ended[signature]
		return final && failure == "", fmt.Sprintf("the transfer is not final: %q %v", failure, err)
	})
	return signature
}

// Wallets gives each organisation a deposit wallet, as the signer does, and counts how often it was asked.
type Wallets struct {
	keys  map[ids.Org]solana.PrivateKey
	asked atomic.Int64
	tb    testing.TB
}

// Key is the private key of an organisation's wallet. Add the organisation first.
func (w *Wallets) Key(org ids.Org) solana.PrivateKey { return w.keys[org] }

// Add makes the wallet of an organisation.
func (w *Wallets) Add(org ids.Org) { w.keys[org] = newKey(w.tb) }

// Asked is how often a deposit address was derived.
func (w *Wallets) Asked() int64 { return w.asked.Load() }

// DepositAddress implements deposits.AddressSource.
func (w *Wallets) DepositAddress(_ context.Context, org ids.Org) (chain.Address, error) {
	w.asked.Add(1)
	return w.keys[org].PublicKey(), nil
}

func newKey(tb testing.TB) solana.PrivateKey {
	tb.Helper()
	key, err := solana.NewRandomPrivateKey()
	if err != nil {
		tb.Fatal(err)
	}
	return key
}
