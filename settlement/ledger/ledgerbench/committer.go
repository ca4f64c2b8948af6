package main

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/settlement/ledger"
)

// committer commits for many callers at a time, as the applier does for bookings: what waits is posted by one PostEach, and each caller
// has its own answer once that is durable. Several streams do so next to each other, each with accounts that no other stream has in
// hand; entries of accounts that are in hand wait. Where nothing else is left, as with one hot account, a stream takes what there is, and
// its transaction is begun when the other one's lock goes.
type committer struct {
	book *ledger.Ledger
	pool *pgxpool.Pool

	mu      sync.Mutex
	wake    sync.Cond
	stopped bool
	waiting []*call                // oldest first
	inHand  map[ledger.Account]int // how many transactions in flight touch it
}

type call struct {
	entry ledger.Entry
	done  chan error
}

func newCommitter(book *ledger.Ledger, pool *pgxpool.Pool) *committer {
	c := &committer{book: book, pool: pool, inHand: map[ledger.Account]int{}}
	c.wake.L = &c.mu
	return c
}

// post returns once the entry is durable, or refused.
func (c *committer) post(ctx context.Context, e ledger.Entry) error {
	waits := &call{entry: e, done: make(chan error, 1)}
	c.mu.Lock()
	c.waiting = append(c.waiting, waits)
	c.mu.Unlock()
	c.wake.Signal()
	select {
	case err := <-waits.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run commits on some streams until ctx ends.
func (c *committer) run(ctx context.Context, streams int) {
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stopped = true
		c.wake.Broadcast()
	})()
	var group sync.WaitGroup
	for range streams {
		group.Go(func() {
			for batch := c.take(); len(batch) > 0; batch = c.take() {
				errs := c.commit(context.WithoutCancel(ctx), batch)
				c.release(batch)
				for i, call := range batch {
					call.done <- errs[i]
				}
			}
		})
	}
	group.Wait()
}

// take waits for calls and takes up to a transaction's worth of them into its hand; none when the committer is stopped.
func (c *committer) take() []*call {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.waiting) == 0 && !c.stopped {
		c.wake.Wait()
	}
	if c.stopped {
		return nil
	}
	batch, rest := make([]*call, 0, min(len(c.waiting), ledger.MaxEntries)), make([]*call, 0, len(c.waiting))
	for _, call := range c.waiting {
		if len(batch) < ledger.MaxEntries && c.isFree(call) {
			batch = append(batch, call)
		} else {
			rest = append(rest, call)
		}
	}
	if len(batch) == 0 {
		batch, rest = rest[:min(len(rest), ledger.MaxEntries)], rest[min(len(rest), ledger.MaxEntries):]
	}
	c.waiting = rest
	c.count(batch, 1)
	return batch
}

func (c *committer) isFree(call *call) bool {
	leg := call.entry.Legs[0]
	return c.inHand[leg.Debit] == 0 && c.inHand[leg.Credit] == 0
}

func (c *committer) release(batch []*call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count(batch, -1)
}

func (c *committer) count(batch []*call, by int) {
	for _, call := range batch {
		for _, account := range []ledger.Account{call.entry.Legs[0].Debit, call.entry.Legs[0].Credit} {
			if c.inHand[account] += by; c.inHand[account] == 0 {
				delete(c.inHand, account)
			}
		}
	}
}

// commit says what became of each call: durable, refused, or failed with all others.
func (c *committer) commit(ctx context.Context, batch []*call) []error {
	entries, errs := make([][]ledger.Entry, len(batch)), make([]error, len(batch))
	for i, call := range batch {
		entries[i] = []ledger.Entry{call.entry}
	}
	var results []ledger.Result
	err := pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) (err error) {
		results, err = c.book.PostEach(ctx, tx, entries)
		return err
	})
	for i := range errs {
		if errs[i] = err; err == nil {
			errs[i] = results[i].Err
		}
	}
	return errs
}
