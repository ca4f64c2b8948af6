package simfleet

import (
	"context"
	"sync"
	"time"
)

const (
	wheelTick    = 20 * time.Millisecond
	wheelSlots   = 1024 // a little over 20 s a turn
	wheelWorkers = 4
	wheelQueue   = 4096
)

// wheel runs many delayed calls with one timer. A call may come up to two ticks late, never early. It is safe for concurrent use.
type wheel struct {
	mu      sync.Mutex
	slots   [wheelSlots][]entry
	current int
	due     chan func()
}

type entry struct {
	turns int
	call  func()
}

func newWheel() *wheel { return &wheel{due: make(chan func(), wheelQueue)} }

// after runs call once, when delay has passed and while run runs. Calls should be short: they share few goroutines.
func (w *wheel) after(delay time.Duration, call func()) {
	ticks := max(1, int((delay+wheelTick-1)/wheelTick)+1)
	w.mu.Lock()
	defer w.mu.Unlock()
	at := (w.current + ticks) % wheelSlots
	w.slots[at] = append(w.slots[at], entry{turns: (ticks - 1) / wheelSlots, call: call})
}

// run turns the wheel until ctx ends. Calls that have not come due by then are dropped; none runs once it has returned.
func (w *wheel) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range wheelWorkers {
		workers.Go(func() {
			for call := range w.due {
				call()
			}
		})
	}
	defer workers.Wait()
	defer close(w.due)
	ticker := time.NewTicker(wheelTick)
	defer ticker.Stop()
	for began, turned := time.Now(), 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		// A ticker drops ticks that nobody takes: the wheel keeps to the clock instead.
		for ; turned < int(time.Since(began)/wheelTick); turned++ {
			if !w.turn(ctx) {
				return
			}
		}
	}
}

// turn moves on by one slot and hands out its calls; false once ctx has ended.
func (w *wheel) turn(ctx context.Context) bool {
	w.mu.Lock()
	w.current = (w.current + 1) % wheelSlots
	entries := w.slots[w.current]
	var kept []entry
	var calls []func()
	for _, e := range entries {
		if e.turns > 0 {
			kept = append(kept, entry{turns: e.turns - 1, call: e.call})
		} else {
			calls = append(calls, e.call)
		}
	}
	w.slots[w.current] = kept
	w.mu.Unlock()
	for _, call := range calls {
		select {
		case w.due <- call:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
