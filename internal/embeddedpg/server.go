package embeddedpg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	startTimeout    = 60 * time.Second // crash recovery included
	pingTimeout     = 2 * time.Second
	pollInterval    = 50 * time.Millisecond
	fastStopBound   = 20 * time.Second // SIGINT: sessions are ended, a checkpoint is written
	abortStopBound  = 5 * time.Second  // SIGQUIT: the next start recovers
	startAttempts   = 6                // a killed server's children may hold its memory for a moment
	maxRestarts     = 10
	firstRetryDelay = 100 * time.Millisecond
	maxRetryDelay   = 5 * time.Second
)

// Options says what to run. DataDir and BinariesDir are required.
type Options struct {
	DataDir     string            // made if it is missing
	BinariesDir string            // a cache that data directories may share
	Port        int               // 0: the port of the last start, or a free one
	Log         *slog.Logger      // nil: slog.Default()
	Restart     bool              // start the server again when it dies
	Parameters  map[string]string // server settings over PostgreSQL's defaults
}

// Server is a running PostgreSQL server. Make it with Start and end it with Stop.
type Server struct {
	opts    Options
	log     *slog.Logger
	cluster *cluster
	port    int
	adopted bool
	unlock  func()
	stop    chan struct{} // closed by Stop
	done    chan struct{} // closed when the server is gone for good

	stopOnce sync.Once
	mu       sync.Mutex // guards current and err
	current  process
	err      error
}

// Start runs a server on opts.DataDir and returns when it answers. ctx bounds the start only. It fails when another program
// runs the same data directory.
func Start(ctx context.Context, opts Options) (*Server, error) {
	if opts.DataDir == "" || opts.BinariesDir == "" {
		return nil, errors.New("embeddedpg: DataDir and BinariesDir are required")
	}
	s := &Server{opts: opts, log: opts.Log, stop: make(chan struct{}), done: make(chan struct{})}
	if s.log == nil {
		s.log = slog.Default()
	}
	c, unlock, err := open(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("embedded PostgreSQL: %w", err)
	}
	s.cluster, s.unlock = c, unlock
	if err := s.begin(ctx); err != nil {
		unlock()
		return nil, fmt.Errorf("embedded PostgreSQL: %w", err)
	}
	go s.supervise()
	return s, nil
}

// open unpacks the binaries, takes the data directory's lock and makes the cluster.
func open(ctx context.Context, opts Options) (c *cluster, unlock func(), err error) {
	id, err := serverIdentity()
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(opts.DataDir, 0o700); err != nil {
		return nil, nil, err
	}
	dir, err := realPath(opts.DataDir)
	if err != nil {
		return nil, nil, err
	}
	binaries, err := id.binariesDir(opts.BinariesDir, fallbackBinariesDir)
	if err != nil {
		return nil, nil, err
	}
	root, err := ensureBinaries(ctx, binaries)
	if err != nil {
		return nil, nil, err
	}
	unlock, err = lockNow(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, nil, fmt.Errorf("data directory %s: %w", opts.DataDir, err)
	}
	c = &cluster{dir: dir, bin: filepath.Join(root, "bin"), id: id}
	if err := c.prepare(ctx); err != nil {
		unlock()
		return nil, nil, err
	}
	return c, unlock, nil
}

// begin adopts the server that is there, or starts one.
func (s *Server) begin(ctx context.Context) error {
	if pid, port, ok := s.cluster.running(); ok {
		p, err := adopt(pid, port)
		if err != nil {
			return err
		}
		err = s.awaitReady(ctx, p)
		if err == nil {
			s.log.InfoContext(ctx, "adopted the running PostgreSQL", "pid", pid, "port", port)
			s.current, s.port, s.adopted = p, port, true
			return nil
		}
		if !errors.Is(err, errExited) {
			return fmt.Errorf("process %d holds %s but does not answer: %w", pid, s.cluster.pgdata(), err)
		}
	}
	want := s.opts.Port
	if want == 0 {
		want = s.cluster.lastPort()
	}
	port, err := freePort(ctx, want)
	if err != nil {
		return err
	}
	if s.opts.Port != 0 && port != s.opts.Port {
		return fmt.Errorf("port %d is taken by another program: choose another", s.opts.Port)
	}
	s.port = port
	if err := s.cluster.savePort(port); err != nil {
		return err
	}
	return s.spawnReady(ctx, startAttempts)
}

// spawnReady starts a server and waits until it answers, a bounded number of times.
func (s *Server) spawnReady(ctx context.Context, attempts int) error {
	delay := firstRetryDelay
	for attempt := 1; ; attempt++ {
		p, err := s.cluster.spawn(s.port, s.opts.Parameters)
		if err != nil {
			return err
		}
		err = s.awaitReady(ctx, p)
		if err == nil {
			s.mu.Lock()
			s.current = p
			s.mu.Unlock()
			return nil
		}
		if !errors.Is(err, errExited) {
			terminate(p)
			return err
		}
		if attempt == attempts {
			return fmt.Errorf("%w: %s", ErrNoStart, s.cluster.logTail())
		}
		if err := sleep(ctx, delay); err != nil {
			return fmt.Errorf("start PostgreSQL: %w: %s", err, s.cluster.logTail())
		}
		delay = min(2*delay, maxRetryDelay)
	}
}

// ErrNoStart says that the server ends each time it is started on this data. The error's text carries the end of its log.
var ErrNoStart = errors.New("PostgreSQL does not start")

// errExited says that the server ended while it was waited for.
var errExited = errors.New("the server ended")

// awaitReady waits until p answers with this cluster's password.
func (s *Server) awaitReady(ctx context.Context, p process) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		pingErr := ping(ctx, s.url(p.port, "postgres"))
		if pingErr == nil {
			return nil
		}
		timer := time.NewTimer(pollInterval)
		select {
		case <-p.exited:
			timer.Stop()
			return errExited
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("wait until PostgreSQL answers: %w: %w", ctx.Err(), pingErr)
		case <-timer.C:
		}
	}
}

// supervise waits for the end of the server, and starts it again when that is asked for.
func (s *Server) supervise() {
	defer close(s.done)
	defer s.unlock()
	for {
		s.mu.Lock()
		p := s.current
		s.mu.Unlock()
		select {
		case <-s.stop:
			terminate(p)
			return
		case <-p.exited:
		}
		if s.stopping() {
			return
		}
		s.log.Error("PostgreSQL died", "pid", p.proc.Pid, "restart", s.opts.Restart, "log_file", s.cluster.logPath())
		if !s.opts.Restart {
			s.fail(errors.New("PostgreSQL died"))
			return
		}
		if err := s.restart(); err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *Server) restart() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := s.spawnReady(ctx, maxRestarts)
	switch {
	case err == nil:
		s.log.Info("PostgreSQL runs again", "pid", s.Pid(), "port", s.port)
		return nil
	case s.stopping():
		return nil
	default:
		return err
	}
}

func (s *Server) stopping() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

func (s *Server) fail(err error) {
	s.log.Error("PostgreSQL is given up", "error", err)
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
}

// terminate ends a server: first with a checkpoint, then without, then by force.
func terminate(p process) {
	steps := []struct {
		signal syscall.Signal
		bound  time.Duration
	}{{syscall.SIGINT, fastStopBound}, {syscall.SIGQUIT, abortStopBound}, {syscall.SIGKILL, abortStopBound}}
	for _, step := range steps {
		_ = p.proc.Signal(step.signal) // gone already is as good
		timer := time.NewTimer(step.bound)
		select {
		case <-p.exited:
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// adopt watches a server that is not our child.
func adopt(pid, port int) (process, error) {
	proc, err := os.FindProcess(pid)
	if err != nil {
		return process{}, fmt.Errorf("find process %d: %w", pid, err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		ticker := time.NewTicker(pollInterval)
		defer ticker.Stop()
		for range ticker.C {
			if proc.Signal(syscall.Signal(0)) != nil {
				return
			}
		}
	}()
	return process{proc: proc, port: port, exited: exited}, nil
}

// Stop ends the server and waits for it, within fastStopBound plus twice abortStopBound. A second call waits like the first.
func (s *Server) Stop() error {
	s.stopOnce.Do(func() { close(s.stop) })
	<-s.done
	return s.Err()
}

// Done is closed when the server is gone for good: stopped, or dead and not restarted.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err says why the server is gone for good, nil after Stop.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Pid is the process of the server that runs now. It changes when the server is restarted.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.proc.Pid
}

// Port is the port on 127.0.0.1, the same over restarts.
func (s *Server) Port() int { return s.port }

// Adopted says whether the server was running already when Start was called.
func (s *Server) Adopted() bool { return s.adopted }

// URL is the connection string of a database. It holds the password: do not log it.
func (s *Server) URL(db string) string { return s.url(s.port, db) }

func (s *Server) url(port int, db string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(superuser, s.cluster.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Path: "/" + db, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// EnsureDatabase makes the database unless it is there.
func (s *Server) EnsureDatabase(ctx context.Context, db string) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return fmt.Errorf("make database %s: %w", db, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", db).Scan(&exists); err != nil {
		return fmt.Errorf("make database %s: %w", db, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{db}.Sanitize()); err != nil {
		return fmt.Errorf("make database %s: %w", db, err)
	}
	return nil
}

// Release lets the server run on without this program and frees the data directory's lock, for a later Start to adopt. The
// Server must not be used afterwards; what waits for the server's end stays until this program ends.
func (s *Server) Release() { s.unlock() }
