package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/gagliardetto/solana-go"
	computebudget "github.com/gagliardetto/solana-go/programs/compute-budget"
	"github.com/gagliardetto/solana-go/programs/memo"
	"github.com/gagliardetto/solana-go/programs/system"
	"github.com/gagliardetto/solana-go/programs/token"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/txn"
)

const (
	rounds      = 15
	perRound    = 200 // messages
	memoPayload = "mZ1Yp0uO9mJ4W8yq3cH7gk2b5nXr6tLsVfQaEoDiCzA"
	decimals    = 6

	maxTable      = 256 // addresses
	microLamports = 1_000_000
)

// builder has the same batches for both sides, in one format.
type builder struct {
	format  txn.Format
	key     solana.PrivateKey
	keys    txn.Keys
	layout  *txn.Treasury
	table   *txn.Table // of V0
	payees  int        // of each batch: as many as the format takes
	payouts []txn.Payout
	buffer  []byte
}

// measureBuild measures each format. The figure without a format's name is of the one that payouts are made in unless the chain refuses
// it.
func measureBuild() error {
	for _, one := range []struct {
		format txn.Format
		name   string
	}{{txn.V1, ""}, {txn.V0, "_v0"}, {txn.Legacy, "_legacy"}} {
		if err := measureFormat(one.format, one.name); err != nil {
			return fmt.Errorf("%s: %w", one.format, err)
		}
	}
	return nil
}

// measureFormat times both sides in turns, by the CPU time of the whole process, so that neither a busy machine nor a garbage
// collector of other threads falls on one side only.
func measureFormat(format txn.Format, name string) error {
	b, err := newBuilder(format)
	if err != nil {
		return err
	}
	if err := b.sameBytes(); err != nil {
		return err
	}
	sides := []func(*txn.Payout) error{b.ours, b.theirs, b.build, b.theirBuild}
	times := make([][]time.Duration, len(sides))
	for range rounds {
		for i, side := range sides {
			took, err := b.time(side)
			if err != nil {
				return err
			}
			times[i] = append(times[i], took)
		}
	}
	per := func(side int) float64 { // nanoseconds
		slices.Sort(times[side])
		return times[side][rounds/2].Seconds() * 1e9 / float64(perRound*b.payees)
	}
	figure("build_sign%s_ratio value=%.4g unit=ns_per_payee peer=solana-go peer_value=%.4g ratio=%.3g format=%s payees=%d",
		name, per(0), per(1), per(1)/per(0), format, b.payees)
	figure("build%s_ratio value=%.4g unit=ns_per_payee peer=solana-go peer_value=%.4g ratio=%.3g format=%s payees=%d",
		name, per(2), per(3), per(3)/per(2), format, b.payees)
	return nil
}

func newBuilder(format txn.Format) (*builder, error) {
	key, err := solana.NewRandomPrivateKey()
	if err != nil {
		return nil, err
	}
	b := &builder{format: format, key: key, keys: txn.Keys{
		Treasury: key.PublicKey(), TokenAccount: random(), Mint: random(), TokenProgram: solana.TokenProgramID, Decimals: decimals,
	}}
	account := func(int) solana.PublicKey { return random() }
	if format == txn.V0 {
		b.table = &txn.Table{Address: random(), Addresses: []solana.PublicKey{b.keys.TokenAccount, b.keys.Mint, solana.SysVarRecentBlockHashesPubkey}}
		fixed := len(b.table.Addresses)
		for len(b.table.Addresses) < maxTable {
			b.table.Addresses = append(b.table.Addresses, random())
		}
		account = func(i int) solana.PublicKey { return b.table.Addresses[fixed+i%(maxTable-fixed)] }
	}
	if b.layout, err = txn.New(b.keys, b.table); err != nil {
		return nil, err
	}
	text := ids.New[ids.Batch]().String() + " " + memoPayload
	b.payees = b.layout.Most(format, len(text))
	for n := range perRound {
		p := txn.Payout{
			Nonce: txn.Nonce{Account: random(), Value: solana.Hash(random())}, Memo: ids.New[ids.Batch]().String() + " " + memoPayload,
			Budget: txn.Budget{Units: 10_000, LoadedData: 2 << 20, PriorityFee: 800},
		}
		for i := range b.payees {
			p.Payees = append(p.Payees, txn.Payee{Account: account(n*b.payees + i), Amount: uint64(1_000_000 + i)})
		}
		b.payouts = append(b.payouts, p)
	}
	return b, nil
}

// random is an address of nobody.
func random() solana.PublicKey { return solana.NewWallet().PublicKey() }

func (b *builder) time(do func(*txn.Payout) error) (time.Duration, error) {
	before, err := cpu()
	if err != nil {
		return 0, err
	}
	for i := range b.payouts {
		if err := do(&b.payouts[i]); err != nil {
			return 0, err
		}
	}
	after, err := cpu()
	return after - before, err
}

// cpu is the time that all threads of the process have run.
func cpu() (time.Duration, error) {
	var usage syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), err
}

func (b *builder) build(p *txn.Payout) (err error) {
	b.buffer, err = b.layout.AppendPayout(b.buffer[:0], b.format, p)
	return err
}

// ours builds and signs as the service and the signer do, to the bytes that are sent.
func (b *builder) ours(p *txn.Payout) error {
	if err := b.build(p); err != nil {
		return err
	}
	signature := solana.Signature(ed25519.Sign(ed25519.PrivateKey(b.key), b.buffer))
	if b.format == txn.V1 {
		b.buffer = append(b.buffer, signature[:]...)
		return nil
	}
	b.buffer = slices.Insert(b.buffer, 0, append([]byte{1}, signature[:]...)...) // the older formats have the signatures in front
	return nil
}

// theirs does the same with solana-go, as its documentation shows it.
func (b *builder) theirs(p *txn.Payout) (err error) {
	_, err = b.byLibrary(p)
	return err
}

// theirBuild ends with the message's bytes, which are what is signed.
func (b *builder) theirBuild(p *txn.Payout) error {
	transaction, err := b.libraryBuild(p)
	if err == nil {
		_, err = transaction.Message.MarshalBinary()
	}
	return err
}

func (b *builder) byLibrary(p *txn.Payout) ([]byte, error) {
	transaction, err := b.libraryBuild(p)
	if err != nil {
		return nil, err
	}
	if _, err := transaction.Sign(func(solana.PublicKey) *solana.PrivateKey { return &b.key }); err != nil {
		return nil, err
	}
	return transaction.MarshalBinary()
}

func (b *builder) libraryBuild(p *txn.Payout) (*solana.Transaction, error) {
	build := solana.NewTransactionBuilder().SetFeePayer(b.keys.Treasury).SetRecentBlockHash(p.Nonce.Value)
	build.AddInstruction(system.NewAdvanceNonceAccountInstruction(p.Nonce.Account, solana.SysVarRecentBlockHashesPubkey, b.keys.Treasury).Build())
	if b.format == txn.V1 {
		build.SetTransactionConfig(solana.TransactionConfig{}.WithPriorityFee(p.Budget.PriorityFee).WithComputeUnitLimit(p.Budget.Units).
			WithLoadedAccountsDataSizeLimit(p.Budget.LoadedData))
	} else {
		build.AddInstruction(computebudget.NewSetComputeUnitLimitInstruction(p.Budget.Units).Build())
		build.AddInstruction(computebudget.NewSetComputeUnitPriceInstruction(p.Budget.PriorityFee * microLamports / uint64(p.Budget.Units)).Build())
	}
	if b.format == txn.V0 {
		build.WithOpt(solana.TransactionMessageVersion(solana.MessageVersionV0))
		build.WithOpt(solana.TransactionAddressTables(map[solana.PublicKey]solana.PublicKeySlice{b.table.Address: b.table.Addresses}))
	}
	for i := range p.Payees {
		build.AddInstruction(token.NewTransferCheckedInstruction(
			p.Payees[i].Amount, b.keys.Decimals, b.keys.TokenAccount, b.keys.Mint, p.Payees[i].Account, b.keys.Treasury, nil).Build())
	}
	build.AddInstruction(memo.NewMemoInstructionBuilder().SetMessage([]byte(p.Memo)).Build())
	return build.Build()
}

func (b *builder) sameBytes() error {
	for i := range b.payouts {
		theirs, err := b.byLibrary(&b.payouts[i])
		if err != nil {
			return fmt.Errorf("solana-go: %w", err)
		}
		if err := b.ours(&b.payouts[i]); err != nil {
			return err
		}
		if !bytes.Equal(b.buffer, theirs) {
			return errors.New("the bytes differ from solana-go's")
		}
	}
	return nil
}
