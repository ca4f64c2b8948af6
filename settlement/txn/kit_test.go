package txn_test

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/settlement/txn"
)

// vectors are written by deploy/localnet/test/vectors.js, which also says which addresses they use and why.
type vectors struct {
	Keys struct {
		Treasury     solana.PublicKey `json:"treasury"`
		TokenAccount solana.PublicKey `json:"tokenAccount"`
		Mint         solana.PublicKey `json:"mint"`
		TokenProgram solana.PublicKey `json:"tokenProgram"`
		Decimals     uint8            `json:"decimals"`
		NonceAccount solana.PublicKey `json:"nonceAccount"`
		NonceValue   solana.Hash      `json:"nonceValue"`
		Wallet       solana.PublicKey `json:"wallet"`
		Source       solana.PublicKey `json:"source"`
		SweepAmount  uint64           `json:"sweepAmount,string"`
	} `json:"keys"`
	Table struct {
		Address   solana.PublicKey   `json:"address"`
		Addresses []solana.PublicKey `json:"addresses"`
	} `json:"table"`
	Budget struct {
		Units       uint32 `json:"units"`
		LoadedData  uint32 `json:"loadedData"`
		PriorityFee uint64 `json:"priorityFee"`
	} `json:"budget"`
	Vectors []vector `json:"vectors"`
}

type vector struct {
	Name    string          `json:"name"`
	Version json.RawMessage `json:"version"`
	Kind    string          `json:"kind"`
	Memo    string          `json:"memo"`
	Message []byte          `json:"message"`
	Payees  []struct {
		Account solana.PublicKey  `json:"account"`
		Amount  uint64            `json:"amount,string"`
		Wallet  *solana.PublicKey `json:"wallet"` // of an account that is created
	} `json:"payees"`
}

func readVectors(t *testing.T) (all vectors) {
	t.Helper()
	text, err := os.ReadFile("testdata/kit.json")
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil || len(all.Vectors) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	return all
}

func (v vector) format(t *testing.T) txn.Format {
	t.Helper()
	f, known := map[string]txn.Format{"1": txn.V1, "0": txn.V0, `"legacy"`: txn.Legacy}[string(v.Version)]
	if !known {
		t.Fatalf("unknown version %s", v.Version)
	}
	return f
}

func (v vector) payees() []txn.Payee {
	payees := make([]txn.Payee, len(v.Payees))
	for i, p := range v.Payees {
		payees[i] = txn.Payee{Account: p.Account, Amount: p.Amount}
		if p.Wallet != nil {
			payees[i].Wallet, payees[i].Create = *p.Wallet, true
		}
	}
	return payees
}

func TestMessagesAreTheBytesOfSolanaKit(t *testing.T) {
	t.Parallel()
	all := readVectors(t)
	k := all.Keys
	treasury, err := txn.New(
		txn.Keys{Treasury: k.Treasury, TokenAccount: k.TokenAccount, Mint: k.Mint, TokenProgram: k.TokenProgram, Decimals: k.Decimals},
		&txn.Table{Address: all.Table.Address, Addresses: all.Table.Addresses})
	if err != nil {
		t.Fatal(err)
	}
	nonce, budget := txn.Nonce{Account: k.NonceAccount, Value: k.NonceValue}, txn.Budget(all.Budget)
	for _, v := range all.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			var message []byte
			var err error
			switch f := v.format(t); v.Kind {
			case "payout":
				message, err = treasury.Payout(f, &txn.Payout{Nonce: nonce, Payees: v.payees(), Memo: v.Memo, Budget: budget})
			case "cancel":
				message, err = treasury.Cancel(f, &txn.Cancel{Nonce: nonce, Budget: budget})
			case "sweep":
				message, err = treasury.Sweep(f, &txn.Sweep{Nonce: nonce, Wallet: k.Wallet, Source: k.Source, Amount: k.SweepAmount, Budget: budget})
			}
			if err != nil || !bytes.Equal(message, v.Message) {
				t.Errorf("the message is\n%x (%v), kit's\n%x", message, err, v.Message)
			}
		})
	}
}
