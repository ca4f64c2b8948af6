package soljournal

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// MaxPage bounds a page of lines.
const MaxPage = 200

// Querier is a pool, a connection or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Totals are a wallet's figures of a span. Opening and the sums of the kinds add up to Closing.
type Totals struct {
	Wallet       string
	Opening      money.Amount
	Closing      money.Amount
	Kinds        []KindTotal // in the order of Kinds, those that occur
	Transactions int64
	Failed       int64 // of them
}

// KindTotal is the sum of a kind's lines: negative if the wallet has less for it.
type KindTotal struct {
	Kind     string
	Lamports money.Amount
	Lines    int64
}

// Totals are the wallet's figures of a span.
func (s *Service) Totals(ctx context.Context, span chain.Span) (Totals, error) {
	all, err := TotalsOf(ctx, s.pool, span)
	if err != nil {
		return Totals{}, err
	}
	for _, t := range all {
		if t.Wallet == s.wallet.String() {
			return t, nil
		}
	}
	return Totals{Wallet: s.wallet.String()}, nil
}

// TotalsOf are the figures of a span of every wallet that the journal knows, in the order of their addresses.
func TotalsOf(ctx context.Context, db Querier, span chain.Span) ([]Totals, error) {
	rows, err := db.Query(ctx, `
		SELECT w.wallet,
		       coalesce((SELECT t.after FROM sol_transactions t WHERE t.wallet = w.wallet AND t.at < $1 ORDER BY t.seq DESC LIMIT 1), 0),
		       coalesce((SELECT t.after FROM sol_transactions t WHERE t.wallet = w.wallet AND ($2::timestamptz IS NULL OR t.at < $2) ORDER BY t.seq DESC LIMIT 1), 0),
		       (SELECT count(*) FROM sol_transactions t WHERE t.wallet = w.wallet AND `+inSpan+`),
		       (SELECT count(*) FROM sol_transactions t WHERE t.wallet = w.wallet AND t.failed AND `+inSpan+`)
		FROM (SELECT DISTINCT wallet FROM sol_transactions WHERE seq = 1) w ORDER BY w.wallet`, timeOf(span.From), timeOf(span.To))
	if err != nil {
		return nil, fmt.Errorf("add up the SOL journal: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t Totals, err error) {
		err = row.Scan(&t.Wallet, &t.Opening, &t.Closing, &t.Transactions, &t.Failed)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("add up the SOL journal: %w", err)
	}
	for i := range all {
		rows, err := db.Query(ctx, `
			SELECT l.kind, sum(l.lamports)::bigint, count(*) FROM sol_lines l JOIN sol_transactions t ON t.wallet = l.wallet AND t.seq = l.seq
			WHERE t.wallet = $3 AND `+inSpan+` GROUP BY l.kind ORDER BY array_position($4, l.kind)`,
			timeOf(span.From), timeOf(span.To), all[i].Wallet, Kinds)
		if err != nil {
			return nil, fmt.Errorf("add up the SOL journal: %w", err)
		}
		if all[i].Kinds, err = pgx.CollectRows(rows, pgx.RowToStructByPos[KindTotal]); err != nil {
			return nil, fmt.Errorf("add up the SOL journal: %w", err)
		}
	}
	return all, nil
}

// inSpan holds for transactions t of a span, whose ends are the first two parameters, NULL for none.
const inSpan = `($1::timestamptz IS NULL OR t.at >= $1) AND ($2::timestamptz IS NULL OR t.at < $2)`

func timeOf(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

// Line is a line of the journal.
type Line struct {
	At        time.Time
	Slot      int64
	Signature string
	Failed    bool
	Kind      string
	Lamports  money.Amount // what the wallet has more for it; negative: less
	Other     string       // where they went to or came from, if that is known
	After     money.Amount // what the transaction left in the wallet
	Subject   string       // what it was for: batch, cancellation or sweep; empty: none of ours
	Batch     ids.Batch
	Sweep     ids.Sweep
	Place     Place
}

// Place is a line's in the journal.
type Place struct {
	Seq     int64
	Ordinal int16
}

// Filter chooses lines. Zero fields choose all.
type Filter struct {
	Span      chain.Span
	Kind      string
	Signature string
	Before    Place
	Limit     int
}

const lineColumns = `t.at, t.slot, t.signature, t.failed, l.kind, l.lamports, l.other, t.after, coalesce(n.kind, ''), n.id, l.seq, l.ordinal
	FROM sol_lines l JOIN sol_transactions t ON t.wallet = l.wallet AND t.seq = l.seq
	LEFT JOIN LATERAL (
		SELECT 'batch' AS kind, p.batch_id AS id FROM payout_transactions p WHERE p.signature = t.signature
		UNION ALL SELECT 'cancellation', c.batch_id FROM payout_cancellations c WHERE c.signature = t.signature
		UNION ALL SELECT 'sweep', d.id FROM deposit_sweeps d WHERE d.signature = t.signature LIMIT 1) n ON true
	WHERE t.wallet = $3 AND ` + inSpan

func scanLine(row pgx.CollectableRow) (l Line, err error) {
	var id *uuid.UUID
	err = row.Scan(&l.At, &l.Slot, &l.Signature, &l.Failed, &l.Kind, &l.Lamports, &l.Other, &l.After, &l.Subject, &id, &l.Place.Seq, &l.Place.Ordinal)
	if id != nil && l.Subject == "sweep" {
		l.Sweep = ids.Sweep(*id)
	} else if id != nil {
		l.Batch = ids.Batch(*id)
	}
	return l, err
}

// Lines is a page of the journal, newest first.
func (s *Service) Lines(ctx context.Context, f Filter) ([]Line, error) {
	if f.Limit <= 0 || f.Limit > MaxPage {
		f.Limit = MaxPage
	}
	rows, err := s.pool.Query(ctx, `
		SELECT `+lineColumns+` AND ($4 = '' OR l.kind = $4) AND ($5 = '' OR t.signature = $5)
			AND ($6::bigint = 0 OR (l.seq, -l.ordinal) < ($6, -$7::smallint))
		ORDER BY l.seq DESC, l.ordinal LIMIT $8`,
		timeOf(f.Span.From), timeOf(f.Span.To), s.wallet.String(), f.Kind, f.Signature, f.Before.Seq, f.Before.Ordinal, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("read the SOL journal: %w", err)
	}
	lines, err := pgx.CollectRows(rows, scanLine)
	if err != nil {
		return nil, fmt.Errorf("read the SOL journal: %w", err)
	}
	return lines, nil
}

var csvColumns = []string{"at", "slot", "signature", "failed", "kind", "sol", "lamports", "account", "wallet_sol_after", "for"}

// CSV writes the lines of a span, oldest first.
func (s *Service) CSV(ctx context.Context, w io.Writer, span chain.Span) error {
	rows, err := s.pool.Query(ctx, `SELECT `+lineColumns+` ORDER BY l.seq, l.ordinal`, timeOf(span.From), timeOf(span.To), s.wallet.String())
	if err != nil {
		return fmt.Errorf("read the SOL journal: %w", err)
	}
	defer rows.Close()
	table := csv.NewWriter(w)
	err = table.Write(csvColumns)
	for err == nil && rows.Next() {
		var l Line
		if l, err = scanLine(rows); err == nil {
			err = table.Write([]string{
				l.At.UTC().Format(time.RFC3339), strconv.FormatInt(l.Slot, 10), l.Signature, strconv.FormatBool(l.Failed), l.Kind, Currency.Format(l.Lamports),
				strconv.FormatInt(int64(l.Lamports), 10), l.Other, Currency.Format(l.After), l.subject(),
			})
		}
	}
	table.Flush()
	return errors.Join(err, rows.Err(), table.Error())
}

// subject is what a line's transaction was for.
func (l Line) subject() string {
	switch {
	case !l.Sweep.IsZero():
		return l.Sweep.String()
	case !l.Batch.IsZero():
		return l.Batch.String()
	}
	return ""
}
