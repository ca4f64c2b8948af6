package api

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	closing "github.com/muster-gpu/muster/settlement/close"
	"github.com/muster-gpu/muster/settlement/reconcile"
)

// Reconciliations compares ledger and chain; *reconcile.Service is one.
type Reconciliations interface {
	Reconcile(ctx context.Context, by ids.User) (reconcile.Reconciliation, error)
	ReconcileFully(ctx context.Context, by ids.User) (reconcile.Reconciliation, error)
	List(ctx context.Context, before ids.Reconciliation, limit int) ([]reconcile.Reconciliation, error)
	Get(ctx context.Context, id ids.Reconciliation) (reconcile.Reconciliation, error)
	Items(ctx context.Context, filter reconcile.Filter) ([]reconcile.Item, error)
	Item(ctx context.Context, id ids.Difference) (reconcile.Item, error)
	UpdateItem(ctx context.Context, id ids.Difference, update reconcile.Update) (reconcile.Item, error)
	Holdings(ctx context.Context, filter reconcile.HoldingFilter) ([]reconcile.Holding, error)
}

// Periods closes months and writes their files; *close.Service is one.
type Periods interface {
	Close(ctx context.Context, month closing.Month, by ids.User) (closing.Closing, error)
	Reopen(ctx context.Context, month closing.Month, by ids.User, reason string) (bool, error)
	Closings(ctx context.Context) ([]closing.Closing, error)
	Closing(ctx context.Context, month closing.Month) (closing.Closing, error)
	Check(ctx context.Context, c closing.Closing) (bool, error)
	Cryptio(ctx context.Context, w io.Writer, month closing.Month) error
	QuickBooks(ctx context.Context, w io.Writer, month closing.Month) error
	Xero(ctx context.Context, w io.Writer, month closing.Month) error
	QuickBooksSOL(ctx context.Context, w io.Writer, month closing.Month) error
	XeroSOL(ctx context.Context, w io.Writer, month closing.Month) error
	Audit(ctx context.Context, w io.Writer, filter audit.Filter) error
	Report(w io.Writer, c closing.Closing, names map[ids.User]string, intact bool) error
}

type (
	reconcileInput struct {
		OrgParam
		KeyParam
		Full bool `query:"full" doc:"Walk every account from its first transaction, not from what was found equal before"`
	}
	differencesInput struct {
		OrgParam
		PageParams
		State string   `query:"state" enum:"open,resolved,gone"`
		Owner ids.User `query:"owner" doc:"Who looks into them"`
	}
	differenceInput struct {
		OrgParam
		ID ids.Difference `path:"id"`
	}
	differenceMutation struct {
		OrgParam
		KeyParam
		ID   ids.Difference         `path:"id" json:"id"`
		Body apiv1.DifferenceUpdate `json:"body"`
	}
	periodInput struct {
		OrgParam
		MonthParam
	}
	periodMutation struct {
		OrgParam
		KeyParam
		Month string             `path:"month" json:"month" maxLength:"7" example:"2026-11"`
		Body  apiv1.PeriodReopen `json:"body"`
	}
	periodFileInput struct {
		OrgParam
		MonthParam
		Format string `path:"format" enum:"cryptio,quickbooks,xero,quickbooks-sol,xero-sol" doc:"Whose columns; -sol: the journal of the treasury's SOL"`
	}
	auditFileInput struct {
		OrgParam
		AuditParams
	}
	auditInput struct {
		OrgParam
		AuditParams
		Before int64 `query:"before" minimum:"0" doc:"Lines before this one; 0 or absent: the newest"`
		Limit  int   `query:"limit" minimum:"1" maximum:"200" default:"50"`
	}
)

// MonthParam names a month in the path.
type MonthParam struct {
	Month string `path:"month" maxLength:"7" example:"2026-11"`
}

// AuditParams say which lines of the audit log are wanted.
type AuditParams struct {
	Person  string    `query:"person" maxLength:"100" doc:"Part of the name of who did it"`
	Action  string    `query:"action" maxLength:"100" example:"batch.approve"`
	Subject string    `query:"subject" maxLength:"100" doc:"The id of what it was done to"`
	From    time.Time `query:"from" doc:"Only what was done at this time or later"`
	To      time.Time `query:"to" doc:"Only what was done before this time"`
}

func (s *Server) registerReconciliation() {
	missing := []int{notFound}
	conflict := []int{http.StatusConflict}
	register(s, endpoint{id: "list-reconciliations", method: get, path: "/v1/finance/reconciliations", tag: tagFinance, summary: "List reconciliations"}, s.listReconciliations)
	register(s, endpoint{
		id: "run-reconciliation", method: post, path: "/v1/finance/reconciliations", tag: tagFinance,
		summary: "Compare the ledger with the chain", status: created, codes: []int{http.StatusServiceUnavailable},
	}, s.runReconciliation)
	register(s, endpoint{
		id: "get-reconciliation", method: get, path: "/v1/finance/reconciliations/{id}", tag: tagFinance,
		summary: "Read a reconciliation", codes: missing,
	}, s.getReconciliation)
	s.registerHoldings()
	register(s, endpoint{
		id: "list-differences", method: get, path: "/v1/finance/differences", tag: tagFinance, summary: "List differences as work items, newest first",
	}, s.listDifferences)
	register(s, endpoint{
		id: "get-difference", method: get, path: "/v1/finance/differences/{id}", tag: tagFinance, summary: "Read a difference and its history", codes: missing,
	}, s.getDifference)
	register(s, endpoint{
		id: "update-difference", method: http.MethodPatch, path: "/v1/finance/differences/{id}", tag: tagFinance,
		summary: "Take a difference on, note something about it, or resolve it", codes: []int{notFound, http.StatusConflict},
	}, s.updateDifference)
	register(s, endpoint{id: "list-periods", method: get, path: "/v1/finance/periods", tag: tagFinance, summary: "List closed months, newest first"}, s.listPeriods)
	register(s, endpoint{
		id: "close-period", method: post, path: "/v1/finance/periods", tag: tagFinance, summary: "Close a month and freeze its figures",
		doc: "Refused while differences are open, or without a whole reconciliation made after its end.", status: created, codes: conflict,
	}, s.closePeriod)
	register(s, endpoint{
		id: "get-period", method: get, path: "/v1/finance/periods/{month}", tag: tagFinance, summary: "Read a closed month, and whether the ledger still says the same",
		codes: missing,
	}, s.getPeriod)
	register(s, endpoint{
		id: "reopen-period", method: post, path: "/v1/finance/periods/{month}/reopen", tag: tagFinance,
		summary: "Ask for a closed month to be opened again, or agree", doc: "The second person's request opens it.", codes: conflict,
	}, s.reopenPeriod)
	register(s, endpoint{
		id: "get-period-report", method: get, path: "/v1/finance/periods/{month}/report", tag: tagFinance, summary: "A closed month as a page to print",
		success: map[string]*huma.Response{"200": {
			Description: "The page", Content: map[string]*huma.MediaType{htmlType: {Schema: &huma.Schema{Type: huma.TypeString}}},
		}}, codes: missing,
	}, s.getPeriodReport)
	register(s, endpoint{
		id: "get-period-file", method: get, path: "/v1/finance/periods/{month}/files/{format}", tag: tagFinance,
		summary: "A month for accounting tools", doc: "Also of a month that is not closed, as far as it has come.",
		success: map[string]*huma.Response{"200": {Description: "The table", Content: csvContent()}},
	}, s.getPeriodFile)
	register(s, endpoint{id: "list-audit-log", method: get, path: "/v1/finance/audit-log", tag: tagFinance, summary: "Who did what in finance, newest first"}, s.listAuditLog)
	register(s, endpoint{
		id: "get-audit-file", method: get, path: "/v1/finance/audit-log/file", tag: tagFinance, summary: "The audit log as CSV, oldest first",
		doc:     "Its whole chain of hashes is checked first, also the lines that a filter leaves out. A filtered file says so in its name and in a row before the columns' names.",
		success: map[string]*huma.Response{"200": {Description: "The table", Content: csvContent()}},
	}, s.getAuditFile)
}

func (s *Server) listReconciliations(ctx context.Context, in *orgListInput) (*output[apiv1.List[apiv1.Reconciliation]], error) {
	from, err := readCursor(ids.Reconciliation{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	runs, err := s.Reconciliations.List(ctx, from, in.Limit)
	if err != nil {
		return nil, err
	}
	return page(runs, in.Limit, func(r reconcile.Reconciliation) ids.Reconciliation { return r.ID }, s.wireReconciliation), nil
}

func (s *Server) runReconciliation(ctx context.Context, in *reconcileInput) (*output[apiv1.Reconciliation], error) {
	reconcile := s.Reconciliations.Reconcile
	if in.Full {
		reconcile = s.Reconciliations.ReconcileFully
	}
	run, err := reconcile(ctx, callerOf(ctx).User)
	if err != nil {
		return nil, err
	}
	return answer(s.wireReconciliation(run)), nil
}

func (s *Server) getReconciliation(ctx context.Context, in *reconciliationInput) (*output[apiv1.Reconciliation], error) {
	run, err := s.Reconciliations.Get(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return answer(s.wireReconciliation(run)), nil
}

func (s *Server) wireReconciliation(r reconcile.Reconciliation) apiv1.Reconciliation {
	return apiv1.Reconciliation{
		ID: r.ID, StartedAt: r.StartedAt, FinishedAt: r.FinishedAt, State: r.State, Reason: r.Reason, Slot: r.Slot, Matched: r.Matched,
		DifferenceCount: r.DifferenceCount, Holdings: wireSurvey(r.Survey),
		Accounts: convert(r.Accounts, func(a reconcile.Account) apiv1.ReconciledAccount {
			return apiv1.ReconciledAccount{
				Name: a.Name, Address: a.TokenAccount, In: s.money(a.In), Out: s.money(a.Out), ChainClosing: s.money(a.ChainClosing),
				LedgerClosing: s.money(a.LedgerClosing), Transactions: a.Transactions, Continuous: a.Continuous,
			}
		}),
		Wallets: convert(r.Wallets, func(w reconcile.Wallet) apiv1.ReconciledWallet {
			return apiv1.ReconciledWallet{
				Name: w.Name, Address: w.Address, Balance: lamports(w.Lamports), Journal: lamports(w.Journal), Transactions: w.Transactions, Continuous: w.Continuous,
				Behind: w.Behind,
			}
		}),
		Differences: convert(r.Differences, func(d reconcile.Difference) apiv1.Difference {
			return apiv1.Difference{
				Class: d.Class, Account: d.TokenAccount, Signature: d.Signature, Ledger: optionalMoneyIn(s.currencyOf(d.Mint), d.Ledger),
				Chain: optionalMoneyIn(s.currencyOf(d.Mint), d.Chain), At: d.At, Text: d.Text,
			}
		}),
	}
}

func (s *Server) listDifferences(ctx context.Context, in *differencesInput) (*output[apiv1.List[apiv1.DifferenceItem]], error) {
	from, err := readCursor(ids.Difference{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	items, err := s.Reconciliations.Items(ctx, reconcile.Filter{State: in.State, Owner: in.Owner, Before: from, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	wire, err := s.itemWriter(ctx, items...)
	if err != nil {
		return nil, err
	}
	return page(items, in.Limit, func(i reconcile.Item) ids.Difference { return i.ID }, wire), nil
}

func (s *Server) getDifference(ctx context.Context, in *differenceInput) (*output[apiv1.DifferenceItem], error) {
	item, err := s.Reconciliations.Item(ctx, in.ID)
	return s.difference(ctx, item, err)
}

func (s *Server) updateDifference(ctx context.Context, in *differenceMutation) (*output[apiv1.DifferenceItem], error) {
	by := callerOf(ctx).User
	update := reconcile.Update{By: by, Note: in.Body.Note, Resolution: in.Body.Resolution, Reason: in.Body.Reason}
	if in.Body.Take != nil {
		update.Owner = &ids.User{}
		if *in.Body.Take {
			update.Owner = &by
		}
	}
	item, err := s.Reconciliations.UpdateItem(ctx, in.ID, update)
	return s.difference(ctx, item, err)
}

func (s *Server) difference(ctx context.Context, item reconcile.Item, err error) (*output[apiv1.DifferenceItem], error) {
	if err != nil {
		return nil, err
	}
	wire, err := s.itemWriter(ctx, item)
	if err != nil {
		return nil, err
	}
	return answer(wire(item)), nil
}

// itemWriter looks up the people of some items once, and returns how to write each.
func (s *Server) itemWriter(ctx context.Context, items ...reconcile.Item) (func(reconcile.Item) apiv1.DifferenceItem, error) {
	var people []ids.User
	for _, i := range items {
		people = append(people, i.Owner, i.ResolvedBy)
		for _, c := range i.Changes {
			people = append(people, c.By)
		}
	}
	names, err := s.Identity.Names(ctx, people)
	if err != nil {
		return nil, err
	}
	return func(i reconcile.Item) apiv1.DifferenceItem {
		return apiv1.DifferenceItem{
			ID: i.ID, Difference: apiv1.Difference{
				Class: i.Class, Account: i.TokenAccount, Signature: i.Signature, Ledger: optionalMoneyIn(s.currencyOf(i.Mint), i.Ledger),
				Chain: optionalMoneyIn(s.currencyOf(i.Mint), i.Chain), At: i.At, Text: i.Text,
			},
			State: i.State, Present: i.Present, Entry: i.EntryKey, OwnerID: optional(i.Owner), Owner: names[i.Owner], Note: i.Note,
			Resolution: i.Resolution, Reason: i.Reason, ResolvedBy: names[i.ResolvedBy], FirstSeen: i.FirstSeen, LastSeen: i.LastSeen,
			Changes: convert(i.Changes, func(c reconcile.Change) apiv1.DifferenceChange {
				return apiv1.DifferenceChange{At: c.At, By: names[c.By], ReconciliationID: optional(c.Run), What: c.What}
			}),
		}
	}, nil
}

func (s *Server) listPeriods(ctx context.Context, _ *orgInput) (*output[apiv1.List[apiv1.ClosedPeriod]], error) {
	closings, err := s.Periods.Closings(ctx)
	if err != nil {
		return nil, err
	}
	names, err := s.closingNames(ctx, closings...)
	if err != nil {
		return nil, err
	}
	return whole(closings, func(c closing.Closing) apiv1.ClosedPeriod { return s.wirePeriodClosing(c, names, nil) }), nil
}

func (s *Server) closePeriod(ctx context.Context, in *orgBody[apiv1.PeriodClose]) (*output[apiv1.ClosedPeriod], error) {
	month, err := closing.ParseMonth(in.Body.Month)
	if err != nil {
		return nil, errs.InvalidField("body.month", "%q is no month: write it as 2026-11", in.Body.Month)
	}
	if _, err := s.Periods.Close(ctx, month, callerOf(ctx).User); err != nil {
		return nil, err
	}
	return s.period(ctx, month)
}

func (s *Server) getPeriod(ctx context.Context, in *periodInput) (*output[apiv1.ClosedPeriod], error) {
	month, err := closing.ParseMonth(in.Month)
	if err != nil {
		return nil, err
	}
	return s.period(ctx, month)
}

func (s *Server) period(ctx context.Context, month closing.Month) (*output[apiv1.ClosedPeriod], error) {
	c, names, intact, err := s.checkedClosing(ctx, month)
	if err != nil {
		return nil, err
	}
	wire := s.wirePeriodClosing(c, names, &intact)
	wire.Accounts = convert(c.Figures.Chart(), func(t closing.ChartTotal) apiv1.PeriodAccount {
		return apiv1.PeriodAccount{
			Code: t.Code, Name: t.Name, Organisations: t.Organisations, Opening: s.money(t.Opening), Debits: s.money(t.Debits), Credits: s.money(t.Credits),
			Closing: s.money(t.Closed),
		}
	})
	return answer(wire), nil
}

// checkedClosing is a closing with its people's names, and whether the ledger still says the same.
func (s *Server) checkedClosing(ctx context.Context, month closing.Month) (c closing.Closing, names map[ids.User]string, intact bool, err error) {
	if c, err = s.Periods.Closing(ctx, month); err != nil {
		return c, nil, false, err
	}
	if names, err = s.closingNames(ctx, c); err != nil {
		return c, nil, false, err
	}
	intact, err = s.Periods.Check(ctx, c)
	return c, names, intact, err
}

func (s *Server) closingNames(ctx context.Context, closings ...closing.Closing) (map[ids.User]string, error) {
	var people []ids.User
	for _, c := range closings {
		people = append(people, c.ClosedBy, c.ReopenAskedBy, c.ReopenedBy)
	}
	return s.Identity.Names(ctx, people)
}

func (s *Server) wirePeriodClosing(c closing.Closing, names map[ids.User]string, intact *bool) apiv1.ClosedPeriod {
	state := "closed"
	if c.ReopenedAt != nil {
		state = "reopened"
	}
	return apiv1.ClosedPeriod{
		Month: c.Month.String(), State: state, ClosedAt: c.ClosedAt, ClosedBy: names[c.ClosedBy], ReconciliationID: c.Reconciliation,
		SHA256: hex.EncodeToString(c.SHA256), Entries: c.Figures.Entries, Debits: s.money(c.Figures.Debits), Credits: s.money(c.Figures.Credits),
		Intact: intact, ReopenReason: c.ReopenReason, ReopenAskedBy: names[c.ReopenAskedBy], ReopenedBy: names[c.ReopenedBy], ReopenedAt: c.ReopenedAt,
	}
}

func (s *Server) reopenPeriod(ctx context.Context, in *periodMutation) (*output[apiv1.List[apiv1.ClosedPeriod]], error) {
	month, err := closing.ParseMonth(in.Month)
	if err != nil {
		return nil, err
	}
	if _, err := s.Periods.Reopen(ctx, month, callerOf(ctx).User, in.Body.Reason); err != nil {
		return nil, err
	}
	return s.listPeriods(ctx, nil)
}

func (s *Server) getPeriodReport(ctx context.Context, in *periodInput) (*documentOutput, error) {
	month, err := closing.ParseMonth(in.Month)
	if err != nil {
		return nil, err
	}
	c, names, intact, err := s.checkedClosing(ctx, month)
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	if err := s.Periods.Report(&page, c, names, intact); err != nil {
		return nil, err
	}
	return report("muster_"+month.String()+".html", page.Bytes()), nil
}

func (s *Server) getPeriodFile(ctx context.Context, in *periodFileInput) (*documentOutput, error) {
	month, err := closing.ParseMonth(in.Month)
	if err != nil {
		return nil, err
	}
	write := map[string]func(context.Context, io.Writer, closing.Month) error{
		"cryptio": s.Periods.Cryptio, "quickbooks": s.Periods.QuickBooks, "xero": s.Periods.Xero, "quickbooks-sol": s.Periods.QuickBooksSOL, "xero-sol": s.Periods.XeroSOL,
	}[in.Format]
	var data bytes.Buffer
	if err := write(ctx, &data, month); err != nil {
		return nil, err
	}
	return file(csvType, "muster_"+in.Format+"_"+month.String()+".csv", data.Bytes()), nil
}

func (in AuditParams) filter() audit.Filter {
	return audit.Filter{Person: strings.TrimSpace(in.Person), Action: in.Action, Subject: strings.TrimSpace(in.Subject), From: in.From, Until: in.To}
}

func (s *Server) listAuditLog(ctx context.Context, in *auditInput) (*output[apiv1.List[apiv1.AuditLine]], error) {
	lines, err := audit.Find(ctx, s.Pool, in.filter(), in.Before, in.Limit)
	if err != nil {
		return nil, err
	}
	people := make([]ids.User, len(lines))
	for i, l := range lines {
		people[i] = l.By
	}
	names, err := s.Identity.Names(ctx, people)
	if err != nil {
		return nil, err
	}
	out := whole(lines, func(l audit.Line) apiv1.AuditLine {
		return apiv1.AuditLine{
			Seq: l.Seq, At: l.At, By: names[l.By], Action: l.Action, Subject: l.Subject, Details: l.Details, Hash: hex.EncodeToString(l.Hash),
		}
	})
	if len(lines) == in.Limit {
		out.Body.NextCursor = strconv.FormatInt(lines[len(lines)-1].Seq, 10)
	}
	return out, nil
}

func (s *Server) getAuditFile(ctx context.Context, in *auditFileInput) (*documentOutput, error) {
	var data bytes.Buffer
	err := s.Periods.Audit(ctx, &data, in.filter())
	if audit.IsBroken(err) {
		return nil, errs.New(errs.Conflict, "%s: do not rely on it", err)
	}
	if err != nil {
		return nil, err
	}
	name := "muster_audit_log.csv"
	if in.filter() != (audit.Filter{}) {
		name = "muster_audit_log_filtered.csv"
	}
	return file(csvType, name, data.Bytes()), nil
}

// file answers with a file to keep.
func file(kind, name string, data []byte) *documentOutput {
	return &documentOutput{Body: func(hctx huma.Context) {
		hctx.SetHeader("Content-Type", kind+"; charset=utf-8")
		hctx.SetHeader("Content-Disposition", `attachment; filename="`+name+`"`)
		hctx.SetStatus(http.StatusOK)
		_, _ = hctx.BodyWriter().Write(data)
	}}
}
