package payouts

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
)

// Instruction codes, and the generous budget of a trial run.
const (
	systemAdvanceNonce   = 4
	tokenTransferChecked = 12
	ataCreateIdempotent  = 1

	trialUnits  uint32 = 1_400_000
	trialLoaded uint32 = 64 << 20
	spareUnits         = 1_000

	minLoadedData uint32 = 2 << 20
)

var memoProgram = solana.MustPublicKeyFromBase58("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")

// buildMessage makes the message that pays a batch. Its budget is taken from a first trial run, and a second one shows that the
// message does with that budget. An error is what holds the batch up.
func (s *Service) buildMessage(ctx context.Context, b *work, keys signer.Addresses) ([]byte, error) {
	config := solana.TransactionConfig{}.WithPriorityFee(min(s.options.PriorityFee, keys.MaxPriorityFee))
	used, _, err := s.try(ctx, b, keys, config.WithComputeUnitLimit(trialUnits).WithLoadedAccountsDataSizeLimit(trialLoaded))
	if err != nil {
		return nil, err
	}
	_, transaction, err := s.try(ctx, b, keys, config.
		WithComputeUnitLimit(unitLimit(used.Units)).WithLoadedAccountsDataSizeLimit(loadedLimit(used.LoadedDataSize)))
	if err != nil {
		return nil, err
	}
	return transaction.Message.MarshalBinary()
}

// try runs a batch's transaction with a budget without sending it.
func (s *Service) try(ctx context.Context, b *work, keys signer.Addresses, config solana.TransactionConfig,
) (chain.Simulation, *solana.Transaction, error) {
	transaction, err := solana.NewTransaction(b.instructions(keys), b.nonceValue, solana.TransactionPayer(keys.Treasury),
		solana.TransactionV1Config(config))
	if err != nil {
		return chain.Simulation{}, nil, fmt.Errorf("build the transaction: %w", err)
	}
	wire, err := transaction.MarshalBinary()
	if err != nil {
		return chain.Simulation{}, nil, fmt.Errorf("build the transaction: %w", err)
	}
	simulation, err := s.chain.Simulate(ctx, chain.Confirmed, 0, wire)
	if err != nil {
		return chain.Simulation{}, nil, fmt.Errorf("try the transaction: %w", err)
	}
	if simulation.Err != "" {
		return chain.Simulation{}, nil, &trialError{reason: simulation.Err}
	}
	return simulation, transaction, nil
}

// trialError says that the transaction would fail now.
type trialError struct{ reason string }

func (e *trialError) Error() string {
	return "the transaction would fail on the chain now (is the treasury short of tokens or SOL?): " + e.reason
}

// unitLimit leaves a fifth for accounts that change between the trial and the landing.
func unitLimit(used uint64) uint32 { return uint32(min(used+used/5+spareUnits, uint64(trialUnits))) }

// loadedLimit has a floor: endpoints count differently, some without the programs' own data, and a higher limit costs no fee.
func loadedLimit(used uint32) uint32 { return min(max(used+used/5, minLoadedData), trialLoaded) }

// instructions are nonce advance first, then per payee the creation of its account if needed and the transfer, and the memo.
func (b *work) instructions(keys signer.Addresses) []solana.Instruction {
	list := make([]solana.Instruction, 0, 2*len(b.payouts)+2)
	list = append(list, solana.NewInstruction(solana.SystemProgramID, solana.AccountMetaSlice{
		solana.Meta(b.nonceAccount).WRITE(),
		solana.Meta(solana.SysVarRecentBlockHashesPubkey),
		solana.Meta(keys.Treasury).SIGNER(),
	}, binary.LittleEndian.AppendUint32(nil, systemAdvanceNonce)))
	for _, p := range b.payouts {
		if p.createAccount {
			list = append(list, createIdempotent(p, keys))
		}
		list = append(list, transferChecked(p, keys))
	}
	return append(list, solana.NewInstruction(memoProgram, nil, []byte(b.id.String())))
}

func createIdempotent(p workPayout, keys signer.Addresses) solana.Instruction {
	return solana.NewInstruction(solana.SPLAssociatedTokenAccountProgramID, solana.AccountMetaSlice{
		solana.Meta(keys.Treasury).WRITE().SIGNER(),
		solana.Meta(p.tokenAccount).WRITE(),
		solana.Meta(p.wallet),
		solana.Meta(keys.Mint),
		solana.Meta(solana.SystemProgramID),
		solana.Meta(keys.TokenProgram),
	}, []byte{ataCreateIdempotent})
}

func transferChecked(p workPayout, keys signer.Addresses) solana.Instruction {
	data := binary.LittleEndian.AppendUint64([]byte{tokenTransferChecked}, uint64(p.amount))
	return solana.NewInstruction(keys.TokenProgram, solana.AccountMetaSlice{
		solana.Meta(keys.TreasuryTokenAccount).WRITE(),
		solana.Meta(keys.Mint),
		solana.Meta(p.tokenAccount).WRITE(),
		solana.Meta(keys.Treasury).SIGNER(),
	}, append(data, keys.Decimals))
}

// assemble joins a stored message and its signature to the bytes that are sent, and verifies them.
func assemble(message []byte, signature chain.Signature) ([]byte, error) {
	wire := append(append(make([]byte, 0, len(message)+len(signature)), message...), signature[:]...)
	transaction, err := solana.TransactionFromBytes(wire)
	if err != nil {
		return nil, fmt.Errorf("decode the signed transaction: %w", err)
	}
	if err := transaction.VerifySignatures(); err != nil {
		return nil, fmt.Errorf("the signer's signature does not verify: %w", err)
	}
	return wire, nil
}
