package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/statements"
)

const (
	csvType   = "text/csv"
	csvFormat = "csv"
)

// Statements is what the API needs of statements; *statements.Service is one.
type Statements interface {
	Customer(ctx context.Context, org ids.Org, period statements.Period) (statements.Customer, error)
	Owner(ctx context.Context, org ids.Org, period statements.Period) (statements.Owner, error)
	Focus(ctx context.Context, org ids.Org, period statements.Period) ([]byte, error)
	CSV(statements.Customer) []byte
	OwnerCSV(statements.Owner) []byte
}

// Fees is the platform's fee schedule; *statements.Fees is one.
type Fees interface {
	List(ctx context.Context) ([]statements.Rate, error)
	Add(ctx context.Context, rate statements.Rate) (statements.Rate, error)
}

// PeriodParams choose the days of a statement.
type PeriodParams struct {
	From string `query:"from" json:"-" pattern:"^\\d{4}-\\d{2}-\\d{2}$" patternDescription:"a date" example:"2026-11-01" doc:"First UTC day; the first of this month when absent"`
	To   string `query:"to" json:"-" pattern:"^\\d{4}-\\d{2}-\\d{2}$" patternDescription:"a date" example:"2026-12-01" doc:"The day after the last one; a month after from when absent"`
}

type (
	statementInput struct {
		OrgParam
		PeriodParams
		Format string `query:"format" enum:"json,csv" doc:"What to answer with; the Accept header decides when absent"`
		Accept string `header:"Accept" maxLength:"1000" doc:"text/csv for a table"`
	}
	focusInput struct {
		OrgParam
		PeriodParams
	}
)

// documentOutput is an answer that its handler writes itself, in one of several forms.
type documentOutput struct{ Body func(huma.Context) }

func (s *Server) registerStatements() {
	tooLarge := []int{http.StatusRequestEntityTooLarge}
	register(s, endpoint{
		id: "get-statement", method: get, path: "/v1/statements", tag: tagWallet, summary: "What a customer was charged in a period, and why",
		doc:     "JSON, or CSV for spreadsheets. Opening balance and lines come to the closing balance, to the base unit.",
		success: documentOf[apiv1.Statement](s.huma), codes: tooLarge,
	}, s.getStatement)
	register(s, endpoint{
		id: "get-focus-export", method: get, path: "/v1/statements/focus", tag: tagWallet, summary: "A customer's costs for FinOps tools",
		doc:     "A FOCUS " + statements.FocusVersion + " cost export as CSV: a row for each lease and UTC day, and one for each credit. The same data gives the same bytes.",
		success: map[string]*huma.Response{"200": {Description: "The table", Content: csvContent()}}, codes: tooLarge,
	}, s.getFocusExport)
	register(s, endpoint{
		id: "get-earnings-statement", method: get, path: "/v1/earnings/statement", tag: tagHosts, summary: "What an owner earned in a period, and what was paid out",
		doc:     "JSON, or CSV for spreadsheets. What was owed before and all lines come to what is owed after, to the base unit.",
		success: documentOf[apiv1.EarningsStatement](s.huma), codes: tooLarge,
	}, s.getEarningsStatement)
	register(s, endpoint{id: "list-fees", method: get, path: "/v1/finance/fees", tag: tagFinance, summary: "The platform's fees, now, before and to come"}, s.listFees)
	register(s, endpoint{
		id: "create-fee", method: post, path: "/v1/finance/fees", tag: tagFinance, summary: "Change the platform's fee from now or a later time on",
		doc: "For all customers, or for one. What has been quoted and booked keeps the fee that it was made with.", status: created,
	}, s.createFee)
}

// documentOf describes an answer that is a T as JSON, or a table.
func documentOf[T any](api huma.API) map[string]*huma.Response {
	content := csvContent()
	content[jsonType] = &huma.MediaType{Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")}
	return map[string]*huma.Response{"200": {Description: "The statement", Content: content}}
}

func csvContent() map[string]*huma.MediaType {
	return map[string]*huma.MediaType{csvType: {Schema: &huma.Schema{Type: huma.TypeString}}}
}

// period reads the days of a request.
func (p PeriodParams) period() (statements.Period, error) {
	period := statements.Month(time.Now())
	var err error
	if p.From != "" {
		if period.From, err = time.Parse(time.DateOnly, p.From); err != nil {
			return period, errs.InvalidField("query.from", "%s is not a date", p.From)
		}
		period.To = period.From.AddDate(0, 1, 0)
	}
	if p.To != "" {
		if period.To, err = time.Parse(time.DateOnly, p.To); err != nil {
			return period, errs.InvalidField("query.to", "%s is not a date", p.To)
		}
	}
	return period, period.Validate()
}

// wantsCSV reports whether a table is asked for. JSON is what is given to those who take both alike.
func (in *statementInput) wantsCSV() bool {
	if in.Format != "" {
		return in.Format == csvFormat
	}
	for accepted := range strings.SplitSeq(in.Accept, ",") {
		kind, _, _ := strings.Cut(strings.TrimSpace(accepted), ";")
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case csvType:
			return true
		case jsonType, "application/*", "*/*":
			return false
		}
	}
	return false
}

// table answers with a file.
func table(name string, period statements.Period, data []byte) *documentOutput {
	file := fmt.Sprintf("%s_%s_%s.csv", name, period.From.Format(time.DateOnly), period.To.Format(time.DateOnly))
	return &documentOutput{Body: func(hctx huma.Context) {
		hctx.SetHeader("Content-Type", csvType+"; charset=utf-8; header=present")
		hctx.SetHeader("Content-Disposition", `attachment; filename="`+file+`"`)
		hctx.SetStatus(http.StatusOK)
		_, _ = hctx.BodyWriter().Write(data)
	}}
}

// document answers with JSON.
func document(wire any) (*documentOutput, error) {
	data, err := json.Marshal(wire)
	if err != nil {
		return nil, fmt.Errorf("write the answer: %w", err)
	}
	return &documentOutput{Body: func(hctx huma.Context) {
		hctx.SetHeader("Content-Type", jsonType)
		hctx.SetStatus(http.StatusOK)
		_, _ = hctx.BodyWriter().Write(append(data, '\n'))
	}}, nil
}

func (s *Server) getStatement(ctx context.Context, in *statementInput) (*documentOutput, error) {
	period, err := in.period()
	if err != nil {
		return nil, err
	}
	statement, err := s.Statements.Customer(ctx, callerOf(ctx).org.Org, period)
	if err != nil {
		return nil, err
	}
	if in.wantsCSV() {
		return table("statement", period, s.Statements.CSV(statement)), nil
	}
	return document(s.wireStatement(statement))
}

func (s *Server) getFocusExport(ctx context.Context, in *focusInput) (*documentOutput, error) {
	period, err := in.period()
	if err != nil {
		return nil, err
	}
	data, err := s.Statements.Focus(ctx, callerOf(ctx).org.Org, period)
	if err != nil {
		return nil, err
	}
	return table("focus", period, data), nil
}

func (s *Server) getEarningsStatement(ctx context.Context, in *statementInput) (*documentOutput, error) {
	period, err := in.period()
	if err != nil {
		return nil, err
	}
	statement, err := s.Statements.Owner(ctx, callerOf(ctx).org.Org, period)
	if err != nil {
		return nil, err
	}
	if in.wantsCSV() {
		return table("earnings", period, s.Statements.OwnerCSV(statement)), nil
	}
	return document(s.wireEarningsStatement(statement))
}

func wirePeriod(h statements.Head) apiv1.Period {
	return apiv1.Period{OrgID: h.Org, Name: h.Name, From: h.From, To: h.To, MadeAt: h.Made, Open: h.Open()}
}

func (s *Server) wireStatement(c statements.Customer) apiv1.Statement {
	balance := func(b statements.Balance) apiv1.StatementBalance {
		return apiv1.StatementBalance{Available: s.money(b.Available), Held: s.money(b.Held), Total: s.money(b.Total())}
	}
	return apiv1.Statement{
		Period: wirePeriod(c.Head), Opening: balance(c.Opening), Closing: balance(c.Closing),
		Totals: apiv1.StatementTotals{
			Deposits: s.money(c.Totals.Deposits), Withdrawals: s.money(c.Totals.Withdrawals), Charges: s.money(c.Totals.Charges),
			Credits: s.money(c.Totals.Credits), Other: s.money(c.Totals.Other), NotCharged: s.money(c.Totals.NotCharged),
			GPUMilliseconds: c.Totals.MS, GPUHours: statements.Hours(c.Totals.MS),
		},
		Clusters: convert(c.Clusters, s.wireStatementCluster), Movements: convert(c.Movements, s.wireMovement), Holds: convert(c.Holds, s.wireMovement),
		ChargeDays: c.ChargeDays,
	}
}

func (s *Server) wireStatementCluster(c statements.Cluster) apiv1.StatementCluster {
	return apiv1.StatementCluster{
		ClusterID: c.ID, Name: c.Name, GPUModel: c.GPUModel, GPUMilliseconds: c.MS, GPUHours: statements.Hours(c.MS), Charged: s.money(c.Charged),
		NotCharged: s.money(c.NotCharged), Credits: convert(c.Credits, s.wireStatementCredit),
		Leases: convert(c.Leases, func(l statements.Lease) apiv1.StatementLease {
			return apiv1.StatementLease{
				LeaseID: l.ID, HostID: l.Host, Region: l.Region, PricePerGPUHour: s.money(l.Price), GPUMilliseconds: l.MS,
				GPUHours: statements.Hours(l.MS), Charged: s.money(l.Charged),
			}
		}),
	}
}

func (s *Server) wireStatementCredit(c statements.Credit) apiv1.StatementCredit {
	return apiv1.StatementCredit{
		LeaseID: c.Lease, From: c.From.UTC(), To: c.To.UTC(), GPUMilliseconds: c.MS, Amount: s.money(c.Amount), FaultParty: c.Party, Reason: c.Reason,
	}
}

func (s *Server) wireMovement(m statements.Movement) apiv1.StatementMovement {
	return apiv1.StatementMovement{
		ID: m.ID, At: m.At, Kind: m.Kind, Text: m.Text, Amount: s.money(m.Amount), ClusterID: optional(m.Cluster), BatchID: optional(m.Batch), Signature: m.Signature,
	}
}

func (s *Server) wireEarningsStatement(o statements.Owner) apiv1.EarningsStatement {
	owed := func(w statements.Owed) apiv1.EarningsBalance {
		return apiv1.EarningsBalance{Payable: s.money(w.Payable), InFlight: s.money(w.InFlight), Total: s.money(w.Total())}
	}
	return apiv1.EarningsStatement{
		Period: wirePeriod(o.Head), Opening: owed(o.Opening), Closing: owed(o.Closing),
		Totals: apiv1.EarningsTotals{
			Gross: s.money(o.Totals.Gross), Fee: s.money(o.Totals.Fee), Net: s.money(o.Totals.Net()), Paid: s.money(o.Totals.Paid),
			Other: s.money(o.Totals.Other), NotEarned: s.money(o.Totals.NotEarned), GPUMilliseconds: o.Totals.MS, GPUHours: statements.Hours(o.Totals.MS),
		},
		Hosts: convert(o.Hosts, s.wireEarningsLineHost), Movements: convert(o.Movements, s.wireMovement),
		Payouts: convert(o.Payouts, func(m statements.Movement) apiv1.EarningsPayout {
			return apiv1.EarningsPayout{BatchID: optional(m.Batch), At: m.At, Kind: m.Kind, Amount: s.money(m.Amount), Signature: m.Signature}
		}),
	}
}

func (s *Server) wireEarningsLineHost(h statements.OwnerHost) apiv1.EarningsLineHost {
	return apiv1.EarningsLineHost{
		HostID: h.ID, Name: h.Name, GPUMilliseconds: h.MS, GPUHours: statements.Hours(h.MS), Gross: s.money(h.Gross), Fee: s.money(h.Fee),
		Net: s.money(h.Net()), NotEarned: s.money(h.NotEarned), Credits: convert(h.Credits, s.wireStatementCredit),
		Leases: convert(h.Leases, func(l statements.Lease) apiv1.EarningsLease {
			return apiv1.EarningsLease{
				LeaseID: l.ID, GPUModel: l.GPUModel, PricePerGPUHour: s.money(l.Price), FeeBps: l.FeeBps, GPUMilliseconds: l.MS,
				GPUHours: statements.Hours(l.MS), Gross: s.money(l.Charged), Fee: s.money(l.Fee), Net: s.money(l.Net()),
			}
		}),
	}
}

func (s *Server) listFees(ctx context.Context, _ *orgInput) (*output[apiv1.List[apiv1.FeeRate]], error) {
	rates, err := s.Fees.List(ctx)
	if err != nil {
		return nil, err
	}
	wire, err := s.rateWriter(ctx, rates...)
	if err != nil {
		return nil, err
	}
	return whole(rates, wire), nil
}

func (s *Server) createFee(ctx context.Context, in *orgBody[apiv1.FeeCreate]) (*output[apiv1.FeeRate], error) {
	rate := statements.Rate{Bps: in.Body.FeeBps, Note: strings.TrimSpace(in.Body.Note), CreatedBy: callerOf(ctx).User}
	if in.Body.OrgID != nil {
		rate.Org = *in.Body.OrgID
	}
	if in.Body.ValidFrom != nil {
		rate.ValidFrom = *in.Body.ValidFrom
	}
	added, err := s.Fees.Add(ctx, rate)
	if err != nil {
		return nil, err
	}
	wire, err := s.rateWriter(ctx, added)
	if err != nil {
		return nil, err
	}
	return answer(wire(added)), nil
}

// rateWriter looks up the people of some rows once, and returns how to write each.
func (s *Server) rateWriter(ctx context.Context, rates ...statements.Rate) (func(statements.Rate) apiv1.FeeRate, error) {
	people := make([]ids.User, len(rates))
	for i, r := range rates {
		people[i] = r.CreatedBy
	}
	names, err := s.Identity.Names(ctx, people)
	if err != nil {
		return nil, err
	}
	return func(r statements.Rate) apiv1.FeeRate {
		return apiv1.FeeRate{
			OrgID: optional(r.Org), Organisation: r.Name, FeeBps: r.Bps, Percent: strconv.FormatFloat(percent(r.Bps), 'f', 2, 64), ValidFrom: r.ValidFrom,
			State: r.State, Note: r.Note, CreatedAt: r.CreatedAt, CreatedBy: names[r.CreatedBy],
		}
	}, nil
}
