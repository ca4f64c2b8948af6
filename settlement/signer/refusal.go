package signer

import "fmt"

// Rule names what a refused request went against.
type Rule string

// The rules. Those of the first group are about the message and the policy, those of the second about what was signed before.
const (
	RuleMalformed   Rule = "malformed"    // the bytes are not a message that a cluster would take
	RuleInstruction Rule = "instruction"  // an instruction that no payout needs, or in the wrong place
	RuleLookupTable Rule = "lookup_table" // the message uses a lookup table that the policy does not list
	RuleSigner      Rule = "signer"       // the treasury is not the fee payer, or others sign than should
	RuleNonce       Rule = "nonce"        // no durable nonce of the policy
	RuleMint        Rule = "mint"         // another token, token program or decimals
	RuleSource      Rule = "source"       // out of another account than the treasury's own
	RulePayee       Rule = "payee"        // payees differ from the batch
	RuleAmount      Rule = "amount"       // amounts differ from the batch, or are not positive
	RuleMemo        Rule = "memo"         // the memo does not name what is signed
	RuleFee         Rule = "fee"          // more priority fee than the policy allows
	RuleBatchSize   Rule = "batch_size"   // no payouts, or more than the policy allows
	RuleBatchCap    Rule = "batch_cap"    // more tokens than the policy allows for a batch
	RuleDayCap      Rule = "day_cap"      // more tokens than the policy allows for 24 hours
	RuleSweep       Rule = "sweep"        // no sweep of an organisation's deposit wallet
	RuleSweepCap    Rule = "sweep_cap"    // more tokens than the policy allows to sweep, at once or in 24 hours

	RuleBatchChanged Rule = "batch_changed" // this batch or sweep was signed with other content
	RuleNonceUsed    Rule = "nonce_used"    // this nonce value was signed for another batch or sweep
	RulePayoutSigned Rule = "payout_signed" // this payout was signed in another batch
	RuleSequence     Rule = "sequence"      // the payee's payouts are counted differently here: one side was rolled back
)

// Refusal is a request that a rule forbids.
type Refusal struct {
	Rule    Rule   `json:"rule"`
	Message string `json:"message"`
}

// Error implements error.
func (r *Refusal) Error() string {
	return fmt.Sprintf("the signer refused by its rule %q: %s", r.Rule, r.Message)
}

// AgainstHistory reports whether the refusal says that the asker's records and the signer's disagree about what was signed. No
// retry mends that, and nothing of the batch may be paid in another way before a person has compared the two.
func (r *Refusal) AgainstHistory() bool {
	switch r.Rule {
	case RuleBatchChanged, RuleNonceUsed, RulePayoutSigned, RuleSequence:
		return true
	default:
		return false
	}
}

func refuse(rule Rule, format string, args ...any) *Refusal {
	return &Refusal{Rule: rule, Message: fmt.Sprintf(format, args...)}
}
