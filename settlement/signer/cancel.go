package signer

import (
	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

// maxCancelsPerNonceValue bounds how often a cancellation may be made anew, with another fee, for one nonce value.
const maxCancelsPerNonceValue = 16

// cancelChecker allows a message that consumes a nonce value and moves nothing.
type cancelChecker struct {
	frame
	batch ids.Batch
}

func (c *cancelChecker) check(m *message) (checked, *Refusal) {
	if c.batch.IsZero() {
		return checked{}, refuse(RuleBatchSize, "a cancellation names its batch")
	}
	rest, refusal := c.open(m)
	if refusal != nil {
		return checked{}, refusal
	}
	memos := 0
	for i, in := range rest {
		switch in.program {
		case solana.ComputeBudget:
			refusal = c.computeBudget(m, i+1, in)
		case memoProgram:
			if memos++; memos > 1 || len(in.accounts) != 0 || !isBatchMemo(in.data, c.batch) {
				refusal = refuse(RuleMemo, "a cancellation's memo must be the batch id %s", c.batch)
			}
		default:
			refusal = refuse(RuleInstruction, "instruction %d calls the program %s, a cancellation only advances the nonce", i+1, in.program)
		}
		if refusal != nil {
			return checked{}, refusal
		}
	}
	return checked{nonce: nonceOf(m)}, c.close(m)
}
