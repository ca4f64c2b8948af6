package command

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

// TestOutput holds what each command prints to testdata: standard output, standard error and exit code, without a terminal.
func TestOutput(t *testing.T) {
	t.Parallel()
	names := make(map[string]bool)
	for name, line := range map[string]string{
		"help":                  "",
		"offer-ls":              "offer ls",
		"offer-ls-json":         "offer ls -o json",
		"offer-ls-name":         "offer ls -o name",
		"offer-why":             "offer why --gpu H100 --nodes 2 --max-price 1.90",
		"offers-query":          "offers gpu=H100 vram>=80GB --sort price -o wide",
		"offer-typo":            "offers lss",
		"market-history":        "market history H100 --region eu-north --from -8h",
		"market-history-wide":   "market history H100 -o wide --from 2026-11-22T12:00Z --to 2026-11-22T20:00Z --step 1h",
		"market-history-when":   "market history H100 --from yesterday",
		"quote":                 "quote --min-vram 80GB --nodes 2 --gpus-per-node 2 --region eu-north --same-site --max-rtt 20ms --min-tier proven --start +2h",
		"quote-json":            "quote --gpu H100 -o json",
		"book-quote":            "book --quote " + fixed[ids.Booking](1).String() + " --yes --detach",
		"book-nothing":          "book --nodes 2",
		"book-spot-auction":     "book --gpu H100 --spot --auction",
		"bookings":              "bookings",
		"booking-ls-wide":       "booking ls --state scheduled -o wide",
		"booking-get":           "booking get " + fixed[ids.Booking](1).String(),
		"booking-bids":          "booking bids " + fixed[ids.Booking](1).String(),
		"booking-cancel":        "bookings cancel " + fixed[ids.Booking](1).String(),
		"cluster-extend":        "cluster extend demo 6h --dry-run",
		"cluster-add-nodes":     "cluster add-nodes demo 1 --max-price 2.50",
		"cluster-add-nodes-bad": "cluster add-nodes demo many",
		"cluster-remove-node":   "cluster remove-node demo gpu2 --yes",
		"cluster-remove-ask":    "cluster remove-node demo gpu2",
		"cluster-auto-stop":     "cluster auto-stop demo --park-after 30m --release-after 24h",
		"cluster-auto-stop-no":  "cluster auto-stop demo",
		"cluster-resume":        "cluster resume demo",
		"runway":                "runway",
		"runway-json":           "runway -o json",
		"hosts-earning-check":   "hosts earning-check rack-7",
		"hosts-recheck":         "hosts recheck rack-7",
		"hosts-maintenance":     "hosts maintenance ls rack-7",
		"maintenance-plan":      "hosts maintenance plan rack-7 --from 2026-11-24T22:00Z --for 2h --note PSU",
		"maintenance-plan-bad":  "hosts maintenance plan rack-7 --from soon --for 2h",
		"maintenance-cancel":    "hosts maintenance cancel rack-7 " + windowID.String(),
		"hosts-ask":             "hosts ask rack-7",
		"hosts-ask-set":         "hosts ask rack-7 2.00 --no-rules",
		"hosts-ask-preview":     "hosts ask rack-7 1.90 --floor 1.20 --preview",
		"cluster-ls":            "cluster ls",
		"cluster-ls-wide":       "cluster ls --all -o wide",
		"cluster-ls-json":       "cluster ls -o json",
		"cluster-ls-yaml":       "cluster ls -o yaml",
		"cluster-ls-name":       "cluster ls -o name",
		"cluster-get":           "cluster get demo",
		"cluster-get-wide":      "cluster get demo -o wide",
		"cluster-get-json":      "cluster get " + readyID.String() + " -o json",
		"cluster-get-ended":     "cluster get old",
		"cluster-events":        "cluster events demo",
		"cluster-events-since":  "cluster events demo --since 30m30s",
		"cluster-cost":          "cluster cost demo",
		"cluster-env":           "cluster env demo",
		"cluster-env-fish":      "cluster env demo --format fish",
		"cluster-env-powershel": "cluster env demo --format powershell",
		"cluster-env-json":      "cluster env demo --format json",
		"cluster-wait":          "cluster wait demo -o name",
		"cluster-down":          "cluster down demo -y",
		"cluster-down-ask":      "cluster down demo",
		"cluster-up":            "cluster up --gpu H100 --nodes 2 --gpus-per-node 2 --for 1h --name demo -y",
		"cluster-up-ask":        "cluster up --gpu H100",
		"cluster-up-detach":     "cluster up --gpu H100 -y --detach",
		"cluster-up-dry-run":    "cluster up --gpu H100 --dry-run -o wide",
		"job-ls":                "job ls demo",
		"job-ls-wide":           "job ls demo -o wide",
		"job-ls-json":           "job ls demo -o json",
		"job-logs":              "job logs demo",
		"job-logs-json":         "job logs demo -o json",
		"job-stop":              "job stop demo raysubmit_t",
		"job-stop-ambiguous":    "job stop demo raysubmit_",
		"wallet-show":           "wallet show -o wide",
		"wallet-show-json":      "wallet show -o json",
		"wallet-show-lines":     "wallet show --lines",
		"wallet-show-deposits":  "wallet show --deposits",
		"wallet-deposit":        "wallet deposit",
		"wallet-deposit-faucet": "wallet deposit --amount 100",
		"node-ls":               "node ls",
		"node-ls-wide":          "node ls -o wide",
		"node-ls-json":          "node ls -o json",
		"node-why":              "node why rack-7",
		"node-join":             "node join --region eu-west",
		"node-join-json":        "node join --region eu-west -o json",
		"node-price":            "node price rack-7 1.90",
		"node-drain":            "node drain rack-7",
		"node-earnings":         "node earnings --days",
		"node-earnings-json":    "node earnings -o json",
		"statement-show":        "statement show --month 2026-11",
		"statement-show-wide":   "statement show -o wide",
		"statement-show-json":   "statement show -o json",
		"statement-show-owner":  "statement show --owner --from 2026-11-01 --to 2026-12-01",
		"statement-show-month":  "statement show --month november",
		"statement-export-both": "statement export --focus --owner",
		"fee-ls":                "fee ls",
		"fee-set":               "fee set 2.25 --from 2026-12-01 --note announced --yes",
		"fee-set-ask":           "fee set 2.25 --customer " + fixed[ids.Org](2).String(),
		"fee-set-bad":           "fee set 2.255",
		"payout-ls":             "payout ls",
		"payout-get":            "payout get pay_",
		"payout-payable":        "payout payable",
		"payout-draft":          "payout draft",
		"payout-batches":        "payout batches",
		"payout-batches-json":   "payout batches -o json",
		"payout-batch":          "payout batch " + finalID.String(),
		"payout-approve-ask":    "payout approve " + draftID.String(),
		"payout-approve":        "payout approve " + draftID.String() + " --yes",
		"payout-approve-run":    "payout approve " + runID.String() + " --yes",
		"payout-approve-second": "payout approve " + largeID.String() + " --yes",
		"payout-run":            "payout run",
		"payout-runs":           "payout runs",
		"payout-runs-json":      "payout runs -o json",
		"payout-runs-of":        "payout runs " + runID.String(),
		"payout-runs-nope":      "payout runs prun_nope",
		"payout-cancel":         "payout cancel " + sentID.String() + " --reason wrong-month --yes",
		"payout-cancel-ask":     "payout cancel " + sentID.String() + " --reason wrong-month",
		"payout-cancel-why":     "payout cancel " + sentID.String(),
		"payout-resolve":        "payout resolve " + frozenID.String() + " --not-paid " + testSignature + " --note advanced-by-hand",
		"payout-resolve-both":   "payout resolve " + frozenID.String() + " --paid x --not-paid y --note z",
		"payout-resolve-none":   "payout resolve " + frozenID.String() + " --note z",
		"payout-batch-resolved": "payout batch " + resolvedID.String(),
		"payout-batch-wide":     "payout batch " + sentID.String() + " -o wide",
		"payout-nonces":         "payout nonces",
		"payout-nonces-name":    "payout nonces -o name",
		"payout-schedule":       "payout schedule",
		"payout-schedule-set":   "payout schedule --on mon,thu --at 07:30 --threshold 5000",
		"payout-schedule-day":   "payout schedule --on monday",
		"payout-schedule-at":    "payout schedule --at 07:30",
		"wallet-withdraw":       "wallet withdraw 25.5 --to " + testWalletAddress + " --yes",
		"wallet-withdraw-ask":   "wallet withdraw 25.5 --to " + testWalletAddress,
		"wallet-withdraw-to":    "wallet withdraw 25.5",
		"wallet-withdraw-ls":    "wallet withdraw",
		"wallet-withdraw-wide":  "wallet withdraw -o wide",
		"wallet-withdraw-stop":  "wallet withdraw --cancel " + fixed[ids.Withdrawal](1).String(),
		"suspense-ls":           "suspense ls",
		"suspense-ls-wide":      "suspense ls -o wide",
		"suspense-ls-json":      "suspense ls -o json",
		"suspense-decide":       "suspense decide " + fixed[ids.Deposit](3).String() + " --outcome credited --note Asked-for. --yes",
		"suspense-refund":       "suspense decide " + fixed[ids.Deposit](4).String() + " --outcome refunded --note Sent-by-mistake. --yes",
		"suspense-refund-ask":   "suspense decide " + fixed[ids.Deposit](4).String() + " --outcome refunded --note Sent-by-mistake.",
		"suspense-hold":         "suspense decide " + fixed[ids.Deposit](8).String() + " --outcome held --note Asked-the-sender.",
		"suspense-refund-no":    "suspense decide " + fixed[ids.Deposit](5).String() + " --outcome refunded --note x --yes",
		"suspense-decide-why":   "suspense decide " + fixed[ids.Deposit](3).String() + " --outcome credited",
		"suspense-decide-both":  "suspense decide " + fixed[ids.Deposit](3).String() + " --outcome credited --note x --credit-to org_x --in-name-of org_y",
		"suspense-decide-id":    "suspense decide dust --outcome kept --note x",
		"suspense-sweeps":       "suspense sweeps",
		"suspense-sweeps-wide":  "suspense sweeps -o wide",
		"reconcile-run":         "reconcile run",
		"reconcile-ls":          "reconcile ls",
		"reconcile-holdings":    "reconcile holdings",
		"reconcile-holdings-w":  "reconcile holdings --kind foreign -o wide",
		"reconcile-get":         "reconcile get " + fixed[ids.Reconciliation](2).String(),
		"reconcile-sol":         "reconcile sol --month 2026-11",
		"reconcile-sol-lines":   "reconcile sol --lines",
		"reconcile-sol-wide":    "reconcile sol --kind rent_out -o wide",
		"no-such-batch":         "payout batch bat_nope",
		"context-show":          "context show -o wide",
		"context-ls-json":       "context ls -o json",
		"unknown-command":       "clutser ls",
		"unknown-verb":          "cluster upp",
		"unknown-flag":          "cluster ls --al",
		"unknown-format":        "cluster ls -o xml",
		"missing-argument":      "cluster get",
		"missing-flag":          "cluster up --nodes 2",
		"no-such-cluster":       "cluster get nope",
	} {
		names[name+".txt"] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			r := newShell(t, s.URL).run(strings.Fields(line)...)
			text := fmt.Sprintf("$ muster %s\n%s--- standard error\n%s--- exit code %d\n", line, r.out, r.err, r.code)
			golden(t, filepath.Join("testdata", name+".txt"), strings.ReplaceAll(text, s.URL, "https://muster.example"))
		})
	}
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !names[file.Name()] {
			t.Errorf("testdata/%s belongs to no case", file.Name())
		}
	}
}

func TestProblemsHaveTheirExitCodes(t *testing.T) {
	t.Parallel()
	explanation := problem(http.StatusConflict, codeNoCapacity, "1 host is left, 2 wanted")
	explanation.Details = counterOffer()
	shortfall := problem(http.StatusPaymentRequired, codeNoFunds, "the balance is 7 USDC short")
	shortfall.Details = apiv1.Shortfall{Needed: tokens("8000000", "8.000000"), Available: tokens("1000000", "1.000000"), Short: tokens("7000000", "7.000000")}
	invalid := problem(http.StatusUnprocessableEntity, codeInvalid, "2 inputs are wrong")
	invalid.Errors = []apiv1.ProblemField{{Path: "body.node_count", Message: "a cluster has between 1 and 64 nodes"}}
	for name, tc := range map[string]struct {
		problem apiv1.Problem
		code    int
		says    []string
	}{
		"unauthenticated": {problem(http.StatusUnauthorized, codeUnauthenticated, "this API key is expired"), 4, []string{"expired", "muster login"}},
		"no capacity":     {explanation, 5, []string{"1 host is left", "<- too few", "1  At most 2.10 instead of 1.90 per GPU-hour", "muster book --quote " + fixed[ids.Booking](2).String(), "muster offer ls"}},
		"no funds":        {shortfall, 6, []string{"Short      7.00 USDC", "muster wallet deposit"}},
		"invalid":         {invalid, 2, []string{"body.node_count: a cluster has between 1 and 64 nodes"}},
		"forbidden":       {problem(http.StatusForbidden, "forbidden", "the role engineer is needed"), 1, []string{"the role engineer is needed"}},
		"expired":         {problem(http.StatusGone, "expired", "the quote has expired"), 1, []string{"the quote has expired"}},
		"internal":        {problem(http.StatusInternalServerError, codeInternal, "something went wrong"), 1, []string{"req_test"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.on("POST /v1/bookings", tc.problem)
			r := newShell(t, s.URL).run("cluster", "up", "--gpu", "H100", "--yes")
			r.has(t, tc.code, tc.says...)
			if r.out != "" {
				t.Errorf("standard output has %q", r.out)
			}
		})
	}
}

func TestTheFirstStepIsNamed(t *testing.T) {
	t.Parallel()
	newShell(t, "").run("cluster", "ls").has(t, exitNotLoggedIn, "muster login --server")
	newShell(t, "").run("offer", "ls").has(t, exitNotLoggedIn, "--server")
	s := newServer(t)
	s.Close()
	newShell(t, s.URL).run("cluster", "ls").has(t, exitFailed, "cannot reach "+s.URL, "refused")
}

func TestANewTerminalSeesColourAndANarrowOneShortensColumns(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sh := newShell(t, s.URL)
	sh.app.OutTTY, sh.app.Width = true, 80
	r := sh.run("node", "ls")
	r.has(t, exitOK, "\x1b[32mleased", "…")
	sh.env["NO_COLOR"] = "1"
	if r := sh.run("node", "ls"); strings.Contains(r.out, "\x1b") {
		t.Errorf("NO_COLOR is set, and there is colour: %q", r.out)
	}
	for line := range strings.Lines(sh.run("node", "ls").out) {
		if len([]rune(strings.TrimRight(line, "\n"))) > sh.app.Width {
			t.Errorf("wider than the terminal: %q", line)
		}
	}
}

func TestNamesOfOthersDoNotSteerTheTerminal(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	if r := newShell(t, s.URL).run("cluster", "get", "demo", "-o", "wide"); strings.ContainsAny(r.out, "\x1b\r") {
		t.Errorf("%q", r.out)
	}
}
