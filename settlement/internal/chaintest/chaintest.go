// Package chaintest gives tests a part of a real local chain: a token, a treasury whose key they have, and deposit wallets.
package chaintest

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/localchain"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
)

// Capital is what a fresh treasury has, in base units.
const Capital = 1_000_000_000

const finalizeTimeout = 30 * time.Second

// Chain is a test's own part of the local chain.
type Chain struct {
	*localchain.Chain
	TreasuryKey solana.PrivateKey
	Wallets     *Wallets
}

// Start furnishes a part of the test binary's local chain. The binary's TestMain is localchaintest.Main.
func Start(tb testing.TB) *Chain {
	tb.Helper()
	treasury := newKey(tb)
	return &Chain{
		Chain:       localchaintest.New(tb, treasury.PublicKey(), Capital),
		TreasuryKey: treasury,
		Wallets:     NewWallets(tb),
	}
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
	signature, failure := c.Execute(tb, []solana.PrivateKey{key}, instruction)
	if failure != "" {
		tb.Fatalf("the transfer failed: %s", failure)
	}
	return signature
}

// Execute sends instructions in a transaction that the first key pays for and all sign, waits until it is final, and returns how it
// failed, empty if it did not.
func (c *Chain) Execute(tb testing.TB, keys []solana.PrivateKey, instructions ...solana.Instruction) (signature chain.Signature, failure string) {
	tb.Helper()
	blockhash, _, err := c.Client().LatestBlockhash(tb.Context(), chain.Confirmed)
	if err != nil {
		tb.Fatal(err)
	}
	transaction, err := solana.NewTransaction(instructions, blockhash, solana.TransactionPayer(keys[0].PublicKey()))
	if err != nil {
		tb.Fatal(err)
	}
	_, err = transaction.Sign(func(address solana.PublicKey) *solana.PrivateKey {
		for i := range keys {
			if keys[i].PublicKey() == address {
				return &keys[i]
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	wire, err := transaction.MarshalBinary()
	if err != nil {
		tb.Fatal(err)
	}
	if signature, err = c.Client().Send(tb.Context(), wire); err != nil {
		tb.Fatal(err)
	}
	testkit.Eventually(tb, finalizeTimeout, func() (bool, string) {
		ended, err := c.Client().Finalized(tb.Context(), signature)
		var final bool
		failure, final = ended[signature]
		return final, fmt.Sprintf("transaction %s is not final: %v", signature, err)
	})
	return signature, failure
}

// Wallets gives each organisation a deposit wallet, as the signer does, and counts how often it was asked.
type Wallets struct {
	keys  map[ids.Org]solana.PrivateKey
	asked atomic.Int64
	tb    testing.TB
}

// NewWallets makes an empty set.
func NewWallets(tb testing.TB) *Wallets {
	return &Wallets{keys: map[ids.Org]solana.PrivateKey{}, tb: tb}
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
