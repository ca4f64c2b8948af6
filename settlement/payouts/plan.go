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

// planner distributes payees over transactions as they come: each goes to the first of the groups with room left that takes it. No
// transaction pays a token account twice, and none more than limit.
type planner struct {
	limit money.Amount
	room  capacity
	open  []*group
}

// add places a payee, and returns the groups that nobody is placed in any more.
func (p *planner) add(payee candidate) (done []group) {
	at := slices.IndexFunc(p.open, func(g *group) bool { return g.takes(payee, p.limit, p.room) })
	if at < 0 {
		if len(p.open) == openGroups {
			done = append(done, *p.open[0])
			p.open = slices.Delete(p.open, 0, 1)
		}
		at = len(p.open)
		p.open = append(p.open, &group{})
	}
	g := p.open[at]
	g.add(payee, p.room)
	if !p.room.fits(len(g.payees)+1, g.creates, g.listed+1) {
		done = append(done, *g)
		p.open = slices.Delete(p.open, at, at+1)
	}
	return done
}

// rest returns the groups that still have room.
func (p *planner) rest() []group {
	left := make([]group, len(p.open))
	for i, g := range p.open {
		left[i] = *g
	}
	p.open = nil
	return left
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
