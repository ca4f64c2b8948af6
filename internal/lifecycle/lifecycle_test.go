package lifecycle_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/lifecycle"
	"github.com/muster-gpu/muster/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const patience = 30 * time.Second

// diary is what happened, in order.
type diary struct {
	mu      sync.Mutex
	entries []string
}

func (d *diary) add(entry string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, entry)
}

func (d *diary) check(t *testing.T, want ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.entries, want) {
		t.Errorf("happened: %q\nwant:     %q", d.entries, want)
	}
}

// part is one that serves until it is stopped.
func (d *diary) part(name string) lifecycle.Func {
	return func(ctx context.Context, ready func()) error {
		d.add("start " + name)
		ready()
		ready() // once more does no harm
		<-ctx.Done()
		d.add("stop " + name)
		return ctx.Err()
	}
}

func newGroup() *lifecycle.Group { return lifecycle.New(slog.New(slog.DiscardHandler)) }

// run runs a group in the background.
func run(ctx context.Context, group *lifecycle.Group) <-chan error {
	done := make(chan error, 1)
	go func() { done <- group.Run(ctx) }()
	return done
}

func result(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("the group did not end")
		return nil
	}
}

func TestPartsStartInOrderAndStopInReverse(t *testing.T) {
	t.Parallel()
	d := &diary{}
	group := newGroup()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, name := range []string{"store", "scheduler"} {
		group.Add(name, patience, d.part(name))
	}
	group.Add("API", patience, func(ctx context.Context, ready func()) error {
		return d.part("API")(ctx, func() { ready(); cancel() })
	})
	if err := result(t, run(ctx, group)); err != nil {
		t.Errorf("a clean stop gave %v", err)
	}
	d.check(t, "start store", "start scheduler", "start API", "stop API", "stop scheduler", "stop store")
}

func TestAPartStartsOnlyWhenTheOneBeforeIsReady(t *testing.T) {
	t.Parallel()
	d := &diary{}
	group := newGroup()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	group.Add("slow", patience, func(ctx context.Context, ready func()) error {
		d.add("slow begins")
		runtime.Gosched() // a group that does not wait has its chance
		d.add("slow is ready")
		ready()
		<-ctx.Done()
		return nil
	})
	group.Add("next", patience, func(ctx context.Context, ready func()) error {
		d.add("next begins")
		ready()
		cancel()
		<-ctx.Done()
		return nil
	})
	if err := result(t, run(ctx, group)); err != nil {
		t.Error(err)
	}
	d.check(t, "slow begins", "slow is ready", "next begins")
}

func TestAFailureStopsTheOthersAndIsNamed(t *testing.T) {
	t.Parallel()
	errBroken := errors.New("the disk is full")
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"with an error": {errBroken, "middle: the disk is full"},
		"by itself":     {nil, "middle: stopped by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &diary{}
			group := newGroup()
			lastReady := make(chan struct{})
			var once sync.Once
			group.Add("first", patience, d.part("first"))
			group.Add("middle", patience, func(_ context.Context, ready func()) error {
				ready()
				<-lastReady
				return c.err
			})
			group.Add("last", patience, func(ctx context.Context, ready func()) error {
				return d.part("last")(ctx, func() {
					ready()
					once.Do(func() { close(lastReady) })
				})
			})
			err := result(t, run(t.Context(), group))
			if err == nil || err.Error() != c.want || c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("the group ended with %v, want %s", err, c.want)
			}
			d.check(t, "start first", "start last", "stop last", "stop first")
		})
	}
}

func TestAPartThatFailsAtItsStartKeepsLaterOnesFromStarting(t *testing.T) {
	t.Parallel()
	d := &diary{}
	group := newGroup()
	group.Add("first", patience, d.part("first"))
	group.Add("broken", patience, func(context.Context, func()) error { return errors.New("the port is taken") })
	group.Add("never", patience, d.part("never"))
	if err := result(t, run(t.Context(), group)); err == nil || err.Error() != "broken: the port is taken" {
		t.Errorf("the group ended with %v", err)
	}
	d.check(t, "start first", "stop first")
}

func TestAPartThatFailsWhileALaterOneStartsStopsTheGroup(t *testing.T) {
	t.Parallel()
	d := &diary{}
	group := newGroup()
	starting := make(chan struct{})
	group.Add("store", patience, func(_ context.Context, ready func()) error {
		ready()
		<-starting
		return errors.New("the store is gone")
	})
	group.Add("reader", patience, func(ctx context.Context, _ func()) error {
		close(starting)
		<-ctx.Done() // it waits for the store, and would do so for ever
		d.add("stop reader")
		return nil
	})
	if err := result(t, run(t.Context(), group)); err == nil || err.Error() != "store: the store is gone" {
		t.Errorf("the group ended with %v", err)
	}
	d.check(t, "stop reader")
}

func TestStopWhileAPartStarts(t *testing.T) {
	t.Parallel()
	d := &diary{}
	group := newGroup()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	group.Add("first", patience, d.part("first"))
	group.Add("starting", patience, func(ctx context.Context, _ func()) error {
		d.add("start starting")
		cancel()
		<-ctx.Done()
		d.add("stop starting")
		return ctx.Err()
	})
	group.Add("never", patience, d.part("never"))
	if err := result(t, run(ctx, group)); err != nil {
		t.Errorf("a stop during the start gave %v", err)
	}
	d.check(t, "start first", "start starting", "stop starting", "stop first")
}

func TestNothingStartsOnAContextThatHasEnded(t *testing.T) {
	t.Parallel()
	d := &diary{}
	group := newGroup()
	group.Add("never", patience, d.part("never"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := result(t, run(ctx, group)); err != nil {
		t.Error(err)
	}
	d.check(t)
}

func TestAPartThatOverrunsItsBoundIsNamedAndLeftBehind(t *testing.T) {
	t.Parallel()
	d := &diary{}
	group := newGroup()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	letGo, gone := make(chan struct{}), make(chan struct{})
	group.Add("first", patience, d.part("first"))
	group.Add("stubborn", time.Millisecond, func(_ context.Context, ready func()) error {
		defer close(gone)
		ready()
		<-letGo
		return nil
	})
	group.Add("last", patience, func(ctx context.Context, ready func()) error {
		return d.part("last")(ctx, func() { ready(); cancel() })
	})
	err := result(t, run(ctx, group))
	if err == nil || !strings.Contains(err.Error(), "stop stubborn: still running after 1ms") {
		t.Errorf("the group ended with %v", err)
	}
	d.check(t, "start first", "start last", "stop last", "stop first")
	close(letGo)
	<-gone
}
