package payouts

import (
	"slices"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// What a version 1 transaction of the cluster bounds.
const (
	maxTransactionAccounts = 64
	maxTrace               = 64 // instructions, with those that programs call
	fixedAccounts          = 8  // treasury, its token account, nonce, mint, sysvar, and the system, token and memo programs
	fixedInstructions      = 2  // nonce advance and memo
	createTrace            = 5  // CreateIdempotent and the four calls it makes
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
	total   money.Amount
}

// fits reports whether a transaction can pay so many payees, some of whom need a token account.
func fits(payees, creates int) bool {
	accounts := fixedAccounts + payees
	if creates > 0 {
		accounts += 1 + creates // the associated token account program, and their wallets
	}
	return payees <= MaxPayees && creates <= MaxNewAccounts && accounts <= maxTransactionAccounts &&
		fixedInstructions+payees+createTrace*creates <= maxTrace
}

// openGroups bounds how many groups with room left are tried for a payee, so that planning takes time in proportion to the payees.
const openGroups = 64

// plan distributes payees over transactions: each goes to the first of the groups with room left that takes it. No transaction pays a
// token account twice, and none more than limit.
func plan(candidates []candidate, limit money.Amount) []group {
	var groups []*group
	open := make([]*group, 0, openGroups)
	for _, payee := range candidates {
		at := slices.IndexFunc(open, func(g *group) bool { return g.takes(payee, limit) })
		if at < 0 {
			if len(open) == openGroups {
				open = slices.Delete(open, 0, 1)
			}
			groups = append(groups, &group{})
			open = append(open, groups[len(groups)-1])
			at = len(open) - 1
		}
		open[at].add(payee)
		if !fits(len(open[at].payees)+1, open[at].creates) {
			open = slices.Delete(open, at, at+1)
		}
	}
	planned := make([]group, len(groups))
	for i, g := range groups {
		planned[i] = *g
	}
	return planned
}

func (g *group) takes(payee candidate, limit money.Amount) bool {
	creates := g.creates
	if payee.createAccount {
		creates++
	}
	if !fits(len(g.payees)+1, creates) || payee.amount > limit-g.total {
		return false
	}
	for _, other := range g.payees {
		if other.tokenAccount == payee.tokenAccount {
			return false
		}
	}
	return true
}

func (g *group) add(payee candidate) {
	g.payees = append(g.payees, payee)
	g.total += payee.amount
	if payee.createAccount {
		g.creates++
	}
}
