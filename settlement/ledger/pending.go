package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// MaxExpiries bounds one Expire.
const MaxExpiries = MaxEntries

// How a pending entry ended.
const (
	outcomePosted  = "posted"
	outcomeVoided  = "voided"
	outcomeExpired = "expired"
)

func outcome(s *Settle) string {
	switch {
	case s.expire:
		return outcomeExpired
	case s.Amount == 0:
		return outcomeVoided
	}
	return outcomePosted
}

// pending is a pending entry on record.
type pending struct {
	entry     ids.Entry
	leg       Leg
	expiresAt time.Time // zero: never
}

// Pend reserves an entry's one leg instead of moving it, until PostPending or Void; after a ttl that is not zero, only Void and Expire
// are left. What it reserves cannot be taken by anything else. Errors are those of Post.
func (l *Ledger) Pend(ctx context.Context, tx pgx.Tx, e Entry, ttl time.Duration) (ids.Entry, error) {
	e.Pend = &Pend{TTL: ttl}
	return l.Post(ctx, tx, e)
}

// PostPending moves an amount of what a pending entry reserved, and gives the rest back. A pending entry ends once: a second end under
// another key is errs.Conflict. After its time it is errs.Expired, an amount above the pending one is errs.Invalid, and an entry that is
// not pending is errs.NotFound.
func (l *Ledger) PostPending(ctx context.Context, tx pgx.Tx, key string, pending ids.Entry, amount money.Amount) (ids.Entry, error) {
	if amount <= 0 {
		return ids.Entry{}, fmt.Errorf("post %s: the amount %d is not positive", key, amount)
	}
	return l.Post(ctx, tx, Entry{Key: key, Kind: KindPostPending, Settle: &Settle{Pending: pending, Amount: amount}})
}

// Void gives back what a pending entry reserved. Errors are those of PostPending; it may come after the entry's time.
func (l *Ledger) Void(ctx context.Context, tx pgx.Tx, key string, pending ids.Entry) (ids.Entry, error) {
	return l.Post(ctx, tx, Entry{Key: key, Kind: KindVoid, Settle: &Settle{Pending: pending}})
}

// Expire gives back what pending entries have reserved beyond their time, at most limit of them, the longest expired first. It reports
// how many; one that comes to its end meanwhile is not counted.
func (l *Ledger) Expire(ctx context.Context, tx pgx.Tx, limit int) (int, error) {
	if limit <= 0 || limit > MaxExpiries {
		limit = MaxExpiries
	}
	rows, err := tx.Query(ctx, `
		SELECT o.entry_id FROM ledger_open_pendings o JOIN ledger_pendings p ON p.entry_id = o.entry_id
		WHERE o.expires_at <= clock_timestamp() AND p.mint = $1
		ORDER BY o.expires_at, o.entry_id LIMIT $2`, l.currency.Mint, limit)
	if err != nil {
		return 0, fmt.Errorf("find expired entries: %w", err)
	}
	due, err := pgx.CollectRows(rows, pgx.RowTo[ids.Entry])
	if err != nil {
		return 0, fmt.Errorf("find expired entries: %w", err)
	}
	groups := make([]*group, len(due))
	for i, id := range due {
		e := Entry{Key: "expire:" + id.String(), Kind: KindExpire, Settle: &Settle{Pending: id, expire: true}, Memo: "The time of a pending entry is over"}
		if groups[i], err = l.group([]Entry{e}); err != nil {
			return 0, err
		}
	}
	if len(groups) == 0 {
		return 0, nil
	}
	if err := l.postGroups(ctx, tx, groups); err != nil {
		return 0, err
	}
	count := 0
	for _, g := range accepted(groups) {
		if !g.drafts[0].again {
			count++
		}
	}
	return count, nil
}

// findPendings reads the pending entries that some drafts end. They never change, so it needs no lock.
func (l *Ledger) findPendings(ctx context.Context, tx pgx.Tx, groups []*group) error {
	var wanted []ids.Entry
	for _, g := range groups {
		for _, d := range g.drafts {
			if d.Settle != nil {
				wanted = append(wanted, d.Settle.Pending)
			}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	found, err := l.readPendings(ctx, tx, wanted)
	if err != nil {
		return err
	}
	for _, g := range groups {
		for _, d := range g.drafts {
			if d.Settle == nil {
				continue
			}
			p := found[d.Settle.Pending]
			if p == nil {
				g.err = errs.New(errs.NotFound, "there is no pending entry %s", d.Settle.Pending)
				break
			}
			d.pending, d.legs = p, []Leg{p.leg}
		}
	}
	return nil
}

func (l *Ledger) readPendings(ctx context.Context, db DB, wanted []ids.Entry) (map[ids.Entry]*pending, error) {
	rows, err := db.Query(ctx, `
		SELECT p.entry_id, p.amount, p.expires_at, d.kind, d.org_id, c.kind, c.org_id
		FROM ledger_pendings p
		JOIN ledger_accounts d ON d.id = p.debit_account
		JOIN ledger_accounts c ON c.id = p.credit_account
		WHERE p.entry_id = ANY ($1) AND p.mint = $2`, uuids(wanted), l.currency.Mint)
	if err != nil {
		return nil, fmt.Errorf("read pending entries: %w", err)
	}
	found := make(map[ids.Entry]*pending, len(wanted))
	var p pending
	var expiresAt *time.Time
	_, err = pgx.ForEachRow(rows, []any{
		&p.entry, &p.leg.Amount, &expiresAt, &p.leg.Debit.Kind, &p.leg.Debit.Org, &p.leg.Credit.Kind, &p.leg.Credit.Org,
	}, func() error {
		row := p
		if expiresAt != nil {
			row.expiresAt = *expiresAt
		}
		found[row.entry] = &row
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read pending entries: %w", err)
	}
	return found, nil
}
