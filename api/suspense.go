package api

import (
	"context"
	"strings"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/sweeps"
)

// Sweeps is what the API needs of sweeps; *sweeps.Service is one.
type Sweeps interface {
	List(ctx context.Context, before ids.Sweep, limit int) ([]sweeps.Sweep, error)
}

// DepositParam names a deposit.
type DepositParam struct {
	ID ids.Deposit `path:"id" json:"-"`
}

type suspenseBody struct {
	OrgParam
	KeyParam
	DepositParam
	Body apiv1.SuspenseDecision `json:"body"`
}

func (s *Server) registerSuspense() {
	register(s, endpoint{
		id: "list-suspense", method: get, path: "/v1/finance/suspense", tag: tagFinance, summary: "Deposits that could not be credited, and what was decided",
	}, s.listSuspense)
	register(s, endpoint{
		id: "decide-suspense", method: post, path: "/v1/finance/suspense/{id}/decision", tag: tagFinance, summary: "Decide about a deposit in suspense",
		doc: "Tokens of a foreign mint can only be held. A refund goes out with the next payout run, by its preflight and approvals. " +
			"A decision that moved tokens is final; one to refund can be changed until a batch has it.", codes: []int{notFound},
	}, s.decideSuspense)
	register(s, endpoint{
		id: "list-sweeps", method: get, path: "/v1/finance/sweeps", tag: tagFinance, summary: "Deposits on their way to the treasury",
	}, s.listSweeps)
}

func (s *Server) listSuspense(ctx context.Context, in *orgListInput) (*output[apiv1.List[apiv1.Deposit]], error) {
	from, err := readCursor(ids.Deposit{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	rows, err := s.Deposits.Suspense(ctx, from, in.Limit)
	if err != nil {
		return nil, err
	}
	wire, err := s.suspenseWire(ctx, rows)
	if err != nil {
		return nil, err
	}
	return page(rows, in.Limit, func(d deposits.Deposit) ids.Deposit { return d.ID }, wire), nil
}

func (s *Server) decideSuspense(ctx context.Context, in *suspenseBody) (*output[apiv1.Deposit], error) {
	decision := deposits.Decision{Outcome: in.Body.Outcome, Note: strings.TrimSpace(in.Body.Note), By: callerOf(ctx).User}
	if in.Body.OrgID != nil {
		decision.Org = *in.Body.OrgID
	}
	decided, err := s.Deposits.Decide(ctx, in.ID, decision)
	if err != nil {
		return nil, err
	}
	wire, err := s.suspenseWire(ctx, []deposits.Deposit{decided})
	if err != nil {
		return nil, err
	}
	return answer(wire(decided)), nil
}

// suspenseWire shows deposits with who decided about them and their note, which customers are not shown.
func (s *Server) suspenseWire(ctx context.Context, rows []deposits.Deposit) (func(deposits.Deposit) apiv1.Deposit, error) {
	people := make([]ids.User, len(rows))
	for i, d := range rows {
		people[i] = d.DecidedBy
	}
	names, err := s.Identity.Names(ctx, people)
	if err != nil {
		return nil, err
	}
	return func(d deposits.Deposit) apiv1.Deposit {
		wire := wireDeposit(d)
		wire.Note, wire.DecidedBy = d.Note, names[d.DecidedBy]
		if !d.DecidedAt.IsZero() {
			wire.DecidedAt = &d.DecidedAt
		}
		return wire
	}, nil
}

func (s *Server) listSweeps(ctx context.Context, in *orgListInput) (*output[apiv1.List[apiv1.Sweep]], error) {
	from, err := readCursor(ids.Sweep{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	rows, err := s.Sweeps.List(ctx, from, in.Limit)
	if err != nil {
		return nil, err
	}
	return page(rows, in.Limit, func(w sweeps.Sweep) ids.Sweep { return w.ID }, s.wireSweep), nil
}

func (s *Server) wireSweep(w sweeps.Sweep) apiv1.Sweep {
	return apiv1.Sweep{
		ID: w.ID, OrgID: w.Org, Customer: w.Name, Amount: s.money(w.Amount), State: w.State, Reason: w.Reason, Attention: w.Attention,
		Signature: w.Signature, PlannedAt: w.PlannedAt, EndedAt: w.EndedAt, FeeLamports: w.Fee,
	}
}
