package manifests_test

import (
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/proof"
	"github.com/muster-gpu/muster/settlement/proof/manifests"
)

// piece is what matters of a record.
type piece struct {
	lease         ids.Lease
	before, after money.Amount
}

func pieces(m *proof.Manifest) map[piece]bool {
	found := map[piece]bool{}
	for _, r := range m.Payouts[0].Records {
		found[piece{r.Lease, r.ChargedBefore, r.ChargedAfter}] = true
	}
	return found
}

func wantPieces(t *testing.T, m *proof.Manifest, want ...piece) {
	t.Helper()
	have := pieces(m)
	for _, p := range want {
		if !have[p] {
			t.Errorf("the manifest lacks %+v: %+v", p, m.Payouts[0].Records)
		}
	}
	if len(m.Payouts[0].Records) != len(want) {
		t.Errorf("%d records, want %d: %+v", len(m.Payouts[0].Records), len(want), m.Payouts[0].Records)
	}
}

// cost is what a lease is charged for some time.
func cost(d time.Duration) money.Amount { return money.Accrued(price, d.Milliseconds()) }

func TestChargesBecomeOneRecordALease(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	one, two := b.lease(), b.lease()
	for _, total := range []time.Duration{time.Second, 7 * time.Second, 61 * time.Second} {
		b.used(one, total)
	}
	b.used(two, 1234*time.Millisecond)
	first := b.draft(b.payable()).pays()
	wantPieces(t, first.manifest(), piece{one, 0, cost(61 * time.Second)}, piece{two, 0, cost(1234 * time.Millisecond)})
	if m := first.manifest(); m.Sequence != 1 || m.Previous != "" || len(m.Payouts[0].Adjustments) != 0 {
		t.Errorf("the first manifest: %+v", m)
	}

	b.used(one, 100*time.Second)
	second := b.draft(b.payable())
	wantPieces(t, second.manifest(), piece{one, cost(61 * time.Second), cost(100 * time.Second)})
	root, err := first.manifest().Root()
	b.check(err)
	if m := second.manifest(); m.Sequence != 2 || m.Previous != root.String() {
		t.Errorf("the second manifest is %d on %q, want 2 on %s", m.Sequence, m.Previous, root)
	}
}

// TestLaterChargesWait: the amount is read before the batch is stored, and charges go on meanwhile.
func TestLaterChargesWait(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	lease := b.lease()
	b.used(lease, 10*time.Second)
	amount := b.payable()
	b.used(lease, 11*time.Second)
	first := b.draft(amount).pays()
	wantPieces(t, first.manifest(), piece{lease, 0, cost(10 * time.Second)})
	b.used(lease, 20*time.Second)
	wantPieces(t, b.draft(b.payable()).manifest(), piece{lease, cost(10 * time.Second), cost(20 * time.Second)})
}

func TestABatchThatPaidNothingGivesItsRecordsBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	lease := b.lease()
	b.used(lease, 10*time.Second)
	void := b.draft(b.payable()).fails()
	b.used(lease, 20*time.Second)
	second := b.draft(b.payable())
	wantPieces(t, second.manifest(), piece{lease, 0, cost(20 * time.Second)})
	if m := second.manifest(); m.Sequence != 2 {
		t.Errorf("the manifest of a batch that paid nothing keeps its number: the next is %d", m.Sequence)
	}
	published, err := b.Published(t.Context(), void.id)
	b.check(err)
	if published.State != proof.StateVoid || published.Signature != "" {
		t.Errorf("it is published as %+v", published)
	}
}

func TestCorrectionsAreListedWithTheirMemo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	lease := b.lease()
	b.used(lease, 10*time.Second)
	payable, capital := ledger.Of(ledger.OwnerPayable, b.owner), ledger.Platform(ledger.PlatformCapital)
	b.post("bonus", "correction", "A bonus for November", ledger.Leg{Debit: capital, Credit: payable, Amount: 5_000})
	b.post("credit", "correction", "A degraded hour", ledger.Leg{Debit: payable, Credit: capital, Amount: 12})
	m := b.draft(b.payable()).pays().manifest()
	wantPieces(t, m, piece{lease, 0, cost(10 * time.Second)})
	adjustments := m.Payouts[0].Adjustments
	if len(adjustments) != 2 || adjustments[0].Memo != "A bonus for November" || adjustments[0].Amount != 5_000 ||
		adjustments[1].Memo != "A degraded hour" || adjustments[1].Amount != -12 {
		t.Errorf("adjustments: %+v", adjustments)
	}
	b.used(lease, 20*time.Second)
	if again := b.draft(b.payable()).manifest().Payouts[0].Adjustments; len(again) != 0 {
		t.Errorf("they are listed once more: %+v", again)
	}
}

// TestWhatNoStretchComesToIsCarried: an amount that was never the balance.
func TestWhatNoStretchComesToIsCarried(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	lease := b.lease()
	b.used(lease, 10*time.Second)
	whole := b.payable()
	first := b.draft(whole - 1_000).pays().manifest().Payouts[0].Adjustments
	if len(first) != 1 || first[0].Amount != -1_000 {
		t.Errorf("carried to the next: %+v", first)
	}
	b.used(lease, 20*time.Second)
	m := b.draft(b.payable()).pays().manifest()
	wantPieces(t, m, piece{lease, cost(10 * time.Second), cost(20 * time.Second)})
	if a := m.Payouts[0].Adjustments; len(a) != 1 || a[0].Amount != 1_000 {
		t.Errorf("carried from the last: %+v", a)
	}
}

// TestManifestsBeginBehindOlderPayouts: those that were paid before there were manifests.
func TestManifestsBeginBehindOlderPayouts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	lease := b.lease()
	b.used(lease, 10*time.Second)
	b.store(b.payable(), false).pays()
	b.used(lease, 15*time.Second)
	wantPieces(t, b.draft(b.payable()).manifest(), piece{lease, cost(10 * time.Second), cost(15 * time.Second)})
}

func TestMoreThanTheLedgerOwesIsNotSealed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	lease := b.lease()
	b.used(lease, 10*time.Second)
	first := b.draft(b.payable()).pays()
	// As if somebody had put it back in the table: the entry is missing, so the ledger explains nothing.
	b.post("in", ledger.KindPayoutReturn, "", ledger.Leg{
		Debit: ledger.Of(ledger.PayoutInFlight, b.owner), Credit: ledger.Of(ledger.OwnerPayable, b.owner), Amount: first.amount,
	})
	tx, err := b.pool.Begin(t.Context())
	b.check(err)
	defer func() { b.check(tx.Rollback(t.Context())) }()
	id := b.store(first.amount, false).id
	if memo, err := b.Seal(t.Context(), tx, id); err == nil {
		t.Errorf("sealed as %s", memo)
	}
}

func TestPublication(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	lease := b.lease()
	b.used(lease, 10*time.Second)
	d := b.draft(b.payable())
	if _, err := b.Published(t.Context(), d.id); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("a draft's manifest is public: %v", err)
	}
	list, err := b.List(t.Context(), manifests.Span{}, ids.Batch{}, 0)
	b.check(err)
	if len(list) != 1 || list[0].State != proof.StatePending || list[0].Batch != d.id || list[0].Signature != "" {
		t.Errorf("the list: %+v", list)
	}
	d.signed()
	published, err := b.Published(t.Context(), d.id)
	b.check(err)
	root, err := published.Manifest.Root()
	b.check(err)
	if published.State != proof.StatePending || published.Root != root.String() {
		t.Errorf("once signed: %+v", published)
	}
	b.exec(`UPDATE payout_batches SET state = 'finalized', finalized_at = now() WHERE id = $1`, d.id)
	b.exec(`UPDATE payouts SET live = false WHERE batch_id = $1`, d.id)
	if published, err = b.Published(t.Context(), d.id); err != nil || published.State != proof.StatePaid || published.Signature == "" || !published.PaidAt.Equal(base) {
		t.Errorf("once final: %+v, %v", published, err)
	}
	for name, span := range map[string]manifests.Span{"past": {To: base.AddDate(-9, 0, 0)}, "future": {From: base.AddDate(99, 0, 0)}} {
		if list, err := b.List(t.Context(), span, ids.Batch{}, 0); err != nil || len(list) != 0 {
			t.Errorf("%s: %+v, %v", name, list, err)
		}
	}
	if list, err := b.List(t.Context(), manifests.Span{}, d.id, 0); err != nil || len(list) != 0 {
		t.Errorf("behind the last: %+v, %v", list, err)
	}
	if _, err := b.Published(t.Context(), ids.New[ids.Batch]()); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("an unknown batch: %v", err)
	}
}

func TestInclusionIsForThePayeeAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	lease := b.lease()
	b.used(lease, 10*time.Second)
	d := b.draft(b.payable()).pays()
	found, err := b.Inclusion(t.Context(), b.owner, d.payout)
	b.check(err)
	b.check(found.Proof.Verify())
	if found.Memo != d.memo || found.Batch != d.id || found.Signature == "" || found.State != proof.StatePaid {
		t.Errorf("the proof: %+v", found)
	}
	if _, err := b.Inclusion(t.Context(), b.customer, d.payout); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("another organisation: %v", err)
	}
}

func TestManifestsDoNotChange(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	lease := b.lease()
	b.used(lease, 10*time.Second)
	b.draft(b.payable())
	for _, sql := range []string{
		`UPDATE manifests SET document = '{}'`, `DELETE FROM manifest_payouts`, `UPDATE manifest_payouts SET through_seq = 0`, `TRUNCATE manifests CASCADE`,
	} {
		if _, err := b.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s went through", sql)
		}
	}
}
