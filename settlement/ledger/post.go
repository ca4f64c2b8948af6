package ledger

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// MaxEntries bounds one PostAll.
const MaxEntries = 2000

// Ledger posts and reads the accounts of one currency. It keeps nothing but the ids of accounts, which never change, and is safe for
// concurrent use.
type Ledger struct {
	currency money.Currency
	known    directory
}

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
	g, err := l.group(entries)
	if err != nil {
		return nil, err
	}
	if err := l.postGroups(ctx, tx, []*group{g}); err != nil {
		return nil, err
	}
	return g.result()
}

// Result is what became of one call of PostEach.
type Result struct {
	Entries []ids.Entry // in the call's order; nothing where it was refused
	Err     error       // says why; otherwise nil
}

// PostEach posts the entries of several calls in one transaction: each call as PostAll would if it came alone after those before it, and
// refused alone. However many calls touch an account, it is locked and written once, which is what makes a busy one fast: who gathers
// calls and commits them together posts them by this. All calls together have at most MaxEntries; results are in their order. After an
// error, which is no call's own, the transaction must be rolled back.
func (l *Ledger) PostEach(ctx context.Context, tx pgx.Tx, calls [][]Entry) ([]Result, error) {
	groups, total := make([]*group, len(calls)), 0
	for i, entries := range calls {
		if total += len(entries); total > MaxEntries {
			return nil, fmt.Errorf("post entries: more than %d at once", MaxEntries)
		}
		var err error
		if groups[i], err = l.group(entries); err != nil {
			return nil, err
		}
	}
	if err := l.postGroups(ctx, tx, groups); err != nil {
		return nil, err
	}
	results := make([]Result, len(calls))
	for i, g := range groups {
		results[i].Entries, results[i].Err = g.result()
	}
	return results, nil
}

// draft is an entry on its way into the database.
type draft struct {
	Entry
	id        ids.Entry
	inputHash []byte
	legs      []Leg    // what the entry would move: its own, or those of the pending entry that it ends
	pending   *pending // the one that it ends
	again     bool     // posted before
}

// group is entries that are posted all or none.
type group struct {
	drafts []*draft
	err    error // why it was left out: a *errs.Error
}

func (g *group) result() ([]ids.Entry, error) {
	if g.err != nil {
		return nil, g.err
	}
	posted := make([]ids.Entry, len(g.drafts))
	for i, d := range g.drafts {
		posted[i] = d.id
	}
	return posted, nil
}

func (l *Ledger) group(entries []Entry) (*group, error) {
	drafts := make([]draft, len(entries))
	g := &group{drafts: make([]*draft, len(entries))}
	for i, e := range entries {
		if err := e.validate(); err != nil {
			return nil, err
		}
		drafts[i] = draft{Entry: e, id: ids.New[ids.Entry](), inputHash: e.hash(l.currency.Mint), legs: e.Legs}
		g.drafts[i] = &drafts[i]
	}
	if len(entries) == 1 {
		return g, nil
	}
	keys := make(map[string]bool, len(entries))
	for _, e := range entries {
		if keys[e.Key] {
			return nil, fmt.Errorf("post entries: the key %s appears twice", e.Key)
		}
		keys[e.Key] = true
	}
	return g, nil
}

// postGroups posts one group after another, each as far as the accounts and the groups before it allow. What is refused has its
// reason in its err; the rest is written with one statement a table. After an error the transaction must be rolled back, which the
// database insists on.
//
// The locks come first: whoever posts the same entry waits at its accounts, and sees its key once it holds them.
func (l *Ledger) postGroups(ctx context.Context, tx pgx.Tx, groups []*group) error {
	if err := l.findPendings(ctx, tx, groups); err != nil {
		return err
	}
	live := accepted(groups)
	if len(live) == 0 {
		return nil
	}
	b, err := l.lock(ctx, tx, live)
	if err != nil {
		return err
	}
	for _, g := range live {
		g.err = b.post(g)
	}
	return b.write(ctx, tx)
}

// accepted are the groups that nothing has refused yet.
func accepted(groups []*group) []*group {
	return slices.DeleteFunc(slices.Clone(groups), func(g *group) bool { return g.err != nil })
}

// referenced are the accounts that the groups touch, in the order in which they are opened.
func referenced(groups []*group) []Account {
	seen := make(map[Account]bool)
	var refs []Account
	add := func(a Account) {
		if !seen[a] {
			seen[a] = true
			refs = append(refs, a)
		}
	}
	for _, g := range groups {
		for _, d := range g.drafts {
			for _, leg := range d.legs {
				add(leg.Debit)
				add(leg.Credit)
			}
		}
	}
	slices.SortFunc(refs, func(a, b Account) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), bytes.Compare(a.Org[:], b.Org[:]))
	})
	return refs
}

// conflict says that a key is taken.
func conflict(key string) *errs.Error {
	return errs.New(errs.Conflict, "the ledger already has an entry %q with other contents", key)
}
