package proof_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/proof"
)

func TestHonestBooksPass(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.honest()
	_, err := b.chain.MintTo(t.Context(), b.chain.Treasury, 1_000) // funding comes in
	check(t, err)
	b.settle(b.earns(b.ada, b.used(900_001, 2_000_000)))
	var checked []proof.Checked
	report, err := proof.Verify(t.Context(), b.chain.Client(), proof.Directory(b.dir), proof.Options{
		Treasury: b.chain.TreasuryTokenAccount, Progress: func(c proof.Checked) { checked = append(checked, c) },
	})
	check(t, err)
	if !report.Verified || report.Difference != nil {
		t.Fatalf("the honest run does not pass: %+v", report.Difference)
	}
	if report.Batches != 3 || report.Payouts != 5 || report.Records != 5 || report.Adjustments != 1 || report.Adjusted != -7 || report.Withdrawals != 555 ||
		report.Opening+report.In-report.Out != report.Closing || report.Earnings+report.Withdrawals != report.Out || report.Mint != b.chain.Mint.String() {
		t.Errorf("the report: %+v", report)
	}
	if len(checked) != 3 || checked[0].Batch != b.sealed[0].Manifest.Batch || checked[2].Signature != b.sealed[2].Signature {
		t.Errorf("progress: %+v", checked)
	}
}

// TestEachFraudIsFoundAndNamed plants one fraud after two honest batches, pays an honest batch after it, and verifies.
func TestEachFraudIsFoundAndNamed(t *testing.T) {
	t.Parallel()
	// what names the transaction that the difference is to name; says are words that its text has.
	type fraud struct {
		plant func(b *books) (what chain.Signature)
		kind  string
		says  string
	}
	for name, f := range map[string]fraud{
		"an extra payee": {func(b *books) chain.Signature {
			p := b.seal(b.earns(b.ada, other(10_000)))
			return b.send(p.Manifest.Batch.String()+" "+p.Root, append(paymentsOf(p), payment{b.mallory.account, 4_321})...)
		}, proof.ExtraPayee, "paid 4321 base units"},
		"a changed amount": {func(b *books) chain.Signature {
			p := b.seal(b.earns(b.ada, other(10_000)))
			return b.send(p.Manifest.Batch.String()+" "+p.Root, payment{b.ada.account, 9_501})
		}, proof.WrongAmount, "is of 9500 base units in the manifest"},
		"a missing batch": {func(b *books) chain.Signature {
			p := b.settle(b.earns(b.ada, other(10_000)))
			check(b.t, os.Remove(b.file(p)))
			return b.sentAs[p.Manifest.Batch]
		}, proof.MissingManifest, "whose manifest is not published"},
		"a reused usage record": {func(b *books) chain.Signature {
			return b.sentAs[b.settle(b.earns(b.mallory, b.used(0, 700_000))).Manifest.Batch]
		}, proof.ReusedRecord, "once more"},
		"half of a usage record reused": {func(b *books) chain.Signature {
			return b.sentAs[b.settle(b.earns(b.ada, b.used(900_000, 950_000))).Manifest.Batch]
		}, proof.ReusedRecord, "once more"},
		"an altered usage price": {func(b *books) chain.Signature {
			r := other(10_000)
			r.Price *= 2
			return b.sentAs[b.settle(b.earns(b.ada, r)).Manifest.Batch]
		}, proof.WrongRecord, "at 3800000 an hour"},
		"a price that changes within a lease": {func(b *books) chain.Signature {
			r := record(b.lease, 3_000_000, 500, 900_001, 950_000)
			return b.sentAs[b.settle(b.earns(b.ada, r)).Manifest.Batch]
		}, proof.WrongRecord, "both are frozen"},
		"a swapped payee wallet": {func(b *books) chain.Signature {
			p := b.seal(b.earns(b.ada, other(10_000)))
			return b.send(p.Manifest.Batch.String()+" "+p.Root, payment{b.mallory.account, 9_500})
		}, proof.WrongWallet, "belongs to wallet"},
		"a payee's account with another owner": {func(b *books) chain.Signature {
			payout := b.earns(b.ada, other(10_000))
			payout.TokenAccount = b.mallory.account.String()
			return b.sentAs[b.settle(payout).Manifest.Batch]
		}, proof.WrongWallet, "paid it to an account of"},
		"a manifest altered after the fact": {func(b *books) chain.Signature {
			p := b.settle(b.earns(b.ada, other(10_000)))
			p.Manifest.Payouts[0].Records[0].To = p.Manifest.Payouts[0].Records[0].To.Add(time.Second)
			b.publish(p)
			return b.sentAs[p.Manifest.Batch]
		}, proof.AlteredManifest, "altered after the fact"},
		"a transfer without a manifest": {func(b *books) chain.Signature {
			return b.send("", payment{b.mallory.account, 31})
		}, proof.UnexplainedTransfer, "took 31 base units"},
		"a transfer with a memo that only looks right": {func(b *books) chain.Signature {
			return b.send(ids.New[ids.Batch]().String(), payment{b.mallory.account, 31})
		}, proof.UnexplainedTransfer, "names no manifest"},
		"a duplicate payment of a batch": {func(b *books) chain.Signature {
			return b.pay(b.settle(b.earns(b.ada, other(10_000))))
		}, proof.DuplicatePayment, "was paid twice"},
		"records that do not sum": {func(b *books) chain.Signature {
			payout := b.earns(b.ada, other(10_000))
			payout.Amount += 500
			return b.sentAs[b.settle(payout).Manifest.Batch]
		}, proof.WrongSum, "come to 9500"},
		"a payee who was left out": {func(b *books) chain.Signature {
			p := b.seal(b.earns(b.ada, other(10_000)), b.earns(b.grace, other(77_000)))
			return b.send(p.Manifest.Batch.String()+" "+p.Root, paymentsOf(p)[:1]...)
		}, proof.MissingPayee, "did not pay it"},
		"usage that nobody was paid for": {func(b *books) chain.Signature {
			return b.sentAs[b.settle(b.earns(b.ada, b.used(950_000, 990_000))).Manifest.Batch]
		}, proof.MissingRecord, "no record is between"},
		"a manifest without its transaction": {func(b *books) chain.Signature {
			p := b.seal(b.earns(b.ada, other(10_000)))
			signature := chain.Signature{1, 2, 3}
			b.paid(p, signature)
			return signature
		}, proof.MissingTransaction, "no such transaction"},
		"a paid batch that is called void": {func(b *books) chain.Signature {
			p := b.settle(b.earns(b.ada, other(10_000)))
			p.State = proof.StateVoid
			b.publish(p)
			return b.sentAs[p.Manifest.Batch]
		}, proof.WrongState, "never paid, it is published"},
		"another treasury's manifest": {func(b *books) chain.Signature {
			p := b.seal(b.earns(b.ada, other(10_000)))
			p.Manifest.Treasury = b.mallory.account.String()
			b.reseal(p)
			return b.pay(p)
		}, proof.ForeignManifest, "another batch, treasury, token or network"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBooks(t)
			b.honest()
			before := b.verify()
			if !before.Verified {
				t.Fatalf("before the fraud: %+v", before.Difference)
			}
			want := f.plant(b)
			b.settle(b.earns(b.grace, other(5_000)))
			report := b.verify()
			d := report.Difference
			if report.Verified || d == nil {
				t.Fatalf("the fraud was not found: %+v", report)
			}
			if d.Kind != f.kind || d.Signature != want.String() || !strings.Contains(d.Text, f.says) || !strings.Contains(d.Text, want.String()) {
				t.Errorf("found %s in %s: %s\nwant %s in %s, with %q", d.Kind, d.Signature, d.Text, f.kind, want, f.says)
			}
		})
	}
}

// TestManifestsAreAChain: leaving out or exchanging manifests that no transaction names is found in their numbers and roots.
func TestManifestsAreAChain(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.honest()
	void := b.seal(b.earns(b.ada, other(10_000)))
	void.State = proof.StateVoid
	b.publish(void)
	b.settle(b.earns(b.ada, other(20_000)))
	if report := b.verify(); !report.Verified {
		t.Fatalf("a batch that paid nothing: %+v", report.Difference)
	}
	check(t, os.Remove(b.file(void)))
	if d := b.verify().Difference; d == nil || d.Kind != proof.BrokenChain || !strings.Contains(d.Text, "not published") {
		t.Errorf("without manifest 3: %+v", d)
	}
	void.Manifest.Payouts[0].Amount++
	b.reseal(void)
	if d := b.verify().Difference; d == nil || d.Kind != proof.BrokenChain || !strings.Contains(d.Text, "was sealed on") {
		t.Errorf("with another manifest 3: %+v", d)
	}
}

func TestPendingManifestsAreCounted(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.honest()
	pending := b.seal(b.earns(b.ada, other(10_000)))
	pending.State = proof.StatePending
	b.publish(pending)
	if report := b.verify(); !report.Verified || report.Pending != 1 {
		t.Errorf("one is pending: %+v", report)
	}
}

func TestAPeriodLeavesTheRestOut(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.send("", payment{b.mallory.account, 5}) // before the period, and without a manifest
	movements, err := b.chain.Client().Movements(t.Context(), b.chain.TreasuryTokenAccount, chain.Cursor{})
	check(t, err)
	// Block times have whole seconds: the period begins with the next one.
	after := movements[len(movements)-1].BlockTime.Add(time.Second)
	testkit.Eventually(t, patience, func() (bool, string) { return time.Now().After(after.Add(time.Second)), "the second does not end" })
	b.honest()
	options := proof.Options{Treasury: b.chain.TreasuryTokenAccount, Span: chain.Span{From: after}}
	report, err := proof.Verify(t.Context(), b.chain.Client(), proof.Directory(b.dir), options)
	check(t, err)
	if !report.Verified || report.Batches != 2 || report.Opening == 0 {
		t.Errorf("the period: %+v %+v", report, report.Difference)
	}
	options.Span = chain.Span{To: after}
	report, err = proof.Verify(t.Context(), b.chain.Client(), proof.Directory(b.dir), options)
	check(t, err)
	if report.Difference == nil || report.Difference.Kind != proof.UnexplainedTransfer {
		t.Errorf("before the period: %+v", report)
	}
}

// serve publishes a directory of manifests as a Muster does, and is too busy every other time.
func serve(t *testing.T, dir string) *httptest.Server {
	t.Helper()
	requests := atomic.Int32{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1)%2 == 0 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		name, one := strings.CutPrefix(r.URL.Path, "/v1/public/manifests/")
		if one {
			http.ServeFile(w, r, filepath.Join(dir, name+".json"))
			return
		}
		var page struct {
			Items      []proof.Summary `json:"items"`
			NextCursor string          `json:"next_cursor,omitempty"`
		}
		place := len(r.URL.Query().Get("cursor")) // one manifest a page
		at := 0
		err := proof.Directory(dir).List(r.Context(), func(s proof.Summary) error {
			switch at {
			case place:
				page.Items = append(page.Items, s)
			case place + 1:
				page.NextCursor = strings.Repeat("x", place+1)
			}
			at++
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := json.NewEncoder(w).Encode(page); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func TestManifestsComeFromAServer(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.honest()
	b.settle(b.earns(b.ada, other(10_000)))
	server := serve(t, b.dir)
	source, err := proof.NewServer(server.URL+"/", server.Client())
	check(t, err)
	if report := b.verifySource(source); !report.Verified || report.Batches != 3 {
		t.Errorf("from a server: %+v %+v", report, report.Difference)
	}
	if _, err := source.Manifest(t.Context(), ids.New[ids.Batch]()); !errors.Is(err, proof.ErrNoManifest) {
		t.Errorf("an unknown batch: %v", err)
	}
	server.Close()
	if _, err := proof.Verify(t.Context(), b.chain.Client(), source, proof.Options{Treasury: b.chain.TreasuryTokenAccount}); err == nil {
		t.Error("a server that is down is no error")
	}
	if _, err := proof.NewServer("muster.example", http.DefaultClient); err == nil {
		t.Error("an address without a scheme was taken")
	}
}

func TestFilesThatAreNoManifestsAreErrors(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"no JSON": "bat", "a field too many": `{"manifest": {}, "comment": 1}`, "a bare number": `{"manifest": {"payouts": [{"amount": 1}]}}`} {
		dir := t.TempDir()
		batch := ids.New[ids.Batch]()
		check(t, os.WriteFile(filepath.Join(dir, batch.String()+".json"), []byte(text), 0o600))
		if _, err := proof.Directory(dir).Manifest(t.Context(), batch); err == nil || errors.Is(err, proof.ErrNoManifest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := proof.Directory(filepath.Join(t.TempDir(), "none")).List(t.Context(), func(proof.Summary) error { return nil }); err == nil {
		t.Error("a directory that is not there was listed")
	}
}
