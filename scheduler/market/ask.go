package market

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

const (
	previewHours = 7 * 24
	previewPast  = 30 * 24 * time.Hour
	sampleSpan   = time.Hour // the most that one sample stands for: thinned history has one an hour
)

// Ask is an owner's price for the GPUs of one host.
type Ask struct {
	HostID    ids.Host
	Price     money.Amount // per GPU-hour, before the rules
	Floor     money.Amount // no rule goes below it; zero: none
	Rules     pricing.Rules
	Active    bool // takes new bookings
	UpdatedAt time.Time
	Now       [placement.Classes]money.Amount // what the rules make of the price at this moment
}

// AskPreview is what an ask would do.
type AskPreview struct {
	Now   [placement.Classes]money.Amount
	Hours []AskHour // the hourly price for each hour of the coming week, with the use of now
	Rank  int       // its place by hourly price among the open hosts of its model and region, the cheapest being 1
	Peers int       // how many those are, itself included
	Past  *AskPast  // nil without history
}

// AskHour is the price from an hour on.
type AskHour struct {
	At    time.Time
	Price money.Amount
}

// AskPast estimates what an ask would have earned, before the fee. In each sample the host counts as hired if no GPU was free, or if
// its price would have been below that of every free one: then somebody would have taken it instead of what was hired.
type AskPast struct {
	Sampled  time.Duration // what is known of the last 30 days
	Earned   money.Amount
	HiredBps int // of the sampled time
}

func (s *Service) validateAsk(ask Ask) error {
	switch {
	case ask.Price <= 0 || ask.Price > maxPrice:
		return errs.InvalidField("price_per_gpu_hour", "a price is above zero and at most %s", s.amount(maxPrice))
	case ask.Floor < 0 || ask.Floor > ask.Price:
		return errs.InvalidField("floor", "the floor is not above the price: it is what the rules may not go below")
	}
	return ask.Rules.Validate()
}

// SetAsk sets an owner's price and rules for one host's GPUs, all of it.
func (s *Service) SetAsk(ctx context.Context, org ids.Org, host ids.Host, ask Ask) error {
	if err := s.validateAsk(ask); err != nil {
		return err
	}
	rules, err := json.Marshal(ask.Rules)
	if err != nil {
		return err
	}
	changed, err := s.queries.UpsertAsk(ctx, s.pool, schedulerdb.UpsertAskParams{
		ID: ids.New[ids.Ask](), HostID: host, OrgID: org, PricePerGPUHour: ask.Price, FloorPerGPUHour: nullable(int64(ask.Floor)),
		Rules: rules, Active: ask.Active,
	})
	if err != nil {
		return fmt.Errorf("store ask: %w", err)
	}
	if changed == 0 {
		return noHost(host)
	}
	return nil
}

func noHost(host ids.Host) error { return errs.New(errs.NotFound, "there is no GPU host %s", host) }

// Asks returns an owner's asks by host.
func (s *Service) Asks(ctx context.Context, org ids.Org) (map[ids.Host]Ask, error) {
	rows, err := s.queries.AsksOf(ctx, s.pool, org)
	if err != nil {
		return nil, fmt.Errorf("read asks: %w", err)
	}
	use, err := s.utilisation(ctx, s.pool)
	if err != nil {
		return nil, err
	}
	asks := make(map[ids.Host]Ask, len(rows))
	for _, row := range rows {
		ask := Ask{
			HostID: row.Ask.HostID, Price: row.Ask.PricePerGPUHour, Active: row.Ask.Active, UpdatedAt: row.Ask.UpdatedAt,
		}
		if floor := row.Ask.FloorPerGPUHour; floor != nil {
			ask.Floor = money.Amount(*floor)
		}
		if err := json.Unmarshal(row.Ask.Rules, &ask.Rules); err != nil {
			return nil, fmt.Errorf("read the rules of %s: %w", ask.HostID, err)
		}
		ask.Now = pricing.Effective(ask.Price, ask.Floor, ask.Rules, row.Now, use.of(row.Model, row.Region))
		asks[ask.HostID] = ask
	}
	return asks, nil
}

// PreviewAsk says what an ask would do, and stores nothing.
func (s *Service) PreviewAsk(ctx context.Context, org ids.Org, host ids.Host, ask Ask) (AskPreview, error) {
	if err := s.validateAsk(ask); err != nil {
		return AskPreview{}, err
	}
	row, err := s.queries.AskingHost(ctx, s.pool, host, org)
	if errors.Is(err, pgx.ErrNoRows) {
		return AskPreview{}, noHost(host)
	}
	if err != nil {
		return AskPreview{}, fmt.Errorf("read host: %w", err)
	}
	use, err := s.utilisation(ctx, s.pool)
	if err != nil {
		return AskPreview{}, err
	}
	bps := use.of(row.Model, row.Region)
	preview := AskPreview{Now: pricing.Effective(ask.Price, ask.Floor, ask.Rules, row.Now, bps), Hours: ask.week(row.Now, bps)}
	err = s.look(ctx, func(x *placement.Index) {
		preview.Rank, preview.Peers = rank(x, host, row.Model, row.Region, preview.Now[placement.Hourly])
	})
	if err != nil {
		return AskPreview{}, err
	}
	preview.Past, err = s.past(ctx, ask, row)
	return preview, err
}

func (ask Ask) week(now time.Time, bps int) []AskHour {
	hours := make([]AskHour, previewHours)
	first := now.UTC().Truncate(time.Hour)
	for i := range hours {
		at := first.Add(time.Duration(i) * time.Hour)
		hours[i] = AskHour{at, pricing.Effective(ask.Price, ask.Floor, ask.Rules, at, bps)[placement.Hourly]}
	}
	return hours
}

func rank(x *placement.Index, host ids.Host, model, region string, price money.Amount) (rank, peers int) {
	rank, peers = 1, 1
	for h := range x.All() {
		if h.ID == host || !h.Open || h.Model != model || h.Region != region {
			continue
		}
		peers++
		if h.Prices[placement.Hourly] < price {
			rank++
		}
	}
	return rank, peers
}

func (s *Service) past(ctx context.Context, ask Ask, host schedulerdb.AskingHostRow) (*AskPast, error) {
	samples, err := s.queries.Samples(ctx, s.pool, host.Model, host.Region, host.Now.Add(-previewPast))
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	if len(samples) == 0 {
		return nil, nil //nolint:nilnil // no history is no answer
	}
	var hired time.Duration
	var past AskPast
	for i, sample := range samples {
		until := host.Now
		if i+1 < len(samples) {
			until = samples[i+1].At
		}
		span := min(until.Sub(sample.At), sampleSpan)
		past.Sampled += span
		price := ask.at(sample)
		if sample.PriceMin > 0 && price > money.Amount(sample.PriceMin) {
			continue
		}
		hired += span
		past.Earned += money.Amount(host.GPUs) * money.Accrued(price, span.Milliseconds())
	}
	past.HiredBps = int(hired.Milliseconds() * 10_000 / max(past.Sampled.Milliseconds(), 1))
	return &past, nil
}

// at is the hourly price that the ask had made when a sample was taken.
func (ask Ask) at(sample schedulerdb.SamplesRow) money.Amount {
	bps := pricing.UtilisationUnknown
	if sample.GPUs > 0 {
		bps = int(sample.Leased) * 10_000 / int(sample.GPUs)
	}
	return pricing.Effective(ask.Price, ask.Floor, ask.Rules, sample.At, bps)[placement.Hourly]
}
