// Package simfleet plays a fleet of GPU hosts: thousands of agents of the real protocol in one process.
//
// Each agent has a key of its own, enrols with a real join token, holds a stream over mutual TLS, sends Hello, Inventory (marked as
// simulated), Heartbeat, Health and Report, keeps the pace that it is told and does what the desired state says. Only the machine
// behind it is missing: a node that should run is reported starting and, after a while, running; a head answers with a summary in
// the way of Ray's, made of what the other agents of the fleet run for the same cluster; a tunnel is refused in words.
//
// # Seeds
//
// Generate makes hosts, owners and asks from a seed, host i the same for every size of the fleet; Plan makes a schedule of
// joins, flaps, price changes and faults from one. An agent draws its delays from the seed and its place. What a seed does not fix is what
// the control plane makes anew: ids, keys and the moments at which messages meet.
//
// # Cost
//
// Beside what gRPC itself starts for a connection, an agent has one goroutine, which waits for messages. All its delays are
// entries of one timer wheel, whose callbacks run in a fixed number of goroutines. Keys and certificates stay in memory; a Journal keeps them
// between runs.
//
// # Locking
//
// An agent's mutex guards its state and its stream's sending side. The registry of clusters has a mutex of its own, taken while an agent's is
// held and never the other way round; one agent never takes another's.
package simfleet
