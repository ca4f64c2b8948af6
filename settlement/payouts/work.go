package payouts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
)

// The states.
const (
	stateDraft      = "draft"
	stateApproved   = "approved"
	stateSigned     = "signed"
	stateSent       = "sent"
	stateCancelling = "cancelling"
	stateFinalized  = "finalized"
	stateFailed     = "failed"
	stateFrozen     = "frozen"
	stateCancelled  = "cancelled"
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
	checked      bool // its payees' accounts were looked at a moment ago

	// Once signed.
	signature    chain.Signature
	wire         []byte
	resend       bool // the last sending is older than the rebroadcast interval, by the database's clock
	nonceOverdue bool // the nonce has been consumed for longer than the transaction may be missing

	cancel cancellation // once it is asked for

	// What a step comes to.
	seen    seenNonce          // the pinned nonce as it is finalized
	unread  error              // why that is not known
	problem string             // with the last sending
	landed  *chain.Transaction // what consumed the nonce
}

type workPayout struct {
	id            ids.Payout
	payee         ids.Org
	sequence      uint64
	wallet        chain.Address
	tokenAccount  chain.Address
	createAccount bool
	amount        money.Amount
	withdrawal    ids.Withdrawal // zero: earnings
}

func (b *work) request() signer.Batch {
	batch := signer.Batch{ID: b.id, Payouts: make([]signer.Payout, len(b.payouts))}
	for i, p := range b.payouts {
		batch.Payouts[i] = signer.Payout{ID: p.id, Payee: p.payee, Sequence: p.sequence, Wallet: p.wallet, Amount: uint64(p.amount)}
	}
	return batch
}

// free is when a batch may be claimed. A claim of an earlier term is void: its process has lost the lead.
const free = `due_at <= clock_timestamp() AND (claimed_until IS NULL OR claimed_until < clock_timestamp() OR claimed_term < $2)`

// claim takes a group of due batches for this worker, of those in certain states.
func (s *Service) claim(ctx context.Context, term int64, states string) ([]ids.Batch, error) {
	return s.claimWhere(ctx, term, `(`+states+`)`, together)
}

// claimOf takes those of the batches that are still sent and due.
func (s *Service) claimOf(ctx context.Context, term int64, batches []ids.Batch) ([]ids.Batch, error) {
	wanted := make([]pgtype.UUID, len(batches))
	for i, id := range batches {
		wanted[i] = uuidOf(id)
	}
	return s.claimWhere(ctx, term, `state = 'sent' AND id = ANY ($5)`, len(batches), wanted)
}

func (s *Service) claimWhere(ctx context.Context, term int64, which string, most int, arguments ...any) (claimed []ids.Batch, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := assertLeader(ctx, tx, term); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			WITH due AS (SELECT id FROM payout_batches WHERE `+which+` AND `+free+` ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED)
			UPDATE payout_batches SET claimed_by = $1, claimed_term = $2, claimed_until = clock_timestamp() + $3
			WHERE id IN (SELECT id FROM due)
			RETURNING id`, append([]any{s.self, term, claimTime, most}, arguments...)...)
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

// load reads a batch as it is now.
func (s *Service) load(ctx context.Context, id ids.Batch) (*work, error) {
	loaded, err := s.loadAll(ctx, []ids.Batch{id})
	if err == nil && len(loaded) == 0 {
		err = fmt.Errorf("read batch %s: %w", id, pgx.ErrNoRows)
	}
	if err != nil {
		return nil, err
	}
	return loaded[0], nil
}

// loadAll reads batches as they are now.
func (s *Service) loadAll(ctx context.Context, batches []ids.Batch) ([]*work, error) {
	wanted := make([]pgtype.UUID, len(batches))
	for i, id := range batches {
		wanted[i] = uuidOf(id)
	}
	rows, err := s.pool.Query(ctx, `
		SELECT b.id, b.state, coalesce(b.memo, ''), b.nonce_account, b.nonce_value, b.message,
		       b.drafted_at > clock_timestamp() - $4::interval, coalesce(t.signature, ''), t.wire,
		       t.last_sent_at IS NULL OR t.last_sent_at < clock_timestamp() - $2::interval,
		       coalesce(b.nonce_changed_at < clock_timestamp() - $3::interval, false),
		       c.message, coalesce(c.signature, ''), c.wire, c.last_sent_at IS NULL OR c.last_sent_at < clock_timestamp() - $2::interval
		FROM payout_batches b LEFT JOIN payout_transactions t ON t.batch_id = b.id LEFT JOIN payout_cancellations c ON c.batch_id = b.id
		WHERE b.id = ANY ($1) ORDER BY b.id`, wanted, s.options.Rebroadcast, s.options.FreezeAfter, checkedFor)
	if err != nil {
		return nil, fmt.Errorf("read batches: %w", err)
	}
	loaded, err := pgx.CollectRows(rows, scanWork)
	if err != nil {
		return nil, fmt.Errorf("read batches: %w", err)
	}
	return loaded, s.loadPayouts(ctx, wanted, loaded)
}

func scanWork(row pgx.CollectableRow) (*work, error) {
	b := &work{}
	var nonceAccount, nonceValue, signature, cancelSignature string
	err := row.Scan(&b.id, &b.state, &b.memo, &nonceAccount, &nonceValue, &b.message, &b.checked, &signature, &b.wire, &b.resend, &b.nonceOverdue,
		&b.cancel.message, &cancelSignature, &b.cancel.wire, &b.cancel.resend)
	if err != nil {
		return nil, err
	}
	if b.nonceAccount, b.nonceValue, err = parsePin(nonceAccount, nonceValue); err != nil {
		return nil, err
	}
	if signature != "" {
		if b.signature, err = chain.ParseSignature(signature); err != nil {
			return nil, err
		}
	}
	if cancelSignature != "" {
		b.cancel.signature, err = chain.ParseSignature(cancelSignature)
	}
	return b, err
}

func parsePin(account, value string) (chain.Address, chain.Hash, error) {
	address, err := chain.ParseAddress(account)
	if err != nil {
		return chain.Address{}, chain.Hash{}, err
	}
	hash, err := chain.ParseAddress(value) // a hash has an address's form
	return address, chain.Hash(hash), err
}

// loadPayouts reads the payouts of batches, which are in the order of ids.
func (s *Service) loadPayouts(ctx context.Context, wanted []pgtype.UUID, batches []*work) error {
	rows, err := s.pool.Query(ctx, `
		SELECT batch_id, id, payee_org_id, sequence, wallet, token_account, creates_account, amount, withdrawal_id
		FROM payouts WHERE batch_id = ANY ($1) ORDER BY batch_id, id`, wanted)
	if err != nil {
		return fmt.Errorf("read payouts: %w", err)
	}
	at := 0
	var batch ids.Batch
	var p workPayout
	var wallet, tokenAccount string
	var sequence int64
	into := []any{&batch, &p.id, &p.payee, &sequence, &wallet, &tokenAccount, &p.createAccount, &p.amount, &p.withdrawal}
	_, err = pgx.ForEachRow(rows, into, func() (err error) {
		for at < len(batches) && batches[at].id != batch {
			at++
		}
		if at == len(batches) {
			return fmt.Errorf("payout %s is of no batch that was asked for", p.id)
		}
		p.sequence = uint64(sequence)
		if p.wallet, err = chain.ParseAddress(wallet); err != nil {
			return err
		}
		if p.tokenAccount, err = chain.ParseAddress(tokenAccount); err != nil {
			return err
		}
		batches[at].payouts = append(batches[at].payouts, p)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read payouts: %w", err)
	}
	return nil
}

// commit ends a step of one batch: change runs in a transaction only while the term holds, and the batch is claimed by this worker and
// in the state that the step began in.
func (s *Service) commit(ctx context.Context, term int64, b *work, change func(tx pgx.Tx) error) error {
	_, err := s.commitTogether(ctx, term, []*work{b}, func(_ context.Context, tx pgx.Tx, mine []*work) error {
		if len(mine) == 0 {
			return errLostClaim
		}
		return change(tx)
	})
	return err
}

// commitAll ends a step of many batches in one transaction, and returns those that took it. What has moved on elsewhere is left out.
// When the database refuses the whole, each is tried by itself, and held up by what is said against it alone. The error is one that
// ends the worker.
func (s *Service) commitAll(ctx context.Context, term int64, batches []*work, change changeAll) ([]*work, error) {
	if len(batches) == 0 {
		return nil, nil
	}
	mine, err := s.commitTogether(ctx, term, batches, func(ctx context.Context, tx pgx.Tx, mine []*work) error {
		if len(mine) == 0 {
			return nil
		}
		return change(ctx, tx, mine)
	})
	if err == nil {
		return mine, nil
	}
	if len(batches) == 1 || endsWorker(err) || !refusedByDatabase(err) {
		return nil, s.holdUp(ctx, term, batches, err)
	}
	s.log.WarnContext(ctx, "batches take a step one by one", "batches", len(batches), "error", err)
	var alone []*work
	for _, b := range batches {
		done, err := s.commitAll(ctx, term, []*work{b}, change)
		if err != nil {
			return alone, err
		}
		alone = append(alone, done...)
	}
	return alone, nil
}

// changeAll is what a step changes of the batches that took it.
type changeAll func(ctx context.Context, tx pgx.Tx, mine []*work) error

// refusedByDatabase tells a transaction that was refused for what is in it from a database that does not answer.
func refusedByDatabase(err error) bool {
	var pg *pgconn.PgError
	var refusal *errs.Error
	return errors.As(err, &pg) || errors.As(err, &refusal)
}

// commitTogether locks the batches that are this worker's, in one order, and changes them.
func (s *Service) commitTogether(ctx context.Context, term int64, batches []*work, change changeAll) (mine []*work, err error) {
	states := make([]string, len(batches))
	for i, b := range batches {
		states[i] = b.state
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := assertLeader(ctx, tx, term); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			SELECT b.id FROM payout_batches b JOIN unnest($1::uuid[], $2::text[]) AS n (id, state) ON n.id = b.id AND n.state = b.state
			WHERE b.claimed_by = $3 AND b.claimed_term = $4 ORDER BY b.id FOR UPDATE OF b`, idsOf(batches), states, s.self, term)
		if err != nil {
			return err
		}
		held := make(map[ids.Batch]bool, len(batches))
		var id ids.Batch
		if _, err := pgx.ForEachRow(rows, []any{&id}, func() error {
			held[id] = true
			return nil
		}); err != nil {
			return err
		}
		mine = slices.DeleteFunc(slices.Clone(batches), func(b *work) bool { return !held[b.id] })
		return change(ctx, tx, mine)
	})
	return mine, deposed(err)
}

// release ends the claims of batches and says when they are looked at again and what holds them up. Those that have moved on are left
// as they are.
func (s *Service) release(ctx context.Context, term int64, batches []*work, after time.Duration, attention string) error {
	if len(batches) == 0 {
		return nil
	}
	_, err := s.commitTogether(ctx, term, batches, func(ctx context.Context, tx pgx.Tx, mine []*work) error {
		_, err := tx.Exec(ctx, `
			UPDATE payout_batches SET due_at = clock_timestamp() + $2, claimed_until = NULL, attention = $3 WHERE id = ANY ($1)`,
			idsOf(mine), after, shorten(attention))
		return err
	})
	return err
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
