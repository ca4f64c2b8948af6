package soljournal_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/programs/system"
	"github.com/gagliardetto/solana-go/programs/token"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/internal/chaintest"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
	"github.com/muster-gpu/muster/settlement/soljournal"
)

func TestMain(m *testing.M) { localchaintest.Main(m) }

const signatureFee = 5_000

// bench is a treasury's wallet on a real chain, and its journal.
type bench struct {
	testing.TB
	*soljournal.Service
	pool  *pgxpool.Pool
	chain *chaintest.Chain
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	b := &bench{TB: tb, pool: testkit.DB(tb), chain: chaintest.Start(tb)}
	b.Service = b.journal(b.chain.Client())
	return b
}

func (b *bench) journal(client soljournal.Chain) *soljournal.Service {
	return soljournal.New(b.pool, client, b.chain.Treasury, slog.New(slog.DiscardHandler))
}

func (b *bench) advance(fully bool) soljournal.State {
	b.Helper()
	state, err := b.Advance(b.Context(), fully)
	if err != nil {
		b.Fatal(err)
	}
	return state
}

func (b *bench) exec(sql string, args ...any) {
	b.Helper()
	if _, err := b.pool.Exec(b.Context(), sql, args...); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
}

// execute has the treasury's wallet pay for instructions.
func (b *bench) execute(instructions ...solana.Instruction) chain.Signature {
	b.Helper()
	signature, failure := b.chain.Execute(b, []solana.PrivateKey{b.chain.TreasuryKey}, instructions...)
	if failure != "" {
		b.Fatal(failure)
	}
	return signature
}

func (b *bench) send(lamports uint64) chain.Signature {
	b.Helper()
	return b.execute(system.NewTransferInstruction(lamports, b.chain.Treasury, b.chain.Owner.Address).Build())
}

// tokenAccount is an instruction by which the treasury's wallet makes an account of its own, and the account. Each seed makes another.
func (b *bench) tokenAccount(seed string) (account chain.Address, creation []solana.Instruction, rent uint64) {
	b.Helper()
	const size = 165
	rent, err := b.chain.Client().RentExempt(b.Context(), size)
	if err != nil {
		b.Fatal(err)
	}
	account, err = solana.CreateWithSeed(b.chain.Treasury, seed, chain.TokenProgram)
	if err != nil {
		b.Fatal(err)
	}
	return account, []solana.Instruction{
		system.NewCreateAccountWithSeedInstruction(b.chain.Treasury, seed, rent, size, chain.TokenProgram, b.chain.Treasury, account, b.chain.Treasury).Build(),
		token.NewInitializeAccountInstruction(account, b.chain.Mint, b.chain.Treasury, solana.SysVarRentPubkey).Build(),
	}, rent
}

// sums adds up the journal by kind.
func (b *bench) sums() map[string]money.Amount {
	b.Helper()
	totals, err := b.Totals(b.Context(), chain.Span{})
	if err != nil {
		b.Fatal(err)
	}
	sum := totals.Opening
	byKind := map[string]money.Amount{}
	for _, k := range totals.Kinds {
		byKind[k.Kind] = k.Lamports
		sum += k.Lamports
	}
	if sum != totals.Closing {
		b.Errorf("the kinds add up to %d, the wallet closes with %d", sum, totals.Closing)
	}
	return byKind
}

func TestEveryLamportIsExplained(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	account, creation, rent := b.tokenAccount("first")
	b.execute(creation...)
	b.send(70_000_000)
	b.execute(token.NewCloseAccountInstruction(account, b.chain.Treasury, b.chain.Treasury, nil).Build())
	failing := token.NewCloseAccountInstruction(account, b.chain.Treasury, b.chain.Treasury, nil).Build() // it is gone
	if _, failure := b.chain.Execute(t, []solana.PrivateKey{b.chain.TreasuryKey}, failing); failure == "" {
		t.Fatal("a closed account was closed again")
	}
	state := b.advance(false)
	live, err := b.chain.Client().Lamports(t.Context(), b.chain.Treasury)
	if err != nil || !state.Continuous || uint64(state.Lamports) != live || state.Journal != state.Lamports {
		t.Fatalf("the wallet has %d lamports, the journal says %+v, %v", live, state, err)
	}
	sums := b.sums()
	want := map[string]money.Amount{
		soljournal.BaseFee: -4 * signatureFee, soljournal.RentOut: -money.Amount(rent), soljournal.RentBack: money.Amount(rent), soljournal.Sent: -70_000_000,
		soljournal.TopUp: money.Amount(live) + 4*signatureFee + 70_000_000,
	}
	for _, kind := range soljournal.Kinds {
		if sums[kind] != want[kind] {
			t.Errorf("%s is %d, want %d", kind, sums[kind], want[kind])
		}
	}
	lines, err := b.Lines(t.Context(), soljournal.Filter{})
	if err != nil || len(lines) != 8 || lines[0].Kind != soljournal.BaseFee || !lines[0].Failed || lines[0].After != state.Lamports {
		t.Errorf("the journal's lines are %+v, %v", lines, err)
	}
	again := b.advance(true)
	if again.Transactions != state.Transactions || !again.Continuous {
		t.Errorf("read again it is %+v, was %+v", again, state)
	}
}

// TestPriorityFeesAndAccountsInOneTransaction: two accounts are made at once, with a price for compute units.
func TestPriorityFeesAndAccountsInOneTransaction(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, first, rent := b.tokenAccount("first")
	_, second, _ := b.tokenAccount("second")
	budget := solana.MustPublicKeyFromBase58("ComputeBudget111111111111111111111111111111")
	limit := solana.NewInstruction(budget, nil, binary.LittleEndian.AppendUint32([]byte{2}, 100_000))
	price := solana.NewInstruction(budget, nil, binary.LittleEndian.AppendUint64([]byte{3}, 50_000)) // millionths of a lamport
	b.execute(slices.Concat([]solana.Instruction{limit, price}, first, second)...)
	state := b.advance(false)
	if sums := b.sums(); sums[soljournal.PriorityFee] != -5_000 || sums[soljournal.BaseFee] != -signatureFee || sums[soljournal.RentOut] != -2*money.Amount(rent) {
		t.Errorf("the sums are %v", sums)
	}
	lines, err := b.Lines(t.Context(), soljournal.Filter{Kind: soljournal.RentOut})
	if err != nil || len(lines) != 2 || lines[0].Other == lines[1].Other {
		t.Errorf("rent went out in %+v, %v", lines, err)
	}
	if len(state.Differences) != 1 || state.Differences[0].Class != "chain_only" {
		t.Errorf("a transaction that is none of ours is %+v", state.Differences)
	}
}

// hiding is a chain whose history lacks a transaction.
type hiding struct {
	soljournal.Chain
	signature chain.Signature
}

func (h hiding) WalkLamports(ctx context.Context, wallet chain.Address, stretch chain.Stretch, visit func(chain.LamportMovement) error,
	passed func(chain.Slot) error,
) (chain.Mark, error) {
	return h.Chain.WalkLamports(ctx, wallet, stretch, func(m chain.LamportMovement) error {
		if m.Signature == h.signature {
			return nil
		}
		return visit(m)
	}, passed)
}

func TestHiddenTransactionIsAGap(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	before := b.advance(false)
	hidden := b.send(10_000)
	lying := b.journal(hiding{b.chain.Client(), hidden})
	state, err := lying.Advance(t.Context(), false)
	if err != nil || state.Continuous || len(state.Differences) != 1 || *state.Differences[0].Chain != -10_000-signatureFee {
		t.Fatalf("with the newest one hidden it is %+v, %v", state, err)
	}
	shown := b.send(20_000)
	state, err = lying.Advance(t.Context(), false)
	if err != nil || state.Continuous || len(state.Differences) != 1 || state.Differences[0].Signature != shown.String() {
		t.Fatalf("with one hidden in the middle it is %+v, %v", state, err)
	}
	if state.Transactions != before.Transactions {
		t.Errorf("what lies behind a gap was written: %d transactions", state.Transactions)
	}
	if state := b.advance(false); !state.Continuous || state.Transactions != before.Transactions+2 {
		t.Errorf("with nothing hidden it is %+v", state)
	}
}

// TestAlteredJournalIsFound: the schema refuses changes, and a full look finds one that was made past it.
func TestAlteredJournalIsFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	altered := b.send(10_000)
	b.send(20_000)
	b.advance(false)
	if _, err := b.pool.Exec(t.Context(), `UPDATE sol_transactions SET signature = repeat('1', 64)`); err == nil {
		t.Error("the journal can be altered")
	}
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `SET LOCAL session_replication_role = replica`)
		if err == nil {
			_, err = tx.Exec(t.Context(), `UPDATE sol_transactions SET signature = repeat('1', 64) WHERE signature = $1`, altered.String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if state := b.advance(false); !state.Continuous {
		t.Errorf("going on looked at what is written: %+v", state)
	}
	if state := b.advance(true); state.Continuous || state.Differences[0].Signature != altered.String() {
		t.Errorf("the alteration is %+v", state.Differences)
	}
}

// TestLinesMustAddUp: the schema takes no transaction whose lines are not its whole change, and none that does not begin where the one before ended.
func TestLinesMustAddUp(t *testing.T) {
	t.Parallel()
	pool := testkit.DB(t)
	wallet, signature := strings.Repeat("w", 32), strings.Repeat("s", 64)
	write := func(before, after, lamports int64) error {
		return pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `INSERT INTO sol_transactions (wallet, seq, signature, slot, at, failed, before, after, previous_seq)
				SELECT $1, n.seq, $2 || n.seq, 1, now(), false, $3, $4, nullif(n.seq - 1, 0) FROM (SELECT count(*) + 1 AS seq FROM sol_transactions) n`,
				wallet, signature, before, after)
			if err == nil {
				_, err = tx.Exec(t.Context(), `INSERT INTO sol_lines (wallet, seq, ordinal, kind, lamports) SELECT $1, max(seq), 1, $2, $3 FROM sol_transactions`,
					wallet, map[bool]string{true: soljournal.TopUp, false: soljournal.Sent}[lamports > 0], lamports)
			}
			return err
		})
	}
	for _, c := range []struct {
		before, after, lamports int64
		refusal                 string
	}{
		{5, 10, 5, "sol_transactions_first"}, // the first does not begin with nothing
		{0, 10, 9, "sol_lines_sum"},
		{0, 10, 10, ""},
		{9, 12, 3, "sol_transactions_continuous"},
		{10, 4, -6, ""},
	} {
		err, refusal := write(c.before, c.after, c.lamports), ""
		if pg := new(pgconn.PgError); errors.As(err, &pg) {
			refusal = pg.ConstraintName
		}
		if (err == nil) != (c.refusal == "") || refusal != c.refusal {
			t.Errorf("from %d to %d with a line of %d: %v (%s)", c.before, c.after, c.lamports, err, refusal)
		}
	}
}

func TestNotesAreComparedWithTheChain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	paid, other := b.send(10_000), b.send(20_000)
	batch, user, nonce := ids.New[ids.Batch](), ids.New[ids.User](), b.chain.Nonces[0].String()
	b.exec(`INSERT INTO users (id, wallet_address) VALUES ($1, 'w')`, user)
	b.exec(`INSERT INTO payout_batches (id, state, mint, total, payee_count, nonce_account, nonce_value, approved_by, approved_at, message, signing_started_at)
		VALUES ($1, 'sent', $2, 1, 1, $3, $3, $4, now(), 'm', now())`, batch, b.chain.Mint.String(), nonce, user)
	b.exec(`INSERT INTO payout_transactions (signature, batch_id, nonce_account, nonce_value, wire) VALUES ($1, $2, $3, $3, 'w')`, paid.String(), batch, nonce)
	want := func(when string, classes ...string) {
		t.Helper()
		var found []string
		for _, d := range b.advance(false).Differences {
			found = append(found, d.Class)
			if d.Class == "amount_mismatch" && !strings.Contains(d.Text, batch.String()) {
				t.Errorf("%s: the text is %q", when, d.Text)
			}
		}
		slices.Sort(found)
		if !slices.Equal(found, classes) {
			t.Errorf("%s: %v, want %v", when, found, classes)
		}
	}
	want("of one nobody knows", "chain_only")
	note := func(fee, rent int64) {
		b.exec(`UPDATE payout_transactions SET slot = 1, fee_lamports = $1, rent_lamports = $2`, fee, rent)
	}
	note(signatureFee, 10_000)
	want("of a right note", "chain_only")
	note(signatureFee, 9_999)
	want("of a wrong note", "amount_mismatch", "chain_only")
	note(signatureFee, 10_000)
	b.exec(`UPDATE payout_batches SET state = 'cancelling', cancel_asked_at = now()`)
	b.exec(`UPDATE payout_batches SET state = 'cancelled', state_reason = 'resolved', voided_by = $1`, other.String())
	want("of evidence that a person gave")
	org, lost := ids.New[ids.Org](), chain.Signature{1, 2, 3}
	b.exec(`INSERT INTO organisations (id, name) VALUES ($1, 'Customer')`, org)
	b.exec(`INSERT INTO deposit_sweeps (id, org_id, token_account, mint, amount, state, nonce_account, nonce_value, message, signature, wire, signed_at, slot, fee_lamports, ended_at)
		VALUES ($1, $2, 'a', $3, 1, 'finalized', $4, $4, 'm', $5, 'w', now(), 1, 10000, now())`,
		ids.New[ids.Sweep](), org, b.chain.Mint.String(), b.chain.Nonces[1].String(), lost.String())
	want("of a sweep that is not on the chain", "ledger_only")
	lines, err := b.Lines(t.Context(), soljournal.Filter{Signature: paid.String()})
	if err != nil || len(lines) != 2 || lines[0].Batch != batch || lines[0].Subject != "batch" {
		t.Errorf("the batch's lines are %+v, %v", lines, err)
	}
}

func TestLinesComeInPagesAndAsATable(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 3 {
		b.send(uint64(10_000 * (i + 1)))
	}
	b.advance(false)
	all, err := b.Lines(t.Context(), soljournal.Filter{})
	if err != nil || len(all) != 7 {
		t.Fatalf("%d lines, %v", len(all), err)
	}
	var paged []soljournal.Line
	for f := (soljournal.Filter{Limit: 2}); ; f.Before = paged[len(paged)-1].Place {
		lines, err := b.Lines(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			break
		}
		paged = append(paged, lines...)
	}
	if !slices.Equal(paged, all) {
		t.Errorf("in pages they are %+v, at once %+v", paged, all)
	}
	var file bytes.Buffer
	if err := b.CSV(t.Context(), &file, chain.Span{}); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&file).ReadAll()
	if err != nil || len(rows) != 8 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	sum := 0
	for _, row := range rows[1:] {
		lamports, err := strconv.Atoi(row[6])
		if err != nil {
			t.Fatal(err)
		}
		sum += lamports
	}
	if sum != int(all[0].After) {
		t.Errorf("the table adds up to %d, the wallet has %d", sum, all[0].After)
	}
	if none, err := b.Totals(t.Context(), chain.Span{From: all[0].At.AddDate(0, 1, 0)}); err != nil || none.Transactions != 0 || none.Opening != none.Closing {
		t.Errorf("a month later: %+v, %v", none, err)
	}
}
