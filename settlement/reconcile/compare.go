package reconcile

import (
	"fmt"
	"time"

	"github.com/muster-gpu/muster/internal/money"
)

// The classes of difference.
const (
	LedgerOnly      = "ledger_only"
	ChainOnly       = "chain_only"
	AmountMismatch  = "amount_mismatch"
	Duplicate       = "duplicate"
	UnresolvedNonce = "unresolved_nonce"
)

type difference struct {
	class     string
	account   string
	signature string
	ledger    *money.Amount
	chain     *money.Amount
	at        time.Time // zero: now
	text      string
}

// booked is what one ledger entry did to an account.
type booked struct {
	key       string
	signature string
	amount    money.Amount // signed
	at        time.Time
}

// comparison is the outcome for one account.
type comparison struct {
	matched     int
	differences []difference
	unmatched   []booked // in the ledger only, as far as the walk goes: to be looked up on the chain
}

// compare matches an account's walk with its ledger entries. Transactions of unresolved batches may be on the chain already.
func compare(account string, moves []move, entries []booked, unresolved map[string]bool) comparison {
	var c comparison
	bySignature := make(map[string]booked, len(entries))
	for _, e := range entries {
		first, twice := bySignature[e.signature]
		switch {
		case e.signature == "":
			c.unmatched = append(c.unmatched, e)
		case twice:
			c.differences = append(c.differences, difference{
				class: Duplicate, account: account, signature: e.signature, ledger: &e.amount, at: e.at,
				text: fmt.Sprintf("the entries %s and %s both record this transaction", first.key, e.key),
			})
		default:
			bySignature[e.signature] = e
		}
	}
	for _, m := range moves {
		e, found := bySignature[m.signature]
		delete(bySignature, m.signature)
		switch {
		case found && e.amount == m.amount:
			c.matched++
		case found:
			c.differences = append(c.differences, difference{
				class: AmountMismatch, account: account, signature: m.signature, ledger: &e.amount, chain: &m.amount, at: m.at,
				text: fmt.Sprintf("the chain moved %d base units and the entry %s says %d", m.amount, e.key, e.amount),
			})
		case !unresolved[m.signature]:
			c.differences = append(c.differences, difference{
				class: ChainOnly, account: account, signature: m.signature, chain: &m.amount, at: m.at,
				text: fmt.Sprintf("the chain moved %d base units and the ledger has no entry for it", m.amount),
			})
		}
	}
	for _, e := range entries {
		if rest, found := bySignature[e.signature]; found && rest.key == e.key {
			c.unmatched = append(c.unmatched, e)
		}
	}
	return c
}

func ledgerOnly(account string, e booked) difference {
	text := fmt.Sprintf("the entry %s moved %d base units and the chain's history of the account has no such transaction", e.key, e.amount)
	if e.signature == "" {
		text = fmt.Sprintf("the entry %s moved %d base units and names no chain transaction", e.key, e.amount)
	}
	return difference{class: LedgerOnly, account: account, signature: e.signature, ledger: &e.amount, at: e.at, text: text}
}
