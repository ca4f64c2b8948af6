package soljournal

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// notes are what we have noted of our own transactions: whose they are, and what they cost once they were final.
const notes = `notes (kind, id, signature, slot, at, spent) AS (
	SELECT 'batch', batch_id, signature, slot, block_time, fee_lamports + coalesce(rent_lamports, 0) FROM payout_transactions
	UNION ALL
	SELECT 'cancellation', batch_id, signature, slot, block_time, fee_lamports FROM payout_cancellations WHERE signature IS NOT NULL
	UNION ALL
	SELECT 'sweep', id, signature, slot, block_time, fee_lamports FROM deposit_sweeps WHERE signature IS NOT NULL)`

// compare finds where the journal and our notes are not the same, as far as a slot.
func (s *Service) compare(ctx context.Context, end chain.Slot) ([]Difference, error) {
	rows, err := s.pool.Query(ctx, `
		WITH `+notes+`
		SELECT 'chain_only', '', NULL::uuid, t.signature, t.at, NULL::bigint, t.after - t.before
		FROM sol_transactions t
		WHERE t.wallet = $1 AND EXISTS (SELECT 1 FROM sol_lines l WHERE l.wallet = t.wallet AND l.seq = t.seq AND l.kind = 'base_fee')
			AND NOT EXISTS (SELECT 1 FROM notes n WHERE n.signature = t.signature)
			AND NOT EXISTS (SELECT 1 FROM payout_batches b WHERE b.voided_by = t.signature) -- resolved by a person, with this as evidence
			AND NOT EXISTS (SELECT 1 FROM payout_batches b WHERE b.paid_by = t.signature)
		UNION ALL
		SELECT 'ledger_only', n.kind, n.id, n.signature, n.at, -n.spent, NULL
		FROM notes n WHERE n.spent IS NOT NULL AND n.slot <= $2
			AND NOT EXISTS (SELECT 1 FROM sol_transactions t WHERE t.wallet = $1 AND t.signature = n.signature)
		UNION ALL
		SELECT 'amount_mismatch', n.kind, n.id, n.signature, n.at, -n.spent, t.after - t.before
		FROM notes n JOIN sol_transactions t ON t.wallet = $1 AND t.signature = n.signature
		WHERE n.spent IS NOT NULL AND n.spent <> t.before - t.after
		ORDER BY 4 LIMIT $3`, s.wallet.String(), int64(end), MaxDifferences)
	if err != nil {
		return nil, fmt.Errorf("compare the SOL journal: %w", err)
	}
	var differences []Difference
	var kind string
	var id *uuid.UUID
	var at *time.Time
	var d Difference
	_, err = pgx.ForEachRow(rows, []any{&d.Class, &kind, &id, &d.Signature, &at, &d.Noted, &d.Chain}, func() error {
		found := d
		if at != nil {
			found.At = *at
		}
		found.Text = explain(d.Class, subjectOf(kind, id), d.Noted, d.Chain)
		differences = append(differences, found)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("compare the SOL journal: %w", err)
	}
	return differences, nil
}

// subjectOf names what a transaction of ours was for.
func subjectOf(kind string, id *uuid.UUID) string {
	switch {
	case id == nil:
		return ""
	case kind == "sweep":
		return "the sweep " + ids.Sweep(*id).String()
	case kind == "cancellation":
		return "the cancellation of the batch " + ids.Batch(*id).String()
	default:
		return "the batch " + ids.Batch(*id).String()
	}
}

func explain(class, subject string, noted, chain *money.Amount) string {
	switch class {
	case chainOnly:
		return fmt.Sprintf("the treasury's wallet paid for a transaction that is none of ours, which changed its SOL by %s: find out who signed it",
			Currency.Text(*chain))
	case noteOnly:
		return fmt.Sprintf("%s is noted with %s, and the wallet's history has no such transaction", subject, Currency.Text(-*noted))
	default:
		return fmt.Sprintf("%s is noted with %s, and the chain took %s", subject, Currency.Text(-*noted), Currency.Text(-*chain))
	}
}
