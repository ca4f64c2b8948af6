package payouts

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
)

// Steps at which tests stop a worker.
const (
	stepClaimed       = "claimed"
	stepMessageStored = "message stored"
	stepSignatureHad  = "signature had"
	stepBytesStored   = "bytes stored"
	stepSent          = "sent"
	stepMarkedSent    = "marked sent"
	stepResolved      = "resolved"

	stepCancelStored   = "cancellation stored"
	stepCancelSigned   = "cancellation signed"
	stepCancelSent     = "cancellation sent"
	stepCancelResolved = "cancellation resolved"
)

// Bounds of what is under way.
const (
	together     = 64 // batches that take a step in one transaction, and in one call of the signer
	groupsAtOnce = 3  // groups on the way from approved to sent: one is built, one signed and one sent
)

// Steps names the places at which Options.Failpoint can stop a worker, in the order of a batch's life.
func Steps() []string {
	return []string{stepClaimed, stepMessageStored, stepSignatureHad, stepBytesStored, stepSent, stepMarkedSent, stepResolved}
}

// CancelSteps are those of a batch that is cancelled after it was signed.
func CancelSteps() []string {
	return []string{stepClaimed, stepCancelStored, stepCancelSigned, stepCancelSent, stepCancelResolved}
}

// killedError is what a failpoint returns: the worker stops as if it had been killed.
type killedError struct{ step string }

func (e *killedError) Error() string { return "killed at: " + e.step }

// Run drives all batches and runs until ctx ends, under a term of the settlement lead. It returns nil at the end of ctx and ErrDeposed
// when the term has passed. Errors of single batches are logged and shown with the batch; the batch is tried again.
func (s *Service) Run(ctx context.Context, term int64) error {
	ctx, cancel := context.WithCancel(ctx)
	var drafting sync.WaitGroup
	defer drafting.Wait()
	defer cancel()
	drafting.Go(func() { s.keepDrafting(ctx) })
	return s.drive(ctx, term)
}

// drive runs the lanes in which batches move: until they are sent, from there to their end, and those that are to be cancelled.
func (s *Service) drive(ctx context.Context, term int64) error {
	lanes, ctx := errgroup.WithContext(ctx)
	pays, retires := make(chan struct{}, 1), make(chan struct{}, 1)
	lanes.Go(func() error {
		s.ring(ctx, pays, retires)
		return nil
	})
	slots := make(chan struct{}, groupsAtOnce)
	lanes.Go(func() error {
		return s.lane(ctx, pays, func() (bool, error) { return s.payNext(ctx, term, lanes, slots) })
	})
	lanes.Go(func() error { return s.lane(ctx, nil, func() (bool, error) { return s.watch(ctx, term) }) })
	lanes.Go(func() error { return s.lane(ctx, retires, func() (bool, error) { return s.retireNext(ctx, term) }) })
	return lanes.Wait()
}

// ring passes on that something may be due, to each lane once however often it is said.
func (s *Service) ring(ctx context.Context, bells ...chan<- struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-s.options.Wake:
			if !open {
				return // whoever signalled has stopped; polling goes on
			}
		}
		for _, bell := range bells {
			select {
			case bell <- struct{}{}:
			default:
			}
		}
	}
}

// lane works until ctx ends: on and on while there is work, and otherwise now and then, or when the bell rings. It returns the error
// that ends the whole worker, if there is one.
func (s *Service) lane(ctx context.Context, bell <-chan struct{}, work func() (worked bool, err error)) error {
	ticker := time.NewTicker(s.options.Poll)
	defer ticker.Stop()
	for {
		worked, err := work()
		switch {
		case ctx.Err() != nil:
			return nil
		case endsWorker(err):
			return err
		case err != nil:
			s.log.WarnContext(ctx, "payouts cannot be driven", "error", err)
		case worked:
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-bell:
		}
	}
}

// endsWorker tells a worker that must stop from one that goes on.
func endsWorker(err error) bool {
	var killed *killedError
	return errors.As(err, &killed) || errors.Is(err, ErrDeposed)
}

// keepDrafting begins and goes on with runs, and looks after the nonces. Two processes at once do no harm: a run is claimed, and the
// schema allows one of each.
func (s *Service) keepDrafting(ctx context.Context) {
	ticker := time.NewTicker(s.options.Poll)
	defer ticker.Stop()
	var watched time.Time
	for {
		if err := s.driveRuns(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "payout runs cannot be driven", "error", err)
		}
		if now := time.Now(); now.Sub(watched) >= nonceInterval {
			watched = now
			if err := s.watchNonces(ctx); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "nonces cannot be read", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// retireNext claims batches that are to be cancelled, and takes each one step on.
func (s *Service) retireNext(ctx context.Context, term int64) (worked bool, err error) {
	claimed, err := s.claim(ctx, term, `state = 'cancelling' OR (state = 'frozen' AND cancel_asked_at IS NOT NULL AND nonce_changed_at IS NULL)`)
	if err != nil || len(claimed) == 0 {
		return false, err
	}
	batches, err := s.loadAll(ctx, claimed)
	if err != nil {
		return false, err
	}
	return true, s.each(ctx, batches, func(ctx context.Context, b *work) error {
		ctx, cancel := context.WithTimeout(ctx, stepTimeout)
		defer cancel()
		if err := s.at(stepClaimed); err != nil {
			return err
		}
		if b.state != stateCancelling && b.state != stateFrozen {
			return nil // it moved on before it was read
		}
		return s.holdUp(ctx, term, []*work{b}, s.retire(ctx, term, b))
	})
}

// each does something with each batch, with a few at the same time. It returns the first error.
func (s *Service) each(ctx context.Context, batches []*work, do func(ctx context.Context, b *work) error) error {
	several, ctx := errgroup.WithContext(ctx)
	several.SetLimit(s.options.Concurrency)
	for _, b := range batches {
		several.Go(func() error { return do(ctx, b) })
	}
	return several.Wait()
}

// holdUp says with the batches what holds them up, and lets them be tried again later. It returns an error that ends the worker.
func (s *Service) holdUp(ctx context.Context, term int64, batches []*work, err error) error {
	switch {
	case err == nil || len(batches) == 0:
		return nil
	case endsWorker(err):
		return err
	case errors.Is(err, errLostClaim):
		s.log.InfoContext(ctx, "batch moved on elsewhere", "batch_id", batches[0].id)
		return nil
	case errors.Is(ctx.Err(), context.Canceled):
		return nil // the worker stops: who comes after it finds them as they are
	}
	for _, b := range batches {
		s.log.WarnContext(ctx, "batch is held up", "batch_id", b.id, "state", b.state, "error", err, "alarm", chain.IsAlarm(err))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTimeout) // the step may have used up its own time
	defer cancel()
	releaseErr := s.release(ctx, term, batches, s.options.Retry, inWords(err))
	if releaseErr != nil && !endsWorker(releaseErr) {
		s.log.WarnContext(ctx, "batches stay claimed for a while", "batches", len(batches), "error", releaseErr)
		return nil
	}
	return releaseErr
}

// inWords is what people are shown of an error that holds a batch up; the rest is in the log.
func inWords(err error) string {
	var trial *trialError
	var refused *chain.RPCError
	switch {
	case errors.As(err, &trial):
		return trial.Error()
	case errors.Is(err, chain.ErrDisagree):
		return chain.ErrDisagree.Error() + " about this batch: nothing is concluded until they agree"
	case errors.As(err, &refused):
		return "the chain's endpoint refused: " + refused.Error()
	case errors.Is(err, signer.ErrUnavailable):
		return signer.ErrUnavailable.Error()
	case errors.Is(err, chain.ErrUnavailable):
		return chain.ErrUnavailable.Error()
	default:
		return "an internal error, which the log describes"
	}
}

func (s *Service) at(step string) error {
	if err := s.failpoint(step); err != nil {
		return &killedError{step: step}
	}
	return nil
}
