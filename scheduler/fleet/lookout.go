package fleet

import (
	"sync"
	"time"
)

// lookout remembers by the second when sessions are to be looked at, so that only those are whose heartbeats may be late. It is locked
// by itself.
type lookout struct {
	began time.Time

	mu  sync.Mutex
	due map[int64][]*session // by the seconds since it began
}

func newLookout(now time.Time) *lookout { return &lookout{began: now, due: map[int64][]*session{}} }

// expect has a session looked at once a time has passed, and no more at the time that was said before.
func (l *lookout) expect(s *session, at time.Time) {
	second := max(0, int64(at.Sub(l.began)/time.Second)) + 1
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.lookAt == second {
		return
	}
	s.lookAt = second
	l.due[second] = append(l.due[second], s)
}

// take removes and returns the sessions whose time has passed.
func (l *lookout) take(now time.Time) []*session {
	second := int64(now.Sub(l.began) / time.Second)
	l.mu.Lock()
	defer l.mu.Unlock()
	var passed []*session
	for at, sessions := range l.due {
		if at > second {
			continue
		}
		delete(l.due, at)
		for _, s := range sessions {
			if s.lookAt == at {
				s.lookAt = 0
				passed = append(passed, s)
			}
		}
	}
	return passed
}
