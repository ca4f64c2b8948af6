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

	// pieceSize is how many transactions of a long history make a piece of it; at most twice as many are read at a time.
	pieceSize = 10_000
	// maxPieces bounds how many pieces one look lists or reads.
	maxPieces = 200
	// patience is how long one look reads pieces. What is left is the next one's.
	patience = 2 * time.Minute
	// comparedFor is how long a transaction is compared with what we have noted in every look. Full ones compare all.
	comparedFor = 90 * 24 * time.Hour
)

// Chain is what the journal needs of the chain; *chain.Client is one.
type Chain interface {
	LamportBalance(ctx context.Context, wallet chain.Address) (chain.Balance, error)
	WalkLamports(ctx context.Context, wallet chain.Address, stretch chain.Stretch, visit func(chain.LamportMovement) error,
		passed func(chain.Slot) error) (cut chain.Mark, err error)
}

// Service keeps the journal of one wallet. Make it with New; it is safe for concurrent use.
type Service struct {
	pool   *pgxpool.Pool
	chain  Chain
	wallet chain.Address
	log    *slog.Logger

	pieceSize, maxPieces int
	patience             time.Duration
}

// New makes a service for the treasury's wallet, which pays for every transaction.
func New(pool *pgxpool.Pool, client Chain, treasury chain.Address, log *slog.Logger) *Service {
	return &Service{pool: pool, chain: client, wallet: treasury, log: log, pieceSize: pieceSize, maxPieces: maxPieces, patience: patience}
}

// State is what a look at the wallet found.
type State struct {
	Wallet       string
	Lamports     money.Amount // live, at Slot
	Journal      money.Amount // that the newest transaction of the journal left
	Transactions int64        // in the journal
	Continuous   bool         // the journal leads to the live balance without a gap
	Behind       bool         // the history is longer than one look reads: the next ones go on. Nothing is said about continuity until then
	Slot         chain.Slot   // the history was read up to here
	Differences  []Difference
	More         bool      // there are more differences than are listed
	Since        time.Time // what happened by then was not compared; zero: all was
}

// Whole reports whether no difference since Since can be missing.
func (s State) Whole() bool { return !s.Behind && !s.More }

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
// first transaction on, at once, and compares all that is written already, too.
func (s *Service) Advance(ctx context.Context, fully bool) (State, error) {
	w, err := s.begin(ctx)
	if err != nil {
		return State{}, err
	}
	if fully && w.head.seq > 0 {
		err = w.whole(ctx)
	} else {
		err = w.pieces(ctx)
	}
	if err != nil {
		return State{}, fmt.Errorf("read the history of %s: %w", s.wallet, err)
	}
	end := w.live.Slot
	switch {
	case len(w.gaps) > 0: // what is missing behind a gap cannot be told from what never was there
		end = max(w.head.slot, 1) - 1
	case w.behind:
		end = min(end, max(w.from(), 1)-1)
	}
	found, err := s.compare(ctx, end, fully)
	if err != nil {
		return State{}, err
	}
	return State{
		Wallet: s.wallet.String(), Lamports: money.Amount(w.live.Amount), Journal: w.head.after, Transactions: w.head.seq,
		Continuous: len(w.gaps) == 0 && !w.behind, Behind: w.behind && len(w.gaps) == 0, Slot: min(end, w.live.Slot),
		Differences: append(w.gaps, found.differences...), More: found.more, Since: found.since,
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

	next     chain.Slot   // all before it has been read; zero: the head says how far
	marks    []chain.Mark // where what has not been read yet is cut, the oldest last
	progress bool         // something was cut or read
	behind   bool
}

// row is a transaction with its lines.
type row struct {
	chain.LamportMovement
	seq   int64
	lines []line
}

// begin is where the last look ended.
func (s *Service) begin(ctx context.Context) (*walk, error) {
	w := &walk{Service: s}
	var err error
	if w.head, err = s.newest(ctx); err != nil {
		return nil, err
	}
	if w.next, w.marks, err = s.reading(ctx); err != nil {
		return nil, err
	}
	// The live balance is read first, so that the history, read after it, can be required to lead to it.
	if w.live, err = s.chain.LamportBalance(ctx, s.wallet); err != nil {
		return nil, fmt.Errorf("read the lamports of %s: %w", s.wallet, err)
	}
	if w.live.Amount > math.MaxInt64 {
		return nil, fmt.Errorf("%s has more lamports than there can be", s.wallet)
	}
	w.passed = w.head.seq == 0 || w.next > w.head.slot
	return w, nil
}

// whole reads all of the history at once, and compares what is written already.
func (w *walk) whole(ctx context.Context) error {
	rows, err := w.pool.Query(ctx, `SELECT signature, before, after FROM sol_transactions WHERE wallet = $1 ORDER BY seq`, w.wallet.String())
	if err != nil {
		return fmt.Errorf("read the SOL journal: %w", err)
	}
	defer rows.Close()
	w.stored, w.passed = rows, false
	_, err = w.chain.WalkLamports(ctx, w.wallet, chain.Stretch{}, func(m chain.LamportMovement) error { return w.visit(ctx, m) },
		func(chain.Slot) error { return nil })
	if err == nil {
		err = w.end(ctx)
	}
	return err
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

// end writes what is left and compares where the journal has come to with the live balance.
func (w *walk) end(ctx context.Context) error {
	switch {
	case len(w.gaps) > 0:
	case !w.passed:
		w.forgotten()
	case w.live.Amount != uint64(w.head.after):
		w.gap("", time.Time{}, w.live.Amount,
			"the wallet has %d lamports, but its last known transaction left %d: a transaction is missing from the history")
	}
	return w.finish(ctx)
}

func (w *walk) forgotten() {
	w.gap(w.head.signature, time.Time{}, w.live.Amount,
		"the chain does not show the journal's newest transaction any more; the wallet has %d lamports, the journal %d")
}

func (w *walk) gap(signature string, at time.Time, has uint64, text string) {
	w.gaps = append(w.gaps, Difference{
		Class: amountMismatch, Signature: signature, Chain: new(money.Amount(has) - w.head.after), At: at,
		Text: fmt.Sprintf(text, has, w.head.after),
	})
}

// flush writes what has come together.
func (w *walk) flush(ctx context.Context) error { return w.write(ctx, &pgx.Batch{}) }

// write writes what has come together, with what a batch holds already, at once.
func (w *walk) write(ctx context.Context, batch *pgx.Batch) error {
	if len(w.rows) == 0 && batch.Len() == 0 {
		return nil
	}
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
