package command

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

var (
	november = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	december = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
)

func testPeriod(org ids.Org, name string) apiv1.Period {
	return apiv1.Period{OrgID: org, Name: name, From: november, To: december, MadeAt: testNow, Open: true}
}

func testStatement() apiv1.Statement {
	nothing := tokens("0", "0.000000")
	return apiv1.Statement{
		Period: testPeriod(testOrg, "Northwind Labs"), ChargeDays: 2,
		Opening: apiv1.StatementBalance{Available: nothing, Held: nothing, Total: nothing},
		Closing: apiv1.StatementBalance{Available: tokens("992000000", "992.000000"), Held: tokens("7494202", "7.494202"), Total: tokens("999494202", "999.494202")},
		Totals: apiv1.StatementTotals{
			Deposits: tokens("1000000000", "1000.000000"), Withdrawals: nothing, Charges: tokens("505798", "0.505798"), Credits: nothing, Other: nothing,
			NotCharged: tokens("31666", "0.031666"), GPUMilliseconds: 958_354, GPUHours: "0.266209444",
		},
		Clusters: []apiv1.StatementCluster{{
			ClusterID: readyID, Name: "demo", GPUModel: "H100", GPUMilliseconds: 958_354, GPUHours: "0.266209444", Charged: tokens("505798", "0.505798"),
			NotCharged: tokens("31666", "0.031666"),
			Leases: []apiv1.StatementLease{
				{LeaseID: fixed[ids.Lease](1), HostID: hostID, Region: "eu-north", PricePerGPUHour: tokens("1900000", "1.900000"), GPUMilliseconds: 479_177, GPUHours: "0.133104722", Charged: tokens("252899", "0.252899")},
				{LeaseID: fixed[ids.Lease](2), HostID: hostID, Region: "eu-north", PricePerGPUHour: tokens("1900000", "1.900000"), GPUMilliseconds: 479_177, GPUHours: "0.133104722", Charged: tokens("252899", "0.252899")},
			},
			Credits: testCredits(),
		}},
		Movements: []apiv1.StatementMovement{{
			ID: fixed[ids.Transfer](1), At: ago(time.Hour), Kind: "deposit", Text: "Deposit received", Amount: tokens("1000000000", "1000.000000"), Signature: testSignature,
		}},
		Holds: []apiv1.StatementMovement{{
			ID: fixed[ids.Transfer](2), At: ago(31 * time.Minute), Kind: "hold", Text: "Set aside for a booking", Amount: tokens("8000000", "8.000000"), ClusterID: &readyID,
		}},
	}
}

func testCredits() []apiv1.StatementCredit {
	return []apiv1.StatementCredit{{
		LeaseID: fixed[ids.Lease](2), From: ago(20 * time.Minute), To: ago(19 * time.Minute), GPUMilliseconds: 60_000, Amount: tokens("31666", "0.031666"),
		FaultParty: "owner", Reason: "Node 2 failed. Its host is lost.",
	}}
}

func testEarningsStatement() apiv1.EarningsStatement {
	nothing, batch := tokens("0", "0.000000"), finalID
	return apiv1.EarningsStatement{
		Period:  testPeriod(fixed[ids.Org](2), "Ridge Compute"),
		Opening: apiv1.EarningsBalance{Payable: tokens("120000000", "120.000000"), InFlight: nothing, Total: tokens("120000000", "120.000000")},
		Closing: apiv1.EarningsBalance{Payable: tokens("493154", "0.493154"), InFlight: nothing, Total: tokens("493154", "0.493154")},
		Totals: apiv1.EarningsTotals{
			Gross: tokens("505798", "0.505798"), Fee: tokens("12644", "0.012644"), Net: tokens("493154", "0.493154"), Paid: tokens("120000000", "120.000000"),
			Other: nothing, NotEarned: tokens("31666", "0.031666"), GPUMilliseconds: 958_354, GPUHours: "0.266209444",
		},
		Hosts: []apiv1.EarningsLineHost{{
			HostID: hostID, Name: "rack-7", GPUMilliseconds: 958_354, GPUHours: "0.266209444", Gross: tokens("505798", "0.505798"), Fee: tokens("12644", "0.012644"),
			Net: tokens("493154", "0.493154"), NotEarned: tokens("31666", "0.031666"), Credits: testCredits(),
			Leases: []apiv1.EarningsLease{{
				LeaseID: fixed[ids.Lease](1), GPUModel: "H100", PricePerGPUHour: tokens("1900000", "1.900000"), FeeBps: 250, GPUMilliseconds: 958_354,
				GPUHours: "0.266209444", Gross: tokens("505798", "0.505798"), Fee: tokens("12644", "0.012644"), Net: tokens("493154", "0.493154"),
			}},
		}},
		Payouts: []apiv1.EarningsPayout{
			{BatchID: &batch, At: ago(2 * time.Hour), Kind: "payout_reserve", Amount: tokens("120000000", "120.000000")},
			{BatchID: &batch, At: ago(time.Hour), Kind: "payout_paid", Amount: tokens("120000000", "120.000000"), Signature: testSignature},
		},
		Movements: []apiv1.StatementMovement{},
	}
}

func testFees() []apiv1.FeeRate {
	org := fixed[ids.Org](2)
	return []apiv1.FeeRate{
		{FeeBps: 225, Percent: "2.25", ValidFrom: december, State: "coming", Note: "announced", CreatedAt: testNow, CreatedBy: "Fin, finance"},
		{FeeBps: 250, Percent: "2.50", ValidFrom: time.Unix(0, 0).UTC(), State: "current", Note: "As configured at first", CreatedAt: ago(72 * time.Hour)},
		{OrgID: &org, Organisation: "Ridge Compute", FeeBps: 0, Percent: "0.00", ValidFrom: ago(time.Hour), State: "current", CreatedAt: ago(time.Hour), CreatedBy: "Fin, finance"},
	}
}

func TestAStatementIsWrittenToAFile(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	table := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("line,amount\n")) })
	s.on("GET /v1/statements", table)
	s.on("GET /v1/statements/focus", table)
	sh := newShell(t, s.URL)
	if r := sh.run("statement", "export", "--month", "2026-11"); r.out != "line,amount\n" || r.code != exitOK {
		t.Errorf("it wrote %q, %q and left with %d", r.out, r.err, r.code)
	}
	file := filepath.Join(t.TempDir(), "costs.csv")
	sh.run("statement", "export", "--from", "2026-11-01", "--to", "2026-11-08", "--focus", "--file", file).has(t, exitOK, "12 bytes")
	if content, err := os.ReadFile(file); err != nil || string(content) != "line,amount\n" {
		t.Errorf("the file has %q, %v", content, err)
	}
	sh.run("statement", "export", "--file", file).has(t, exitFailed, "exists")
	asked := append(s.made("GET /v1/statements"), s.made("GET /v1/statements/focus")...)
	if len(asked) != 2 || asked[0].query != "format=csv&from=2026-11-01&to=2026-12-01" && asked[0].query != "format=csv&from=2026-11-01&org="+testOrg.String()+"&to=2026-12-01" {
		t.Errorf("asked %+v", asked)
	}
}

func TestTheAuditLogIsWrittenAsFiltered(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.on("GET /v1/finance/audit-log/file", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("seq,at\n")) }))
	sh := newShell(t, s.URL)
	if r := sh.run("reconcile", "audit", "--person", "Ada", "--from", "2026-11-01", "--to", "2026-11-30"); r.out != "seq,at\n" || r.code != exitOK {
		t.Errorf("it wrote %q, %q and left with %d", r.out, r.err, r.code)
	}
	sh.run("reconcile", "audit", "--to", "yesterday").has(t, exitUsage, "is not a day")
	asked := s.made("GET /v1/finance/audit-log/file")
	if len(asked) != 1 || !strings.Contains(asked[0].query, "from=2026-11-01T00%3A00%3A00Z") || !strings.Contains(asked[0].query, "person=Ada&to=2026-12-01T00%3A00%3A00Z") {
		t.Errorf("asked %+v", asked)
	}
}

func TestNothingIsLeftOfAFileThatDidNotCome(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.on("GET /v1/statements", problem(http.StatusRequestEntityTooLarge, "too_large", "the period has too much in it"))
	file := filepath.Join(t.TempDir(), "statement.csv")
	newShell(t, s.URL).run("statement", "export", "--file", file).has(t, exitFailed, "too much")
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file: %v", err)
	}
}
