package market

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market/query"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

const (
	historyKept    = 90 * 24 * time.Hour
	historyFine    = 24 * time.Hour     // a sample a minute; older: one an hour
	historyThinned = 8 * 24 * time.Hour // how far back samples are thinned
	historySpan    = 24 * time.Hour     // when none is asked for
	maxPoints      = 2000
	aimedPoints    = 200
	minStep        = time.Minute
)

// HistoryPoint is one step of a model's history.
type HistoryPoint struct {
	At          time.Time    // the step's beginning
	GPUs        int          // offered, leased ones included
	Leased      int          // both as the step's mean
	PriceMin    money.Amount // of free GPUs, per hour; zero without one
	PriceMedian money.Amount
}

// History is how the prices and the use of a model went, in a region or in all of them together, in [from, to). A zero from or to is
// the last day, a zero step one that gives some 200 points. Steps without a sample are left out.
func (s *Service) History(ctx context.Context, model, region string, from, to time.Time, step time.Duration) ([]HistoryPoint, error) {
	now, err := s.clock(ctx)
	if err != nil {
		return nil, err
	}
	if to.IsZero() {
		to = now
	}
	if from.IsZero() {
		from = to.Add(-historySpan)
	}
	if step == 0 {
		step = stepFor(to.Sub(from))
	}
	if err := validateHistory(model, from, to, step); err != nil {
		return nil, err
	}
	from = from.UTC().Truncate(step)
	rows, err := s.queries.MarketHistory(ctx, s.pool, schedulerdb.MarketHistoryParams{
		Step: step, Origin: from, GPUModel: model, AnyRegion: region == "", Region: region, Since: from, Until: to,
	})
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	points := make([]HistoryPoint, len(rows))
	for i, row := range rows {
		points[i] = HistoryPoint{
			At: row.At, GPUs: int(row.GPUs), Leased: int(row.Leased), PriceMin: money.Amount(row.PriceMin), PriceMedian: money.Amount(row.PriceMedian),
		}
	}
	return points, nil
}

// stepFor is a round step that divides a span into about as many points as are aimed for.
func stepFor(span time.Duration) time.Duration {
	for _, step := range []time.Duration{minStep, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour} {
		if span/step <= aimedPoints {
			return step
		}
	}
	return 24 * time.Hour
}

func validateHistory(model string, from, to time.Time, step time.Duration) error {
	switch {
	case model == "":
		return errs.InvalidField("gpu_model", "name a GPU model, such as H100")
	case !from.Before(to):
		return errs.InvalidField("from", "the history ends before it begins: from is before to")
	case step < minStep:
		return errs.InvalidField("step", "a step is at least %s, not %s", minStep, step)
	case to.Sub(from)/step > maxPoints:
		return errs.InvalidField("step", "that would be more than %d steps: take longer ones", maxPoints)
	}
	return nil
}

// Sample writes what the market is like into its history, once a minute however often it is called. It is the leader's to call.
func (s *Service) Sample(ctx context.Context, term int64) error {
	var shelves map[[2]string]*shelf
	if err := s.look(ctx, func(x *placement.Index) { shelves = gather(x, query.Filter{}, s.ray) }); err != nil {
		return err
	}
	samples := sample(shelves)
	return s.led(ctx, term, func(tx pgx.Tx) error {
		if err := s.queries.InsertSamples(ctx, tx, samples); err != nil {
			return fmt.Errorf("store the sample: %w", err)
		}
		return nil
	})
}

// sample is what is offered by model and region, as rows.
func sample(shelves map[[2]string]*shelf) (p schedulerdb.InsertSamplesParams) {
	for _, shelf := range shelves {
		o := shelf.total()
		p.Models, p.Regions = append(p.Models, o.GPUModel), append(p.Regions, o.Region)
		p.GPUs, p.Leased = append(p.GPUs, int32(o.TotalGPUs)), append(p.Leased, int32(shelf.leased))
		p.PriceMins, p.PriceMedians = append(p.PriceMins, int64(o.PriceFrom)), append(p.PriceMedians, int64(o.PriceMedian))
	}
	return p
}

// Thin drops history that is too old, and all but one sample an hour of what is older than a day. It is the leader's to call.
func (s *Service) Thin(ctx context.Context, term int64) error {
	return s.led(ctx, term, func(tx pgx.Tx) error {
		if _, err := s.queries.DropSamples(ctx, tx, historyKept); err != nil {
			return fmt.Errorf("drop old samples: %w", err)
		}
		if _, err := s.queries.ThinSamples(ctx, tx, historyFine, historyThinned); err != nil {
			return fmt.Errorf("thin samples: %w", err)
		}
		return nil
	})
}
