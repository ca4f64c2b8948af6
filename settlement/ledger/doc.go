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
// The schema keeps these rules, not this package: a trigger on the transfers moves the balances of both sides, each account once a
// statement, and refuses transfers that do not go on from what is there; no other statement changes an account.
//
// # Pending transfers
//
// An entry may reserve its one leg instead of moving it. What pending entries would take from an account is its reserved amount, and nothing
// else can take it: available is balance less reserved. A pending entry never changes; it ends once, by an entry of its own:
//
//	pending -> posted   an amount up to the pending one moves, the rest is free again
//	        -> voided   everything is free again
//	        -> expired  likewise, after its time, when Expire looks; from that time on it cannot be posted
//
// Several are linked by one PostAll, which posts, reserves and ends all or none.
//
// # Time
//
// Transfers carry the database's time, read under the locks of their accounts, never before the account's last. So an account's transfers
// are in order of time as of number, and its balance at any time is found by halving.
//
// # Many callers
//
// Post, PostAll and PostEach work in the caller's transaction, beside the caller's own rows. PostEach and HoldAll are for who gathers the
// calls of many: up to MaxEntries of them share a transaction, each account is locked and written once, and each call has its own outcome.
//
// # Idempotency
//
// Every entry has a key. Posting the same key with the same input again returns the first entry and moves nothing; with
// another input it is errs.Conflict. The input's SHA-256 is stored with the entry.
//
// # Locking
//
// Posting locks the accounts in id order, then reads the keys, decides everything in memory, and writes each table by one statement:
// two round trips once the accounts are known. Whoever posts the same entry waits at its accounts. Transactions that post once (PostAll
// counts as once) cannot deadlock with each other; one that posts several times can, and must be ready to run again. The balances are
// checked after all legs of a call, so an entry's legs may pass through an account in any order.
//
// # Errors
//
// A debit that an account cannot bear is errs.InsufficientFunds with a Shortfall as details; nothing is posted then, and the
// transaction stays usable. So it is after errs.Conflict, but for a key that another transaction takes for other accounts at the same time.
package ledger
