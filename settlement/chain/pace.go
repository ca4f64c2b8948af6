package chain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	maxPause     = time.Minute // however long an endpoint asks to be left alone
	maxQueueTime = 15 * time.Second
)

// pace keeps to an endpoint's limits: to the configured rate, and to what its Retry-After said. A pause that is longer than a retry
// may take fails at once, so that another endpoint is asked.
type pace struct {
	limiter *rate.Limiter // nil: no limit

	mu    sync.Mutex
	until time.Time
}

func newPace(perSecond float64) *pace {
	if perSecond <= 0 {
		return &pace{}
	}
	return &pace{limiter: rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond)))}
}

func (p *pace) pause(after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := time.Now().Add(min(after, maxPause)); until.After(p.until) {
		p.until = until
	}
}

func (p *pace) left() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.until)
}

// isPaused reports whether the endpoint asked to be left alone for longer than a retry waits.
func (p *pace) isPaused() bool { return p.left() > maxRetryDelay }

func (p *pace) wait(ctx context.Context) error {
	left := p.left()
	if left > maxRetryDelay {
		return fmt.Errorf("%w: it asked to be left alone for %s", ErrUnavailable, left.Round(time.Second))
	}
	if left > 0 && !sleep(ctx, left) {
		return context.Cause(ctx)
	}
	if p.limiter == nil {
		return nil
	}
	waiting, cancel := context.WithTimeoutCause(ctx, maxQueueTime, errors.New("too many calls wait"))
	defer cancel()
	if err := p.limiter.Wait(waiting); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: more calls are waiting than the configured rate lets through", ErrUnavailable)
	}
	return nil
}
