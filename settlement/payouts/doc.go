// Package payouts pays owners what they earned, and customers what they withdraw, exactly once, in batches of one chain transaction each.
//
//	draft ──> approved ──> signed ──> sent ──> finalized      the chain executed it
//	  │          │  │         │        ├─────> failed         the chain executed it with an error: nothing was paid
//	  │          │  │         │        ├─────> frozen         records disagree: people decide, nothing is repaid by itself
//	  │          │  │         └────────┴─────> cancelling ──> cancelled, finalized, failed or frozen
//	  │          │  └────────────────────────> frozen ──────> finalized or cancelled, with evidence that the chain confirms
//	  └──────────┴──> cancelled                               nobody was asked to sign it
//
// # How a payout happens once
//
//  1. A run drafts: it takes the payable balances, moves them in the ledger from owner_payable to payout_in_flight, and pins a durable
//     nonce and its value to each batch, each batch whole in one database transaction, with its manifest. A payee is in one live batch at
//     most, a nonce likewise. Withdrawals are in flight from the request on.
//  2. People approve: one, or two above a limit, and never who drafted.
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
// # In groups, side by side
//
// Batches take a step in groups: one transaction of the database stores it for all of them, one call of the signer signs them, and the
// chain is asked about many at once. What is stored before what does not change with that, and a batch against which something is said
// leaves its group and holds up nobody else. Groups are under way side by side, so that one is built while another is signed and a
// third sent; beside them sent batches are watched, and those that are to be cancelled retired. A round likewise looks at payees'
// accounts, plans and stores at the same time, so that its first batches can be approved and paid while the last are drafted.
//
// A sent batch is looked at by its signature's status, of which one call tells 256. Its bytes are sent again only while no block has
// them.
//
// # Cancelling
//
// What was signed can land for as long as its nonce value lives. Cancelling therefore means to consume that value with a bare advance,
// which is stored, signed, stored and sent as a payment is. Of the two the chain executes one. The money is payable again only when
// the advance is finalized. There is never a transaction of a batch on another nonce or value; the schema refuses it.
//
// # Frozen batches
//
// A frozen batch ends when two people name the same transaction as evidence, and the chain confirms it: one that moved exactly the
// batch's amounts to its payees, or one that consumed its nonce value and gave them nothing. Neither is taken while the nonce value
// lives; Cancel consumes it.
//
// # Runs
//
// A run drafts each payee once, in rounds of as many batches as nonces are free, and records who was left out and why. Batches are
// stored a few at a time, so a run that is interrupted has drafted what it has, and goes on. Two organisations with one wallet are paid in
// different transactions, because the signer numbers payouts by organisation.
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
// that the step began in. A round claims its run. Asking for a cancellation or resolving takes the batch's row; whoever works on it
// then finds another state, and drops what it did.
//
// # Errors
//
// What callers can mend is errs.*: Invalid, NotFound, Conflict, Forbidden, Unavailable. Run returns ErrDeposed when its term has
// passed.
package payouts
