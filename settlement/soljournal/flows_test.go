package soljournal_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/programs/system"
	"github.com/gagliardetto/solana-go/programs/token"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/soljournal"
)

// wantKinds compares what each kind has come to since the journal was before.
func (b *bench) wantKinds(before, want map[string]money.Amount) {
	b.Helper()
	now := b.sums()
	for _, kind := range soljournal.Kinds {
		if got := now[kind] - before[kind]; got != want[kind] {
			b.Errorf("%s has come to %d, want %d", kind, got, want[kind])
		}
	}
}

// linesOf are the lines of one transaction.
func (b *bench) linesOf(signature chain.Signature) []soljournal.Line {
	b.Helper()
	lines, err := b.Lines(b.Context(), soljournal.Filter{Signature: signature.String()})
	if err != nil {
		b.Fatal(err)
	}
	return lines
}

// key makes a wallet.
func (b *bench) key() solana.PrivateKey {
	b.Helper()
	key, err := solana.NewRandomPrivateKey()
	if err != nil {
		b.Fatal(err)
	}
	return key
}

// TestNoncesAreRentUntilTheyAreGivenUp: a nonce account is paid for by the wallet, and its lamports come back.
func TestNoncesAreRentUntilTheyAreGivenUp(t *testing.T) {
	t.Parallel()
	const size = 80
	b := newBench(t)
	b.advance(false)
	before, nonce := b.sums(), b.key()
	rent, err := b.chain.Client().RentExempt(t.Context(), size)
	if err != nil {
		t.Fatal(err)
	}
	made, failure := b.chain.Execute(t, []solana.PrivateKey{b.chain.TreasuryKey, nonce},
		system.NewCreateAccountInstruction(rent, size, solana.SystemProgramID, b.chain.Treasury, nonce.PublicKey()).Build(),
		system.NewInitializeNonceAccountInstruction(b.chain.Treasury, nonce.PublicKey(), solana.SysVarRecentBlockHashesPubkey, solana.SysVarRentPubkey).Build())
	if failure != "" {
		t.Fatal(failure)
	}
	b.advance(false)
	b.wantKinds(before, map[string]money.Amount{soljournal.BaseFee: -2 * signatureFee, soljournal.RentOut: -money.Amount(rent)})
	if lines := b.linesOf(made); len(lines) != 2 || lines[1].Kind != soljournal.RentOut || lines[1].Other != nonce.PublicKey().String() {
		t.Errorf("making it is %+v", lines)
	}
	gone := b.execute(system.NewWithdrawNonceAccountInstruction(rent, nonce.PublicKey(), b.chain.Treasury, solana.SysVarRecentBlockHashesPubkey,
		solana.SysVarRentPubkey, b.chain.Treasury).Build())
	b.advance(false)
	b.wantKinds(before, map[string]money.Amount{
		soljournal.BaseFee: -3 * signatureFee, soljournal.RentOut: -money.Amount(rent), soljournal.RentBack: money.Amount(rent),
	})
	if lines := b.linesOf(gone); len(lines) != 2 || lines[1].Kind != soljournal.RentBack || lines[1].Other != nonce.PublicKey().String() {
		t.Errorf("giving it up is %+v", lines)
	}
}

// TestOthersWhoPay: SOL that somebody sends is a top-up and no difference, and its fee is the sender's.
func TestOthersWhoPay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.advance(false)
	before := b.sums()
	engineer, err := b.chain.Engineer.Key()
	if err != nil {
		t.Fatal(err)
	}
	signature, failure := b.chain.Execute(t, []solana.PrivateKey{engineer},
		system.NewTransferInstruction(3_000_000, engineer.PublicKey(), b.chain.Treasury).Build())
	if failure != "" {
		t.Fatal(failure)
	}
	state := b.advance(false)
	b.wantKinds(before, map[string]money.Amount{soljournal.TopUp: 3_000_000})
	lines := b.linesOf(signature)
	if len(state.Differences) != 0 || len(lines) != 1 || lines[0].Other != engineer.PublicKey().String() {
		t.Errorf("a top-up is %+v, and differs in %+v", lines, state.Differences)
	}
}

// TestRandomLivesAreExplained: whatever the wallet does in which order, and wherever the journal is brought up to date between, each kind comes
// to what was done.
func TestRandomLivesAreExplained(t *testing.T) {
	t.Parallel()
	const acts = 12
	seed := testkit.Seed(t)
	dice := rand.New(rand.NewPCG(seed, 0))
	b := newBench(t)
	b.advance(false)
	before, want := b.sums(), map[string]money.Amount{}
	engineer, err := b.chain.Engineer.Key()
	if err != nil {
		t.Fatal(err)
	}
	var accounts []chain.Address // that the wallet has made and not closed
	closing := func(account chain.Address) solana.Instruction {
		return token.NewCloseAccountInstruction(account, b.chain.Treasury, b.chain.Treasury, nil).Build()
	}
	_, _, rent := b.tokenAccount("size")
	for i := range acts {
		amount := 1_000_000 + dice.Uint64N(1_000_000)
		switch act := dice.IntN(5); {
		case act == 0:
			b.send(amount)
			want[soljournal.Sent] -= money.Amount(amount)
		case act == 1:
			account, creation, _ := b.tokenAccount(fmt.Sprint(i))
			b.execute(creation...)
			accounts = append(accounts, account)
			want[soljournal.RentOut] -= money.Amount(rent)
		case act == 2 && len(accounts) > 0:
			last := len(accounts) - 1
			b.execute(closing(accounts[last]))
			accounts = accounts[:last]
			want[soljournal.RentBack] += money.Amount(rent)
		case act == 3:
			if _, failure := b.chain.Execute(t, []solana.PrivateKey{engineer}, system.NewTransferInstruction(amount, engineer.PublicKey(), b.chain.Treasury).Build()); failure != "" {
				t.Fatal(failure)
			}
			want[soljournal.TopUp] += money.Amount(amount)
			want[soljournal.BaseFee] += signatureFee // not the wallet's
		default:
			if _, failure := b.chain.Execute(t, []solana.PrivateKey{b.chain.TreasuryKey}, closing(b.key().PublicKey())); failure == "" {
				t.Fatalf("seed %d: an account that is not there was closed", seed)
			}
		}
		want[soljournal.BaseFee] -= signatureFee
		if dice.IntN(3) == 0 {
			b.advance(dice.IntN(2) == 0)
		}
	}
	state := b.advance(false)
	if b.wantKinds(before, want); !state.Continuous || state.Journal != state.Lamports {
		t.Errorf("seed %d: the state is %+v", seed, state)
	}
	if again := b.advance(true); !again.Continuous || again.Transactions != state.Transactions {
		t.Errorf("seed %d: read again it is %+v", seed, again)
	}
}

// bent is a chain whose walk is altered.
type bent struct {
	soljournal.Chain
	alter func(n int, m *chain.LamportMovement) error // n counts from 0 in each walk
}

func (b bent) WalkLamports(ctx context.Context, wallet chain.Address, stretch chain.Stretch, visit func(chain.LamportMovement) error,
	passed func(chain.Slot) error,
) (chain.Mark, error) {
	n := 0
	return b.Chain.WalkLamports(ctx, wallet, stretch, func(m chain.LamportMovement) error {
		if err := b.alter(n, &m); err != nil {
			return err
		}
		n++
		return visit(m)
	}, passed)
}

// TestBrokenWalkLeavesNothing: a history that breaks off is an error, and the next look writes each transaction once.
func TestBrokenWalkLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.advance(false)
	for i := range 3 {
		b.send(uint64(10_000 * (i + 1)))
	}
	broken := errors.New("the endpoint went away")
	failing := b.journal(bent{b.chain.Client(), func(n int, _ *chain.LamportMovement) error {
		if n == 2 {
			return broken
		}
		return nil
	}})
	if _, err := failing.Advance(t.Context(), false); !errors.Is(err, broken) {
		t.Fatalf("the walk ended with %v", err)
	}
	if totals, err := b.Totals(t.Context(), chain.Span{}); err != nil || totals.Transactions != first.Transactions {
		t.Errorf("after it the journal has %+v, %v", totals, err)
	}
	if state := b.advance(false); !state.Continuous || state.Transactions != first.Transactions+3 {
		t.Errorf("the next look found %+v", state)
	}
}

// TestTwoLooksAtOnceWriteOnce: the schema refuses the slower of two, or both write the same.
func TestTwoLooksAtOnceWriteOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 3 {
		b.send(uint64(10_000 * (i + 1)))
	}
	var meet, both sync.WaitGroup
	meet.Add(2)
	failures := make([]error, 2)
	for i := range failures {
		met := sync.OnceFunc(func() { // both have seen the empty journal
			meet.Done()
			meet.Wait()
		})
		journal := b.journal(bent{b.chain.Client(), func(int, *chain.LamportMovement) error {
			met()
			return nil
		}})
		both.Go(func() { _, failures[i] = journal.Advance(t.Context(), false) })
	}
	both.Wait()
	if failures[0] != nil && failures[1] != nil {
		t.Errorf("neither succeeded: %v, %v", failures[0], failures[1])
	}
	if failures[0] == nil && failures[1] == nil {
		t.Error("both wrote the same transactions")
	}
	if state := b.advance(true); !state.Continuous || state.Transactions != 4 {
		t.Errorf("the journal is %+v", state)
	}
}

// TestChainThatForgetsTheNewestIsAGap: what the journal has is not on the chain any more. Nothing is written behind it.
func TestChainThatForgetsTheNewestIsAGap(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	forgotten := b.send(10_000)
	before := b.advance(false)
	b.send(20_000)
	state, err := b.journal(hiding{b.chain.Client(), forgotten}).Advance(t.Context(), false)
	if err != nil || state.Continuous || state.Transactions != before.Transactions || len(state.Differences) == 0 ||
		state.Differences[0].Signature != forgotten.String() {
		t.Errorf("without %s it is %+v, %v", forgotten, state, err)
	}
	if state := b.advance(true); !state.Continuous || state.Transactions != before.Transactions+1 {
		t.Errorf("with it it is %+v", state)
	}
}

// TestMonthsAreInOnePiece: a block time that goes back, or is missing, does not take a transaction out of its place between two others. A
// month opens with what the one before closed with, and its kinds add up.
func TestMonthsAreInOnePiece(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 5 {
		b.send(uint64(10_000 * (i + 1)))
	}
	month := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	times := []time.Time{month.Add(-time.Hour), month.Add(time.Second), month.Add(-time.Second), month.Add(time.Minute), month.AddDate(0, 1, 0), time.Unix(0, 0)}
	skewed := b.journal(bent{b.chain.Client(), func(n int, m *chain.LamportMovement) error {
		m.BlockTime = times[n].Unix()
		return nil
	}})
	if _, err := skewed.Advance(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	var closed money.Amount
	counts := []int64{}
	for _, span := range []chain.Span{{To: month}, {From: month, To: month.AddDate(0, 1, 0)}, {From: month.AddDate(0, 1, 0)}} {
		totals, err := b.Totals(t.Context(), span)
		if err != nil {
			t.Fatal(err)
		}
		sum := totals.Opening
		for _, k := range totals.Kinds {
			sum += k.Lamports
		}
		if totals.Opening != closed || sum != totals.Closing {
			t.Errorf("after %d: opens with %d, adds up to %d and closes with %d", closed, totals.Opening, sum, totals.Closing)
		}
		closed = totals.Closing
		counts = append(counts, totals.Transactions)
	}
	if !slices.Equal(counts, []int64{1, 3, 2}) {
		t.Errorf("the months have %d transactions", counts)
	}
}

// TestLookupTablesAreRent: a table that the wallet makes.
func TestLookupTablesAreRent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.advance(false)
	before := b.sums()
	slot, err := b.chain.Client().Slot(t.Context(), chain.Finalized)
	if err != nil {
		t.Fatal(err)
	}
	recent := binary.LittleEndian.AppendUint64(nil, uint64(slot))
	table, bump, err := solana.FindProgramAddress([][]byte{b.chain.Treasury[:], recent}, solana.AddressLookupTableProgramID)
	if err != nil {
		t.Fatal(err)
	}
	const create = 0
	data := append(append(binary.LittleEndian.AppendUint32(nil, create), recent...), bump)
	made := b.execute(solana.NewInstruction(solana.AddressLookupTableProgramID, solana.AccountMetaSlice{
		solana.Meta(table).WRITE(), solana.Meta(b.chain.Treasury).SIGNER(), solana.Meta(b.chain.Treasury).WRITE().SIGNER(), solana.Meta(solana.SystemProgramID),
	}, data))
	b.advance(false)
	account, err := b.chain.Client().Account(t.Context(), chain.Finalized, 0, table)
	if err != nil {
		t.Fatal(err)
	}
	b.wantKinds(before, map[string]money.Amount{soljournal.BaseFee: -signatureFee, soljournal.RentOut: -money.Amount(account.Lamports)})
	if lines := b.linesOf(made); len(lines) != 2 || lines[1].Other != table.String() {
		t.Errorf("making it is %+v", lines)
	}
}
