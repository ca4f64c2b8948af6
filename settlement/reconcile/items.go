package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/soljournal"
)

// The states of an item.
const (
	ItemOpen     = "open"
	ItemResolved = "resolved"
	ItemGone     = "gone" // no run sees it any more, and nobody had to say why
)

// The kinds of resolution.
const (
	PostedCorrection = "posted_correction"
	ChainExplained   = "chain_explained"
	Waived           = "waived"
)

// Item is a difference across runs: what it is, who looks into it and what came of it.
type Item struct {
	ID           ids.Difference
	Class        string
	Mint         string // of the amounts
	TokenAccount string
	Signature    string
	EntryKey     string
	State        string
	Present      bool // the newest run saw it
	Ledger       *money.Amount
	Chain        *money.Amount
	At           time.Time
	Text         string
	Owner        ids.User // who looks into it
	Note         string
	Resolution   string
	Reason       string
	ResolvedBy   ids.User
	FirstSeen    time.Time
	LastSeen     time.Time
	Changes      []Change // lists leave them out
}

// Change is a line of an item's history: what a person or a run did.
type Change struct {
	At   time.Time
	By   ids.User
	Run  ids.Reconciliation
	What string
}

// Filter chooses items. Zero fields choose all.
type Filter struct {
	State  string
	Owner  ids.User
	Before ids.Difference
	Limit  int
}

// Update says what to change about an item; nil leaves a field.
type Update struct {
	By         ids.User
	Owner      *ids.User // the zero user: nobody
	Note       *string
	Resolution *string // empty: open again
	Reason     string  // of the resolution
}

// updateItems brings the items up to what a run saw. An item that a person resolved stays so as long as the difference is the same one:
// seen in every run, with the same amounts and, if it is about an account and not a transaction, for the same reasons. What the run did not look
// at to the end is not gone: SOL that could not be read, is behind, was compared long ago, or is of
// a treasury from before.
func (s *Service) updateItems(ctx context.Context, tx pgx.Tx, run ids.Reconciliation, seen []difference, wallet *soljournal.State) error {
	whole := len(seen) <= MaxDifferences
	seen = seen[:min(len(seen), MaxDifferences)]
	known := map[[4]string]bool{}
	batch := &pgx.Batch{}
	for _, d := range seen {
		key := [4]string{d.class, d.account, d.signature, d.entry}
		if !known[key] {
			known[key] = true
			s.queueItem(batch, run, d)
		}
	}
	if whole {
		var looked string // whose SOL was looked at to the end
		var since *time.Time
		if wallet != nil && wallet.Whole() {
			looked, since = wallet.Wallet, timeOf(wallet.Since)
		}
		batch.Queue(`
			WITH gone AS (
				UPDATE difference_items SET present = false, state = CASE state WHEN 'open' THEN 'gone' ELSE state END, updated_at = now()
				WHERE (mint = $1 OR mint = $3 AND token_account = $4 AND ($5::timestamptz IS NULL OR occurred_at > $5)) AND present AND last_run <> $2 RETURNING id)
			INSERT INTO difference_changes (item_id, by_run, what) SELECT id, $2, 'not found any more' FROM gone`,
			s.ledger.Currency().Mint, run, soljournal.Currency.Mint, looked, since)
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("update differences: %w", err)
	}
	return nil
}

func (s *Service) queueItem(batch *pgx.Batch, run ids.Reconciliation, d difference) {
	batch.Queue(`
		WITH before AS (
			SELECT id, state, state = 'resolved' AND present AND ledger_amount IS NOT DISTINCT FROM $8::bigint
			                  AND chain_amount IS NOT DISTINCT FROM $9::bigint
			                  AND (explanation = $7 OR class <> 'chain_only' OR signature <> '') AS holds
			FROM difference_items WHERE mint = $2 AND class = $3 AND token_account = $4 AND signature = $5 AND entry_key = $6
		), item AS (
			INSERT INTO difference_items AS i (id, mint, class, token_account, signature, entry_key, explanation, ledger_amount, chain_amount,
			                                   occurred_at, first_run, last_run)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, coalesce($10, now()), $11, $11)
			ON CONFLICT (mint, class, token_account, signature, entry_key) DO UPDATE SET
				present = true, last_run = $11, last_seen_at = now(), updated_at = now(), explanation = $7, ledger_amount = $8, chain_amount = $9,
				state = CASE WHEN (SELECT holds FROM before) THEN i.state ELSE 'open' END,
				resolution = CASE WHEN (SELECT holds FROM before) THEN i.resolution ELSE '' END,
				reason = CASE WHEN (SELECT holds FROM before) THEN i.reason ELSE '' END,
				resolved_by = CASE WHEN (SELECT holds FROM before) THEN i.resolved_by END
			RETURNING id
		)
		INSERT INTO difference_changes (item_id, by_run, what)
		SELECT item.id, $11, CASE WHEN b.id IS NULL THEN 'found' WHEN b.state = 'gone' THEN 'opened again: it came back'
		                          ELSE 'opened again: it is not what was resolved' END
		FROM item LEFT JOIN before b ON b.id = item.id
		WHERE b.id IS NULL OR b.state = 'gone' OR (b.state = 'resolved' AND NOT b.holds)`,
		ids.New[ids.Difference](), s.mintOf(d), d.class, d.account, d.signature, d.entry, d.text, d.ledger, d.chain, timeOf(d.at), run)
}

const itemColumns = `id, class, mint, token_account, signature, entry_key, state, present, ledger_amount, chain_amount, occurred_at, explanation, owner_id,
	note, resolution, reason, resolved_by, first_seen_at, last_seen_at`

func scanItem(row pgx.CollectableRow) (i Item, err error) {
	err = row.Scan(&i.ID, &i.Class, &i.Mint, &i.TokenAccount, &i.Signature, &i.EntryKey, &i.State, &i.Present, &i.Ledger, &i.Chain, &i.At, &i.Text, &i.Owner,
		&i.Note, &i.Resolution, &i.Reason, &i.ResolvedBy, &i.FirstSeen, &i.LastSeen)
	return i, err
}

// Items is a page of differences, newest first.
func (s *Service) Items(ctx context.Context, f Filter) ([]Item, error) {
	if f.Limit <= 0 || f.Limit > MaxPage {
		f.Limit = MaxPage
	}
	rows, err := s.pool.Query(ctx, `
		SELECT `+itemColumns+` FROM difference_items
		WHERE mint = ANY ($1) AND ($2 = '' OR state = $2) AND ($3::uuid IS NULL OR owner_id = $3) AND ($4::uuid IS NULL OR id < $4)
		ORDER BY id DESC LIMIT $5`, s.mints(), f.State, f.Owner, f.Before, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("list differences: %w", err)
	}
	items, err := pgx.CollectRows(rows, scanItem)
	if err != nil {
		return nil, fmt.Errorf("list differences: %w", err)
	}
	return items, nil
}

// Item is one difference with its history, or errs.NotFound.
func (s *Service) Item(ctx context.Context, id ids.Difference) (Item, error) {
	item, err := readItem(ctx, s.pool, id, "")
	if err != nil {
		return Item{}, err
	}
	rows, err := s.pool.Query(ctx, `SELECT at, by_user, by_run, what FROM difference_changes WHERE item_id = $1 ORDER BY id`, id)
	if err != nil {
		return Item{}, fmt.Errorf("read a difference's history: %w", err)
	}
	if item.Changes, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Change]); err != nil {
		return Item{}, fmt.Errorf("read a difference's history: %w", err)
	}
	return item, nil
}

func readItem(ctx context.Context, db audit.Querier, id ids.Difference, lock string) (Item, error) {
	rows, err := db.Query(ctx, `SELECT `+itemColumns+` FROM difference_items WHERE id = $1 `+lock, id)
	if err != nil {
		return Item{}, fmt.Errorf("read a difference: %w", err)
	}
	item, err := pgx.CollectExactlyOneRow(rows, scanItem)
	if errors.Is(err, pgx.ErrNoRows) {
		return Item{}, errs.New(errs.NotFound, "there is no difference %s", id)
	}
	if err != nil {
		return Item{}, fmt.Errorf("read a difference: %w", err)
	}
	return item, nil
}

// UpdateItem changes an item, writes its history and the audit log, and returns it.
func (s *Service) UpdateItem(ctx context.Context, id ids.Difference, u Update) (Item, error) {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		item, err := readItem(ctx, tx, id, "FOR UPDATE")
		if err != nil {
			return err
		}
		changes, err := item.apply(u)
		if err != nil || len(changes) == 0 {
			return err
		}
		return storeUpdate(ctx, tx, item, u.By, changes)
	})
	if err != nil {
		return Item{}, err
	}
	return s.Item(ctx, id)
}

// apply makes the changes of an update and says them in words.
func (i *Item) apply(u Update) ([]string, error) {
	var changes []string
	if u.Owner != nil && *u.Owner != i.Owner {
		i.Owner = *u.Owner
		what := "assigned to " + i.Owner.String()
		if i.Owner.IsZero() {
			what = "assigned to nobody"
		}
		changes = append(changes, what)
	}
	if u.Note != nil && *u.Note != i.Note {
		i.Note = *u.Note
		changes = append(changes, "note: "+i.Note)
	}
	switch {
	case u.Resolution == nil:
	case i.State == ItemGone:
		return nil, errs.New(errs.Conflict, "the difference is gone already: there is nothing to resolve")
	case *u.Resolution == "" && i.State == ItemResolved:
		i.State, i.Resolution, i.Reason, i.ResolvedBy = ItemOpen, "", "", ids.User{}
		changes = append(changes, "opened again")
	case *u.Resolution != "":
		if u.Reason == "" {
			return nil, errs.InvalidField("body.reason", "say why: a resolution needs a reason")
		}
		i.State, i.Resolution, i.Reason, i.ResolvedBy = ItemResolved, *u.Resolution, u.Reason, u.By
		changes = append(changes, "resolved as "+i.Resolution+": "+i.Reason)
	}
	return changes, nil
}

func storeUpdate(ctx context.Context, tx pgx.Tx, item Item, by ids.User, changes []string) error {
	_, err := tx.Exec(ctx, `
		UPDATE difference_items SET owner_id = $2, note = $3, state = $4, resolution = $5, reason = $6, resolved_by = $7, updated_at = now()
		WHERE id = $1`, item.ID, item.Owner, item.Note, item.State, item.Resolution, item.Reason, item.ResolvedBy)
	if err != nil {
		return fmt.Errorf("store a difference: %w", err)
	}
	_, err = tx.Exec(ctx, `INSERT INTO difference_changes (item_id, by_user, what) SELECT $1, $2, unnest($3::text[])`, item.ID, by, changes)
	if err != nil {
		return fmt.Errorf("store a difference's history: %w", err)
	}
	return audit.Record(ctx, tx, audit.Event{By: by, Action: "difference.update", Subject: item.ID.String(), Details: map[string][]string{"changes": changes}})
}
