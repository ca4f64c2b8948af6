package ledger_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// booking makes a row that a hold can refer to.
func (b book) booking(org ids.Org) ids.Booking {
	b.Helper()
	id := ids.New[ids.Booking]()
	if _, err := b.pool.Exec(b.Context(), `INSERT INTO bookings (id, org_id, gpu_model, node_count, gpus_per_node, duration_ms, fee_bps, plan, hold_base_units, expires_at)
		VALUES ($1, $2, 'H100', 1, 1, 3600000, 0, '[]', 1, now())`, id, org); err != nil {
		b.Fatal(err)
	}
	return id
}

func (b book) holdAll(holds ...ledger.EscrowHold) (refused map[ids.Booking]*errs.Error) {
	b.Helper()
	err := pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) (err error) {
		refused, err = b.HoldAll(b.Context(), tx, holds)
		return err
	})
	if err != nil {
		b.Fatalf("hold: %v", err)
	}
	return refused
}

func TestHoldAllLeavesOutWhatABalanceCannotBear(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	rich, poor, newcomer := b.org("Rich"), b.org("Poor"), b.org("Newcomer")
	b.mustPost(deposit(rich, "d1", 100))
	b.mustPost(deposit(poor, "d2", 10))
	first, large, last, short, none := b.booking(rich), b.booking(rich), b.booking(rich), b.booking(poor), b.booking(newcomer)
	holds := []ledger.EscrowHold{
		{Org: rich, Booking: first, Amount: 60},
		{Org: rich, Booking: large, Amount: 50},
		{Org: poor, Booking: short, Amount: 11},
		{Org: rich, Booking: last, Amount: 40},
		{Org: newcomer, Booking: none, Amount: 1},
	}
	refused := b.holdAll(holds...)
	if len(refused) != 3 || refused[large] == nil || refused[short] == nil || refused[none] == nil {
		t.Fatalf("refused %v", refused)
	}
	details, isShortfall := refused[short].Details.(ledger.Shortfall)
	if refused[short].Code != errs.InsufficientFunds || !isShortfall || details.Needed != 11 || details.Available != 10 || details.Short != 1 {
		t.Errorf("refused with %v, %+v", refused[short], details)
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, rich), 0)
	b.wantBalance(ledger.Of(ledger.CustomerHeld, rich), 100)
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, poor), 10)
	b.wantSound()

	// Again, with one that is new: what is held stays, what was refused is tried again.
	b.mustPost(deposit(poor, "d3", 1))
	if refused := b.holdAll(holds...); len(refused) != 2 || refused[large] == nil || refused[none] == nil {
		t.Errorf("the second time %v are refused", refused)
	}
	b.wantBalance(ledger.Of(ledger.CustomerHeld, rich), 100)
	b.wantBalance(ledger.Of(ledger.CustomerHeld, poor), 11)
	b.wantSound()
}

func TestHoldAllRefusesAnotherAmountUnderTheSameBooking(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org := b.org("Customer")
	b.mustPost(deposit(org, "d", 100))
	booking := b.booking(org)
	b.holdAll(ledger.EscrowHold{Org: org, Booking: booking, Amount: 5})
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := b.HoldAll(t.Context(), tx, []ledger.EscrowHold{{Org: org, Booking: booking, Amount: 6}})
		return err
	})
	if errs.CodeOf(err) != errs.Conflict {
		t.Errorf("another amount gave %v", err)
	}
	b.wantBalance(ledger.Of(ledger.CustomerHeld, org), 5)
}

func TestReleaseGivesAHoldBackOnce(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org := b.org("Customer")
	b.mustPost(deposit(org, "d", 100))
	booking := b.booking(org)
	b.holdAll(ledger.EscrowHold{Org: org, Booking: booking, Amount: 70})
	for range 2 {
		if err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error { return b.Release(t.Context(), tx, org, booking, 70) }); err != nil {
			t.Fatal(err)
		}
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 100)
	b.wantBalance(ledger.Of(ledger.CustomerHeld, org), 0)
	b.wantSound()
}
