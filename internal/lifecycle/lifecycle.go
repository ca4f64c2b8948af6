// Package lifecycle starts and stops the long-running parts of a process in order.
//
// Parts start in the order in which they were added, each only when the one before it is ready, and stop in the reverse
// order, each within its own bound. The first part that fails stops all of them, also while a later one is still starting. A
// part is one function:
//
//	group := lifecycle.New(logger)
//	group.Add("scheduler", 10*time.Second, func(ctx context.Context, ready func()) error {
//		ready()
//		<-ctx.Done()
//		return nil
//	})
//	err := group.Run(ctx)
//
// A part returns nil when its context ends; any return before that is a failure of the part. ready may be called more than
// once. Add must not be called after Run.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Func is a long-running part: it calls ready once it serves, and returns when ctx ends.
type Func func(ctx context.Context, ready func()) error

// Group is an ordered set of parts. Make it with New.
type Group struct {
	log   *slog.Logger
	parts []*part
}

type part struct {
	name      string
	stopBound time.Duration
	run       Func
	cancel    context.CancelFunc
	done      chan struct{}
	err       error
}

// New makes an empty group.
func New(log *slog.Logger) *Group { return &Group{log: log} }

// Add appends a part that is given stopBound to stop in.
func (g *Group) Add(name string, stopBound time.Duration, run Func) {
	g.parts = append(g.parts, &part{name: name, stopBound: stopBound, run: run, done: make(chan struct{})})
}

// Run starts every part, waits until ctx ends or a part fails, then stops the started ones in reverse order. It returns what
// made a part fail or overrun its bound, nil after a clean stop.
func (g *Group) Run(ctx context.Context) error {
	failed := make(chan *part, len(g.parts))
	started := 0
	var err error
	for started < len(g.parts) && err == nil && ctx.Err() == nil {
		err = g.start(ctx, g.parts[started], failed)
		started++
	}
	if err == nil && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case p := <-failed:
			err = p.failure()
		}
	}
	for i := started - 1; i >= 0; i-- {
		err = errors.Join(err, g.stop(g.parts[i]))
	}
	return err
}

// start runs a part on a context of its own, so that stopping keeps the order, and waits until it is ready, ctx ends, or a
// part fails: this one or one that was started before.
func (g *Group) start(ctx context.Context, p *part, failed chan *part) error {
	var partCtx context.Context
	partCtx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	ready := make(chan struct{})
	var once sync.Once
	go func() {
		defer close(p.done)
		p.err = p.run(partCtx, func() { once.Do(func() { close(ready) }) })
		if partCtx.Err() == nil {
			failed <- p
		}
	}()
	select {
	case <-ready:
		g.log.DebugContext(ctx, "part ready", "part", p.name)
		return nil
	case p := <-failed:
		return p.failure()
	case <-ctx.Done():
		return nil
	}
}

func (g *Group) stop(p *part) error {
	p.cancel()
	timer := time.NewTimer(p.stopBound)
	defer timer.Stop()
	select {
	case <-p.done:
		g.log.Debug("part stopped", "part", p.name)
		if p.err != nil && !errors.Is(p.err, context.Canceled) {
			g.log.Warn("part stopped with an error", "part", p.name, "error", p.err)
		}
		return nil
	case <-timer.C:
		return fmt.Errorf("stop %s: still running after %s", p.name, p.stopBound)
	}
}

func (p *part) failure() error {
	<-p.done
	if p.err == nil {
		return fmt.Errorf("%s: stopped by itself", p.name)
	}
	return fmt.Errorf("%s: %w", p.name, p.err)
}
