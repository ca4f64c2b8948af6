// Package payouts pays owners what they earned, exactly once, in batches of one chain transaction each.
//
//	draft ──> approved ──> signed ──> sent ──> finalized      the chain executed it
//	  │          │  │                   ├────> failed         the chain executed it with an error: nothing was paid
//	  └──────────┘  └───────────────────┴────> frozen         records disagree: a person decides, nothing is repaid
//	  cancelled (before a signature can exist)
//
// # How a payout happens once
//
//  1. Draft takes the payable balances, moves them in the ledger from owner_payable to payout_in_flight, and pins a durable nonce
//     and its value to the batch, all in one database transaction. A payee is in one live batch at most, a nonce likewise.
//  2. A person approves.
//  3. The worker builds the message, stores it, and only then asks the signer. Signed bytes and signature are stored before
//     anything is sent.
//  4. The bytes are sent, and the same bytes again every few seconds, until the nonce has been consumed at finalized.
//  5. A nonce value is consumed by exactly one transaction. If that is ours and it succeeded, the ledger moves from payout_in_flight
//     to the treasury's account; if it failed, nothing was paid and the money is owner_payable again; if it is not ours, the
//     batch is frozen.
//
// Every step is driven from the rows, so a worker that dies anywhere is followed by one that goes on from there. Storing the
// message before the signature makes the repeated request identical, which the signer answers with the same signature.
//
// # When the database is rolled back
//
// A database restored from before a payout would pay it again, on another nonce. Payouts of a payee are therefore numbered, by
// signed ones only, and the signer counts them in its own journal: the restored database asks for a number that was used, the
// signer refuses, and the batch is frozen. See package signer.
//
// # Locking
//
// Nothing talks to the network inside a database transaction. A worker claims due batches with SKIP LOCKED for a bounded time;
// each step ends in a transaction that asserts the settlement lead's term and that the batch is still claimed and in the state
// that the step began in. Drafts are serialised by an advisory lock.
//
// # Errors
//
// What callers can mend is errs.*: Invalid, NotFound, Conflict, Forbidden, Unavailable. Run returns ErrDeposed when its term has
// passed.
package payouts
