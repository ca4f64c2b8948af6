package statements_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/settlement/ledger"
)

// focusRow is a row of an export, and what the specification (FOCUS 1.4) says of its cells.
type focusRow struct {
	*testing.T
	columns, cells []string
}

func (r focusRow) cell(name string) string {
	r.Helper()
	at := slices.Index(r.columns, name)
	if at < 0 {
		r.Fatalf("the export lacks %s", name)
	}
	return r.cells[at]
}

func (r focusRow) time(name string) time.Time {
	r.Helper()
	at, err := time.Parse("2006-01-02T15:04:05Z", r.cell(name))
	if err != nil {
		r.Errorf("%s: %v", name, err)
	}
	return at
}

func (r focusRow) number(name string) *big.Rat {
	r.Helper()
	number, valid := new(big.Rat).SetString(r.cell(name))
	if !valid {
		r.Fatalf("%s is %q", name, r.cell(name))
	}
	return number
}

// valid holds the row to the rules for all rows.
func (r focusRow) valid() {
	r.Helper()
	for _, required := range strings.Fields(`BilledCost EffectiveCost ListCost ContractedCost BillingAccountId BillingAccountName BillingCurrency
		BillingPeriodStart BillingPeriodEnd ChargePeriodStart ChargePeriodEnd ChargeCategory ChargeDescription ChargeFrequency ServiceCategory ServiceName
		ServiceProviderName HostProviderName InvoiceIssuerName Tags`) {
		if r.cell(required) == "" {
			r.Errorf("%s is empty in %v", required, r.cells)
		}
	}
	for column, allowed := range map[string][]string{
		"ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"}, "ChargeClass": {"", "Correction"},
		"ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"}, "PricingCategory": {"", "Standard", "Dynamic", "Committed", "Other"},
		"ServiceCategory": {"Compute"}, "BillingCurrency": {"USD"},
	} {
		if !slices.Contains(allowed, r.cell(column)) {
			r.Errorf("%s is %q", column, r.cell(column))
		}
	}
	from, to := r.time("BillingPeriodStart"), r.time("BillingPeriodEnd")
	if from.Day() != 1 || !to.Equal(from.AddDate(0, 1, 0)) {
		r.Errorf("the billing period is %s to %s, not a month", from, to)
	}
	if start, end := r.time("ChargePeriodStart"), r.time("ChargePeriodEnd"); !start.Before(end) || start.Before(from) || end.After(to) {
		r.Errorf("the charge's period %s to %s is not in the billing period", start, end)
	}
	for dependent, on := range map[string]string{
		"ResourceName": "ResourceId", "ResourceType": "ResourceId", "RegionName": "RegionId", "SkuPriceId": "SkuId", "SkuMeter": "SkuId",
		"PricingUnit": "PricingQuantity", "ConsumedUnit": "ConsumedQuantity",
	} {
		if (r.cell(dependent) == "") != (r.cell(on) == "") {
			r.Errorf("%s is %q, and %s is %q", dependent, r.cell(dependent), on, r.cell(on))
		}
	}
	if !json.Valid([]byte(r.cell("Tags"))) {
		r.Errorf("the tags are %q", r.cell("Tags"))
	}
	for _, cost := range []string{"EffectiveCost", "ListCost", "ContractedCost"} { // no discounts and no commitments
		if r.cell(cost) != r.cell("BilledCost") {
			r.Errorf("%s is %s, billed are %s", cost, r.cell(cost), r.cell("BilledCost"))
		}
	}
}

// priced holds a row of usage to its quantity and unit price: they come to its cost but for what the cumulative floor rounds.
func (r focusRow) priced() {
	r.Helper()
	for _, price := range []string{"ListUnitPrice", "ContractedUnitPrice"} {
		off := new(big.Rat).Sub(new(big.Rat).Mul(r.number("PricingQuantity"), r.number(price)), r.number("BilledCost"))
		if off.Abs(off).Cmp(big.NewRat(1, 1_000_000)) > 0 {
			r.Errorf("%s hours at %s are billed %s", r.cell("PricingQuantity"), r.cell(price), r.cell("BilledCost"))
		}
	}
	if r.cell("PricingUnit") != "GPU-Hours" || r.cell("ConsumedQuantity") != r.cell("PricingQuantity") || r.number("BilledCost").Sign() <= 0 {
		r.Errorf("the usage is %v", r.cells)
	}
}

func TestEachRowOfTheFocusExportIsValid(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(10_000_000)
	c := b.cluster("training, \"night\"", 5_000_000, 250, 2_500_000, 1_999_999)
	c.use(0, 0, 600_000)
	b.settle()
	b.age()
	c.use(0, 700_000, 700_777)
	c.use(1, 0, 123_456)
	b.settle()
	b.post("goodwill", ledger.Platform(ledger.PlatformCapital), b.available(), 1_234, ledger.Refs{Cluster: c.id})
	b.post("goodwill", ledger.Platform(ledger.PlatformCapital), b.available(), 56, ledger.Refs{})
	export, err := b.Focus(t.Context(), b.customer, period(1, -1))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(export)).ReadAll()
	if err != nil || len(rows) != 1+3+2 {
		t.Fatalf("%d rows, %v:\n%s", len(rows), err, export)
	}
	for _, cells := range rows[1:] {
		row := focusRow{t, rows[0], cells}
		row.valid()
		if row.cell("ChargeCategory") == "Usage" {
			row.priced()
		} else if row.number("BilledCost").Sign() >= 0 {
			t.Errorf("a credit bills %s", row.cell("BilledCost"))
		}
	}
}
