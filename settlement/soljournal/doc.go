// Package soljournal keeps the journal of the treasury wallet's SOL: what transactions cost, what rent went out and came back, what was put
// in and taken out.
//
// It is written from the chain alone. The wallet's final history is walked in the order of execution, each transaction has to begin with the
// lamports that the one before it left, and the last to leave the live balance; the schema holds each row to the row before it. Every
// transaction becomes lines that add up to its change:
//
//	kind          sign  what
//	base_fee      -     5,000 lamports a signature
//	priority_fee  -     the rest of the fee
//	rent_out      -     for an account that it made: a token account, a nonce, a lookup table
//	rent_back     +     from an account that was given up
//	top_up        +     SOL from elsewhere
//	sent          -     SOL to elsewhere
//
// A failed transaction costs its fee and moves nothing else. Amounts are lamports, 10^-9 SOL. A transaction is of its block's time, but no
// earlier than the one before it, so that a month is one piece of the journal.
//
// # Differences
//
// What the journal says is compared with what payouts, their cancellations and sweeps have noted of their own transactions:
//
//	class            meaning
//	chain_only       the wallet paid for a transaction that is none of ours
//	ledger_only      a transaction of ours was noted as final, and the wallet's history lacks it
//	amount_mismatch  both have it, and it cost something else; or the history has a gap
//
// A look compares what is at most 90 days old, a full one all. A note that names another wallet as who paid, or that another wallet's journal
// has, is not missing here.
//
// # Long histories
//
// Anybody can name the wallet in as many transactions as they pay for, and a history is listed from its newest transaction on, but written
// from its oldest. So one that is too long is cut into pieces: marks are stored from its end to its beginning, and the pieces between them are
// read the other way. A reading, too, is stored: it is how far all has been read, and ahead of the journal's newest transaction where
// what follows that only mentions the wallet.
//
//	newest                                                    head
//	  |----------- mark 1 ----------- mark 2 ----- reading ----|
//	                                  <- cut       read ->
//
// A look goes as far as its bounds let it, and the next one goes on. Until then the journal is behind: it is not continuous, and no difference
// is gone because it was not seen. A gap ends a look, and both are forgotten, because an endpoint may have shown a transaction late: the next
// look goes on from the head.
//
// # Errors
//
// A history that cannot be read to its end is an error of the chain's, and nothing is written. Of one with a gap, what lies before the gap is.
// One walk of a wallet goes at a time; whoever comes second finds the rows there and is refused by the schema.
package soljournal
