package close_test

import (
	"bytes"
	"encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	closing "github.com/muster-gpu/muster/settlement/close"
	"github.com/muster-gpu/muster/settlement/ledger"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var currency = money.Currency{Symbol: "USDC", Mint: "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", Decimals: 6}

// books is a ledger whose entries are of March 2026, and two people of finance.
type books struct {
	*testing.T
	*closing.Service
	pool       *pgxpool.Pool
	customer   ids.Org
	one, other ids.User
}

func march(t *testing.T) closing.Month {
	t.Helper()
	month, err := closing.ParseMonth("2026-03")
	if err != nil {
		t.Fatal(err)
	}
	return month
}

func newBooks(t *testing.T) *books {
	t.Helper()
	b := &books{T: t, pool: testkit.DB(t), customer: ids.New[ids.Org](), one: ids.New[ids.User](), other: ids.New[ids.User]()}
	b.Service = closing.New(b.pool, closing.Options{Currency: currency})
	b.exec(`INSERT INTO users (id, wallet_address) VALUES ($1, 'one'), ($2, 'other')`, b.one, b.other)
	b.exec(`INSERT INTO organisations (id, name) VALUES ($1, $2)`, b.customer, "=cmd|' /C calc'!A0, \"Ltd\"\nTwo")
	b.post(ledger.Entry{Key: "in", Kind: "deposit", Refs: ledger.Refs{Signature: "s1"}, Memo: "+1,2", Legs: []ledger.Leg{
		{Debit: ledger.Of(ledger.ChainDeposits, b.customer), Credit: ledger.Of(ledger.CustomerAvailable, b.customer), Amount: 5_000_000},
	}})
	b.post(ledger.Entry{Key: "out", Kind: "withdrawal", Refs: ledger.Refs{Signature: "s2"}, Legs: []ledger.Leg{
		{Debit: ledger.Of(ledger.CustomerAvailable, b.customer), Credit: ledger.Of(ledger.ChainDeposits, b.customer), Amount: 1_500_000},
	}})
	b.age()
	return b
}

func (b *books) exec(sql string, args ...any) {
	b.Helper()
	if _, err := b.pool.Exec(b.Context(), sql, args...); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
}

func (b *books) post(e ledger.Entry) {
	b.Helper()
	err := pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := ledger.New(currency).Post(b.Context(), tx, e)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

// age makes everything that was posted today be of March, as only the database's superuser can.
func (b *books) age() {
	b.Helper()
	err := pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(b.Context(), `SET LOCAL session_replication_role = replica`)
		if err == nil {
			_, err = tx.Exec(b.Context(), `UPDATE ledger_transfers SET posted_at = '2026-03-15T12:00:00Z'::timestamptz + seq * interval '1 second'
				FROM (SELECT id AS that, row_number() OVER (ORDER BY id) AS seq FROM ledger_transfers) n WHERE that = id`)
		}
		if err == nil {
			_, err = tx.Exec(b.Context(), `UPDATE ledger_entries e SET posted_at = (SELECT min(posted_at) FROM ledger_transfers t WHERE t.entry_id = e.id)`)
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

func (b *books) reconciled(state string, count int) ids.Reconciliation {
	b.Helper()
	run := ids.New[ids.Reconciliation]()
	reason := ""
	if state == "failed" || state == "behind" {
		reason = "the endpoint was down"
	}
	b.exec(`INSERT INTO reconciliations (id, state, mint, difference_count, reason, finished_at) VALUES ($1, $2, $3, $4, $5, now())`,
		run, state, currency.Mint, count, reason)
	return run
}

func (b *books) wantConflict(what string) {
	b.Helper()
	_, err := b.Close(b.Context(), march(b.T), b.one)
	if errs.CodeOf(err) != errs.Conflict || !strings.Contains(err.Error(), what) {
		b.Errorf("closing gave %v, want a conflict about %q", err, what)
	}
}

func TestMonthClosesOnlyWhenAllIsExplained(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.wantConflict("nothing was reconciled")
	b.reconciled("failed", 0)
	b.wantConflict("failed")
	b.reconciled("behind", 0)
	b.wantConflict("has not come to the present")
	run := b.reconciled("differences", 1)
	b.exec(`INSERT INTO difference_items (id, mint, class, token_account, occurred_at, explanation, first_run, last_run)
		VALUES ($1, $2, 'chain_only', 'a', now(), 'x', $3, $3)`, ids.New[ids.Difference](), currency.Mint, run)
	b.wantConflict("differences are open")
	b.exec(`UPDATE difference_items SET state = 'resolved', resolution = 'waived', reason = 'dust', resolved_by = $1`, b.one)
	future := closing.Month{Time: time.Now().UTC().AddDate(0, 2, 0)}
	if _, err := b.Close(t.Context(), future, b.one); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("closing a month to come gave %v", err)
	}
	c, err := b.Close(t.Context(), march(t), b.one)
	if err != nil || c.Figures.Entries != 2 || c.Figures.Debits != 6_500_000 || c.Figures.Debits != c.Figures.Credits || len(c.SHA256) != 32 {
		t.Fatalf("the closing is %+v, %v", c, err)
	}
	for _, a := range c.Figures.Accounts {
		if a.Opening != 0 || a.Closing != 3_500_000 {
			t.Errorf("the account's part is %+v", a)
		}
	}
	b.wantConflict("closed already")
	if _, err := b.pool.Exec(t.Context(), `UPDATE period_closings SET snapshot = '{}'`); err == nil {
		t.Error("the schema let a closed month change")
	}
}

// TestCorrectionsAreOfTheirOwnMonth, and one that is slipped into a closed month shows.
func TestCorrectionsAreOfTheirOwnMonth(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.reconciled("clean", 0)
	c, err := b.Close(t.Context(), march(t), b.one)
	if err != nil {
		t.Fatal(err)
	}
	b.post(ledger.Entry{Key: "correction", Kind: "correction", Legs: []ledger.Leg{
		{Debit: ledger.Of(ledger.CustomerAvailable, b.customer), Credit: ledger.Platform(ledger.PlatformFees), Amount: 10},
	}})
	if intact, err := b.Check(t.Context(), c); err != nil || !intact {
		t.Errorf("after a correction today the closed month is intact: %v, %v", intact, err)
	}
	b.age()
	if intact, err := b.Check(t.Context(), c); err != nil || intact {
		t.Errorf("with an entry slipped in the closed month is intact: %v, %v", intact, err)
	}
}

func TestOpeningAgainTakesTwoPeople(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	if _, err := b.Reopen(t.Context(), march(t), b.one, "a mistake"); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("opening an open month gave %v", err)
	}
	b.reconciled("clean", 0)
	if _, err := b.Close(t.Context(), march(t), b.one); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Reopen(t.Context(), march(t), b.one, ""); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("opening without a reason gave %v", err)
	}
	if opened, err := b.Reopen(t.Context(), march(t), b.one, "a mistake"); err != nil || opened {
		t.Errorf("asking gave %v, %v", opened, err)
	}
	if _, err := b.Reopen(t.Context(), march(t), b.one, "yes"); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("agreeing with oneself gave %v", err)
	}
	if opened, err := b.Reopen(t.Context(), march(t), b.other, "yes"); err != nil || !opened {
		t.Errorf("agreeing gave %v, %v", opened, err)
	}
	if _, err := b.Close(t.Context(), march(t), b.other); err != nil {
		t.Errorf("closing again gave %v", err)
	}
	closings, err := b.Closings(t.Context())
	if err != nil || len(closings) != 2 || closings[1].ReopenedBy != b.other {
		t.Errorf("the closings are %+v, %v", closings, err)
	}
	lines, err := audit.List(t.Context(), b.pool, 0, 0)
	if err != nil || len(lines) != 4 || audit.Verify(t.Context(), b.pool) != nil {
		t.Errorf("the audit log is %+v, %v", lines, err)
	}
}

// TestFilesAreAsAccountingToolsReadThem compares with golden files; UPDATE_GOLDEN=1 writes them. Ids differ from run to run.
func TestFilesAreAsAccountingToolsReadThem(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	for name, write := range map[string]func(*bytes.Buffer) error{
		"cryptio":    func(w *bytes.Buffer) error { return b.Cryptio(t.Context(), w, march(t)) },
		"quickbooks": func(w *bytes.Buffer) error { return b.QuickBooks(t.Context(), w, march(t)) },
		"xero":       func(w *bytes.Buffer) error { return b.Xero(t.Context(), w, march(t)) },
	} {
		var file bytes.Buffer
		if err := write(&file); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(bytes.NewReader(file.Bytes())).ReadAll()
		if err != nil || len(rows) < 3 {
			t.Fatalf("%s has %d rows, %v", name, len(rows), err)
		}
		got := file.String()
		if name != "cryptio" {
			for i, id := range []string{rows[1][0], rows[3][0]} {
				got = strings.ReplaceAll(got, id, []string{"first", "second"}[i])
			}
		}
		golden := filepath.Join("testdata", name+".csv")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || got != string(want) {
			t.Errorf("%s is\n%s\nwant\n%s\n%v", name, got, want, err)
		}
	}
}

// TestChartAddsOrganisationsUp: each account of the chart once, by its code, and what was frozen of it in sum.
func TestChartAddsOrganisationsUp(t *testing.T) {
	t.Parallel()
	chart := closing.Figures{Accounts: []closing.AccountTotal{
		{Kind: "customer_available", Org: "a", Opening: 1, Debits: 2, Credits: 5, Closing: 4},
		{Kind: "customer_available", Org: "b", Opening: 10, Credits: 1, Closing: 11},
		{Kind: "chain_treasury", Opening: 3, Debits: 4, Closing: 7},
		{Kind: "unheard_of", Closing: 1},
	}}.Chart()
	want := []closing.ChartTotal{
		{Name: "Tokens in the treasury", Code: "1010", Opening: 3, Debits: 4, Closed: 7},
		{Name: "Customer balances", Code: "2010", Organisations: 2, Opening: 11, Debits: 2, Credits: 6, Closed: 15},
		{Name: "unheard_of", Code: "unheard_of", Closed: 1},
	}
	if !slices.Equal(chart, want) {
		t.Errorf("the chart is %+v", chart)
	}
}

func TestReportEscapesAndSays(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.reconciled("clean", 0)
	c, err := b.Close(t.Context(), march(t), b.one)
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := b.Report(&page, c, map[ids.User]string{b.one: "<script>Eve</script>"}, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"March 2026", "&lt;script&gt;Eve", "6.500000", "the same figures", "size: A4"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// TestFilteredAuditLogChecksAllOfIt: a filter chooses rows, and hides no altered one.
func TestFilteredAuditLogChecksAllOfIt(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	for _, event := range []audit.Event{{By: b.one, Action: "run.start", Subject: "run"}, {By: b.other, Action: "batch.approve", Subject: "=1"}} {
		if err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error { return audit.Record(t.Context(), tx, event) }); err != nil {
			t.Fatal(err)
		}
	}
	export := func(filter audit.Filter) ([][]string, error) {
		var file bytes.Buffer
		if err := b.Audit(t.Context(), &file, filter); err != nil {
			return nil, err
		}
		return csv.NewReader(&file).ReadAll()
	}
	whole, err := export(audit.Filter{})
	if err != nil || len(whole) != 3 || whole[0][0] != "seq" || whole[2][4] != "'=1" {
		t.Fatalf("the whole log is %q, %v", whole, err)
	}
	some, err := export(audit.Filter{Person: "one", From: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)})
	if err != nil || len(some) != 3 || some[1][0] != "seq" || some[2][3] != "run.start" {
		t.Fatalf("the filtered log is %q, %v", some, err)
	}
	for _, want := range []string{`person "one", from 2026-01-01T00:00:00Z on`, "All 2 lines", whole[2][7]} {
		if !strings.Contains(some[0][0], want) {
			t.Errorf("the first row %q lacks %q", some[0][0], want)
		}
	}
	err = pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SET LOCAL session_replication_role = replica`); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `UPDATE audit_log SET subject = 'another' WHERE seq = 2`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if rows, err := export(audit.Filter{Person: "one"}); !audit.IsBroken(err) {
		t.Errorf("a filter that leaves out the altered line gave %q, %v", rows, err)
	}
}
