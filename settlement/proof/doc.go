// Package proof lets anybody check what the treasury paid, with the chain and the published manifests alone.
//
// # Manifest
//
// Every payout batch has a manifest: for each payee the amount, and the usage records and adjustments that it is the sum of. It is
// sealed when the batch is drafted, and the transaction that pays the batch carries the manifest's Merkle root in its memo:
//
//	<batch id> <root, 43 characters of base64url>
//
// The tree is that of RFC 6962 with SHA-256. Leaf 0 is the manifest's head, leaf n its n-th payout, each as compact JSON with the
// fields in the order of the types here, and nothing escaped that JSON does not demand. Manifests are numbered without a gap, and
// each names the root of the one before it, so that none can be left out or exchanged later.
//
// # Record
//
// A record is a piece of a lease's billed time, counted from the lease's beginning: what the customer had been charged before it and
// after it, in base units, at the lease's frozen price. The charge for t milliseconds is floor(price x t / 3,600,000), the platform's
// share of a charge c is floor(c x fee_bps / 10,000), and what the owner gets for a record is the difference of (charge - share)
// between its ends. The times are the least ones that cost as much as was charged. A lease's records join without gap or overlap.
//
// # Verification
//
// Verify walks the treasury's token account and believes balances only: what an account held before and after each transaction. Each
// transaction that took tokens out must name a manifest, whose payees and amounts must be those that the balances show, and whose
// amounts must follow from its records. From the beginning on, the account must begin empty and the manifests with number 1. It holds one
// manifest at a time, the list of all, and of the past the end of each lease's records. The first thing that does not fit is a
// *Difference. Any other error means that the chain or the manifests could not be read.
//
// Nothing here needs a database, a key or a login. Package manifests makes and keeps manifests.
package proof
