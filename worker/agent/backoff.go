package agent

import (
	"context"
	"math/rand/v2"
	"time"
)

// retryDelay doubles with each attempt, from reconnectBase to a limit, and is anything from half of that to all of it, so that a
// fleet does not return at once.
func retryDelay(attempt int, limit time.Duration) time.Duration {
	delay := reconnectBase
	for range attempt - 1 {
		if delay *= 2; delay >= limit {
			delay = limit
			break
		}
	}
	return delay/2 + rand.N(delay/2+1) //nolint:gosec // jitter
}

func wait(ctx context.Context, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
