package signer

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

// BenchmarkSignAll signs batches of 56 payees over the socket, 128 in a call: what a payout run asks for. Each iteration is a call.
func BenchmarkSignAll(b *testing.B) {
	dir := b.TempDir()
	options := Options{
		Socket: filepath.Join(dir, "s"), KeyFile: filepath.Join(dir, "key"), JournalDir: filepath.Join(dir, "journal"),
		PolicyFile: filepath.Join(dir, "policy"), Log: slog.New(slog.DiscardHandler),
	}
	treasury, err := Init(options.KeyFile)
	if err != nil {
		b.Fatal(err)
	}
	mint, nonce := solana.NewWallet().PublicKey(), solana.NewWallet().PublicKey()
	policy := Policy{
		Mint: mint, TokenProgram: solana.TokenProgramID, Decimals: 6, Nonces: []solana.PublicKey{nonce}, MaxPayoutsPerBatch: 56,
		MaxBaseUnitsPerBatch: 1 << 40, MaxBaseUnitsPerDay: 1 << 60, MaxPriorityFee: 1000, MaxMessagesPerDay: 1 << 30,
	}
	if err := policy.WriteFile(options.PolicyFile); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	options.Ready = func() { close(ready) }
	go func() { done <- Serve(ctx, options) }()
	select {
	case <-ready:
	case err := <-done:
		b.Fatal(err)
	}
	client := NewClient(options.Socket)
	b.Cleanup(func() {
		client.Close()
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	orders := make([]Order, maxRequests)
	payees := 0
	for b.Loop() {
		b.StopTimer()
		for i := range orders {
			if orders[i], err = benchOrder(treasury, mint, nonce); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		answers, err := client.SignAll(ctx, orders)
		if err != nil {
			b.Fatal(err)
		}
		for i := range answers {
			if answers[i].Refusal != nil {
				b.Fatal(answers[i].Refusal)
			}
		}
		payees += len(orders) * 56
	}
	b.ReportMetric(float64(payees)/b.Elapsed().Seconds(), "payees/s")
}

func benchOrder(treasury, mint, nonce solana.PublicKey) (Order, error) {
	batch := Batch{ID: ids.New[ids.Batch]()}
	source, _, err := solana.FindAssociatedTokenAddress(treasury, mint)
	list := []solana.Instruction{solana.NewInstruction(solana.SystemProgramID, solana.AccountMetaSlice{
		solana.Meta(nonce).WRITE(), solana.Meta(solana.SysVarRecentBlockHashesPubkey), solana.Meta(treasury).SIGNER(),
	}, binary.LittleEndian.AppendUint32(nil, systemAdvanceNonce))}
	for range 56 {
		payout := Payout{ID: ids.New[ids.Payout](), Payee: ids.New[ids.Org](), Sequence: 1, Wallet: solana.NewWallet().PublicKey(), Amount: 1_000_000}
		account, _, findErr := solana.FindAssociatedTokenAddress(payout.Wallet, mint)
		err = errors.Join(err, findErr)
		list = append(list, solana.NewInstruction(solana.TokenProgramID, solana.AccountMetaSlice{
			solana.Meta(source).WRITE(), solana.Meta(mint), solana.Meta(account).WRITE(), solana.Meta(treasury).SIGNER(),
		}, append(binary.LittleEndian.AppendUint64([]byte{tokenTransferChecked}, payout.Amount), 6)))
		batch.Payouts = append(batch.Payouts, payout)
	}
	list = append(list, solana.NewInstruction(memoProgram, nil, []byte(batch.ID.String())))
	transaction, txErr := solana.NewTransaction(list, solana.Hash(solana.NewWallet().PublicKey()), solana.TransactionPayer(treasury),
		solana.TransactionV1Config(solana.TransactionConfig{}.WithPriorityFee(800).WithComputeUnitLimit(10_000).WithLoadedAccountsDataSizeLimit(1<<20)))
	if err = errors.Join(err, txErr); err != nil {
		return Order{}, err
	}
	message, err := transaction.Message.MarshalBinary()
	return Order{Message: message, Batch: batch}, err
}
