package soljournal

import (
	"context"
	"errors"
	"fmt"

	"github.com/gagliardetto/solana-go"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/settlement/chain"
)

// errPatience ends a look that has read for long enough.
var errPatience = errors.New("the look took longer than it may")

// reading is how far the wallet's history has been read, and how the rest is cut.
func (s *Service) reading(ctx context.Context) (next chain.Slot, marks []chain.Mark, err error) {
	var slot int64
	err = s.pool.QueryRow(ctx, `SELECT next_slot FROM sol_readings WHERE wallet = $1`, s.wallet.String()).Scan(&slot)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, nil, fmt.Errorf("read how far the SOL journal is: %w", err)
	}
	rows, err := s.pool.Query(ctx, `SELECT signature, slot FROM sol_marks WHERE wallet = $1 ORDER BY depth`, s.wallet.String())
	if err != nil {
		return 0, nil, fmt.Errorf("read how far the SOL journal is: %w", err)
	}
	marks, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (m chain.Mark, err error) {
		var signature string
		var slot int64
		if err = row.Scan(&signature, &slot); err == nil {
			m.Slot = chain.Slot(slot)
			m.Signature, err = solana.SignatureFromBase58(signature)
		}
		return m, err
	})
	if err != nil {
		return 0, nil, fmt.Errorf("read how far the SOL journal is: %w", err)
	}
	return chain.Slot(slot), marks, nil
}

// from is the first slot of what has not been read. What lies a little before the head is read again, and the head's own transaction with it,
// unless the reading has left them behind.
func (w *walk) from() chain.Slot {
	return max(w.next, max(w.head.slot, chain.OverlapSlots)-chain.OverlapSlots)
}

// pieces reads the history since the last look, piece by piece and the oldest first, as far as one look goes.
func (w *walk) pieces(ctx context.Context) error {
	patient, cancel := context.WithTimeoutCause(ctx, w.patience, errPatience)
	defer cancel()
	for range w.maxPieces {
		more, err := w.piece(ctx, patient)
		switch {
		case err != nil && w.progress && ctx.Err() == nil && errors.Is(context.Cause(patient), errPatience):
			w.behind = true
			return w.flush(ctx) // what was visited of the piece is whole, in its order
		case err != nil:
			return errors.Join(err, w.unmark(ctx, err))
		case !more:
			return w.end(ctx)
		}
	}
	w.behind = true
	return nil
}

// piece reads the oldest piece of what is left, or cuts it where it is too long. It reports whether there is more. The patience is for the chain
// alone, so that what it has said is written.
func (w *walk) piece(ctx, patient context.Context) (more bool, err error) {
	var before chain.Mark
	if left := len(w.marks); left > 0 {
		before = w.marks[left-1]
	}
	cut, err := w.chain.WalkLamports(patient, w.wallet, chain.Stretch{From: w.from(), Before: before, Most: w.pieceSize},
		func(m chain.LamportMovement) error { return w.visit(ctx, m) }, func(next chain.Slot) error { return w.read(ctx, next) })
	switch {
	case err != nil:
		return false, err
	case cut != chain.Mark{}:
		return true, w.mark(ctx, cut)
	case before == chain.Mark{}:
		return false, nil
	case !w.passed && before.Slot > w.head.slot:
		w.forgotten()
	}
	if len(w.gaps) > 0 {
		return false, nil
	}
	w.marks = w.marks[:len(w.marks)-1]
	return true, w.read(ctx, before.Slot)
}

// mark stores where what is left is cut.
func (w *walk) mark(ctx context.Context, cut chain.Mark) error {
	w.marks, w.progress = append(w.marks, cut), true
	batch := &pgx.Batch{}
	batch.Queue(`INSERT INTO sol_marks (wallet, depth, signature, slot) VALUES ($1, $2, $3, $4)`,
		w.wallet.String(), len(w.marks), cut.Signature.String(), int64(cut.Slot))
	return w.write(ctx, batch)
}

// read stores that all before a slot has been read, with what was found there.
func (w *walk) read(ctx context.Context, next chain.Slot) error {
	if len(w.gaps) > 0 {
		return nil
	}
	w.next, w.progress = next, true
	batch := &pgx.Batch{}
	batch.Queue(`INSERT INTO sol_readings (wallet, next_slot) VALUES ($1, $2) ON CONFLICT (wallet) DO UPDATE SET next_slot = excluded.next_slot`,
		w.wallet.String(), int64(w.next))
	batch.Queue(`DELETE FROM sol_marks WHERE wallet = $1 AND depth > $2`, w.wallet.String(), len(w.marks))
	return w.write(ctx, batch)
}

// finish stores that the look has come to the present. The next one reads the newest slots again, because an endpoint may show a transaction
// late. Behind a gap nothing is believed: the next look goes on from the journal's newest transaction, where what is missing may be by then.
func (w *walk) finish(ctx context.Context) error {
	if len(w.gaps) > 0 {
		batch := &pgx.Batch{}
		batch.Queue(`DELETE FROM sol_readings WHERE wallet = $1`, w.wallet.String())
		batch.Queue(`DELETE FROM sol_marks WHERE wallet = $1`, w.wallet.String())
		return w.write(ctx, batch)
	}
	if w.next == 0 && len(w.marks) == 0 { // the history is short
		return w.flush(ctx)
	}
	w.marks = nil
	return w.read(ctx, max(w.live.Slot, chain.OverlapSlots)-chain.OverlapSlots)
}

// unmark forgets the marks after an error that may be about them: an endpoint need not know a transaction for ever. To cut the history anew is
// never wrong.
func (w *walk) unmark(ctx context.Context, cause error) error {
	for _, other := range []error{context.Canceled, context.DeadlineExceeded, chain.ErrUnavailable, chain.ErrBehind, chain.ErrDisagree} {
		if errors.Is(cause, other) {
			return nil
		}
	}
	if _, err := w.pool.Exec(ctx, `DELETE FROM sol_marks WHERE wallet = $1`, w.wallet.String()); err != nil {
		return fmt.Errorf("forget how the history of %s is cut: %w", w.wallet, err)
	}
	return nil
}
