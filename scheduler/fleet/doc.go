// Package fleet is the control plane's side of the agent protocol: who a host is, whether it lives, what it has and what should
// run on it.
//
// # Identity
//
// A host is its certificate's URI and nothing else. A join token, spent in the transaction that creates the host, binds a key
// made on the host to an organisation; the certificate is renewed under a generation that only moves forward, so two machines
// that carry one identity are found out at the latest when both renew. Every RPC passes one authorizer table; an RPC that the
// table does not name is denied.
//
// # State
//
//	enrolled --> verifying --> idle <--> leased
//	                ^            |         |
//	                |            v         v
//	               lost <---- draining   lost
//
// Any of them may become quarantined, with a reason, and any but leased may become retired, which is final. A host is verifying
// from its stream's beginning until its inventory has been received and found sane. State changes are checked by the database.
//
// # Level-triggered
//
// The gateway keeps nothing that matters. Desired state is read from the tables each time and sent whole; reports and heartbeats
// are collected in memory and written by one flush loop, which retries. A gateway that dies loses at most one flush, and agents
// say everything again on their next stream. NOTIFY only hastens; polling guarantees.
//
// # Locking
//
// Every statement or transaction that locks several rows locks them in id order, and none holds locks of hosts and nodes at once, but
// for inventory and connection, which take the host first. No network call is made inside a transaction.
package fleet
