package reconcile_test

import (
	"testing"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/reconcile"
)

// item is the only one there is.
func (b *bench) item(state string) reconcile.Item {
	b.Helper()
	items, err := b.Items(b.Context(), reconcile.Filter{})
	if err != nil || len(items) != 1 || items[0].State != state {
		b.Fatalf("the items are %+v, %v, want one that is %s", items, err, state)
	}
	return items[0]
}

func (b *bench) person() ids.User {
	b.Helper()
	user := ids.New[ids.User]()
	b.exec(`INSERT INTO users (id, wallet_address) VALUES ($1, $2)`, user, user.String())
	return user
}

func text(s string) *string { return &s }

// TestItemLivesAcrossRuns: one that is known is not doubled, one that has gone is closed, and one that came back is opened again.
func TestItemLivesAcrossRuns(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	person := b.person()
	signature := b.pay(token)
	b.reconcile()
	b.reconcile()
	item := b.item(reconcile.ItemOpen)
	if item.Signature != signature || item.Class != reconcile.ChainOnly || !item.Present {
		t.Errorf("the item is %+v", item)
	}
	if _, err := b.UpdateItem(t.Context(), item.ID, reconcile.Update{By: person, Resolution: text(reconcile.Waived)}); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("a resolution without a reason gave %v", err)
	}
	resolved, err := b.UpdateItem(t.Context(), item.ID, reconcile.Update{
		By: person, Owner: &person, Note: text("asked the bank"), Resolution: text(reconcile.ChainExplained), Reason: "a test transfer",
	})
	if err != nil || resolved.State != reconcile.ItemResolved || resolved.Owner != person || resolved.ResolvedBy != person || len(resolved.Changes) != 4 {
		t.Fatalf("the resolved item is %+v, %v", resolved, err)
	}
	b.reconcile()
	b.item(reconcile.ItemResolved)
	b.record("late", signature, token)
	b.wantDifferences()
	if item := b.item(reconcile.ItemResolved); item.Present {
		t.Error("a run without the difference left it present")
	}
	if err := audit.Verify(t.Context(), b.pool); err != nil {
		t.Error(err)
	}
	lines, err := audit.List(t.Context(), b.pool, 0, 0)
	if err != nil || len(lines) != 1 || lines[0].Subject != item.ID.String() {
		t.Errorf("the audit log has %+v, %v", lines, err)
	}
}

func TestItemThatWentAndCameBackIsOpenAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.pay(token)
	b.reconcile()
	b.exec(`UPDATE difference_items SET state = 'gone', present = false`) // as a run does that does not see it
	b.reconcile()
	item, err := b.Item(t.Context(), b.item(reconcile.ItemOpen).ID)
	if err != nil || len(item.Changes) != 2 || item.Changes[1].What != "opened again: it came back" {
		t.Errorf("the history is %+v, %v", item.Changes, err)
	}
}

// TestResolutionIsOfTheAmountsItWasGivenFor: a difference that changes is another question.
func TestResolutionIsOfTheAmountsItWasGivenFor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.pay(token)
	b.reconcile()
	update := reconcile.Update{By: b.person(), Resolution: text(reconcile.Waived), Reason: "too small"}
	if _, err := b.UpdateItem(t.Context(), b.item(reconcile.ItemOpen).ID, update); err != nil {
		t.Fatal(err)
	}
	b.exec(`UPDATE difference_items SET chain_amount = chain_amount + 1`)
	b.reconcile()
	b.item(reconcile.ItemOpen)
}
