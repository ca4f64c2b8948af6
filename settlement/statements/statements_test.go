package statements_test

import (
	"bytes"
	"encoding/csv"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/statements"
)

// TestCustomerStatementToTheBaseUnit follows a customer over two days, with figures worked out by hand.
func TestCustomerStatementToTheBaseUnit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(20_000_000)
	c := b.cluster("training", 5_000_000, 1_000, 2_500_000, 1_999_999)
	c.use(0, 0, 1_500) // 2,500,000 x 1,500 / 3,600,000 = 1041.6
	b.settle()
	b.age()
	c.use(0, 2_000, 602_000)
	c.use(1, 0, 600_001) // 1,999,999 x 600,001 / 3,600,000 = 333,333.7
	b.settle()           // lease 0: 2,500,000 x 601,500 / 3,600,000 = 417,708.3
	c.end()
	b.settle()
	b.post("withdrawal", b.available(), ledger.Of(ledger.PayoutInFlight, b.customer), 1_000_000, ledger.Refs{})
	b.post("goodwill", ledger.Platform(ledger.PlatformFees), b.available(), 500, ledger.Refs{Cluster: c.id})

	first, second, both := b.statement(1, 0), b.statement(0, -1), b.statement(1, -1)
	if first.Opening.Total() != 0 || first.Totals.Deposits != 20_000_000 || first.Totals.Charges != 1_041 || first.Totals.MS != 1_500 ||
		first.Closing != (statements.Balance{Available: 15_000_000, Held: 5_000_000 - 1_041}) || first.Open() {
		t.Errorf("the first day is %+v", first)
	}
	want := statements.Totals{Withdrawals: 1_000_000, Charges: 417_708 - 1_041 + 333_333, Credits: 500, MS: 1_200_001}
	if second.Totals != want || second.Opening != first.Closing || !second.Open() || len(second.Clusters) != 1 || len(second.Clusters[0].Leases) != 2 {
		t.Errorf("the second day is %+v, want %+v", second, want)
	}
	if second.Closing != (statements.Balance{Available: b.balance(b.available())}) {
		t.Errorf("it closes with %+v, the ledger has %d", second.Closing, b.balance(b.available()))
	}
	if both.Totals.Charges != 417_708+333_333 || both.ChargeDays != 3 || both.Opening.Total() != 0 || both.Closing != second.Closing {
		t.Errorf("both days are %+v", both)
	}
	kinds := make([]string, 0, len(both.Movements))
	for _, m := range both.Movements {
		kinds = append(kinds, m.Kind)
	}
	if !slices.Equal(kinds, []string{"deposit", "withdrawal", "credit"}) || both.Movements[0].Signature != "5Deposit" || both.Movements[2].Cluster != c.id {
		t.Errorf("the movements are %+v", both.Movements)
	}
	if len(both.Holds) != 2 || both.Holds[0].Amount != 5_000_000 || both.Holds[1].Amount != -(5_000_000-417_708-333_333) || both.Holds[0].Cluster != c.id {
		t.Errorf("the holds are %+v", both.Holds)
	}
}

func TestOwnerStatementToTheBaseUnit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(20_000_000)
	c := b.cluster("secret plans", 5_000_000, 1_000, 3_600_000)
	c.use(0, 0, 100_000)
	b.settle() // 100,000, of which 10,000 are the platform's
	b.age()
	b.post(ledger.KindPayoutReserve, b.payable(), b.inFlight(), 60_000, ledger.Refs{})
	b.post(ledger.KindPayoutPaid, b.inFlight(), ledger.Platform(ledger.ChainTreasury), 40_000, ledger.Refs{Signature: "5Paid"})
	b.post(ledger.KindPayoutReturn, b.inFlight(), b.payable(), 5_000, ledger.Refs{})
	b.post("correction", b.payable(), ledger.Platform(ledger.PlatformCapital), 7, ledger.Refs{})
	c.use(0, 200_000, 200_005)
	b.settle()

	o := b.earnings(0, -1)
	if o.Opening != (statements.Owed{Payable: 90_000}) || o.Totals.Gross != 5 || o.Totals.Fee != 0 || o.Totals.Paid != 40_000 || o.Totals.Other != -7 {
		t.Errorf("the statement is %+v", o)
	}
	if o.Closing != (statements.Owed{Payable: b.balance(b.payable()), InFlight: 15_000}) {
		t.Errorf("it closes with %+v, the ledger has %d", o.Closing, b.balance(b.payable()))
	}
	if len(o.Payouts) != 3 || o.Payouts[1].Kind != ledger.KindPayoutPaid || o.Payouts[1].Signature != "5Paid" || len(o.Movements) != 1 {
		t.Errorf("payouts %+v, movements %+v", o.Payouts, o.Movements)
	}
	whole := b.earnings(1, -1)
	if len(whole.Hosts) != 1 || whole.Hosts[0].Name != "rack 1" || whole.Hosts[0].Net() != 90_005 || whole.Hosts[0].Leases[0].FeeBps != 1_000 {
		t.Errorf("the hosts are %+v", whole.Hosts)
	}
	if strings.Contains(string(b.OwnerCSV(whole)), "secret") {
		t.Error("the owner's file names the customer's cluster")
	}
}

// TestStatementsTieOut: whatever happens on however many days, each day's statement closes with what the next one opens with, the days
// come to the whole, and the whole to the ledger. Each statement also compares itself with the ledger's balances before it is given out.
func TestStatementsTieOut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	rapid.Check(t, func(t *rapid.T) {
		b.customer, b.owner = b.org("Customer"), b.org("Owner")
		b.exec(`UPDATE hosts SET org_id = $2 WHERE id = $1`, b.host, b.owner)
		b.deposit(1 << 40)
		days := rapid.IntRange(1, 3).Draw(t, "days")
		var clusters []*running
		clock := map[ids.Lease]int64{}
		for day := range days {
			if day > 0 {
				b.age()
			}
			for range rapid.IntRange(0, 4).Draw(t, "steps") {
				b.step(t, &clusters, clock)
			}
			b.settle()
		}
		b.compare(t, days)
		for _, c := range clusters { // so that the next round's passes need not look at them
			c.end()
		}
		b.settle()
	})
}

// step does one thing that can happen.
func (b *bench) step(t *rapid.T, clusters *[]*running, clock map[ids.Lease]int64) {
	price := func(name string) money.Amount { return money.Amount(rapid.Int64Range(1, 50_000_000).Draw(t, name)) }
	switch rapid.SampledFrom([]string{"deposit", "cluster", "use", "use", "use", "end", "payout", "withdraw", "give back", "take"}).Draw(t, "what") {
	case "deposit":
		b.deposit(price("amount"))
	case "cluster":
		*clusters = append(*clusters, b.cluster("c", 1_000_000_000, rapid.IntRange(0, 10_000).Draw(t, "fee"), price("price"), price("price")))
	case "use":
		if len(*clusters) > 0 {
			c := rapid.SampledFrom(*clusters).Draw(t, "cluster")
			lease := rapid.IntRange(0, 1).Draw(t, "lease")
			from := clock[c.leases[lease]] + rapid.Int64Range(0, 1_000).Draw(t, "pause")
			to := from + rapid.Int64Range(0, 100_000).Draw(t, "ms")
			c.use(lease, from, to)
			clock[c.leases[lease]] = to
			b.settle()
		}
	case "end":
		if n := len(*clusters); n > 0 {
			b.settle()
			(*clusters)[n-1].end()
			*clusters = (*clusters)[:n-1]
		}
	case "payout":
		if owed := b.balance(b.payable()); owed > 1 {
			b.post(ledger.KindPayoutReserve, b.payable(), b.inFlight(), owed/2, ledger.Refs{})
			if rapid.Bool().Draw(t, "paid") {
				b.post(ledger.KindPayoutPaid, b.inFlight(), ledger.Platform(ledger.ChainTreasury), owed/2, ledger.Refs{})
			}
		}
	case "withdraw":
		b.post("withdrawal", b.available(), ledger.Of(ledger.PayoutInFlight, b.customer), 1_000, ledger.Refs{})
	case "give back": // to the held balance, which no other movement but holds and charges reaches
		b.post("goodwill", ledger.Platform(ledger.PlatformCapital), b.held(), 10, ledger.Refs{})
	case "take":
		if b.balance(b.payable()) > 3 {
			b.post("correction", b.payable(), ledger.Platform(ledger.PlatformCapital), 3, ledger.Refs{})
		}
	}
}

func (b *bench) compare(t *rapid.T, days int) {
	whole, owed := b.statement(days-1, -1), b.earnings(days-1, -1)
	var sum statements.Totals
	var earned statements.OwnerTotals
	var balance statements.Balance
	var due statements.Owed
	for day := days - 1; day >= 0; day-- {
		c, o := b.statement(day, day-1), b.earnings(day, day-1)
		if c.Opening != balance || o.Opening != due {
			t.Fatalf("%d days ago it opens with %+v and %+v, the day before closed with %+v and %+v", day, c.Opening, o.Opening, balance, due)
		}
		balance, due = c.Closing, o.Closing
		sum.Deposits, sum.Withdrawals, sum.Charges = sum.Deposits+c.Totals.Deposits, sum.Withdrawals+c.Totals.Withdrawals, sum.Charges+c.Totals.Charges
		sum.Credits, sum.Other, sum.MS = sum.Credits+c.Totals.Credits, sum.Other+c.Totals.Other, sum.MS+c.Totals.MS
		earned.Gross, earned.Fee, earned.Paid = earned.Gross+o.Totals.Gross, earned.Fee+o.Totals.Fee, earned.Paid+o.Totals.Paid
		earned.Other, earned.MS = earned.Other+o.Totals.Other, earned.MS+o.Totals.MS
	}
	if sum != whole.Totals || earned != owed.Totals {
		t.Fatalf("the days come to %+v and %+v, the whole is %+v and %+v", sum, earned, whole.Totals, owed.Totals)
	}
	if want := (statements.Balance{Available: b.balance(b.available()), Held: b.balance(b.held())}); balance != want || whole.Closing != want {
		t.Fatalf("it closes with %+v and %+v, the ledger has %+v", balance, whole.Closing, want)
	}
	if want := (statements.Owed{Payable: b.balance(b.payable()), InFlight: b.balance(b.inFlight())}); due != want || owed.Closing != want {
		t.Fatalf("it closes with %+v and %+v, the ledger has %+v", due, owed.Closing, want)
	}
	var charged money.Amount
	if err := b.pool.QueryRow(b.Context(), `
		SELECT coalesce(sum(t.amount), 0)::bigint FROM ledger_transfers t JOIN ledger_entries e ON e.id = t.entry_id AND e.kind = 'charge'
		JOIN ledger_accounts a ON a.id = t.debit_account AND a.org_id = $1`, b.customer).Scan(&charged); err != nil || charged != sum.Charges {
		t.Fatalf("the lines charge %d, the ledger %d, %v", sum.Charges, charged, err)
	}
}

// TestAStatementThatDoesNotTieOutIsNotShown takes a charge out of the days behind metering's back.
func TestAStatementThatDoesNotTieOutIsNotShown(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(1_000_000)
	c := b.cluster("c", 100_000, 100, 3_600_000)
	c.use(0, 0, 10_000)
	b.settle()
	b.exec(`UPDATE lease_days SET charged = charged - 1`)
	if _, err := b.Customer(t.Context(), b.customer, period(0, -1)); errs.CodeOf(err) != errs.Internal {
		t.Errorf("the customer's gave %v", err)
	}
	if _, err := b.Owner(t.Context(), b.owner, period(0, -1)); errs.CodeOf(err) != errs.Internal {
		t.Errorf("the owner's gave %v", err)
	}
	if _, err := b.Focus(t.Context(), b.customer, period(0, -1)); errs.CodeOf(err) != errs.Internal {
		t.Errorf("the export gave %v", err)
	}
}

func TestCreditsNameTheFault(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(10_000_000)
	c := b.cluster("training", 5_000_000, 0, 3_600_000, 7_200_000)
	c.use(0, 0, 60_000)
	c.use(1, 0, 60_000)
	c.event("node", "", "owner", "Node 1 failed. Its host is lost.", c.at(62_000))
	c.event("state", "degraded", "", "A node failed and is being replaced.", c.at(62_000))
	c.exec(`UPDATE leases SET state = 'closed', closed_at = $2, close_party = 'owner', close_reason = 'Its host is lost.' WHERE id = $1`, c.leases[1], c.at(62_000))
	instead := c.lease(7_200_000, 0, c.at(63_000))
	c.event("state", "ready", "", "Every node has joined Ray.", c.at(90_000))
	c.use(0, 90_000, 120_000)
	c.use(instead, 90_000, 120_000)
	c.event("state", "draining", "customer", "Released by the customer.", c.at(121_000))
	b.settle()

	s := b.statement(1, -1)
	if len(s.Clusters) != 1 || len(s.Clusters[0].Credits) != 3 {
		t.Fatalf("the clusters are %+v", s.Clusters)
	}
	amounts := map[ids.Lease]money.Amount{}
	for _, credit := range s.Clusters[0].Credits {
		amounts[credit.Lease] = credit.Amount
		if credit.Party != "owner" || !strings.Contains(credit.Reason, "failed") {
			t.Errorf("the credit is %+v", credit)
		}
	}
	// 30 s of the one that stayed, 2 s of the one that failed, 27 s of the one that came instead
	if amounts[c.leases[0]] != 30_000 || amounts[c.leases[1]] != 4_000 || amounts[c.leases[instead]] != 54_000 || s.Totals.NotCharged != 88_000 {
		t.Errorf("the credits are %v, in all %d", amounts, s.Totals.NotCharged)
	}
	if o := b.earnings(1, -1); o.Totals.NotEarned != 88_000 || len(o.Hosts[0].Credits) != 3 {
		t.Errorf("the owner is told of %+v", o.Totals)
	}
	if export, err := b.Focus(t.Context(), b.customer, period(1, -1)); err != nil || strings.Contains(string(export), "Credit") {
		t.Errorf("the export has a credit although no money moved: %v\n%s", err, export)
	}
}

// TestFilesCannotBeMisread gives names that spreadsheets would run, and that break rows.
func TestFilesCannotBeMisread(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.exec(`UPDATE organisations SET name = '=HYPERLINK("http://evil","x")' WHERE id = $1`, b.customer)
	b.exec(`UPDATE hosts SET name = '@SUM(A1)', region = '-2+3' WHERE id = $1`, b.host)
	b.deposit(1_000_000)
	names := []string{"=1+1", "+cmd|' /C calc'!A0", "-2", "@x", "\tx", "\r\nx", "＝1", "a,b\n\"c\"", "plain"}
	for _, name := range names {
		c := b.cluster(name, 10_000, 0, 3_600_000)
		c.use(0, 0, 1_000)
	}
	b.settle()
	b.post("goodwill", ledger.Platform(ledger.PlatformCapital), b.available(), 5, ledger.Refs{})
	export, err := b.Focus(t.Context(), b.customer, period(0, -1))
	if err != nil {
		t.Fatal(err)
	}
	numeric := map[string]bool{"BilledCost": true, "EffectiveCost": true, "ListCost": true, "ContractedCost": true, "x_BilledBaseUnits": true}
	for name, file := range map[string][]byte{
		"statement": b.CSV(b.statement(0, -1)), "earnings": b.OwnerCSV(b.earnings(0, -1)), "focus": export,
	} {
		rows, err := csv.NewReader(bytes.NewReader(file)).ReadAll()
		if err != nil || len(rows) < len(names) {
			t.Fatalf("%s: %d rows, %v", name, len(rows), err)
		}
		for _, row := range rows {
			for i, cell := range row {
				number := numeric[rows[0][i]] && strings.Trim(cell, "-0123456789.") == ""
				if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r\n") && !number {
					t.Errorf("%s: the %s %q begins a formula", name, rows[0][i], cell)
				}
			}
		}
	}
	for _, name := range names {
		if statements.Cell(name) == name && strings.ContainsAny(name[:1], "=+-@\t\r") {
			t.Errorf("%q stays as it is", name)
		}
	}
}

func TestFocusExport(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(10_000_000)
	c := b.cluster("training", 5_000_000, 250, 2_500_000, 1_999_999)
	c.use(0, 0, 600_000)
	b.settle()
	b.age()
	c.use(0, 700_000, 700_777)
	c.use(1, 0, 123_456)
	b.settle()
	b.post("goodwill", ledger.Platform(ledger.PlatformCapital), b.available(), 1_234, ledger.Refs{Cluster: c.id})
	first, err := b.Focus(t.Context(), b.customer, period(1, -1))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.Focus(t.Context(), b.customer, period(1, -1)); err != nil || !bytes.Equal(first, again) {
		t.Errorf("the same data gave other bytes, %v", err)
	}
	rows, err := csv.NewReader(bytes.NewReader(first)).ReadAll()
	if err != nil || len(rows) != 1+3+1 {
		t.Fatalf("%d rows, %v:\n%s", len(rows), err, first)
	}
	for _, mandatory := range strings.Fields(`BilledCost EffectiveCost ListCost ContractedCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodStart
		BillingPeriodEnd ChargePeriodStart ChargePeriodEnd ChargeCategory ChargeClass ChargeDescription PricingQuantity PricingUnit ServiceCategory ServiceName
		ServiceProviderName HostProviderName InvoiceIssuerName`) {
		if !slices.Contains(rows[0], mandatory) {
			t.Errorf("the export lacks %s", mandatory)
		}
	}
	var billed money.Amount
	counts := map[string]int{}
	for _, row := range rows[1:] {
		cell := func(name string) string { return row[slices.Index(rows[0], name)] }
		counts[cell("ChargeCategory")]++
		amount, err := usdc.Parse(strings.TrimPrefix(cell("BilledCost"), "-"))
		if err != nil {
			t.Fatal(err)
		}
		if cell("ChargeCategory") == "Credit" {
			amount = -amount
		}
		billed += amount
		if cell("BillingCurrency") != "USD" || cell("x_TokenSymbol") != "USDC" || cell("BillingAccountId") != b.customer.String() {
			t.Errorf("the row is %v", row)
		}
	}
	s := b.statement(1, -1)
	if billed != s.Totals.Charges-s.Totals.Credits || counts["Usage"] != 3 || counts["Credit"] != 1 || s.ChargeDays != 3 {
		t.Errorf("%d billed in %v rows, the statement has %d and %d", billed, counts, s.Totals.Charges, s.Totals.Credits)
	}
}

func TestPeriodsAreWholeDaysOfAtMostAYear(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for name, p := range map[string]statements.Period{
		"backwards": period(0, 1), "empty": period(1, 1), "too long": period(367, 0),
		"not whole": {From: daysAgo(1).Add(1), To: daysAgo(0)},
	} {
		if _, err := b.Customer(t.Context(), b.customer, p); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := b.Owner(t.Context(), b.owner, p); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty := b.statement(30, 0)
	if empty.Totals != (statements.Totals{}) || empty.Closing.Total() != 0 || empty.Name != "Customer" {
		t.Errorf("an empty period is %+v", empty)
	}
}
