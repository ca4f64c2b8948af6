// Package metering turns usage into money: it charges customers for what their clusters used, credits the owners, and gives
// back the rest of a hold when a cluster is over.
//
// # Charges do not drift
//
// What a lease has cost is always computed from the beginning: floor(price per GPU-hour x billed ms / 3,600,000), over the
// confirmed time of all its usage intervals. A posting is the difference to the sum of the postings before it, so that any
// number of pauses, crashes and repeats ends at the same figure. The platform's share is cumulative likewise.
//
// # A cluster's end
//
// Once a cluster has ended and none of its usage is open, the last charge, the return of the rest of the hold and settled_at
// are one transaction, which happens once.
//
// The charges of a cluster never exceed its hold: what would is cut off, the owner is not paid for it, and an error is logged,
// because a cluster that outlives its booking is a defect of the scheduler.
//
// # Locking
//
// Every pass takes one advisory lock for its transaction, so that passes of any number of processes follow each other; a pass
// reads usage after it has the lock. The leader's passes check its term as well. The scheduler's rows are not locked, except
// an ended cluster's when settled_at is set.
package metering
