// Package chaos holds settlement to its promise under crashes and faults: no token is lost, and none is paid or credited twice.
//
// Its tests kill payout workers and sweepers at each of the steps that their packages name, and deposit watchers and who takes requests
// around each of their writes, while package proxy does to their calls what networks and providers do. Database, chain and signer are
// real. After each run the ledger must sum to zero, each payee must hold on the chain exactly what the ledger says was paid, and the
// treasury what it was paid out of. Nobody mends anything by hand, but for the alarms that a scenario stages.
//
// In those the faults come mixed, as the seed will have it. Beside them each fault alone befalls all flows of money at once, and scenarios
// stage what is rare: a stolen nonce, a signer that is down, clocks that jump, two processes that both believe that they lead.
//
// A control, which sends before it stores, goes through the same crashes and faults, and pays twice: so the tests can fail.
//
//	go test ./settlement/chaos                      a few seeds; part of the ordinary tests
//	make chaos                                      20 seeds for each step, and the figures
//	make chaos MUSTER_SEED=7 CHAOS_SEEDS=1          one seed again
package chaos
