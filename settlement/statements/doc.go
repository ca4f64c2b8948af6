// Package statements tells customers what they were charged, owners what they earned, and why, in figures that tie out to the ledger.
//
// # What a statement is
//
// A period is whole UTC days, the last one exclusive; a posting belongs to the day on which the ledger has it. A statement begins with
// the balances before the period, lists every movement, and ends with the balances after it. Charges are listed by lease, from
// lease_days, which metering writes with the postings; everything else is listed transfer by transfer. Before a statement is given
// out, its lines are added up and compared with the ledger's own sums; one that does not tie out, to the base unit, is an error and
// never shown.
//
// # Credits
//
// What was not delivered was never charged: usage ends with the last heartbeat that confirmed it, and while a cluster is degraded
// nothing is billed. A credit names such a stretch of a lease, what it would have cost, and whose fault it was: it is told from the
// gaps between the lease's usage and the cluster's timeline. It moved no money. Money that did move back is a movement of its own.
//
// # Fees
//
// The platform's share comes from a schedule. The row that is in force when a booking is quoted is frozen in it, in its cluster and in
// its leases, so that a new row changes nothing that exists.
//
// # Files
//
// CSV is written for spreadsheets: no cell begins a formula, and amounts are never signed. The FOCUS export has a row for each lease
// and day. Both are the same bytes for the same data.
//
// # Errors and locking
//
// A period that cannot be is errs.Invalid, one with too much in it errs.TooLarge. Each statement reads one snapshot of the database and
// locks nothing. All types are safe for concurrent use.
package statements
