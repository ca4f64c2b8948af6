package command

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/proof"
)

func TestVerifyWantsAPlaceAndAPeriod(t *testing.T) {
	t.Parallel()
	place := []string{"verify", "--rpc", "http://127.0.0.1:1", "--treasury", "8sLbNZoA1cfnvMJLPfp98ZLAnFSYCFApfJKMbiXNLwxj", "--manifests", t.TempDir()}
	for says, more := range map[string][]string{
		"required flag":                    {"verify"},
		"is not a time":                    append(place[:7:7], "--from", "soon"),
		"is not after":                     append(place[:7:7], "--from", "2026-11-02", "--to", "2026-11-01"),
		"is not the address of a treasury": append(place[:7:7], "--treasury", "treasury"),
		"must be an http or https URL":     append(place[:7:7], "--rpc", "chain"),
	} {
		newShell(t, "").run(more...).has(t, exitUsage, says)
	}
	newShell(t, "").run(place...).has(t, exitFailed, "nothing was verified")
}

// verdictOf prints a report as the command does.
func verdictOf(t *testing.T, format output.Format, r proof.Report) (text string, code int) {
	t.Helper()
	var out bytes.Buffer
	a := App{Out: &out, Now: func() time.Time { return testNow }, Getenv: func(string) string { return "" }}
	a.flags.output = string(format)
	err := a.printVerdict(r, money.Currency{Decimals: 6})
	if err != nil {
		return out.String(), exitCode(err)
	}
	return out.String(), exitOK
}

func TestVerdictIsShownAndIsTheExitCode(t *testing.T) {
	t.Parallel()
	report := proof.Report{
		Verified: true, Treasury: "Treasury", Mint: "Mint", Slot: 4711, Transactions: 9, Opening: 1_000_000, In: 5_000_000, Out: 2_345_678, Closing: 3_654_322,
		Batches: 2, Payouts: 3, Records: 4, Usage: 90 * time.Minute, Earnings: 2_345_000, Withdrawals: 678, Adjustments: 1, Adjusted: -7, Pending: 1,
	}
	text, code := verdictOf(t, output.Table, report)
	for _, want := range []string{"VERIFIED", "the first transaction to slot 4711", "2, with 3 payouts", "2.345678", "4, 1.50 GPU-hours", "1, together -0.000007", "0.000678"} {
		if !strings.Contains(text, want) {
			t.Errorf("the verdict lacks %q:\n%s", want, text)
		}
	}
	if code != exitOK {
		t.Errorf("exit code %d", code)
	}

	moved, said := money.Amount(31), money.Amount(30)
	report.Verified = false
	report.Difference = &proof.Difference{
		Kind: proof.WrongAmount, Text: "payout X is of 30, the chain moved 31", Batch: finalID, Signature: "Sig", At: testNow, Chain: &moved, Manifest: &said,
	}
	text, code = verdictOf(t, output.Table, report)
	for _, want := range []string{"DIFFERS", "wrong amount", "payout X is of 30", "Sig", finalID.String(), "0.000031", "0.00003", "2026-11-22 20:00:00Z"} {
		if !strings.Contains(text, want) {
			t.Errorf("the difference lacks %q:\n%s", want, text)
		}
	}
	if code != exitFailed {
		t.Errorf("exit code %d", code)
	}

	text, code = verdictOf(t, output.JSON, report)
	var back proof.Report
	if err := json.Unmarshal([]byte(text), &back); err != nil || back.Difference == nil || *back.Difference.Chain != moved || back.Batches != 2 || code != exitFailed {
		t.Errorf("as JSON: %v, %d, %s", err, code, text)
	}
}

// testProof is the proof of the recorded payout, with two records.
func testProof(t *testing.T) apiv1.PayoutProof {
	t.Helper()
	payout := testPayout("finalized")
	m := proof.Manifest{Head: proof.Head{Version: proof.Version, Batch: finalID, Sequence: 1}, Payouts: []proof.Payout{
		{ID: fixed[ids.Payout](7), Purpose: proof.PurposeWithdrawal, Amount: 1, Records: []proof.Record{}, Adjustments: []proof.Adjustment{}},
		{
			ID: payout.ID, Purpose: proof.PurposeEarnings, Wallet: payout.Address, TokenAccount: payout.TokenAccount, Amount: 1_899_993,
			Records: []proof.Record{{
				Lease: fixed[ids.Lease](1), From: testNow.Add(-2 * time.Hour), To: testNow.Add(-time.Hour), ToMS: 3_600_000, Price: 2_000_000, FeeBPS: 500,
				ChargedAfter: 2_000_000, Amount: 1_900_000,
			}},
			Adjustments: []proof.Adjustment{{At: testNow, Memo: "A degraded hour", Amount: -7}},
		},
	}}
	included, err := m.Include(1)
	if err != nil {
		t.Fatal(err)
	}
	answer := apiv1.PayoutProof{
		PayoutID: payout.ID, BatchID: finalID, State: proof.StatePaid, Signature: payout.Signature, Memo: finalID.String() + " " + included.Root,
		Leaf: included.Leaf, Index: included.Index, Size: included.Size, Path: included.Path, Root: included.Root,
	}
	if err := json.Unmarshal([]byte(included.Leaf), &answer.Payout); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestPayoutProofIsCheckedHere(t *testing.T) {
	t.Parallel()
	route := "GET /v1/payouts/" + testPayout("finalized").ID.String() + "/proof"
	good := testProof(t)
	s := newServer(t)
	s.on(route, good)
	newShell(t, s.URL).run("payout", "proof", "pay_").has(t, exitOK, "proven: the path leads", "Memo       "+good.Memo, fixed[ids.Lease](1).String(), "3600000", "1.90", "A degraded hour")

	for name, forge := range map[string]func(*apiv1.PayoutProof){
		"another amount": func(p *apiv1.PayoutProof) {
			p.Leaf = strings.Replace(p.Leaf, `"amount":"1899993"`, `"amount":"1899994"`, 1)
		},
		"another payout": func(p *apiv1.PayoutProof) {
			p.Leaf = strings.Replace(p.Leaf, p.PayoutID.String(), fixed[ids.Payout](7).String(), 1)
		},
		"another path": func(p *apiv1.PayoutProof) { p.Path = p.Path[1:] },
		"another memo": func(p *apiv1.PayoutProof) { p.Memo = finalID.String() },
	} {
		forged := good
		forge(&forged)
		s := newServer(t)
		s.on(route, forged)
		result := newShell(t, s.URL).run("payout", "proof", "pay_")
		if result.code != exitFailed || !strings.Contains(result.out, "NOT PROVEN") {
			t.Errorf("%s: exit code %d\n%s%s", name, result.code, result.out, result.err)
		}
	}
}
