// Package reconcile proves that the ledger's chain accounts and the chain say the same.
//
// RPC has no historical balances, so the proof is the chain of transactions itself: an account's final history is walked from
// its first transaction in the order of execution, each one must begin with the balance that the one before left, and the last
// must leave the live balance. What such a walk says is then matched, transaction by transaction, with the ledger's transfers on
// the same account by their chain signature.
//
// Walked are the treasury's token account (chain_treasury) and each customer's deposit token account (chain_deposits).
//
//	class             meaning
//	ledger_only       the ledger has a transfer that the chain has not
//	chain_only        tokens moved on the chain and the ledger does not know
//	amount_mismatch   both have it, with different amounts; or an account's history has a gap
//	duplicate         the ledger has recorded one transaction twice
//	unresolved_nonce  a signed batch of payouts whose end is not known; its transaction is not counted as chain_only
//
// # Other token accounts
//
// A survey lists what else our wallets have, before the walks (Tokens; survey, noteHoldings). What an account of the platform's token holds
// is chain_only, whether it is in suspense or not, and what the ledger has in suspense for one and it does not hold is ledger_only, also if it
// is closed or of another mint by now: arrivals later than the survey's slot are left out of that. A wallet with more accounts of the platform's
// token than can be read is chain_only by itself, and what was known of it stays. Other tokens are stored and never a difference. A mirrored
// account that somebody else has a say in is chain_only. A run by the clock does not ask all wallets; what is known of the others stays as it
// was last seen, so that their differences do not come and go.
//
// # Two moving sides
//
// Both sides go on while they are compared. The chain is read first; deposits are caught up then, and the ledger is read last.
// So the ledger may know more than the walk, and a transfer whose transaction is in a later slot than the walk's end is left for
// the next run.
//
// # Errors
//
// A run that cannot read the chain to the end, or whose ledger does not agree with itself, is stored as failed, with the reason,
// and never as clean. If only SOL could not be read, what was found about tokens is stored with it; if its history is longer than one run reads,
// the run is behind. What SOL's part did not look at to the end keeps its items. One run goes at a time; a second one is errs.Conflict.
package reconcile
