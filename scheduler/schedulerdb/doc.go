// Package schedulerdb has the scheduler's queries, generated from the SQL files beside it. Each takes the database or transaction that it runs
// in; what belongs into one transaction is the caller's business.
//
// # States
//
// The schema refuses every change of state that is not listed here (migrations/00002, 00006):
//
//	hosts    enrolled    -> verifying, lost, quarantined, retired
//	hosts    verifying   -> idle, lost, quarantined, retired
//	hosts    idle        -> leased, verifying, draining, lost, quarantined, retired
//	hosts    leased      -> idle, draining, lost, quarantined
//	hosts    draining    -> idle, lost, quarantined, retired
//	hosts    lost        -> verifying, quarantined, retired
//	hosts    quarantined -> verifying, retired
//	hosts    retired     -> none
//
//	bookings bidding     -> quoted, expired, cancelled
//	bookings quoted      -> bidding, accepted, expired, refused, scheduled, cancelled
//	bookings scheduled   -> accepted, refused, cancelled
//	bookings accepted    -> none
//	bookings cancelled   -> none
//	bookings expired     -> none
//	bookings refused     -> none
//
//	clusters reserved    -> preparing, draining
//	clusters preparing   -> head_up, draining
//	clusters head_up     -> joining, draining
//	clusters joining     -> ready, draining
//	clusters ready       -> degraded, draining, parked
//	clusters degraded    -> ready, draining
//	clusters parked      -> joining, draining
//	clusters draining    -> released, failed
//	clusters released    -> none
//	clusters failed      -> none
//
//	nodes    planned     -> starting, stopping, failed
//	nodes    starting    -> running, stopping, failed
//	nodes    running     -> alive, stopping, failed
//	nodes    alive       -> running, stopping, failed
//	nodes    stopping    -> stopped, failed
//	nodes    stopped     -> none
//	nodes    failed      -> none
//
//	leases   held        -> billing, closed
//	leases   billing     -> held, closed
//	leases   closed      -> none
package schedulerdb
