// Package localnet starts the local Solana chain of this folder (server.js: LiteSVM behind Solana's
// JSON-RPC and websocket interface) and stops it again. It is a development chain: its tokens are
// worth nothing and nothing it says is true of any Solana cluster.
//
// Invariants: Start returns only once the server answers on both URLs; a Server that has been stopped,
// or whose context has ended, has no process left. State in Options.StateDir outlives both, even when
// the process is killed. Errors name the missing part and what to do. A Server is safe for concurrent
// use: its fields do not change after Start.
package localnet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// startTimeout bounds the wait for the first line of the server: it replays its whole journal first.
	startTimeout = 60 * time.Second
	// stopTimeout is how long the server may take to store what is left before it is killed.
	stopTimeout = 10 * time.Second
	// logTail is how much of the server's log an error of Start repeats.
	logTail = 4096
)

// Options say where and how to run the chain. Only StateDir is required; a zero port is any free one.
type Options struct {
	// StateDir is where the chain is kept. It is made if it is missing.
	StateDir string
	// Host to listen on; 127.0.0.1 when empty.
	Host string
	// Port of JSON-RPC.
	Port int
	// WSPort of the websocket.
	WSPort int
	// Slot is the length of a slot; the server's default when zero.
	Slot time.Duration
	// FinalizeSlots is how many slots it takes to be final; the server's default when zero.
	FinalizeSlots int
	// ServerJS is the server's path; found from the working directory when empty.
	ServerJS string
	// Log gets the server's log; discarded when nil.
	Log io.Writer
}

// Server is a running chain.
type Server struct {
	hello  hello
	cmd    *exec.Cmd
	exited chan struct{}
	stop   sync.Once
	err    error
}

type hello struct {
	RPC         string `json:"rpc"`
	WS          string `json:"ws"`
	GenesisHash string `json:"genesisHash"`
}

// Start runs the server and waits until it listens. The process ends with ctx, or by Stop.
func Start(ctx context.Context, o Options) (*Server, error) {
	script, err := findServer(o.ServerJS)
	if err != nil {
		return nil, err
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, errors.New("localnet: node is not installed: install Node.js 20 (Debian: apt-get install nodejs)")
	}
	tail := &tailWriter{next: o.Log}
	cmd := exec.CommandContext(ctx, node, append([]string{script}, o.args()...)...)
	cmd.Stderr = tail
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("localnet: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("localnet: start %s: %w", node, err)
	}
	s := &Server{cmd: cmd, exited: make(chan struct{})}
	if err := s.awaitHello(stdout); err != nil {
		// The process may have ended by itself; either way it is reaped here.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("localnet: the chain in %s did not start: %w\n%s", o.StateDir, err, tail)
	}
	go s.reap()
	return s, nil
}

// RPCURL is where JSON-RPC is served.
func (s *Server) RPCURL() string { return s.hello.RPC }

// WSURL is where the websocket is served.
func (s *Server) WSURL() string { return s.hello.WS }

// GenesisHash names the chain; it stays the same as long as its state folder does.
func (s *Server) GenesisHash() string { return s.hello.GenesisHash }

// Exited is closed when the process has ended, asked or not.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Stop ends the process and waits for it. Later calls answer as the first.
func (s *Server) Stop() error {
	s.stop.Do(func() {
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			s.err = fmt.Errorf("localnet: stop: %w", err)
		}
		timer := time.NewTimer(stopTimeout)
		defer timer.Stop()
		select {
		case <-s.exited:
		case <-timer.C:
			s.err = errors.Join(fmt.Errorf("localnet: killed, it did not stop within %s", stopTimeout), s.cmd.Process.Kill())
			<-s.exited
		}
	})
	return s.err
}

func (s *Server) reap() {
	defer close(s.exited)
	// How it ended is in its log; that it ended is what matters here.
	_ = s.cmd.Wait()
}

func (s *Server) awaitHello(stdout io.Reader) error {
	line := make(chan error, 1)
	go func() {
		text, err := bufio.NewReader(stdout).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(text, &s.hello)
		}
		line <- err
	}()
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case err := <-line:
		if errors.Is(err, io.EOF) {
			return errors.New("it ended at once")
		}
		return err
	case <-timer.C:
		return fmt.Errorf("no answer within %s", startTimeout)
	}
}

func (o Options) args() []string {
	args := []string{"--state", o.StateDir, "--port", strconv.Itoa(o.Port), "--ws-port", strconv.Itoa(o.WSPort)}
	if o.Host != "" {
		args = append(args, "--host", o.Host)
	}
	if o.Slot > 0 {
		args = append(args, "--slot-ms", strconv.FormatInt(o.Slot.Milliseconds(), 10))
	}
	if o.FinalizeSlots > 0 {
		args = append(args, "--finalize-slots", strconv.Itoa(o.FinalizeSlots))
	}
	return args
}

// findServer looks for deploy/localnet/server.js from the working directory upwards, then beside this
// source file, and makes sure that its packages are installed.
func findServer(given string) (string, error) {
	script := given
	if script == "" {
		var err error
		if script, err = search(); err != nil {
			return "", err
		}
	}
	if _, err := os.Stat(script); err != nil {
		return "", fmt.Errorf("localnet: %w", err)
	}
	modules := filepath.Join(filepath.Dir(script), "node_modules", "litesvm")
	if _, err := os.Stat(modules); err != nil {
		return "", fmt.Errorf("localnet: %s is missing: run `make setup`", modules)
	}
	return script, nil
}

func search() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("localnet: %w", err)
	}
	for {
		script := filepath.Join(dir, "deploy", "localnet", "server.js")
		if _, err := os.Stat(script); err == nil {
			return script, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	if _, source, _, ok := runtime.Caller(0); ok {
		script := filepath.Join(filepath.Dir(source), "server.js")
		if _, err := os.Stat(script); err == nil {
			return script, nil
		}
	}
	return "", errors.New("localnet: deploy/localnet/server.js was not found: run inside the repository, or set Options.ServerJS")
}

// tailWriter passes the log on and keeps its end.
type tailWriter struct {
	mu   sync.Mutex
	next io.Writer
	kept []byte
}

func (w *tailWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, p...)
	if over := len(w.kept) - logTail; over > 0 {
		w.kept = append([]byte(nil), w.kept[over:]...)
	}
	if w.next == nil {
		return len(p), nil
	}
	return w.next.Write(p)
}

func (w *tailWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.kept)
}
