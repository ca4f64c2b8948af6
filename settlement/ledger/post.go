package ledger

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// MaxEntries bounds one PostAll.
const MaxEntries = 1000

// Ledger posts and reads the accounts of one currency. It holds no state and is safe for concurrent use.
type Ledger struct{ currency money.Currency }

// New makes a ledger of one currency.
func New(currency money.Currency) *Ledger { return &Ledger{currency: currency} }

// Currency is the one that the ledger was made for.
func (l *Ledger) Currency() money.Currency { return l.currency }

// Shortfall is the details of errs.InsufficientFunds, in base units.
type Shortfall struct {
	Account   Kind         `json:"account"`
	Needed    money.Amount `json:"needed"`
	Available money.Amount `json:"available"`
	Short     money.Amount `json:"short"`
}

// Post posts one entry in the caller's transaction and returns its id, or that of the entry posted under the key before.
func (l *Ledger) Post(ctx context.Context, tx pgx.Tx, e Entry) (ids.Entry, error) {
	posted, err := l.PostAll(ctx, tx, []Entry{e})
	if err != nil {
		return ids.Entry{}, err
	}
	return posted[0], nil
}

// PostAll posts entries in their order, all or none, and returns their ids in the same order. Each account is locked and
// written once however many entries touch it. A key may appear only once.
func (l *Ledger) PostAll(ctx context.Context, tx pgx.Tx, entries []Entry) ([]ids.Entry, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	if len(entries) > MaxEntries {
		return nil, fmt.Errorf("post entries: %d at once, at most %d are possible", len(entries), MaxEntries)
	}
	drafts, err := l.draft(entries)
	if err != nil {
		return nil, err
	}
	posted := make([]ids.Entry, len(drafts))
	// A savepoint: after a refusal the caller's transaction goes on without the keys that were taken.
	err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		if err := l.claimKeys(ctx, tx, drafts); err != nil {
			return err
		}
		fresh := slices.DeleteFunc(slices.Clone(drafts), func(d *draft) bool { return !d.fresh })
		if len(fresh) == 0 {
			return nil
		}
		accounts, err := l.lockAccounts(ctx, tx, fresh)
		if err != nil {
			return err
		}
		return l.move(ctx, tx, fresh, accounts)
	})
	if err != nil {
		return nil, err
	}
	for i, d := range drafts {
		posted[i] = d.id
	}
	return posted, nil
}

// draft is an entry on its way into the database.
type draft struct {
	Entry
	id        ids.Entry
	inputHash []byte
	fresh     bool // not posted before
}

func (l *Ledger) draft(entries []Entry) ([]*draft, error) {
	drafts := make([]*draft, len(entries))
	keys := make(map[string]bool, len(entries))
	for i, e := range entries {
		if err := e.validate(); err != nil {
			return nil, err
		}
		if keys[e.Key] {
			return nil, fmt.Errorf("post entries: the key %s appears twice", e.Key)
		}
		keys[e.Key] = true
		hash, err := e.hash(l.currency.Mint)
		if err != nil {
			return nil, err
		}
		drafts[i] = &draft{Entry: e, id: ids.New[ids.Entry](), inputHash: hash}
	}
	return drafts, nil
}

// claimKeys inserts the entries in key order. A key that another transaction holds makes this one wait for its outcome.
func (l *Ledger) claimKeys(ctx context.Context, tx pgx.Tx, drafts []*draft) error {
	byKey := slices.SortedFunc(slices.Values(drafts), func(a, b *draft) int { return cmp.Compare(a.Key, b.Key) })
	batch := &pgx.Batch{}
	for _, d := range byKey {
		batch.Queue(`
			INSERT INTO ledger_entries (id, key, input_hash, kind, mint, booking_id, cluster_id, lease_id, deposit_id, batch_id, signature, memo)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, nullif($11, ''), $12)
			ON CONFLICT (key) DO NOTHING`,
			d.id, d.Key, d.inputHash, d.Kind, l.currency.Mint, d.Refs.Booking, d.Refs.Cluster, d.Refs.Lease, d.Refs.Deposit,
			d.Refs.Batch, d.Refs.Signature, d.Memo,
		).Exec(func(ct pgconn.CommandTag) error {
			d.fresh = ct.RowsAffected() == 1
			return nil
		})
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("post entries: %w", err)
	}
	for _, d := range byKey {
		if d.fresh {
			continue
		}
		if err := l.recall(ctx, tx, d); err != nil {
			return err
		}
	}
	return nil
}

// recall finds the entry that already holds the draft's key.
func (l *Ledger) recall(ctx context.Context, tx pgx.Tx, d *draft) error {
	var hash []byte
	err := tx.QueryRow(ctx, `SELECT id, input_hash FROM ledger_entries WHERE key = $1`, d.Key).Scan(&d.id, &hash)
	if err != nil {
		return fmt.Errorf("read entry %s: %w", d.Key, err)
	}
	if !bytes.Equal(hash, d.inputHash) {
		return errs.New(errs.Conflict, "the ledger already has an entry %q with other contents", d.Key)
	}
	return nil
}

// fresh are the drafts whose keys have not been posted yet.
func (l *Ledger) fresh(ctx context.Context, tx pgx.Tx, drafts []*draft) ([]*draft, error) {
	byKey := make(map[string]*draft, len(drafts))
	keys := make([]string, len(drafts))
	for i, d := range drafts {
		byKey[d.Key], keys[i] = d, d.Key
	}
	rows, err := tx.Query(ctx, `SELECT key, input_hash FROM ledger_entries WHERE key = ANY ($1)`, keys)
	if err != nil {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	var key string
	var hash []byte
	if _, err = pgx.ForEachRow(rows, []any{&key, &hash}, func() error {
		d := byKey[key]
		if !bytes.Equal(hash, d.inputHash) {
			return errs.New(errs.Conflict, "the ledger already has an entry %q with other contents", key)
		}
		delete(byKey, key)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	return slices.DeleteFunc(drafts, func(d *draft) bool { return byKey[d.Key] == nil }), nil
}

// insertEntries writes entries whose keys are new; one that has come up meanwhile is an error.
func (l *Ledger) insertEntries(ctx context.Context, tx pgx.Tx, drafts []*draft) error {
	var entryIDs, keys, kinds, memos []string
	var hashes [][]byte
	var bookings []*string
	for _, d := range drafts {
		entryIDs, keys, kinds, memos = append(entryIDs, uuidText(d.id)), append(keys, d.Key), append(kinds, d.Kind), append(memos, d.Memo)
		booking := uuidText(d.Refs.Booking)
		hashes, bookings = append(hashes, d.inputHash), append(bookings, &booking)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO ledger_entries (id, key, input_hash, kind, mint, booking_id, memo)
		SELECT n.id, n.key, n.input_hash, n.kind, $7, n.booking_id, n.memo
		FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[], $5::uuid[], $6::text[]) AS n (id, key, input_hash, kind, booking_id, memo)`,
		entryIDs, keys, hashes, kinds, bookings, memos, l.currency.Mint)
	if err != nil {
		return fmt.Errorf("post entries: %w", err)
	}
	return nil
}

// locked is an account whose row this transaction holds.
type locked struct {
	id       ids.Account
	kind     Kind
	start    money.Amount // the stored balance
	balance  money.Amount // after the legs so far
	startSeq int64
	seq      int64
}

func (l *Ledger) lockAccounts(ctx context.Context, tx pgx.Tx, drafts []*draft) (map[Account]*locked, error) {
	refs := referenced(drafts)
	accounts, err := l.selectForUpdate(ctx, tx, refs)
	if err != nil {
		return nil, err
	}
	if len(accounts) == len(refs) {
		return accounts, nil
	}
	kinds, orgs := columns(refs)
	newIDs := make([]string, len(refs))
	for i := range refs {
		newIDs[i] = uuidText(ids.New[ids.Account]())
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO ledger_accounts (id, kind, org_id, mint)
		SELECT n.id, n.kind, n.org_id, $4
		FROM unnest($1::uuid[], $2::text[], $3::uuid[]) WITH ORDINALITY AS n (id, kind, org_id, place)
		ORDER BY n.place
		ON CONFLICT (kind, org_id, mint) DO NOTHING`, newIDs, kinds, orgs, l.currency.Mint)
	if err != nil {
		return nil, fmt.Errorf("open ledger accounts: %w", err)
	}
	if accounts, err = l.selectForUpdate(ctx, tx, refs); err != nil {
		return nil, err
	}
	if len(accounts) != len(refs) {
		return nil, fmt.Errorf("open ledger accounts: %d of %d are there", len(accounts), len(refs))
	}
	return accounts, nil
}

// selectForUpdate locks those of the accounts that exist, in id order.
func (l *Ledger) selectForUpdate(ctx context.Context, tx pgx.Tx, refs []Account) (map[Account]*locked, error) {
	kinds, orgs := columns(refs)
	rows, err := tx.Query(ctx, `
		SELECT a.id, a.kind, a.org_id, a.balance, a.last_seq
		FROM ledger_accounts a
		JOIN unnest($1::text[], $2::uuid[]) AS n (kind, org_id) ON a.kind = n.kind AND a.org_id IS NOT DISTINCT FROM n.org_id
		WHERE a.mint = $3
		ORDER BY a.id
		FOR NO KEY UPDATE OF a`, kinds, orgs, l.currency.Mint)
	if err != nil {
		return nil, fmt.Errorf("lock ledger accounts: %w", err)
	}
	accounts := make(map[Account]*locked, len(refs))
	var a locked
	var org ids.Org
	_, err = pgx.ForEachRow(rows, []any{&a.id, &a.kind, &org, &a.start, &a.seq}, func() error {
		account := a
		account.balance, account.startSeq = account.start, account.seq
		accounts[Account{Kind: a.kind, Org: org}] = &account
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lock ledger accounts: %w", err)
	}
	return accounts, nil
}

// move computes every transfer in memory, refuses what an account cannot bear, and writes transfers and balances.
func (l *Ledger) move(ctx context.Context, tx pgx.Tx, drafts []*draft, accounts map[Account]*locked) error {
	var rows transferRows
	for _, d := range drafts {
		for i, leg := range d.Legs {
			debit, credit := accounts[leg.Debit], accounts[leg.Credit]
			if err := moveLeg(debit, credit, leg.Amount); err != nil {
				return fmt.Errorf("post %s: %w", d.Key, err)
			}
			rows.add(d.id, i, leg.Amount, debit, credit)
		}
	}
	if err := l.refuseOverdrafts(accounts); err != nil {
		return err
	}
	return write(ctx, tx, l.currency.Mint, rows, accounts)
}

func moveLeg(debit, credit *locked, amount money.Amount) error {
	return errors.Join(debit.apply(amount, true), credit.apply(amount, false))
}

// apply moves an account by one side of a leg.
func (a *locked) apply(amount money.Amount, debit bool) error {
	a.seq++
	if debit != rules[a.kind].asset {
		amount = -amount
	}
	sum := a.balance + amount
	if (sum > a.balance) != (amount > 0) {
		return fmt.Errorf("%s would pass what can be counted", a.kind)
	}
	a.balance = sum
	return nil
}

func (l *Ledger) refuseOverdrafts(accounts map[Account]*locked) error {
	for ref, a := range accounts {
		r := rules[ref.Kind]
		if a.balance >= 0 || r.mayOverdraw {
			continue
		}
		return l.shortfall(ref.Kind, a.start-a.balance, a.start)
	}
	return nil
}

// shortfall refuses what an account cannot bear.
func (l *Ledger) shortfall(kind Kind, needed, available money.Amount) *errs.Error {
	short := Shortfall{Account: kind, Needed: needed, Available: available, Short: needed - available}
	return errs.New(errs.InsufficientFunds, "%s is %s %s short: %s needed, %s there", rules[kind].inWords,
		l.currency.Format(short.Short), l.currency.Symbol, l.currency.Format(short.Needed), l.currency.Format(short.Available),
	).WithDetails(short)
}

func referenced(drafts []*draft) []Account {
	seen := make(map[Account]bool)
	var refs []Account
	for _, d := range drafts {
		for _, leg := range d.Legs {
			for _, ref := range []Account{leg.Debit, leg.Credit} {
				if !seen[ref] {
					seen[ref] = true
					refs = append(refs, ref)
				}
			}
		}
	}
	slices.SortFunc(refs, func(a, b Account) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), bytes.Compare(a.Org[:], b.Org[:]))
	})
	return refs
}
