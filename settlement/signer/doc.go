// Package signer holds the treasury's key and signs what the treasury sends, in a process of its own that trusts nobody.
//
// The signer is the last line of defence: whoever controls the control plane, or restores an old copy of its database, must
// still not be able to divert the treasury or to pay anybody twice. So the signer
//   - parses each message itself, from bytes, in every version; lookup tables are those that its policy lists, and never fetched;
//   - allows three kinds of message, and refuses everything that it does not recognise;
//   - compares payees and amounts with what it was told, and both with its policy's caps per message and per 24 hours;
//   - keeps a journal of what it allowed, written and synced to disk before anything is signed, and refuses by it.
//
// # What it signs
//
// Every message advances a durable nonce of the policy first, is paid for by the treasury, and marks as writable exactly the accounts
// that its instructions change.
//
//	batch    CreateIdempotent of payees' own token accounts, TransferChecked out of the treasury's token account to exactly the batch's
//	         payees, and one memo: the batch's id, alone or followed by a space and its manifest's root
//	cancel   nothing else (a memo of the batch's id is allowed): it consumes the nonce value of a batch that will never land
//	sweep    TransferChecked of the whole named amount from a customer's deposit wallet to the treasury's token account; signed by both
//
// All three may set a compute budget, within the policy's fee.
//
// # What the journal refuses
//
// Each (nonce account, nonce value) is signed for one batch or sweep only, so of all that was ever signed on it the cluster executes
// at most one. A batch's cancellation belongs to the batch: it is signed beside the batch's own message, on its nonce value and
// on no other. Each payout id is signed once. And each payee's payouts are numbered: the signer signs number n+1 for a payee only
// if n was the last. The database counts the signed payouts of a payee in the same way, so after one of the two was rolled
// back they disagree, and the signer refuses: a database without the last payout asks for its number again, under whatever
// batch, payout id and nonce. Drafts that were dropped before signing use up no number, so no sequence of retries by a
// rolled-back database ever reaches the next one.
//
// The same request again gets the same signature, so a lost answer is asked for again. Requests that come together share one
// sync of the journal, and see each other.
//
// When the signer starts with a journal of more than 32 MiB, records of more than 90 days ago are replaced by each payee's number; ids
// from before are then refused by the time that they carry. The long journal is kept beside it, and may be put away.
//
// # The log
//
// Beside the journal is a log for people: one line of JSON for each request and its outcome, chained by hashes and synced before a
// signature leaves. VerifyLog checks it. Neither file holds a secret.
//
// # Keys
//
// The key file is made by Init, once, must be readable by its owner only, and can be encrypted under a passphrase (age's format). It
// holds the treasury's seed and the seed from which deposit wallets are derived: HMAC-SHA512(seed, organisation id), the first half
// of which is an ed25519 seed. The treasury's key can be in HashiCorp Vault's transit engine or in AWS KMS instead; then what
// they sign is verified, and the key file holds the deposit wallets' seed alone. Only addresses and signatures leave the process.
//
// # Access
//
// HTTP with JSON on a unix socket; the kernel names the user of each connection, and only the signer's own and those that were
// allowed are served. There is no other network, but for a remote key. Confine makes the kernel hold the process to that.
//
// # Locking
//
// Messages are compared with the policy and signed concurrently; what depends on the journal is decided under one lock, a group of
// requests at a time. One process has the journal, by a lock on its file.
//
// # Errors
//
// A request that a rule forbids gets a *Refusal that names the rule, also through Client. A journal or log that cannot be written
// stops all signing until a restart. Every other failure is ErrUnavailable to a Client: asking again is safe.
package signer
