// Package market is where owners' asks and customers' wishes meet: offers, quotes, auctions, bookings, explanations and history.
//
// A quote is a row of bookings. It prices the cheapest plan of its moment and holds that price until it expires:
//
//	bidding --- the window closes with enough bids ---> quoted
//	bidding --- too few bids -------------------------> expired
//	quoted ---- accepted in time, placed, paid for ---> accepted (a cluster exists, or has more nodes or more time)
//	quoted ---- the same, for a later start ----------> scheduled --- its time comes --> accepted
//	quoted, scheduled --- gone or unaffordable -------> refused (with a code and details)
//	quoted ---- not accepted in time -----------------> expired
//	bidding, quoted, scheduled --- by the customer ---> cancelled
//
// Accepting only marks the row and wakes the applier, the one writer of leases; Accept then waits for its decision. Accepting
// twice gives the first outcome again: the quote's id is the idempotency key.
//
// What is priced is what package placement finds in the fleet's index, which the process keeps (Fleet) and this package only reads;
// every answer brings it up to date first. A refusal carries the explanation and, for a customer, the nearest bookings that fit, each
// stored as a quote: all of it comes from the same matcher.
//
// Run is the led part: it takes the bids of auctions, closes their windows and samples the market's history.
//
// Every method is scoped to an organisation, and another organisation's quote is not found. Errors are domain errors of package errs,
// fields named as in the API's documents. Service is safe for concurrent use; its only lock guards the names that it remembers.
package market

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// Fleet is the fleet as placement sees it. What Read gives may only be read, and only within the call.
type Fleet interface {
	Sync(ctx context.Context, db schedulerdb.DBTX) error
	Read(look func(*placement.Index))
}

// Refunds gives back what was held for a booking that does not begin, in the transaction that cancels it.
type Refunds interface {
	Release(ctx context.Context, tx pgx.Tx, org ids.Org, booking ids.Booking, amount money.Amount) error
}

// Fees says which share of what a customer pays is the platform's, for bookings that are quoted now; settlement keeps the schedule.
type Fees interface {
	FeeBps(ctx context.Context, db schedulerdb.DBTX, customer ids.Org) (basisPoints int, err error)
}

// FlatFee is one fee for everybody, at all times.
type FlatFee int

// FeeBps implements Fees.
func (f FlatFee) FeeBps(context.Context, schedulerdb.DBTX, ids.Org) (int, error) { return int(f), nil }

// Service answers for the market. Make it with New.
type Service struct {
	pool     *pgxpool.Pool
	queries  *schedulerdb.Queries
	hub      *pgnotify.Hub
	fleet    Fleet
	refunds  Refunds
	currency money.Currency
	fees     Fees
	ray      string // the version that new clusters run
	log      *slog.Logger
	names    names
}

// New makes the market of one currency, for clusters that run the given version of Ray.
func New(
	pool *pgxpool.Pool, hub *pgnotify.Hub, fleet Fleet, refunds Refunds, currency money.Currency, fees Fees, rayVersion string, log *slog.Logger,
) *Service {
	return &Service{
		pool: pool, queries: schedulerdb.New(), hub: hub, fleet: fleet, refunds: refunds, currency: currency, fees: fees, ray: rayVersion,
		log: log,
	}
}

// look brings the fleet up to date and reads it.
func (s *Service) look(ctx context.Context, read func(*placement.Index)) error {
	if err := s.fleet.Sync(ctx, s.pool); err != nil {
		return fmt.Errorf("read the fleet: %w", err)
	}
	s.fleet.Read(read)
	return nil
}

func (s *Service) clock(ctx context.Context) (time.Time, error) {
	now, err := s.queries.Clock(ctx, s.pool)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the clock: %w", err)
	}
	return now, nil
}

// amount writes money for people.
func (s *Service) amount(a money.Amount) string {
	return s.currency.Text(a)
}

func nullable[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}
