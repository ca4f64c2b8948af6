package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"

	"github.com/danielgtaylor/huma/v2"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	closing "github.com/muster-gpu/muster/settlement/close"
	"github.com/muster-gpu/muster/settlement/soljournal"
)

// SOLJournal tells what the treasury's wallet spent in SOL; *soljournal.Service does.
type SOLJournal interface {
	Totals(ctx context.Context, span chain.Span) (soljournal.Totals, error)
	Lines(ctx context.Context, filter soljournal.Filter) ([]soljournal.Line, error)
	CSV(ctx context.Context, w io.Writer, span chain.Span) error
}

type (
	solJournalInput struct {
		OrgParam
		MonthQuery
	}
	solLinesInput struct {
		OrgParam
		MonthQuery
		PageParams
		Kind      string `query:"kind" enum:"base_fee,priority_fee,rent_out,rent_back,top_up,sent"`
		Signature string `query:"signature" maxLength:"88" doc:"Only this transaction's"`
	}
)

// MonthQuery names a month of the journal, or none for all time.
type MonthQuery struct {
	Month string `query:"month" maxLength:"7" example:"2026-11" doc:"Absent: from the first transaction on"`
}

func (s *Server) registerSOLJournal() {
	register(s, endpoint{
		id: "get-sol-journal", method: get, path: "/v1/finance/sol-journal", tag: tagFinance, summary: "What the treasury's wallet had and spent in SOL",
	}, s.getSOLJournal)
	register(s, endpoint{
		id: "list-sol-journal-lines", method: get, path: "/v1/finance/sol-journal/lines", tag: tagFinance,
		summary: "List fees, rent and top-ups of the treasury's wallet, newest first",
	}, s.listSOLLines)
	register(s, endpoint{
		id: "get-sol-journal-file", method: get, path: "/v1/finance/sol-journal/file", tag: tagFinance, summary: "The journal of the treasury's SOL as CSV, oldest first",
		success: map[string]*huma.Response{"200": {Description: "The table", Content: csvContent()}},
	}, s.getSOLJournalFile)
}

// span is the month that was asked for, or all time.
func (in MonthQuery) span() (chain.Span, error) {
	if in.Month == "" {
		return chain.Span{}, nil
	}
	month, err := closing.ParseMonth(in.Month)
	if err != nil {
		return chain.Span{}, errs.InvalidField("query.month", "%q is no month: write it as 2026-11", in.Month)
	}
	return month.Span(), nil
}

func lamports(a money.Amount) apiv1.Money { return moneyIn(soljournal.Currency, a) }

func (s *Server) getSOLJournal(ctx context.Context, in *solJournalInput) (*output[apiv1.SOLJournal], error) {
	span, err := in.span()
	if err != nil {
		return nil, err
	}
	totals, err := s.SOLJournal.Totals(ctx, span)
	if err != nil {
		return nil, err
	}
	return answer(apiv1.SOLJournal{
		Wallet: totals.Wallet, Month: in.Month, Opening: lamports(totals.Opening), Closing: lamports(totals.Closing), Transactions: totals.Transactions,
		Failed: totals.Failed, Totals: convert(totals.Kinds, func(k soljournal.KindTotal) apiv1.SOLTotal {
			return apiv1.SOLTotal{Kind: k.Kind, Amount: lamports(k.Lamports), Lines: k.Lines}
		}),
	}), nil
}

func (s *Server) listSOLLines(ctx context.Context, in *solLinesInput) (*output[apiv1.List[apiv1.SOLLine]], error) {
	span, err := in.span()
	if err != nil {
		return nil, err
	}
	before, err := readPlace(in.Cursor)
	if err != nil {
		return nil, err
	}
	lines, err := s.SOLJournal.Lines(ctx, soljournal.Filter{Span: span, Kind: in.Kind, Signature: in.Signature, Before: before, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	out := whole(lines, func(l soljournal.Line) apiv1.SOLLine {
		return apiv1.SOLLine{
			At: l.At, Slot: l.Slot, Signature: l.Signature, Failed: l.Failed, Kind: l.Kind, Amount: lamports(l.Lamports), Account: l.Other,
			Balance: lamports(l.After), Purpose: l.Subject, BatchID: optional(l.Batch), SweepID: optional(l.Sweep),
		}
	})
	if len(lines) == in.Limit {
		out.Body.NextCursor = cursorOfPlace(lines[len(lines)-1].Place)
	}
	return out, nil
}

func cursorOfPlace(p soljournal.Place) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d.%d", p.Seq, p.Ordinal))
}

// readPlace reads a cursor; the empty one is the beginning.
func readPlace(cursor string) (p soljournal.Place, err error) {
	if cursor == "" {
		return p, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		_, err = fmt.Sscanf(string(text), "%d.%d", &p.Seq, &p.Ordinal)
	}
	if err != nil || p.Seq <= 0 {
		return p, errs.InvalidField("query.cursor", "this is not a cursor of this list: give next_cursor of the page before")
	}
	return p, nil
}

func (s *Server) getSOLJournalFile(ctx context.Context, in *solJournalInput) (*documentOutput, error) {
	span, err := in.span()
	if err != nil {
		return nil, err
	}
	var data bytes.Buffer
	if err := s.SOLJournal.CSV(ctx, &data, span); err != nil {
		return nil, err
	}
	name := "muster_sol_journal.csv"
	if in.Month != "" {
		name = "muster_sol_journal_" + in.Month + ".csv"
	}
	return file(csvType, name, data.Bytes()), nil
}

// currencyOf is the currency of a difference's amounts: SOL's count lamports.
func (s *Server) currencyOf(mint string) money.Currency {
	if mint == soljournal.Currency.Mint {
		return soljournal.Currency
	}
	return s.Currency
}

func optionalMoneyIn(c money.Currency, a *money.Amount) *apiv1.Money {
	if a == nil {
		return nil
	}
	wire := moneyIn(c, *a)
	return &wire
}
