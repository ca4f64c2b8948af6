package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/muster-gpu/muster/internal/benchkit"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/scheduler/applier"
)

// smallGangs are the sizes of gangs that are measured besides.
var smallGangs = []int{1, 2}

const (
	alonePart  = 10  // of the backlog that the peer gets
	steadyPart = 0.5 // of what a backlog is worked off with comes steadily
	steadyFor  = 10 * time.Second
	tick       = 2 * time.Millisecond // in which bookings come
	settleTime = 2 * time.Second
)

// measureThroughput works off a backlog, alone and together, and then books at a steady rate.
func (w *world) measureThroughput(ctx context.Context) error {
	hub := pgnotify.New(w.pool, w.log)
	alone, _, err := w.scheduler(ctx, w.pool, hub)
	if err != nil {
		return err
	}
	alone.Alone()
	together, fleet, err := w.scheduler(ctx, w.pool, hub)
	if err != nil {
		return err
	}
	one, err := w.backlog(ctx, alone, w.bookings/alonePart)
	if err != nil {
		return err
	}
	if err := fleet.Sync(ctx, nil); err != nil {
		return err
	}
	many, err := w.profiled(func() (worked, error) { return w.backlog(ctx, together, w.bookings) })
	if err != nil {
		return err
	}
	figure("bookings_per_s value=%.5g unit=1/s peer=one-transaction-a-booking peer_value=%.5g ratio=%.4g hosts=%d nodes=%d leases=%d %s",
		many.rate, one.rate, many.rate/one.rate, w.hosts, w.nodes, w.nodes, many.cpu())
	rate := many.rate * steadyPart
	var latencies []time.Duration
	err = beside(ctx, func(ctx context.Context) (err error) {
		latencies, err = w.steady(ctx, hub, rate)
		return err
	}, func(ctx context.Context) error { return together.Run(ctx, term) }, func(ctx context.Context) error { return hub.Run(ctx, func() {}) })
	if err != nil {
		return err
	}
	slices.Sort(latencies)
	figure("booking_p99_ms value=%.4g unit=ms p50=%.4g rate=%.0f bookings=%d", milliseconds(percentile(latencies, 99)),
		milliseconds(percentile(latencies, 50)), rate, len(latencies))
	return nil
}

// measureGangs works off backlogs of smaller gangs, which cost fewer rows.
func (w *world) measureGangs(ctx context.Context) error {
	a, _, err := w.scheduler(ctx, w.pool, pgnotify.New(w.pool, w.log))
	if err != nil {
		return err
	}
	defer func(nodes int) { w.nodes = nodes }(w.nodes)
	for _, w.nodes = range smallGangs {
		done, err := w.backlog(ctx, a, w.bookings)
		if err != nil {
			return err
		}
		figure("bookings_per_s_of_%d value=%.5g unit=1/s hosts=%d nodes=%d leases=%d %s", w.nodes, done.rate, w.hosts, w.nodes, w.nodes, done.cpu())
	}
	return nil
}

// worked is what working off a backlog took.
type worked struct {
	rate          float64       // bookings a second
	own, postgres time.Duration // CPU time a booking
}

func (d worked) cpu() string {
	return fmt.Sprintf("cpu_ms=%.3g postgres_cpu_ms=%.3g", milliseconds(d.own), milliseconds(d.postgres))
}

// cpu is what this process and the server's have had until now.
func (w *world) cpu(ctx context.Context) (own, postgres time.Duration, err error) {
	if own, err = benchkit.CPU(os.Getpid()); err != nil {
		return 0, 0, err
	}
	postgres, err = w.database.CPU(ctx)
	return own, postgres, err
}

// profiled writes a CPU profile if one is wanted.
func (w *world) profiled(do func() (worked, error)) (worked, error) {
	if w.profile == "" {
		return do()
	}
	file, err := os.Create(w.profile)
	if err != nil {
		return worked{}, err
	}
	defer func() { _ = file.Close() }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return worked{}, err
	}
	defer pprof.StopCPUProfile()
	return do()
}

// backlog stores requested bookings and has the applier decide them.
func (w *world) backlog(ctx context.Context, a *applier.Applier, count int) (done worked, err error) {
	if _, err := w.quote(ctx, count, true, w.customers...); err != nil {
		return done, err
	}
	if _, err := w.pool.Exec(ctx, `VACUUM ANALYZE bookings`); err != nil {
		return done, err
	}
	own, postgres, err := w.cpu(ctx)
	if err != nil {
		return done, err
	}
	start := time.Now()
	for decided := 0; decided < count; {
		n, err := a.Apply(ctx, term)
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, fmt.Errorf("%d of %d bookings were decided", decided, count)
		}
		decided += n
	}
	done.rate = float64(count) / time.Since(start).Seconds()
	if done.own, done.postgres, err = w.cpu(ctx); err != nil {
		return done, err
	}
	done.own, done.postgres = (done.own-own)/time.Duration(count), (done.postgres-postgres)/time.Duration(count)
	note("%d bookings of %d nodes at %.0f a second, %s", count, w.nodes, done.rate, done.cpu())
	return done, nil
}

// steady requests bookings at a rate and returns how long each took until its decision was announced.
func (w *world) steady(ctx context.Context, hub *pgnotify.Hub, rate float64) ([]time.Duration, error) {
	bookings, err := w.quote(ctx, int(rate*steadyFor.Seconds()), false, w.customers...)
	if err != nil {
		return nil, err
	}
	waiting := &waiting{since: make(map[string]time.Time, len(bookings))}
	decided, unsubscribe := hub.Subscribe(pgnotify.ChannelDecided)
	defer unsubscribe()
	done := make(chan struct{})
	defer close(done)
	go waiting.watch(decided, done)
	time.Sleep(settleTime) // until the hub listens
	start := time.Now()
	for sent := 0; sent < len(bookings); {
		if due := min(len(bookings), int(rate*time.Since(start).Seconds())); due > sent {
			if err := w.request(ctx, waiting, bookings[sent:due]); err != nil {
				return nil, err
			}
			sent = due
		}
		time.Sleep(tick)
	}
	for deadline := time.Now().Add(steadyFor); waiting.left() > 0; time.Sleep(tick) {
		if time.Now().After(deadline) {
			return nil, errors.New("bookings were not announced")
		}
	}
	return waiting.took, nil
}

// request accepts some quotes. Their own durability is not what is measured.
func (w *world) request(ctx context.Context, waiting *waiting, bookings []ids.Booking) error {
	waiting.add(bookings)
	_, err := w.pool.Exec(ctx, `WITH relaxed AS (SELECT set_config('synchronous_commit', 'off', true)), requested AS (
			UPDATE bookings SET requested_at = clock_timestamp() WHERE id = ANY ($1::uuid[]) RETURNING id)
		SELECT pg_notify('muster_bookings', ''), relaxed.* FROM relaxed, (SELECT count(*) FROM requested) AS r`, texts(bookings))
	return err
}

// waiting is what has been requested and not announced.
type waiting struct {
	mu    sync.Mutex
	since map[string]time.Time
	took  []time.Duration
}

func (w *waiting) add(bookings []ids.Booking) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, booking := range bookings {
		w.since[uuid.UUID(booking).String()] = time.Now()
	}
}

func (w *waiting) left() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.since)
}

func (w *waiting) watch(decided <-chan string, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case list := <-decided:
			w.announce(list, time.Now())
		}
	}
}

func (w *waiting) announce(list string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for booking := range strings.SplitSeq(list, ",") {
		if since, waits := w.since[booking]; waits {
			w.took = append(w.took, at.Sub(since))
			delete(w.since, booking)
		}
	}
}

func percentile(sorted []time.Duration, percent int) time.Duration {
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
