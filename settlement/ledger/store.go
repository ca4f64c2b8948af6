package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

const (
	maxKnownAccounts = 1 << 18 // of which the ids are kept: some 20 MB
	lockAttempts     = 2       // the second for a database that has been replaced, and has other ids
	uniqueViolation  = "23505"
	keyConstraint    = "ledger_entries_key_key"
)

// DB is what reading needs: a pool, a connection or a transaction.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// directory remembers the ids of accounts that are committed; they never change. Another transaction's open account must not be in it:
// who took it for known would hold locks while it waits for that transaction. Safe for concurrent use.
type directory struct {
	mu  sync.RWMutex
	ids map[Account]ids.Account
}

// find returns the ids of those that are known, by their accounts, and the others.
func (d *directory) find(refs []Account) (found map[Account]ids.Account, missing []Account) {
	found = make(map[Account]ids.Account, len(refs))
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, ref := range refs {
		if id, ok := d.ids[ref]; ok {
			found[ref] = id
		} else {
			missing = append(missing, ref)
		}
	}
	return found, missing
}

func (d *directory) add(found map[Account]ids.Account) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids == nil || len(d.ids)+len(found) > maxKnownAccounts {
		d.ids = make(map[Account]ids.Account, len(found))
	}
	for ref, id := range found {
		d.ids[ref] = id
	}
}

func (d *directory) forget(refs []Account) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ref := range refs {
		delete(d.ids, ref)
	}
}

// lock opens the accounts that are missing, locks all in id order, and then reads what the groups' keys and pending entries have
// come to.
func (l *Ledger) lock(ctx context.Context, tx pgx.Tx, groups []*group) (*book, error) {
	refs := referenced(groups)
	for range lockAttempts {
		found, missing := l.known.find(refs)
		if len(missing) > 0 {
			opened, err := l.open(ctx, tx, missing)
			if err != nil {
				return nil, err
			}
			for ref, id := range opened {
				found[ref] = id
			}
		}
		b, err := l.lockFound(ctx, tx, found, groups)
		if err != nil {
			return nil, err
		}
		if len(b.accounts) == len(refs) {
			return b, nil
		}
		l.known.forget(refs)
	}
	return nil, fmt.Errorf("lock ledger accounts: some of %d cannot be found", len(refs))
}

// open returns the accounts' ids, and makes those that do not exist.
func (l *Ledger) open(ctx context.Context, tx pgx.Tx, refs []Account) (map[Account]ids.Account, error) {
	found, err := l.accountIDs(ctx, tx, refs)
	if err != nil || len(found) == len(refs) {
		return found, err
	}
	made, err := l.makeAccounts(ctx, tx, without(refs, found))
	if err != nil {
		return nil, err
	}
	maps.Copy(found, made)
	if len(found) == len(refs) {
		return found, nil
	}
	others, err := l.accountIDs(ctx, tx, without(refs, found)) // that somebody else has made meanwhile
	maps.Copy(found, others)
	return found, err
}

// without are the accounts that have not been found, in their order.
func without(refs []Account, found map[Account]ids.Account) (missing []Account) {
	for _, ref := range refs {
		if _, known := found[ref]; !known {
			missing = append(missing, ref)
		}
	}
	return missing
}

// makeAccounts makes accounts in their order, which is the same for all, and leaves those out that somebody else makes.
func (l *Ledger) makeAccounts(ctx context.Context, tx pgx.Tx, refs []Account) (map[Account]ids.Account, error) {
	kinds, orgs := columns(refs)
	newIDs := make(uuidArray, len(refs))
	for i := range refs {
		newIDs[i] = uuidOf(ids.New[ids.Account]())
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO ledger_accounts (id, kind, org_id, mint)
		SELECT n.id, n.kind, n.org_id, $4
		FROM unnest($1::uuid[], $2::text[], $3::uuid[]) WITH ORDINALITY AS n (id, kind, org_id, place)
		ORDER BY n.place
		ON CONFLICT (kind, org_id, mint) DO NOTHING RETURNING id, kind, org_id`, newIDs, kinds, orgs, l.currency.Mint)
	if err != nil {
		return nil, fmt.Errorf("open ledger accounts: %w", err)
	}
	made := make(map[Account]ids.Account, len(refs))
	var id ids.Account
	var ref Account
	if _, err := pgx.ForEachRow(rows, []any{&id, &ref.Kind, &ref.Org}, func() error {
		made[ref] = id
		return nil
	}); err != nil {
		return nil, fmt.Errorf("open ledger accounts: %w", err)
	}
	return made, nil
}

// accountIDs finds those of the accounts that exist, and remembers those that are committed: an account that began with the
// transaction at hand may be its own.
func (l *Ledger) accountIDs(ctx context.Context, db DB, refs []Account) (map[Account]ids.Account, error) {
	kinds, orgs := columns(refs)
	// The limit keeps this to the index: for a thousand accounts Postgres would rather read the whole table, each time.
	rows, err := db.Query(ctx, `
		SELECT a.* FROM unnest($1::text[], $2::uuid[]) AS n (kind, org_id)
		CROSS JOIN LATERAL (
			SELECT a.id, a.kind, a.org_id, a.created_at < now() FROM ledger_accounts a
			WHERE a.kind = n.kind AND a.org_id = n.org_id AND a.mint = $3 LIMIT 1
		) a
		UNION ALL
		SELECT a.id, a.kind, a.org_id, a.created_at < now() FROM ledger_accounts a WHERE a.kind = ANY ($1) AND a.org_id IS NULL AND a.mint = $3`,
		kinds, orgs, l.currency.Mint)
	if err != nil {
		return nil, fmt.Errorf("find ledger accounts: %w", err)
	}
	found, committed := make(map[Account]ids.Account, len(refs)), make(map[Account]ids.Account, len(refs))
	var id ids.Account
	var ref Account
	var older bool
	_, err = pgx.ForEachRow(rows, []any{&id, &ref.Kind, &ref.Org, &older}, func() error {
		found[ref] = id
		if older {
			committed[ref] = id
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find ledger accounts: %w", err)
	}
	l.known.add(committed)
	return found, nil
}

func (l *Ledger) lockFound(ctx context.Context, tx pgx.Tx, found map[Account]ids.Account, groups []*group) (*book, error) {
	b := &book{ledger: l, accounts: make(map[Account]*locked, len(found)), keys: map[string]known{}, ended: map[ids.Entry]string{}}
	batch := &pgx.Batch{}
	b.queueLocks(batch, found)
	b.queueKeys(batch, groups)
	b.queueEnds(batch, groups)
	batch.Queue(`SELECT clock_timestamp()`).QueryRow(func(row pgx.Row) error {
		var now time.Time
		if err := row.Scan(&now); err != nil {
			return err
		}
		if now.After(b.now) {
			b.now = now
		}
		return nil
	})
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("lock ledger accounts: %w", err)
	}
	return b, nil
}

func (b *book) queueLocks(batch *pgx.Batch, found map[Account]ids.Account) {
	names := make(map[ids.Account]Account, len(found))
	wanted := make(uuidArray, 0, len(found))
	for ref, id := range found {
		names[id] = ref
		wanted = append(wanted, uuidOf(id))
	}
	batch.Queue(`
		SELECT a.id, a.balance, a.last_seq, a.reserved, a.reserved_seq, a.changed_at FROM ledger_accounts a
		WHERE a.id = ANY ($1) ORDER BY a.id FOR NO KEY UPDATE`, wanted).Query(func(rows pgx.Rows) error {
		accounts := make([]locked, 0, len(found))
		var id pgtype.UUID
		var changedAt time.Time
		var a locked
		_, err := pgx.ForEachRow(rows, []any{&id, &a.amount, &a.seq, &a.reserved, &a.reservedSeq, &changedAt}, func() error {
			if changedAt.After(b.now) {
				b.now = changedAt
			}
			a.id, a.Account, a.stored = id.Bytes, names[id.Bytes], a.balance
			accounts = append(accounts, a)
			b.accounts[a.Account] = &accounts[len(accounts)-1]
			return nil
		})
		return err
	})
}

func (b *book) queueKeys(batch *pgx.Batch, groups []*group) {
	var keys []string
	for _, g := range groups {
		for _, d := range g.drafts {
			keys = append(keys, d.Key)
		}
	}
	slices.Sort(keys)
	batch.Queue(`SELECT key, id, input_hash FROM ledger_entries WHERE key = ANY ($1)`, keys).Query(func(rows pgx.Rows) error {
		var key string
		var k known
		_, err := pgx.ForEachRow(rows, []any{&key, &k.id, &k.inputHash}, func() error {
			b.keys[key] = known{id: k.id, inputHash: slices.Clone(k.inputHash)}
			return nil
		})
		return err
	})
}

func (b *book) queueEnds(batch *pgx.Batch, groups []*group) {
	var wanted []ids.Entry
	for _, g := range groups {
		for _, d := range g.drafts {
			if d.Settle != nil {
				wanted = append(wanted, d.Settle.Pending)
			}
		}
	}
	if len(wanted) == 0 {
		return
	}
	batch.Queue(`SELECT pending_id, outcome FROM ledger_settlements WHERE pending_id = ANY ($1)`, uuids(wanted)).Query(func(rows pgx.Rows) error {
		var id ids.Entry
		var how string
		_, err := pgx.ForEachRow(rows, []any{&id, &how}, func() error {
			b.ended[id] = how
			return nil
		})
		return err
	})
}

// writes are the rows that a book comes to.
type writes struct {
	entries      []*draft
	transfers    []transfer
	pendings     []pendingRow
	settlements  []settlement
	reservations []reservation
}

type transfer struct {
	entry                       ids.Entry
	ordinal                     int
	amount                      money.Amount
	debit, credit               ids.Account
	debitSeq, creditSeq         int64
	debitBalance, creditBalance money.Amount
}

type pendingRow struct {
	*draft
	debit, credit ids.Account
	amount        money.Amount
	expiresAt     time.Time
}

type settlement struct {
	pending, entry ids.Entry
	outcome        string
	amount         money.Amount
}

type reservation struct {
	account *locked
	pending ids.Entry
	change  money.Amount
}

// mark is how far the writes have come, for cut.
func (w *writes) mark() [5]int {
	return [5]int{len(w.entries), len(w.transfers), len(w.pendings), len(w.settlements), len(w.reservations)}
}

func (w *writes) cut(to [5]int) {
	w.entries, w.transfers, w.pendings = w.entries[:to[0]], w.transfers[:to[1]], w.pendings[:to[2]]
	w.settlements, w.reservations = w.settlements[:to[3]], w.reservations[:to[4]]
}

// write stores what the book has come to, one statement a table; the schema moves the accounts with them. Each statement finds what it refers
// to, and no account is below its floor in between: what is reserved goes first, and comes last.
func (b *book) write(ctx context.Context, tx pgx.Tx) error {
	if len(b.writes.entries) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	b.queueEntries(batch)
	b.queuePendings(batch)
	b.queueSettlements(batch)
	b.queueReservations(batch, func(r reservation) bool { return r.change < 0 })
	b.queueTransfers(batch)
	b.queueReservations(batch, func(r reservation) bool { return r.change > 0 })
	err := tx.SendBatch(ctx, batch).Close()
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == uniqueViolation && pg.ConstraintName == keyConstraint {
		// Under the accounts' locks a key can come up only from an entry of other accounts.
		key, _, _ := strings.Cut(strings.TrimPrefix(pg.Detail, "Key (key)=("), ") already exists")
		return conflict(key)
	}
	if err != nil {
		return fmt.Errorf("post entries: %w", err)
	}
	return nil
}

// Rows reach a statement as arrays, one a column. In the select list unnest hands them on one by one; as tables, each array would be
// stored once more first.
func (b *book) queueEntries(batch *pgx.Batch) {
	// In key order, so that two transactions that meet at several keys wait for each other in one direction.
	entries := slices.SortedFunc(slices.Values(b.writes.entries), func(x, y *draft) int { return strings.Compare(x.Key, y.Key) })
	n := len(entries)
	entryIDs, hashes := make(uuidArray, n), make([][]byte, n)
	keys, kinds, memos, signatures := make([]string, n), make([]string, n), make([]string, n), make([]pgtype.Text, n)
	bookings, clusters, leases := make(uuidArray, n), make(uuidArray, n), make(uuidArray, n)
	deposits, batches := make(uuidArray, n), make(uuidArray, n)
	for i, d := range entries {
		entryIDs[i], hashes[i] = uuidOf(d.id), d.inputHash
		keys[i], kinds[i], memos[i] = d.Key, d.Kind, d.Memo
		signatures[i] = pgtype.Text{String: d.Refs.Signature, Valid: d.Refs.Signature != ""}
		bookings[i], clusters[i], leases[i] = uuidOf(d.Refs.Booking), uuidOf(d.Refs.Cluster), uuidOf(d.Refs.Lease)
		deposits[i], batches[i] = uuidOf(d.Refs.Deposit), uuidOf(d.Refs.Batch)
	}
	batch.Queue(`
		INSERT INTO ledger_entries (id, key, input_hash, kind, memo, mint, posted_at,
		                            booking_id, cluster_id, lease_id, deposit_id, batch_id, signature)
		SELECT unnest($1::uuid[]), unnest($2::text[]), unnest($3::bytea[]), unnest($4::text[]), unnest($5::text[]), $6, $7,
		       unnest($8::uuid[]), unnest($9::uuid[]), unnest($10::uuid[]), unnest($11::uuid[]), unnest($12::uuid[]), unnest($13::text[])`,
		entryIDs, keys, hashes, kinds, memos, b.ledger.currency.Mint, b.now,
		orNull(bookings), orNull(clusters), orNull(leases), orNull(deposits), orNull(batches), orNull(signatures))
}

func (b *book) queueTransfers(batch *pgx.Batch) {
	n := len(b.writes.transfers)
	if n == 0 {
		return
	}
	transferIDs, entries := make(uuidArray, n), make(uuidArray, n)
	debits, credits := make(uuidArray, n), make(uuidArray, n)
	ordinals, amounts := make([]int32, n), make([]int64, n)
	debitSeqs, creditSeqs, debitBalances, creditBalances := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, t := range b.writes.transfers {
		transferIDs[i], entries[i], ordinals[i] = uuidOf(ids.New[ids.Transfer]()), uuidOf(t.entry), int32(t.ordinal)
		debits[i], credits[i], amounts[i] = uuidOf(t.debit), uuidOf(t.credit), int64(t.amount)
		debitSeqs[i], creditSeqs[i] = t.debitSeq, t.creditSeq
		debitBalances[i], creditBalances[i] = int64(t.debitBalance), int64(t.creditBalance)
	}
	batch.Queue(`
		INSERT INTO ledger_transfers (id, entry_id, ordinal, mint, debit_account, credit_account, amount,
		                              debit_seq, credit_seq, debit_balance, credit_balance, posted_at)
		SELECT unnest($3::uuid[]), unnest($4::uuid[]), unnest($5::int[]), $1, unnest($6::uuid[]), unnest($7::uuid[]), unnest($8::bigint[]),
		       unnest($9::bigint[]), unnest($10::bigint[]), unnest($11::bigint[]), unnest($12::bigint[]), $2`,
		b.ledger.currency.Mint, b.now, transferIDs, entries, ordinals, debits, credits, amounts, debitSeqs, creditSeqs, debitBalances, creditBalances)
}

func (b *book) queuePendings(batch *pgx.Batch) {
	n := len(b.writes.pendings)
	if n == 0 {
		return
	}
	entries, debits, credits := make(uuidArray, n), make(uuidArray, n), make(uuidArray, n)
	amounts, expiries := make([]int64, n), make([]pgtype.Timestamptz, n)
	for i, p := range b.writes.pendings {
		entries[i], debits[i], credits[i], amounts[i] = uuidOf(p.id), uuidOf(p.debit), uuidOf(p.credit), int64(p.amount)
		expiries[i] = pgtype.Timestamptz{Time: p.expiresAt, Valid: !p.expiresAt.IsZero()}
	}
	batch.Queue(`
		INSERT INTO ledger_pendings (entry_id, mint, debit_account, credit_account, amount, expires_at, pended_at)
		SELECT n.entry_id, $1, n.debit_account, n.credit_account, n.amount, n.expires_at, $2
		FROM unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::bigint[], $7::timestamptz[])
			AS n (entry_id, debit_account, credit_account, amount, expires_at)`,
		b.ledger.currency.Mint, b.now, entries, debits, credits, amounts, expiries)
	batch.Queue(`
		INSERT INTO ledger_open_pendings (entry_id, expires_at)
		SELECT n.entry_id, n.expires_at FROM unnest($1::uuid[], $2::timestamptz[]) AS n (entry_id, expires_at)`, entries, expiries)
}

func (b *book) queueSettlements(batch *pgx.Batch) {
	n := len(b.writes.settlements)
	if n == 0 {
		return
	}
	pendings, entries, outcomes, amounts := make(uuidArray, n), make(uuidArray, n), make([]string, n), make([]int64, n)
	for i, s := range b.writes.settlements {
		pendings[i], entries[i], outcomes[i], amounts[i] = uuidOf(s.pending), uuidOf(s.entry), s.outcome, int64(s.amount)
	}
	batch.Queue(`
		INSERT INTO ledger_settlements (pending_id, entry_id, outcome, amount, settled_at)
		SELECT n.pending_id, n.entry_id, n.outcome, n.amount, $1
		FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::bigint[]) AS n (pending_id, entry_id, outcome, amount)`,
		b.now, pendings, entries, outcomes, amounts)
	batch.Queue(`DELETE FROM ledger_open_pendings WHERE entry_id = ANY ($1)`, pendings)
}

// queueReservations numbers those that are wanted in the order in which they are written, which is not that in which they were decided.
func (b *book) queueReservations(batch *pgx.Batch, wanted func(reservation) bool) {
	var accounts, pendings uuidArray
	var seqs, changes, reserved []int64
	for _, r := range b.writes.reservations {
		if !wanted(r) {
			continue
		}
		r.account.stored.reserved += r.change
		r.account.stored.reservedSeq++
		accounts, pendings = append(accounts, uuidOf(r.account.id)), append(pendings, uuidOf(r.pending))
		seqs, changes = append(seqs, r.account.stored.reservedSeq), append(changes, int64(r.change))
		reserved = append(reserved, int64(r.account.stored.reserved))
	}
	if len(accounts) == 0 {
		return
	}
	batch.Queue(`
		INSERT INTO ledger_reservations (account_id, seq, pending_id, change, reserved)
		SELECT n.account_id, n.seq, n.pending_id, n.change, n.reserved
		FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[]) AS n (account_id, seq, pending_id, change, reserved)`,
		accounts, seqs, pendings, changes, reserved)
}

func columns(refs []Account) (kinds []string, orgs uuidArray) {
	kinds, orgs = make([]string, len(refs)), make(uuidArray, len(refs))
	for i, ref := range refs {
		kinds[i], orgs[i] = string(ref.Kind), uuidOf(ref.Org)
	}
	return kinds, orgs
}

// uuidArray reaches Postgres without a look at its elements' types, as pgx must have at those of a slice. A nil one is NULL.
type uuidArray []pgtype.UUID

// Dimensions implements pgtype.ArrayGetter.
func (a uuidArray) Dimensions() []pgtype.ArrayDimension {
	return pgtype.FlatArray[pgtype.UUID](a).Dimensions()
}

// Index implements pgtype.ArrayGetter. A pointer needs no memory of its own.
func (a uuidArray) Index(i int) any { return &a[i] }

// IndexType implements pgtype.ArrayGetter.
func (a uuidArray) IndexType() any { return new(pgtype.UUID) }

// uuidOf is the form in which arrays of ids reach Postgres; the zero id is NULL.
func uuidOf[K ids.Kind](id ids.ID[K]) pgtype.UUID {
	return pgtype.UUID{Bytes: uuid.UUID(id), Valid: !id.IsZero()}
}

// orNull is a column of which no row has a value as NULL: unnest pads it beside the others, and nothing of it is sent or read.
func orNull[A ~[]T, T pgtype.UUID | pgtype.Text](column A) A {
	var null T
	if slices.ContainsFunc(column, func(value T) bool { return value != null }) {
		return column
	}
	return nil
}

func uuids[K ids.Kind](list []ids.ID[K]) uuidArray {
	out := make(uuidArray, len(list))
	for i, id := range list {
		out[i] = uuidOf(id)
	}
	return out
}
