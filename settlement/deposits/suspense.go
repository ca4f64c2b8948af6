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
	OutcomeRefunded = "refunded" // suspense -> payout_in_flight, and with the next run to the wallet that sent it
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
	Org     ids.Org  `json:"org_id,omitzero"` // whom to credit, or in whose name to refund; zero: whose address it was sent to
	Note    string   `json:"note"`
	By      ids.User `json:"-"`
}

// Decide ends the wait of an arrival in suspense: its tokens are credited to a customer, kept as the platform's own, sent back to the
// wallet that they came from, or held further. The decision, what it moves in the ledger and the request to send it out are one
// transaction. Tokens of a foreign mint can only be held, and so can those in a token account that belongs to somebody else now. The same
// decision again changes nothing. Another one is errs.Conflict after tokens have moved; a refund that no batch has yet is taken back by it.
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
		if waiting.repeats(d) {
			return nil
		}
		if err := s.allow(waiting, d); err != nil {
			return err
		}
		if err := s.reopen(ctx, tx, waiting); err != nil {
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
	found, err := s.list(ctx, `$1::uuid IS NULL AND p.id = $4`, ids.Org{}, ids.Deposit{}, 1, id)
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
	sender     string // empty: not known
	outcome    string // of a decision before; empty: none
	creditedTo ids.Org
	refund     ids.Withdrawal
}

// repeats reports whether a decision is the one that was made already and has moved tokens.
func (w suspended) repeats(d Decision) bool {
	moved := w.outcome != "" && w.outcome != OutcomeHeld
	return moved && w.outcome == d.Outcome && (w.outcome != OutcomeCredited || w.creditedTo == d.Org)
}

// reopen undoes an earlier decision as far as that can be done.
func (s *Service) reopen(ctx context.Context, tx pgx.Tx, w suspended) error {
	switch w.outcome {
	case "", OutcomeHeld:
		return nil
	case OutcomeRefunded:
		if s.config.Refunds == nil {
			return errs.New(errs.Unavailable, "this process sends nothing out, and takes nothing back")
		}
		return s.config.Refunds.GiveUpRefund(ctx, tx, w.refund)
	default:
		return errs.New(errs.Conflict, "these tokens were %s already", w.outcome)
	}
}

func lockSuspense(ctx context.Context, tx pgx.Tx, id ids.Deposit) (w suspended, err error) {
	var disposition string
	err = tx.QueryRow(ctx, `
		SELECT p.disposition, p.org_id, p.mint, CASE WHEN p.amount <= 9223372036854775807 THEN p.amount::bigint ELSE 0 END, p.reason,
		       coalesce(p.sender, ''), coalesce(d.outcome, ''), d.org_id, d.refund_id
		FROM deposits p LEFT JOIN suspense_decisions d ON d.deposit_id = p.id WHERE p.id = $1 FOR UPDATE OF p`, id).
		Scan(&disposition, &w.org, &w.mint, &w.amount, &w.reason, &w.sender, &w.outcome, &w.creditedTo, &w.refund)
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
	case d.Outcome != OutcomeCredited && d.Outcome != OutcomeKept && d.Outcome != OutcomeRefunded:
		return errs.InvalidField("outcome", "decide on %s, %s, %s or %s", OutcomeCredited, OutcomeKept, OutcomeRefunded, OutcomeHeld)
	case w.mint != s.mint.String():
		return errs.InvalidField("outcome", "it is another token than %s, which no balance here can count and no payout can send: it can only be held", s.ledger.Currency().Symbol)
	case w.reason == reasonHandedOver:
		return errs.InvalidField("outcome", "%s: the tokens are not here to give, they can only be held", reasonHandedOver)
	case d.Outcome == OutcomeCredited && d.Org.IsZero():
		return errs.InvalidField("org_id", "it reached the treasury's wallet, which is nobody's: name whom to credit")
	case d.Outcome == OutcomeRefunded:
		return s.allowRefund(w, d)
	}
	return nil
}

func (s *Service) decide(ctx context.Context, tx pgx.Tx, id ids.Deposit, w suspended, d Decision) error {
	var refund ids.Withdrawal
	if d.Outcome == OutcomeRefunded {
		var err error
		if refund, err = s.refund(ctx, tx, id, w, d); err != nil {
			return err
		}
	}
	if err := storeDecision(ctx, tx, id, d, refund); err != nil {
		return err
	}
	entry := ledger.Entry{Key: "suspense:" + id.String(), Refs: ledger.Refs{Deposit: id}, Memo: d.Note}
	leg := ledger.Leg{Debit: ledger.Platform(ledger.Suspense), Amount: w.amount}
	switch d.Outcome {
	case OutcomeCredited:
		entry.Kind, leg.Credit = KindSuspenseCredited, ledger.Of(ledger.CustomerAvailable, d.Org)
	case OutcomeKept:
		entry.Kind, leg.Credit = KindSuspenseKept, ledger.Platform(ledger.PlatformCapital)
	default: // held moves nothing, and the request for a refund has moved its tokens
		return nil
	}
	entry.Legs = []ledger.Leg{leg}
	if _, err := s.ledger.Post(ctx, tx, entry); err != nil {
		return fmt.Errorf("move tokens out of suspense: %w", err)
	}
	return nil
}

func storeDecision(ctx context.Context, tx pgx.Tx, id ids.Deposit, d Decision, refund ids.Withdrawal) error {
	credited := d.Org
	if d.Outcome != OutcomeCredited {
		credited = ids.Org{}
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO suspense_decisions (deposit_id, outcome, org_id, note, decided_by, refund_id) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (deposit_id) DO UPDATE SET outcome = EXCLUDED.outcome, org_id = EXCLUDED.org_id, note = EXCLUDED.note,
			decided_by = EXCLUDED.decided_by, refund_id = EXCLUDED.refund_id, decided_at = now()`, id, d.Outcome, credited, d.Note, d.By, refund)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == foreignKeyViolation && pg.ConstraintName == "suspense_decisions_org_id_fkey" {
		return errs.New(errs.NotFound, "there is no organisation %s", d.Org)
	}
	if err != nil {
		return fmt.Errorf("store decision: %w", err)
	}
	return nil
}
