package proof_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/proof"
)

// treeHash is RFC 6962's definition of a Merkle tree hash, as it is written there.
func treeHash(leaves [][]byte) [32]byte {
	if len(leaves) == 1 {
		return sha256.Sum256(append([]byte{0}, leaves[0]...))
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	left, right := treeHash(leaves[:k]), treeHash(leaves[k:])
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

func manifestOf(payouts int) *proof.Manifest {
	m := &proof.Manifest{Head: proof.Head{Version: proof.Version, Network: "net", Mint: "mint", Treasury: "treasury", Batch: ids.New[ids.Batch](), Sequence: 1}}
	for i := range payouts {
		m.Payouts = append(m.Payouts, proof.Payout{
			ID: ids.New[ids.Payout](), Purpose: proof.PurposeEarnings, Wallet: fmt.Sprintf("wallet %d", i), Amount: money.Amount(i + 1),
			Records: []proof.Record{}, Adjustments: []proof.Adjustment{{At: time.Unix(int64(i), 0).UTC(), Memo: "<correction> & more", Amount: money.Amount(i + 1)}},
		})
	}
	return m
}

func TestRootIsThatOfRFC6962(t *testing.T) {
	t.Parallel()
	for payouts := range 60 {
		m := manifestOf(payouts)
		leaves, err := m.Leaves()
		check(t, err)
		root, err := m.Root()
		check(t, err)
		if want := treeHash(leaves); len(leaves) != payouts+1 || root != want {
			t.Errorf("%d payouts: %d leaves, root %s, want %s", payouts, len(leaves), root, proof.Root(want))
		}
	}
}

func TestEachPayoutIsProvenAndNoOther(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := manifestOf(rapid.IntRange(1, 56).Draw(rt, "payouts"))
		i := rapid.IntRange(0, len(m.Payouts)-1).Draw(rt, "payout")
		included, err := m.Include(i)
		check(t, err)
		if err := included.Verify(); err != nil {
			rt.Fatalf("payout %d of %d: %v", i, len(m.Payouts), err)
		}
		var leaf proof.Payout
		check(t, json.Unmarshal([]byte(included.Leaf), &leaf))
		if leaf.ID != m.Payouts[i].ID {
			rt.Fatalf("the leaf is of %s", leaf.ID)
		}
		for name, forged := range map[string]proof.Inclusion{
			"another amount": {Leaf: strings.Replace(included.Leaf, `"amount":"`, `"amount":"9`, 1), Index: included.Index, Size: included.Size, Path: included.Path, Root: included.Root},
			"another place":  {Leaf: included.Leaf, Index: included.Index ^ 1, Size: included.Size, Path: included.Path, Root: included.Root},
			"a shorter path": {Leaf: included.Leaf, Index: included.Index, Size: included.Size, Path: included.Path[1:], Root: included.Root},
			"no such size":   {Leaf: included.Leaf, Index: included.Index, Size: -1, Path: included.Path, Root: included.Root},
		} {
			if forged.Verify() == nil {
				rt.Fatalf("%s was proven", name)
			}
		}
	})
	if _, err := manifestOf(2).Include(2); err == nil {
		t.Error("a payout that is not there was proven")
	}
}

func TestDocumentReadsBackToTheSameRoot(t *testing.T) {
	t.Parallel()
	m := manifestOf(3)
	document, err := m.Document()
	check(t, err)
	if !strings.Contains(string(document), `"memo":"<correction> & more"`) {
		t.Errorf("JSON escapes more than it must: %s", document)
	}
	var again proof.Manifest
	check(t, json.Unmarshal(document, &again))
	want, err := m.Root()
	check(t, err)
	if root, err := again.Root(); err != nil || root != want {
		t.Errorf("%s reads back with root %s, %v, want %s", document, root, err, want)
	}
}

func TestMemoReadsBack(t *testing.T) {
	t.Parallel()
	batch, root := ids.New[ids.Batch](), proof.Root(sha256.Sum256([]byte("a root")))
	memo := proof.Memo(batch, root)
	if gotBatch, gotRoot, err := proof.ParseMemo(memo); err != nil || gotBatch != batch || gotRoot != root {
		t.Errorf("%q reads as %s %s, %v", memo, gotBatch, gotRoot, err)
	}
	if len(memo) != len(batch.String())+1+43 {
		t.Errorf("the memo %q has %d characters", memo, len(memo))
	}
	for _, foreign := range []string{"", batch.String(), batch.String() + " ", memo + "A", memo[:len(memo)-1], "x " + root.String(), memo + "; " + memo, " " + root.String()} {
		if _, _, err := proof.ParseMemo(foreign); err == nil {
			t.Errorf("%q was read as a manifest's memo", foreign)
		}
	}
}

func TestLeastTimeCostsWhatWasCharged(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		price := money.Amount(rapid.Int64Range(1, 1e10).Draw(t, "price"))
		billed := rapid.Int64Range(0, 1e10).Draw(t, "billed")
		charged := money.Accrued(price, billed)
		least := proof.LeastMS(price, charged)
		if least > billed || money.Accrued(price, least) != charged || (least > 0 && money.Accrued(price, least-1) >= charged) {
			t.Fatalf("%d for %d ms at %d: %d ms cost %d", charged, billed, price, least, money.Accrued(price, least))
		}
	})
}

// TestRecordsOfALeaseAddUp: whatever the cuts, each record is sound and together they are the owner's part of the whole.
func TestRecordsOfALeaseAddUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		lease := ids.New[ids.Lease]()
		price, fee := money.Amount(rapid.Int64Range(1, 1e8).Draw(t, "price")), rapid.IntRange(0, 10_000).Draw(t, "fee")
		var sum, before money.Amount
		var ms int64
		for _, step := range rapid.SliceOfN(rapid.Int64Range(1, 1e8), 1, 20).Draw(t, "steps") {
			ms += step
			charged := money.Accrued(price, ms)
			if charged == before {
				continue
			}
			r := record(lease, price, fee, before, charged)
			if err := proof.CheckRecord(&r); err != nil {
				t.Fatal(err)
			}
			sum, before = sum+r.Amount, charged
		}
		if want := before - money.Share(before, fee); sum != want {
			t.Fatalf("the records come to %d, the owner's part is %d", sum, want)
		}
	})
}

func TestRecordsThatContradictThemselvesAreRefused(t *testing.T) {
	t.Parallel()
	good := record(ids.New[ids.Lease](), 2_000_000, 500, 500_000, 1_500_000)
	check(t, proof.CheckRecord(&good))
	for name, change := range map[string]func(*proof.Record){
		"price up":          func(r *proof.Record) { r.Price *= 2 },
		"price down":        func(r *proof.Record) { r.Price /= 2 },
		"price gone":        func(r *proof.Record) { r.Price = 0 },
		"more paid":         func(r *proof.Record) { r.Amount++ },
		"less paid":         func(r *proof.Record) { r.Amount-- },
		"share gone":        func(r *proof.Record) { r.FeeBPS = 0 },
		"share above all":   func(r *proof.Record) { r.FeeBPS = 10_001 },
		"more charged":      func(r *proof.Record) { r.ChargedAfter++ },
		"less charged":      func(r *proof.Record) { r.ChargedBefore-- },
		"longer":            func(r *proof.Record) { r.ToMS += 10 },
		"earlier":           func(r *proof.Record) { r.FromMS -= 10 },
		"backwards":         func(r *proof.Record) { r.FromMS, r.ToMS = r.ToMS, r.FromMS },
		"before the start":  func(r *proof.Record) { r.FromMS = -1 },
		"negative charge":   func(r *proof.Record) { r.ChargedBefore = -1 },
		"beyond arithmetic": func(r *proof.Record) { r.Price, r.ToMS = 1<<62, 1<<62 },
	} {
		bad := good
		change(&bad)
		if proof.CheckRecord(&bad) == nil {
			t.Errorf("%s: %+v was accepted", name, bad)
		}
	}
}

// record is the piece of a lease between two charges.
func record(lease ids.Lease, price money.Amount, fee int, before, after money.Amount) proof.Record {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	return proof.Record{
		Lease: lease, From: at, To: at.Add(time.Hour), FromMS: proof.LeastMS(price, before), ToMS: proof.LeastMS(price, after), Price: price, FeeBPS: fee,
		ChargedBefore: before, ChargedAfter: after, Amount: after - money.Share(after, fee) - before + money.Share(before, fee),
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
