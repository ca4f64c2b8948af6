// Package audit keeps the log of what people do with money: who approved, cancelled, resolved, closed or changed what, and when.
//
// The log is append-only and hash-chained: a row's hash covers its content and the hash of the row before it, so a row that was
// altered, left out or put in between does not fit (Verify names the first one). Cutting off the newest rows can be seen only by
// somebody who has kept a later hash: exports carry it.
//
// # Locking
//
// Record takes one lock for the whole log, until the caller's transaction ends. Call it last.
package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
)

const (
	lockKey = 7_283_012
	// MaxPage bounds a page of the log.
	MaxPage = 1_000
)

// Event is what somebody did.
type Event struct {
	By      ids.User // zero: the platform itself
	Action  string   // what was done to what: "batch.approve"
	Subject string   // the id of what it was done to
	Details any      // becomes JSON; nil is {}
}

// Record appends an event in the caller's transaction: it is logged if and only if what it tells of is committed.
func Record(ctx context.Context, tx pgx.Tx, event Event) error {
	details := []byte("{}")
	if event.Details != nil {
		var err error
		if details, err = json.Marshal(event.Details); err != nil {
			return fmt.Errorf("audit %s: %w", event.Action, err)
		}
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, lockKey); err != nil {
		return fmt.Errorf("lock the audit log: %w", err)
	}
	// A statement of its own, after the lock: it sees what the lock's last holder has committed.
	line := Line{By: event.By, Action: event.Action, Subject: event.Subject, Details: string(details), Previous: make([]byte, sha256.Size)}
	err := tx.QueryRow(ctx, `
		SELECT coalesce(max(seq), 0) + 1, coalesce((SELECT hash FROM audit_log ORDER BY seq DESC LIMIT 1), $1), clock_timestamp()
		FROM audit_log`, line.Previous).Scan(&line.Seq, &line.Previous, &line.At)
	if err != nil {
		return fmt.Errorf("read the end of the audit log: %w", err)
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO audit_log (seq, at, user_id, action, subject, details, previous, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		line.Seq, line.At, line.By, line.Action, line.Subject, line.Details, line.Previous, line.sum())
	if err != nil {
		return fmt.Errorf("audit %s: %w", event.Action, err)
	}
	return nil
}

// Line is a row of the log.
type Line struct {
	Seq            int64
	At             time.Time
	By             ids.User
	Action         string
	Subject        string
	Details        string
	Previous, Hash []byte
}

// sum is the line's hash. Every field is preceded by its length, so no two lines have the same bytes.
func (l Line) sum() []byte {
	digest := sha256.New()
	by := ""
	if !l.By.IsZero() {
		by = l.By.String()
	}
	for _, field := range []string{
		string(l.Previous), strconv.FormatInt(l.Seq, 10), strconv.FormatInt(l.At.UnixMicro(), 10), by, l.Action, l.Subject, l.Details,
	} {
		_, _ = fmt.Fprintf(digest, "%d:%s", len(field), field)
	}
	return digest.Sum(nil)
}

// Querier is a pool, a connection or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

const columns = `seq, at, user_id, action, subject, details, previous, hash`

func scan(row pgx.CollectableRow) (l Line, err error) {
	err = row.Scan(&l.Seq, &l.At, &l.By, &l.Action, &l.Subject, &l.Details, &l.Previous, &l.Hash)
	return l, err
}

// Filter says which lines are wanted; what is zero says nothing.
type Filter struct {
	Person      string // part of a person's name, or of the wallet of somebody without one
	Action      string
	Subject     string
	From, Until time.Time
}

// String says in words which lines a filter lets through; nothing for all of them.
func (f Filter) String() string {
	var words []string
	for _, part := range []struct{ name, value string }{{"person", f.Person}, {"action", f.Action}, {"subject", f.Subject}} {
		if part.value != "" {
			words = append(words, fmt.Sprintf("%s %q", part.name, part.value))
		}
	}
	if !f.From.IsZero() {
		words = append(words, "from "+f.From.UTC().Format(time.RFC3339)+" on")
	}
	if !f.Until.IsZero() {
		words = append(words, "before "+f.Until.UTC().Format(time.RFC3339))
	}
	return strings.Join(words, ", ")
}

// letsThrough is the condition on a line, with the filter's arguments from $1 to $5.
const letsThrough = `($1 = '' OR action = $1) AND ($2 = '' OR subject = $2)
	AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::timestamptz IS NULL OR at < $4)
	AND ($5 = '' OR user_id IN (SELECT id FROM users WHERE strpos(lower(coalesce(nullif(name, ''), wallet_address)), lower($5)) > 0))`

func (f Filter) arguments(more ...any) []any {
	return append([]any{f.Action, f.Subject, orNull(f.From), orNull(f.Until), f.Person}, more...)
}

// List is a page of the log, newest first: the lines before a place, or from the end when it is zero.
func List(ctx context.Context, db Querier, before int64, limit int) ([]Line, error) {
	return Find(ctx, db, Filter{}, before, limit)
}

// Find is a page of the lines that a filter lets through, newest first, as List is of all.
func Find(ctx context.Context, db Querier, f Filter, before int64, limit int) ([]Line, error) {
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	rows, err := db.Query(ctx, `
		SELECT `+columns+` FROM audit_log
		WHERE `+letsThrough+` AND ($6 = 0 OR seq < $6) ORDER BY seq DESC LIMIT $7`, f.arguments(before, limit)...)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	lines, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	return lines, nil
}

func orNull(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

// Each visits the lines that a filter lets through, oldest first. It checks none of them: Walk does.
func Each(ctx context.Context, db Querier, f Filter, visit func(Line) error) error {
	rows, err := db.Query(ctx, `SELECT `+columns+` FROM audit_log WHERE `+letsThrough+` ORDER BY seq`, f.arguments()...)
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		line, err := scan(rows)
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		if err := visit(line); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	return nil
}

// BrokenError says where the log does not fit together.
type BrokenError struct{ Seq int64 }

func (e *BrokenError) Error() string {
	return fmt.Sprintf("the audit log was altered at or before line %d", e.Seq)
}

// Walk visits the whole log, oldest first, and checks each line before it is visited: a line that does not fit is a BrokenError.
func Walk(ctx context.Context, db Querier, visit func(Line) error) error {
	rows, err := db.Query(ctx, `SELECT `+columns+` FROM audit_log ORDER BY seq`)
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	defer rows.Close()
	previous, seq := string(make([]byte, sha256.Size)), int64(0)
	for rows.Next() {
		line, err := scan(rows)
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		seq++
		if line.Seq != seq || string(line.Previous) != previous || !bytes.Equal(line.Hash, line.sum()) {
			return &BrokenError{Seq: seq}
		}
		previous = string(line.Hash)
		if err := visit(line); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	return nil
}

// Verify checks the whole log. It is a BrokenError that tells of an altered one.
func Verify(ctx context.Context, db Querier) error {
	return Walk(ctx, db, func(Line) error { return nil })
}

// IsBroken reports whether an error tells of an altered log.
func IsBroken(err error) bool {
	var broken *BrokenError
	return errors.As(err, &broken)
}
