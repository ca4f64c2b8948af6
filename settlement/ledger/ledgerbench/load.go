package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/ledger"
)

const (
	hotPartners = 1000                 // accounts on the other side of the hot one
	tick        = 2 * time.Millisecond // of a load that comes at a rate
	warmUp      = time.Second
	patience    = 30 * time.Second // for calls that are in flight when a turn ends
)

// pair draws the two sides of a transfer, as numbers of accounts.
type pair func(accounts int) (from, to int)

func hot(accounts int) (from, to int) { return 0, 1 + rand.IntN(min(hotPartners, accounts-1)) } //nolint:gosec // a load, not a secret

func uniform(accounts int) (from, to int) {
	from = rand.IntN(accounts)                                 //nolint:gosec // a load, not a secret
	return from, (from + 1 + rand.IntN(accounts-1)) % accounts //nolint:gosec // a load, not a secret
}

func (w *world) run(ctx context.Context, rival *peer) error {
	var rate float64
	for _, part := range []struct {
		name string
		pair pair
	}{{"hot", hot}, {"uniform", uniform}} {
		if w.only != "" && w.only != part.name && (w.only != "wait" || part.name != "uniform") {
			continue
		}
		var err error
		if rate, err = w.compare(ctx, rival, part.name, part.pair); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if w.only != "" && w.only != "wait" {
		return nil
	}
	return w.wait(ctx, rate/2)
}

// compare lets both have their turns next to each other, in changing order, and prints what they did. A ratio is that of two turns of
// one round, which have seen the machine in the same state; the median of the rounds' ratios counts.
func (w *world) compare(ctx context.Context, rival *peer, name string, draw pair) (rate float64, err error) {
	type turn func(context.Context, pair, time.Duration) (float64, error)
	turns, names := []turn{w.flood}, []string{"muster", "pgledger", "pgledger in batches"}
	if rival != nil {
		turns = append(turns, rival.flood, rival.floodBatched)
	}
	rates := make([][]float64, len(turns))
	for round := range w.rounds {
		for i := range turns {
			if round%2 == 1 {
				i = len(turns) - 1 - i
			}
			rate, err := turns[i](ctx, draw, w.turn)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", names[i], err)
			}
			rates[i] = append(rates[i], rate)
		}
		note("%s, round %d of %d", name, round+1, w.rounds)
	}
	ours, beside := median(rates[0]), ""
	if rival != nil {
		ratios := make([]float64, w.rounds)
		for round := range ratios {
			ratios[round] = rates[0][round] / rates[1][round]
		}
		beside = fmt.Sprintf(" peer=pgledger-%.7s peer_value=%.1f ratio=%.2f ratio_min=%.2f ratio_max=%.2f peer_batched_per_s=%.0f",
			peerCommit, median(rates[1]), median(ratios), slices.Min(ratios), slices.Max(ratios), median(rates[2]))
	}
	figure("ledger_%s_per_s value=%.0f unit=transfers/s%s accounts=%d callers=%d rounds=%d",
		name, ours, beside, len(w.accounts), w.callers, w.rounds)
	return ours, nil
}

// flood posts as fast as the callers get their answers.
func (w *world) flood(ctx context.Context, pair pair, turn time.Duration) (rate float64, err error) {
	err = w.withCommitter(ctx, func(ctx context.Context, c *committer) error {
		rate, err = flood(ctx, w.callers, turn, func(ctx context.Context) (int, error) {
			from, to := pair(len(w.accounts))
			return 1, w.post(ctx, c, from, to)
		})
		return err
	})
	return rate, err
}

func (w *world) post(ctx context.Context, c *committer, from, to int) error {
	err := c.post(ctx, ledger.Entry{
		Key: "move:" + ids.New[ids.Booking]().String(), Kind: kindMove, // keys are made of ids, which are in order of time
		Legs: []ledger.Leg{{Debit: w.accounts[from], Credit: w.accounts[to], Amount: 1}},
	})
	if err == nil {
		w.posted.Add(1)
	}
	return err
}

// withCommitter runs a committer while do runs.
func (w *world) withCommitter(ctx context.Context, do func(context.Context, *committer) error) error {
	c := newCommitter(w.book, w.pool)
	running, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { c.run(running, w.streams) })
	err := do(ctx, c)
	stop()
	group.Wait()
	return err
}

// flood lets callers call one after another. What they complete between the warm-up and the end of the turn counts; all calls are
// answered before it returns, so that nothing is left over for the next turn.
func flood(ctx context.Context, callers int, turn time.Duration, call func(context.Context) (int, error)) (rate float64, err error) {
	begin := time.Now()
	from, until := begin.Add(warmUp), begin.Add(warmUp+turn)
	callCtx, cancel := context.WithDeadline(ctx, until.Add(patience))
	defer cancel()
	var done atomic.Int64
	group, callCtx := errgroup.WithContext(callCtx)
	for range callers {
		group.Go(func() error {
			for {
				transfers, err := call(callCtx)
				if err != nil {
					return err
				}
				now := time.Now()
				if !now.Before(until) {
					return nil
				}
				if !now.Before(from) {
					done.Add(int64(transfers))
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	if done.Load() == 0 {
		return 0, errors.New("nothing was posted")
	}
	return float64(done.Load()) / turn.Seconds(), nil
}

// wait measures single calls that come at a rate, whoever else waits.
func (w *world) wait(ctx context.Context, rate float64) error {
	var mu sync.Mutex
	var waits []time.Duration
	err := w.withCommitter(ctx, func(ctx context.Context, c *committer) error {
		var group errgroup.Group
		begin := time.Now()
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for sent := 0; time.Since(begin) < w.turn; {
			select {
			case <-ctx.Done():
				return errors.Join(ctx.Err(), group.Wait())
			case <-ticker.C:
			}
			for due := int(time.Since(begin).Seconds() * rate); sent < due; sent++ {
				group.Go(func() error {
					called := time.Now()
					from, to := uniform(len(w.accounts))
					if err := w.post(ctx, c, from, to); err != nil {
						return err
					}
					mu.Lock()
					defer mu.Unlock()
					waits = append(waits, time.Since(called))
					return nil
				})
			}
		}
		return group.Wait()
	})
	if err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	slices.Sort(waits)
	figure("ledger_post_p99_ms value=%.4g unit=ms p50=%.4g rate=%.0f posts=%d", milliseconds(waits, 99), milliseconds(waits, 50), rate, len(waits))
	return nil
}

// milliseconds is a percentile.
func milliseconds(sorted []time.Duration, percent int) float64 {
	return float64(sorted[min(len(sorted)*percent/100, len(sorted)-1)]) / float64(time.Millisecond)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func startProfile(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return file.Close()
	}, nil
}
