package soljournal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// Currency is SOL. Its mint is the one that wrapped SOL has, under which wallets and tools know it.
var Currency = money.Currency{Symbol: "SOL", Mint: solana.SolMint.String(), Decimals: 9}

const (
	// storedTogether bounds how many transactions are written at a time.
	storedTogether = 500
	// MaxDifferences bounds how many differences one look lists.
	MaxDifferences = 1_000
)

// Chain is what the journal needs of the chain; *chain.Client is one.
type Chain interface {
	LamportBalance(ctx context.Context, wallet chain.Address) (chain.Balance, error)
	WalkLamports(ctx context.Context, wallet chain.Address, since chain.Cursor, visit func(chain.LamportMovement) error) error
}

// Service keeps the journal of one wallet. Make it with New; it is safe for concurrent use.
type Service struct {
	pool   *pgxpool.Pool
	chain  Chain
	wallet chain.Address
	log    *slog.Logger
}

// New makes a service for the treasury's wallet, which pays for every transaction.
func New(pool *pgxpool.Pool, client Chain, treasury chain.Address, log *slog.Logger) *Service {
	return &Service{pool: pool, chain: client, wallet: treasury, log: log}
}

// State is what a look at the wallet found.
type State struct {
	Wallet       string
	Lamports     money.Amount // live, at Slot
	Journal      money.Amount // that the newest transaction of the journal left
	Transactions int64        // in the journal
	Continuous   bool         // the journal leads to the live balance without a gap
	Slot         chain.Slot
	Differences  []Difference
}

// Difference is one disagreement. Amounts are lamports, signed: negative left the wallet.
type Difference struct {
	Class     string
	Signature string
	Noted     *money.Amount // by us
	Chain     *money.Amount
	At        time.Time // zero: now
	Text      string
}

// The classes of difference, as reconcile knows them.
const (
	noteOnly       = "ledger_only"
	chainOnly      = "chain_only"
	amountMismatch = "amount_mismatch"
)

// Advance writes what has happened since the last time and compares the journal with what we have noted. Fully reads the history from its
// first transaction on and compares what is written already, too.
func (s *Service) Advance(ctx context.Context, fully bool) (State, error) {
	w, err := s.walk(ctx, fully)
	if err != nil {
		return State{}, err
	}
	end := w.live.Slot
	if len(w.gaps) > 0 { // what is missing behind a gap cannot be told from what never was there
		end = max(w.head.slot, 1) - 1
	}
	differences, err := s.compare(ctx, end)
	if err != nil {
		return State{}, err
	}
	return State{
		Wallet: s.wallet.String(), Lamports: money.Amount(w.live.Amount), Journal: w.head.after, Transactions: w.head.seq,
		Continuous: len(w.gaps) == 0, Slot: w.live.Slot, Differences: append(w.gaps, differences...),
	}, nil
}

// head is the newest transaction of the journal. The zero head is the beginning.
type head struct {
	seq       int64
	signature string
	slot      chain.Slot
	after     money.Amount
}

// walk follows the wallet's history from the journal's newest transaction on.
type walk struct {
	*Service
	live   chain.Balance
	head   head
	stored pgx.Rows // of a check of the whole: the journal's transactions, as far as they are still to be compared
	passed bool     // the head's own transaction has come by
	rows   []row    // to be written
	gaps   []Difference
}

// row is a transaction with its lines.
type row struct {
	chain.LamportMovement
	seq   int64
	lines []line
}

func (s *Service) walk(ctx context.Context, fully bool) (*walk, error) {
	w := &walk{Service: s}
	var err error
	if w.head, err = s.newest(ctx); err != nil {
		return nil, err
	}
	// The live balance is read first, so that the history, read after it, can be required to lead to it.
	if w.live, err = s.chain.LamportBalance(ctx, s.wallet); err != nil {
		return nil, fmt.Errorf("read the lamports of %s: %w", s.wallet, err)
	}
	if w.live.Amount > math.MaxInt64 {
		return nil, fmt.Errorf("%s has more lamports than there can be", s.wallet)
	}
	since := chain.Cursor{Slot: w.head.slot}
	if w.passed = w.head.seq == 0; fully && !w.passed {
		since = chain.Cursor{}
		rows, err := s.pool.Query(ctx, `SELECT signature, before, after FROM sol_transactions WHERE wallet = $1 ORDER BY seq`, s.wallet.String())
		if err != nil {
			return nil, fmt.Errorf("read the SOL journal: %w", err)
		}
		defer rows.Close()
		w.stored = rows
	}
	if err := s.chain.WalkLamports(ctx, s.wallet, since, func(m chain.LamportMovement) error { return w.visit(ctx, m) }); err != nil {
		return nil, fmt.Errorf("read the history of %s: %w", s.wallet, err)
	}
	if err := w.flush(ctx); err != nil {
		return nil, err
	}
	w.end()
	return w, nil
}

func (s *Service) newest(ctx context.Context) (h head, err error) {
	var slot int64
	err = s.pool.QueryRow(ctx, `SELECT seq, signature, slot, after FROM sol_transactions WHERE wallet = $1 ORDER BY seq DESC LIMIT 1`,
		s.wallet.String()).Scan(&h.seq, &h.signature, &slot, &h.after)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return h, fmt.Errorf("read the SOL journal: %w", err)
	}
	h.slot = chain.Slot(slot)
	return h, nil
}

// visit takes the next transaction. What comes before the head's own is written already.
func (w *walk) visit(ctx context.Context, m chain.LamportMovement) error {
	switch {
	case len(w.gaps) > 0 || m.Slot > w.live.Slot: // behind a gap, or later than the live balance: the next run's
		return nil
	case !w.passed:
		w.passed = m.Signature.String() == w.head.signature
		return w.verify(m)
	case m.Pre != uint64(w.head.after):
		w.gap(m.Signature.String(), unixTime(m.BlockTime), m.Pre,
			"the wallet had %d lamports before this transaction, but the one before it left %d: a transaction is missing from the history")
		return nil
	}
	lines, err := linesOf(m)
	if err != nil {
		return err
	}
	w.head = head{seq: w.head.seq + 1, signature: m.Signature.String(), slot: m.Slot, after: money.Amount(m.Post)}
	w.rows = append(w.rows, row{LamportMovement: m, seq: w.head.seq, lines: lines})
	if len(w.rows) < storedTogether {
		return nil
	}
	return w.flush(ctx)
}

// verify holds a transaction to the journal's, if the whole journal is to be checked.
func (w *walk) verify(m chain.LamportMovement) error {
	if w.stored == nil {
		return nil
	}
	var signature string
	var before, after money.Amount
	if !w.stored.Next() {
		return fmt.Errorf("read the SOL journal: it ends too early: %w", w.stored.Err())
	}
	if err := w.stored.Scan(&signature, &before, &after); err != nil {
		return fmt.Errorf("read the SOL journal: %w", err)
	}
	if signature != m.Signature.String() || uint64(before) != m.Pre || uint64(after) != m.Post {
		w.gaps = append(w.gaps, Difference{
			Class: amountMismatch, Signature: m.Signature.String(), At: unixTime(m.BlockTime), Noted: new(after - before), Chain: new(change(m)),
			Text: fmt.Sprintf("in this transaction's place the journal has %s, which left %d lamports; the chain says that %d were left", signature, after, m.Post),
		})
	}
	return nil
}

func change(m chain.LamportMovement) money.Amount { return money.Amount(m.Post) - money.Amount(m.Pre) }

// end compares where the journal has come to with the live balance.
func (w *walk) end() {
	switch {
	case len(w.gaps) > 0:
	case !w.passed:
		w.gap(w.head.signature, time.Time{}, w.live.Amount,
			"the chain does not show the journal's newest transaction any more; the wallet has %d lamports, the journal %d")
	case w.live.Amount != uint64(w.head.after):
		w.gap("", time.Time{}, w.live.Amount,
			"the wallet has %d lamports, but its last known transaction left %d: a transaction is missing from the history")
	}
}

func (w *walk) gap(signature string, at time.Time, has uint64, text string) {
	w.gaps = append(w.gaps, Difference{
		Class: amountMismatch, Signature: signature, Chain: new(money.Amount(has) - w.head.after), At: at,
		Text: fmt.Sprintf(text, has, w.head.after),
	})
}

// flush writes what has come together.
func (w *walk) flush(ctx context.Context) error {
	if len(w.rows) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	wallet := w.wallet.String()
	for _, r := range w.rows {
		var previous *int64
		if r.seq > 1 {
			before := r.seq - 1
			previous = &before
		}
		var at *time.Time
		if r.BlockTime != 0 {
			seen := unixTime(r.BlockTime)
			at = &seen
		}
		batch.Queue(`
			INSERT INTO sol_transactions (wallet, seq, signature, slot, at, failed, before, after, previous_seq)
			VALUES ($1, $2, $3, $4, -- no earlier than the one before, so that a span's transactions are in one piece
				greatest(coalesce($5, now()), (SELECT p.at FROM sol_transactions p WHERE p.wallet = $1 AND p.seq = $9)), $6, $7, $8, $9)`,
			wallet, r.seq, r.Signature.String(), int64(r.Slot), at, r.Err != "", int64(r.Pre), int64(r.Post), previous)
		for i, l := range r.lines {
			batch.Queue(`INSERT INTO sol_lines (wallet, seq, ordinal, kind, lamports, other) VALUES ($1, $2, $3, $4, $5, $6)`,
				wallet, r.seq, i+1, l.kind, l.lamports, l.other)
		}
	}
	w.rows = nil
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error { return tx.SendBatch(ctx, batch).Close() })
	if err != nil {
		return fmt.Errorf("write the SOL journal: %w", err)
	}
	return nil
}

func unixTime(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}
