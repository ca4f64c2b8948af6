package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// MaxPage bounds a page of history.
const MaxPage = 200

// Page asks for the transfers before a place in an account's history, newest first. The zero Page is the newest MaxPage. With both times
// its lines explain the difference between the balances at them.
type Page struct {
	Before int64 // a Line's Seq; 0 starts at the newest
	Limit  int
	After  time.Time // only what was posted later; zero: from the beginning
	Until  time.Time // only what was posted by then; zero: to the end
}

// Line is one transfer as an account's history shows it.
type Line struct {
	Seq      int64 // counts the account's transfers from 1
	Transfer ids.Transfer
	Entry    ids.Entry
	Key      string
	Kind     string
	Debit    bool         // the account was on the debit side
	Change   money.Amount // what the transfer did to the account's balance
	Balance  money.Amount // after it
	Other    Account      // the other side
	Refs     Refs
	Memo     string
	PostedAt time.Time
}

// Balance is an account's balance in its own sense, zero for one that nothing ever touched.
func (l *Ledger) Balance(ctx context.Context, db DB, a Account) (money.Amount, error) {
	var balance money.Amount
	err := db.QueryRow(ctx, `
		SELECT coalesce((SELECT balance FROM ledger_accounts WHERE kind = $1 AND org_id IS NOT DISTINCT FROM $2::uuid AND mint = $3), 0)`,
		a.Kind, a.Org, l.currency.Mint).Scan(&balance)
	if err != nil {
		return 0, fmt.Errorf("read balance: %w", err)
	}
	return balance, nil
}

// Available is what can be taken from an account: its balance less what pending transfers have reserved.
func (l *Ledger) Available(ctx context.Context, db DB, a Account) (money.Amount, error) {
	var available money.Amount
	err := db.QueryRow(ctx, `
		SELECT coalesce((SELECT balance - reserved FROM ledger_accounts WHERE kind = $1 AND org_id IS NOT DISTINCT FROM $2::uuid AND mint = $3), 0)`,
		a.Kind, a.Org, l.currency.Mint).Scan(&available)
	if err != nil {
		return 0, fmt.Errorf("read available balance: %w", err)
	}
	return available, nil
}

// BalanceAt is an account's balance after everything that was posted by a time. It is final once every transaction that was open then has
// ended: what such a one posts may still come before the time.
func (l *Ledger) BalanceAt(ctx context.Context, db DB, a Account, at time.Time) (money.Amount, error) {
	var balance money.Amount
	err := db.QueryRow(ctx, `
		WITH place AS (
			SELECT a.id, ledger_seq_at(a.id, $4) AS seq FROM ledger_accounts a
			WHERE a.kind = $1 AND a.org_id IS NOT DISTINCT FROM $2::uuid AND a.mint = $3
		)
		SELECT coalesce((SELECT t.debit_balance FROM place p JOIN ledger_transfers t ON t.debit_account = p.id AND t.debit_seq = p.seq),
		                (SELECT t.credit_balance FROM place p JOIN ledger_transfers t ON t.credit_account = p.id AND t.credit_seq = p.seq), 0)`,
		a.Kind, a.Org, l.currency.Mint, at).Scan(&balance)
	if err != nil {
		return 0, fmt.Errorf("read balance at %s: %w", at.UTC().Format(time.RFC3339), err)
	}
	return balance, nil
}

// History is a page of an account's transfers, newest first.
func (l *Ledger) History(ctx context.Context, db DB, a Account, page Page) ([]Line, error) {
	if page.Limit <= 0 || page.Limit > MaxPage {
		page.Limit = MaxPage
	}
	rows, err := db.Query(ctx, `
		WITH account AS (
			SELECT id, CASE WHEN $6::timestamptz IS NULL THEN 0 ELSE ledger_seq_at(id, $6) END AS after_seq,
			       CASE WHEN $7::timestamptz IS NULL THEN last_seq ELSE ledger_seq_at(id, $7) END AS until_seq
			FROM ledger_accounts WHERE kind = $1 AND org_id IS NOT DISTINCT FROM $2::uuid AND mint = $3
		), sides AS (
			(SELECT t.id, t.entry_id, true AS debit, t.debit_seq AS seq, t.debit_balance AS balance, t.credit_account AS other,
			        t.amount, t.posted_at
			 FROM ledger_transfers t JOIN account a ON a.id = t.debit_account
			 WHERE ($4 = 0 OR t.debit_seq < $4) AND t.debit_seq > a.after_seq AND t.debit_seq <= a.until_seq ORDER BY t.debit_seq DESC LIMIT $5)
			UNION ALL
			(SELECT t.id, t.entry_id, false, t.credit_seq, t.credit_balance, t.debit_account, t.amount, t.posted_at
			 FROM ledger_transfers t JOIN account a ON a.id = t.credit_account
			 WHERE ($4 = 0 OR t.credit_seq < $4) AND t.credit_seq > a.after_seq AND t.credit_seq <= a.until_seq ORDER BY t.credit_seq DESC LIMIT $5)
		)
		SELECT s.seq, s.id, s.entry_id, e.key, e.kind, s.debit, s.amount, s.balance, o.kind, o.org_id,
		       e.booking_id, e.cluster_id, e.lease_id, e.deposit_id, e.batch_id, coalesce(e.signature, ''), e.memo, s.posted_at
		FROM sides s
		JOIN ledger_entries e ON e.id = s.entry_id
		JOIN ledger_accounts o ON o.id = s.other
		ORDER BY s.seq DESC LIMIT $5`, a.Kind, a.Org, l.currency.Mint, page.Before, page.Limit,
		pgtype.Timestamptz{Time: page.After, Valid: !page.After.IsZero()}, pgtype.Timestamptz{Time: page.Until, Valid: !page.Until.IsZero()})
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Line, error) { return scanLine(row, a.Kind) })
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	return lines, nil
}

func scanLine(row pgx.CollectableRow, kind Kind) (Line, error) {
	var line Line
	err := row.Scan(&line.Seq, &line.Transfer, &line.Entry, &line.Key, &line.Kind, &line.Debit, &line.Change, &line.Balance,
		&line.Other.Kind, &line.Other.Org, &line.Refs.Booking, &line.Refs.Cluster, &line.Refs.Lease, &line.Refs.Deposit,
		&line.Refs.Batch, &line.Refs.Signature, &line.Memo, &line.PostedAt)
	if line.Debit != rules[kind].asset {
		line.Change = -line.Change
	}
	return line, err
}

// Problem is one thing that a check found wrong.
type Problem struct {
	Account ids.Account // zero where the problem is not one account's
	Mint    string
	Text    string
}

// ProblemsError is what Check returns for a ledger that is not sound.
type ProblemsError struct{ Problems []Problem }

// Error implements error.
func (e *ProblemsError) Error() string {
	texts := make([]error, len(e.Problems))
	for i, p := range e.Problems {
		texts[i] = errors.New(strings.TrimSpace(p.Account.String() + " " + p.Text))
	}
	return fmt.Sprintf("the ledger is not sound: %v", errors.Join(texts...))
}

// Check replays every transfer and reservation of every mint, compares each running and stored balance and each reserved amount, follows
// each pending transfer to its end, and sums each mint to zero. A
// *ProblemsError names what disagrees. It reads one snapshot, so it is right while others post.
func (l *Ledger) Check(ctx context.Context, db DB) error {
	rows, err := db.Query(ctx, `SELECT account_id, mint, problem FROM ledger_problems()`)
	if err != nil {
		return fmt.Errorf("check ledger: %w", err)
	}
	problems, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Problem])
	if err != nil {
		return fmt.Errorf("check ledger: %w", err)
	}
	if len(problems) > 0 {
		return &ProblemsError{Problems: problems}
	}
	return nil
}
