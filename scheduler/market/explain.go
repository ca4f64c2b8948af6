package market

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
)

// Change is a booking near the one that was asked for, and it fits.
type Change struct {
	Kind      string // region, gpu_model, gpus_per_node, node_count, later, price, network, constraint; combination of two
	Summary   string
	Spec      Spec // the whole of it, changed
	Lines     []Line
	PerHour   money.Amount // of the whole cluster
	QuoteID   ids.Booking  // accept it to book the change; zero for anonymous callers
	ExpiresAt *time.Time   // of the quote
}

// NoMatch is the details of a NoCapacity error: what blocks, and what would fit.
type NoMatch struct {
	placement.Explanation
	Changes []Change
}

// Explain says what each condition of a spec leaves of the fleet, whether or not it fits, and what would fit if it does not.
func (s *Service) Explain(ctx context.Context, spec Spec) (placement.Explanation, []Change, error) {
	request, now, err := s.prepare(ctx, &spec)
	if err != nil {
		return placement.Explanation{}, nil, err
	}
	explanation, nearest := s.explain(spec, request, now)
	changes := make([]Change, len(nearest))
	for i, change := range nearest {
		changes[i], _ = s.changeOf(spec, request, change)
	}
	return explanation, changes, nil
}

func (s *Service) explain(spec Spec, request placement.Request, now time.Time) (explanation placement.Explanation, nearest []placement.Change) {
	s.fleet.Read(func(x *placement.Index) {
		explanation = x.Explain(request)
		if explanation.Blocking == "" {
			return
		}
		for _, change := range x.Nearest(request, now.Unix()) {
			if change.Request.Start == 0 || spec.Kind != KindSpot { // spot bookings start at once
				nearest = append(nearest, change)
			}
		}
	})
	return explanation, nearest
}

// noMatch is the refusal of a spec that nothing fits. For a customer every change of it is stored as a quote.
func (s *Service) noMatch(ctx context.Context, who asker, spec Spec, request placement.Request, now time.Time) error {
	details := NoMatch{}
	var nearest []placement.Change
	details.Explanation, nearest = s.explain(spec, request, now)
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		for _, near := range nearest {
			change, quote := s.changeOf(spec, request, near)
			stored, err := s.store(ctx, tx, who, quote, quoteLifetime)
			if err != nil {
				return err
			}
			change.QuoteID, change.ExpiresAt = stored.ID, &stored.ExpiresAt
			details.Changes = append(details.Changes, change)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.refuse(details)
}

func (s *Service) refuse(details NoMatch) error {
	summary := details.Summary
	if len(details.Changes) > 0 {
		near := details.Changes[0]
		summary = fmt.Sprintf("%s. The nearest that fits: %s, for %s an hour.", strings.TrimSuffix(summary, "."), near.Summary, s.amount(near.PerHour))
	}
	return errs.New(errs.NoCapacity, "%s", summary).WithDetails(details)
}

// changeOf prices a change of placement's as a quote of a spec.
func (s *Service) changeOf(spec Spec, asked placement.Request, near placement.Change) (Change, Quote) {
	spec = changedSpec(spec, asked, near.Request)
	quote := quoteOf(spec, near.Request, near.Plan)
	summary := near.Summary
	if near.Request.Start != asked.Start {
		summary = "From " + spec.StartsAt.Format("2 January 15:04 MST")
	}
	return Change{Kind: near.Kind, Summary: summary, Spec: spec, Lines: quote.Lines, PerHour: quote.PerHour()}, quote
}

// changedSpec is the spec whose request is the changed one. What was to be an auction is offered at the asked prices: they are known.
func changedSpec(spec Spec, asked, r placement.Request) Spec {
	if spec.Kind == KindAuction {
		spec.Kind, spec.Window, spec.Choose = KindMarket, 0, ""
	}
	spec.GPUModel, spec.MinMemoryMiB, spec.MinCompute = r.Model, r.MinMemoryMiB, r.MinCompute
	spec.Nodes, spec.GPUsPerNode, spec.Regions = r.Nodes, r.GPUsPerNode, r.Regions
	spec.SameSite, spec.MaxRTT = r.SameSite, r.MaxRTT
	spec.CPUs, spec.MemoryBytes, spec.DiskBytes, spec.MinDriver = r.CPUs, r.MemoryBytes, r.DiskBytes, r.MinDriver
	spec.MinReliability, spec.MinTier = r.MinReliability, r.MinTier
	spec.AllowOwners, spec.DenyOwners, spec.MaxPrice = r.AllowOwners, r.DenyOwners, r.MaxPrice
	if r.Start != asked.Start {
		spec.StartsAt = time.Time{}
		if r.Start != 0 {
			spec.StartsAt = time.Unix(r.Start, 0).UTC()
		}
	}
	return spec
}
