package proxy

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
)

// Fault is what befalls a call.
type Fault string

// The faults. Some befall certain methods only, whatever the rule says.
const (
	Drop        Fault = "drop"        // the connection is closed; the chain does not get the call
	LoseAnswer  Fault = "lose answer" // the chain gets the call, then the connection is closed
	Timeout     Fault = "timeout"     // the chain gets the call; the answer never comes
	CutBody     Fault = "cut body"    // the connection breaks in the middle of the answer
	Malformed   Fault = "malformed"   // half of the JSON, as if it were all
	Busy        Fault = "busy"        // 429 with Retry-After
	Gateway     Fault = "gateway"     // 502
	Unhealthy   Fault = "unhealthy"   // -32005: the node is behind
	Behind      Fault = "behind"      // -32016: the minimum context slot has not been reached
	Unsupported Fault = "unsupported" // -32015: transactions of this version are not shown

	Reject    Fault = "reject"    // sendTransaction: refused by the provider's trial run, not forwarded
	Swallow   Fault = "swallow"   // sendTransaction: answered, not forwarded
	Late      Fault = "late"      // sendTransaction: answered at once, forwarded after Rule.Delay
	Duplicate Fault = "duplicate" // sendTransaction: forwarded three times

	Prune        Fault = "prune"         // history is gone: no signatures, statuses or transactions
	WrongBalance Fault = "wrong balance" // a lie: one base unit or lamport more than there is
	WrongNonce   Fault = "wrong nonce"   // a lie: another nonce value
)

// Faults lists them all.
func Faults() []Fault {
	return []Fault{
		Drop, LoseAnswer, Timeout, CutBody, Malformed, Busy, Gateway, Unhealthy, Behind, Unsupported,
		Reject, Swallow, Late, Duplicate, Prune, WrongBalance, WrongNonce,
	}
}

// Lies reports whether a fault is a false answer, which only a comparison with another provider's can find.
func (f Fault) Lies() bool { return f == Prune || f == WrongBalance || f == WrongNonce }

// Bound reports whether a fault befalls certain methods only.
func (f Fault) Bound() bool { return bound[f] != nil }

// Methods of the chain that some faults are bound to.
const (
	methodSend        = "sendTransaction"
	methodSlot        = "getSlot"
	methodHeight      = "getBlockHeight"
	methodBalance     = "getBalance"
	methodAccount     = "getAccountInfo"
	methodAccounts    = "getMultipleAccounts"
	methodHistory     = "getSignaturesForAddress"
	methodStatuses    = "getSignatureStatuses"
	methodTransaction = "getTransaction"
	methodBlock       = "getBlock"
	methodAirdrop     = "requestAirdrop"
	defaultLate       = 300 * time.Millisecond
	duplicates        = 3
)

// bound are the methods that a fault can befall; every other fault befalls all.
var bound = map[Fault][]string{
	Reject:       {methodSend},
	Swallow:      {methodSend},
	Late:         {methodSend},
	Duplicate:    {methodSend},
	Unsupported:  {methodTransaction, methodBlock},
	Prune:        {methodHistory, methodStatuses, methodTransaction},
	WrongBalance: {methodAccount, methodAccounts, methodBalance, methodTransaction},
	WrongNonce:   {methodAccount, methodAccounts},
}

// Rule says when a fault befalls a call.
type Rule struct {
	Fault   Fault
	Methods []string      // none: every method that the fault can befall
	Chance  float64       // of each call, above 0; 0 means always
	Limit   int           // how often at most; 0 means without end
	Delay   time.Duration // Late: until it is forwarded; Busy: what Retry-After says, in whole seconds
}

func (r Rule) befalls(method string) bool {
	if methods := bound[r.Fault]; methods != nil && !slices.Contains(methods, method) {
		return false
	}
	return len(r.Methods) == 0 || slices.Contains(r.Methods, method)
}

// chance is a number in [0, 1) that follows from the seed, the method, the number of the call and of the rule.
func chance(seed uint64, method string, call, rule int) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(method)) // never fails
	source := rand.NewPCG(seed^h.Sum64(), uint64(call)<<16|uint64(rule))
	return rand.New(source).Float64() //nolint:gosec // the same numbers again are the purpose
}
