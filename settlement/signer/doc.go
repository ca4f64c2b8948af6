// Package signer holds the treasury's key and signs payout batches, in a process of its own that trusts nobody.
//
// The signer is the last line of defence: whoever controls the control plane, or restores an old copy of its database, must
// still not be able to divert the treasury or to pay anybody twice. So the signer
//   - parses each message itself, from bytes, and allows only what a payout needs: AdvanceNonce first, compute budget,
//     CreateIdempotent of a payee's own token account, TransferChecked out of the treasury's token account, one memo;
//   - compares payees and amounts with the batch that it was told, and both with its policy's caps per batch and per 24 hours;
//   - keeps a journal of what it signed, written and synced to disk before a signature leaves, and refuses by it.
//
// # What the journal refuses
//
// Each (nonce account, nonce value) is signed for one batch only, so of all that was ever signed on it the cluster executes at
// most one. Each payout id is signed once. And each payee's payouts are numbered: the signer signs number n+1 for a payee only
// if n was the last. The database counts the signed payouts of a payee in the same way, so after one of the two was rolled
// back they disagree, and the signer refuses: a database without the last payout asks for its number again, under whatever
// batch, payout id and nonce. Drafts that were dropped before signing use up no number, so no sequence of retries by a
// rolled-back database ever reaches the next one.
//
// The same request again gets the same signature, so a lost answer is asked for again.
//
// # Keys
//
// The key file is made by Init, once, and must be readable by its owner only. It holds the treasury's seed and the seed from
// which deposit wallets are derived: HMAC-SHA512(seed, organisation id), the first half of which is an ed25519 seed. Only
// addresses leave the process.
//
// # Access
//
// HTTP with JSON on a unix socket of mode 0600; the peer's user id is checked on each connection. There is no other network.
//
// # Errors
//
// A request that a rule forbids gets a *Refusal that names the rule, also through Client. A journal that cannot be written
// stops all signing until a restart.
package signer
