package signer

import (
	"bytes"
	"errors"
	"testing"

	bin "github.com/gagliardetto/binary"
	"github.com/gagliardetto/solana-go"
)

// FuzzParse holds the parser to solana-go's, which is written independently: what ours accepts, solana-go reads to the same
// accounts, lifetime and instructions and writes to the same bytes, so nothing is signed that means something else to a cluster.
func FuzzParse(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, refusal := parse(data, fuzzTables)
		if refusal != nil {
			return
		}
		var theirs solana.Message
		if err := theirs.UnmarshalWithDecoder(bin.NewBinDecoder(data)); err != nil {
			t.Fatalf("solana-go cannot read what was accepted: %v", err)
		}
		if back, err := theirs.MarshalBinary(); err != nil || !bytes.Equal(back, data) {
			t.Fatalf("solana-go writes it differently: %v", err)
		}
		if m.version == 0 {
			if err := errors.Join(theirs.SetAddressTables(theirTables()), theirs.ResolveLookups()); err != nil {
				t.Fatalf("solana-go cannot look up what was: %v", err)
			}
		}
		compareAccounts(t, m, &theirs)
		if m.lifetime != theirs.RecentBlockhash ||
			m.signatures != int(theirs.Header.NumRequiredSignatures) || len(m.instructions) != len(theirs.Instructions) {
			t.Fatal("the messages differ")
		}
		for i, instruction := range m.instructions {
			compareInstruction(t, instruction, theirs.Instructions[i], theirs.AccountKeys)
		}
		fee := uint64(0)
		if theirs.TransactionConfig.PriorityFee != nil {
			fee = *theirs.TransactionConfig.PriorityFee
		}
		if m.priorityFee != fee {
			t.Fatalf("priority fee %d, solana-go reads %d", m.priorityFee, fee)
		}
	})
}

// fuzzTables are what the parser knows of lookup tables.
var fuzzTables = tables{{7}: {{1}, {3}, {4}, {5}}, {8}: {{6}, {2}}}

func theirTables() map[solana.PublicKey]solana.PublicKeySlice {
	known := map[solana.PublicKey]solana.PublicKeySlice{}
	for address, addresses := range fuzzTables {
		known[address] = addresses
	}
	return known
}

func compareAccounts(t *testing.T, m *message, theirs *solana.Message) {
	t.Helper()
	metas, err := theirs.AccountMetaList()
	if err != nil || len(metas) != len(m.keys) {
		t.Fatalf("solana-go reads %d accounts, not %d: %v", len(metas), len(m.keys), err)
	}
	for i, meta := range metas {
		if meta.PublicKey != m.keys[i] || meta.IsWritable != m.writable[i] || meta.IsSigner != (i < m.signatures) {
			t.Fatalf("account %d: %+v, not %s, writable %t", i, meta, m.keys[i], m.writable[i])
		}
	}
}

func compareInstruction(t *testing.T, ours instruction, theirs solana.CompiledInstruction, keys solana.PublicKeySlice) {
	t.Helper()
	if ours.program != keys[theirs.ProgramIDIndex] || !bytes.Equal(ours.data, theirs.Data) || len(ours.accounts) != len(theirs.Accounts) {
		t.Fatal("the instructions differ")
	}
	for j, account := range theirs.Accounts {
		if ours.accounts[j] != keys[account] {
			t.Fatal("the instructions' accounts differ")
		}
	}
}

// seeds are one message of each version, with one account, one instruction and every optional part.
func seeds(f *testing.F) [][]byte {
	f.Helper()
	payer, program := solana.PublicKey{1}, solana.PublicKey{2}
	call := solana.NewInstruction(program, solana.AccountMetaSlice{solana.Meta(payer).WRITE().SIGNER()}, []byte{1, 2, 3})
	var all [][]byte
	for _, option := range []solana.TransactionOption{
		solana.TransactionMessageVersion(solana.MessageVersionLegacy),
		solana.TransactionMessageVersion(solana.MessageVersionV0),
		solana.TransactionV1Config(solana.TransactionConfig{}.WithPriorityFee(1).WithComputeUnitLimit(2).
			WithLoadedAccountsDataSizeLimit(3).WithHeapSize(64 << 10)),
	} {
		transaction, err := solana.NewTransaction([]solana.Instruction{call, call}, solana.Hash{9}, solana.TransactionPayer(payer), option)
		if err != nil {
			f.Fatal(err)
		}
		message, err := transaction.Message.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, message)
	}
	looking := solana.NewInstruction(program, solana.AccountMetaSlice{
		solana.Meta(solana.PublicKey{3}), solana.Meta(solana.PublicKey{4}).WRITE(), solana.Meta(solana.PublicKey{6}).WRITE(),
	}, nil)
	transaction, err := solana.NewTransaction([]solana.Instruction{looking}, solana.Hash{9}, solana.TransactionPayer(payer),
		solana.TransactionAddressTables(theirTables()))
	if err != nil {
		f.Fatal(err)
	}
	message, err := transaction.Message.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	return append(all, message)
}
