package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
)

// TestSOLJournal: totals, lines in pages, and the file say the same, and months are kept apart.
func TestSOLJournal(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	finance := b.member(b.org("Muster", true), identity.Finance)
	var all apiv1.SOLJournal
	b.do(request{method: get, path: "/v1/finance/sol-journal", cookie: finance.cookie}).is(http.StatusOK).decode(&all)
	if all.Wallet == "" || len(all.Totals) != 0 || all.Closing.Text != "0.000000000" || all.Closing.Currency != "SOL" {
		t.Fatalf("before anything happened: %+v", all)
	}
	signature := strings.Repeat("s", 64)
	b.exec(`WITH written AS (
			INSERT INTO sol_transactions (wallet, seq, signature, slot, at, failed, before, after, previous_seq) VALUES
				($1, 1, $2 || 1, 10, '2026-10-31 23:59:59Z', false, 0, 10000000000, NULL),
				($1, 2, $2 || 2, 11, '2026-11-01 00:00:00Z', true, 10000000000, 9999993000, 1))
		INSERT INTO sol_lines (wallet, seq, ordinal, kind, lamports, other) VALUES
			($1, 1, 1, 'top_up', 10000000000, 'somebody'), ($1, 2, 1, 'base_fee', -5000, ''), ($1, 2, 2, 'priority_fee', -2000, '')`, all.Wallet, signature)
	var november apiv1.SOLJournal
	b.do(request{method: get, path: "/v1/finance/sol-journal?month=2026-11", cookie: finance.cookie}).is(http.StatusOK).decode(&november)
	if november.Opening.Text != "10.000000000" || november.Closing.Text != "9.999993000" || november.Transactions != 1 || november.Failed != 1 ||
		len(november.Totals) != 2 || november.Totals[1].Kind != "priority_fee" || november.Totals[1].Amount.BaseUnits != "-2000" {
		t.Errorf("November: %+v", november)
	}
	var kinds []string
	for cursor := ""; ; {
		var lines apiv1.List[apiv1.SOLLine]
		b.do(request{method: get, path: "/v1/finance/sol-journal/lines?limit=1&cursor=" + cursor, cookie: finance.cookie}).is(http.StatusOK).decode(&lines)
		for _, l := range lines.Items {
			kinds = append(kinds, l.Kind)
		}
		if cursor = lines.NextCursor; cursor == "" {
			break
		}
	}
	if got := strings.Join(kinds, " "); got != "base_fee priority_fee top_up" {
		t.Errorf("in pages the lines are %s", got)
	}
	file := b.do(request{method: get, path: "/v1/finance/sol-journal/file?month=2026-10", cookie: finance.cookie}).is(http.StatusOK)
	if rows := strings.Split(strings.TrimSpace(string(file.body)), "\n"); len(rows) != 2 || !strings.Contains(rows[1], ",top_up,10.000000000,10000000000,somebody,") {
		t.Errorf("October's file is %q", rows)
	}
	for _, path := range []string{"?month=soon", "/lines?month=2026-13", "/lines?cursor=x", "/lines?kind=tip", "/file?month=x"} {
		b.do(request{method: get, path: "/v1/finance/sol-journal" + path, cookie: finance.cookie}).is(http.StatusUnprocessableEntity)
	}
}
