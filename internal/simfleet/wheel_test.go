package simfleet

import (
	"context"
	"sync"
	"testing"
	"time"
)

func TestTheWheelCallsInTimeAndNeverEarly(t *testing.T) {
	t.Parallel()
	w := newWheel()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.run(ctx) })
	defer running.Wait()
	defer cancel()
	delays := []time.Duration{0, time.Millisecond, wheelTick, 5 * wheelTick, 17*wheelTick + 1}
	type call struct{ wanted, took time.Duration }
	calls := make(chan call, len(delays))
	began := time.Now()
	for _, delay := range delays {
		w.after(delay, func() { calls <- call{delay, time.Since(began)} })
	}
	for range delays {
		if c := <-calls; c.took < c.wanted {
			t.Errorf("%s passed as %s", c.wanted, c.took)
		}
	}
}

func TestTheWheelTurnsMoreThanOnce(t *testing.T) {
	t.Parallel()
	w := newWheel()
	called := 0
	w.after(wheelTick*(wheelSlots+3), func() { called++ })
	w.after(wheelTick*(2*wheelSlots), func() { called++ })
	for ticks := 1; ticks <= 2*wheelSlots+2; ticks++ {
		if !w.turn(t.Context()) {
			t.Fatal("the wheel stopped")
		}
		for len(w.due) > 0 {
			(<-w.due)()
		}
		want := 0
		if ticks > wheelSlots+3 {
			want++
		}
		if ticks > 2*wheelSlots {
			want++
		}
		if called != want {
			t.Fatalf("%d calls after %d ticks, not %d", called, ticks, want)
		}
	}
}

func TestTheWheelDropsWhatIsNotDueAtItsEnd(t *testing.T) {
	t.Parallel()
	w := newWheel()
	ctx, cancel := context.WithCancel(t.Context())
	w.after(time.Hour, func() { t.Error("called") })
	cancel()
	w.run(ctx)
}
