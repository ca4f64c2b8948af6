package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/muster-gpu/muster/internal/benchkit"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/settlement/ledger"
)

const (
	failoverRuns = 3
	loadTime     = 2 * time.Second // before a leader is killed
	childWait    = time.Minute
	lineStandby  = "standing by"
	lineLeading  = "leading"
	lineDecided  = "decided"
)

// lead campaigns for the lead and books, and says on standard output when it stands by, when it leads and whenever it has decided bookings.
func lead(ctx context.Context, s settings, log *slog.Logger) error {
	pool, err := benchkit.OpenPool(ctx, s.databaseURL, connections)
	if err != nil {
		return err
	}
	defer pool.Close()
	w := &world{settings: s, log: log, book: ledger.New(currency)}
	a, fleet, err := w.scheduler(ctx, pool, pgnotify.New(pool, log))
	if err != nil {
		return err
	}
	elector := leader.New(pool, leader.RoleScheduler, s.holder, log)
	book := func(ctx context.Context, term int64) error {
		say(lineLeading)
		for ctx.Err() == nil {
			n, err := a.Apply(ctx, term)
			if err != nil {
				return err
			}
			if n > 0 {
				say(lineDecided)
			}
		}
		return nil
	}
	warm := make(chan struct{})
	return beside(ctx, func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-warm:
			return elector.Run(ctx, func() { say(lineStandby) }, book)
		}
	}, func(ctx context.Context) error { return fleet.Run(ctx, sync.OnceFunc(func() { close(warm) })) })
}

// say tells the parent; if it has gone, there is nobody to tell.
func say(line string) { _, _ = fmt.Fprintln(os.Stdout, line) }

// child is a process that campaigns.
type child struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	first  map[string]time.Time // when a line first came, by its beginning
	closed chan struct{}
}

func (w *world) start(ctx context.Context, holder string) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{
		cmd:   exec.CommandContext(ctx, program, "-lead", "-database", w.database.URL, "-holder", holder),
		first: make(map[string]time.Time), closed: make(chan struct{}),
	}
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go c.read(out)
	return c, nil
}

func (c *child) read(out io.Reader) {
	defer close(c.closed)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		c.mu.Lock()
		for _, line := range []string{lineStandby, lineLeading, lineDecided} {
			if strings.HasPrefix(lines.Text(), line) && c.first[line].IsZero() {
				c.first[line] = time.Now()
			}
		}
		c.mu.Unlock()
	}
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.closed
	_ = c.cmd.Wait()
}

// wait waits for a line, and says when it first came.
func (c *child) wait(ctx context.Context, line string) (time.Time, error) {
	for deadline := time.Now().Add(childWait); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		at := c.first[line]
		c.mu.Unlock()
		if !at.IsZero() {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("a process has not said %q", line)
}

// measureFailover kills leaders that work off a backlog and measures until the next one books; the worst counts.
func (w *world) measureFailover(ctx context.Context) error {
	if _, err := w.pool.Exec(ctx, `DELETE FROM leadership`); err != nil {
		return err
	}
	leading, err := w.start(ctx, "first")
	if err != nil {
		return err
	}
	defer func() { leading.kill() }()
	if _, err := leading.wait(ctx, lineLeading); err != nil {
		return err
	}
	var worst time.Duration
	for run := range failoverRuns {
		next, err := w.start(ctx, fmt.Sprint("next ", run))
		if err != nil {
			return err
		}
		_, standing := next.wait(ctx, lineStandby)
		_, quoting := w.quote(ctx, w.bookings, true, w.customers...) // more than are decided until the next one leads
		_, booking := leading.wait(ctx, lineDecided)
		if err := errors.Join(standing, quoting, booking); err != nil {
			next.kill()
			return err
		}
		time.Sleep(loadTime)
		killed := time.Now()
		leading.kill()
		leading = next
		at, err := next.wait(ctx, lineDecided)
		if err != nil {
			return err
		}
		note("failover in %s", at.Sub(killed).Round(time.Millisecond))
		worst = max(worst, at.Sub(killed))
		if err := w.check(ctx); err != nil {
			return err
		}
	}
	figure("failover_s value=%.4g unit=s runs=%d hosts=%d", worst.Seconds(), failoverRuns, w.hosts)
	return nil
}
