package payouts

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"
	tables "github.com/gagliardetto/solana-go/programs/address-lookup-table"

	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
	"github.com/muster-gpu/muster/settlement/txn"
)

// oldFashioned is a cluster that does not know version 1 transactions, and otherwise delegates.
type oldFashioned struct {
	Chain
	refused atomic.Int32
}

const firstByteV1 = 0x81

func (o *oldFashioned) Simulate(ctx context.Context, commitment chain.Commitment, minSlot chain.Slot, wire []byte) (chain.Simulation, error) {
	if wire[0] == firstByteV1 {
		o.refused.Add(1)
		return chain.Simulation{}, &chain.RPCError{Method: "simulateTransaction", Code: codeInvalidParams, Message: "failed to deserialize solana_transaction"}
	}
	return o.Chain.Simulate(ctx, commitment, minSlot, wire)
}

func TestAChainThatDoesNotKnowVersion1IsPaidInLegacyTransactions(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cluster := &oldFashioned{Chain: b.cluster}
	s := b.service(b.pool, cluster)
	var owners []owner
	for range 2 { // the second time without trying version 1
		owners = append(owners, b.owners(t, 3, true)...)
		batches := b.approved(t, s)
		stop := run(t, s, term)
		reach(t, s, batches[0], stateFinalized)
		check(t, stop())
		b.wantPaidOnce(t, owners...)
		var wire []byte
		check(t, b.pool.QueryRow(t.Context(), `SELECT wire FROM payout_transactions WHERE batch_id = $1`, batches[0]).Scan(&wire))
		if wire[0] != 1 || wire[1+64] >= 0x80 {
			t.Errorf("the transaction begins with %x, which is not legacy", wire[:1+64+1])
		}
	}
	owners = append(owners, b.owners(t, 20, true)...)
	batches := b.approved(t, s) // planned for what the chain takes
	run(t, s, term)
	for _, id := range batches {
		reach(t, s, id, stateFinalized)
	}
	if len(batches) != 2 {
		t.Errorf("20 payees are in %d batches, want 2", len(batches))
	}
	b.wantPaidOnce(t, owners...)
	if tried := cluster.refused.Load(); tried != 1 {
		t.Errorf("version 1 was tried %d times, want once", tried)
	}
}

func TestABatchThatNoAcceptedFormatHoldsSaysSo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, &oldFashioned{Chain: b.cluster})
	b.owners(t, 20, true)
	batches := b.approved(t, s)
	run(t, s, term)
	var attention string
	eventually(t, func() bool {
		batch, err := s.Batch(t.Context(), batches[0])
		check(t, err)
		attention = batch.Attention
		return attention != ""
	}, func() string { return "nothing says why the batch is held up" })
	if !strings.Contains(attention, "smaller transactions") {
		t.Errorf("the batch says %q", attention)
	}
}

func TestARefusedFormatIsTriedAgainAfterAWhile(t *testing.T) {
	t.Parallel()
	var f formats
	start := time.Now()
	f.refuse(txn.V1, start)
	if got := f.usable(start.Add(formatMemory-1), false); len(got) != 1 || got[0] != txn.Legacy {
		t.Errorf("within the time: %v", got)
	}
	if got := f.usable(start.Add(formatMemory), true); len(got) != 3 || got[0] != txn.V1 || got[1] != txn.V0 {
		t.Errorf("after it: %v", got)
	}
}

func TestAChainThatDoesNotKnowVersion1IsPaidThroughTheLookupTable(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 30, true)
	accounts := []chain.Address{b.local.TreasuryTokenAccount, b.local.Mint}
	for _, o := range owners {
		account, err := chain.AssociatedTokenAccount(o.address(), b.local.Mint, chain.TokenProgram)
		check(t, err)
		accounts = append(accounts, account)
	}
	table := b.makeTable(t, accounts)
	policy := b.local.Policy()
	policy.LookupTables = []signer.LookupTable{{Address: table, Addresses: accounts}}
	b.stopSigner()
	check(t, policy.WriteFile(b.files.PolicyFile))
	b.startSigner(t)
	s := b.service(b.pool, &oldFashioned{Chain: b.cluster})
	s.formats.refuse(txn.V1, time.Now()) // as an earlier batch has found out
	batches := b.approved(t, s)
	run(t, s, term)
	reach(t, s, batches[0], stateFinalized)
	if len(batches) != 1 {
		t.Errorf("30 payees are in %d batches, want 1", len(batches))
	}
	b.wantPaidOnce(t, owners...)
	var message []byte
	check(t, b.pool.QueryRow(t.Context(), `SELECT message FROM payout_batches WHERE id = $1`, batches[0]).Scan(&message))
	if message[0] != 0x80 || !bytes.Contains(message, table[:]) {
		t.Errorf("the message begins with %x and is not of version 0 with the table", message[0])
	}
}

// makeTable makes a lookup table of the treasury's on the chain.
func (b *bench) makeTable(t *testing.T, addresses []chain.Address) chain.Address {
	t.Helper()
	const perTransaction = 20 // as many as the bytes of a transaction allow
	treasury := b.treasuryKey(t).PublicKey()
	slot, err := b.cluster.Slot(t.Context(), chain.Finalized)
	check(t, err)
	create, table, err := tables.NewCreateLookupTableInstruction(treasury, treasury, uint64(slot))
	check(t, err)
	b.execute(t, create.Build())
	for part := range slices.Chunk(addresses, perTransaction) {
		b.execute(t, tables.NewExtendLookupTableInstruction(table, treasury, treasury, part).Build())
	}
	return table
}

// execute runs an instruction of the treasury's and waits until that is final.
func (b *bench) execute(t *testing.T, instruction solana.Instruction) {
	t.Helper()
	key := b.treasuryKey(t)
	lifetime, _, err := b.cluster.LatestBlockhash(t.Context(), chain.Confirmed)
	check(t, err)
	transaction, err := solana.NewTransaction([]solana.Instruction{instruction}, lifetime, solana.TransactionPayer(key.PublicKey()))
	check(t, err)
	_, err = transaction.Sign(func(solana.PublicKey) *solana.PrivateKey { return &key })
	check(t, err)
	wire, err := transaction.MarshalBinary()
	check(t, err)
	signature, err := b.cluster.Send(t.Context(), wire)
	check(t, err)
	eventually(t, func() bool {
		ended, err := b.cluster.Finalized(t.Context(), signature)
		check(t, err)
		failure, found := ended[signature]
		if found && failure != "" {
			t.Fatal(failure)
		}
		return found
	}, func() string { return "a transaction did not land" })
}
