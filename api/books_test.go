package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

// TestFilesOfAMonth: those of a month that is not closed are served too, and named after it.
func TestFilesOfAMonth(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	platform := b.org("Muster", true)
	finance := b.member(platform, identity.Finance)
	for _, format := range []string{"cryptio", "quickbooks", "xero"} {
		path := "/v1/finance/periods/2026-03/files/" + format + "?org=" + platform.String()
		file := b.do(request{method: get, path: path, cookie: finance.cookie}).is(http.StatusOK)
		if name := file.Header.Get("Content-Disposition"); !strings.HasSuffix(name, `"muster_`+format+`_2026-03.csv"`) {
			t.Errorf("%s is in %s", format, name)
		}
	}
	b.do(request{method: get, path: "/v1/finance/periods/soon/files/xero", cookie: finance.cookie}).is(http.StatusUnprocessableEntity)
}

// TestPayeesOfARunComeInPages: the same filter on every page, and a brief run without them.
func TestPayeesOfARunComeInPages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	finance := b.member(b.org("Muster", true), identity.Finance)
	run := ids.New[ids.PayoutRun]()
	b.exec(`INSERT INTO payout_runs (id, kind) VALUES ($1, 'manual')`, run)
	for _, name := range []string{"Fjord", "Ridge", "Basement"} {
		b.exec(`INSERT INTO payout_run_payees (run_id, org_id, purpose, amount, reason) VALUES ($1, $2, 'earnings', 7, 'frozen'), ($1, $2, 'refund', 7, 'frozen')`,
			run, b.org(name, false))
	}
	path := "/v1/finance/runs/" + run.String()
	seen := map[string]bool{}
	for cursor := ""; ; {
		var page apiv1.List[apiv1.RunPayee]
		b.do(request{method: get, path: path + "/payees?state=left_out&limit=4&cursor=" + cursor, cookie: finance.cookie}).is(http.StatusOK).decode(&page)
		for _, p := range page.Items {
			seen[p.Name+p.Purpose] = p.State == "left_out"
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	if len(seen) != 6 || !seen["Ridgerefund"] {
		t.Errorf("in pages there are %v", seen)
	}
	var found apiv1.List[apiv1.RunPayee]
	b.do(request{method: get, path: path + "/payees?q=fjo", cookie: finance.cookie}).is(http.StatusOK).decode(&found)
	if len(found.Items) != 2 || found.Items[0].Name != "Fjord" {
		t.Errorf("found %+v", found.Items)
	}
	var brief, whole map[string]json.RawMessage
	b.do(request{method: get, path: path + "?brief=true", cookie: finance.cookie}).is(http.StatusOK).decode(&brief)
	b.do(request{method: get, path: path, cookie: finance.cookie}).is(http.StatusOK).decode(&whole)
	if brief["payees"] != nil || whole["payees"] == nil {
		t.Errorf("briefly %v, in full %v", brief, whole)
	}
	b.do(request{method: get, path: path + "/payees?cursor=eA", cookie: finance.cookie}).is(http.StatusUnprocessableEntity)
}
