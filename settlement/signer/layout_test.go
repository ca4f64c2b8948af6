package signer

import (
	"bytes"
	"encoding/base64"
	"testing"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/txn"
)

// TestSignsWhatSettlementLaysOut holds package txn and this one together: what the one lays out, in each format, the other allows.
func TestSignsWhatSettlementLaysOut(t *testing.T) {
	t.Parallel()
	for _, format := range []txn.Format{txn.V1, txn.V0, txn.Legacy} {
		t.Run(format.String(), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			batch := b.batch(t, 5, 7, 11)
			table := LookupTable{Address: randomKey(t), Addresses: []solana.PublicKey{b.policy.Nonces[0], b.policy.Mint, b.tokenAccount(t, b.treasury)}}
			var payees []txn.Payee
			for i, payout := range batch.Payouts {
				account := b.tokenAccount(t, payout.Wallet)
				table.Addresses = append(table.Addresses, account)
				payees = append(payees, txn.Payee{Account: account, Wallet: payout.Wallet, Amount: payout.Amount, Create: i == 1})
			}
			b.policy.LookupTables = []LookupTable{table}
			if err := b.policy.WriteFile(b.options.PolicyFile); err != nil {
				t.Fatal(err)
			}
			v := b.vault(t)
			treasury, err := txn.New(txn.Keys{
				Treasury: b.treasury, TokenAccount: b.tokenAccount(t, b.treasury), Mint: b.policy.Mint, TokenProgram: b.policy.TokenProgram, Decimals: b.policy.Decimals,
			}, &txn.Table{Address: table.Address, Addresses: table.Addresses})
			if err != nil {
				t.Fatal(err)
			}
			nonce := func() txn.Nonce { return txn.Nonce{Account: b.policy.Nonces[0], Value: solana.Hash(randomKey(t))} }
			budget := txn.Budget{Units: 20_000, LoadedData: 1 << 20, PriorityFee: 800}
			memo := batch.ID.String() + " " + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{7}, rootBytes))

			payout := &txn.Payout{Nonce: nonce(), Payees: payees, Memo: memo, Budget: budget}
			message, err := treasury.Payout(format, payout)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := signBatch(t, v, message, batch); err != nil {
				t.Errorf("payout: %v", err)
			}
			if message, err = treasury.Cancel(format, &txn.Cancel{Nonce: payout.Nonce, Memo: batch.ID.String(), Budget: budget}); err != nil {
				t.Fatal(err)
			}
			if _, err := ask(t, v, request{Message: message, Cancel: batch.ID}); err != nil {
				t.Errorf("cancel: %v", err)
			}
			sweep := Sweep{ID: ids.New[ids.Sweep](), Org: ids.New[ids.Org](), Amount: 9}
			wallet := v.keys.deposit(sweep.Org)
			if message, err = treasury.Sweep(format, &txn.Sweep{
				Nonce: nonce(), Wallet: wallet, Source: b.tokenAccount(t, wallet), Amount: sweep.Amount, Memo: sweep.ID.String(), Budget: budget,
			}); err != nil {
				t.Fatal(err)
			}
			if _, err := ask(t, v, request{Message: message, Sweep: &sweep}); err != nil {
				t.Errorf("sweep: %v", err)
			}
		})
	}
}
