// Package process runs Ray nodes as plain processes of the agent's own user: the runtime of operators' hosts and of the local
// stack. It isolates nothing. Owners' hosts, where strangers' code runs, need a runtime that does.
//
// Each node is one `ray start --block` in a session of its own, with its own loopback address and ports (rayaddr), its own
// folder for Ray's session, home and temporary files, and its own token file. What a node needs to outlive the agent is on
// disk, under StateDir/nodes/NODE_ID: record.json, token and ray.log.
//
//	        Apply names it                    health check answers
//	(none) ----------------> STARTING ----------------------------> RUNNING
//	                            |  ended, or not healthy in time       |  ended
//	                            +-------------> FAILED <---------------+
//	                            |                                      |
//	                            +-> STOPPING <-------------------------+  stop, or no longer named
//	                                   |
//	                                   +-> STOPPED -> (none) once no longer named
//
// A healthy GPU node that is to stop drains first, for as long as the control plane allows: Ray gives it no new work, moves what it can,
// and ends its raylet when nothing is left. A head waits for the stopping nodes of its cluster on this host, which could not drain
// without it; that it outlives those of other hosts is the control plane's care.
//
// The record is written before the process is started (intent) and after (pid, and the start time that tells it from a later
// process of the same pid). Whoever finds the record therefore finds the process. A node's processes are those that carry its
// id in their environment, and all that share a session with one of those or descend from one: Ray's workers may make sessions
// of their own, so a process group alone would leave some behind.
//
// FAILED and STOPPED are final, also across a restart of the agent. Until the first Apply nothing is stopped: an agent that
// cannot reach the control plane leaves running clusters alone.
//
// Locking: Runtime.mu guards the set of nodes and what Status shows of each. Each node's process is touched only by the node's
// own goroutine. One Runtime holds a StateDir at a time, by a file lock.
package process
