package reconcile

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// The kinds of holdings.
const (
	KindSettlement = "settlement"
	KindForeign    = "foreign"
)

// maxLinked is how many arrivals in suspense a holding lists.
const maxLinked = 10

// wallets are all of ours: the treasury's, then deposit wallets that have tokens of the platform's mint to be explained, then the others,
// those not asked for longest first.
func (s *Service) wallets(ctx context.Context) ([]wallet, error) {
	wallets := []wallet{{address: s.config.Wallet, mirrored: s.config.Treasury}}
	rows, err := s.pool.Query(ctx, `
		SELECT d.wallet, d.token_account,
		       d.wallet IN (SELECT h.wallet FROM holdings h WHERE h.mint = $1 AND h.amount > 0)
		       OR d.wallet IN (SELECT a.wallet FROM watched_accounts a JOIN deposits p USING (token_account)
		                       WHERE p.disposition = 'suspense' AND p.mint = $1 AND a.token_account NOT IN (SELECT token_account FROM deposit_addresses)
		                         AND a.token_account NOT IN (SELECT token_account FROM holdings)) AS urgent
		FROM deposit_addresses d LEFT JOIN holding_wallets w ON w.wallet = d.wallet
		ORDER BY urgent DESC, w.asked_at NULLS FIRST, d.wallet`, s.ledger.Currency().Mint)
	if err != nil {
		return nil, fmt.Errorf("list wallets: %w", err)
	}
	var address, account string
	var w wallet
	_, err = pgx.ForEachRow(rows, []any{&address, &account, &w.urgent}, func() (err error) {
		if w.address, err = chain.ParseAddress(address); err != nil {
			return err
		}
		if w.mirrored, err = chain.ParseAddress(account); err != nil {
			return err
		}
		wallets = append(wallets, w)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list wallets: %w", err)
	}
	return wallets, nil
}

// knownHoldings are the accounts of some wallets that were seen before, by a run or when something arrived there.
func (s *Service) knownHoldings(ctx context.Context, wallets []wallet) (map[chain.Address]bool, error) {
	texts := make([]string, len(wallets))
	for i, w := range wallets {
		texts[i] = w.address.String()
	}
	rows, err := s.pool.Query(ctx, `
		SELECT token_account FROM holdings WHERE wallet = ANY ($1)
		UNION SELECT a.token_account FROM watched_accounts a JOIN deposits p USING (token_account)
		WHERE a.wallet = ANY ($1) AND p.mint = $2 AND p.disposition = 'suspense'`, texts, s.ledger.Currency().Mint)
	if err != nil {
		return nil, fmt.Errorf("list holdings: %w", err)
	}
	known := map[chain.Address]bool{}
	var text string
	_, err = pgx.ForEachRow(rows, []any{&text}, func() error {
		address, err := chain.ParseAddress(text)
		known[address] = true
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list holdings: %w", err)
	}
	return known, nil
}

// knownDecimals are those of mints that were seen before.
func (s *Service) knownDecimals(ctx context.Context, mints map[chain.Address]bool) (map[chain.Address]int, error) {
	texts := make([]string, 0, len(mints))
	for mint := range mints {
		texts = append(texts, mint.String())
	}
	rows, err := s.pool.Query(ctx, `SELECT DISTINCT mint, decimals FROM holdings WHERE mint = ANY ($1)`, texts)
	if err != nil {
		return nil, fmt.Errorf("list mints: %w", err)
	}
	known := map[chain.Address]int{}
	var text string
	var decimals int
	_, err = pgx.ForEachRow(rows, []any{&text, &decimals}, func() error {
		address, err := chain.ParseAddress(text)
		known[address] = decimals
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list mints: %w", err)
	}
	return known, nil
}

// noteHoldings stores what a survey saw, and returns what is to be explained of it and how far the survey went.
func (s *Service) noteHoldings(ctx context.Context, seen survey) (differences []difference, how Survey, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		for _, a := range seen.asked {
			queueAsked(batch, a, seen.decimals, s.ledger.Currency().Mint)
		}
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		if err := s.noteClosed(ctx, tx, seen.asked); err != nil {
			return err
		}
		if differences, err = s.unexplained(ctx, tx); err != nil {
			return err
		}
		unread, err := unreadWallets(ctx, tx)
		if err != nil {
			return err
		}
		differences = append(differences, unread...)
		how, err = s.surveyed(ctx, tx, seen)
		return err
	})
	if err != nil {
		return nil, Survey{}, fmt.Errorf("store holdings: %w", err)
	}
	return append(differences, seen.touched...), how, nil
}

// queueAsked stores a wallet's answer. One that could not be read changes nothing of what is known. What was there before and is not any more has nothing left; of foreign tokens that is known only
// if all accounts could be listed. An account can come back for another mint: whoever kept its address' key may close it and open it again.
func queueAsked(batch *pgx.Batch, a asked, decimals map[chain.Address]int, mint string) {
	wallet := a.address.String()
	batch.Queue(`
		INSERT INTO holding_wallets AS w (wallet, left_out, too_many, unread_since) VALUES ($1, $2, $3, CASE WHEN $4 THEN now() END)
		ON CONFLICT (wallet) DO UPDATE SET
			asked_at = now(), left_out = excluded.left_out, too_many = excluded.too_many,
			unread_since = CASE WHEN $4 THEN coalesce(w.unread_since, now()) END`, wallet, a.leftOut, a.tooMany, a.unread)
	if a.unread {
		return
	}
	there := make([]string, len(a.kept))
	for i, t := range a.kept {
		there[i] = t.Address.String()
		batch.Queue(`
			INSERT INTO holdings AS h (id, token_account, wallet, mint, program, decimals, amount, frozen, delegate, delegated, close_authority, slot)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
			ON CONFLICT (token_account) DO UPDATE SET
				wallet = excluded.wallet, mint = excluded.mint, program = excluded.program, decimals = excluded.decimals, amount = excluded.amount,
				present = true, frozen = excluded.frozen, delegate = excluded.delegate, delegated = excluded.delegated,
				close_authority = excluded.close_authority, slot = excluded.slot, last_seen_at = now(),
				changed_at = CASE WHEN (h.mint, h.amount) <> (excluded.mint, excluded.amount) THEN now() ELSE h.changed_at END`,
			ids.New[ids.Holding](), there[i], wallet, t.Mint.String(), programs[t.Program], decimals[t.Mint], numeric(t.Amount), t.Frozen,
			address(t.Delegate), numeric(t.Delegated), address(t.CloseAuthority), int64(max(a.slot, t.Slot)))
	}
	batch.Queue(`
		UPDATE holdings SET amount = 0, present = false, slot = $3, changed_at = CASE WHEN amount > 0 THEN now() ELSE changed_at END
		WHERE wallet = $1 AND present AND token_account <> ALL ($2) AND (mint = $4 OR NOT $5)`, wallet, there, int64(a.slot), mint, a.tooMany)
}

// noteClosed stores the accounts for which the ledger has tokens of ours in suspense and which were gone before a survey saw them, so that
// they are a difference, and so that their wallet need not be asked before others because of them any more.
func (s *Service) noteClosed(ctx context.Context, tx pgx.Tx, answers []asked) error {
	wallets, mirrored, slots := make([]string, len(answers)), make([]string, len(answers)), make([]int64, len(answers))
	for i, a := range answers {
		wallets[i], mirrored[i], slots[i] = a.address.String(), a.mirrored.String(), int64(a.slot)
	}
	rows, err := tx.Query(ctx, `
		SELECT a.token_account, w.wallet, w.slot, (SELECT o.program FROM watched_accounts o WHERE o.mint = $4 LIMIT 1)
		FROM unnest($1::text[], $2::text[], $3::bigint[]) AS w (wallet, mirrored, slot) JOIN watched_accounts a ON a.wallet = w.wallet
		WHERE a.token_account <> w.mirrored AND NOT EXISTS (SELECT 1 FROM holdings h WHERE h.token_account = a.token_account)
			AND EXISTS (SELECT 1 FROM deposits p WHERE p.token_account = a.token_account AND p.disposition = 'suspense' AND p.mint = $4 AND p.slot <= w.slot)`,
		wallets, mirrored, slots, s.ledger.Currency().Mint)
	if err != nil {
		return err
	}
	batch := &pgx.Batch{}
	var account, wallet, program string
	var slot int64
	_, err = pgx.ForEachRow(rows, []any{&account, &wallet, &slot, &program}, func() error {
		address, err := chain.ParseAddress(program)
		batch.Queue(`
			INSERT INTO holdings (id, token_account, wallet, mint, program, decimals, amount, present, slot) VALUES ($1, $2, $3, $4, $5, $6, 0, false, $7)`,
			ids.New[ids.Holding](), account, wallet, s.ledger.Currency().Mint, programs[address], s.ledger.Currency().Decimals, slot)
		return err
	})
	if err != nil || batch.Len() == 0 {
		return err
	}
	return tx.SendBatch(ctx, batch).Close()
}

// numeric is a number that may be too great for a bigint.
func numeric(units uint64) pgtype.Numeric {
	return pgtype.Numeric{Int: new(big.Int).SetUint64(units), Valid: true}
}

// unexplained are the differences about accounts of our token that the ledger does not mirror. What they hold is one, whether it is in
// suspense or not: nothing pays out of them. What the ledger has in suspense for one and it does not hold is another, also if the account
// is of another mint by now.
func (s *Service) unexplained(ctx context.Context, tx pgx.Tx) ([]difference, error) {
	rows, err := tx.Query(ctx, `
		SELECT h.token_account, h.wallet, CASE h.mint WHEN $1 THEN least(h.amount, 9223372036854775807)::bigint ELSE 0 END,
		       h.frozen, h.delegate, h.delegated::text, h.close_authority,
		       h.first_seen_at, b.amount
		FROM holdings h CROSS JOIN LATERAL (
			SELECT coalesce(sum(CASE WHEN t.debit_account = a.id THEN t.amount ELSE -t.amount END), 0)::bigint AS amount
			FROM deposits p JOIN ledger_entries e ON e.deposit_id = p.id JOIN ledger_transfers t ON t.entry_id = e.id
			JOIN ledger_accounts a ON a.kind = 'chain_suspense' AND a.mint = $1 AND a.id IN (t.debit_account, t.credit_account)
			WHERE p.disposition = 'suspense' AND p.token_account = h.token_account AND p.mint = $1 AND p.slot <= h.slot) b
		WHERE (h.mint = $1 OR h.token_account IN (SELECT token_account FROM deposits WHERE disposition = 'suspense' AND mint = $1))
			AND (h.mint = $1 AND h.amount > 0 OR b.amount > 0) ORDER BY h.id`, s.ledger.Currency().Mint)
	if err != nil {
		return nil, err
	}
	var found []difference
	var account, wallet, delegate, delegated, closer string
	var held, booked money.Amount
	var frozen bool
	var since time.Time
	_, err = pgx.ForEachRow(rows, []any{&account, &wallet, &held, &frozen, &delegate, &delegated, &closer, &since, &booked}, func() error {
		d := difference{class: ChainOnly, account: account, at: since}
		if held > 0 {
			d.chain = new(held)
			d.text = s.furtherText(wallet, held, booked, marks(frozen, delegate, delegated, closer))
			found = append(found, d)
		}
		if missing := booked - held; missing > 0 {
			d.class, d.chain, d.ledger = LedgerOnly, new(held), new(booked)
			d.text = fmt.Sprintf("the ledger has %s in suspense for this account of the wallet %s, and %s of it is not there: find the transaction that took it out, and correct the ledger",
				s.ledger.Currency().Text(booked), wallet, s.ledger.Currency().Text(missing))
			found = append(found, d)
		}
		return nil
	})
	return found, err
}

// unreadWallets are a difference each: nobody knows what their accounts of our token hold.
func unreadWallets(ctx context.Context, tx pgx.Tx) ([]difference, error) {
	rows, err := tx.Query(ctx, `SELECT wallet, unread_since FROM holding_wallets WHERE unread_since IS NOT NULL ORDER BY wallet`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (difference, error) {
		d := difference{class: ChainOnly}
		err := row.Scan(&d.account, &d.at)
		d.text = fmt.Sprintf("the wallet %s has more accounts of this token than can be read, so that nobody knows what they hold; "+
			"its mirrored account is compared all the same. Look at the wallet with a tool that lists them page by page, and move what there is", d.account)
		return d, err
	})
}

func (s *Service) furtherText(wallet string, held, booked money.Amount, marks []string) string {
	suspense := "none of it is in suspense"
	if booked > 0 {
		suspense = s.ledger.Currency().Text(min(booked, held)) + " of it is in suspense"
	}
	text := fmt.Sprintf("the wallet %s has a further account of this token, which holds %s; %s. Nothing pays out of it or sweeps it: move it, or explain it here",
		wallet, s.ledger.Currency().Text(held), suspense)
	return strings.Join(append([]string{text}, marks...), "; ")
}

// surveyed counts what is known now.
func (s *Service) surveyed(ctx context.Context, tx pgx.Tx, seen survey) (Survey, error) {
	how := Survey{Wallets: seen.wallets, Asked: len(seen.asked)}
	err := tx.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE mint = $1), count(*) FILTER (WHERE mint <> $1),
		       (SELECT coalesce(sum(left_out), 0)::bigint FROM holding_wallets), (SELECT count(*) FROM holding_wallets WHERE too_many)
		FROM holdings WHERE amount > 0`, s.ledger.Currency().Mint).Scan(&how.Settlement, &how.Foreign, &how.LeftOut, &how.TooMany)
	return how, err
}

// queueSurvey stores how far a run has looked.
func queueSurvey(batch *pgx.Batch, run ids.Reconciliation, how Survey) {
	batch.Queue(`
		INSERT INTO reconciliation_surveys (reconciliation_id, wallets, asked, settlement, foreign_tokens, left_out, too_many)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`, run, how.Wallets, how.Asked, how.Settlement, how.Foreign, how.LeftOut, how.TooMany)
}

// readSurvey is how far a run has looked, nil if it did not.
func (s *Service) readSurvey(ctx context.Context, run ids.Reconciliation) (*Survey, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT wallets, asked, settlement, foreign_tokens, left_out, too_many FROM reconciliation_surveys WHERE reconciliation_id = $1`, run)
	if err != nil {
		return nil, fmt.Errorf("read a survey: %w", err)
	}
	how, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByPos[Survey])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // nil is a survey that was not made
	}
	if err != nil {
		return nil, fmt.Errorf("read a survey: %w", err)
	}
	return how, nil
}

// Holdings is a page of token accounts beside the mirrored ones, newest first.
func (s *Service) Holdings(ctx context.Context, f HoldingFilter) ([]Holding, error) {
	if f.Limit <= 0 || f.Limit > MaxPage {
		f.Limit = MaxPage
	}
	rows, err := s.pool.Query(ctx, `
		SELECT h.id, h.mint = $1, h.token_account, h.wallet, d.org_id, coalesce(o.name, ''), h.mint, h.program, h.decimals, h.amount::text,
		       p.amount::text, p.ids, h.present, h.frozen, h.delegate, h.close_authority, h.first_seen_at, h.last_seen_at, h.changed_at, i.id
		FROM holdings h LEFT JOIN deposit_addresses d ON d.wallet = h.wallet LEFT JOIN organisations o ON o.id = d.org_id
		LEFT JOIN difference_items i ON i.mint = $1 AND i.class = 'chain_only' AND i.token_account = h.token_account AND i.signature = ''
			AND i.entry_key = '' AND i.state <> 'gone'
		CROSS JOIN LATERAL (
			SELECT coalesce(sum(p.amount), 0) AS amount, coalesce((array_agg(p.id ORDER BY p.id DESC))[1:$5::int], '{}') AS ids
			FROM deposits p WHERE p.disposition = 'suspense' AND p.token_account = h.token_account AND p.mint = h.mint) p
		WHERE ($2 = '' OR (h.mint = $1) = ($2 = 'settlement')) AND ($3::uuid IS NULL OR h.id < $3)
		ORDER BY h.id DESC LIMIT $4`, s.ledger.Currency().Mint, f.Kind, f.Before, f.Limit, maxLinked)
	if err != nil {
		return nil, fmt.Errorf("list holdings: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Holding, err error) {
		err = row.Scan(&h.ID, &h.Settlement, &h.TokenAccount, &h.Wallet, &h.Org, &h.Customer, &h.Mint, &h.Program, &h.Decimals, &h.Amount,
			&h.InSuspense, &h.Deposits, &h.Present, &h.Frozen, &h.Delegate, &h.CloseAuthority, &h.FirstSeen, &h.LastSeen, &h.ChangedAt, &h.Difference)
		h.Amount, h.InSuspense = money.Decimal(h.Amount, h.Decimals), money.Decimal(h.InSuspense, h.Decimals)
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("list holdings: %w", err)
	}
	return list, nil
}
