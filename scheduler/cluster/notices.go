package cluster

import (
	"fmt"
	"slices"
	"time"
)

// Notice is something that a customer is told once, as an event of the timeline.
type Notice struct {
	Key  string
	Text string
}

// Keys of notices, kept in clusters.notices while what they say holds.
const (
	noticeEnd30   = "ends_30m"
	noticeEnd5    = "ends_5m"
	noticeBalance = "balance"
	noticePreempt = "preempt"
	noticePark    = "park"
	noticeRelease = "release"
)

const (
	firstWarning = 30 * time.Minute
	lastWarning  = 5 * time.Minute
	// A time that moves back by less than this, as what was not confirmed is not counted, is not announced again.
	noticeSlack = 2 * time.Minute
)

// announce tells what is about to happen, each once, and forgets what has been averted.
func (v View) announce() Decision {
	var d Decision
	for _, n := range []struct {
		key  string
		due  bool
		over bool // it may be announced again
		text func() string
	}{
		{noticePreempt, !v.PreemptAt.IsZero() && v.State != Parked, v.PreemptAt.IsZero(), v.preemptText},
		{noticePark, v.parks() && v.reached(v.idleSince(), v.ParkAfter), v.State == Ready && !v.reached(v.idleSince(), v.ParkAfter), v.parkText},
		{noticeRelease, v.State == Parked && v.ReleaseAfter > 0 && v.reached(v.PhaseAt, v.ReleaseAfter), v.State != Parked, v.releaseText},
		{noticeEnd5, v.endsWithin(lastWarning), v.Remaining > lastWarning+noticeSlack, v.endText},
		// A later warning says all that an earlier one does.
		{noticeEnd30, v.endsWithin(firstWarning), v.Remaining > firstWarning+noticeSlack, v.endText},
		{noticeBalance, v.endDue() && v.Balance != nil && v.Balance.Available < v.Balance.PerHour, v.Remaining > firstWarning+noticeSlack, balanceText},
	} {
		told := slices.Contains(v.Notices, n.key)
		switch {
		case told && n.over:
			d.Forget = append(d.Forget, n.key)
		case told || !n.due:
		default:
			d.Announce = append(d.Announce, Notice{n.key, n.text()})
		}
	}
	return d.merged()
}

// merged leaves one text of two warnings of the end that are due together.
func (d Decision) merged() Decision {
	five := slices.IndexFunc(d.Announce, func(n Notice) bool { return n.Key == noticeEnd5 })
	thirty := slices.IndexFunc(d.Announce, func(n Notice) bool { return n.Key == noticeEnd30 })
	if five >= 0 && thirty >= 0 {
		d.Announce[thirty].Text = ""
	}
	return d
}

// reached reports whether it is time to warn of what happens once a time has passed since a moment: five minutes before it, or
// after half of a short time.
func (v View) reached(since time.Time, after time.Duration) bool {
	return v.Now.Sub(since) >= after-min(lastWarning, after/2)
}

// endsWithin reports whether a ready cluster's booked time is over so soon. What was booked for less needs no warning.
func (v View) endsWithin(lead time.Duration) bool {
	return v.State == Ready && v.Remaining <= lead && v.Duration > lead
}

// endDue reports whether a warning of the end is to be given now, for which the balance is needed.
func (v View) endDue() bool {
	return v.endsWithin(firstWarning) && !slices.Contains(v.Notices, noticeEnd30) ||
		v.endsWithin(lastWarning) && !slices.Contains(v.Notices, noticeEnd5)
}

func (v View) endText() string {
	return fmt.Sprintf("The booked time ends at %s, in %s. Extend the booking to keep the cluster.", clock(v.Now.Add(v.Remaining)), inWords(v.Remaining))
}

func balanceText() string {
	return "The balance does not cover another hour of this cluster: add funds before you extend it."
}

func (v View) preemptText() string {
	return fmt.Sprintf("Your GPUs are needed by a market booking; the cluster stops at %s. Save what you need.", clock(v.PreemptAt))
}

func (v View) parkText() string {
	return fmt.Sprintf("Nothing runs here. At %s the GPUs are released and the cluster is parked, unless work or a session comes.",
		clock(v.idleSince().Add(v.ParkAfter)))
}

func (v View) releaseText() string {
	return fmt.Sprintf("The cluster is parked. At %s it is released, unless it is resumed.", clock(v.PhaseAt.Add(v.ReleaseAfter)))
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05 UTC") }

// inWords says a time in its largest units.
func inWords(d time.Duration) string {
	d = d.Round(time.Second)
	unit := func(n time.Duration, name string) string { return count(int(n), name) }
	switch {
	case d < 2*time.Minute:
		return unit(d/time.Second, "second")
	case d < 2*time.Hour:
		return unit(d.Round(time.Minute)/time.Minute, "minute")
	case d < 48*time.Hour:
		return unit(d.Round(time.Hour)/time.Hour, "hour")
	}
	return unit(d.Round(24*time.Hour)/(24*time.Hour), "day")
}

// count says how many of something there are.
func count(n int, name string) string {
	if n == 1 {
		return "1 " + name
	}
	return fmt.Sprintf("%d %ss", n, name)
}
