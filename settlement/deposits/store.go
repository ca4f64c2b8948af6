package deposits

import (
	"context"
	"fmt"
	"math/big"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// MaxPage bounds a page of deposits.
const MaxPage = 200

// Deposit is an arrival of tokens as people see it.
type Deposit struct {
	ID        ids.Deposit
	Org       ids.Org // zero: arrived at the treasury's wallet
	Customer  string  // the organisation's name
	At        time.Time
	Amount    string // decimal text, in the token that came
	Mint      string
	State     string // credited, suspense or capital
	Reason    string // why it is in suspense
	Signature string
	Sender    string // the wallet that it came from; empty: not known

	// Of one in suspense, once a person has decided.
	Outcome   string // credited, kept, refunded or held; empty: it waits
	Note      string
	DecidedBy ids.User
	DecidedAt time.Time
	Refund    *Refund // of a refunded one
}

// Deposits lists what an organisation sent, newest first: those before a cursor, which may be zero.
func (s *Service) Deposits(ctx context.Context, org ids.Org, before ids.Deposit, limit int) ([]Deposit, error) {
	return s.list(ctx, `p.org_id = $1`, org, before, limit)
}

// Suspense lists everything that could not be credited when it came, newest first, with what was decided about it.
func (s *Service) Suspense(ctx context.Context, before ids.Deposit, limit int) ([]Deposit, error) {
	return s.list(ctx, `disposition = 'suspense' AND $1::uuid IS NULL`, ids.Org{}, before, limit)
}

func (s *Service) list(ctx context.Context, where string, org ids.Org, before ids.Deposit, limit int, more ...any) ([]Deposit, error) {
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	rows, err := s.pool.Query(ctx, `
		SELECT p.id, p.org_id, coalesce(c.name, ''), coalesce(block_time, found_at), p.amount::text, decimals, p.mint, disposition, reason, signature,
		       coalesce(sender, ''), coalesce(d.outcome, ''), coalesce(d.note, ''), d.decided_by, d.decided_at,
		       w.id, coalesce(w.wallet, ''), coalesce(w.state, ''), coalesce(w.attention, ''),
		       (SELECT o.batch_id FROM payouts o WHERE o.withdrawal_id = w.id ORDER BY o.id DESC LIMIT 1)
		FROM deposits p LEFT JOIN suspense_decisions d ON d.deposit_id = p.id LEFT JOIN withdrawals w ON w.id = d.refund_id
			LEFT JOIN organisations c ON c.id = p.org_id
		WHERE `+where+` AND ($2::uuid IS NULL OR p.id < $2)
		ORDER BY p.id DESC LIMIT $3`, append([]any{org, before, limit}, more...)...)
	if err != nil {
		return nil, fmt.Errorf("list deposits: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Deposit, error) {
		var d Deposit
		var r Refund
		var decimals int
		var decided *time.Time
		err := row.Scan(&d.ID, &d.Org, &d.Customer, &d.At, &d.Amount, &decimals, &d.Mint, &d.State, &d.Reason, &d.Signature,
			&d.Sender, &d.Outcome, &d.Note, &d.DecidedBy, &decided, &r.ID, &r.Wallet, &r.State, &r.Attention, &r.Batch)
		d.Amount = money.Decimal(d.Amount, decimals)
		if decided != nil {
			d.DecidedAt = *decided
		}
		if !r.ID.IsZero() {
			d.Refund = &r
		}
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("list deposits: %w", err)
	}
	return list, nil
}

// wallets are the wallets whose token accounts we watch, and whose they are; the treasury's is nobody's.
func (s *Service) wallets(ctx context.Context) (map[chain.Address]ids.Org, error) {
	rows, err := s.pool.Query(ctx, `SELECT wallet, org_id FROM deposit_addresses`)
	if err != nil {
		return nil, fmt.Errorf("list deposit addresses: %w", err)
	}
	wallets := map[chain.Address]ids.Org{s.config.Treasury: {}}
	var text string
	var org ids.Org
	_, err = pgx.ForEachRow(rows, []any{&text, &org}, func() error {
		wallet, err := chain.ParseAddress(text)
		wallets[wallet] = org
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list deposit addresses: %w", err)
	}
	return wallets, nil
}

func (s *Service) watchedAccounts(ctx context.Context) ([]watched, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT token_account, wallet, org_id, mint, program, decimals, cursor_slot FROM watched_accounts ORDER BY token_account`)
	if err != nil {
		return nil, fmt.Errorf("list watched accounts: %w", err)
	}
	accounts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (watched, error) {
		var w watched
		var texts [4]string
		if err := row.Scan(&texts[0], &texts[1], &w.org, &texts[2], &texts[3], &w.decimals, &w.cursor.Slot); err != nil {
			return w, err
		}
		for i, target := range []*chain.Address{&w.account, &w.wallet, &w.mint, &w.program} {
			address, err := chain.ParseAddress(texts[i])
			if err != nil {
				return w, err
			}
			*target = address
		}
		return w, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list watched accounts: %w", err)
	}
	return accounts, nil
}

func watch(ctx context.Context, tx pgx.Tx, w watched) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO watched_accounts (token_account, wallet, org_id, mint, program, decimals) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (token_account) DO NOTHING`,
		w.account.String(), w.wallet.String(), w.org, w.mint.String(), w.program.String(), w.decimals)
	if err != nil {
		return fmt.Errorf("watch token account %s: %w", w.account, err)
	}
	return nil
}

// known are the signatures among movements that are recorded already, here or as our own sweeps.
func (s *Service) known(ctx context.Context, w watched, movements []chain.Movement) (map[string]bool, error) {
	signatures := make([]string, len(movements))
	for i, m := range movements {
		signatures[i] = m.Signature.String()
	}
	rows, err := s.pool.Query(ctx, `
		SELECT signature FROM deposits WHERE token_account = $1 AND signature = ANY ($2)
		UNION ALL SELECT signature FROM deposit_sweeps WHERE signature = ANY ($2)`, w.account.String(), signatures)
	if err != nil {
		return nil, fmt.Errorf("look for recorded deposits: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for recorded deposits: %w", err)
	}
	known := make(map[string]bool, len(found))
	for _, signature := range found {
		known[signature] = true
	}
	return known, nil
}

// insertDeposit reports false if the arrival is recorded already.
func insertDeposit(ctx context.Context, tx pgx.Tx, a arrival) (bool, error) {
	var blockTime *time.Time
	if !a.BlockTime.IsZero() {
		blockTime = &a.BlockTime
	}
	var sender *string
	if from := a.sender(a.Movement); !from.IsZero() {
		sender = new(from.String())
	}
	tag, err := tx.Exec(ctx, `
		INSERT INTO deposits (id, org_id, signature, token_account, mint, decimals, amount, slot, disposition, reason, block_time, sender)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (signature, token_account) DO NOTHING`,
		a.id, a.org, a.Signature.String(), a.account.String(), a.Mint.String(), a.decimals,
		pgtype.Numeric{Int: new(big.Int).SetUint64(a.Received()), Valid: true}, int64(a.Slot),
		a.disposition, a.reason, blockTime, sender)
	if err != nil {
		return false, fmt.Errorf("insert deposit: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// moveCursor never moves it back: two processes may poll at once.
func (s *Service) moveCursor(ctx context.Context, f fence, w watched, to chain.Cursor) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := f.check(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			UPDATE watched_accounts SET cursor_slot = greatest(cursor_slot, $2), polled_at = now() WHERE token_account = $1`,
			w.account.String(), int64(to.Slot))
		if err != nil {
			return fmt.Errorf("move the cursor of %s: %w", w.account, err)
		}
		return nil
	})
}
