package rayproxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

// maxInFlight is how many requests and websockets of one cluster may be in progress: each holds a tunnel, and a host has 256.
const maxInFlight = 64

// timing bounds how long one request may tie things up without moving.
type timing struct {
	stall    time.Duration // without a byte of a body taken or given, a client is gone
	halfOpen time.Duration // for the other side to follow when one has closed a websocket
	recheck  time.Duration // how often it is looked at whether a running stream's user may still use the cluster
}

var defaultTiming = timing{stall: 30 * time.Second, halfOpen: time.Minute, recheck: 15 * time.Second}

// inFlight counts what each cluster has in progress. It is safe for concurrent use.
type inFlight struct {
	mu    sync.Mutex
	count map[ids.Cluster]int
}

// enter reserves a place; leave gives it back.
func (f *inFlight) enter(cluster ids.Cluster) (leave func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count[cluster] >= maxInFlight {
		return nil, errs.New(errs.RateLimited, "cluster %s has %d requests in progress: let some end", cluster, maxInFlight)
	}
	f.count[cluster]++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.count[cluster]--; f.count[cluster] == 0 {
			delete(f.count, cluster)
		}
	}, nil
}

// watch ends a request whose user has lost the right to the cluster, or whose cluster has ended, while it runs. It also tells that
// the cluster is in use.
func (p *Proxy) watch(ctx context.Context, end context.CancelFunc, t target) {
	ticker := time.NewTicker(p.timing.recheck)
	defer ticker.Stop()
	for {
		p.touch(ctx, t.cluster)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		allowed, err := p.queries.StillAllowed(ctx, p.options.Pool, t.user, t.cluster)
		if err == nil && !allowed { // without a database nothing can be known, and a stream goes on
			end()
			return
		}
	}
}

// steadyBody bounds how long a client may take for the next bytes of a body, not for all of it.
type steadyBody struct {
	io.ReadCloser
	control *http.ResponseController
	stall   time.Duration
}

// Read implements io.Reader.
func (b *steadyBody) Read(data []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(b.stall))
	n, err := b.ReadCloser.Read(data)
	if errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{}) // the server goes on reading, to notice that the client goes
	}
	return n, err
}

// answer is the client's side of a forwarded request. It bounds how long each write may take, and has the last word on the
// headers that are ours. Interim answers (1xx) are dropped, because no filter sees their headers.
type answer struct {
	http.ResponseWriter
	control *http.ResponseController
	own     http.Header
	timing  timing
	ctx     context.Context //nolint:containedctx // the request's, and an answer lives as long as it
	end     context.CancelFunc
}

func newAnswer(ctx context.Context, end context.CancelFunc, w http.ResponseWriter, t timing) *answer {
	return &answer{ResponseWriter: w, control: http.NewResponseController(w), own: w.Header().Clone(), timing: t, ctx: ctx, end: end}
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if status < http.StatusOK && status != http.StatusSwitchingProtocols {
		return
	}
	maps.Copy(a.Header(), a.own)
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(data []byte) (int, error) {
	defer a.hurry()()
	return a.ResponseWriter.Write(data)
}

// FlushError is what http.ResponseController looks for.
func (a *answer) FlushError() error {
	defer a.hurry()()
	return a.control.Flush()
}

// hurry bounds the writing until the function that it returns is called: streams may pause between writes for as long as they like.
func (a *answer) hurry() (done func()) {
	_ = a.control.SetWriteDeadline(time.Now().Add(a.timing.stall))
	return func() { _ = a.control.SetWriteDeadline(time.Time{}) }
}

// Hijack hands a websocket's connection over, with the same bounds.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := a.control.Hijack()
	if err != nil {
		return nil, nil, err
	}
	socket := &socket{Conn: conn, buffered: buffered.Reader, timing: a.timing, end: a.end}
	context.AfterFunc(a.ctx, func() { _ = conn.Close() })
	return socket, bufio.NewReadWriter(buffered.Reader, bufio.NewWriter(socket)), nil
}

// Unwrap gives http.ResponseController the writer below.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// socket is a client's end of a websocket. When one direction has ended the other has a while to end too.
type socket struct {
	net.Conn
	buffered *bufio.Reader // may hold what came right behind the request
	timing   timing
	end      context.CancelFunc
	closing  sync.Once
}

// Read implements net.Conn.
func (s *socket) Read(data []byte) (int, error) {
	if s.buffered.Buffered() > 0 {
		return s.buffered.Read(data)
	}
	n, err := s.Conn.Read(data) // not through the buffer: behind it, the server would end the request when the client closes its half
	if errors.Is(err, io.EOF) {
		s.expectEnd()
	}
	return n, err
}

// Write implements net.Conn.
func (s *socket) Write(data []byte) (int, error) {
	if err := s.SetWriteDeadline(time.Now().Add(s.timing.stall)); err != nil {
		return 0, err
	}
	return s.Conn.Write(data)
}

// CloseWrite passes on that Ray has finished.
func (s *socket) CloseWrite() error {
	half, ok := s.Conn.(interface{ CloseWrite() error })
	if !ok {
		return http.ErrNotSupported
	}
	s.expectEnd()
	return half.CloseWrite()
}

func (s *socket) expectEnd() { s.closing.Do(func() { time.AfterFunc(s.timing.halfOpen, s.end) }) }
