package txn_test

import (
	"encoding/binary"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/settlement/txn"
)

var memoProgram = solana.MustPublicKeyFromBase58("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")

// fatal is what *testing.T, *testing.B and *rapid.T have in common.
type fatal interface {
	Helper()
	Fatal(args ...any)
}

// built is what solana-go's builder makes of the same instructions.
func built(t fatal, f txn.Format, keys txn.Keys, table *txn.Table, nonce txn.Nonce, budget txn.Budget, rest []solana.Instruction) *solana.Transaction {
	t.Helper()
	list := []solana.Instruction{solana.NewInstruction(solana.SystemProgramID, solana.AccountMetaSlice{
		solana.Meta(nonce.Account).WRITE(), solana.Meta(solana.SysVarRecentBlockHashesPubkey), solana.Meta(keys.Treasury).SIGNER(),
	}, binary.LittleEndian.AppendUint32(nil, 4))}
	options := []solana.TransactionOption{solana.TransactionPayer(keys.Treasury)}
	switch f {
	case txn.V1:
		options = append(options, solana.TransactionV1Config(solana.TransactionConfig{}.WithPriorityFee(budget.PriorityFee).
			WithComputeUnitLimit(budget.Units).WithLoadedAccountsDataSizeLimit(budget.LoadedData)))
	case txn.V0:
		options = append(options, solana.TransactionMessageVersion(solana.MessageVersionV0),
			solana.TransactionAddressTables(map[solana.PublicKey]solana.PublicKeySlice{table.Address: table.Addresses}))
	case txn.Legacy:
	}
	if f != txn.V1 {
		list = append(list, solana.NewInstruction(solana.ComputeBudget, nil, binary.LittleEndian.AppendUint32([]byte{2}, budget.Units)))
		if budget.PriorityFee > 0 {
			price := budget.PriorityFee * 1_000_000 / uint64(budget.Units)
			list = append(list, solana.NewInstruction(solana.ComputeBudget, nil, binary.LittleEndian.AppendUint64([]byte{3}, price)))
		}
	}
	transaction, err := solana.NewTransaction(append(list, rest...), nonce.Value, options...)
	if err != nil {
		t.Fatal(err)
	}
	return transaction
}

func payoutInstructions(keys txn.Keys, p *txn.Payout) []solana.Instruction {
	var list []solana.Instruction
	for _, payee := range p.Payees {
		if payee.Create {
			list = append(list, solana.NewInstruction(solana.SPLAssociatedTokenAccountProgramID, solana.AccountMetaSlice{
				solana.Meta(keys.Treasury).WRITE().SIGNER(), solana.Meta(payee.Account).WRITE(), solana.Meta(payee.Wallet),
				solana.Meta(keys.Mint), solana.Meta(solana.SystemProgramID), solana.Meta(keys.TokenProgram),
			}, []byte{1}))
		}
		list = append(list, transfer(keys, keys.TokenAccount, payee.Account, keys.Treasury, payee.Amount))
	}
	return append(list, memo(p.Memo)...)
}

func transfer(keys txn.Keys, from, to, authority solana.PublicKey, amount uint64) solana.Instruction {
	data := append(binary.LittleEndian.AppendUint64([]byte{12}, amount), keys.Decimals)
	return solana.NewInstruction(keys.TokenProgram, solana.AccountMetaSlice{
		solana.Meta(from).WRITE(), solana.Meta(keys.Mint), solana.Meta(to).WRITE(), solana.Meta(authority).SIGNER(),
	}, data)
}

func memo(text string) []solana.Instruction {
	if text == "" {
		return nil
	}
	return []solana.Instruction{solana.NewInstruction(memoProgram, nil, []byte(text))}
}

func wireOf(t fatal, transaction *solana.Transaction) (message, wire []byte) {
	t.Helper()
	message, err := transaction.Message.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if wire, err = transaction.MarshalBinary(); err != nil {
		t.Fatal(err)
	}
	return message, wire
}
