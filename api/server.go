package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/seal"
)

const (
	headerTimeout  = 5 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 32 << 10
	answerTimeout  = 60 * time.Second // to write a whole answer that is not a stream
	readyTimeout   = 3 * time.Second
	freshSignature = 5 * time.Minute
)

// Options are what a server is made of. Everything is needed unless it says otherwise.
type Options struct {
	Log      *slog.Logger
	Registry *prometheus.Registry
	Pool     *pgxpool.Pool
	Seal     *seal.Box // keeps remembered answers, which may carry secrets, unreadable in the database

	PublicURL string   // where browsers reach the console: "http://localhost:8080"
	HostNames []string // optional: further Host values to answer to, "name" for any port or "name:port"
	Limits    Limits   // optional: zero values are the defaults

	Network  apiv1.Network // as GET /v1/network answers
	Currency money.Currency

	Identity        *identity.Service
	Market          Market
	Clusters        Clusters
	Fleet           Fleet
	JoinTokens      JoinTokens
	Ray             Ray
	Meter           Meter
	Deposits        Deposits
	Sweeps          Sweeps
	Payouts         Payouts
	Manifests       Manifests
	Reconciliations Reconciliations
	SOLJournal      SOLJournal
	Periods         Periods
	Statements      Statements
	Fees            Fees
	Notifications   Notifications
	Faucet          Faucet // optional: a local network's

	GatewayAddress string            // host and port that agents dial, for the join command
	Console        fs.FS             // optional: the console's files, index.html at the top
	RayProxy       http.Handler      // optional: everything below /v1/clusters/{id}/ray/
	Dashboards     http.Handler      // optional: requests whose Host IsDashboard accepts
	IsDashboard    func(string) bool // optional with Dashboards
	Ready          func(context.Context) error
}

// Notifications wakes streams; *pgnotify.Hub is one.
type Notifications interface {
	Subscribe(channel string) (stream <-chan string, stop func())
}

// Server serves the API and the console. Make it with New. It is safe for concurrent use.
type Server struct {
	Options
	log     *slog.Logger
	engine  *gin.Engine
	huma    huma.API
	cookies cookies
	hosts   hostNames
	docs    docsPage
	spec    []byte
	streams streams
	answers answers
	metrics metrics
	limits  limiters
	public  http.Handler
	ops     http.Handler
}

// New checks the options and makes a server.
func New(o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	public, err := url.Parse(o.PublicURL)
	if err != nil || public.Host == "" {
		return nil, fmt.Errorf("public URL %q: it must be like https://muster.example", o.PublicURL)
	}
	s := &Server{
		Options: o, log: o.Log, cookies: cookiesFor(public), hosts: newHostNames(public, o.HostNames),
		streams: newStreams(), answers: newAnswers(o.Pool, o.Seal), metrics: newMetrics(o.Registry), limits: newLimiters(o.Limits),
	}
	if s.docs, s.spec, err = s.describe(o.Faucet != nil); err != nil {
		return nil, err
	}
	if s.public, err = s.publicHandler(); err != nil {
		return nil, err
	}
	s.ops = s.opsHandler()
	return s, nil
}

func (o Options) check() error {
	missing := []string{}
	for name, absent := range map[string]bool{
		"Log": o.Log == nil, "Registry": o.Registry == nil, "Pool": o.Pool == nil, "Seal": o.Seal == nil,
		"Identity": o.Identity == nil, "Market": o.Market == nil, "Clusters": o.Clusters == nil, "Fleet": o.Fleet == nil,
		"JoinTokens": o.JoinTokens == nil, "Ray": o.Ray == nil, "Meter": o.Meter == nil, "Deposits": o.Deposits == nil, "Sweeps": o.Sweeps == nil,
		"Payouts": o.Payouts == nil, "Manifests": o.Manifests == nil, "Reconciliations": o.Reconciliations == nil, "SOLJournal": o.SOLJournal == nil, "Periods": o.Periods == nil, "Notifications": o.Notifications == nil,
		"Statements": o.Statements == nil, "Fees": o.Fees == nil, "Ready": o.Ready == nil, "IsDashboard": o.Dashboards != nil && o.IsDashboard == nil,
	} {
		if absent {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the API lacks %s", strings.Join(missing, ", "))
	}
	return nil
}

// Handler serves the public listener.
func (s *Server) Handler() http.Handler { return s.public }

// OpsHandler serves the operators' listener: metrics and health.
func (s *Server) OpsHandler() http.Handler { return s.ops }

// HTTPServer wraps a handler with the time and size limits of a listener that faces strangers. Streams end when it shuts down.
func (s *Server) HTTPServer(handler http.Handler) *http.Server {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	server.RegisterOnShutdown(s.streams.close)
	return server
}

// Run deletes remembered answers that nobody asks for any more, until ctx ends. It is a lifecycle.Func.
func (s *Server) Run(ctx context.Context, ready func()) error {
	ready()
	return s.answers.purge(ctx, s.log)
}

func (s *Server) publicHandler() (http.Handler, error) {
	console, err := newConsole(s.Console)
	if err != nil {
		return nil, err
	}
	routed := &router{server: s, engine: s.engine, console: console}
	return s.observed(s.recovered(s.guarded(routed))), nil
}

func (s *Server) opsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.serveHealth)
	mux.HandleFunc("GET /readyz", s.serveReady)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{}))
	return s.recovered(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.hosts.allow(r.Host) && !isAddress(r.Host) {
			sendProblem(w, misdirected(r))
			return
		}
		mux.ServeHTTP(w, r)
	}))
}

// serveHealth says that the process runs.
func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	writeText(w, http.StatusOK, "ok\n")
}

// serveReady says whether it can do its work. What fails is logged, not told.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		s.log.WarnContext(ctx, "not ready", "error", err)
		writeText(w, http.StatusServiceUnavailable, "not ready\n")
		return
	}
	writeText(w, http.StatusOK, "ready\n")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// newEngine makes gin's router: no proxy is believed, no path is rewritten, and what it does not know is a problem document.
func (s *Server) newEngine() *gin.Engine {
	engine := gin.New()
	if err := engine.SetTrustedProxies(nil); err != nil {
		panic(err) // an empty list always parses
	}
	engine.RedirectTrailingSlash, engine.RedirectFixedPath, engine.HandleMethodNotAllowed = false, false, true
	engine.Use(func(c *gin.Context) {
		if info := infoOf(c.Request.Context()); info != nil && c.FullPath() != "" {
			info.route = c.FullPath()
		}
	})
	engine.NoRoute(func(c *gin.Context) { sendProblem(c.Writer, noSuchPath(c.Request)) })
	engine.NoMethod(func(c *gin.Context) { sendProblem(c.Writer, wrongMethod(c.Request)) })
	engine.GET("/healthz", gin.WrapF(s.serveHealth))
	engine.GET("/readyz", gin.WrapF(s.serveReady))
	engine.GET("/openapi.json", gin.WrapF(s.serveSpec))
	engine.GET("/docs", gin.WrapF(s.serveDocs))
	engine.GET("/docs/style.css", gin.WrapF(s.serveDocsStyle))
	return engine
}

// isAddress reports whether a Host is an IP address or localhost. No DNS name can be rebound to those.
func isAddress(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	return name == "localhost" || net.ParseIP(strings.Trim(name, "[]")) != nil
}

var errShutdown = errors.New("the server is shutting down")
