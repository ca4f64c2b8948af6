package signer

import (
	"encoding/binary"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

// bench is a signer's files and a vault on them.
type bench struct {
	options  Options
	policy   Policy
	treasury solana.PublicKey
	clock    time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{
		options: Options{
			Socket: filepath.Join(dir, "s"), KeyFile: filepath.Join(dir, "key"), JournalDir: filepath.Join(dir, "journal"),
			PolicyFile: filepath.Join(dir, "policy.json"), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
		policy: Policy{
			Mint: randomKey(t), TokenProgram: solana.TokenProgramID, Decimals: 6, Nonces: []solana.PublicKey{randomKey(t), randomKey(t)},
			MaxPayoutsPerBatch: 56, MaxBaseUnitsPerBatch: 1_000_000, MaxBaseUnitsPerDay: 2_000_000, MaxPriorityFee: 1_000, MaxBaseUnitsPerSweep: 500_000, MaxBaseUnitsSweptPerDay: 1_000_000,
		},
		clock: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC),
	}
	b.options.Now = func() time.Time { return b.clock }
	var err error
	if b.treasury, err = Init(b.options.KeyFile); err != nil {
		t.Fatal(err)
	}
	if err := b.policy.WriteFile(b.options.PolicyFile); err != nil {
		t.Fatal(err)
	}
	return b
}

// vault opens the signer's files as Serve does.
func (b *bench) vault(t *testing.T) *vault {
	t.Helper()
	handler, journal, err := load(t.Context(), b.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = journal.close(), handler.audit.close() }) // tests that restart close it themselves
	return handler.vault
}

// batch makes a batch of fresh payees.
func (b *bench) batch(t *testing.T, amounts ...uint64) Batch {
	t.Helper()
	batch := Batch{ID: ids.New[ids.Batch]()}
	for _, amount := range amounts {
		batch.Payouts = append(batch.Payouts,
			Payout{ID: ids.New[ids.Payout](), Payee: ids.New[ids.Org](), Sequence: 1, Wallet: randomKey(t), Amount: amount})
	}
	return batch
}

// draft is a transaction in the making: what a batch needs, open to tampering.
type draft struct {
	b            *bench
	version      solana.MessageVersion
	payer        solana.PublicKey
	nonceValue   solana.Hash
	priorityFee  uint64
	tables       map[solana.PublicKey]solana.PublicKeySlice
	instructions []*solana.GenericInstruction
}

func (b *bench) draft(t *testing.T, batch Batch) *draft {
	t.Helper()
	d := &draft{b: b, version: solana.MessageVersionV1, payer: b.treasury, nonceValue: solana.Hash(randomKey(t)), priorityFee: 800}
	d.add(solana.SystemProgramID, binary.LittleEndian.AppendUint32(nil, 4),
		solana.Meta(b.policy.Nonces[0]).WRITE(), solana.Meta(solana.SysVarRecentBlockHashesPubkey), solana.Meta(b.treasury).SIGNER())
	for i, payout := range batch.Payouts {
		account := b.tokenAccount(t, payout.Wallet)
		if i == 0 {
			d.add(solana.SPLAssociatedTokenAccountProgramID, []byte{1}, solana.Meta(b.treasury).WRITE().SIGNER(),
				solana.Meta(account).WRITE(), solana.Meta(payout.Wallet), solana.Meta(b.policy.Mint),
				solana.Meta(solana.SystemProgramID), solana.Meta(solana.TokenProgramID))
		}
		data := append(binary.LittleEndian.AppendUint64([]byte{12}, payout.Amount), b.policy.Decimals)
		d.add(solana.TokenProgramID, data, solana.Meta(b.tokenAccount(t, b.treasury)).WRITE(), solana.Meta(b.policy.Mint),
			solana.Meta(account).WRITE(), solana.Meta(b.treasury).SIGNER())
	}
	d.add(memoProgram, []byte(batch.ID.String()))
	return d
}

func (d *draft) add(program solana.PublicKey, data []byte, accounts ...*solana.AccountMeta) {
	d.instructions = append(d.instructions, solana.NewInstruction(program, accounts, data))
}

func (d *draft) bytes(t *testing.T) []byte {
	t.Helper()
	options := []solana.TransactionOption{solana.TransactionPayer(d.payer)}
	switch {
	case d.version == solana.MessageVersionV1:
		options = append(options, solana.TransactionV1Config(solana.TransactionConfig{}.
			WithPriorityFee(d.priorityFee).WithComputeUnitLimit(10_000).WithLoadedAccountsDataSizeLimit(1<<20)))
	case d.tables != nil:
		options = append(options, solana.TransactionAddressTables(d.tables))
	default:
		options = append(options, solana.TransactionMessageVersion(d.version))
	}
	list := make([]solana.Instruction, len(d.instructions))
	for i, instruction := range d.instructions {
		list[i] = instruction
	}
	transaction, err := solana.NewTransaction(list, d.nonceValue, options...)
	if err != nil {
		t.Fatal(err)
	}
	if d.tables != nil {
		transaction.Message.SetVersion(solana.MessageVersionV0)
	}
	message, err := transaction.Message.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return message
}

func (b *bench) tokenAccount(t *testing.T, wallet solana.PublicKey) solana.PublicKey {
	t.Helper()
	account, _, err := solana.FindAssociatedTokenAddressWithProgram(wallet, b.policy.Mint, b.policy.TokenProgram)
	if err != nil {
		t.Fatal(err)
	}
	return account
}

func randomKey(t *testing.T) solana.PublicKey {
	t.Helper()
	key, err := solana.NewRandomPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key.PublicKey()
}

// ask asks a vault as the server does.
func ask(t *testing.T, v *vault, r request) ([]solana.Signature, error) {
	t.Helper()
	answers, err := v.sign(t.Context(), []request{r})
	switch {
	case err != nil:
		return nil, err
	case answers[0].Refusal != nil:
		return nil, answers[0].Refusal
	default:
		return answers[0].Signatures, nil
	}
}

func signBatch(t *testing.T, v *vault, message []byte, batch Batch) (solana.Signature, error) {
	t.Helper()
	signatures, err := ask(t, v, request{Message: message, Batch: &batch})
	if err != nil {
		return solana.Signature{}, err
	}
	return signatures[0], nil
}

// advance begins a draft that only consumes a nonce value.
func (b *bench) advance(t *testing.T) *draft {
	t.Helper()
	d := b.draft(t, b.batch(t))
	d.instructions = d.instructions[:1]
	return d
}

func (b *bench) sweep(t *testing.T, v *vault, amount uint64) (*draft, Sweep) {
	t.Helper()
	sweep := Sweep{ID: ids.New[ids.Sweep](), Org: ids.New[ids.Org](), Amount: amount}
	wallet := v.keys.deposit(sweep.Org)
	d := b.advance(t)
	d.add(solana.TokenProgramID, append(binary.LittleEndian.AppendUint64([]byte{12}, amount), b.policy.Decimals),
		solana.Meta(b.tokenAccount(t, wallet)).WRITE(), solana.Meta(b.policy.Mint), solana.Meta(b.tokenAccount(t, b.treasury)).WRITE(),
		solana.Meta(wallet).SIGNER())
	return d, sweep
}
