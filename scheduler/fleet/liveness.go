package fleet

import (
	"sync"
	"time"

	"github.com/muster-gpu/muster/internal/agentpb"
)

// A heartbeat is late after lateNumerator/lateDenominator of the interval.
const (
	lateNumerator   = 5
	lateDenominator = 4
)

// hearing is when a session's host was heard last, and what of that has been handed over to be written: of a host with nodes all, of an
// idle one little, with a slack that covers the rest. It is locked behind the gateway's mutex and before the pending writes'.
type hearing struct {
	mu      sync.Mutex
	busy    bool // the host has nodes, or should
	heard   time.Time
	written time.Time     // the last that was handed over
	slack   time.Duration // with which it was; 0: exactly, so that the next is to be written too
	due     bool          // the next is to be written in any case
}

func (l *hearing) lastHeard() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard
}

func (l *hearing) isBusy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.busy
}

// begin notes that the stream has begun, which is written already.
func (l *hearing) begin(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = now
}

// expose has the next sign of life written: the host counts as silent.
func (l *hearing) expose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due = true
}

// beat notes a heartbeat. It is called for each one, from the goroutine that receives.
func (g *Gateway) beat(s *session) {
	if s.ctx.Err() != nil {
		return // a host that lost its standing is not heard
	}
	tightened := s.tighter.Load() > 0
	if tightened {
		s.lostAfter.Store(s.tighter.Swap(0))
	}
	l := &s.alive
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = g.options.Now()
	if l.busy || tightened || l.due || l.slack == 0 || l.heard.Sub(l.written) >= g.options.IdleWriteInterval {
		b := g.sign(s)
		b.confirms = l.busy && s.reported.Load() // without nodes there is nothing to confirm
		g.pending.beat(s.host, b)
	}
	g.metrics.heartbeats.Inc()
}

// report notes a report, which is a sign of life, but confirms nothing by itself. One that says what is known, that nothing runs where
// nothing should, is no more than that.
func (g *Gateway) report(s *session, report *agentpb.Report) {
	l := &s.alive
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = g.options.Now()
	b := g.sign(s)
	b.generation = report.GetAppliedGeneration()
	if !l.busy && len(report.GetNodes()) == 0 && b.generation == s.sent.Load() {
		g.pending.beat(s.host, b)
		return
	}
	g.pending.report(s.host, b, report)
}

// sign is what is to be written of a host that has been heard just now. s.alive.mu is held.
func (g *Gateway) sign(s *session) beat {
	l := &s.alive
	l.written, l.slack, l.due = l.heard, 0, false
	if !l.busy {
		// Until a heartbeat that is due again has come, late as it may be, and has been written.
		l.slack = g.options.IdleWriteInterval + 2*time.Duration(s.interval.Load()) + 2*g.options.FlushInterval
	}
	return beat{stream: s.stream, at: l.heard, slack: int32(l.slack.Milliseconds()), lostAfter: s.lostAfter.Load()}
}

// setBusy notes whether a host has nodes. From when it has, all that is heard of it is written, beginning with the last.
func (g *Gateway) setBusy(s *session, busy bool) {
	s.alive.mu.Lock()
	defer s.alive.mu.Unlock()
	if s.alive.busy = busy; busy {
		g.exactly(s)
	}
}

// writeExactly has the last sign of life written as it was, because no other may follow.
func (g *Gateway) writeExactly(s *session) {
	s.alive.mu.Lock()
	defer s.alive.mu.Unlock()
	g.exactly(s)
}

// exactly does so. s.alive.mu is held.
func (g *Gateway) exactly(s *session) {
	if l := &s.alive; l.slack > 0 {
		l.written, l.slack = l.heard, 0
		g.pending.beat(s.host, beat{stream: s.stream, at: l.heard, lostAfter: s.lostAfter.Load()})
	}
}

// lateAt is when the next heartbeat of a session's host is late.
func (s *session) lateAt() time.Time {
	return s.alive.lastHeard().Add(time.Duration(s.interval.Load()) * lateNumerator / lateDenominator)
}

// exposeLate has written exactly when those hosts were heard whose heartbeats are late: from then on their rows tell of their silence. It
// reports whether there are any.
func (g *Gateway) exposeLate(now time.Time) bool {
	late := false
	for _, s := range g.lookout.take(now) {
		if s.ctx.Err() != nil {
			continue // what is known of it is written when it leaves
		}
		next := s.lateAt()
		if now.After(next) {
			g.writeExactly(s)
			late, next = true, now
		}
		g.lookout.expect(s, next)
	}
	return late
}

// watches reports whether hosts have left that may not have been missed yet.
func (g *Gateway) watches(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return now.Before(g.vigil)
}

// left has what is known of a host written that has no stream any more, and looks out for its silence. g.mu is held.
func (g *Gateway) left(s *session) {
	g.writeExactly(s)
	until := g.options.Now().Add(time.Duration(s.lostAfter.Load())*time.Millisecond + sweepsToWait*sweepInterval)
	if until.After(g.vigil) {
		g.vigil = until
	}
}
