package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
)

// listener is an open stream; its events arrive on a channel, which is closed when the stream ends.
type listener struct {
	events chan received
	stop   context.CancelFunc
}

type received struct {
	id   string
	data apiv1.StreamEvent
}

func (b *bench) listen(p *person, lastEventID string) *listener {
	b.t.Helper()
	ctx, stop := context.WithCancel(b.t.Context())
	b.t.Cleanup(stop)
	req, err := http.NewRequestWithContext(ctx, get, b.url+"/v1/stream", nil)
	fatal(b.t, err)
	req.Header.Set("Cookie", p.cookie)
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	resp, err := (&http.Client{Transport: b.client.Transport}).Do(req) // without the timeout
	fatal(b.t, err)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		b.t.Fatalf("stream: %d %v", resp.StatusCode, resp.Header)
	}
	l := &listener{events: make(chan received, 1000), stop: stop}
	go func() {
		defer close(l.events)
		defer func() { _ = resp.Body.Close() }()
		l.read(bufio.NewScanner(resp.Body))
	}()
	return l
}

func (l *listener) read(lines *bufio.Scanner) {
	var event received
	for lines.Scan() {
		switch name, value, _ := strings.Cut(lines.Text(), ": "); name {
		case "id":
			event.id = value
		case "data":
			_ = json.Unmarshal([]byte(value), &event.data)
		case "":
			if event.id != "" {
				l.events <- event
			}
			event = received{}
		}
	}
}

func (l *listener) next(t *testing.T) received {
	t.Helper()
	select {
	case event, open := <-l.events:
		if !open {
			t.Fatal("the stream ended")
		}
		return event
	case <-time.After(testTimeout):
		t.Fatal("no event came")
	}
	return received{}
}

func (l *listener) ends(t *testing.T) {
	t.Helper()
	for {
		select {
		case _, open := <-l.events:
			if !open {
				return
			}
		case <-time.After(streamRecheck + testTimeout):
			t.Fatal("the stream did not end")
		}
	}
}

func TestStreamIsCutAndResumesWithoutLossOrRepetition(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Customer", false))
	p := b.member(f.org, identity.Engineer)
	first := b.listen(p, "")
	seq := b.event(f, "one")
	got := first.next(t)
	if got.data != (apiv1.StreamEvent{ID: f.cluster, Version: 3, Seq: seq, Kind: "state", Message: "one"}) || got.id != fmt.Sprint(seq) {
		t.Fatalf("event %+v", got)
	}
	first.stop()
	first.ends(t)
	var want []int64
	for i := range streamPage + 50 { // more than one read gives
		want = append(want, b.event(f, fmt.Sprint("while away ", i)))
	}
	second := b.listen(p, got.id)
	want = append(want, b.event(f, "back"))
	for _, seq := range want {
		if event := second.next(t); event.data.Seq != seq {
			t.Fatalf("event %d, want %d", event.data.Seq, seq)
		}
	}
}

func TestStreamFindsEventsThatCommitLate(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Customer", false))
	l := b.listen(b.member(f.org, identity.Engineer), "")
	slow, err := b.pool.Begin(t.Context())
	fatal(t, err)
	var early int64
	fatal(t, slow.QueryRow(t.Context(), `INSERT INTO cluster_events (cluster_id, org_id, kind, message) VALUES ($1, $2, 'node', 'slow') RETURNING seq`,
		f.cluster, f.org).Scan(&early))
	late := b.event(f, "quick")
	if got := l.next(t); got.data.Seq != late {
		t.Fatalf("event %d, want %d", got.data.Seq, late)
	}
	fatal(t, slow.Commit(t.Context()))
	if got := l.next(t); got.data.Seq != early || got.id != fmt.Sprint(late) {
		t.Fatalf("event %+v, want %d under the id %d", got, early, late)
	}
}

func TestStreamShowsOnlyItsOrganisation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	mine, theirs := b.fixture(b.org("Mine", false)), b.fixture(b.org("Theirs", false))
	l, silent := b.listen(b.member(mine.org, identity.Finance), ""), b.listen(b.member(theirs.org, identity.Owner), "")
	b.event(theirs, "theirs")
	want := b.event(mine, "mine")
	if got := l.next(t); got.data.Seq != want {
		t.Fatalf("event %+v, want only %d", got, want)
	}
	if len(silent.events) != 0 {
		t.Fatal("an owner was sent a customer's event")
	}
}

func TestStreamEndsWithTheSession(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Customer", false))
	p := b.member(f.org, identity.Engineer)
	l := b.listen(p, "")
	b.do(request{method: post, path: "/v1/auth/sign-out", cookie: p.cookie}).is(http.StatusNoContent)
	l.ends(t)
}

func TestStreamsEndAtShutdown(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Customer", false))
	l := b.listen(b.member(f.org, identity.Engineer), "")
	begin := time.Now()
	b.shutdown()
	l.ends(t)
	if took := time.Since(begin); took > streamWrite {
		t.Errorf("shutting down took %s", took)
	}
}

func TestStreamsAreBoundedPerPerson(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Customer", false))
	p := b.member(f.org, identity.Engineer)
	var open []*listener
	for range maxOwnStreams {
		open = append(open, b.listen(p, ""))
	}
	b.do(request{method: get, path: "/v1/stream", cookie: p.cookie}).problem(http.StatusTooManyRequests, "rate_limited")
	open[0].stop()
	testkit.Eventually(t, testTimeout, func() (bool, string) {
		b.server.streams.mu.Lock()
		defer b.server.streams.mu.Unlock()
		return b.server.streams.own[p.me.UserID] < maxOwnStreams, "the place was not given back"
	})
	b.listen(p, "")
}

func TestStreamTakesNoTokenInTheAddress(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	org := b.org("Customer", false)
	key := b.keyOf(org, b.member(org, identity.Engineer), identity.ScopeRead)
	for _, name := range []string{"token", "key", "access_token", "authorization"} {
		b.do(request{method: get, path: "/v1/stream?" + name + "=" + key}).problem(http.StatusUnauthorized, "unauthenticated")
	}
}

// TestSlowStreamClientIsCutOff: a client that reads nothing fills its buffers, and then loses the stream, not the server.
func TestSlowStreamClientIsCutOff(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Customer", false))
	p := b.member(f.org, identity.Engineer)
	conn, err := net.Dial("tcp", b.host)
	fatal(t, err)
	defer func() { _ = conn.Close() }()
	fatal(t, conn.(*net.TCPConn).SetReadBuffer(4096))
	_, err = fmt.Fprintf(conn, "GET /v1/stream HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\n\r\n", b.host, p.cookie)
	fatal(t, err)
	open := func() int {
		b.server.streams.mu.Lock()
		defer b.server.streams.mu.Unlock()
		return b.server.streams.own[p.me.UserID]
	}
	testkit.Eventually(t, testTimeout, func() (bool, string) { return open() == 1, "the stream did not open" })
	long := strings.Repeat("x", 100_000)
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		for range 20 {
			b.event(f, long)
		}
		return open() == 0, "the client was never cut off"
	})
}

func TestClosedStreamsAreForgotten(t *testing.T) {
	t.Parallel()
	s := newStreams()
	user := ids.New[ids.User]()
	release, err := s.open(user)
	fatal(t, err)
	release()
	if len(s.own) != 0 || *s.all != 0 {
		t.Fatalf("%d people and %d streams are remembered", len(s.own), *s.all)
	}
}
