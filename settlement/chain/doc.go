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
//   - No answer is from an older slot than what was seen finalized before.
//   - Wakeups are a hint. Whoever uses them polls as well.
//
// # Several endpoints
//
// With two endpoints or more, what money depends on (accounts, balances and nonces at finalized, signature statuses, history,
// transactions) is asked of two and compared. Two that are at different slots are no disagreement: the older is asked again from
// the newer one's slot on. One that lacks what the other shows, and says itself that it has passed that slot, or that says
// something else about the same slot, is ErrDisagree: an alarm, counted, and no answer. There is no vote among three.
// When fewer than two can answer, the read fails with ErrUnavailable or ErrBehind: with two endpoints settlement waits for both,
// with three it outlives the loss of one. What no money depends on is read from the first that answers. Sending goes to all.
//
// With one endpoint its word is taken, and Compares reports false.
//
// Errors: ErrNotFound when the cluster has no such account or transaction, ErrUnsupportedVersion, ErrDisagree, ErrBehind when an
// endpoint has not reached the wanted slot, ErrUnavailable when it could not be reached or is too busy, and *RPCError, which those
// but ErrNotFound and ErrDisagree may wrap, for what it refused. No error carries an endpoint's URL, whose path or query often is a
// credential; endpoints are named by their place in the configuration.
//
// A Client is safe for concurrent use. It remembers nothing but the newest finalized slot and how its endpoints did lately.
package chain
