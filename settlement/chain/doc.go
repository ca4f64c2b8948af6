// Package chain reads from and writes to a Solana cluster over JSON-RPC, as far as settlement needs it.
//
// What it promises:
//   - Every read is at finalized unless a method takes a commitment. Money is never counted from anything weaker.
//   - Movements are taken from the token balances that the cluster itself recorded before and after each transaction, never from
//     log lines or instructions: the token program writes no logs, and programs move tokens inside other instructions.
//   - Transactions of every version up to 1 are read. An endpoint that answers -32015 for a higher one would hide movements, so
//     that answer is ErrUnsupportedVersion, an alarm and never "nothing happened".
//   - Reads are repeated within a bounded budget when the endpoint is down, busy or behind; sending is never repeated here,
//     because only the caller knows that the bytes are safe to send again.
//   - Wakeups are a hint. Whoever uses them polls as well.
//
// Errors: ErrNotFound when the cluster has no such account or transaction, ErrUnsupportedVersion, ErrBehind when the endpoint has
// not reached the wanted slot, ErrUnavailable when it could not be reached or is too busy, and *RPCError, which those but the
// first wrap, for what it refused. No error carries the endpoint's URL, whose path or query often is a credential.
//
// A Client is safe for concurrent use and holds no state but its connections and its retry budget.
package chain
