package market

import (
	"context"
	"time"
)

const (
	auctionInterval = 250 * time.Millisecond // a window closes at most this much late
	sampleInterval  = 20 * time.Second       // below a minute, so that no minute is left out
	thinInterval    = time.Hour
	workTimeout     = 10 * time.Second
)

// Run does the market's led work under one term of leadership until ctx ends; what fails is tried again at its next turn. The error is
// always nil; it is there for leader.Elector.
func (s *Service) Run(ctx context.Context, term int64) error {
	auctions, samples, thinning := time.NewTicker(auctionInterval), time.NewTicker(sampleInterval), time.NewTicker(thinInterval)
	defer auctions.Stop()
	defer samples.Stop()
	defer thinning.Stop()
	s.try(ctx, term, s.Sample)
	s.try(ctx, term, s.Thin)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-auctions.C:
			s.try(ctx, term, s.Auctions)
		case <-samples.C:
			s.try(ctx, term, s.Sample)
		case <-thinning.C:
			s.try(ctx, term, s.Thin)
		}
	}
}

func (s *Service) try(ctx context.Context, term int64, work func(context.Context, int64) error) {
	bounded, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	if err := work(bounded, term); err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "the market's work failed, it will be tried again", "error", err)
	}
}
