package fleet_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/scheduler/fleet"
)

// TestLookoutLooksAtEachSessionOnceAndInTime compares it with a list of what was said last of each session.
func TestLookoutLooksAtEachSessionOnceAndInTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_800_000_000, 0)
		l, due := fleet.NewLookout(now), map[int64]time.Time{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "expect") {
				session := rapid.Int64Range(1, 3).Draw(t, "session")
				at := now.Add(time.Duration(rapid.IntRange(-3000, 9000).Draw(t, "in")) * time.Millisecond)
				l.Expect(session, at)
				if due[session] = at; at.Before(now) {
					due[session] = now
				}
				continue
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "later")) * time.Millisecond)
			for _, session := range l.Take(now) {
				at, waits := due[session]
				if !waits || at.After(now) {
					t.Fatalf("session %d is looked at at %s, and is due at %s", session, now, at)
				}
				delete(due, session)
			}
			for session, at := range due {
				if now.Sub(at) > time.Second {
					t.Fatalf("session %d was due at %s and is not looked at at %s", session, at, now)
				}
			}
		}
	})
}
