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
	mint      string // of the amounts; empty: of the currency that is reconciled
	account   string
	signature string
	entry     string // the key of the ledger entry that it is about, if it is about one
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
	seq       int64 // of its last transfer, in the account's history
}

// comparison is the outcome for one account.
type comparison struct {
	matched     int
	differences []difference
	unmatched   []booked // in the ledger only, as far as the walk goes: to be looked up on the chain
	waiting     int      // transactions of unresolved batches and sweeps, which the ledger will record
}

// merge matches an account's walk with its ledger entries as they come. Both are in the order of their signatures, bytewise, so that
// neither has to be held in a table.
type merge struct {
	comparison
	account    string
	moves      []move          // sorted; what is left of them
	unresolved map[string]bool // transactions of unresolved batches and sweeps may be on the chain already
	last       booked
}

// take compares the next entry.
func (m *merge) take(e booked) {
	switch e.signature {
	case "":
		m.unmatched = append(m.unmatched, e)
		return
	case m.last.signature:
		m.differences = append(m.differences, duplicate(m.account, m.last.key, e))
		return
	}
	m.last = e
	for len(m.moves) > 0 && m.moves[0].signature < e.signature {
		m.pass()
	}
	if len(m.moves) == 0 || m.moves[0].signature != e.signature {
		m.unmatched = append(m.unmatched, e)
		return
	}
	found := m.moves[0]
	m.moves = m.moves[1:]
	if found.amount == e.amount {
		m.matched++
		return
	}
	m.differences = append(m.differences, difference{
		class: AmountMismatch, account: m.account, signature: e.signature, ledger: &e.amount, chain: &found.amount, at: found.at,
		text: fmt.Sprintf("the chain moved %d base units and the entry %s says %d", found.amount, e.key, e.amount),
	})
}

// end is called after the last entry.
func (m *merge) end() comparison {
	for len(m.moves) > 0 {
		m.pass()
	}
	return m.comparison
}

// pass goes over a transaction that the ledger has no entry for.
func (m *merge) pass() {
	found := m.moves[0]
	m.moves = m.moves[1:]
	if m.unresolved[found.signature] {
		m.waiting++
		return
	}
	m.differences = append(m.differences, difference{
		class: ChainOnly, account: m.account, signature: found.signature, chain: &found.amount, at: found.at,
		text: fmt.Sprintf("the chain moved %d base units and the ledger has no entry for it", found.amount),
	})
}

func duplicate(account, first string, e booked) difference {
	return difference{
		class: Duplicate, account: account, signature: e.signature, entry: e.key, ledger: &e.amount, at: e.at,
		text: fmt.Sprintf("the entries %s and %s both record this transaction", first, e.key),
	}
}

func ledgerOnly(account string, e booked) difference {
	text := fmt.Sprintf("the entry %s moved %d base units and the chain's history of the account has no such transaction", e.key, e.amount)
	if e.signature == "" {
		text = fmt.Sprintf("the entry %s moved %d base units and names no chain transaction", e.key, e.amount)
	}
	return difference{class: LedgerOnly, account: account, signature: e.signature, entry: e.key, ledger: &e.amount, at: e.at, text: text}
}
