// Package deposits credits customers for the tokens that they send, and keeps account of every other token that reaches one of
// our wallets.
//
// Each customer has one wallet, whose key is derived in the signer and never leaves it. Tokens are found by reading the
// final history of every token account that such a wallet, or the treasury's wallet, owns:
//
//	platform's mint, the customer's own token account, enough   -> credited: chain_deposits / customer_available
//	platform's mint, the same account, less than the minimum    -> suspense: chain_deposits / suspense ("dust")
//	platform's mint, the treasury's token account               -> capital:  chain_treasury / platform_capital
//	anything else that arrives                                  -> suspense: chain_suspense / suspense, in its own mint
//
// Of foreign tokens so many accounts of a wallet are followed, since anybody can open them; package reconcile lists what more there is.
//
// If the platform's mint is one of Token-2022 with extensions that do more than describe it, all of it goes to suspense.
//
// What is in suspense is nobody's until a person decides (Decide); it is never credited by itself and never forgotten. What is to go
// back to its sender goes the way of payouts: the decision stores the request, and package payouts does the rest. What our own
// sweeps bring to the treasury (package sweeps) is no arrival.
//
// # Exactly once
//
// An arrival is known by (signature, token account), which is unique in the table deposits. Its row and its ledger entry are one
// transaction, and the cursor moves only after it, so a crash in between reads the same window again and finds the rows there.
// Windows overlap, because endpoints order neighbouring slots inconsistently. A websocket only wakes the poller.
//
// # Errors
//
// An account that cannot be read or recorded does not keep the others from being polled; Poll's error joins what failed.
package deposits
