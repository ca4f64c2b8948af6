package embeddedpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

const lockPollInterval = 50 * time.Millisecond

// errLocked says that another program holds the lock.
var errLocked = errors.New("locked")

// lockNow takes the lock file at path, or fails with errLocked. The kernel frees it when this program dies.
func lockNow(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			holder, _ := os.ReadFile(path)
			return nil, fmt.Errorf("%w by process %s", errLocked, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// The number is for the message above only; the lock itself is the kernel's.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(fmt.Sprintf("%d\n", os.Getpid())), 0)
	}
	return func() { _ = f.Close() }, nil
}

// lockWait takes the lock file at path, waiting until ctx ends.
func lockWait(ctx context.Context, path string) (unlock func(), err error) {
	for {
		unlock, err = lockNow(path)
		if !errors.Is(err, errLocked) {
			return unlock, err
		}
		if waitErr := sleep(ctx, lockPollInterval); waitErr != nil {
			return nil, fmt.Errorf("wait for %s: %w", path, err)
		}
	}
}

// sleep waits for d or until ctx ends, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
