package metering_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/metering"
)

// TestChargesExactly follows one cluster of two GPUs through its life, with figures worked out by hand.
func TestChargesExactly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(20_000_000)
	c := b.cluster(5_000_000, 1_000, 2_500_000, 1_999_999) // a tenth is the platform's
	b.settle()
	b.wantBalances(15_000_000, 5_000_000, 0, 0)

	c.start(0, at("10:00:00"))
	c.start(1, at("10:00:00"))
	c.confirm(0, at("10:00:01.5"))
	b.settle()
	// 2,500,000 x 1,500 / 3,600,000 = 1041.6; a tenth of it 104.1
	b.wantBalances(15_000_000, 5_000_000-1041, 1041-104, 104)

	c.confirm(0, at("10:30:00"))
	c.confirm(1, at("10:10:00.001"))
	c.stop(1) // its host missed a heartbeat
	b.settle()
	// 1,250,000; 1,999,999 x 600,001 / 3,600,000 = 333,333.7
	b.wantBalances(15_000_000, 5_000_000-1_583_333, 1_125_000+300_000, 125_000+33_333)

	c.start(1, at("10:20:00"))
	c.confirm(1, at("10:30:00.999"))
	c.stop(0)
	c.end()
	b.settle()
	if c.settled() {
		t.Error("the cluster was settled although usage is open")
	}
	c.stop(1)
	b.settle()
	// 1,999,999 x 1,201,000 / 3,600,000 = 667,221.8
	b.wantBalances(20_000_000-1_917_221, 0, 1_125_000+600_499, 125_000+66_722)
	if !c.settled() {
		t.Error("the cluster is not settled")
	}
	b.settle()
	b.wantBalances(20_000_000-1_917_221, 0, 1_125_000+600_499, 125_000+66_722)
}

// TestPausesDoNotDrift: whenever passes happen and however usage is cut into intervals, the same time costs the same.
func TestPausesDoNotDrift(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(1 << 50)
	rapid.Check(t, func(t *rapid.T) {
		price := money.Amount(rapid.Int64Range(1, 50_000_000).Draw(t, "price"))
		feeBps := rapid.IntRange(0, 10_000).Draw(t, "fee")
		available, payable, fees := b.available(), b.payable(), b.fees()
		c := b.cluster(1_000_000_000, feeBps, price)
		clock, used := at("00:00:00"), int64(0)
		for range rapid.IntRange(1, 6).Draw(t, "intervals") {
			c.start(0, clock)
			for range rapid.IntRange(1, 3).Draw(t, "heartbeats") {
				step := rapid.Int64Range(0, 100_000).Draw(t, "ms")
				clock, used = clock.Add(time.Duration(step)*time.Millisecond), used+step
				c.confirm(0, clock)
				if rapid.Bool().Draw(t, "pass") {
					b.settle()
				}
			}
			c.stop(0)
			clock = clock.Add(time.Duration(rapid.Int64Range(0, 100_000).Draw(t, "pause")) * time.Millisecond)
		}
		c.end()
		b.settle()
		want := money.Accrued(price, used)
		fee := money.Share(want, feeBps)
		if spent := available - b.available(); spent != want || b.held() != 0 {
			t.Fatalf("%d ms at %d cost %d and left %d held, want %d and nothing", used, price, spent, b.held(), want)
		}
		if earned, share := b.payable()-payable, b.fees()-fees; earned != want-fee || share != fee {
			t.Fatalf("of %d the owner got %d and the platform %d, want %d and %d", want, earned, share, want-fee, fee)
		}
	})
	if err := b.book.Check(t.Context(), b.pool); err != nil {
		t.Error(err)
	}
}

func TestManyProcessesChargeOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(100_000_000)
	for i := range 3 {
		c := b.cluster(10_000_000, 500, 3_600_000, 3_600_000)
		for lease := range c.leases {
			c.start(lease, at("10:00:00"))
			c.confirm(lease, at("10:00:10"))
			c.stop(lease)
		}
		if i > 0 {
			c.end()
		}
	}
	group, ctx := errgroup.WithContext(t.Context())
	for range 8 {
		group.Go(func() error { return b.Settle(ctx) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	b.wantBalances(100_000_000-10_000_000-40_000, 10_000_000-20_000, 57_000, 3_000)
}

// TestPassesOfManyProcessesDoNotOverlap lets usage grow while several processes charge: two that had read the same figures would
// charge the same time twice.
func TestPassesOfManyProcessesDoNotOverlap(t *testing.T) {
	t.Parallel()
	const wantPasses, maxSteps = 120, 50_000
	b := newBench(t)
	b.deposit(100_000_000)
	c := b.cluster(100_000_000, 1_000, 3_600_000)
	c.start(0, at("10:00:00"))
	var passes atomic.Int64
	group, ctx := errgroup.WithContext(t.Context())
	for range 6 {
		group.Go(func() error {
			for passes.Add(1) <= wantPasses {
				if err := b.Settle(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	steps := 0
	for ; passes.Load() <= wantPasses && ctx.Err() == nil && steps < maxSteps; steps++ {
		c.confirm(0, at("10:00:00").Add(time.Duration(steps+1)*time.Second))
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	b.settle()
	used := money.Amount(steps)
	b.wantBalances(0, 100_000_000-used*1_000, used*900, used*100)
}

func TestChargeStopsAtTheHold(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var alarms bytes.Buffer
	b.Meter = metering.New(b.pool, b.book, metering.DefaultInterval, slog.New(slog.NewJSONHandler(&alarms, nil)))
	b.deposit(10_000)
	c := b.cluster(5_000, 1_000, 3_600_000)
	c.start(0, at("10:00:00"))
	c.confirm(0, at("10:00:07")) // 7,000
	b.settle()
	b.wantBalances(5_000, 0, 4_500, 500)
	if !strings.Contains(alarms.String(), `"beyond":2000`) || !strings.Contains(alarms.String(), c.id.String()) {
		t.Errorf("the log does not say that 2000 were cut off: %s", alarms.String())
	}
	c.stop(0)
	c.end()
	b.settle()
	b.wantBalances(5_000, 0, 4_500, 500)
	if !c.settled() {
		t.Error("the cluster is not settled")
	}
}

// TestOneBadClusterDoesNotStopTheOthers breaks the hold of one cluster and expects the other charged.
func TestOneBadClusterDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(10_000)
	good := b.cluster(5_000, 0, 3_600_000)
	bad := b.cluster(1_000, 0, 3_600_000)
	b.exec(`UPDATE clusters SET hold_base_units = 100000 WHERE id = $1`, bad.id) // more than is held
	for _, c := range []*running{good, bad} {
		c.start(0, at("10:00:00"))
		c.confirm(0, at("10:00:02"))
	}
	bad.confirm(0, at("10:00:30"))
	if err := b.Settle(t.Context()); errs.CodeOf(err) != errs.InsufficientFunds || !strings.Contains(err.Error(), bad.id.String()) {
		t.Errorf("the pass gave %v, want it to name %s", err, bad.id)
	}
	b.wantBalances(4_000, 4_000, 2_000, 0)
}

func TestClusterThatNeverRanIsRefundedWhole(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(10_000)
	c := b.cluster(6_000, 100, 3_600_000)
	c.end()
	b.settle()
	b.wantBalances(10_000, 0, 0, 0)
	var message string
	if err := b.pool.QueryRow(t.Context(), `SELECT message FROM cluster_events WHERE cluster_id = $1 AND kind = 'credit'`, c.id).Scan(&message); err != nil ||
		message != "0.000000 USDC charged, 0.006000 USDC returned" {
		t.Errorf("the timeline says %q, %v", message, err)
	}
	cost, err := b.ClusterCost(t.Context(), b.customer, c.id)
	if err != nil || cost.Refunded != 6_000 || cost.RefundNow != 0 || cost.Charged != 0 {
		t.Errorf("the cost is %+v, %v", cost, err)
	}
}

func TestRunStopsWhenItsTermHasPassed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Meter = metering.New(b.pool, b.book, time.Millisecond, slog.New(slog.DiscardHandler))
	b.deposit(10_000)
	c := b.cluster(6_000, 0, 3_600_000)
	c.start(0, at("10:00:00"))
	c.confirm(0, at("10:00:01"))
	b.exec(`INSERT INTO leadership (role, holder, term, expires_at) VALUES ($1, 'test', 7, now() + interval '1 hour')`, leader.RoleSettlement)

	if err := b.Run(t.Context(), 6); err != nil { // an old term: it returns at once and has written nothing
		t.Fatal(err)
	}
	b.wantBalances(4_000, 6_000, 0, 0)

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, 7) }()
	testkit.Eventually(t, 10*time.Second, func() (bool, string) { return b.payable() == 1_000, "nothing is charged" })
	b.exec(`UPDATE leadership SET term = 8 WHERE role = $1`, leader.RoleSettlement)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	cancel()
}

func TestViews(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(20_000_000)
	c := b.cluster(5_000_000, 1_000, 3_600_000, 7_200_000)
	started := at("10:00:00")
	for lease := range c.leases {
		c.start(lease, started)
		c.confirm(lease, started.Add(10*time.Second))
	}
	b.settle() // 10,000 + 20,000
	c.confirm(0, started.Add(20*time.Second))
	c.confirm(1, started.Add(20*time.Second))

	cost, err := b.ClusterCost(t.Context(), b.customer, c.id)
	if err != nil {
		t.Fatal(err)
	}
	if cost.Hold != 5_000_000 || cost.Charged != 30_000 || cost.Fee != 3_000 || cost.PerHour != 10_800_000 || cost.RefundNow != 4_940_000 ||
		cost.Refunded != 0 || cost.BilledMS != 20_000 || !cost.AsOf.Equal(started.Add(20*time.Second)) || len(cost.Leases) != 2 {
		t.Errorf("the cost is %+v", cost)
	}
	if _, err := b.ClusterCost(t.Context(), b.owner, c.id); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("another organisation's cluster gave %v", err)
	}
	earnings, err := b.Earnings(t.Context(), b.owner)
	if err != nil || earnings.Payable != 27_000 || earnings.Accrued != 30_000 || len(earnings.Hosts) != 1 || earnings.Hosts[0].Earned != 27_000 ||
		earnings.Hosts[0].BilledMS != 20_000 || len(earnings.Days) != 1 || earnings.Days[0].Earned != 27_000 {
		t.Errorf("the earnings are %+v, %v", earnings, err)
	}
	wallet, err := b.Wallet(t.Context(), b.customer)
	if err != nil || wallet.Available != 15_000_000 || wallet.Held != 4_970_000 || wallet.SpendPerHour != 10_800_000 {
		t.Errorf("the wallet is %+v, %v", wallet, err)
	}

	b.settle()
	b.post(ledger.Entry{Key: "reserve", Kind: ledger.KindPayoutReserve, Legs: []ledger.Leg{{
		Debit: ledger.Of(ledger.OwnerPayable, b.owner), Credit: ledger.Of(ledger.PayoutInFlight, b.owner), Amount: 50_000,
	}}})
	b.post(ledger.Entry{Key: "paid", Kind: ledger.KindPayoutPaid, Legs: []ledger.Leg{{
		Debit: ledger.Of(ledger.PayoutInFlight, b.owner), Credit: ledger.Platform(ledger.ChainTreasury), Amount: 40_000,
	}}})
	earnings, err = b.Earnings(t.Context(), b.owner)
	if err != nil || earnings.Payable != 4_000 || earnings.Accrued != 0 || earnings.InFlight != 10_000 || earnings.Paid != 40_000 {
		t.Errorf("the earnings are %+v, %v", earnings, err)
	}
}

func TestStatementJoinsADaysChargesAndPages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(20_000_000)
	c := b.cluster(5_000_000, 0, 3_600_000)
	c.start(0, at("10:00:00"))
	for second := range 5 {
		c.confirm(0, at("10:00:00").Add(time.Duration(second+1)*time.Second))
		b.settle()
	}
	c.stop(0)
	c.end()
	b.settle()
	var lines []metering.StatementLine
	var cursor ids.Transfer
	for {
		page, err := b.Transfers(t.Context(), b.customer, cursor, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		lines = append(lines, page...)
		cursor = page[len(page)-1].Transfer
	}
	sums, charges := map[ledger.Kind]money.Amount{}, 0
	for _, line := range lines {
		sums[line.Account] += line.Amount
		if line.Kind == ledger.KindCharge {
			charges++
			if line.Amount != -5_000 || line.Text != "GPU time of training" || line.Cluster != c.id {
				t.Errorf("the charge is %+v", line)
			}
		}
	}
	if counted := testutil.ToFloat64(b.Collectors()[0]); counted != 5 {
		t.Errorf("%v charges are counted, want 5", counted)
	}
	// deposit; hold and release on both accounts; the charges, unless midnight UTC passed between them
	if charges != 1 || len(lines) != 6 || sums[ledger.CustomerAvailable] != 19_995_000 || sums[ledger.CustomerHeld] != 0 {
		t.Errorf("%d lines come to %v: %+v", len(lines), sums, lines)
	}
}
