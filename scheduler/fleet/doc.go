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
// from its stream's beginning until its inventory and its health have been received and found sane. State changes are checked by the
// database.
//
// # Health
//
// Gates judge what a host says of itself (judge, which is pure): gpu, driver, ecc, xid, clock, disk, udp, throttle. A gate that fails
// closes the host to new work until it passes, and hosts.failing_gate names the first; but throttling only warns, and udp matters only
// to runtimes that join machines by an overlay, not to the process runtime. What is unknown closes nothing. An uncorrectable memory
// error, an Xid that only failing hardware raises, and a remapped row that waits for a reset quarantine the host. Such a host still
// uses the protocol, so that its nodes are stopped, but confirms no usage; its owner asks for a recheck, and it is verified anew.
// A quarantine for distrust shuts the host out, and only an operator lifts it.
//
// # Liveness
//
// A host is told how often to beat: often while it has nodes, seldom while it has none, more seldom the larger the fleet. hosts.lost_after_ms
// follows, and never asks for a heartbeat that the host has not been told to send. One and a half intervals without one make a host suspect
// (connected is false, so that nothing is placed there), and lost_after_ms make it lost. A heartbeat counts for the time it was heard
// at, whenever it is written.
//
// What a host with nodes says is written with the next flush: it is billed by it. When a host without nodes was last heard is written every
// thirty seconds, with hosts.seen_slack_ms, which is how much later it may have been heard, and by which it is judged so much later. Its
// gateway writes exactly, without slack, when it was last heard as soon as a heartbeat is late, its stream ends, the gateway stops or the
// host is given a node; so it is suspect and lost no later than any other. Only a host without nodes that dies at the same time as its
// gateway is missed later, by the slack at most. The slack belongs to the host's newest stream (hosts.stream): what another gateway still
// has to write of an older one leaves it alone.
//
// # Maintenance and history
//
// Care runs with the scheduler's lead: it begins and ends the windows that owners plan, tells customers of them, and adds each minute to
// the history from which reliability and the trust tier follow. All of it goes by the database's clock.
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
