package api

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/muster-gpu/muster/internal/errs"
)

// requestInfo is what the layers of one request tell each other.
type requestInfo struct {
	id    string
	route string // the template, for metrics
}

type infoKey struct{}

func infoOf(ctx context.Context) *requestInfo {
	info, _ := ctx.Value(infoKey{}).(*requestInfo)
	return info
}

func requestIDOf(ctx context.Context) string {
	if info := infoOf(ctx); info != nil {
		return info.id
	}
	return ""
}

// recorder remembers the status and size of an answer. It unwraps, so that http.ResponseController still finds the connection.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 || r.status < 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(data []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(data)
	r.bytes += int64(n)
	return n, err
}

// Flush implements http.Flusher, which gin asks for by type.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

// Unwrap gives http.ResponseController the writer below.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// observed gives a request its id and counts, times and logs it.
func (s *Server) observed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		info := &requestInfo{id: "req_" + strings.ToLower(rand.Text()), route: "other"}
		rec := &recorder{ResponseWriter: w}
		rec.Header().Set("X-Request-Id", info.id)
		r = r.WithContext(context.WithValue(r.Context(), infoKey{}, info))
		defer func() {
			if rec.status == 0 {
				rec.status = http.StatusOK
			}
			took := time.Since(begin)
			s.metrics.observe(r.Method, info.route, rec.status, took)
			s.log.InfoContext(r.Context(), "request", "request_id", info.id, "method", r.Method, "route", info.route,
				"path", r.URL.Path, "status", rec.status, "bytes", rec.bytes, "duration_ms", took.Milliseconds(), "remote", clientIP(r))
		}()
		next.ServeHTTP(rec, r)
	})
}

// recovered turns a panic into an internal error, or cuts the connection if the answer has begun.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(cause)
			}
			s.log.ErrorContext(r.Context(), "panic", "request_id", requestIDOf(r.Context()), "panic", cause, "stack", string(debug.Stack()))
			if rec, ok := w.(*recorder); ok && rec.status != 0 {
				panic(http.ErrAbortHandler)
			}
			sendProblem(w, newProblem(requestIDOf(r.Context()), errs.New(errs.Internal, internalDetail)))
		}()
		next.ServeHTTP(w, r)
	})
}

// guarded refuses names that are not ours and requests that another site made a browser send, and sends dashboards their way.
func (s *Server) guarded(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setWriteLimit(w, 0) // an earlier request of the connection may have left one
		if s.Dashboards != nil && s.IsDashboard(r.Host) {
			infoOf(r.Context()).route = "dashboard"
			s.Dashboards.ServeHTTP(w, r)
			return
		}
		if !s.hosts.allow(r.Host) {
			sendProblem(w, misdirected(r))
			return
		}
		if s.RayProxy != nil && isRayPath(r.URL) {
			infoOf(r.Context()).route = "/v1/clusters/:id/ray/*path"
			s.RayProxy.ServeHTTP(w, r)
			return
		}
		setWriteLimit(w, answerTimeout)
		s.secure(w.Header())
		if err := crossOrigin.Check(r); err != nil {
			sendProblem(w, newProblem(requestIDOf(r.Context()), errs.New(errs.Forbidden, "another site's page sent this request: it was not done")))
			return
		}
		if r.ContentLength > maxBodyBytes {
			w.Header().Set("Connection", "close")
			sendProblem(w, newProblem(requestIDOf(r.Context()), errTooLarge))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// setWriteLimit bounds how long an answer may take to be written; zero: for ever. Streams set limits of their own.
func setWriteLimit(w http.ResponseWriter, limit time.Duration) {
	var deadline time.Time
	if limit > 0 {
		deadline = time.Now().Add(limit)
	}
	_ = http.NewResponseController(w).SetWriteDeadline(deadline) // writers without deadlines have no slow reader either
}

// secure sets what every answer of ours carries; the console and the documentation widen the policy.
func (s *Server) secure(header http.Header) {
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'")
	if s.cookies.https {
		header.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// isRayPath reports whether a path is below /v1/clusters/{id}/ray/, whatever follows: the proxy judges it in its raw form.
func isRayPath(u *url.URL) bool {
	rest, found := strings.CutPrefix(u.EscapedPath(), "/v1/clusters/")
	if !found {
		return false
	}
	_, rest, found = strings.Cut(rest, "/")
	return found && (rest == "ray" || strings.HasPrefix(rest, "ray/"))
}

// router sends API paths to gin and the rest to the console.
type router struct {
	server  *Server
	engine  *gin.Engine
	console *console
}

func (rt *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if rt.console == nil || isServicePath(r.URL.Path) {
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			w.Header().Set("Cache-Control", "no-store")
		}
		if !rt.server.limits.admit(w, r) {
			sendProblem(w, newProblem(requestIDOf(r.Context()), errTooMany))
			return
		}
		rt.engine.ServeHTTP(w, r)
		return
	}
	infoOf(r.Context()).route = "console"
	rt.console.ServeHTTP(w, r)
}

func isServicePath(path string) bool {
	if strings.HasPrefix(path, "/v1/") || path == "/v1" || strings.HasPrefix(path, "/docs") {
		return true
	}
	return slices.Contains([]string{"/openapi.json", "/healthz", "/readyz"}, path)
}

// hostNames are the Host values that are ours: "name" for any port, "name:port" for one.
type hostNames map[string]bool

func newHostNames(public *url.URL, further []string) hostNames {
	names := hostNames{strings.ToLower(public.Host): true}
	for _, name := range further {
		names[strings.ToLower(name)] = true
	}
	return names
}

func (h hostNames) allow(host string) bool {
	host = strings.ToLower(host)
	name, _, err := net.SplitHostPort(host)
	return h[host] || err == nil && h[name]
}

func misdirected(r *http.Request) *problem {
	p := newProblem(requestIDOf(r.Context()), errs.New(errs.NotFound, "this server does not answer for that host name"))
	p.Status = http.StatusMisdirectedRequest
	return p
}

func noSuchPath(r *http.Request) *problem {
	return newProblem(requestIDOf(r.Context()), errs.New(errs.NotFound, "there is nothing at this address: /docs lists what there is"))
}

func wrongMethod(r *http.Request) *problem {
	p := newProblem(requestIDOf(r.Context()), errs.New(errs.Invalid, "%s is not possible here", r.Method))
	p.Status = http.StatusMethodNotAllowed
	return p
}

// clientIP is the peer's address. No forwarding header is believed.
func clientIP(r *http.Request) string {
	ip, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return ip
}
