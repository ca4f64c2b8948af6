package api

import (
	"context"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/reconcile"
)

type holdingsInput struct {
	OrgParam
	PageParams
	Kind string `query:"kind" enum:"settlement,foreign" doc:"Of the platform's token, or of others; absent: both"`
}

func (s *Server) registerHoldings() {
	register(s, endpoint{
		id: "list-holdings", method: get, path: "/v1/finance/holdings", tag: tagFinance,
		summary: "List token accounts of the platform's wallets that the ledger does not mirror, newest first",
		doc:     "As the newest runs saw them. Those of the platform's token are differences as well; those of other tokens are information and block nothing.",
	}, s.listHoldings)
}

func (s *Server) listHoldings(ctx context.Context, in *holdingsInput) (*output[apiv1.List[apiv1.TokenHolding]], error) {
	from, err := readCursor(ids.Holding{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	list, err := s.Reconciliations.Holdings(ctx, reconcile.HoldingFilter{Kind: in.Kind, Before: from, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	return page(list, in.Limit, func(h reconcile.Holding) ids.Holding { return h.ID }, wireHolding), nil
}

func wireHolding(h reconcile.Holding) apiv1.TokenHolding {
	kind := reconcile.KindForeign
	if h.Settlement {
		kind = reconcile.KindSettlement
	}
	return apiv1.TokenHolding{
		ID: h.ID, Kind: kind, Account: h.TokenAccount, Wallet: h.Wallet, OrgID: optional(h.Org), Customer: h.Customer, Mint: h.Mint,
		Program: h.Program, Decimals: h.Decimals, Amount: h.Amount, InSuspense: h.InSuspense, Deposits: h.Deposits, Present: h.Present,
		Frozen: h.Frozen, Delegate: h.Delegate, CloseAuthority: h.CloseAuthority, FirstSeen: h.FirstSeen, LastSeen: h.LastSeen,
		ChangedAt: h.ChangedAt, DifferenceID: optional(h.Difference), Note: h.Note(),
	}
}

func wireSurvey(s *reconcile.Survey) *apiv1.HoldingsSurvey {
	if s == nil {
		return nil
	}
	return &apiv1.HoldingsSurvey{
		Wallets: s.Wallets, Asked: s.Asked, Settlement: s.Settlement, Foreign: s.Foreign, LeftOut: s.LeftOut, TooMany: s.TooMany,
	}
}
