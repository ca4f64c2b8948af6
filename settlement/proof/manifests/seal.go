package manifests

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/proof"
)

const sealLock = 7_283_013 // advisory lock that serialises the numbering of manifests

// The adjustments that are made here, not in the ledger.
const (
	carriedIn  = "Left over from an earlier payout"
	carriedOut = "Left for the next payout"
)

// stretch is the part of an earnings account that a payout pays.
type stretch struct {
	payout  proof.Payout
	payee   ids.Org
	account *uuid.UUID // nil: this payout is not of earnings
	after   int64      // the stretch begins behind this place
	through int64      // and ends at this one
	brought money.Amount
	sum     money.Amount // of what was posted in it
}

// rest is what the stretch holds beyond the payout.
func (s *stretch) rest() money.Amount { return s.brought + s.sum - s.payout.Amount }

// Seal makes the manifest of a batch whose payouts and reserve entry are stored, and returns the memo for its transaction.
func (s *Service) Seal(ctx context.Context, tx pgx.Tx, batch ids.Batch) (memo string, err error) {
	manifest, stretches, err := s.compose(ctx, tx, batch)
	if err != nil {
		return "", fmt.Errorf("seal manifest of %s: %w", batch, err)
	}
	root, err := manifest.Root()
	if err != nil {
		return "", err
	}
	document, err := manifest.Document()
	if err != nil {
		return "", err
	}
	if len(document) > proof.MaxDocument {
		return "", fmt.Errorf("seal manifest of %s: %d bytes, at most %d are possible", batch, len(document), proof.MaxDocument)
	}
	if err := store(ctx, tx, manifest, root, document, stretches); err != nil {
		return "", fmt.Errorf("store manifest of %s: %w", batch, err)
	}
	return proof.Memo(batch, root), nil
}

func (s *Service) compose(ctx context.Context, tx pgx.Tx, batch ids.Batch) (*proof.Manifest, []*stretch, error) {
	manifest := &proof.Manifest{Head: proof.Head{
		Version: proof.Version, Network: s.config.Network, Mint: s.config.Mint, Treasury: s.config.Treasury, Batch: batch, Sequence: 1,
	}}
	stretches, err := s.stretches(ctx, tx, batch)
	if err != nil {
		return nil, nil, err
	}
	if err := addRecords(ctx, tx, stretches); err != nil {
		return nil, nil, err
	}
	if err := addAdjustments(ctx, tx, stretches); err != nil {
		return nil, nil, err
	}
	for _, one := range stretches {
		if err := proof.CheckSum(&one.payout); err != nil {
			return nil, nil, err
		}
		manifest.Payouts = append(manifest.Payouts, one.payout)
	}
	return manifest, stretches, number(ctx, tx, &manifest.Head)
}

// number gives a manifest its place in the chain. The lock comes last, so that drafts wait for each other's commits alone.
func number(ctx context.Context, tx pgx.Tx, head *proof.Head) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, sealLock); err != nil {
		return err
	}
	var last []byte
	err := tx.QueryRow(ctx, `SELECT sequence + 1, root FROM manifests ORDER BY sequence DESC LIMIT 1`).Scan(&head.Sequence, &last)
	switch {
	case err == nil:
		head.Previous = proof.Root(last).String()
	case !errors.Is(err, pgx.ErrNoRows):
		return err
	}
	return nil
}

// stretches finds what each payout of a batch pays. A payee's history begins behind its last payout that paid or still may: that of the
// last manifest, or the one before there were manifests, which left the balance that its reserve entry records.
func (s *Service) stretches(ctx context.Context, tx pgx.Tx, batch ids.Batch) ([]*stretch, error) {
	rows, err := tx.Query(ctx, `
		WITH paid AS (
			SELECT p.id, p.payee_org_id, p.wallet, p.token_account, p.amount, p.purpose, a.id AS account
			FROM payouts p
			LEFT JOIN ledger_accounts a ON a.kind = $2 AND a.org_id = p.payee_org_id AND a.mint = $3 AND p.purpose = 'earnings'
			WHERE p.batch_id = $1
		), begun AS (
			SELECT paid.*, coalesce(sealed.through_seq, older.debit_seq, 0) AS after, coalesce(sealed.carried, older.debit_balance, 0) AS brought
			FROM paid
			LEFT JOIN LATERAL (
				SELECT m.through_seq, m.carried FROM manifest_payouts m JOIN payouts p ON p.id = m.payout_id JOIN payout_batches b ON b.id = p.batch_id
				WHERE m.payee_org_id = paid.payee_org_id AND m.through_seq > 0 AND (p.live OR b.state = 'finalized')
				ORDER BY m.through_seq DESC LIMIT 1
			) sealed ON true
			LEFT JOIN LATERAL (
				SELECT t.debit_seq, t.debit_balance
				FROM payouts p JOIN payout_batches b ON b.id = p.batch_id JOIN ledger_entries e ON e.batch_id = b.id AND e.kind = $4
				JOIN ledger_transfers t ON t.entry_id = e.id AND t.debit_account = paid.account
				WHERE p.payee_org_id = paid.payee_org_id AND p.purpose = 'earnings' AND p.batch_id <> $1 AND (p.live OR b.state = 'finalized')
				  AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.batch_id = b.id)
				ORDER BY t.debit_seq DESC LIMIT 1
			) older ON sealed.through_seq IS NULL
		)
		SELECT begun.id, begun.purpose, begun.wallet, begun.token_account, begun.amount, begun.payee_org_id, begun.account, begun.after, begun.brought,
		       coalesce(reach.through, begun.after), coalesce(reach.sum, 0)
		FROM begun
		LEFT JOIN LATERAL (
			SELECT coalesce(max(r.seq) FILTER (WHERE r.running + begun.brought = begun.amount), max(r.seq)) AS through,
			       CASE WHEN bool_or(r.running + begun.brought = begun.amount) THEN begun.amount - begun.brought
			            ELSE (array_agg(r.running ORDER BY r.seq DESC))[1] END AS sum
			FROM (
				SELECT m.seq, (sum(m.change) OVER (ORDER BY m.seq))::bigint AS running FROM earned(begun.account, begun.after) m
			) r
		) reach ON true
		ORDER BY begun.id`, batch, ledger.OwnerPayable, s.config.Mint, ledger.KindPayoutReserve)
	if err != nil {
		return nil, fmt.Errorf("read payouts: %w", err)
	}
	stretches, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*stretch, error) {
		one := &stretch{payout: proof.Payout{Records: []proof.Record{}, Adjustments: []proof.Adjustment{}}}
		p := &one.payout
		return one, row.Scan(&p.ID, &p.Purpose, &p.Wallet, &p.TokenAccount, &p.Amount, &one.payee, &one.account, &one.after, &one.brought, &one.through, &one.sum)
	})
	if err != nil {
		return nil, fmt.Errorf("read payouts: %w", err)
	}
	for _, one := range stretches {
		if one.payout.Purpose == proof.PurposeEarnings && one.rest() < 0 {
			return nil, fmt.Errorf("payout %s is of %d base units, the ledger explains %d", one.payout.ID, one.payout.Amount, one.brought+one.sum)
		}
	}
	return stretches, nil
}

// columns are the stretches of earnings as unnest wants them. A place is an index in the list.
func columns(stretches []*stretch) (places []int32, accounts []string, after, through []int64) {
	for i, one := range stretches {
		if one.account != nil && one.payout.Purpose == proof.PurposeEarnings {
			places, accounts = append(places, int32(i)), append(accounts, one.account.String())
			after, through = append(after, one.after), append(through, one.through)
		}
	}
	return places, accounts, after, through
}

// addRecords makes one record of each lease's charges in a stretch.
func addRecords(ctx context.Context, tx pgx.Tx, stretches []*stretch) error {
	places, accounts, after, through := columns(stretches)
	rows, err := tx.Query(ctx, `
		WITH charged AS (
			SELECT n.place, n.account, e.lease_id, min(m.seq) AS first_seq, max(m.seq) AS last_seq, sum(m.change)::bigint AS amount,
			       min(m.posted_at) AS first_at, max(m.posted_at) AS last_at
			FROM unnest($1::int[], $2::uuid[], $3::bigint[], $4::bigint[]) AS n (place, account, after, through)
			CROSS JOIN LATERAL earned(n.account, n.after) m
			JOIN ledger_entries e ON e.id = m.entry_id
			WHERE m.seq <= n.through AND e.kind = $5 AND e.lease_id IS NOT NULL
			GROUP BY n.place, n.account, e.lease_id
		)
		SELECT c.place, c.lease_id, c.first_at, c.last_at, l.price_per_gpu_hour, l.fee_bps, c.amount, first_entry.key, last_entry.key,
		       (SELECT sum(t.amount)::bigint FROM ledger_transfers t WHERE t.entry_id = first_entry.id)
		FROM charged c
		JOIN leases l ON l.id = c.lease_id
		JOIN ledger_transfers first ON first.credit_account = c.account AND first.credit_seq = c.first_seq
		JOIN ledger_entries first_entry ON first_entry.id = first.entry_id
		JOIN ledger_transfers last ON last.credit_account = c.account AND last.credit_seq = c.last_seq
		JOIN ledger_entries last_entry ON last_entry.id = last.entry_id
		ORDER BY c.place, c.lease_id`, places, accounts, after, through, ledger.KindCharge)
	if err != nil {
		return fmt.Errorf("read charges: %w", err)
	}
	var place int32
	var record proof.Record
	var firstKey, lastKey string
	var firstGross money.Amount
	_, err = pgx.ForEachRow(rows, []any{
		&place, &record.Lease, &record.From, &record.To, &record.Price, &record.FeeBPS, &record.Amount, &firstKey, &lastKey, &firstGross,
	}, func() error {
		first, err := chargedTotal(firstKey)
		if err != nil {
			return err
		}
		if record.ChargedAfter, err = chargedTotal(lastKey); err != nil {
			return err
		}
		record.ChargedBefore = first - firstGross
		record.From, record.To = record.From.UTC(), record.To.UTC()
		record.FromMS, record.ToMS = proof.LeastMS(record.Price, record.ChargedBefore), proof.LeastMS(record.Price, record.ChargedAfter)
		if err := proof.CheckRecord(&record); err != nil {
			return err
		}
		payout := &stretches[place].payout
		payout.Records = append(payout.Records, record)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read charges: %w", err)
	}
	return nil
}

// chargedTotal reads from a charge's key what its lease had been charged with it.
func chargedTotal(key string) (money.Amount, error) {
	units, err := strconv.ParseInt(key[strings.LastIndex(key, ":")+1:], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the charge %q does not say its total", key)
	}
	return money.Amount(units), nil
}

// addAdjustments lists everything else in a stretch, and what is carried into and out of it.
func addAdjustments(ctx context.Context, tx pgx.Tx, stretches []*stretch) error {
	places, accounts, after, through := columns(stretches)
	rows, err := tx.Query(ctx, `
		SELECT n.place, m.posted_at, e.memo, m.change
		FROM unnest($1::int[], $2::uuid[], $3::bigint[], $4::bigint[]) AS n (place, account, after, through)
		CROSS JOIN LATERAL earned(n.account, n.after) m
		JOIN ledger_entries e ON e.id = m.entry_id
		WHERE m.seq <= n.through AND NOT (e.kind = $5 AND e.lease_id IS NOT NULL)
		ORDER BY n.place, m.seq`, places, accounts, after, through, ledger.KindCharge)
	if err != nil {
		return fmt.Errorf("read adjustments: %w", err)
	}
	var place int32
	var a proof.Adjustment
	_, err = pgx.ForEachRow(rows, []any{&place, &a.At, &a.Memo, &a.Amount}, func() error {
		a.At = a.At.UTC()
		payout := &stretches[place].payout
		payout.Adjustments = append(payout.Adjustments, a)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read adjustments: %w", err)
	}
	return carry(ctx, tx, stretches)
}

func carry(ctx context.Context, tx pgx.Tx, stretches []*stretch) error {
	var now time.Time
	if err := tx.QueryRow(ctx, `SELECT now()`).Scan(&now); err != nil {
		return err
	}
	for _, one := range stretches {
		if one.payout.Purpose != proof.PurposeEarnings {
			continue
		}
		if one.brought != 0 {
			one.payout.Adjustments = append(one.payout.Adjustments, proof.Adjustment{At: now.UTC(), Memo: carriedIn, Amount: one.brought})
		}
		if rest := one.rest(); rest != 0 {
			one.payout.Adjustments = append(one.payout.Adjustments, proof.Adjustment{At: now.UTC(), Memo: carriedOut, Amount: -rest})
		}
	}
	return nil
}

func store(ctx context.Context, tx pgx.Tx, manifest *proof.Manifest, root proof.Root, document []byte, stretches []*stretch) error {
	batch := &pgx.Batch{}
	batch.Queue(`
		INSERT INTO manifests (batch_id, sequence, root, previous, document)
		VALUES ($1, $2::bigint, $3, (SELECT root FROM manifests WHERE sequence = $2::bigint - 1), $4)`,
		manifest.Batch, manifest.Sequence, root[:], string(document))
	for i, one := range stretches {
		batch.Queue(`
			INSERT INTO manifest_payouts (payout_id, batch_id, ordinal, payee_org_id, through_seq, carried) VALUES ($1, $2, $3, $4, $5, $6)`,
			one.payout.ID, manifest.Batch, i, one.payee, one.through, max(one.rest(), 0)*earnings(one))
	}
	return tx.SendBatch(ctx, batch).Close()
}

// earnings is 1 for a payout of earnings: no other carries anything.
func earnings(s *stretch) money.Amount {
	if s.payout.Purpose == proof.PurposeEarnings {
		return 1
	}
	return 0
}
