package payouts

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/sync/errgroup"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/signer"
)

// What a payout is for.
const (
	PurposeEarnings   = "earnings"
	PurposeWithdrawal = "withdrawal" // prepaid balance, back to a customer's wallet
	PurposeRefund     = "refund"     // tokens that could not be credited
)

// uniqueViolation is Postgres's code.
const uniqueViolation = "23505"

// pin is a free nonce and its present value.
type pin struct {
	account chain.Address
	value   chain.Hash
}

// round is the outcome of one round of a run.
type round struct {
	batches []ids.Batch
	planned int // groups, of which batches were stored
}

// draftRound makes batches of what is payable now and what the run has not drafted yet, as far as there are free nonces. Payees with an
// obstacle are left out, with the reason.
func (s *Service) draftRound(ctx context.Context, run ids.PayoutRun, by ids.User) (round, error) {
	keys, err := s.draftKeys(ctx)
	if err != nil {
		return round{}, err
	}
	candidates, err := s.candidates(ctx, run)
	if err != nil {
		return round{}, err
	}
	if err := s.preflight(ctx, candidates, keys); err != nil {
		return round{}, s.chainSilent(ctx, err)
	}
	if err := s.storeObstacles(ctx, run, candidates); err != nil {
		return round{}, err
	}
	free := payable(candidates)
	room, err := s.capacity(keys)
	if err != nil {
		return round{}, err
	}
	groups := plan(free, batchLimit(keys), room)
	if len(groups) == 0 {
		return round{}, nil
	}
	pins, err := s.freeNonces(ctx, keys)
	if err != nil {
		return round{}, s.chainSilent(ctx, err)
	}
	batches, err := s.storeRound(ctx, run, by, groups[:min(len(groups), len(pins), MaxBatchesPerRound)], pins)
	return round{batches: batches, planned: len(groups)}, err
}

// draftKeys asks the signer what may be paid, and compares it with the books.
func (s *Service) draftKeys(ctx context.Context) (signer.Addresses, error) {
	keys, err := s.signer.Addresses(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "cannot draft", "error", err)
		return keys, errs.New(errs.Unavailable, "the signer does not answer, so nothing can be drafted; try again")
	}
	if keys.Mint.String() != s.ledger.Currency().Mint {
		return keys, errs.New(errs.Conflict, "the signer's policy is for the token %s, the ledger counts %s", keys.Mint, s.ledger.Currency().Mint)
	}
	return keys, nil
}

func (s *Service) chainSilent(ctx context.Context, err error) error {
	if code := errs.CodeOf(err); code == errs.Conflict {
		return err
	}
	s.log.WarnContext(ctx, "cannot draft", "error", err, "alarm", chain.IsAlarm(err))
	return errs.New(errs.Unavailable, "the chain does not answer, so nothing can be drafted; try again")
}

func batchLimit(keys signer.Addresses) money.Amount {
	return money.Amount(min(keys.MaxBaseUnitsPerBatch, 1<<62))
}

// candidates are what a run would pay if nothing on the chain stood against it: withdrawals and refunds first, then earnings.
func (s *Service) candidates(ctx context.Context, run ids.PayoutRun) ([]candidate, error) {
	rows, err := s.pool.Query(ctx, `
		(SELECT w.org_id, w.purpose, w.id, w.amount, w.wallet
		FROM withdrawals w
		WHERE w.state = 'requested' AND w.mint = $2 AND NOT EXISTS (SELECT 1 FROM payouts p WHERE p.payee_org_id = w.org_id AND p.live)
		ORDER BY w.id LIMIT $4)
		UNION ALL
		(SELECT o.id, 'earnings', NULL, a.balance, o.payout_address
		FROM ledger_accounts a JOIN organisations o ON o.id = a.org_id
		WHERE a.kind = $1 AND a.mint = $2 AND a.balance - a.reserved >= $3 AND o.payout_address IS NOT NULL
		  AND NOT EXISTS (SELECT 1 FROM payouts p WHERE p.payee_org_id = o.id AND p.live)
		  AND NOT EXISTS (SELECT 1 FROM payout_run_payees r WHERE r.run_id = $5 AND r.org_id = o.id AND r.purpose = 'earnings' AND r.batch_id IS NOT NULL)
		ORDER BY a.balance DESC, o.id LIMIT $4)`,
		ledger.OwnerPayable, s.ledger.Currency().Mint, s.options.Minimum, maxCandidates, run)
	if err != nil {
		return nil, fmt.Errorf("read payable balances: %w", err)
	}
	candidates, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c candidate, err error) {
		err = row.Scan(&c.org, &c.purpose, &c.withdrawal, &c.amount, &c.address)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("read payable balances: %w", err)
	}
	return candidates, nil
}

// storeRound stores each batch in a transaction of its own, several at the same time. What another round was faster with is left out.
func (s *Service) storeRound(ctx context.Context, run ids.PayoutRun, by ids.User, groups []group, pins []pin) ([]ids.Batch, error) {
	batches := make([]ids.Batch, len(groups))
	parallel, parallelCtx := errgroup.WithContext(ctx)
	parallel.SetLimit(storers)
	for i, g := range groups {
		parallel.Go(func() error {
			id := ids.New[ids.Batch]()
			err := pgx.BeginFunc(parallelCtx, s.pool, func(tx pgx.Tx) error { return s.storeBatch(parallelCtx, tx, run, id, by, g, pins[i]) })
			var pg *pgconn.PgError
			switch {
			case err == nil:
				batches[i] = id
				s.log.InfoContext(ctx, "batch drafted", "batch_id", id, "run_id", run, "payees", len(g.payees), "total", g.total)
				return nil
			case errors.As(err, &pg) && pg.Code == uniqueViolation, errs.CodeOf(err) == errs.InsufficientFunds, errors.Is(err, errTaken):
				s.log.InfoContext(ctx, "another draft was faster", "run_id", run, "error", err)
				return nil
			default:
				return fmt.Errorf("store draft: %w", err)
			}
		})
	}
	err := parallel.Wait()
	stored := make([]ids.Batch, 0, len(batches))
	for _, id := range batches {
		if !id.IsZero() {
			stored = append(stored, id)
		}
	}
	return stored, err
}

// errTaken means that a withdrawal is no longer waiting.
var errTaken = errors.New("a withdrawal was taken by another draft, or cancelled")

func (s *Service) storeBatch(ctx context.Context, tx pgx.Tx, run ids.PayoutRun, id ids.Batch, by ids.User, g group, at pin) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO payout_batches (id, mint, total, payee_count, nonce_account, nonce_value, drafted_by, run_id, approvals_needed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		id, s.ledger.Currency().Mint, g.total, len(g.payees), at.account.String(), at.value.String(), by, run, s.approvalsNeeded(g.total))
	if err != nil {
		return err
	}
	if err := storePayouts(ctx, tx, run, id, g); err != nil {
		return err
	}
	if err := s.reserve(ctx, tx, id, g); err != nil {
		return err
	}
	if s.options.Manifests == nil {
		return nil
	}
	memo, err := s.options.Manifests.Seal(ctx, tx, id)
	if err != nil {
		return fmt.Errorf("seal the manifest of batch %s: %w", id, err)
	}
	_, err = tx.Exec(ctx, `UPDATE payout_batches SET memo = $2 WHERE id = $1`, id, memo)
	return err
}

// storePayouts writes a batch's payouts in one statement, numbers each after its payee's last signed one, and takes the withdrawals.
func storePayouts(ctx context.Context, tx pgx.Tx, run ids.PayoutRun, id ids.Batch, g group) error {
	n := len(g.payees)
	payouts, orgs, withdrawals := make([]pgtype.UUID, n), make([]pgtype.UUID, n), make([]pgtype.UUID, n)
	wallets, accounts, purposes := make([]string, n), make([]string, n), make([]string, n)
	creates, amounts := make([]bool, n), make([]int64, n)
	taken := 0
	for i, p := range g.payees {
		payouts[i], orgs[i], withdrawals[i] = uuidOf(ids.New[ids.Payout]()), uuidOf(p.org), uuidOf(p.withdrawal)
		wallets[i], accounts[i], purposes[i] = p.wallet.String(), p.tokenAccount.String(), p.purpose
		creates[i], amounts[i] = p.createAccount, int64(p.amount)
		if !p.withdrawal.IsZero() {
			taken++
		}
	}
	_, err := tx.Exec(ctx, `
		WITH n AS (
			SELECT * FROM unnest($3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::boolean[], $8::bigint[], $9::text[], $10::uuid[])
				AS n (id, org_id, wallet, token_account, creates, amount, purpose, withdrawal_id)
		), noted AS (
			INSERT INTO payout_run_payees (run_id, org_id, purpose, amount, batch_id)
			SELECT $2, org_id, purpose, amount, $1 FROM n WHERE $2::uuid IS NOT NULL
		)
		INSERT INTO payouts (id, batch_id, payee_org_id, wallet, token_account, creates_account, amount, sequence, purpose, withdrawal_id)
		SELECT n.id, $1, n.org_id, n.wallet, n.token_account, n.creates, n.amount,
		       coalesce((SELECT max(p.sequence) FROM payouts p WHERE p.payee_org_id = n.org_id AND p.signed), 0) + 1, n.purpose, n.withdrawal_id
		FROM n`, id, run, payouts, orgs, wallets, accounts, creates, amounts, purposes, withdrawals)
	if err != nil || taken == 0 {
		return err
	}
	tag, err := tx.Exec(ctx, `UPDATE withdrawals SET state = 'drafted', attention = '' WHERE id = ANY ($1) AND state = 'requested'`, withdrawals)
	if err == nil && tag.RowsAffected() != int64(taken) {
		err = errTaken
	}
	return err
}

// reserve puts earnings in flight; withdrawals are since they were asked for.
func (s *Service) reserve(ctx context.Context, tx pgx.Tx, id ids.Batch, g group) error {
	var legs []ledger.Leg
	for _, payee := range g.payees {
		if payee.purpose == PurposeEarnings {
			legs = append(legs, ledger.Leg{
				Debit: ledger.Of(ledger.OwnerPayable, payee.org), Credit: ledger.Of(ledger.PayoutInFlight, payee.org), Amount: payee.amount,
			})
		}
	}
	if len(legs) == 0 {
		return nil
	}
	_, err := s.ledger.Post(ctx, tx, ledger.Entry{
		Key: "payout_reserve:" + id.String(), Kind: ledger.KindPayoutReserve, Legs: legs, Refs: ledger.Refs{Batch: id},
		Memo: fmt.Sprintf("Reserved for payout batch %s", id),
	})
	return err
}

// storeObstacles replaces what is known about payees that cannot be paid, and notes it with the run.
func (s *Service) storeObstacles(ctx context.Context, run ids.PayoutRun, seen []candidate) error {
	n := len(seen)
	orgs, withdrawals := make([]pgtype.UUID, n), make([]pgtype.UUID, n)
	reasons, purposes, amounts := make([]string, n), make([]string, n), make([]int64, n)
	for i, c := range seen {
		orgs[i], withdrawals[i] = uuidOf(c.org), uuidOf(c.withdrawal)
		reasons[i], purposes[i], amounts[i] = c.obstacle, c.purpose, max(int64(c.amount), 1)
	}
	const seenRows = `unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::bigint[]) AS n (org_id, purpose, reason, withdrawal_id, amount)`
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, draftLock); err != nil {
			return fmt.Errorf("store obstacles: %w", err)
		}
		for _, sql := range []string{
			`DELETE FROM payout_obstacles x USING ` + seenRows + ` WHERE x.org_id = n.org_id AND n.purpose = 'earnings' AND n.reason = ''
			 AND $6::uuid IS NOT NULL`,
			`INSERT INTO payout_obstacles (org_id, reason)
			 SELECT n.org_id, n.reason FROM ` + seenRows + ` WHERE n.purpose = 'earnings' AND n.reason <> '' AND $6::uuid IS NOT NULL
			 ON CONFLICT (org_id) DO UPDATE SET reason = EXCLUDED.reason, checked_at = now()`,
			`UPDATE withdrawals w SET attention = n.reason FROM ` + seenRows + `
			 WHERE w.id = n.withdrawal_id AND w.state = 'requested' AND w.attention <> n.reason AND $6::uuid IS NOT NULL`,
			`INSERT INTO payout_run_payees (run_id, org_id, purpose, amount, reason)
			 SELECT DISTINCT ON (n.org_id, n.purpose) $6::uuid, n.org_id, n.purpose, n.amount, n.reason FROM ` + seenRows + ` WHERE n.reason <> ''
			 ON CONFLICT (run_id, org_id, purpose, batch_id) DO UPDATE SET reason = EXCLUDED.reason, amount = EXCLUDED.amount`,
		} {
			if _, err := tx.Exec(ctx, sql, orgs, purposes, reasons, withdrawals, amounts, run); err != nil {
				return fmt.Errorf("store obstacles: %w", err)
			}
		}
		return nil
	})
}

// uuidOf is the form in which arrays of ids reach Postgres; the zero id is NULL.
func uuidOf[K ids.Kind](id ids.ID[K]) pgtype.UUID {
	return pgtype.UUID{Bytes: uuid.UUID(id), Valid: !id.IsZero()}
}
