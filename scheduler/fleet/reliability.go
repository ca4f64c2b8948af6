package fleet

import "time"

// How reliable a host is, from what was seen of it.
const (
	reliabilityDays    = 30
	perfect            = 10_000         // basis points
	priorObserved      = 24 * time.Hour // a new host is taken to have been observed this long
	priorOnline        = 9_000          // and to have been there for so much of it, in basis points
	failurePenalty     = time.Hour      // a failed node weighs like so much time away
	reliabilityStep    = 10             // basis points: a smaller change is not written
	provenAfter        = 7 * 24 * time.Hour
	provenOnline       = 9_900
	provenDeliveries   = 1
	tierNew, tierTrust = 0, 2
	tierProven         = 1
)

// reliability is the share of observed time in which a host was there, in basis points. A prior keeps a new host from looking perfect
// after its first minute, and its failed nodes count as time away.
func reliability(observed, online time.Duration, failed int64) int {
	away := time.Duration(min(failed, int64(reliabilityDays)*24)) * failurePenalty
	observed += priorObserved + away
	online += priorObserved * priorOnline / perfect
	return int(perfect * online.Milliseconds() / observed.Milliseconds())
}

// tier is what a host has earned: proven after a week at 99 % and a delivery. That it is trusted is for operators to say.
func tier(observed, online time.Duration, delivered int64) int {
	if observed >= provenAfter && online.Milliseconds()*perfect >= observed.Milliseconds()*provenOnline && delivered >= provenDeliveries {
		return tierProven
	}
	return tierNew
}
