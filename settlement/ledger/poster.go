package ledger

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	maxQueue       = 8192             // calls that wait for a transaction; more wait to be let in
	defaultStreams = 2                // transactions at a time: one is decided and sent while the other is made durable
	commitTimeout  = 30 * time.Second // of one transaction, its waits for locks included
	commitAttempts = 3                // of a single call that loses a deadlock
)

// Beginner begins transactions; a pool does.
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// Poster posts for many callers and commits their entries together: up to MaxEntries share a transaction, in which each account is
// locked and written once. Each call is decided as if it had come alone, after those before it, and returns once it is durable.
// Make it with NewPoster. It is safe for concurrent use, and posts while Run runs.
type Poster struct {
	ledger  *Ledger
	db      Beginner
	log     *slog.Logger
	streams int
	queue   chan *call
	stopped chan struct{}
}

// call is one Post on its way.
type call struct {
	*group
	done chan error // one error, nil where the group has the result
}

// NewPoster makes a poster that uses up to streams connections at a time; zero is the usual number.
func NewPoster(l *Ledger, db Beginner, streams int, log *slog.Logger) *Poster {
	if streams <= 0 {
		streams = defaultStreams
	}
	return &Poster{ledger: l, db: db, log: log, streams: streams, queue: make(chan *call, maxQueue), stopped: make(chan struct{})}
}

// Post posts entries, all or none, and returns their ids once they are durable. Its refusals are those of PostAll. When ctx ends first, or
// on errs.Unavailable, the entries may or may not be posted; the same call again says which, and never posts twice.
func (p *Poster) Post(ctx context.Context, entries ...Entry) ([]ids.Entry, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	if len(entries) > MaxEntries {
		return nil, errs.New(errs.TooLarge, "%d entries at once, at most %d are possible", len(entries), MaxEntries)
	}
	g, err := p.ledger.group(entries)
	if err != nil {
		return nil, err
	}
	c := &call{group: g, done: make(chan error, 1)}
	select {
	case p.queue <- c:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.stopped:
		return nil, errStopped()
	}
	select {
	case err = <-c.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.stopped:
		select {
		case err = <-c.done:
		default:
			err = errStopped()
		}
	}
	if err != nil {
		return nil, err
	}
	return c.result()
}

func errStopped() *errs.Error {
	return errs.New(errs.Unavailable, "the ledger is being stopped and takes no entries: try again")
}

// Run posts until ctx ends; what has begun by then is finished, what waits is refused. It runs once.
func (p *Poster) Run(ctx context.Context) error {
	defer close(p.stopped)
	var group errgroup.Group
	for range p.streams {
		group.Go(func() error {
			p.stream(ctx)
			return nil
		})
	}
	return group.Wait()
}

// stream commits one batch after another.
func (p *Poster) stream(ctx context.Context) {
	var next *call
	for {
		if next == nil {
			select {
			case <-ctx.Done():
				return
			case next = <-p.queue:
			}
		}
		var batch []*call
		batch, next = p.gather(next)
		p.commit(context.WithoutCancel(ctx), batch)
		if ctx.Err() != nil {
			return
		}
	}
}

// gather takes what waits, as far as it fits into a transaction; the first that does not is for the next one.
func (p *Poster) gather(first *call) (batch []*call, next *call) {
	batch = []*call{first}
	for entries := len(first.drafts); ; {
		select {
		case c := <-p.queue:
			if entries += len(c.drafts); entries > MaxEntries {
				return batch, c
			}
			batch = append(batch, c)
		default:
			return batch, nil
		}
	}
}

// commit posts calls in one transaction and answers them. Where the database refuses the whole, halves find the one that it is about.
func (p *Poster) commit(ctx context.Context, calls []*call) {
	err := p.try(ctx, calls)
	for attempt := 1; len(calls) == 1 && attempt < commitAttempts && isTransient(err); attempt++ {
		err = p.try(ctx, calls)
	}
	if err != nil && len(calls) > 1 && isDecided(err) {
		p.log.WarnContext(ctx, "entries are posted in smaller groups", "calls", len(calls), "error", err)
		half := len(calls) / 2
		p.commit(ctx, calls[:half])
		p.commit(ctx, calls[half:])
		return
	}
	if err != nil && !isDecided(err) {
		p.log.ErrorContext(ctx, "entries are not posted for all one knows", "calls", len(calls), "error", err)
		err = errs.New(errs.Unavailable, "the ledger's database does not answer: try again, which posts nothing twice")
	}
	for _, c := range calls {
		c.done <- err
	}
}

// isTransient reports whether the same transaction may pass at another try.
func isTransient(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40P01" || pg.Code == "40001")
}

// isDecided reports whether the database has refused a transaction, rather than been lost with it.
func isDecided(err error) bool {
	var pg *pgconn.PgError
	var refusal *errs.Error
	return errors.As(err, &refusal) || errors.As(err, &pg)
}

func (p *Poster) try(ctx context.Context, calls []*call) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	groups := make([]*group, len(calls))
	for i, c := range calls {
		c.err = nil
		groups[i] = c.group
	}
	return pgx.BeginFunc(ctx, p.db, func(tx pgx.Tx) error { return p.ledger.postGroups(ctx, tx, groups) })
}
