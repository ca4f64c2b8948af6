package payouts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

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

// Postgres's codes.
const (
	uniqueViolation  = "23505"
	deadlockDetected = "40P01"
)

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
	if err != nil || len(candidates) == 0 {
		return round{}, err
	}
	if err := s.judgeMint(ctx, keys); err != nil {
		return round{}, s.chainSilent(ctx, err)
	}
	room, err := s.capacity(keys)
	if err != nil {
		return round{}, err
	}
	pins, err := s.freeNonces(ctx, keys)
	if err != nil {
		return round{}, s.chainSilent(ctx, err)
	}
	d := &drafter{
		Service: s, run: run, by: by, keys: keys, pins: pins[:min(len(pins), MaxBatchesPerRound)],
		planner: planner{limit: batchLimit(keys), room: room},
	}
	err = d.draft(ctx, candidates)
	if err != nil && len(d.made.batches) > 0 && ctx.Err() == nil {
		s.log.WarnContext(ctx, "a round has drafted a part", "run_id", run, "batches", len(d.made.batches), "error", err)
		d.made.planned++ // the rest is looked at again
		err = nil
	}
	return d.made, err
}

// Bounds of a round's stages, which work at the same time: while some payees' accounts are looked at, others are stored in batches, and
// those that are approved already are paid.
const (
	preflightAtOnce = 2_048 // payees
	storers         = 2     // transactions
	storedTogether  = 16    // batches that one of them stores
)

// drafter is a round on its way.
type drafter struct {
	*Service
	run     ids.PayoutRun
	by      ids.User
	keys    signer.Addresses
	pins    []pin // that are not used yet
	planner planner

	mu   sync.Mutex
	made round
}

// draft is a batch that is to be stored.
type draft struct {
	group
	id ids.Batch
	at pin
}

func (d *drafter) draft(ctx context.Context, candidates []candidate) error {
	stages, ctx := errgroup.WithContext(ctx)
	judged, bundles := make(chan []candidate, 1), make(chan []draft)
	stages.Go(func() error {
		defer close(judged)
		return d.judgeAll(ctx, candidates, judged)
	})
	stages.Go(func() error {
		defer close(bundles)
		return d.planAll(ctx, judged, bundles)
	})
	for range storers {
		stages.Go(func() error {
			for bundle := range bundles {
				if err := d.storeBundle(ctx, bundle); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return stages.Wait()
}

// judgeAll passes on who can be paid.
func (d *drafter) judgeAll(ctx context.Context, candidates []candidate, judged chan<- []candidate) error {
	taken := make(map[ids.Org]bool, len(candidates))
	for part := range slices.Chunk(candidates, preflightAtOnce) {
		if err := d.preflight(ctx, part, d.keys); err != nil {
			return d.chainSilent(ctx, err)
		}
		if err := d.storeObstacles(ctx, d.run, part); err != nil {
			return err
		}
		select {
		case judged <- payable(part, taken):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// planAll gives as many groups a nonce as there are, and counts the others.
func (d *drafter) planAll(ctx context.Context, judged <-chan []candidate, bundles chan<- []draft) error {
	var bundle []draft
	pass := func(groups []group, last bool) error {
		for _, g := range groups {
			d.made.planned++
			if len(d.pins) > 0 {
				bundle = append(bundle, draft{group: g, id: ids.New[ids.Batch](), at: d.pins[0]})
				d.pins = d.pins[1:]
			}
		}
		if len(bundle) == 0 || (len(bundle) < storedTogether && !last) {
			return nil
		}
		for part := range slices.Chunk(bundle, storedTogether) {
			select {
			case bundles <- part:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		bundle = nil
		return nil
	}
	for free := range judged {
		for _, payee := range free {
			if err := pass(d.planner.add(payee), false); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return pass(d.planner.rest(), true)
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
		  AND NOT EXISTS (SELECT 1 FROM payouts p JOIN payout_batches b ON b.id = p.batch_id WHERE p.payee_org_id = o.id AND p.purpose = 'earnings' AND b.run_id = $5)
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

// storeBundle stores batches in one transaction. If another round was faster with something in it, each is stored by itself, and what
// is taken is left out.
func (d *drafter) storeBundle(ctx context.Context, bundle []draft) error {
	err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error { return d.storeDrafts(ctx, tx, d.run, d.by, bundle) })
	switch {
	case err == nil:
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, one := range bundle {
			d.made.batches = append(d.made.batches, one.id)
			d.log.InfoContext(ctx, "batch drafted", "batch_id", one.id, "run_id", d.run, "payees", len(one.payees), "total", one.total)
		}
		return nil
	case !wasTaken(err):
		return fmt.Errorf("store drafts: %w", err)
	case len(bundle) == 1:
		d.log.InfoContext(ctx, "another draft was faster", "run_id", d.run, "error", err)
		return nil
	}
	for i := range bundle {
		if err := d.storeBundle(ctx, bundle[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// errTaken means that a withdrawal is no longer waiting.
var errTaken = errors.New("a withdrawal was taken by another draft, or cancelled")

// wasTaken tells that somebody else was faster from other failures.
func wasTaken(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == uniqueViolation || pg.Code == deadlockDetected) ||
		errs.CodeOf(err) == errs.InsufficientFunds || errors.Is(err, errTaken)
}

func (s *Service) storeDrafts(ctx context.Context, tx pgx.Tx, run ids.PayoutRun, by ids.User, drafts []draft) error {
	n := len(drafts)
	batches, totals, counts := make([]pgtype.UUID, n), make([]int64, n), make([]int32, n)
	accounts, values, approvals := make([]string, n), make([]string, n), make([]int32, n)
	for i, d := range drafts {
		batches[i], totals[i], counts[i] = uuidOf(d.id), int64(d.total), int32(len(d.payees))
		accounts[i], values[i], approvals[i] = d.at.account.String(), d.at.value.String(), int32(s.approvalsNeeded(d.total))
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO payout_batches (id, mint, total, payee_count, nonce_account, nonce_value, drafted_by, run_id, approvals_needed)
		SELECT n.id, $1, n.total, n.payees, n.account, n.value, $2, $3, n.approvals
		FROM unnest($4::uuid[], $5::bigint[], $6::int[], $7::text[], $8::text[], $9::int[]) AS n (id, total, payees, account, value, approvals)`,
		s.ledger.Currency().Mint, by, run, batches, totals, counts, accounts, values, approvals)
	if err != nil {
		return err
	}
	if err := storePayouts(ctx, tx, drafts); err != nil {
		return err
	}
	if err := s.reserve(ctx, tx, drafts); err != nil {
		return err
	}
	if s.options.Manifests == nil {
		return nil
	}
	return s.seal(ctx, tx, drafts)
}

// seal stores the manifests, and the memos that they come to.
func (s *Service) seal(ctx context.Context, tx pgx.Tx, drafts []draft) error {
	batches, memos := make([]pgtype.UUID, len(drafts)), make([]string, len(drafts))
	for i, d := range drafts {
		memo, err := s.options.Manifests.Seal(ctx, tx, d.id)
		if err != nil {
			return fmt.Errorf("seal the manifest of batch %s: %w", d.id, err)
		}
		batches[i], memos[i] = uuidOf(d.id), memo
	}
	_, err := tx.Exec(ctx, `
		UPDATE payout_batches b SET memo = n.memo FROM unnest($1::uuid[], $2::text[]) AS n (id, memo) WHERE b.id = n.id`, batches, memos)
	return err
}

// storePayouts writes the batches' payouts in one statement, numbers each after its payee's last signed one, and takes the withdrawals.
func storePayouts(ctx context.Context, tx pgx.Tx, drafts []draft) error {
	n := 0
	for _, d := range drafts {
		n += len(d.payees)
	}
	batches, payouts, orgs, withdrawals := make([]pgtype.UUID, 0, n), make([]pgtype.UUID, 0, n), make([]pgtype.UUID, 0, n), make([]pgtype.UUID, 0, n)
	wallets, accounts, purposes := make([]string, 0, n), make([]string, 0, n), make([]string, 0, n)
	creates, amounts := make([]bool, 0, n), make([]int64, 0, n)
	taken := 0
	for _, d := range drafts {
		for _, p := range d.payees {
			batches, payouts, orgs = append(batches, uuidOf(d.id)), append(payouts, uuidOf(ids.New[ids.Payout]())), append(orgs, uuidOf(p.org))
			wallets, accounts, purposes = append(wallets, p.wallet.String()), append(accounts, p.tokenAccount.String()), append(purposes, p.purpose)
			creates, amounts = append(creates, p.createAccount), append(amounts, int64(p.amount))
			withdrawals = append(withdrawals, uuidOf(p.withdrawal))
			if !p.withdrawal.IsZero() {
				taken++
			}
		}
	}
	_, err := tx.Exec(ctx, `
		WITH n AS (
			SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::boolean[], $7::bigint[], $8::text[], $9::uuid[])
				AS n (batch_id, id, org_id, wallet, token_account, creates, amount, purpose, withdrawal_id)
		)
		INSERT INTO payouts (id, batch_id, payee_org_id, wallet, token_account, creates_account, amount, sequence, purpose, withdrawal_id)
		SELECT n.id, n.batch_id, n.org_id, n.wallet, n.token_account, n.creates, n.amount,
		       coalesce((SELECT max(p.sequence) FROM payouts p WHERE p.payee_org_id = n.org_id AND p.numbered), 0) + 1, n.purpose, n.withdrawal_id
		FROM n`, batches, payouts, orgs, wallets, accounts, creates, amounts, purposes, withdrawals)
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
func (s *Service) reserve(ctx context.Context, tx pgx.Tx, drafts []draft) error {
	var entries []ledger.Entry
	for _, d := range drafts {
		var legs []ledger.Leg
		for _, payee := range d.payees {
			if payee.purpose == PurposeEarnings {
				legs = append(legs, ledger.Leg{
					Debit: ledger.Of(ledger.OwnerPayable, payee.org), Credit: ledger.Of(ledger.PayoutInFlight, payee.org), Amount: payee.amount,
				})
			}
		}
		if len(legs) > 0 {
			entries = append(entries, ledger.Entry{
				Key: "payout_reserve:" + d.id.String(), Kind: ledger.KindPayoutReserve, Legs: legs, Refs: ledger.Refs{Batch: d.id},
				Memo: fmt.Sprintf("Reserved for payout batch %s", d.id),
			})
		}
	}
	_, err := s.ledger.PostAll(ctx, tx, entries)
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
	const seenRows = `(SELECT *, $6::uuid AS run_id FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::bigint[])
		AS u (org_id, purpose, reason, withdrawal_id, amount)) AS n`
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, draftLock); err != nil {
			return fmt.Errorf("store obstacles: %w", err)
		}
		for _, sql := range []string{
			`DELETE FROM payout_obstacles x USING ` + seenRows + ` WHERE x.org_id = n.org_id AND n.purpose = 'earnings' AND n.reason = ''`,
			`INSERT INTO payout_obstacles (org_id, reason)
			 SELECT n.org_id, n.reason FROM ` + seenRows + ` WHERE n.purpose = 'earnings' AND n.reason <> ''
			 ON CONFLICT (org_id) DO UPDATE SET reason = EXCLUDED.reason, checked_at = now()`,
			`UPDATE withdrawals w SET attention = n.reason FROM ` + seenRows + `
			 WHERE w.id = n.withdrawal_id AND w.state = 'requested' AND w.attention <> n.reason`,
			`INSERT INTO payout_run_payees (run_id, org_id, purpose, amount, reason)
			 SELECT DISTINCT ON (n.org_id, n.purpose) n.run_id, n.org_id, n.purpose, n.amount, n.reason FROM ` + seenRows + ` WHERE n.reason <> ''
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
