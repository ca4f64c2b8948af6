package output

import (
	"fmt"
	"strings"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
)

const (
	day           = 24 * time.Hour
	leastDecimals = 2
)

// Money writes an amount with its currency. Trailing zeros go, but for two decimals.
func Money(m apiv1.Money) string {
	return Amount(m) + " " + m.Currency
}

// Amount writes an amount without its currency.
func Amount(m apiv1.Money) string {
	whole, decimals, found := strings.Cut(m.Text, ".")
	if !found {
		return m.Text
	}
	decimals = strings.TrimRight(decimals, "0")
	if missing := leastDecimals - len(decimals); missing > 0 {
		decimals += strings.Repeat("0", missing)
	}
	return whole + "." + decimals
}

// OptionalMoney writes an amount, or nothing.
func OptionalMoney(m *apiv1.Money) string {
	if m == nil {
		return ""
	}
	return Money(*m)
}

// IsZero reports whether an amount is nothing.
func IsZero(m apiv1.Money) bool { return strings.Trim(m.BaseUnits, "0") == "" }

// Duration writes a span in its two largest units: 850 ms, 3.4 s, 5m12s, 2h30m, 4d3h.
func Duration(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return two(d, time.Minute, "m", time.Second, "s")
	case d < day:
		return two(d, time.Hour, "h", time.Minute, "m")
	default:
		return two(d, day, "d", time.Hour, "h")
	}
}

func two(d, large time.Duration, largeName string, small time.Duration, smallName string) string {
	text := fmt.Sprintf("%d%s", d/large, largeName)
	if rest := d % large / small; rest > 0 {
		text += fmt.Sprintf("%d%s", rest, smallName)
	}
	return text
}

// Age writes how long ago at was in its largest unit: 12s, 5m, 3h, 4d.
func (p Printer) Age(at time.Time) string {
	switch d := max(p.Now.Sub(at), 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/day)
	}
}

// Time writes a moment in UTC, and nothing for none.
func Time(at *time.Time) string {
	if at == nil {
		return ""
	}
	return at.UTC().Format("2006-01-02 15:04:05Z")
}

// When writes a moment with how long ago it was or how long until it comes; nothing for none.
func (p Printer) When(at *time.Time) string {
	if at == nil {
		return ""
	}
	if at.After(p.Now) {
		return fmt.Sprintf("%s (in %s)", Time(at), Duration(at.Sub(p.Now).Round(time.Second)))
	}
	return fmt.Sprintf("%s (%s ago)", Time(at), p.Age(*at))
}

var tones = map[string]Tone{
	"ready": Good, "alive": Good, "idle": Good, "leased": Good, "succeeded": Good, "finalized": Good, "clean": Good, "credited": Good,
	"paid": Good, "refunded": Good,
	"reserved": Busy, "preparing": Busy, "head_up": Busy, "joining": Busy, "planned": Busy, "starting": Busy, "draining": Busy,
	"running": Busy, "stopping": Busy, "pending": Busy, "draft": Busy, "approved": Busy, "signed": Busy, "sent": Busy,
	"enrolled": Busy, "verifying": Busy, "open": Busy, "bidding": Busy, "quoted": Busy, "scheduled": Busy, "active": Busy, "parked": Busy,
	"waits": Busy, "behind": Busy, "requested": Busy, "drafted": Busy, "drafting": Busy, "refund requested": Busy, "refund drafted": Busy, "cancelling": Busy,
	"suspect": Busy, "unknown": Busy, "pass": Good, "live": Good, "won": Good, "accepted": Good, "fail": Bad, "refused": Bad,
	"cancelled": Dim, "ended": Dim,
	"degraded": Bad, "failed": Bad, "quarantined": Bad, "lost": Bad, "differences": Bad, "frozen": Bad, "suspense": Bad, "unusable": Bad,
	"released": Dim, "stopped": Dim, "retired": Dim, "used": Dim, "expired": Dim, "revoked": Dim,
}

// State writes a state's word, coloured by what it means for people.
func State(state string) Cell {
	state = strings.ToLower(state)
	return Cell{strings.ReplaceAll(state, "_", " "), tones[state]}
}
