package payouts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/signer"
)

// The kinds of ledger entry of withdrawals.
const (
	KindWithdrawal       = "withdrawal"        // customer_available or suspense -> payout_in_flight, with the request
	KindWithdrawalReturn = "withdrawal_return" // payout_in_flight -> where it came from, with its cancellation
)

// The states of withdrawals.
const (
	withdrawalRequested = "requested"
	withdrawalPaid      = "paid"
	withdrawalCancelled = "cancelled"
)

const maxReference = 200

// Withdrawal is money on its way out that is no owner's earnings. Times that have not come are nil.
type Withdrawal struct {
	ID          ids.Withdrawal
	Purpose     string
	State       string
	Attention   string // why it is not paid yet
	Amount      money.Amount
	Wallet      string
	RequestedBy ids.User
	RequestedAt time.Time
	EndedAt     *time.Time
	Batch       ids.Batch // the newest that it is in; zero: none
	Signature   string    // empty until that is signed
}

// Request is what is to be sent out, of which account, to whom.
type Request struct {
	Org       ids.Org        // whose payout it is; the signer numbers payouts by it
	Purpose   string         // PurposeWithdrawal or PurposeRefund
	From      ledger.Account // the money is in flight from here at once
	Amount    money.Amount
	Wallet    string      // not a token account
	Reference string      // a refund's: what is refunded; each is refunded once
	Refs      ledger.Refs // for the ledger's entry
	By        ids.User    // zero: the platform
}

func (r Request) validate() error {
	switch {
	case r.Org.IsZero():
		return errs.New(errs.Invalid, "a withdrawal needs an organisation")
	case r.Purpose != PurposeWithdrawal && r.Purpose != PurposeRefund:
		return errs.New(errs.Invalid, "%q is neither a withdrawal nor a refund", r.Purpose)
	case r.Amount <= 0:
		return errs.InvalidField("amount", "the amount must be above zero")
	case (r.Purpose == PurposeRefund) == (r.Reference == "") || len(r.Reference) > maxReference:
		return errs.New(errs.Invalid, "a refund, and only a refund, says in at most %d characters what it refunds", maxReference)
	}
	_, err := chain.ParseAddress(r.Wallet)
	if err != nil {
		return errs.InvalidField("address", "%s", err.Error())
	}
	return nil
}

// Request puts money in flight and has it sent out with the next run, in the caller's transaction. Too little in the account is
// errs.InsufficientFunds; a second withdrawal of an organisation, or a second refund of the same, is errs.Conflict, which ends the transaction.
func (s *Service) Request(ctx context.Context, tx pgx.Tx, r Request) (ids.Withdrawal, error) {
	if err := r.validate(); err != nil {
		return ids.Withdrawal{}, err
	}
	id := ids.New[ids.Withdrawal]()
	_, err := tx.Exec(ctx, `
		INSERT INTO withdrawals (id, org_id, purpose, mint, amount, wallet, taken_from, taken_org_id, reference, requested_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		id, r.Org, r.Purpose, s.ledger.Currency().Mint, r.Amount, r.Wallet, r.From.Kind, r.From.Org, r.Reference, r.By)
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.ConstraintName == "withdrawals_one_open_per_org":
		return ids.Withdrawal{}, errs.New(errs.Conflict, "a withdrawal is under way: wait until it is paid, or cancel it")
	case errors.As(err, &pg) && pg.ConstraintName == "withdrawals_one_per_refund":
		return ids.Withdrawal{}, errs.New(errs.Conflict, "this is being refunded already, or was")
	case err != nil:
		return ids.Withdrawal{}, fmt.Errorf("request a %s: %w", r.Purpose, err)
	}
	_, err = s.ledger.Post(ctx, tx, ledger.Entry{
		Key: "withdrawal:" + id.String(), Kind: KindWithdrawal, Refs: r.Refs, Memo: fmt.Sprintf("Set aside for %s %s", r.Purpose, id),
		Legs: []ledger.Leg{{Debit: r.From, Credit: ledger.Of(ledger.PayoutInFlight, r.Org), Amount: r.Amount}},
	})
	return id, err
}

// Minimum is the least that is paid out.
func (s *Service) Minimum() money.Amount { return s.options.Minimum }

// Withdraw sends prepaid balance to an organisation's own payout address, which the caller repeats: no other is possible.
func (s *Service) Withdraw(ctx context.Context, org ids.Org, by ids.User, amount money.Amount, address string) (ids.Withdrawal, error) {
	if amount < s.options.Minimum {
		return ids.Withdrawal{}, errs.InvalidField("amount", "the least that is sent out is %s", s.ledger.Currency().Format(s.options.Minimum))
	}
	keys, err := s.signer.Addresses(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "cannot withdraw", "error", err)
		return ids.Withdrawal{}, errs.New(errs.Unavailable, "the signer does not answer; try again")
	}
	if limit := batchLimit(keys); amount > limit {
		return ids.Withdrawal{}, errs.InvalidField("amount", "the most that is sent out at once is %s: withdraw in parts", s.ledger.Currency().Format(limit))
	}
	var id ids.Withdrawal
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var own *string
		if err := tx.QueryRow(ctx, `SELECT payout_address FROM organisations WHERE id = $1 FOR SHARE`, org).Scan(&own); err != nil {
			return fmt.Errorf("read the payout address: %w", err)
		}
		switch {
		case own == nil:
			return errs.New(errs.Conflict, "the organisation has no payout address: set it first")
		case *own != address:
			return errs.InvalidField("address", "this is not the organisation's payout address, and no other is possible")
		}
		var err error
		id, err = s.Request(ctx, tx, Request{
			Org: org, Purpose: PurposeWithdrawal, From: ledger.Of(ledger.CustomerAvailable, org), Amount: amount, Wallet: address, By: by,
		})
		return err
	})
	return id, err
}

// CancelWithdrawal gives up a withdrawal that no batch has; its money is available again.
func (s *Service) CancelWithdrawal(ctx context.Context, org ids.Org, id ids.Withdrawal) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return s.giveUp(ctx, tx, id, PurposeWithdrawal, org) })
}

// GiveUpRefund takes back a refund that no batch has, in the caller's transaction; its money is where it was taken from. One that is
// on its way, or was paid, is errs.Conflict.
func (s *Service) GiveUpRefund(ctx context.Context, tx pgx.Tx, id ids.Withdrawal) error {
	return s.giveUp(ctx, tx, id, PurposeRefund, ids.Org{})
}

// giveUp cancels what no batch has, of the organisation if one is given.
func (s *Service) giveUp(ctx context.Context, tx pgx.Tx, id ids.Withdrawal, purpose string, org ids.Org) error {
	var state string
	var amount money.Amount
	var from ledger.Account
	err := tx.QueryRow(ctx, `
		SELECT state, org_id, amount, taken_from, taken_org_id FROM withdrawals
		WHERE id = $1 AND purpose = $2 AND ($3::uuid IS NULL OR org_id = $3) FOR UPDATE`, id, purpose, org).
		Scan(&state, &org, &amount, &from.Kind, &from.Org)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errs.New(errs.NotFound, "there is no %s %s", purpose, id)
	case err != nil:
		return fmt.Errorf("cancel %s: %w", purpose, err)
	case state != withdrawalRequested:
		return errs.New(errs.Conflict, "the %s is %s: it can no longer be cancelled", purpose, state)
	}
	if _, err := tx.Exec(ctx, `UPDATE withdrawals SET state = $2, attention = '', ended_at = now() WHERE id = $1`, id, withdrawalCancelled); err != nil {
		return fmt.Errorf("cancel %s: %w", purpose, err)
	}
	_, err = s.ledger.Post(ctx, tx, ledger.Entry{
		Key: "withdrawal_return:" + id.String(), Kind: KindWithdrawalReturn, Memo: fmt.Sprintf("The %s %s was given up", purpose, id),
		Legs: []ledger.Leg{{Debit: ledger.Of(ledger.PayoutInFlight, org), Credit: from, Amount: amount}},
	})
	return err
}

const selectWithdrawal = `
	SELECT w.id, w.purpose, w.state, w.attention, w.amount, w.wallet, w.requested_by, w.requested_at, w.ended_at, p.batch_id, coalesce(p.signature, '')
	FROM withdrawals w LEFT JOIN LATERAL (
		SELECT p.batch_id, coalesce(b.paid_by, t.signature) AS signature
		FROM payouts p JOIN payout_batches b ON b.id = p.batch_id LEFT JOIN payout_transactions t ON t.batch_id = b.id
		WHERE p.withdrawal_id = w.id ORDER BY p.id DESC LIMIT 1) p ON true`

// Withdrawals lists an organisation's withdrawals and refunds, newest first.
func (s *Service) Withdrawals(ctx context.Context, org ids.Org, page Page[ids.Withdrawal]) ([]Withdrawal, error) {
	rows, err := s.pool.Query(ctx, selectWithdrawal+` WHERE w.org_id = $1 AND ($2::uuid IS NULL OR w.id < $2) ORDER BY w.id DESC LIMIT $3`,
		org, page.Before, page.limit())
	if err != nil {
		return nil, fmt.Errorf("list withdrawals: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Withdrawal])
	if err != nil {
		return nil, fmt.Errorf("list withdrawals: %w", err)
	}
	return list, nil
}

// Withdrawal shows one of an organisation's withdrawals.
func (s *Service) Withdrawal(ctx context.Context, org ids.Org, id ids.Withdrawal) (Withdrawal, error) {
	rows, err := s.pool.Query(ctx, selectWithdrawal+` WHERE w.org_id = $1 AND w.id = $2`, org, id)
	if err != nil {
		return Withdrawal{}, fmt.Errorf("read withdrawal: %w", err)
	}
	w, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Withdrawal])
	if errors.Is(err, pgx.ErrNoRows) {
		return Withdrawal{}, errs.New(errs.NotFound, "there is no withdrawal %s", id)
	}
	if err != nil {
		return Withdrawal{}, fmt.Errorf("read withdrawal: %w", err)
	}
	return w, nil
}

// tooLarge is an obstacle of a candidate that cannot be paid in parts.
func (c *candidate) tooLarge(keys signer.Addresses) bool {
	return c.purpose != PurposeEarnings && c.amount > batchLimit(keys)
}
