package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	restartDelay = 300 * time.Millisecond
	stopGrace    = 20 * time.Second
)

// part is a child process that is started again whenever it ends by itself, until it is stopped.
type part struct {
	name    string
	command func(context.Context) *exec.Cmd
	logFile string
	log     *slog.Logger

	mu      sync.Mutex
	running *exec.Cmd
	stopped bool
	done    chan struct{} // closed when it will not be started any more
	begun   chan error    // the outcome of the first start
}

func newPart(dir, name string, log *slog.Logger, command func(context.Context) *exec.Cmd) *part {
	return &part{
		name: name, command: command, logFile: filepath.Join(dir, name+".log"), log: log.With("part", name),
		done: make(chan struct{}), begun: make(chan error, 1),
	}
}

// start runs the child until stop; it returns when it has been started for the first time.
func (p *part) start() error {
	go func() {
		// The kernel ends the child with the thread that made it (Pdeathsig), so the thread is kept for as long as the child:
		// a stack that is killed leaves nothing behind.
		runtime.LockOSThread()
		defer close(p.done)
		for first := true; ; first = false {
			cmd, logFile, err := p.spawn(first)
			if first {
				p.begun <- err
			}
			if err == nil && cmd != nil {
				err = cmd.Wait()
				_ = logFile.Close()
			}
			if p.isStopped() {
				return
			}
			p.log.Warn("part ended, starting it again", "error", err)
			time.Sleep(restartDelay)
		}
	}()
	return <-p.begun
}

// spawn starts the child once, unless the process has been stopped.
func (p *part) spawn(first bool) (*exec.Cmd, *os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return nil, nil, nil
	}
	mode := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if first {
		mode |= os.O_TRUNC
	}
	logFile, err := os.OpenFile(p.logFile, mode, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open log of %s: %w", p.name, err)
	}
	// The child outlives the step that starts it: stop ends it, not a context.
	cmd := p.command(context.Background())
	cmd.Stdout, cmd.Stderr = logFile, logFile
	// A group of its own keeps the terminal's Ctrl-C from it: the stack stops its parts in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		_ = logFile.Close()
		return nil, nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	p.running = cmd
	return cmd, logFile, nil
}

func (p *part) isStopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped
}

// pid is the child's process id now.
func (p *part) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return 0
	}
	return p.running.Process.Pid
}

// stop ends the child for good: SIGTERM, and SIGKILL after a grace.
func (p *part) stop() {
	p.mu.Lock()
	p.stopped = true
	running := p.running
	p.mu.Unlock()
	if running == nil {
		return
	}
	_ = running.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.log.Warn("part did not stop in time, killing it")
		_ = running.Process.Kill()
		<-p.done
	}
}

// waitFor polls until ok, ctx ends or the bound passes; what names the wait in the error, with the last reason.
func waitFor(ctx context.Context, what string, bound time.Duration, ok func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	var reason error
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		if reason == nil || ctx.Err() == nil { // what fails because time is up says nothing
			reason = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, bound, errors.Join(reason, context.Cause(ctx)))
		case <-ticker.C:
		}
	}
}
