package proof_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/proof"
)

// forgetful is a real chain whose endpoint lacks some of an account's transactions.
type forgetful struct {
	*chain.Client
	lacks func(place int) bool
}

func (f forgetful) Walk(ctx context.Context, account chain.Address, span chain.Span, visit func(chain.Movement) error) error {
	place := 0
	return f.Client.Walk(ctx, account, span, func(m chain.Movement) error {
		place++
		if f.lacks(place) {
			return nil
		}
		return visit(m)
	})
}

func TestAHistoryThatLacksTransactionsIsNotVerified(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.honest()
	b.settle(b.earns(b.grace, other(5_000)))
	movements, err := b.chain.Client().Movements(t.Context(), b.chain.TreasuryTokenAccount, chain.Cursor{})
	check(t, err)
	last := len(movements)
	for name, c := range map[string]struct {
		lacks func(place int) bool
		says  string
	}{
		"the last one":      {func(place int) bool { return place == last }, "the last transaction of its history left"},
		"one in the middle": {func(place int) bool { return place == last-1 }, "but the one before it left"},
		"the older ones":    {func(place int) bool { return place < last }, "lacks what came before"},
	} {
		report, err := proof.Verify(t.Context(), forgetful{b.chain.Client(), c.lacks}, proof.Directory(b.dir), proof.Options{Treasury: b.chain.TreasuryTokenAccount})
		check(t, err)
		if d := report.Difference; report.Verified || d == nil || d.Kind != proof.BrokenHistory || !strings.Contains(d.Text, c.says) {
			t.Errorf("without %s: %+v", name, d)
		}
	}
	if report := b.verify(); !report.Verified || report.Opening != 0 {
		t.Errorf("with all of them: %+v", report.Difference)
	}
}

// retold lists manifests otherwise than they are.
type retold struct {
	proof.Source
	change func(all []proof.Summary) []proof.Summary
}

func (r retold) List(ctx context.Context, visit func(proof.Summary) error) error {
	var all []proof.Summary
	err := r.Source.List(ctx, func(s proof.Summary) error {
		all = append(all, s)
		return nil
	})
	for _, s := range r.change(all) {
		if err == nil {
			err = visit(s)
		}
	}
	return err
}

// TestAListThatDoesNotFitTheChainIsFound: manifests as such are all as they should be, but the list tells something else of them.
func TestAListThatDoesNotFitTheChainIsFound(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	void := b.seal(b.earns(b.ada, other(10_000)))
	void.State = proof.StateVoid
	b.publish(void)
	b.honest()
	last := b.settle(b.earns(b.grace, other(5_000)))
	if report := b.verify(); !report.Verified {
		t.Fatalf("before: %+v", report.Difference)
	}
	signature := b.sentAs[last.Manifest.Batch].String()
	edited := func(edit func(s *proof.Summary)) func([]proof.Summary) []proof.Summary {
		return func(all []proof.Summary) []proof.Summary { edit(&all[len(all)-1]); return all }
	}
	for name, c := range map[string]struct {
		change func([]proof.Summary) []proof.Summary
		kind   string
		says   string
	}{
		"the last is left out": {func(all []proof.Summary) []proof.Summary { return all[:len(all)-1] }, proof.BrokenChain, signature + " paid, is not in the list"},
		"nothing is listed":    {func([]proof.Summary) []proof.Summary { return nil }, proof.BrokenChain, "is not in the list"},
		"the first is left out": {
			func(all []proof.Summary) []proof.Summary { return all[1:] }, proof.BrokenChain, "follows manifest 0",
		},
		"the first is left out and the others are renumbered": {func(all []proof.Summary) []proof.Summary {
			for i := range all {
				all[i].Sequence--
			}
			all[1].Previous = ""
			return all[1:]
		}, proof.BrokenChain, "was signed for manifest 2"},
		"another root":          {edited(func(s *proof.Summary) { s.Root = void.Root }), proof.AlteredManifest, "the list gives manifest 4"},
		"a state that is none":  {edited(func(s *proof.Summary) { s.State = "settled" }), proof.WrongState, "no state of a manifest"},
		"another transaction":   {edited(func(s *proof.Summary) { s.Signature = b.sentAs[b.sealed[1].Manifest.Batch].String() }), proof.WrongState, signature + " paid it"},
		"no time of a payment":  {edited(func(s *proof.Summary) { s.PaidAt = nil }), "", ""}, // the chain has one
		"not known to be final": {edited(func(s *proof.Summary) { s.State, s.Signature, s.PaidAt = proof.StatePending, "", nil }), "", ""},
		"paid, but nobody knows when": {func(all []proof.Summary) []proof.Summary {
			all[0].State, all[0].Signature = proof.StatePaid, "none"
			return all
		}, proof.MissingTransaction, "no such transaction"},
	} {
		d := b.verifySource(retold{proof.Directory(b.dir), c.change}).Difference
		switch {
		case c.kind == "" && d != nil:
			t.Errorf("%s: %s: %s, want none", name, d.Kind, d.Text)
		case c.kind != "" && (d == nil || d.Kind != c.kind || !strings.Contains(d.Text, c.says)):
			t.Errorf("%s: %+v, want %s with %q", name, d, c.kind, c.says)
		}
	}
}

// TestABatchThatIsPaidMeanwhileIsNoDifference pays a batch after the list was read.
func TestABatchThatIsPaidMeanwhileIsNoDifference(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.honest()
	pending := b.seal(b.earns(b.ada, other(10_000)))
	pending.State = proof.StatePending
	b.publish(pending)
	paying := retold{proof.Directory(b.dir), func(all []proof.Summary) []proof.Summary {
		b.paid(pending, b.pay(pending))
		return all
	}}
	report := b.verifySource(paying)
	if !report.Verified || report.Batches != 3 {
		t.Errorf("%d batches: %+v", report.Batches, report.Difference)
	}
	// From a time on, the list may begin anywhere.
	only := retold{proof.Directory(b.dir), func(all []proof.Summary) []proof.Summary { return all[2:] }}
	report, err := proof.Verify(t.Context(), b.chain.Client(), only, proof.Options{
		Treasury: b.chain.TreasuryTokenAccount, Span: chain.Span{From: time.Now().Add(time.Hour)},
	})
	check(t, err)
	if !report.Verified {
		t.Errorf("from a time on: %+v", report.Difference)
	}
}
