package payouts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
)

// The states.
const (
	stateDraft     = "draft"
	stateApproved  = "approved"
	stateSigned    = "signed"
	stateSent      = "sent"
	stateFinalized = "finalized"
	stateFailed    = "failed"
	stateFrozen    = "frozen"
)

// errLostClaim means that another worker has the batch, or that it has moved on: the step's outcome is dropped.
var errLostClaim = errors.New("the batch is no longer this worker's")

// work is a claimed batch.
type work struct {
	id           ids.Batch
	state        string
	nonceAccount chain.Address
	nonceValue   chain.Hash
	memo         string // empty: the batch's id
	message      []byte
	payouts      []workPayout

	// Once signed.
	signature     chain.Signature
	wire          []byte
	resend        bool // the last sending is older than the rebroadcast interval, by the database's clock
	nonceOverdue  bool // the nonce has been consumed for longer than the transaction may be missing
	nonceConsumed bool // the nonce was seen consumed before
}

type workPayout struct {
	id            ids.Payout
	payee         ids.Org
	sequence      uint64
	wallet        chain.Address
	tokenAccount  chain.Address
	createAccount bool
	amount        money.Amount
}

func (b *work) request() signer.Batch {
	batch := signer.Batch{ID: b.id, Payouts: make([]signer.Payout, len(b.payouts))}
	for i, p := range b.payouts {
		batch.Payouts[i] = signer.Payout{ID: p.id, Payee: p.payee, Sequence: p.sequence, Wallet: p.wallet, Amount: uint64(p.amount)}
	}
	return batch
}

// claim takes due batches for this worker. A claim of an earlier term is void: its process has lost the lead.
func (s *Service) claim(ctx context.Context, term int64) ([]ids.Batch, error) {
	var claimed []ids.Batch
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := assertLeader(ctx, tx, term); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			UPDATE payout_batches SET claimed_by = $1, claimed_term = $2, claimed_until = clock_timestamp() + $3
			WHERE id IN (
				SELECT id FROM payout_batches
				WHERE state IN ('approved', 'signed', 'sent') AND due_at <= clock_timestamp()
				  AND (claimed_until IS NULL OR claimed_until < clock_timestamp() OR claimed_term < $2)
				ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED)
			RETURNING id`, s.self, term, claimTime, claimedAtOnce)
		if err != nil {
			return err
		}
		claimed, err = pgx.CollectRows(rows, pgx.RowTo[ids.Batch])
		return err
	})
	if err != nil {
		return nil, deposed(fmt.Errorf("claim batches: %w", err))
	}
	return claimed, nil
}

// load reads a claimed batch as it is now.
func (s *Service) load(ctx context.Context, id ids.Batch) (*work, error) {
	b := &work{id: id}
	var nonceAccount, nonceValue string
	var signature *string
	err := s.pool.QueryRow(ctx, `
		SELECT b.state, b.nonce_account, b.nonce_value, b.message, t.signature, t.wire,
		       t.last_sent_at IS NULL OR t.last_sent_at < clock_timestamp() - $2::interval,
		       b.nonce_changed_at IS NOT NULL, coalesce(b.nonce_changed_at < clock_timestamp() - $3::interval, false)
		FROM payout_batches b LEFT JOIN payout_transactions t ON t.batch_id = b.id WHERE b.id = $1`,
		id, s.options.Rebroadcast, s.options.FreezeAfter).
		Scan(&b.state, &nonceAccount, &nonceValue, &b.message, &signature, &b.wire, &b.resend, &b.nonceConsumed, &b.nonceOverdue)
	if err != nil {
		return nil, fmt.Errorf("read batch: %w", err)
	}
	if err := b.parse(nonceAccount, nonceValue, signature); err != nil {
		return nil, fmt.Errorf("read batch: %w", err)
	}
	if b.payouts, err = s.loadPayouts(ctx, id); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *work) parse(nonceAccount, nonceValue string, signature *string) (err error) {
	if b.nonceAccount, err = chain.ParseAddress(nonceAccount); err != nil {
		return err
	}
	value, err := chain.ParseAddress(nonceValue) // a hash has an address's form
	if err != nil {
		return err
	}
	b.nonceValue = chain.Hash(value)
	if signature != nil {
		b.signature, err = chain.ParseSignature(*signature)
	}
	return err
}

func (s *Service) loadPayouts(ctx context.Context, id ids.Batch) ([]workPayout, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT id, payee_org_id, sequence, wallet, token_account, creates_account, amount
		FROM payouts WHERE batch_id = $1 ORDER BY id`, id)
	if err != nil {
		return nil, fmt.Errorf("read payouts: %w", err)
	}
	payouts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p workPayout, err error) {
		var wallet, tokenAccount string
		var sequence int64
		if err := row.Scan(&p.id, &p.payee, &sequence, &wallet, &tokenAccount, &p.createAccount, &p.amount); err != nil {
			return p, err
		}
		p.sequence = uint64(sequence)
		if p.wallet, err = chain.ParseAddress(wallet); err != nil {
			return p, err
		}
		p.tokenAccount, err = chain.ParseAddress(tokenAccount)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("read payouts: %w", err)
	}
	return payouts, nil
}

// commit ends a step: change runs in a transaction only while the term holds, and the batch is claimed by this worker and in the
// state that the step began in.
func (s *Service) commit(ctx context.Context, term int64, b *work, change func(tx pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := assertLeader(ctx, tx, term); err != nil {
			return err
		}
		var mine bool
		err := tx.QueryRow(ctx, `
			SELECT state = $2 AND claimed_by = $3 AND claimed_term = $4 FROM payout_batches WHERE id = $1 FOR UPDATE`,
			b.id, b.state, s.self, term).Scan(&mine)
		if err != nil {
			return err
		}
		if !mine {
			return errLostClaim
		}
		return change(tx)
	})
	return deposed(err)
}

// release ends a claim and says when the batch is looked at again and what holds it up.
func (s *Service) release(ctx context.Context, term int64, b *work, after time.Duration, attention string) error {
	return s.commit(ctx, term, b, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			UPDATE payout_batches SET due_at = clock_timestamp() + $2, claimed_until = NULL, attention = $3 WHERE id = $1`,
			b.id, after, shorten(attention))
		return err
	})
}

func assertLeader(ctx context.Context, tx pgx.Tx, term int64) error {
	_, err := tx.Exec(ctx, `SELECT assert_leader('settlement', $1)`, term)
	return err
}

// deposed recognises the error of assert_leader.
func deposed(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.ConstraintName == "leadership_term" {
		return fmt.Errorf("%w: %w", ErrDeposed, err)
	}
	return err
}

func shorten(text string) string {
	runes := []rune(text)
	return string(runes[:min(len(runes), maxReason)])
}
