// Package txn lays out the messages that the treasury signs: a payout batch, the cancellation of a batch that never landed, and the
// sweep of a deposit. Every one of them lives by a durable nonce, which its first instruction advances.
//
// # Formats
//
//	V1      4,096 bytes, at most 64 accounts, the budget beside the instructions: the cheapest per payee
//	V0      1,232 bytes with a lookup table that holds the payees' accounts
//	Legacy  1,232 bytes, every account spelled out: for emergencies
//
// Treasury.Fits says what a transaction of each can pay.
//
// # Layout
//
// What never changes for a treasury (its programs, its mint, where they stand in the list of accounts, the head of each
// instruction) is laid out once, by New. A message is then written in one pass over its payees, without allocations when the
// caller's buffer is large enough.
//
// # Invariants
//
// The same input gives the same bytes, and they are those of solana-go's builder: accounts are ordered by what they may do and
// then by address. @solana/kit orders by the address's text instead; where the two orders agree, its bytes are the same too. A nonce
// account is never looked up in a table, because the cluster would refuse it there. A message that pays one account twice, does
// not fit, or has no budget, is an error and not a message.
//
// # Errors
//
// ErrTooLarge: the format cannot hold it, a smaller batch or another format can. Everything else is a caller's mistake.
//
// # Locking
//
// A Treasury does not change after New and is safe for concurrent use.
package txn
