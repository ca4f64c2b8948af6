// Package sweeps moves what customers deposited into the treasury, from where owners are paid.
//
//	planned ──> signed ──> finalized   the treasury has the tokens
//	   │           ├─────> failed      nothing moved: the chain executed it with an error, or the signer refused
//	   └───────────┴─────> frozen      the nonce was consumed by something else: a person compares the records
//
// A sweep takes what the ledger says that a deposit token account holds, once that is worth a transaction. It moves nobody's balance:
// only chain_deposits turns into chain_treasury.
//
// # Exactly once
//
// The rules are those of payouts. A free durable nonce is pinned, and the message on it stored, in the transaction that plans the
// sweep; the signer is asked only then, and its signatures are stored before the bytes are sent. The same bytes are sent again
// until the nonce's value has changed at finalized, and then the transaction that changed it says how the sweep ended. A token
// account has one live sweep, and a nonce is pinned by a batch of payouts or by a sweep, never by both.
//
// # Locking
//
// Nothing talks to the network inside a database transaction. Each step ends in one that asserts the settlement lead's term and moves the
// sweep on from the state that the step began in; of two processes one finds nothing to move.
//
// # Errors
//
// A sweep that cannot go on says why in Attention and is tried again; Run goes on.
package sweeps
