package payouts

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/signer"
)

// pin is a free nonce and its present value.
type pin struct {
	account chain.Address
	value   chain.Hash
}

// Draft makes batches of everything that is payable now, as far as there are free nonces; the rest waits for the next draft.
// Payees with an obstacle are left out, with the reason, as Payable shows. Nothing to pay is no batches and no error. The zero
// user drafts in the platform's name.
func (s *Service) Draft(ctx context.Context, by ids.User) ([]ids.Batch, error) {
	keys, err := s.signer.Addresses(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "cannot draft", "error", err)
		return nil, errs.New(errs.Unavailable, "the signer does not answer, so nothing can be drafted; try again")
	}
	if keys.Mint.String() != s.ledger.Currency().Mint {
		return nil, errs.New(errs.Conflict, "the signer's policy is for the token %s, the ledger counts %s", keys.Mint, s.ledger.Currency().Mint)
	}
	candidates, err := s.candidates(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.preflight(ctx, candidates, keys); err != nil {
		s.log.WarnContext(ctx, "cannot draft", "error", err, "alarm", chain.IsAlarm(err))
		return nil, errs.New(errs.Unavailable, "the chain does not answer, so nothing can be drafted; try again")
	}
	free, _ := payable(candidates)
	groups := plan(free, money.Amount(min(keys.MaxBaseUnitsPerBatch, 1<<62)))
	pins, err := s.freeNonces(ctx, keys)
	if err != nil {
		return nil, err
	}
	if len(groups) > 0 && len(pins) == 0 {
		return nil, errs.New(errs.Conflict, "every nonce is held by a batch that has not ended; finish those, or give the signer more nonces")
	}
	groups = groups[:min(len(groups), len(pins), MaxBatchesPerDraft)]
	return s.storeDraft(ctx, by, candidates, groups, pins)
}

// candidates are the organisations that Draft would pay if nothing on the chain stood against it.
func (s *Service) candidates(ctx context.Context) ([]candidate, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT o.id, o.name, a.balance, o.payout_address
		FROM ledger_accounts a JOIN organisations o ON o.id = a.org_id
		WHERE a.kind = $1 AND a.mint = $2 AND a.balance >= $3 AND o.payout_address IS NOT NULL
		  AND NOT EXISTS (SELECT 1 FROM payouts p WHERE p.payee_org_id = o.id AND p.live)
		ORDER BY a.balance DESC, o.id LIMIT $4`, ledger.OwnerPayable, s.ledger.Currency().Mint, s.options.Minimum, maxCandidates)
	if err != nil {
		return nil, fmt.Errorf("read payable balances: %w", err)
	}
	candidates, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c candidate, err error) {
		err = row.Scan(&c.org, &c.name, &c.amount, &c.address)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("read payable balances: %w", err)
	}
	return candidates, nil
}

// freeNonces reads the nonces that no live batch holds and whose present value was never pinned.
func (s *Service) freeNonces(ctx context.Context, keys signer.Addresses) ([]pin, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT nonce_account FROM payout_batches WHERE state IN ('draft', 'approved', 'signed', 'sent', 'frozen')`)
	if err != nil {
		return nil, fmt.Errorf("read held nonces: %w", err)
	}
	held, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read held nonces: %w", err)
	}
	var pins []pin
	for _, account := range keys.Nonces {
		if slices.Contains(held, account.String()) {
			continue
		}
		nonce, err := s.chain.Nonce(ctx, chain.Finalized, 0, account)
		if err != nil || nonce.Authority != keys.Treasury {
			s.log.WarnContext(ctx, "nonce cannot be used", "nonce_account", account, "authority", nonce.Authority, "error", err)
			continue
		}
		pins = append(pins, pin{account: account, value: nonce.Value})
	}
	return pins, nil
}

func (s *Service) storeDraft(ctx context.Context, by ids.User, seen []candidate, groups []group, pins []pin) ([]ids.Batch, error) {
	batches := make([]ids.Batch, len(groups))
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, draftLock); err != nil {
			return err
		}
		if err := storeObstacles(ctx, tx, seen); err != nil {
			return err
		}
		for i, g := range groups {
			batches[i] = ids.New[ids.Batch]()
			if err := s.storeBatch(ctx, tx, batches[i], by, g, pins[i]); err != nil {
				return err
			}
		}
		return nil
	})
	var pg *pgconn.PgError
	switch {
	case err == nil:
	case errors.As(err, &pg) && pg.Code == uniqueViolation, errs.CodeOf(err) == errs.InsufficientFunds:
		return nil, errs.New(errs.Conflict, "another draft was made at the same moment; look at the batches and try again")
	default:
		return nil, fmt.Errorf("store draft: %w", err)
	}
	for i, g := range groups {
		s.log.InfoContext(ctx, "batch drafted", "batch_id", batches[i], "payees", len(g.payees), "total", g.total)
	}
	return batches, nil
}

const uniqueViolation = "23505"

func (s *Service) storeBatch(ctx context.Context, tx pgx.Tx, id ids.Batch, by ids.User, g group, at pin) error {
	currency := s.ledger.Currency()
	_, err := tx.Exec(ctx, `
		INSERT INTO payout_batches (id, mint, total, payee_count, nonce_account, nonce_value, drafted_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		id, currency.Mint, g.total, len(g.payees), at.account.String(), at.value.String(), by)
	if err != nil {
		return err
	}
	legs := make([]ledger.Leg, len(g.payees))
	for i, payee := range g.payees {
		_, err := tx.Exec(ctx, `
			INSERT INTO payouts (id, batch_id, payee_org_id, wallet, token_account, creates_account, amount, sequence)
			SELECT $1, $2, $3, $4, $5, $6, $7,
			       coalesce((SELECT max(sequence) FROM payouts WHERE payee_org_id = $3 AND signed), 0) + 1`,
			ids.New[ids.Payout](), id, payee.org, payee.wallet.String(), payee.tokenAccount.String(), payee.createAccount, payee.amount)
		if err != nil {
			return err
		}
		legs[i] = ledger.Leg{
			Debit: ledger.Of(ledger.OwnerPayable, payee.org), Credit: ledger.Of(ledger.PayoutInFlight, payee.org), Amount: payee.amount,
		}
	}
	_, err = s.ledger.Post(ctx, tx, ledger.Entry{
		Key: "payout_reserve:" + id.String(), Kind: ledger.KindPayoutReserve, Legs: legs, Refs: ledger.Refs{Batch: id},
		Memo: fmt.Sprintf("Reserved for payout batch %s", id),
	})
	return err
}

// storeObstacles replaces what is known about payees that cannot be paid.
func storeObstacles(ctx context.Context, tx pgx.Tx, seen []candidate) error {
	for _, c := range seen {
		var err error
		if c.obstacle == "" {
			_, err = tx.Exec(ctx, `DELETE FROM payout_obstacles WHERE org_id = $1`, c.org)
		} else {
			_, err = tx.Exec(ctx, `
				INSERT INTO payout_obstacles (org_id, reason) VALUES ($1, $2)
				ON CONFLICT (org_id) DO UPDATE SET reason = EXCLUDED.reason, checked_at = now()`, c.org, c.obstacle)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Approve lets a draft be paid. Who drafted a batch cannot approve it.
func (s *Service) Approve(ctx context.Context, id ids.Batch, by ids.User) error {
	if by.IsZero() {
		return errs.New(errs.Forbidden, "a batch is approved by a person")
	}
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		state, draftedBy, err := lockBatch(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case state != stateDraft:
			return errs.New(errs.Conflict, "the batch is %s already; only a draft can be approved", state)
		case draftedBy == by && !s.options.SelfApproval:
			return errs.New(errs.Forbidden, "you drafted this batch: somebody else must approve it")
		}
		_, err = tx.Exec(ctx, `
			UPDATE payout_batches SET state = 'approved', approved_by = $2, approved_at = now(), due_at = now() WHERE id = $1`, id, by)
		if err != nil {
			return fmt.Errorf("approve batch: %w", err)
		}
		if _, err = tx.Exec(ctx, `SELECT pg_notify($1, '')`, pgnotify.ChannelSettlement); err != nil {
			return fmt.Errorf("approve batch: %w", err)
		}
		return nil
	})
}

// Cancel drops a batch that nobody was asked to sign yet; its payees are payable again.
func (s *Service) Cancel(ctx context.Context, id ids.Batch, reason string) error {
	if reason == "" || len(reason) > maxReason {
		return errs.InvalidField("reason", "say why the batch is cancelled, in at most %d characters", maxReason)
	}
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		state, _, err := lockBatch(ctx, tx, id)
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `
			UPDATE payout_batches SET state = 'cancelled', state_reason = $2, attention = ''
			WHERE id = $1 AND state IN ('draft', 'approved') AND signing_started_at IS NULL`, id, reason)
		if err != nil {
			return fmt.Errorf("cancel batch: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errs.New(errs.Conflict, "the batch is %s and may be signed: it can no longer be cancelled", state)
		}
		return s.returnMoney(ctx, tx, id, "")
	})
}

func lockBatch(ctx context.Context, tx pgx.Tx, id ids.Batch) (state string, draftedBy ids.User, err error) {
	err = tx.QueryRow(ctx, `SELECT state, drafted_by FROM payout_batches WHERE id = $1 FOR UPDATE`, id).Scan(&state, &draftedBy)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", draftedBy, errs.New(errs.NotFound, "there is no batch %s", id)
	}
	if err != nil {
		return "", draftedBy, fmt.Errorf("lock batch: %w", err)
	}
	return state, draftedBy, nil
}
