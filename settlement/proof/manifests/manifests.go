package manifests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/proof"
)

// MaxPage bounds a page of manifests.
const MaxPage = 200

// Config says what every manifest names.
type Config struct {
	Network  string // the cluster's genesis hash
	Mint     string
	Treasury string // the token account that pays
}

// Service seals and publishes manifests. It is safe for concurrent use, in any number of processes.
type Service struct {
	pool   *pgxpool.Pool
	config Config
}

// New makes a service.
func New(pool *pgxpool.Pool, config Config) *Service { return &Service{pool: pool, config: config} }

// Span is a period of sealing: from its beginning to before its end. A zero time is no bound.
type Span struct{ From, To time.Time }

// Inclusion is the proof of one payout, with the transaction that it leads to.
type Inclusion struct {
	Batch     ids.Batch
	State     string
	Signature string
	Memo      string
	Proof     proof.Inclusion
}

// A batch ends with its payouts: from then on none is live.
const selectManifest = `
	SELECT m.batch_id, m.sequence, m.root, m.previous, m.sealed_at, coalesce(b.paid_by, t.signature, ''), t.block_time, b.state = 'finalized',
	       NOT EXISTS (SELECT 1 FROM payouts p WHERE p.batch_id = b.id AND p.live), t.signature IS NOT NULL
	FROM manifests m JOIN payout_batches b ON b.id = m.batch_id LEFT JOIN payout_transactions t ON t.batch_id = m.batch_id`

// found is a manifest's row.
type found struct {
	proof.Summary
	signed bool // a transaction may be on the chain
}

// List lists manifests in the order of their numbers.
func (s *Service) List(ctx context.Context, span Span, after ids.Batch, limit int) ([]proof.Summary, error) {
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	rows, err := s.pool.Query(ctx, selectManifest+`
		WHERE ($1::timestamptz IS NULL OR m.sealed_at >= $1) AND ($2::timestamptz IS NULL OR m.sealed_at < $2)
		  AND ($3::uuid IS NULL OR m.sequence > (SELECT sequence FROM manifests WHERE batch_id = $3))
		ORDER BY m.sequence LIMIT $4`, optional(span.From), optional(span.To), after, limit)
	if err != nil {
		return nil, fmt.Errorf("list manifests: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (proof.Summary, error) {
		one, err := scan(row)
		return one.Summary, err
	})
	if err != nil {
		return nil, fmt.Errorf("list manifests: %w", err)
	}
	return list, nil
}

func optional(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

// Published returns a batch's manifest, from when its transaction can be on the chain or it is certain that none will be.
func (s *Service) Published(ctx context.Context, batch ids.Batch) (*proof.Published, error) {
	one, manifest, err := s.read(ctx, batch)
	if err != nil {
		return nil, err
	}
	if !one.signed && one.State == proof.StatePending {
		return nil, errs.New(errs.NotFound, "the manifest of %s is published when its transaction is signed", batch)
	}
	return &proof.Published{
		Manifest: *manifest, Root: one.Root, State: one.State, Signature: one.Signature, PaidAt: one.PaidAt, SealedAt: one.SealedAt,
	}, nil
}

// Inclusion proves that an organisation's payout is in its batch's manifest.
func (s *Service) Inclusion(ctx context.Context, org ids.Org, payout ids.Payout) (Inclusion, error) {
	var batch ids.Batch
	var ordinal int
	err := s.pool.QueryRow(ctx, `
		SELECT m.batch_id, m.ordinal FROM manifest_payouts m JOIN payout_batches b ON b.id = m.batch_id
		WHERE m.payout_id = $1 AND m.payee_org_id = $2 AND b.state NOT IN ('draft', 'cancelled')`, payout, org).Scan(&batch, &ordinal)
	if errors.Is(err, pgx.ErrNoRows) {
		return Inclusion{}, errs.New(errs.NotFound, "there is no payout %s of yours with a manifest", payout)
	}
	if err != nil {
		return Inclusion{}, fmt.Errorf("find payout: %w", err)
	}
	one, manifest, err := s.read(ctx, batch)
	if err != nil {
		return Inclusion{}, err
	}
	included, err := manifest.Include(ordinal)
	if err != nil {
		return Inclusion{}, err
	}
	return Inclusion{Batch: batch, State: one.State, Signature: one.Signature, Memo: batch.String() + " " + one.Root, Proof: included}, nil
}

func (s *Service) read(ctx context.Context, batch ids.Batch) (found, *proof.Manifest, error) {
	rows, err := s.pool.Query(ctx, selectManifest+` WHERE m.batch_id = $1`, batch)
	if err != nil {
		return found{}, nil, fmt.Errorf("read manifest: %w", err)
	}
	one, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return found{}, nil, errs.New(errs.NotFound, "there is no manifest of a batch %s", batch)
	}
	if err != nil {
		return found{}, nil, fmt.Errorf("read manifest: %w", err)
	}
	var document string
	if err := s.pool.QueryRow(ctx, `SELECT document FROM manifests WHERE batch_id = $1`, batch).Scan(&document); err != nil {
		return found{}, nil, fmt.Errorf("read manifest: %w", err)
	}
	manifest := new(proof.Manifest)
	if err := json.Unmarshal([]byte(document), manifest); err != nil {
		return found{}, nil, fmt.Errorf("read manifest: %w", err)
	}
	return one, manifest, nil
}

func scan(row pgx.CollectableRow) (one found, err error) {
	var root, previous []byte
	var paid, ended bool
	err = row.Scan(&one.Batch, &one.Sequence, &root, &previous, &one.SealedAt, &one.Signature, &one.PaidAt, &paid, &ended, &one.signed)
	if err != nil {
		return one, err
	}
	one.Root = proof.Root(root).String()
	if previous != nil {
		one.Previous = proof.Root(previous).String()
	}
	one.SealedAt = one.SealedAt.UTC()
	if one.PaidAt != nil {
		at := one.PaidAt.UTC()
		one.PaidAt = &at
	}
	switch {
	case paid:
		one.State = proof.StatePaid
	case ended:
		one.State = proof.StateVoid
	default:
		one.State = proof.StatePending
	}
	if !paid { // only a transaction that paid is told
		one.Signature, one.PaidAt = "", nil
	}
	return one, nil
}
