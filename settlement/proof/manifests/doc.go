// Package manifests makes the manifests that package proof describes, keeps them and publishes them.
//
// # What a manifest lists
//
// A payout of earnings takes a stretch of its payee's earnings account: all that was posted since the last payout that paid, up to where
// the sum is the payout's amount. Charges become one record a lease, everything else an adjustment with its entry's memo. Payouts
// themselves are left out, so that a batch that paid nothing gives its stretch back: the next one begins where it began. Where no
// stretch comes to the amount exactly, an adjustment says what is carried to the next payout.
//
// # Locking
//
// Seal runs at the end of the transaction that drafts a batch. One advisory lock serialises the numbering of manifests until that
// transaction ends. Nothing else here writes.
//
// # Errors
//
// A batch whose amounts the ledger does not explain is an internal error, and is not drafted. Reads return errs.NotFound.
package manifests
