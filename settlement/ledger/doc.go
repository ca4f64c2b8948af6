// Package ledger is the double-entry book of every token that Muster owes or owns.
//
// An entry is a set of transfers posted together, all or none. A transfer moves a positive amount from one account's credit
// side to another's debit side, so every entry sums to zero by its form. Entries and transfers never change: SQL triggers
// refuse it, and a mistake is mended by a further entry.
//
// # Accounts
//
// An account is (kind, organisation, mint) and comes into being with its first transfer. Its balance is kept in its own
// sense: a debit adds to an asset and takes from everything else.
//
//	kind                class      of         holds
//	chain_treasury      asset      platform   tokens in the treasury's token account
//	chain_deposits      asset      customer   tokens in a customer's deposit token account
//	chain_suspense      asset      mint       tokens of a foreign mint that reached one of our wallets
//	customer_available  liability  customer   prepaid and free to spend
//	customer_held       liability  customer   held for accepted bookings
//	owner_payable       liability  owner      earned and not yet in a batch
//	payout_in_flight    liability  payee      in a batch that is not final
//	suspense            liability  mint       arrived, but nobody's yet: foreign mints and dust
//	platform_fees       income     platform   the platform's share of charges
//	platform_capital    equity     platform   the platform's own tokens in the treasury
//
// No balance goes below zero, except chain_treasury, whose chain facts may be recorded in another order than they happened,
// and platform_capital, which losses may use up. For each mint the assets equal all the rest.
//
// # Idempotency
//
// Every entry has a key. Posting the same key with the same input again returns the first entry and moves nothing; with
// another input it is errs.Conflict. The input's SHA-256 is stored with the entry.
//
// # Locking
//
// Post works in the caller's transaction: it takes the keys in order, then locks the accounts in id order. Transactions that
// post once (PostAll counts as once) cannot deadlock with each other; one that posts several times can, and must be ready to
// run again. The balances are checked after all legs of a call, so an entry's legs may pass through an account in any order.
//
// # Errors
//
// A debit that an account cannot bear is errs.InsufficientFunds with a Shortfall as details; nothing is posted then, and the
// transaction stays usable.
package ledger
