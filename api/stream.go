package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/google/uuid"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

const (
	streamPoll      = 3 * time.Second  // guarantees what a notification only speeds up
	streamHeartbeat = 15 * time.Second // below the idle limits of common proxies
	streamRecheck   = 4 * time.Second  // of the caller's rights: what is revoked is gone within five seconds
	streamWrite     = 5 * time.Second  // a slower client is cut off; it resumes
	streamPage      = 100
	streamOverlap   = 64 // events that are read again each time, see follower
	maxStreams      = 2000
	maxOwnStreams   = 12 // of one person: browsers allow six per host, and there may be two
)

// streams counts what is open and ends it at shutdown.
type streams struct {
	mu     *sync.Mutex
	own    map[ids.User]int
	all    *int
	closed chan struct{}
	once   *sync.Once
}

func newStreams() streams {
	return streams{mu: new(sync.Mutex), own: make(map[ids.User]int), all: new(int), closed: make(chan struct{}), once: new(sync.Once)}
}

func (s streams) close() { s.once.Do(func() { close(s.closed) }) }

// open claims a place and returns the function that gives it back.
func (s streams) open(user ids.User) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *s.all >= maxStreams {
		return nil, errs.New(errs.Unavailable, "there are too many open streams: poll instead, or try again later")
	}
	if s.own[user] >= maxOwnStreams {
		return nil, errs.New(errs.RateLimited, "you have %d streams open, the most there can be: close one", maxOwnStreams)
	}
	*s.all++
	s.own[user]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		*s.all--
		if s.own[user]--; s.own[user] == 0 {
			delete(s.own, user)
		}
	}, nil
}

func (s *Server) stream(ctx context.Context, in *streamInput) (*streamOutput, error) {
	who := callerOf(ctx)
	after, err := s.streamStart(ctx, who, in.LastEventID)
	if err != nil {
		return nil, err
	}
	release, err := s.streams.open(who.User)
	if err != nil {
		return nil, err
	}
	return &streamOutput{Body: func(hctx huma.Context) {
		defer release()
		s.metrics.streams.Inc()
		defer s.metrics.streams.Dec()
		follow := &follower{server: s, who: who, w: humagin.Unwrap(hctx).Writer, last: after, seen: map[int64]bool{}, floor: after}
		follow.run(hctx.Context())
	}}, nil
}

// streamStart is the sequence number to go on after: the client's, or the newest there is.
func (s *Server) streamStart(ctx context.Context, who caller, lastEventID string) (int64, error) {
	if lastEventID == "" {
		return s.Clusters.LastEvent(ctx, who.org.Org)
	}
	after, err := strconv.ParseInt(lastEventID, 10, 64)
	if err != nil || after < 0 {
		return 0, errs.InvalidField("header.Last-Event-ID", "%q is not the id of an event", lastEventID)
	}
	return after, nil
}

// follower sends one client what happens to its organisation's clusters.
//
// Sequence numbers are given out before their transactions commit, so an event may appear after one with a greater number. Each
// read therefore goes back streamOverlap numbers and leaves out what was sent.
type follower struct {
	server *Server
	who    caller
	w      http.ResponseWriter
	floor  int64 // where the stream began: nothing at or before it is sent
	last   int64 // the greatest number sent
	seen   map[int64]bool
}

// run returns when the client goes, a write takes too long, the caller's rights end or the server shuts down.
func (f *follower) run(ctx context.Context) {
	woken, stop := f.server.Notifications.Subscribe(pgnotify.ChannelClusterEvents)
	defer stop()
	poll, heartbeat, recheck := time.NewTicker(streamPoll), time.NewTicker(streamHeartbeat), time.NewTicker(streamRecheck)
	defer poll.Stop()
	defer heartbeat.Stop()
	defer recheck.Stop()
	header := f.w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no")
	f.w.WriteHeader(http.StatusOK)
	err := f.write("retry: 1000\n\n")
	for err == nil {
		if err = f.send(ctx); err != nil {
			break
		}
		err = f.wait(ctx, woken, poll.C, heartbeat.C, recheck.C)
	}
	f.server.log.DebugContext(ctx, "stream ended", "request_id", requestIDOf(ctx), "reason", err)
}

// wait returns when there may be something to send.
func (f *follower) wait(ctx context.Context, woken <-chan string, poll, heartbeat, recheck <-chan time.Time) error {
	org := uuid.UUID(f.who.org.Org).String()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.server.streams.closed:
			return errShutdown
		case payload := <-woken:
			if payload == "" || payload == org {
				return nil
			}
		case <-poll:
			return nil
		case <-heartbeat:
			if err := f.write(": alive\n\n"); err != nil {
				return err
			}
		case <-recheck:
			if err := f.recheck(ctx); err != nil {
				return err
			}
		}
	}
}

// recheck ends the stream with the session or key, or with the membership.
func (f *follower) recheck(ctx context.Context) error {
	principal, err := f.server.Identity.Recheck(ctx, f.who.Principal)
	if err != nil {
		return err
	}
	f.who, err = accessRules["stream"].check(principal, f.who.org.Org.String())
	return err
}

// send writes what is new. Owners without another role have nothing to see here; their stream stays open and silent.
func (f *follower) send(ctx context.Context) error {
	if !slices.ContainsFunc(engineerFinance, f.who.org.Has) {
		return nil
	}
	for {
		from := max(f.floor, f.last-streamOverlap)
		events, err := f.server.Clusters.OrgEvents(ctx, f.who.org.Org, from, streamPage)
		if err != nil {
			return err
		}
		sent, err := f.sendNew(events)
		if err != nil || len(events) < streamPage || !sent {
			return err
		}
	}
}

func (f *follower) sendNew(events []schedulerdb.OrgEventsRow) (sent bool, err error) {
	var text strings.Builder
	for _, e := range events {
		seq := e.ClusterEvent.Seq
		if f.seen[seq] {
			continue
		}
		f.seen[seq] = true
		f.last = max(f.last, seq)
		data, err := json.Marshal(apiv1.StreamEvent{ID: e.ClusterEvent.ClusterID, Version: e.Version, Seq: seq, Kind: e.ClusterEvent.Kind, Message: e.ClusterEvent.Message})
		if err != nil {
			return false, err
		}
		// The id is the greatest number so far, so that a resumed stream does not begin before what was sent.
		fmt.Fprintf(&text, "event: cluster\nid: %d\ndata: %s\n\n", f.last, data)
	}
	for seq := range f.seen {
		if seq < f.last-streamOverlap {
			delete(f.seen, seq)
		}
	}
	if text.Len() == 0 {
		return false, nil
	}
	return true, f.write(text.String())
}

func (f *follower) write(text string) error {
	control := http.NewResponseController(f.w)
	if err := control.SetWriteDeadline(time.Now().Add(streamWrite)); err != nil {
		return err
	}
	if _, err := f.w.Write([]byte(text)); err != nil {
		return err
	}
	return control.Flush()
}
