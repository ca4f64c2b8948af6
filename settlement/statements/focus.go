package statements

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// FocusVersion is the version of the FinOps Open Cost and Usage Specification that exports follow.
const FocusVersion = "1.4"

const (
	focusService   = "Ray clusters"
	focusCategory  = "Compute"
	focusResource  = "Ray cluster"
	focusIssuer    = "Muster"
	focusUnit      = "GPU-Hours"
	focusUsage     = "Usage"
	focusCredit    = "Credit"
	focusStandard  = "Standard"
	focusFrequency = "Usage-Based"
	focusOneTime   = "One-Time"
)

// focusColumns are those of the specification, in its order, and then ours.
var focusColumns = []string{
	"BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
	"ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
	"ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost", "HostProviderName", "InvoiceId",
	"InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory", "PricingCurrency", "PricingQuantity", "PricingUnit",
	"RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory", "ServiceName", "ServiceProviderName",
	"SkuId", "SkuMeter", "SkuPriceId", "Tags",
	"x_BilledBaseUnits", "x_ClusterId", "x_GpuMilliseconds", "x_HostId", "x_LeaseId", "x_TokenMint", "x_TokenSymbol", "x_TransferId",
}

// dollars are tokens that stand for a dollar each. FOCUS bills in a national currency; for these one token is written as one dollar, and
// every row names the token.
var dollars = map[string]bool{"USDC": true}

// usageDay is what one lease was charged on one day.
type usageDay struct {
	Lease    ids.Lease
	Cluster  ids.Cluster
	Name     string
	Host     ids.Host
	Region   string
	GPUModel string
	Price    money.Amount
	Owner    string
	Day      time.Time
	MS       int64
	Charged  money.Amount
}

// Focus is a customer's cost export: a row for each lease and day, and one for each movement of money back. Deposits are no cost, and what
// was not charged is in no row.
func (s *Service) Focus(ctx context.Context, org ids.Org, period Period) ([]byte, error) {
	if err := period.Validate(); err != nil {
		return nil, err
	}
	var statement Customer
	var days []usageDay
	err := s.snapshot(ctx, func(tx pgx.Tx) (err error) {
		if statement, err = s.customer(ctx, tx, org, period); err != nil {
			return err
		}
		days, err = s.usageDays(ctx, tx, statement)
		return err
	})
	if err != nil {
		return nil, err
	}
	table := newSheet(focusColumns...)
	for _, d := range days {
		table.add(s.focusUsageRow(statement.Head, d))
	}
	for _, m := range statement.Movements {
		if m.Kind == kindCredit {
			table.add(s.focusCreditRow(statement.Head, m))
		}
	}
	return table.bytes(), nil
}

// usageDays reads the days of a statement.
func (s *Service) usageDays(ctx context.Context, tx pgx.Tx, c Customer) ([]usageDay, error) {
	rows, err := tx.Query(ctx, `
		SELECT l.id, l.cluster_id, c.name, l.host_id, h.region, g.model, l.price_per_gpu_hour, o.name, d.day, d.billed_ms, d.charged
		FROM lease_days d
		JOIN leases l ON l.id = d.lease_id
		JOIN clusters c ON c.id = l.cluster_id
		JOIN hosts h ON h.id = l.host_id
		JOIN gpus g ON g.id = l.gpu_id
		JOIN organisations o ON o.id = d.owner_org_id
		WHERE d.customer_org_id = $1 AND d.day >= $2 AND d.day < $3
		ORDER BY d.day, l.cluster_id, l.id LIMIT $4`, c.Org, c.From, c.To, MaxLines+1)
	if err != nil {
		return nil, fmt.Errorf("read days: %w", err)
	}
	days, err := pgx.CollectRows(rows, pgx.RowToStructByPos[usageDay])
	if err != nil {
		return nil, fmt.Errorf("read days: %w", err)
	}
	if len(days) > MaxLines {
		return nil, tooMuch("rows")
	}
	var charged money.Amount
	for _, d := range days {
		charged += d.Charged
	}
	if charged != c.Totals.Charges {
		return nil, s.mismatch(ctx, c.Head, "charges of the export", charged, c.Totals.Charges)
	}
	return days, nil
}

// focusBase is what every row of an export has.
func (s *Service) focusBase(h Head, at time.Time, cost string) map[string]string {
	month := Month(at)
	issuer, currency := Cell(focusIssuer), s.currency.Symbol
	if dollars[currency] {
		currency = "USD"
	}
	return map[string]string{
		"BillingAccountId": h.Org.String(), "BillingAccountName": Cell(h.Name), "BillingCurrency": Cell(currency),
		"BillingPeriodStart": stamp(month.From), "BillingPeriodEnd": stamp(month.To),
		"BilledCost": cost, "EffectiveCost": cost, "ContractedCost": cost, "ListCost": cost, "PricingCurrency": Cell(s.currency.Symbol),
		"InvoiceIssuerName": issuer, "ServiceProviderName": issuer, "HostProviderName": issuer,
		"ServiceCategory": focusCategory, "ServiceName": focusService, "Tags": "{}",
		"x_TokenMint": Cell(s.currency.Mint), "x_TokenSymbol": Cell(s.currency.Symbol),
	}
}

func (s *Service) focusUsageRow(h Head, d usageDay) map[string]string {
	row := s.focusBase(h, d.Day, s.currency.Format(d.Charged))
	price, sku := s.currency.Format(d.Price), "gpu-"+d.GPUModel
	tags, err := json.Marshal(map[string]string{"cluster": d.Name})
	if err != nil {
		panic(err) // text always has a JSON form
	}
	for column, value := range map[string]string{
		"ChargeCategory": focusUsage, "ChargeFrequency": focusFrequency,
		"ChargeDescription": Cell(fmt.Sprintf("%s in %s, cluster %s", d.GPUModel, d.Region, d.Name)),
		"ChargePeriodStart": stamp(d.Day), "ChargePeriodEnd": stamp(d.Day.Add(day)),
		"ConsumedQuantity": Hours(d.MS), "ConsumedUnit": focusUnit, "PricingQuantity": Hours(d.MS), "PricingUnit": focusUnit,
		"PricingCategory": focusStandard, "ContractedUnitPrice": price, "ListUnitPrice": price,
		"HostProviderName": Cell(d.Owner), "RegionId": Cell(d.Region), "RegionName": Cell(d.Region),
		"SkuId": Cell(sku), "SkuMeter": "GPU time", "SkuPriceId": Cell(sku + "@" + price), "Tags": string(tags),
		"x_BilledBaseUnits": strconv.FormatInt(int64(d.Charged), 10), "x_ClusterId": d.Cluster.String(),
		"x_GpuMilliseconds": strconv.FormatInt(d.MS, 10), "x_HostId": d.Host.String(), "x_LeaseId": d.Lease.String(),
	} {
		row[column] = value
	}
	nameResource(row, d.Cluster, d.Name)
	return row
}

// focusCreditRow is money that came back. Its cost is negative, as the specification wants it: a number, not a formula.
func (s *Service) focusCreditRow(h Head, m Movement) map[string]string {
	row := s.focusBase(h, m.At, s.currency.Format(-m.Amount))
	from := m.At.Truncate(day)
	for column, value := range map[string]string{
		"ChargeCategory": focusCredit, "ChargeFrequency": focusOneTime, "ChargeDescription": Cell(m.Text),
		"ChargePeriodStart": stamp(from), "ChargePeriodEnd": stamp(from.Add(day)),
		"x_ClusterId": idText(m.Cluster), "x_TransferId": m.ID.String(),
		"x_BilledBaseUnits": strconv.FormatInt(int64(-m.Amount), 10),
	} {
		row[column] = value
	}
	if !m.Cluster.IsZero() {
		nameResource(row, m.Cluster, m.Name)
	}
	return row
}

// nameResource says which cluster a row is about.
func nameResource(row map[string]string, cluster ids.Cluster, name string) {
	row["ResourceId"], row["ResourceName"], row["ResourceType"] = cluster.String(), Cell(name), focusResource
}
