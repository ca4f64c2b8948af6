package payouts

import (
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
	name          string
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

// plan distributes payees over as few transactions as first-fit finds, in their order. No transaction pays a token account
// twice, and none more than limit.
func plan(candidates []candidate, limit money.Amount) []group {
	var groups []group
	for _, payee := range candidates {
		placed := false
		for i := range groups {
			if groups[i].takes(payee, limit) {
				groups[i].add(payee)
				placed = true
				break
			}
		}
		if !placed {
			var fresh group
			fresh.add(payee)
			groups = append(groups, fresh)
		}
	}
	return groups
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
