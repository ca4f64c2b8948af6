package payouts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// MaxPage bounds a page of batches or payouts.
const MaxPage = 200

// Payable is what a draft would pay now.
type Payable struct {
	Total    money.Amount // of Payees
	Minimum  money.Amount
	Payees   []Payee
	LeftOut  []Payee       // with the reason
	Treasury *money.Amount // the treasury's balance on chain; nil while the signer or the chain does not answer
}

// Payee is an organisation with payable earnings, or with a withdrawal or refund that waits.
type Payee struct {
	Org     ids.Org
	Name    string
	Purpose string
	Address string // the wallet, empty if none is set
	Amount  money.Amount
	Reason  string // why it is left out
}

// Batch is the payouts of one transaction. Times that have not come are nil.
type Batch struct {
	ID           ids.Batch
	Run          ids.PayoutRun // zero: of before there were runs
	State        string
	StateReason  string // why it failed, froze or was cancelled
	Attention    string // what holds a live batch up
	Mint         string
	Total        money.Amount
	PayeeCount   int
	DraftedBy    ids.User // zero: the platform
	DraftedAt    time.Time
	ApprovedBy   ids.User
	ApprovedAt   *time.Time
	NonceAccount string
	NonceValue   string
	Signature    string // empty until signed
	SignedAt     *time.Time
	SentAt       *time.Time // first
	SendCount    int
	FinalizedAt  *time.Time
	Slot         *int64
	BlockTime    *time.Time
	FeeLamports  *int64
	ComputeUnits *int64
	RentLamports *int64 // for token accounts that it made
	Memo         string // what the transaction says of itself

	ApprovalsNeeded int        // by how many people
	NonceConsumedAt *time.Time // when its nonce was seen to be consumed: nothing more of it can land

	// In Batch's answer only.
	Approvals    []Approval
	Cancellation *Cancellation // nil: nobody has asked for one
	Resolution   *Resolution   // nil: nobody has proposed one
	Payouts      []Payout
}

// Approval is one person's.
type Approval struct {
	By ids.User
	At time.Time
}

// Cancellation consumes a batch's nonce so that the batch cannot land any more.
type Cancellation struct {
	AskedBy     ids.User
	AskedAt     time.Time
	Signature   string // empty until signed
	SentAt      *time.Time
	Slot        *int64 // once final
	FeeLamports *int64
}

// Resolution is how a frozen batch ended, as one person proposed and another confirmed.
type Resolution struct {
	Outcome     string
	Signature   string
	Note        string
	ProposedBy  ids.User
	ProposedAt  time.Time
	ConfirmedBy ids.User // zero: not confirmed yet
	ConfirmedAt *time.Time
}

// People are all whom a batch names.
func (b *Batch) People() []ids.User {
	people := []ids.User{b.DraftedBy, b.ApprovedBy}
	for _, a := range b.Approvals {
		people = append(people, a.By)
	}
	if b.Cancellation != nil {
		people = append(people, b.Cancellation.AskedBy)
	}
	if b.Resolution != nil {
		people = append(people, b.Resolution.ProposedBy, b.Resolution.ConfirmedBy)
	}
	return people
}

// Payout is one payee's part of a batch.
type Payout struct {
	ID            ids.Payout
	Batch         ids.Batch
	Org           ids.Org
	Name          string
	Wallet        string
	TokenAccount  string
	CreateAccount bool // the transaction makes the token account
	Amount        money.Amount
	Purpose       string
	Sequence      int64
	State         string // the batch's
	Signature     string
	FinalizedAt   *time.Time
}

// Page asks for what is older than an id, newest first. A zero Before starts at the newest; a zero Limit is MaxPage.
type Page[I comparable] struct {
	Before I
	Limit  int
}

func (p Page[I]) limit() int {
	if p.Limit <= 0 || p.Limit > MaxPage {
		return MaxPage
	}
	return p.Limit
}

// Payable shows what is payable and what is left out, with the obstacles that the last draft found.
func (s *Service) Payable(ctx context.Context) (Payable, error) {
	rows, err := s.pool.Query(ctx, `
		(SELECT o.id, o.name, w.purpose, w.wallet, w.amount,
		       CASE WHEN EXISTS (SELECT 1 FROM payouts p WHERE p.payee_org_id = o.id AND p.live) THEN 'an earlier payout has not ended'
		            ELSE w.attention END
		FROM withdrawals w JOIN organisations o ON o.id = w.org_id
		WHERE w.state = 'requested' AND w.mint = $2
		ORDER BY w.id LIMIT $4)
		UNION ALL
		(SELECT o.id, o.name, 'earnings', coalesce(o.payout_address, ''), a.balance,
		       CASE WHEN o.payout_address IS NULL THEN 'no payout address is set'
		            WHEN EXISTS (SELECT 1 FROM payouts p WHERE p.payee_org_id = o.id AND p.live) THEN 'an earlier payout has not ended'
		            WHEN a.balance < $3 THEN 'below the minimum'
		            ELSE coalesce(x.reason, '') END
		FROM ledger_accounts a JOIN organisations o ON o.id = a.org_id LEFT JOIN payout_obstacles x ON x.org_id = o.id
		WHERE a.kind = $1 AND a.mint = $2 AND a.balance > 0
		ORDER BY a.balance DESC, o.id LIMIT $4)`, ledger.OwnerPayable, s.ledger.Currency().Mint, s.options.Minimum, maxPayableShown)
	if err != nil {
		return Payable{}, fmt.Errorf("read payable: %w", err)
	}
	payees, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Payee])
	if err != nil {
		return Payable{}, fmt.Errorf("read payable: %w", err)
	}
	answer := Payable{Minimum: s.options.Minimum, Payees: []Payee{}, LeftOut: []Payee{}, Treasury: s.treasuryBalance(ctx)}
	first := map[ids.Org]bool{} // a run pays an organisation once, as drafting does
	for _, payee := range payees {
		if payee.Reason == "" && first[payee.Org] {
			payee.Reason = "another payout to it goes first"
		}
		if payee.Reason != "" {
			answer.LeftOut = append(answer.LeftOut, payee)
			continue
		}
		first[payee.Org] = true
		answer.Payees = append(answer.Payees, payee)
		answer.Total += payee.Amount
	}
	return answer, nil
}

func (s *Service) treasuryBalance(ctx context.Context) *money.Amount {
	keys, err := s.signer.Addresses(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "treasury balance is not known", "error", err)
		return nil
	}
	balance, err := s.chain.TokenBalance(ctx, keys.TreasuryTokenAccount, 0)
	if err != nil && !errors.Is(err, chain.ErrNotFound) {
		s.log.WarnContext(ctx, "treasury balance is not known", "error", err)
		return nil
	}
	amount := money.Amount(min(balance.Amount, 1<<62))
	return &amount
}

const selectBatch = `
	SELECT b.id, b.run_id, b.state, b.state_reason, b.attention, b.mint, b.total, b.payee_count, b.drafted_by, b.drafted_at, b.approved_by,
	       b.approved_at, b.nonce_account, b.nonce_value, coalesce(b.paid_by, t.signature, ''), t.signed_at, t.first_sent_at,
	       coalesce(t.send_count, 0), b.finalized_at, t.slot, t.block_time, t.fee_lamports, t.compute_units, t.rent_lamports,
	       coalesce(b.memo, ''), b.approvals_needed, b.nonce_changed_at
	FROM payout_batches b LEFT JOIN payout_transactions t ON t.batch_id = b.id`

// BatchFilter says which batches are wanted; what is zero says nothing.
type BatchFilter struct {
	Run   ids.PayoutRun
	State string
}

// Batches lists batches, newest first, without their payouts.
func (s *Service) Batches(ctx context.Context, filter BatchFilter, page Page[ids.Batch]) ([]Batch, error) {
	where := ` WHERE ($1::uuid IS NULL OR b.id < $1) AND ($3 = '' OR b.state = $3)`
	arguments := []any{page.Before, page.limit(), filter.State}
	if !filter.Run.IsZero() { // apart, so that the run's index serves
		where, arguments = where+` AND b.run_id = $4`, append(arguments, filter.Run)
	}
	rows, err := s.pool.Query(ctx, selectBatch+where+` ORDER BY b.id DESC LIMIT $2`, arguments...)
	if err != nil {
		return nil, fmt.Errorf("list batches: %w", err)
	}
	batches, err := pgx.CollectRows(rows, scanBatch)
	if err != nil {
		return nil, fmt.Errorf("list batches: %w", err)
	}
	return batches, nil
}

// Batch shows one batch with its payouts and all that people did to it.
func (s *Service) Batch(ctx context.Context, id ids.Batch) (Batch, error) {
	rows, err := s.pool.Query(ctx, selectBatch+` WHERE b.id = $1`, id)
	if err != nil {
		return Batch{}, fmt.Errorf("read batch: %w", err)
	}
	batch, err := pgx.CollectExactlyOneRow(rows, scanBatch)
	if errors.Is(err, pgx.ErrNoRows) {
		return Batch{}, errs.New(errs.NotFound, "there is no batch %s", id)
	}
	if err != nil {
		return Batch{}, fmt.Errorf("read batch: %w", err)
	}
	if err := s.addActs(ctx, &batch); err != nil {
		return Batch{}, err
	}
	batch.Payouts, err = s.payouts(ctx, `WHERE p.batch_id = $1 ORDER BY p.id`, id)
	return batch, err
}

// addActs adds who approved, cancelled and resolved a batch.
func (s *Service) addActs(ctx context.Context, batch *Batch) error {
	rows, err := s.pool.Query(ctx, `SELECT approver, approved_at FROM payout_approvals WHERE batch_id = $1 ORDER BY approved_at, approver`, batch.ID)
	if err != nil {
		return fmt.Errorf("read batch: %w", err)
	}
	if batch.Approvals, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Approval]); err != nil {
		return fmt.Errorf("read batch: %w", err)
	}
	rows, err = s.pool.Query(ctx, `
		SELECT b.cancel_asked_by, b.cancel_asked_at, coalesce(c.signature, ''), c.first_sent_at, c.slot, c.fee_lamports
		FROM payout_batches b LEFT JOIN payout_cancellations c ON c.batch_id = b.id WHERE b.id = $1 AND b.cancel_asked_at IS NOT NULL`, batch.ID)
	if err != nil {
		return fmt.Errorf("read batch: %w", err)
	}
	if batch.Cancellation, err = optionalRow[Cancellation](rows); err != nil {
		return err
	}
	rows, err = s.pool.Query(ctx, `
		SELECT outcome, signature, note, proposed_by, proposed_at, confirmed_by, confirmed_at FROM payout_resolutions WHERE batch_id = $1`, batch.ID)
	if err != nil {
		return fmt.Errorf("read batch: %w", err)
	}
	batch.Resolution, err = optionalRow[Resolution](rows)
	return err
}

// optionalRow is the one row that there is, or nil.
func optionalRow[T any](rows pgx.Rows) (*T, error) {
	row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByPos[T])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // there is none, and that is no error.
	}
	if err != nil {
		return nil, fmt.Errorf("read batch: %w", err)
	}
	return row, nil
}

// OwnerPayouts lists an organisation's payouts, newest first. Drafts are not shown: they are not decided.
func (s *Service) OwnerPayouts(ctx context.Context, org ids.Org, page Page[ids.Payout]) ([]Payout, error) {
	return s.payouts(ctx, `WHERE p.payee_org_id = $1 AND ($2::uuid IS NULL OR p.id < $2) AND b.state NOT IN ('draft', 'cancelled')
		ORDER BY p.id DESC LIMIT $3`, org, page.Before, page.limit())
}

func (s *Service) payouts(ctx context.Context, where string, arguments ...any) ([]Payout, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT p.id, p.batch_id, p.payee_org_id, o.name, p.wallet, p.token_account, p.creates_account, p.amount, p.purpose, p.sequence,
		       b.state, coalesce(b.paid_by, t.signature, ''), b.finalized_at
		FROM payouts p JOIN payout_batches b ON b.id = p.batch_id JOIN organisations o ON o.id = p.payee_org_id
		LEFT JOIN payout_transactions t ON t.batch_id = b.id `+where, arguments...)
	if err != nil {
		return nil, fmt.Errorf("list payouts: %w", err)
	}
	payouts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Payout])
	if err != nil {
		return nil, fmt.Errorf("list payouts: %w", err)
	}
	return payouts, nil
}

func scanBatch(row pgx.CollectableRow) (b Batch, err error) {
	err = row.Scan(&b.ID, &b.Run, &b.State, &b.StateReason, &b.Attention, &b.Mint, &b.Total, &b.PayeeCount, &b.DraftedBy, &b.DraftedAt,
		&b.ApprovedBy, &b.ApprovedAt, &b.NonceAccount, &b.NonceValue, &b.Signature, &b.SignedAt, &b.SentAt,
		&b.SendCount, &b.FinalizedAt, &b.Slot, &b.BlockTime, &b.FeeLamports, &b.ComputeUnits, &b.RentLamports, &b.Memo, &b.ApprovalsNeeded,
		&b.NonceConsumedAt)
	return b, err
}
