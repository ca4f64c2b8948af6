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
	want, have := g.interval(s.alive.isBusy()), time.Duration(s.interval.Load())
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
	g.lookout.expect(s, s.lateAt())
	return stream.Send(&agentpb.ControlMessage{Body: &agentpb.ControlMessage_Pace{Pace: &agentpb.Pace{
		HeartbeatIntervalMs: int32(want.Milliseconds()),
	}}})
}
