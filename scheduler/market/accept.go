package market

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

const (
	acceptTimeout = 10 * time.Second
	acceptPoll    = 250 * time.Millisecond
	maxPage       = 200
)

// AcceptOptions go with an acceptance.
type AcceptOptions struct {
	ClusterName string
	BidIDs      []ids.Bid // auctions whose bids are chosen by hand: one bid for each node; without any, the quoted ones
}

// GetQuote returns a quote, whatever became of it.
func (s *Service) GetQuote(ctx context.Context, org ids.Org, id ids.Booking) (Quote, error) {
	row, err := s.queries.GetBooking(ctx, s.pool, id, org)
	if errors.Is(err, pgx.ErrNoRows) {
		return Quote{}, noQuote(id)
	}
	if err != nil {
		return Quote{}, fmt.Errorf("read quote: %w", err)
	}
	return quoteFromRow(row.Booking, row.ClusterID, row.ReadAt)
}

func noQuote(id ids.Booking) error { return errs.New(errs.NotFound, "there is no quote %s", id) }

// Bookings lists an organisation's bookings in a state, newest first, from before an id on. Without a state they are those that were
// accepted or are auctions: not every quote that was looked at.
func (s *Service) Bookings(ctx context.Context, org ids.Org, state string, before ids.Booking, limit int) ([]Quote, error) {
	rows, err := s.queries.ListBookings(ctx, s.pool, schedulerdb.ListBookingsParams{
		OrgID: org, AnyState: state == "", State: state, Before: uuid.NullUUID{UUID: uuid.UUID(before), Valid: !before.IsZero()},
		Page: int32(min(max(limit, 1), maxPage)),
	})
	if err != nil {
		return nil, fmt.Errorf("list bookings: %w", err)
	}
	quotes := make([]Quote, len(rows))
	for i, row := range rows {
		if quotes[i], err = quoteFromRow(row.Booking, row.ClusterID, row.ReadAt); err != nil {
			return nil, err
		}
	}
	return quotes, nil
}

// Accept books a quote and waits for the decision: accepted, or scheduled for its start. Refusals come back as errors: Expired,
// NoCapacity, InsufficientFunds; Conflict while an auction still takes bids; Unavailable means that it is still undecided and may be
// asked for again.
func (s *Service) Accept(ctx context.Context, org ids.Org, id ids.Booking, options AcceptOptions) (Quote, error) {
	decided, unsubscribe := s.hub.Subscribe(pgnotify.ChannelDecided)
	defer unsubscribe()
	if err := s.request(ctx, org, id, options); err != nil {
		return Quote{}, err
	}
	bound := time.NewTimer(acceptTimeout)
	defer bound.Stop()
	poll := time.NewTicker(acceptPoll)
	defer poll.Stop()
	for {
		quote, err := s.GetQuote(ctx, org, id)
		if err != nil {
			return Quote{}, err
		}
		if quote.State != stateQuoted {
			return quote, quote.outcome()
		}
		if !worthReading(ctx, id, decided, poll.C, bound.C) {
			return Quote{}, errs.New(errs.Unavailable, "the scheduler has not decided on %s yet: ask for it again, it will not be booked twice", id)
		}
	}
}

// request marks a quote as accepted. Of one that is unknown, expired or decided already it changes nothing: reading it tells which.
func (s *Service) request(ctx context.Context, org ids.Org, id ids.Booking, options AcceptOptions) error {
	if len(options.BidIDs) > 0 {
		return s.requestBids(ctx, org, id, options)
	}
	if err := s.queries.RequestBooking(ctx, s.pool, options.ClusterName, id, org); err != nil {
		return fmt.Errorf("request booking: %w", err)
	}
	return nil
}

// worthReading waits until a booking may have been decided; it does not wake for other bookings' decisions, which come as lists. False is that the wait
// is over.
func worthReading(ctx context.Context, id ids.Booking, decided <-chan string, poll, bound <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-bound:
			return false
		case <-poll:
			return true
		case payload := <-decided:
			if payload == "" || strings.Contains(payload, uuid.UUID(id).String()) {
				return true
			}
		}
	}
}

func (q Quote) outcome() error {
	switch {
	case q.State == stateBidding:
		return errs.New(errs.Conflict, "hosts may bid for it until %s: accept it then", q.BidsCloseAt.UTC().Format(clockFormat))
	case q.State == stateExpired && q.BidsCloseAt != nil && len(q.Lines) == 0:
		return errs.New(errs.Expired, "too few hosts bid: ask for a market quote, or open another auction with a longer window")
	case q.State == stateExpired:
		return errs.New(errs.Expired, "the quote expired at %s: ask for a new one", q.ExpiresAt.UTC().Format(clockFormat))
	case q.State == stateCancelled:
		return errs.New(errs.Conflict, "the booking was cancelled: ask for a new quote")
	case q.refusal != nil:
		return q.refusal
	}
	return nil
}

const clockFormat = time.TimeOnly + " MST"

// Cancel withdraws an auction, a quote or a scheduled booking, and gives back what was held for it. Cancelling twice is no error.
func (s *Service) Cancel(ctx context.Context, org ids.Org, id ids.Booking) (Quote, error) {
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		row, err := s.queries.LockBooking(ctx, tx, id, org)
		if errors.Is(err, pgx.ErrNoRows) {
			return noQuote(id)
		}
		if err != nil {
			return fmt.Errorf("read booking: %w", err)
		}
		return s.cancel(ctx, tx, row.Booking)
	})
	if err != nil {
		return Quote{}, err
	}
	return s.GetQuote(ctx, org, id)
}

func (s *Service) cancel(ctx context.Context, tx pgx.Tx, b schedulerdb.Booking) error {
	switch {
	case b.State == stateCancelled || b.State == stateExpired:
		return nil
	case b.State == stateQuoted && b.RequestedAt != nil:
		return errs.New(errs.Conflict, "the booking is being decided: ask again in a moment")
	case b.State == stateAccepted:
		return errs.New(errs.Conflict, "the booking has begun: release its cluster instead")
	case b.State == stateScheduled:
		if err := s.refunds.Release(ctx, tx, b.OrgID, b.ID, b.HoldBaseUnits); err != nil {
			return fmt.Errorf("give the hold back: %w", err)
		}
	case b.State != stateBidding && b.State != stateQuoted:
		return errs.New(errs.Conflict, "the booking was %s: there is nothing to cancel", b.State)
	}
	if err := s.queries.CancelBooking(ctx, tx, b.ID); err != nil {
		return fmt.Errorf("cancel booking: %w", err)
	}
	return nil
}
