// Package close freezes a month's figures, and writes them for accountants.
//
// A month is closed on a whole reconciliation that began after the month's end, while no difference is open and every account's history
// is unbroken. The figures are stored as they were, with their SHA-256. The ledger only grows and its times are the database's, so a closed
// month's figures cannot change any more: a correction is an entry of the month that it is posted in. Check computes them again and says
// whether they still are what was closed.
//
// Closing again needs opening first, which takes a reason and two people: one asks, another agrees. The old closing stays.
//
// # Files
//
// Cryptio, QuickBooks, Xero, Audit and Report write a month's movements on the chain, its journal (in two forms), the audit log, and a page to
// print. All text in tables passes statements.Cell, so that no spreadsheet takes it for a formula.
//
// # Errors
//
// A month that cannot be closed or opened is errs.Conflict, which says why.
package close

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/soljournal"
)

const (
	monthLayout = "2006-01"
	// settling is how long after a month's end it may be closed: longer than any transaction that began in it.
	settling = 15 * time.Minute
	// MaxMonths bounds the list of months.
	MaxMonths = 120
)

// Options are what a Service is made with.
type Options struct {
	Currency     money.Currency
	SelfApproval bool // one person may ask for and agree to opening a month: for local networks
}

// Service closes months. Make it with New; it is safe for concurrent use.
type Service struct {
	pool    *pgxpool.Pool
	options Options
}

// New makes a service.
func New(pool *pgxpool.Pool, options Options) *Service { return &Service{pool: pool, options: options} }

// Month is the first moment of a month, in UTC.
type Month struct{ time.Time }

// ParseMonth reads a month such as 2026-11.
func ParseMonth(text string) (Month, error) {
	at, err := time.Parse(monthLayout, text)
	if err != nil {
		return Month{}, errs.InvalidField("path.month", "%q is no month: write it as 2026-11", text)
	}
	return Month{at}, nil
}

func (m Month) String() string { return m.Format(monthLayout) }

func (m Month) end() time.Time { return m.AddDate(0, 1, 0) }

// Span is the month as a span of block times.
func (m Month) Span() chain.Span { return chain.Span{From: m.Time, To: m.end()} }

// Closing is a month that was closed.
type Closing struct {
	Month          Month
	Reconciliation ids.Reconciliation
	Figures        Figures
	SHA256         []byte
	ClosedBy       ids.User
	ClosedAt       time.Time
	ReopenReason   string // somebody has asked to open it again
	ReopenAskedBy  ids.User
	ReopenedBy     ids.User
	ReopenedAt     *time.Time
	snapshot       string
	id             int64
}

// Figures are what is frozen. Their JSON, as written, is what the SHA-256 is of.
type Figures struct {
	Month    string         `json:"month"`
	Mint     string         `json:"mint"`
	Entries  int64          `json:"entries"`
	Debits   money.Amount   `json:"debits,string"`
	Credits  money.Amount   `json:"credits,string"` // equal to the debits
	Accounts []AccountTotal `json:"accounts"`
	Chain    []ChainTotal   `json:"chain"`
	SOL      []SOLTotal     `json:"sol,omitempty"`      // nil in months that were closed before there was a journal of it
	Holdings *HoldingTotals `json:"holdings,omitempty"` // nil in months that were closed before they were looked at
}

// AccountTotal is a ledger account's part of a month. Balances are in the account's own sense.
type AccountTotal struct {
	Kind    string       `json:"kind"`
	Org     string       `json:"org,omitempty"`
	Opening money.Amount `json:"opening,string"`
	Debits  money.Amount `json:"debits,string"`
	Credits money.Amount `json:"credits,string"`
	Closing money.Amount `json:"closing,string"`
}

// ChainTotal is what the reconciliation found on one token account, when it ran.
type ChainTotal struct {
	Name         string       `json:"name"`
	TokenAccount string       `json:"token_account"`
	Balance      money.Amount `json:"balance,string"`
	Transactions int64        `json:"transactions"`
	Slot         int64        `json:"slot"`
}

// Close closes a month.
func (s *Service) Close(ctx context.Context, month Month, by ids.User) (Closing, error) {
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		run, err := s.ready(ctx, tx, month)
		if err != nil {
			return err
		}
		snapshot, err := s.snapshot(ctx, tx, month, run)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(snapshot)
		_, err = tx.Exec(ctx, `
			INSERT INTO period_closings (month, mint, reconciliation_id, snapshot, sha256, closed_by) VALUES ($1, $2, $3, $4, $5, $6)`,
			month.Time, s.options.Currency.Mint, run, string(snapshot), sum[:], by)
		if err != nil {
			return fmt.Errorf("close %s: %w", month, err)
		}
		return audit.Record(ctx, tx, audit.Event{
			By: by, Action: "period.close", Subject: month.String(), Details: map[string]string{"sha256": fmt.Sprintf("%x", sum), "reconciliation": run.String()},
		})
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.ConstraintName == "period_closings_one_in_force" || pg.Code == "40001" || pg.Code == "23505") {
		return Closing{}, errs.New(errs.Conflict, "%s is closed already, or somebody else is closing it", month)
	}
	if err != nil {
		return Closing{}, err
	}
	return s.Closing(ctx, month)
}

// ready is the reconciliation that a month can be closed on.
func (s *Service) ready(ctx context.Context, tx pgx.Tx, month Month) (run ids.Reconciliation, err error) {
	var state, reason string
	var began, now time.Time
	var open, broken int
	err = tx.QueryRow(ctx, `
		SELECT r.id, r.state, r.reason, r.started_at, now(),
		       (SELECT count(*) FROM difference_items WHERE mint IN ($1, $2) AND state = 'open'),
		       (SELECT count(*) FROM reconciliation_accounts a WHERE a.reconciliation_id = r.id AND NOT a.continuous)
		       + (SELECT count(*) FROM reconciliation_wallets w WHERE w.reconciliation_id = r.id AND NOT w.continuous)
		FROM reconciliations r WHERE r.mint = $1 AND r.finished_at IS NOT NULL ORDER BY r.id DESC LIMIT 1`,
		s.options.Currency.Mint, soljournal.Currency.Mint).Scan(&run, &state, &reason, &began, &now, &open, &broken)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return run, errs.New(errs.Conflict, "nothing was reconciled yet: run a reconciliation first")
	case err != nil:
		return run, fmt.Errorf("read the newest reconciliation: %w", err)
	case now.Before(month.end().Add(settling)):
		return run, errs.New(errs.Conflict, "%s is not over: it can be closed from %s on", month, month.end().Add(settling).Format(time.RFC3339))
	case state == "failed":
		return run, errs.New(errs.Conflict, "the newest reconciliation failed (%s): run it again", reason)
	case state == "behind":
		return run, errs.New(errs.Conflict, "the newest reconciliation has not come to the present (%s): run it again", reason)
	case began.Before(month.end().Add(settling)):
		return run, errs.New(errs.Conflict, "the newest reconciliation is of before the end of %s: run another one", month)
	case broken > 0:
		return run, errs.New(errs.Conflict, "the history of %d accounts has gaps: find what is missing first", broken)
	case open > 0:
		return run, errs.New(errs.Conflict, "%d differences are open: resolve them first", open)
	}
	return run, nil
}

// snapshot is the figures of a month as JSON.
func (s *Service) snapshot(ctx context.Context, tx pgx.Tx, month Month, run ids.Reconciliation) ([]byte, error) {
	f, err := s.figures(ctx, tx, month)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `
		SELECT name, token_account, chain_closing, transactions, slot FROM reconciliation_accounts WHERE reconciliation_id = $1
		ORDER BY name <> 'treasury', name, token_account`, run)
	if err != nil {
		return nil, fmt.Errorf("read the chain's figures: %w", err)
	}
	if f.Chain, err = pgx.CollectRows(rows, pgx.RowToStructByPos[ChainTotal]); err != nil {
		return nil, fmt.Errorf("read the chain's figures: %w", err)
	}
	if f.Holdings, err = s.holdings(ctx, tx); err != nil {
		return nil, err
	}
	return json.Marshal(f)
}

// figures are what the ledger says of a month.
func (s *Service) figures(ctx context.Context, tx pgx.Tx, month Month) (Figures, error) {
	f := Figures{Month: month.String(), Mint: s.options.Currency.Mint}
	rows, err := tx.Query(ctx, `
		WITH sides AS (
			SELECT debit_account AS id, amount AS debit, 0::bigint AS credit, posted_at FROM ledger_transfers WHERE mint = $1 AND posted_at < $3
			UNION ALL
			SELECT credit_account, 0, amount, posted_at FROM ledger_transfers WHERE mint = $1 AND posted_at < $3
		), totals AS (
			SELECT id, sum(debit - credit) FILTER (WHERE posted_at < $2) AS before,
			       sum(debit) FILTER (WHERE posted_at >= $2) AS debits, sum(credit) FILTER (WHERE posted_at >= $2) AS credits
			FROM sides GROUP BY id
		)
		SELECT a.kind, coalesce(a.org_id::text, ''),
		       (CASE WHEN ledger_is_asset(a.kind) THEN 1 ELSE -1 END * coalesce(t.before, 0))::bigint,
		       coalesce(t.debits, 0)::bigint, coalesce(t.credits, 0)::bigint,
		       (CASE WHEN ledger_is_asset(a.kind) THEN 1 ELSE -1 END * (coalesce(t.before, 0) + coalesce(t.debits, 0) - coalesce(t.credits, 0)))::bigint
		FROM totals t JOIN ledger_accounts a ON a.id = t.id ORDER BY a.kind, a.org_id NULLS FIRST`,
		f.Mint, month.Time, month.end())
	if err != nil {
		return f, fmt.Errorf("add up %s: %w", month, err)
	}
	if f.Accounts, err = pgx.CollectRows(rows, pgx.RowToStructByPos[AccountTotal]); err != nil {
		return f, fmt.Errorf("add up %s: %w", month, err)
	}
	for _, a := range f.Accounts {
		f.Debits += a.Debits
		f.Credits += a.Credits
	}
	err = tx.QueryRow(ctx, `SELECT count(DISTINCT entry_id) FROM ledger_transfers WHERE mint = $1 AND posted_at >= $2 AND posted_at < $3`,
		f.Mint, month.Time, month.end()).Scan(&f.Entries)
	if err != nil {
		return f, fmt.Errorf("count the entries of %s: %w", month, err)
	}
	f.SOL, err = s.sol(ctx, tx, month)
	return f, err
}

// Reopen asks for a closed month to be opened again or, when somebody else has asked, agrees and opens it. It reports whether it is open.
func (s *Service) Reopen(ctx context.Context, month Month, by ids.User, reason string) (opened bool, err error) {
	if reason == "" {
		return false, errs.InvalidField("body.reason", "say why the month is to be opened again")
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var id int64
		var asked ids.User
		err := tx.QueryRow(ctx, `
			SELECT id, reopen_asked_by FROM period_closings WHERE mint = $1 AND month = $2 AND reopened_at IS NULL FOR UPDATE`,
			s.options.Currency.Mint, month.Time).Scan(&id, &asked)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return errs.New(errs.Conflict, "%s is not closed", month)
		case err != nil:
			return fmt.Errorf("read the closing of %s: %w", month, err)
		case asked == by && !s.options.SelfApproval:
			return errs.New(errs.Conflict, "you have asked for it: somebody else has to agree")
		}
		opened = !asked.IsZero()
		action, statement := "period.ask_reopen", `UPDATE period_closings SET reopen_asked_by = $2, reopen_asked_at = now(), reopen_reason = $3 WHERE id = $1`
		arguments := []any{id, by, reason}
		if opened {
			action, statement, arguments = "period.reopen", `UPDATE period_closings SET reopened_by = $2, reopened_at = now() WHERE id = $1`, arguments[:2]
		}
		if _, err := tx.Exec(ctx, statement, arguments...); err != nil {
			return fmt.Errorf("open %s: %w", month, err)
		}
		return audit.Record(ctx, tx, audit.Event{By: by, Action: action, Subject: month.String(), Details: map[string]string{"reason": reason}})
	})
	return opened, err
}

const closingColumns = `id, month, reconciliation_id, snapshot, sha256, closed_by, closed_at, reopen_reason, reopen_asked_by, reopened_by, reopened_at`

func scanClosing(row pgx.CollectableRow) (c Closing, err error) {
	err = row.Scan(&c.id, &c.Month.Time, &c.Reconciliation, &c.snapshot, &c.SHA256, &c.ClosedBy, &c.ClosedAt, &c.ReopenReason, &c.ReopenAskedBy,
		&c.ReopenedBy, &c.ReopenedAt)
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal([]byte(c.snapshot), &c.Figures)
}

// Closings are the months that were closed, newest first, those that were opened again among them.
func (s *Service) Closings(ctx context.Context) ([]Closing, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+closingColumns+` FROM period_closings WHERE mint = $1 ORDER BY month DESC, id DESC LIMIT $2`,
		s.options.Currency.Mint, MaxMonths)
	if err != nil {
		return nil, fmt.Errorf("list closed months: %w", err)
	}
	closings, err := pgx.CollectRows(rows, scanClosing)
	if err != nil {
		return nil, fmt.Errorf("list closed months: %w", err)
	}
	return closings, nil
}

// Closing is the closing of a month that is in force, or errs.NotFound.
func (s *Service) Closing(ctx context.Context, month Month) (Closing, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+closingColumns+` FROM period_closings WHERE mint = $1 AND month = $2 AND reopened_at IS NULL`,
		s.options.Currency.Mint, month.Time)
	if err != nil {
		return Closing{}, fmt.Errorf("read the closing of %s: %w", month, err)
	}
	closing, err := pgx.CollectExactlyOneRow(rows, scanClosing)
	if errors.Is(err, pgx.ErrNoRows) {
		return Closing{}, errs.New(errs.NotFound, "%s is not closed", month)
	}
	if err != nil {
		return Closing{}, fmt.Errorf("read the closing of %s: %w", month, err)
	}
	return closing, nil
}

// Check reports whether a closing's stored figures have the hash that was stored with them, and are still what the ledger and
// the SOL journal say of the month.
func (s *Service) Check(ctx context.Context, c Closing) (bool, error) {
	if sum := sha256.Sum256([]byte(c.snapshot)); !bytes.Equal(sum[:], c.SHA256) {
		return false, nil
	}
	var now Figures
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		now, err = s.figures(ctx, tx, c.Month)
		return err
	})
	if err != nil {
		return false, err
	}
	now.Chain, now.Holdings = c.Figures.Chain, c.Figures.Holdings // were of the moment
	// A wallet that became the treasury's later may have been used in the month; months closed before there was a journal have none.
	now.SOL = slices.DeleteFunc(now.SOL, func(t SOLTotal) bool {
		return !slices.ContainsFunc(c.Figures.SOL, func(frozen SOLTotal) bool { return frozen.Wallet == t.Wallet })
	})
	again, err := json.Marshal(now)
	if err != nil {
		return false, fmt.Errorf("write the figures of %s: %w", c.Month, err)
	}
	return string(again) == c.snapshot, nil
}
