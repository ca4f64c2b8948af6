package soljournal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// notes are what we have noted of our own transactions that are final, later than slot $3: whose they are, and what they cost.
const notes = `notes (kind, id, signature, slot, at, spent, wire) AS NOT MATERIALIZED (
	SELECT 'batch', batch_id, signature, slot, block_time, fee_lamports + coalesce(rent_lamports, 0), wire
	FROM payout_transactions WHERE slot > $3 AND fee_lamports IS NOT NULL
	UNION ALL
	SELECT 'cancellation', batch_id, signature, slot, block_time, fee_lamports, wire
	FROM payout_cancellations WHERE slot > $3 AND fee_lamports IS NOT NULL AND signature IS NOT NULL
	UNION ALL
	SELECT 'sweep', id, signature, slot, block_time, fee_lamports, wire
	FROM deposit_sweeps WHERE slot > $3 AND fee_lamports IS NOT NULL AND signature IS NOT NULL)`

// comparison is where the journal and our notes are not the same.
type comparison struct {
	differences []Difference
	more        bool      // than are listed
	since       time.Time // what happened by then was not looked at; zero: all was
}

// place is one in the journal, behind which it is compared.
type place struct {
	seq, slot int64
	at        time.Time
}

// compare finds where the journal and our notes are not the same, as far as a slot: fully all of it, else what is not older than comparedFor.
func (s *Service) compare(ctx context.Context, end chain.Slot, fully bool) (found comparison, err error) {
	after := place{slot: -1}
	if !fully {
		if after, err = s.settled(ctx); err != nil {
			return found, err
		}
	}
	found.since = after.at
	rows, err := s.pool.Query(ctx, `
		WITH `+notes+`
		SELECT 'chain_only', '', NULL::uuid, t.signature, t.at, NULL::bigint, t.after - t.before, NULL::bytea
		FROM sol_transactions t
		WHERE t.wallet = $1 AND t.seq > $4 AND EXISTS (SELECT 1 FROM sol_lines l WHERE l.wallet = t.wallet AND l.seq = t.seq AND l.kind = 'base_fee')
			AND NOT EXISTS (SELECT 1 FROM payout_transactions p WHERE p.signature = t.signature)
			AND NOT EXISTS (SELECT 1 FROM payout_cancellations c WHERE c.signature = t.signature)
			AND NOT EXISTS (SELECT 1 FROM deposit_sweeps d WHERE d.signature = t.signature)
			AND NOT EXISTS (SELECT 1 FROM payout_batches b WHERE b.voided_by = t.signature) -- resolved by a person, with this as evidence
			AND NOT EXISTS (SELECT 1 FROM payout_batches b WHERE b.paid_by = t.signature)
		UNION ALL
		SELECT 'ledger_only', n.kind, n.id, n.signature, n.at, -n.spent, NULL, n.wire
		FROM notes n WHERE n.slot <= $2
			AND NOT EXISTS (SELECT 1 FROM sol_transactions t WHERE t.signature = n.signature) -- of any wallet: the treasury may have had another
		UNION ALL
		SELECT 'amount_mismatch', n.kind, n.id, n.signature, n.at, -n.spent, t.after - t.before, NULL
		FROM notes n JOIN sol_transactions t ON t.wallet = $1 AND t.signature = n.signature
		WHERE n.spent <> t.before - t.after
		ORDER BY 4 LIMIT $5`, s.wallet.String(), int64(end), after.slot, after.seq, MaxDifferences+1)
	if err != nil {
		return found, fmt.Errorf("compare the SOL journal: %w", err)
	}
	var kind string
	var id *uuid.UUID
	var at *time.Time
	var wire []byte
	var d Difference
	count := 0
	_, err = pgx.ForEachRow(rows, []any{&d.Class, &kind, &id, &d.Signature, &at, &d.Noted, &d.Chain, &wire}, func() error {
		if count++; count > MaxDifferences {
			found.more = true
			return nil
		}
		if d.Class == noteOnly && s.paidByAnother(wire) {
			return nil
		}
		one := d
		if at != nil {
			one.At = *at
		}
		one.Text = explain(d.Class, subjectOf(kind, id), d.Noted, d.Chain)
		found.differences = append(found.differences, one)
		return nil
	})
	if err != nil {
		return found, fmt.Errorf("compare the SOL journal: %w", err)
	}
	return found, nil
}

// settled is the newest place in the journal that is older than comparedFor.
func (s *Service) settled(ctx context.Context) (place, error) {
	var p place
	err := s.pool.QueryRow(ctx, `
		SELECT seq, slot, at FROM sol_transactions WHERE wallet = $1 AND at < now() - $2::interval ORDER BY at DESC, seq DESC LIMIT 1`,
		s.wallet.String(), comparedFor).Scan(&p.seq, &p.slot, &p.at)
	if errors.Is(err, pgx.ErrNoRows) {
		return place{slot: -1}, nil
	}
	if err != nil {
		return place{}, fmt.Errorf("compare the SOL journal: %w", err)
	}
	return p, nil
}

// paidByAnother reports whether another wallet than this one paid for a transaction of ours: a treasury from before.
func (s *Service) paidByAnother(wire []byte) bool {
	transaction, err := solana.TransactionFromBytes(wire)
	return err == nil && len(transaction.Message.AccountKeys) > 0 && transaction.Message.AccountKeys[0] != s.wallet
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
