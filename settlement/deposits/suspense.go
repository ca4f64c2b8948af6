package deposits

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// What a person can decide about an arrival in suspense.
const (
	OutcomeCredited = "credited" // suspense -> customer_available
	OutcomeKept     = "kept"     // suspense -> platform_capital
	OutcomeHeld     = "held"     // nothing moves; the note says why, and another decision may follow
)

// The kinds of the ledger's entries.
const (
	KindSuspenseCredited = "suspense_credited"
	KindSuspenseKept     = "suspense_kept"
)

const (
	maxNote             = 500
	foreignKeyViolation = "23503"
)

// Decision is what becomes of an arrival in suspense, and who says so.
type Decision struct {
	Outcome string   `json:"outcome"`
	Org     ids.Org  `json:"org_id,omitzero"` // whom to credit; zero: whose address it was sent to
	Note    string   `json:"note"`
	By      ids.User `json:"-"`
}

// Decide ends the wait of an arrival in suspense: its tokens are credited to a customer, kept as the platform's own, or held further.
// The decision and what it moves in the ledger are one transaction. Tokens of a foreign mint can only be held, and so can those in a
// token account that belongs to somebody else now. The same decision again changes nothing; another one, after tokens have moved, is errs.Conflict.
func (s *Service) Decide(ctx context.Context, id ids.Deposit, d Decision) (Deposit, error) {
	if d.Note == "" || len(d.Note) > maxNote {
		return Deposit{}, errs.InvalidField("note", "say why, in at most %d characters", maxNote)
	}
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		waiting, err := lockSuspense(ctx, tx, id)
		if err != nil {
			return err
		}
		if d.Org.IsZero() && d.Outcome == OutcomeCredited {
			d.Org = waiting.org
		}
		if waiting.outcome != "" && waiting.outcome != OutcomeHeld {
			if waiting.outcome == d.Outcome && waiting.creditedTo == d.Org {
				return nil
			}
			return errs.New(errs.Conflict, "these tokens were %s already", waiting.outcome)
		}
		if err := s.allow(waiting, d); err != nil {
			return err
		}
		if err := s.decide(ctx, tx, id, waiting, d); err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Event{By: d.By, Action: "suspense." + d.Outcome, Subject: id.String(), Details: d})
	})
	if err != nil {
		return Deposit{}, err
	}
	found, err := s.list(ctx, `$1::uuid IS NULL AND id = $4`, ids.Org{}, ids.Deposit{}, 1, id)
	if err != nil || len(found) == 0 {
		return Deposit{}, err
	}
	return found[0], nil
}

// suspended is an arrival in suspense.
type suspended struct {
	org        ids.Org
	mint       string
	amount     money.Amount // 0: more than the ledger holds
	reason     string
	outcome    string // of a decision before; empty: none
	creditedTo ids.Org
}

func lockSuspense(ctx context.Context, tx pgx.Tx, id ids.Deposit) (w suspended, err error) {
	var disposition string
	err = tx.QueryRow(ctx, `
		SELECT p.disposition, p.org_id, p.mint, CASE WHEN p.amount <= 9223372036854775807 THEN p.amount::bigint ELSE 0 END, p.reason,
		       coalesce(d.outcome, ''), d.org_id
		FROM deposits p LEFT JOIN suspense_decisions d ON d.deposit_id = p.id WHERE p.id = $1 FOR UPDATE OF p`, id).
		Scan(&disposition, &w.org, &w.mint, &w.amount, &w.reason, &w.outcome, &w.creditedTo)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return w, errs.New(errs.NotFound, "there is no deposit %s", id)
	case err != nil:
		return w, fmt.Errorf("read deposit: %w", err)
	case disposition != "suspense":
		return w, errs.New(errs.Conflict, "the deposit is not in suspense: it was %s when it came", disposition)
	}
	return w, nil
}

// allow says what stands against a decision.
func (s *Service) allow(w suspended, d Decision) error {
	switch {
	case d.Outcome == OutcomeHeld:
		return nil
	case d.Outcome != OutcomeCredited && d.Outcome != OutcomeKept:
		return errs.InvalidField("outcome", "decide on %s, %s or %s", OutcomeCredited, OutcomeKept, OutcomeHeld)
	case w.mint != s.mint.String():
		return errs.InvalidField("outcome", "it is another token than %s, which no balance here can count: it can only be held", s.ledger.Currency().Symbol)
	case w.reason == reasonHandedOver:
		return errs.InvalidField("outcome", "%s: the tokens are not here to give, they can only be held", reasonHandedOver)
	case d.Outcome == OutcomeCredited && d.Org.IsZero():
		return errs.InvalidField("org_id", "it reached the treasury's wallet, which is nobody's: name whom to credit")
	}
	return nil
}

func (s *Service) decide(ctx context.Context, tx pgx.Tx, id ids.Deposit, w suspended, d Decision) error {
	credited := d.Org
	if d.Outcome != OutcomeCredited {
		credited = ids.Org{}
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO suspense_decisions (deposit_id, outcome, org_id, note, decided_by) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (deposit_id) DO UPDATE SET outcome = EXCLUDED.outcome, org_id = EXCLUDED.org_id, note = EXCLUDED.note,
			decided_by = EXCLUDED.decided_by, decided_at = now()`, id, d.Outcome, credited, d.Note, d.By)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == foreignKeyViolation && pg.ConstraintName == "suspense_decisions_org_id_fkey" {
		return errs.New(errs.NotFound, "there is no organisation %s", d.Org)
	}
	if err != nil {
		return fmt.Errorf("store decision: %w", err)
	}
	entry := ledger.Entry{Key: "suspense:" + id.String(), Refs: ledger.Refs{Deposit: id}, Memo: d.Note}
	leg := ledger.Leg{Debit: ledger.Platform(ledger.Suspense), Amount: w.amount}
	switch d.Outcome {
	case OutcomeCredited:
		entry.Kind, leg.Credit = KindSuspenseCredited, ledger.Of(ledger.CustomerAvailable, d.Org)
	case OutcomeKept:
		entry.Kind, leg.Credit = KindSuspenseKept, ledger.Platform(ledger.PlatformCapital)
	default:
		return nil
	}
	entry.Legs = []ledger.Leg{leg}
	if _, err := s.ledger.Post(ctx, tx, entry); err != nil {
		return fmt.Errorf("move tokens out of suspense: %w", err)
	}
	return nil
}
