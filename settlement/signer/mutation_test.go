package signer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	bin "github.com/gagliardetto/binary"
	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

// mutant is a batch, its messages in every format, and the rules that they are held to.
type mutant struct {
	rules    rules
	tables   tables
	batch    Batch
	messages [][]byte
	meaning  string
}

// newMutant makes the same batch each time, so that fuzzing can be repeated.
func newMutant(tb testing.TB) *mutant {
	tb.Helper()
	key := func(n byte) solana.PublicKey { return solana.PublicKey{n, 9: n} }
	m := &mutant{rules: rules{treasury: key(1), policy: Policy{
		Mint: key(2), TokenProgram: solana.TokenProgramID, Decimals: 6, Nonces: []solana.PublicKey{key(3), key(4)},
		MaxPayoutsPerBatch: 56, MaxBaseUnitsPerBatch: 1_000_000, MaxBaseUnitsPerDay: 2_000_000, MaxPriorityFee: 1_000,
	}}}
	account := func(wallet solana.PublicKey) solana.PublicKey {
		found, _, err := solana.FindAssociatedTokenAddressWithProgram(wallet, m.rules.policy.Mint, solana.TokenProgramID)
		if err != nil {
			tb.Fatal(err)
		}
		return found
	}
	m.rules.source = account(m.rules.treasury)
	m.batch = Batch{ID: ids.Batch{1}}
	list := []solana.Instruction{solana.NewInstruction(solana.SystemProgramID, solana.AccountMetaSlice{
		solana.Meta(key(3)).WRITE(), solana.Meta(solana.SysVarRecentBlockHashesPubkey), solana.Meta(m.rules.treasury).SIGNER(),
	}, binary.LittleEndian.AppendUint32(nil, systemAdvanceNonce))}
	table := solana.PublicKeySlice{m.rules.source, m.rules.policy.Mint}
	for i, amount := range []uint64{257, 70_000} {
		wallet := key(byte(10 + i))
		m.batch.Payouts = append(m.batch.Payouts, Payout{ID: ids.Payout{byte(i + 1)}, Payee: ids.Org{byte(i + 1)}, Sequence: 1, Wallet: wallet, Amount: amount})
		if i == 0 {
			list = append(list, solana.NewInstruction(solana.SPLAssociatedTokenAccountProgramID, solana.AccountMetaSlice{
				solana.Meta(m.rules.treasury).WRITE().SIGNER(), solana.Meta(account(wallet)).WRITE(), solana.Meta(wallet),
				solana.Meta(m.rules.policy.Mint), solana.Meta(solana.SystemProgramID), solana.Meta(solana.TokenProgramID),
			}, []byte{ataCreateIdempotent}))
		}
		list = append(list, solana.NewInstruction(solana.TokenProgramID, solana.AccountMetaSlice{
			solana.Meta(m.rules.source).WRITE(), solana.Meta(m.rules.policy.Mint), solana.Meta(account(wallet)).WRITE(), solana.Meta(m.rules.treasury).SIGNER(),
		}, append(binary.LittleEndian.AppendUint64([]byte{tokenTransferChecked}, amount), 6)))
		table = append(table, account(wallet))
	}
	list = append(list, solana.NewInstruction(memoProgram, nil, []byte(m.batch.ID.String()+" "+strings.Repeat("A", 43))))
	priced := append(slices.Clone(list),
		solana.NewInstruction(solana.ComputeBudget, nil, binary.LittleEndian.AppendUint32([]byte{budgetUnitLimit}, 20_000)),
		solana.NewInstruction(solana.ComputeBudget, nil, binary.LittleEndian.AppendUint64([]byte{budgetUnitPrice}, 40_000)))
	m.tables = tables{key(5): table}
	for _, format := range []struct {
		list   []solana.Instruction
		option solana.TransactionOption
	}{
		{priced, solana.TransactionMessageVersion(solana.MessageVersionLegacy)},
		{priced, solana.TransactionMessageVersion(solana.MessageVersionV0)},
		{priced, solana.TransactionAddressTables(map[solana.PublicKey]solana.PublicKeySlice{key(5): table})},
		{list, solana.TransactionV1Config(solana.TransactionConfig{}.WithPriorityFee(800).WithComputeUnitLimit(10_000).WithLoadedAccountsDataSizeLimit(1 << 20))},
	} {
		transaction, err := solana.NewTransaction(format.list, solana.Hash{9}, solana.TransactionPayer(m.rules.treasury), format.option)
		if err != nil {
			tb.Fatal(err)
		}
		message, err := transaction.Message.MarshalBinary()
		if err != nil {
			tb.Fatal(err)
		}
		m.messages = append(m.messages, message)
		meaning := m.read(tb, message)
		if m.meaning != "" && meaning != m.meaning {
			tb.Fatalf("the formats differ in meaning:\n%s\n%s", m.meaning, meaning)
		}
		m.meaning = meaning
		if !m.allows(message) {
			tb.Fatal("the message itself is refused")
		}
	}
	return m
}

// allows is the signer's verdict, without any history.
func (m *mutant) allows(message []byte) bool {
	parsed, refusal := parse(message, m.tables)
	if refusal != nil {
		return false
	}
	_, refusal = (&payoutChecker{frame: frame{rules: m.rules}, batch: m.batch}).check(parsed)
	return refusal == nil
}

// read says what a message does, by solana-go's reading: who pays the fee, whose nonce is advanced, and what every instruction is
// given. Left out is what may differ between two messages that do the same: the nonce's value, which nonce of the policy, the
// root in the memo, the budget (its cap is the policy's), the order, and accounts that are created for payees.
func (m *mutant) read(tb testing.TB, message []byte) string {
	tb.Helper()
	var theirs solana.Message
	if err := theirs.UnmarshalWithDecoder(bin.NewBinDecoder(message)); err != nil {
		tb.Fatalf("solana-go cannot read what was allowed: %v", err)
	}
	if theirs.GetVersion() == solana.MessageVersionV0 {
		known := map[solana.PublicKey]solana.PublicKeySlice{}
		for address, addresses := range m.tables {
			known[address] = addresses
		}
		if err := theirs.SetAddressTables(known); err != nil {
			tb.Fatal(err)
		}
		if err := theirs.ResolveLookups(); err != nil {
			tb.Fatalf("solana-go cannot look up what was allowed: %v", err)
		}
	}
	lines := []string{fmt.Sprint("payer ", theirs.AccountKeys[0], " signers ", theirs.Header.NumRequiredSignatures)}
	for i, compiled := range theirs.Instructions {
		program, accounts := theirs.AccountKeys[compiled.ProgramIDIndex], []solana.PublicKey(nil)
		for _, account := range compiled.Accounts {
			accounts = append(accounts, theirs.AccountKeys[account])
		}
		data := []byte(compiled.Data)
		switch {
		case program == solana.ComputeBudget, program == solana.SPLAssociatedTokenAccountProgramID && m.createsForPayee(accounts, data):
			continue
		case program == memoProgram:
			data, _, _ = bytes.Cut(data, []byte(" "))
		case i == 0 && len(accounts) > 0 && slices.Contains(m.rules.policy.Nonces, accounts[0]):
			accounts[0] = m.rules.policy.Nonces[0]
		}
		lines = append(lines, fmt.Sprintf("%s %v %x", program, accounts, data))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (m *mutant) createsForPayee(accounts []solana.PublicKey, data []byte) bool {
	if !bytes.Equal(data, []byte{ataCreateIdempotent}) || len(accounts) != 6 || accounts[0] != m.rules.treasury {
		return false
	}
	for _, payout := range m.batch.Payouts {
		if found, _, err := solana.FindAssociatedTokenAddress(payout.Wallet, m.rules.policy.Mint); err == nil && accounts[1] == found {
			return accounts[2] == payout.Wallet && accounts[3] == m.rules.policy.Mint && accounts[5] == solana.TokenProgramID
		}
	}
	return false
}

func (m *mutant) check(tb testing.TB, message []byte) {
	tb.Helper()
	if !m.allows(message) {
		return
	}
	if meaning := m.read(tb, message); meaning != m.meaning {
		tb.Fatalf("a message that does something else is allowed:\n%s\nnot\n%s\n%x", meaning, m.meaning, message)
	}
}

// FuzzMutation looks for a message that is allowed for a batch and does anything but pay that batch.
func FuzzMutation(f *testing.F) {
	m := newMutant(f)
	for which, message := range m.messages {
		f.Add(uint8(which), uint16(0), uint16(0), []byte{})
		f.Add(uint8(which), uint16(len(message)-1), uint16(1), []byte{0})
		f.Add(uint8(which), uint16(1), uint16(2), []byte{0, 1})
	}
	f.Fuzz(func(t *testing.T, which uint8, at, cut uint16, put []byte) {
		message := m.messages[int(which)%len(m.messages)]
		from := int(at) % (len(message) + 1)
		to := min(from+int(cut), len(message))
		m.check(t, slices.Concat(message[:from], put, message[to:]))
	})
}

func TestNoChangedByteIsAllowedToMeanSomethingElse(t *testing.T) {
	t.Parallel()
	m := newMutant(t)
	for _, message := range m.messages {
		for at := range message {
			for _, flip := range []byte{1, 2, 0x40, 0x80, 0xff} {
				changed := bytes.Clone(message)
				changed[at] ^= flip
				m.check(t, changed)
			}
			m.check(t, slices.Delete(bytes.Clone(message), at, at+1))
			m.check(t, slices.Insert(bytes.Clone(message), at, message[at]))
		}
	}
}

func TestNothingElseIsSignedForASignedBatch(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	message, batch := b.signed(t, v, 5, 7)
	for at := range message {
		changed := bytes.Clone(message)
		changed[at] ^= 1
		_, err := signBatch(t, v, changed, batch)
		wantRule(t, err, RuleBatchChanged)
	}
}
