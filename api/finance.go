package api

import (
	"context"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/payouts"
)

// stateDraft is of a batch that waits for approval.
const stateDraft = "draft"

func (s *Server) getPayable(ctx context.Context, _ *orgInput) (*output[apiv1.PayableSummary], error) {
	payable, err := s.Payouts.Payable(ctx)
	if err != nil {
		return nil, err
	}
	return answer(apiv1.PayableSummary{
		Total: s.money(payable.Total), Minimum: s.money(payable.Minimum), Payees: convert(payable.Payees, s.wirePayee),
		LeftOut: convert(payable.LeftOut, s.wirePayee), Treasury: s.optionalMoney(payable.Treasury),
	}), nil
}

type batchesInput struct {
	OrgParam
	PageParams
	Run   ids.PayoutRun `query:"run" doc:"Only this run's"`
	State string        `query:"state" enum:"draft,approved,signed,sent,cancelling,finalized,failed,frozen,cancelled"`
}

func (s *Server) listBatches(ctx context.Context, in *batchesInput) (*output[apiv1.List[apiv1.Batch]], error) {
	from, err := readCursor(ids.Batch{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	batches, err := s.Payouts.Batches(ctx, payouts.BatchFilter{Run: in.Run, State: in.State}, payouts.Page[ids.Batch]{Before: from, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	wire, err := s.batchWriter(ctx, batches...)
	if err != nil {
		return nil, err
	}
	return page(batches, in.Limit, func(b payouts.Batch) ids.Batch { return b.ID }, wire), nil
}

func (s *Server) draftBatches(ctx context.Context, _ *orgMutation) (*output[apiv1.List[apiv1.Batch]], error) {
	drafted, err := s.Payouts.Draft(ctx, callerOf(ctx).User)
	if err != nil {
		return nil, err
	}
	batches := make([]payouts.Batch, len(drafted))
	for i, id := range drafted {
		if batches[i], err = s.Payouts.Batch(ctx, id); err != nil {
			return nil, err
		}
	}
	wire, err := s.batchWriter(ctx, batches...)
	if err != nil {
		return nil, err
	}
	return whole(batches, wire), nil
}

func (s *Server) getBatch(ctx context.Context, in *batchInput) (*output[apiv1.Batch], error) {
	return s.batch(ctx, in.ID)
}

func (s *Server) approveBatch(ctx context.Context, in *batchMutation) (*output[apiv1.Batch], error) {
	if err := s.Payouts.Approve(ctx, in.ID, callerOf(ctx).User); err != nil {
		return nil, err
	}
	return s.batch(ctx, in.ID)
}

func (s *Server) batch(ctx context.Context, id ids.Batch) (*output[apiv1.Batch], error) {
	batch, err := s.Payouts.Batch(ctx, id)
	if err != nil {
		return nil, err
	}
	write, err := s.batchWriter(ctx, batch)
	if err != nil {
		return nil, err
	}
	wire := write(batch)
	if wire.State == stateDraft {
		wire.ApproveObstacle, err = s.Payouts.WhyNotApprove(ctx, &batch, callerOf(ctx).User)
	}
	return answer(wire), err
}

// batchWriter looks up the people of some batches once, and returns how to write each.
func (s *Server) batchWriter(ctx context.Context, batches ...payouts.Batch) (func(payouts.Batch) apiv1.Batch, error) {
	people := make([]ids.User, 0, 2*len(batches))
	for _, b := range batches {
		people = append(people, b.People()...)
	}
	names, err := s.Identity.Names(ctx, people)
	if err != nil {
		return nil, err
	}
	caller := callerOf(ctx).User
	return func(b payouts.Batch) apiv1.Batch { return s.wireBatch(b, names, caller) }, nil
}

func (s *Server) wireBatch(b payouts.Batch, names map[ids.User]string, caller ids.User) apiv1.Batch {
	wire := apiv1.Batch{
		ID: b.ID, State: b.State, StateReason: b.StateReason, RunID: optional(b.Run), Total: s.money(b.Total), PayeeCount: b.PayeeCount,
		CreatedAt: b.DraftedAt, DraftedBy: names[b.DraftedBy], ApprovedBy: names[b.ApprovedBy], ApprovedAt: b.ApprovedAt, SentAt: b.SentAt,
		FinalizedAt: b.FinalizedAt, Signature: b.Signature, Slot: b.Slot, FeeLamports: b.FeeLamports, RentLamports: b.RentLamports, Memo: b.Memo,
		NonceAccount: b.NonceAccount, NonceValue: b.NonceValue, ApprovalsNeeded: b.ApprovalsNeeded, NonceConsumedAt: b.NonceConsumedAt,
		Payouts: convert(b.Payouts, s.wirePayout),
	}
	if wire.StateReason == "" {
		wire.StateReason = b.Attention
	}
	for _, a := range b.Approvals {
		wire.Approvals = append(wire.Approvals, apiv1.BatchApproval{By: names[a.By], At: a.At})
	}
	if c := b.Cancellation; c != nil {
		wire.Cancellation = &apiv1.BatchCancellation{
			AskedBy: names[c.AskedBy], AskedAt: c.AskedAt, Signature: c.Signature, SentAt: c.SentAt, Slot: c.Slot, FeeLamports: c.FeeLamports,
		}
	}
	if r := b.Resolution; r != nil {
		wire.Resolution = &apiv1.BatchResolution{
			Outcome: r.Outcome, Signature: r.Signature, Note: r.Note, ProposedBy: names[r.ProposedBy], ProposedAt: r.ProposedAt,
			ConfirmedBy: names[r.ConfirmedBy], ConfirmedAt: r.ConfirmedAt, Own: r.ProposedBy == caller,
		}
	}
	return wire
}

func (s *Server) wirePayout(p payouts.Payout) apiv1.Payout {
	return apiv1.Payout{
		ID: p.ID, BatchID: p.Batch, OrgID: p.Org, Payee: p.Name, Address: p.Wallet, TokenAccount: p.TokenAccount,
		Amount: s.money(p.Amount), Purpose: p.Purpose, State: p.State, Signature: p.Signature, FinalizedAt: p.FinalizedAt,
	}
}

func (s *Server) wirePayee(p payouts.Payee) apiv1.Payee {
	return apiv1.Payee{OrgID: p.Org, Name: p.Name, Purpose: p.Purpose, Address: p.Address, Amount: s.money(p.Amount), Reason: p.Reason}
}

func (s *Server) optionalMoney(a *money.Amount) *apiv1.Money {
	return optionalMoneyIn(s.Currency, a)
}
