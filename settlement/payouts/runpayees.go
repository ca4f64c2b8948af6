package payouts

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// What RunPayees finds beside the payees of batches in one state.
const (
	PayeesLeftOut = "left_out" // without a batch
	PayeesDrafted = "drafted"  // in a batch, whatever became of it
)

// RunPayee is what became of a payee in a run.
type RunPayee struct {
	Org          ids.Org
	Name         string
	Purpose      string
	Amount       money.Amount
	Batch        ids.Batch // zero: left out
	Reason       string    // why it was left out
	State        string    // the batch's, or left_out
	Wallet       string    // empty: left out
	TokenAccount string
	Signature    string // empty until signed
	id           [16]byte
}

// Place is where a payee stands among those of its run.
func (p *RunPayee) Place() RunPlace { return RunPlace{Amount: p.Amount, ID: p.id, Purpose: p.Purpose} }

// RunPlace orders a run's payees: the largest amount first.
type RunPlace struct {
	Amount  money.Amount
	ID      [16]byte // a payout's or, of those left out, the organisation's
	Purpose string
}

// RunPayeeFilter says which payees of a run are wanted; what is zero says nothing.
type RunPayeeFilter struct {
	State string   // a batch's, left_out or drafted
	Text  string   // part of a name, or the beginning of a wallet, token account or signature
	After RunPlace // the last one of the page before
	Limit int      // zero: MaxPage
}

const selectRunPayees = `
	SELECT r.org_id, o.name, r.purpose, r.amount, r.batch_id, r.reason, r.state, r.wallet, r.token_account, r.signature, r.id
	FROM (
		SELECT org_id, purpose, amount, NULL::uuid AS batch_id, reason, 'left_out' AS state, '' AS wallet, '' AS token_account, '' AS signature, org_id AS id
		FROM payout_run_payees WHERE run_id = $1 AND batch_id IS NULL
		UNION ALL
		SELECT p.payee_org_id, p.purpose, p.amount, p.batch_id, '', b.state, p.wallet, p.token_account, coalesce(b.paid_by, t.signature, ''), p.id
		FROM payout_batches b JOIN payouts p ON p.batch_id = b.id LEFT JOIN payout_transactions t ON t.batch_id = b.id WHERE b.run_id = $1
	) r JOIN organisations o ON o.id = r.org_id`

// RunPayees is a page of a run's payees, the largest amounts first.
func (s *Service) RunPayees(ctx context.Context, run ids.PayoutRun, f RunPayeeFilter) ([]RunPayee, error) {
	rows, err := s.pool.Query(ctx, selectRunPayees+`
		WHERE ($2 = '' OR r.state = $2 OR ($2 = 'drafted' AND r.batch_id IS NOT NULL))
		  AND ($3 = '' OR strpos(lower(o.name), lower($3)) > 0 OR starts_with(r.wallet, $3) OR starts_with(r.token_account, $3) OR starts_with(r.signature, $3))
		  AND ($4 = 0 OR (r.amount, r.id, r.purpose) < ($4, $5::uuid, $6))
		ORDER BY r.amount DESC, r.id DESC, r.purpose DESC LIMIT $7`,
		run, f.State, f.Text, f.After.Amount, f.After.ID, f.After.Purpose, Page[ids.PayoutRun]{Limit: f.Limit}.limit())
	if err != nil {
		return nil, fmt.Errorf("list a run's payees: %w", err)
	}
	payees, err := pgx.CollectRows(rows, scanRunPayee)
	if err != nil {
		return nil, fmt.Errorf("list a run's payees: %w", err)
	}
	return payees, nil
}

func scanRunPayee(row pgx.CollectableRow) (p RunPayee, err error) {
	err = row.Scan(&p.Org, &p.Name, &p.Purpose, &p.Amount, &p.Batch, &p.Reason, &p.State, &p.Wallet, &p.TokenAccount, &p.Signature, &p.id)
	return p, err
}
