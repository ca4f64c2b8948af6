package fleet

import (
	"context"
	"time"

	"github.com/muster-gpu/muster/internal/agentpb"
)

// How often hosts beat. A host with nodes is billed by its heartbeats and beats often; one without beats seldom, and more seldom the
// more hosts there are.
const (
	idleIntervals     = 5                // heartbeat intervals between those of an idle host
	maxIdleInterval   = 30 * time.Second // however many hosts there are
	maxBeatsPerSecond = 10_000           // of idle hosts, at one gateway
	intervalsToLost   = 3                // missed, and some slack, until a host is lost
	minSuspectAfter   = time.Second      // a flush and a sweep may take that long
	paceChangeDivisor = 4                // an interval is changed when it is off by a quarter

	lateNumerator   = 5 // in lateDenominator intervals: then a heartbeat is late, and the last one is written exactly
	lateDenominator = 4
)

// interval is how often a host should beat.
func (g *Gateway) interval(busy bool) time.Duration {
	if busy {
		return g.options.HeartbeatInterval
	}
	forFleet := time.Duration(g.streams.Load()) * time.Second / maxBeatsPerSecond
	return max(g.options.IdleInterval, min(forFleet, maxIdleInterval))
}

// lostAfter is how long a host that beats at an interval may be silent.
func (g *Gateway) lostAfter(interval time.Duration) time.Duration {
	return intervalsToLost*interval + g.slack()
}

func (g *Gateway) slack() time.Duration {
	return g.options.LostAfter - intervalsToLost*g.options.HeartbeatInterval
}

// setPace tells a host to beat at another interval, if it should. The patience with a host grows before it is told to beat less often,
// and shrinks once it has been told to beat more often and has.
func (g *Gateway) setPace(ctx context.Context, s *session, stream agentStream) error {
	want, have := g.interval(s.busy.Load()), time.Duration(s.interval.Load())
	if (want - have).Abs() < have/paceChangeDivisor {
		return nil
	}
	patience := int32(g.lostAfter(want).Milliseconds())
	if want > have {
		ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
		defer cancel()
		if err := g.queries.SetLostAfter(ctx, g.options.Pool, patience, s.host); err != nil {
			g.log.WarnContext(ctx, "heartbeat interval not changed, trying again", "host_id", s.host, "error", err)
			return nil
		}
		s.tighter.Store(0)
		s.lostAfter.Store(patience)
	} else {
		s.tighter.Store(patience)
	}
	s.interval.Store(int64(want))
	return stream.Send(&agentpb.ControlMessage{Body: &agentpb.ControlMessage_Pace{Pace: &agentpb.Pace{
		HeartbeatIntervalMs: int32(want.Milliseconds()),
	}}})
}

// setReads has a host's connection read soon while it has nodes, and else when it is convenient: together with many others.
func (g *Gateway) setReads(s *session) {
	switch {
	case s.conn == nil:
	case s.busy.Load():
		s.conn.Pace(g.busyReads)
	default:
		s.conn.Pace(g.idleReads)
	}
}

// beat notes a heartbeat. It is called for each one, from the goroutine that receives.
func (g *Gateway) beat(s *session) {
	if s.ctx.Err() != nil {
		return // a host that lost its standing is not heard
	}
	g.metrics.heartbeats.Inc()
	g.heard(s, time.Now())
}

// heard notes a sign of life and has it written, which for an idle host that is heard all the time is seldom needed.
func (g *Gateway) heard(s *session, now time.Time) {
	now = now.Truncate(time.Millisecond) // as lastBeat, so that the same heartbeat is the same whenever it is written
	s.lastBeat.Store(now.UnixMilli())
	due := s.due.Swap(false) || s.busy.Load()
	if s.tighter.Load() > 0 {
		s.lostAfter.Store(s.tighter.Swap(0))
		due = true
	}
	slack := int32(0)
	if !s.busy.Load() {
		slack = g.slackOf(s)
	}
	if !due && now.Sub(time.UnixMilli(s.written.Load())) < g.options.IdleWriteInterval {
		return
	}
	s.written.Store(now.UnixMilli())
	g.pending.beat(s.host, beat{at: now, lostAfter: s.lostAfter.Load(), confirms: s.reported.Load() && slack == 0, slack: slack})
	s.slack.Store(slack) // behind it, so that writeExactly finds what there is to correct
}

// slackOf is how much later than is written an idle host may have been heard: until its first heartbeat that is due again has been written.
func (g *Gateway) slackOf(s *session) int32 {
	waits := 2 * flushesToWait * g.options.FlushInterval
	return int32((g.options.IdleWriteInterval + time.Duration(s.interval.Load()) + waits).Milliseconds())
}

// writeExactly has the last sign of life written as it was, because no other may follow.
func (g *Gateway) writeExactly(s *session) {
	if s.slack.Swap(0) == 0 {
		return // it is
	}
	g.pending.beat(s.host, beat{at: time.UnixMilli(s.lastBeat.Load()), lostAfter: s.lostAfter.Load(), confirms: s.reported.Load()})
	s.due.Store(true) // afterwards, lest a heartbeat that comes in between takes it
}

// lookForSilence has what is known of hosts written whose heartbeats are late, and reports whether any is, or has lately left.
func (g *Gateway) lookForSilence(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.sessions {
		silent, interval := now.Sub(time.UnixMilli(s.lastBeat.Load())), time.Duration(s.interval.Load())
		if silent > interval*lateNumerator/lateDenominator {
			g.writeExactly(s)
			g.expectSilence(now, s)
		}
	}
	return now.Before(g.silence)
}

// expectSilence has sweeps made for as long as a host may take to be lost. g.mu is held.
func (g *Gateway) expectSilence(now time.Time, s *session) {
	until := now.Add(time.Duration(s.lostAfter.Load())*time.Millisecond + sweepsToWait*sweepInterval)
	if until.After(g.silence) {
		g.silence = until
	}
}
