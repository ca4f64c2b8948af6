package soljournal_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/programs/system"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/soljournal"
)

// mention has a stranger make so many transactions that name the wallet and change nothing of it.
func (b *bench) mention(count int) {
	b.Helper()
	const transfer = 2
	key, err := b.chain.Engineer.Key()
	if err != nil {
		b.Fatal(err)
	}
	stranger := key.PublicKey()
	for i := range count {
		data := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(nil, transfer), uint64(i+1))
		_, failure := b.chain.Execute(b, []solana.PrivateKey{key}, solana.NewInstruction(solana.SystemProgramID, solana.AccountMetaSlice{
			solana.Meta(stranger).WRITE().SIGNER(), solana.Meta(stranger).WRITE(), solana.Meta(b.chain.Treasury),
		}, data))
		if failure != "" {
			b.Fatal(failure)
		}
	}
}

// stretches is a chain that notes what is asked of it, and may answer in the chain's place.
type stretches struct {
	soljournal.Chain
	asked  []chain.Stretch
	before func(ctx context.Context, n int) (context.Context, error)
}

func (s *stretches) WalkLamports(ctx context.Context, wallet chain.Address, stretch chain.Stretch, visit func(chain.LamportMovement) error,
	passed func(chain.Slot) error,
) (chain.Mark, error) {
	s.asked = append(s.asked, stretch)
	if s.before != nil {
		var err error
		if ctx, err = s.before(ctx, len(s.asked)); err != nil {
			return chain.Mark{}, err
		}
	}
	return s.Chain.WalkLamports(ctx, wallet, stretch, visit, passed)
}

const (
	smallPiece = 4
	fewPieces  = 8
	looks      = 60 // more than it takes
)

// comesUp looks until the journal is at the present, and expects that nothing is claimed until then. It returns the last look, and how many
// there were.
func (b *bench) comesUp(journal *soljournal.Service) (soljournal.State, int) {
	b.Helper()
	last := chain.Slot(0)
	for look := 1; look <= looks; look++ {
		state, err := journal.Advance(b.Context(), false)
		if err != nil {
			b.Fatal(err)
		}
		if !state.Behind {
			return state, look
		}
		if state.Slot < last {
			b.Errorf("look %d came to slot %d, the one before to %d", look, state.Slot, last)
		}
		last = state.Slot
		if state.Continuous || state.Whole() {
			b.Errorf("a look that is behind claims %+v", state)
		}
		for _, d := range state.Differences {
			if d.Class != "chain_only" {
				b.Errorf("a look that is behind found %+v", d)
			}
		}
	}
	b.Fatalf("the journal is behind after %d looks", looks)
	return soljournal.State{}, 0
}

// TestLongHistoryIsReadOverSeveralLooks: whoever names the wallet in many transactions makes looks longer, and keeps nothing from being written.
func TestLongHistoryIsReadOverSeveralLooks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	before := b.advance(false)
	b.mention(40)
	b.send(10_000)
	b.mention(40)
	b.send(20_000)
	b.mention(3)
	chain := &stretches{Chain: b.chain.Client()}
	journal := b.journal(chain).WithPieces(smallPiece, fewPieces)
	state, took := b.comesUp(journal)
	if took < 3 || !state.Continuous || state.Journal != state.Lamports || state.Transactions != before.Transactions+2 || len(state.Differences) != 2 {
		t.Errorf("after %d looks it is %+v", took, state)
	}
	chain.asked = nil
	again, took := b.comesUp(journal)
	if !again.Continuous || again.Transactions != state.Transactions {
		t.Errorf("after %d more looks it is %+v", took, again)
	}
	if first := chain.asked[0].From; first <= before.Slot {
		t.Error("all of what only mentions the wallet was read again")
	}
	if full := b.advance(true); !full.Continuous || full.Transactions != state.Transactions {
		t.Errorf("read as a whole it is %+v", full)
	}
}

// TestGapInALongHistoryIsFound: a transaction that is hidden among others is found as in a short history, and nothing behind it is written.
func TestGapInALongHistoryIsFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	before := b.advance(false)
	b.mention(20)
	hidden := b.send(10_000)
	b.mention(20)
	shown := b.send(20_000)
	b.mention(20)
	state, _ := b.comesUp(b.journal(hiding{b.chain.Client(), hidden}).WithPieces(smallPiece, fewPieces))
	if state.Continuous || state.Transactions != before.Transactions || len(state.Differences) != 1 || state.Differences[0].Signature != shown.String() {
		t.Errorf("with one hidden it is %+v", state)
	}
	state = b.comesUpAfterGap(before)
	if !state.Continuous || state.Transactions != before.Transactions+2 || state.Journal != state.Lamports {
		t.Errorf("with nothing hidden it is %+v", state)
	}
}

// comesUpAfterGap looks with nothing hidden; the first look goes on from where the journal is.
func (b *bench) comesUpAfterGap(journal soljournal.State) soljournal.State {
	b.Helper()
	chain := &stretches{Chain: b.chain.Client()}
	state, _ := b.comesUp(b.journal(chain).WithPieces(smallPiece, fewPieces))
	if first := chain.asked[0]; first.From > journal.Slot || !first.Before.Signature.IsZero() {
		b.Errorf("after a gap the first look began with %+v", first)
	}
	return state
}

// TestLookThatTakesTooLongIsBehind, if it has come anywhere; else it is an error.
func TestLookThatTakesTooLongIsBehind(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.advance(false)
	b.mention(5 * smallPiece)
	slow := &stretches{Chain: b.chain.Client()}
	journal := b.journal(slow).WithPieces(smallPiece, fewPieces).WithPatience(1)
	if state, err := journal.Advance(t.Context(), false); err == nil {
		t.Fatalf("a look that came nowhere is %+v", state)
	}
	slow.asked = nil
	slow.before = func(ctx context.Context, n int) (context.Context, error) {
		if n == 1 {
			return context.WithoutCancel(ctx), nil
		}
		return ctx, nil
	}
	state, err := journal.Advance(t.Context(), false)
	if err != nil || !state.Behind || state.Continuous {
		t.Errorf("a look that came somewhere is %+v, %v", state, err)
	}
	if state, _ := b.comesUp(b.journal(b.chain.Client())); !state.Continuous {
		t.Errorf("a patient one is %+v", state)
	}
}

// TestMarksThatAnEndpointForgetsAreMadeAnew: an endpoint need not know a transaction for ever.
func TestMarksThatAnEndpointForgetsAreMadeAnew(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.advance(false)
	b.mention(8 * smallPiece)
	forgetful := &stretches{Chain: b.chain.Client()}
	journal := b.journal(forgetful).WithPieces(smallPiece, 2)
	if state, err := journal.Advance(t.Context(), false); err != nil || !state.Behind {
		t.Fatalf("the first look is %+v, %v", state, err)
	}
	unknown := errors.New("unknown transaction")
	forgetful.before = func(context.Context, int) (context.Context, error) { return nil, unknown }
	if _, err := journal.Advance(t.Context(), false); !errors.Is(err, unknown) || forgetful.asked[2].Before.Signature.IsZero() {
		t.Fatalf("a look whose mark is unknown ended with %v: %+v", err, forgetful.asked)
	}
	forgetful.before = nil
	if state, _ := b.comesUp(b.journal(forgetful).WithPieces(smallPiece, looks)); !state.Continuous || !forgetful.asked[3].Before.Signature.IsZero() {
		t.Errorf("with new marks it is %+v: %+v", state, forgetful.asked)
	}
}

// noteSweeps notes so many sweeps as final that are on no chain.
func (b *bench) noteSweeps(count int) {
	b.Helper()
	org := ids.New[ids.Org]()
	b.exec(`INSERT INTO organisations (id, name) VALUES ($1, 'Customer')`, org)
	b.exec(`INSERT INTO deposit_sweeps (id, org_id, token_account, mint, amount, state, nonce_account, nonce_value, message, signature, wire, signed_at, slot, fee_lamports, ended_at)
		SELECT gen_random_uuid(), $1, 'a' || n, $2, 1, 'finalized', $3, lpad(n::text, 40, 'v'), 'm', lpad(n::text, 80, 's'), 'w', now(), 1, 10000, now()
		FROM generate_series(1, $4::int) n`, org, b.chain.Mint.String(), b.chain.Nonces[0].String(), count)
}

// TestMoreDifferencesThanAreListed: exactly as many as are listed are all there are.
func TestMoreDifferencesThanAreListed(t *testing.T) {
	t.Parallel()
	for _, count := range []int{soljournal.MaxDifferences, soljournal.MaxDifferences + 1} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.noteSweeps(count)
			state := b.advance(false)
			if more := count > soljournal.MaxDifferences; len(state.Differences) != soljournal.MaxDifferences || state.More != more || state.Whole() == more {
				t.Errorf("of %d differences %d are listed, more: %t", count, len(state.Differences), state.More)
			}
		})
	}
}

// TestNotesOfAnotherTreasuryAreNotMissing: the wallet that a transaction names as who pays is the one whose history has it.
func TestNotesOfAnotherTreasuryAreNotMissing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.advance(false)
	key, err := b.chain.Engineer.Key()
	if err != nil {
		t.Fatal(err)
	}
	before := key.PublicKey()
	transaction, err := solana.NewTransaction([]solana.Instruction{system.NewTransferInstruction(1, before, b.chain.Treasury).Build()},
		solana.Hash(b.chain.Nonces[0]), solana.TransactionPayer(before))
	if err != nil {
		t.Fatal(err)
	}
	transaction.Signatures = []solana.Signature{{1, 2, 3}}
	wire, err := transaction.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	b.noteSweeps(2)
	b.exec(`ALTER TABLE deposit_sweeps DISABLE TRIGGER USER`)
	b.exec(`UPDATE deposit_sweeps SET wire = $1 WHERE signature LIKE '%1'`, wire)
	if found := b.advance(false).Differences; len(found) != 1 || !strings.HasSuffix(found[0].Signature, "2") {
		t.Fatalf("of a note that another wallet paid for and one that does not say, %+v are missing", found)
	}
	// The other's journal is there, and has it.
	other, failure := b.chain.Execute(t, []solana.PrivateKey{key}, system.NewTransferInstruction(5_000_000, before, b.chain.Owner.Address).Build())
	if failure != "" {
		t.Fatal(failure)
	}
	b.exec(`UPDATE deposit_sweeps SET signature = $1 WHERE signature LIKE '%2'`, other.String())
	if found := b.advance(false).Differences; len(found) != 1 || found[0].Signature != other.String() {
		t.Fatalf("before the other's journal is there, %+v are missing", found)
	}
	if _, err := soljournal.New(b.pool, b.chain.Client(), before, slog.New(slog.DiscardHandler)).Advance(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if found := b.advance(false).Differences; len(found) != 0 {
		t.Errorf("with the other's journal, %+v are missing", found)
	}
}

// TestOldTransactionsAreComparedByFullLooks only, and the others say how far they went.
func TestOldTransactionsAreComparedByFullLooks(t *testing.T) {
	t.Parallel()
	const day = 24 * 60 * 60
	b := newBench(t)
	old := b.send(10_000)
	recent := b.send(20_000)
	aged := b.journal(bent{b.chain.Client(), func(n int, m *chain.LamportMovement) error {
		if n < 2 {
			m.BlockTime -= 100 * day
		}
		return nil
	}})
	state, err := aged.Advance(t.Context(), false)
	if err != nil || len(state.Differences) != 1 || state.Differences[0].Signature != recent.String() {
		t.Fatalf("a look compares %+v, %v", state, err)
	}
	full := b.advance(true)
	if len(full.Differences) != 2 || !full.Since.IsZero() {
		t.Fatalf("a full one compares %+v", full)
	}
	for _, d := range full.Differences {
		if d.Signature == old.String() && !d.At.Equal(state.Since) {
			t.Errorf("the look compares what is later than %s, and not what was at %s", state.Since, d.At)
		}
	}
}
