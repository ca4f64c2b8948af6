package payouts

import (
	"slices"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/txn"
)

// candidate is a payee that may be paid.
type candidate struct {
	org           ids.Org
	purpose       string
	withdrawal    ids.Withdrawal // zero: earnings
	amount        money.Amount
	address       string // the wallet, as it is stored
	wallet        chain.Address
	tokenAccount  chain.Address
	createAccount bool
	obstacle      string // why it cannot be paid; empty if it can
}

// group is the payees of one transaction.
type group struct {
	payees  []candidate
	creates int
	listed  int // in the lookup table
	total   money.Amount
}

// plannedMemo is the length of a batch's memo: its id, a space and the root of its manifest.
const plannedMemo = 74

// capacity is what one transaction of the format that the chain takes can pay.
type capacity struct {
	treasury *txn.Treasury
	format   txn.Format
}

// fits reports whether a transaction can pay so many payees, some of whom need a token account or have one in the lookup table.
func (c capacity) fits(payees, creates, listed int) bool {
	return creates <= MaxNewAccounts &&
		c.treasury.Fits(c.format, txn.Load{Payees: payees, Creates: creates, Listed: listed, Memo: plannedMemo})
}

// openGroups bounds how many groups with room left are tried for a payee, so that planning takes time in proportion to the payees.
const openGroups = 64

// plan distributes payees over transactions: each goes to the first of the groups with room left that takes it. No transaction pays a
// token account twice, and none more than limit.
func plan(candidates []candidate, limit money.Amount, room capacity) []group {
	var groups []*group
	open := make([]*group, 0, openGroups)
	for _, payee := range candidates {
		at := slices.IndexFunc(open, func(g *group) bool { return g.takes(payee, limit, room) })
		if at < 0 {
			if len(open) == openGroups {
				open = slices.Delete(open, 0, 1)
			}
			groups = append(groups, &group{})
			open = append(open, groups[len(groups)-1])
			at = len(open) - 1
		}
		open[at].add(payee, room)
		if !room.fits(len(open[at].payees)+1, open[at].creates, open[at].listed+1) {
			open = slices.Delete(open, at, at+1)
		}
	}
	planned := make([]group, len(groups))
	for i, g := range groups {
		planned[i] = *g
	}
	return planned
}

func (g *group) takes(payee candidate, limit money.Amount, room capacity) bool {
	creates, listed := g.creates, g.listed
	if payee.createAccount {
		creates++
	}
	if room.treasury.Lists(payee.tokenAccount) {
		listed++
	}
	if !room.fits(len(g.payees)+1, creates, listed) || payee.amount > limit-g.total {
		return false
	}
	for _, other := range g.payees {
		if other.tokenAccount == payee.tokenAccount {
			return false
		}
	}
	return true
}

func (g *group) add(payee candidate, room capacity) {
	g.payees = append(g.payees, payee)
	g.total += payee.amount
	if payee.createAccount {
		g.creates++
	}
	if room.treasury.Lists(payee.tokenAccount) {
		g.listed++
	}
}
