package api

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/proof"
	"github.com/muster-gpu/muster/settlement/proof/manifests"
)

// Manifests is what the API needs of payout manifests; *manifests.Service is one.
type Manifests interface {
	List(ctx context.Context, span manifests.Span, after ids.Batch, limit int) ([]proof.Summary, error)
	Published(ctx context.Context, batch ids.Batch) (*proof.Published, error)
	Inclusion(ctx context.Context, org ids.Org, payout ids.Payout) (manifests.Inclusion, error)
}

type manifestsInput struct {
	PageParams
	From time.Time `query:"from" doc:"Only what was sealed at this time or later"`
	To   time.Time `query:"to" doc:"Only what was sealed before this time"`
}

type manifestInput struct {
	Batch ids.Batch `path:"batch"`
}

type payoutInput struct {
	OrgParam
	Payout ids.Payout `path:"payout"`
}

func (s *Server) registerProof() {
	missing := []int{notFound}
	register(s, endpoint{
		id: "list-manifests", method: get, path: "/v1/public/manifests", tag: tagProof, summary: "Manifests of payout batches, oldest first",
		doc: "What `muster verify` compares with the chain. Needs no login.",
	}, s.listManifests)
	register(s, endpoint{
		id: "get-manifest", method: get, path: "/v1/public/manifests/{batch}", tag: tagProof, summary: "A batch's manifest: usage, payees and amounts",
		doc: "Public as soon as its transaction can be on the chain.", codes: missing,
	}, s.getManifest)
	register(s, endpoint{
		id: "get-payout-proof", method: get, path: "/v1/payouts/{payout}/proof", tag: tagProof,
		summary: "Proof that a payout is in its batch's manifest", doc: "The root is in the memo of the transaction.", codes: missing,
	}, s.getPayoutProof)
}

func (s *Server) listManifests(ctx context.Context, in *manifestsInput) (*output[apiv1.List[apiv1.ManifestSummary]], error) {
	after, err := readCursor(ids.Batch{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	if !in.To.IsZero() && !in.From.Before(in.To) {
		return nil, errs.InvalidField("query.to", "the period's end must be after its beginning")
	}
	rows, err := s.Manifests.List(ctx, manifests.Span{From: in.From, To: in.To}, after, in.Limit)
	if err != nil {
		return nil, err
	}
	return page(rows, in.Limit, func(m proof.Summary) ids.Batch { return m.Batch }, func(m proof.Summary) apiv1.ManifestSummary {
		return apiv1.ManifestSummary(m)
	}), nil
}

func (s *Server) getManifest(ctx context.Context, in *manifestInput) (*output[apiv1.PublishedManifest], error) {
	published, err := s.Manifests.Published(ctx, in.Batch)
	if err != nil {
		return nil, err
	}
	manifest, err := wireManifest[apiv1.Manifest](&published.Manifest)
	if err != nil {
		return nil, err
	}
	return answer(apiv1.PublishedManifest{
		Manifest: manifest, Root: published.Root, State: published.State, Signature: published.Signature,
		PaidAt: published.PaidAt, SealedAt: published.SealedAt,
	}), nil
}

func (s *Server) getPayoutProof(ctx context.Context, in *payoutInput) (*output[apiv1.PayoutProof], error) {
	found, err := s.Manifests.Inclusion(ctx, callerOf(ctx).org.Org, in.Payout)
	if err != nil {
		return nil, err
	}
	payout, err := wireManifest[apiv1.ManifestPayout](json.RawMessage(found.Proof.Leaf))
	if err != nil {
		return nil, err
	}
	return answer(apiv1.PayoutProof{
		PayoutID: in.Payout, BatchID: found.Batch, State: found.State, Signature: found.Signature, Memo: found.Memo, Payout: payout,
		Leaf: found.Proof.Leaf, Index: found.Proof.Index, Size: found.Proof.Size, Path: found.Proof.Path, Root: found.Proof.Root,
	}), nil
}

// wireManifest goes through JSON, in which both sides have the same form.
func wireManifest[T any](from any) (wire T, err error) {
	text, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(text, &wire)
	}
	if err != nil {
		return wire, fmt.Errorf("read manifest: %w", err)
	}
	return wire, nil
}
