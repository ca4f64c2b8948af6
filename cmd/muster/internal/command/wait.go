package command

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/muster-gpu/muster/api/client"
)

// maxFailedLooks is how many looks in a row may fail before waiting gives up: a restart of the server is waited out.
const maxFailedLooks = 60

// waitFor looks until look says that it is done, or timeout has passed (0: no limit). What is briefly unavailable is looked at
// again. It returns errTimedOut, and the context's error when it is cancelled.
func (a *App) waitFor(ctx context.Context, timeout time.Duration, look func(context.Context) (done bool, err error)) error {
	var expired <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	ticker := time.NewTicker(a.Poll)
	defer ticker.Stop()
	for failed := 0; ; {
		done, err := look(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && isPassing(err) && failed < maxFailedLooks:
			failed++
		case err != nil || done:
			return err
		default:
			failed = 0
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-expired:
			return errTimedOut
		case <-ticker.C:
		}
	}
}

var errTimedOut = errors.New("timed out")

// isPassing reports whether a failure may be gone at the next look.
func isPassing(err error) bool {
	var unreachable *url.Error
	code := client.CodeOf(err)
	return errors.As(err, &unreachable) || code == codeUnavailable || code == codeRateLimited
}
