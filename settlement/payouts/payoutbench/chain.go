package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/programs/token"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
	"github.com/muster-gpu/muster/settlement/txn"
)

const (
	amount      = 1_000_000 // base units for each payee
	priorityFee = 800       // as the service pays by default
	trialUnits  = 100_000
	trialData   = 2 << 20
)

// measureChain pays 56 payees by one transaction, signed by the signer, and one payee as solana-tokens does.
func (w *world) measureChain(ctx context.Context) error {
	addresses, err := w.keys.Addresses(ctx)
	if err != nil {
		return err
	}
	layout, err := txn.New(txn.Keys{
		Treasury: addresses.Treasury, TokenAccount: addresses.TreasuryTokenAccount, Mint: addresses.Mint,
		TokenProgram: addresses.TokenProgram, Decimals: addresses.Decimals,
	}, nil)
	if err != nil {
		return err
	}
	id := ids.New[ids.Batch]()
	text := id.String() + " " + memoPayload
	payees := layout.Most(txn.V1, len(text))
	batch := signer.Batch{ID: id}
	payout := &txn.Payout{Memo: text, Budget: txn.Budget{Units: trialUnits, LoadedData: trialData, PriorityFee: priorityFee}}
	for i := range payees {
		payout.Payees = append(payout.Payees, txn.Payee{Account: w.accounts[i], Amount: amount})
		batch.Payouts = append(batch.Payouts, signer.Payout{
			ID: ids.New[ids.Payout](), Payee: ids.New[ids.Org](), Sequence: 1, Wallet: w.wallets[i], Amount: amount,
		})
	}
	last := addresses.Nonces[len(addresses.Nonces)-1] // the run needs this one least
	nonce, err := w.cluster.Nonce(ctx, chain.Finalized, 0, last)
	if err != nil {
		return err
	}
	payout.Nonce = txn.Nonce{Account: last, Value: nonce.Value}
	landed, err := w.payTogether(ctx, layout, payout, batch)
	if err != nil {
		return err
	}
	single, err := w.paySingly(ctx, addresses, w.accounts[payees])
	if err != nil {
		return fmt.Errorf("pay as solana-tokens does: %w", err)
	}
	each := float64(landed.Fee) / float64(payees)
	figure("payees_per_tx value=%d unit=payees peer=solana-tokens-scheme peer_value=1 ratio=%d", payees, payees)
	figure("lamports_per_payee value=%.4g unit=lamports peer=solana-tokens-scheme peer_value=%d ratio=%.3g transaction_lamports=%d compute_units=%d bytes=%d",
		each, single.Fee, float64(single.Fee)/each, landed.Fee, landed.Units, len(landed.Wire))
	return nil
}

// payTogether also shows that every payee got its amount.
func (w *world) payTogether(ctx context.Context, layout *txn.Treasury, payout *txn.Payout, batch signer.Batch) (*chain.Transaction, error) {
	message, err := layout.Payout(txn.V1, payout)
	if err != nil {
		return nil, err
	}
	signature, err := w.keys.Sign(ctx, message, batch)
	if err != nil {
		return nil, err
	}
	wire, err := txn.Join(message, signature)
	if err != nil {
		return nil, err
	}
	landed, err := w.land(ctx, wire)
	if err != nil {
		return nil, err
	}
	for _, payee := range payout.Payees {
		balance, err := w.cluster.TokenBalance(ctx, payee.Account, 0)
		if err != nil {
			return nil, err
		}
		if balance.Amount != payee.Amount {
			return nil, fmt.Errorf("%s holds %d, want %d", payee.Account, balance.Amount, payee.Amount)
		}
	}
	return landed, nil
}

// paySingly sends what solana-tokens sends for a payee with a token account: one TransferChecked in a transaction of its own, on a
// recent blockhash, without a priority fee.
func (w *world) paySingly(ctx context.Context, addresses signer.Addresses, to chain.Address) (*chain.Transaction, error) {
	key, err := w.treasuryKey()
	if err != nil {
		return nil, err
	}
	blockhash, _, err := w.cluster.LatestBlockhash(ctx, chain.Confirmed)
	if err != nil {
		return nil, err
	}
	message, err := solana.NewTransaction([]solana.Instruction{transfer(addresses, to)}, blockhash, solana.TransactionPayer(key.PublicKey()))
	if err != nil {
		return nil, err
	}
	if _, err := message.Sign(func(solana.PublicKey) *solana.PrivateKey { return &key }); err != nil {
		return nil, err
	}
	wire, err := message.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return w.land(ctx, wire)
}

// land sends a transaction and returns it once it is final and succeeded.
func (w *world) land(ctx context.Context, wire []byte) (landed *chain.Transaction, err error) {
	signature, err := w.cluster.Send(ctx, wire)
	if err != nil {
		return nil, err
	}
	err = await(ctx, "a transaction", func() (bool, error) {
		landed, err = w.cluster.Transaction(ctx, signature)
		if errors.Is(err, chain.ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	})
	if err == nil && landed.Err != "" {
		err = errors.New("the transaction failed: " + landed.Err)
	}
	return landed, err
}

// treasuryKey reads the key that the benchmark's signer has made for itself.
func (w *world) treasuryKey() (solana.PrivateKey, error) {
	text, err := os.ReadFile(w.files().KeyFile)
	if err != nil {
		return nil, err
	}
	var content struct {
		Seed []byte `json:"treasury_seed"`
	}
	if err := json.Unmarshal(text, &content); err != nil {
		return nil, err
	}
	return fromSeed(content.Seed)
}

func fromSeed(seed []byte) (solana.PrivateKey, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, errors.New("the signer's key file has no seed")
	}
	return solana.PrivateKey(ed25519.NewKeyFromSeed(seed)), nil
}

func transfer(addresses signer.Addresses, to chain.Address) solana.Instruction {
	return token.NewTransferCheckedInstruction(
		amount, addresses.Decimals, addresses.TreasuryTokenAccount, addresses.Mint, to, addresses.Treasury, nil).Build()
}
