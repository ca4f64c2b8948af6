package api

import (
	"bytes"
	"encoding/csv"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/metering"
)

// charged is an organisation whose own GPU ran for ten minutes at 1.90 and was charged for it, with a fee of a twentieth.
func (b *bench) charged(org ids.Org) fixture {
	b.t.Helper()
	f := b.fixture(org)
	book := ledger.New(money.Currency{Symbol: b.server.Currency.Symbol, Mint: b.server.Currency.Mint, Decimals: b.server.Currency.Decimals})
	err := pgx.BeginFunc(b.t.Context(), b.pool, func(tx pgx.Tx) error {
		if _, err := book.Post(b.t.Context(), tx, ledger.Entry{Key: "deposit", Kind: ledger.KindDeposit, Legs: []ledger.Leg{{
			Debit: ledger.Of(ledger.ChainDeposits, org), Credit: ledger.Of(ledger.CustomerAvailable, org), Amount: 5_000_000,
		}}}); err != nil {
			return err
		}
		return book.Hold(b.t.Context(), tx, org, f.booking, 1_900_000)
	})
	fatal(b.t, err)
	lease := ids.New[ids.Lease]()
	b.exec(`INSERT INTO leases (id, cluster_id, node_id, host_id, gpu_id, customer_org_id, owner_org_id, state, price_per_gpu_hour, fee_bps)
	        VALUES ($1, $2, $3, $4, $5, $6, $6, 'billing', 1900000, 500)`, lease, f.cluster, f.node, f.host, f.gpu, org)
	b.exec(`INSERT INTO usage (id, lease_id, host_id, started_at, confirmed_at, limit_at, ended_at)
	        VALUES ($1, $2, $3, now() - interval '10 minutes', now(), now(), now())`, ids.New[ids.Usage](), lease, f.host)
	fatal(b.t, metering.New(b.pool, book, time.Hour, b.server.Log).Settle(b.t.Context()))
	return f
}

// today are the parameters of a statement of today alone.
func today() string {
	day := time.Now().UTC().Truncate(24 * time.Hour)
	return "?from=" + day.Format(time.DateOnly) + "&to=" + day.AddDate(0, 0, 1).Format(time.DateOnly)
}

func TestStatementsComeAsDocumentsAndTables(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	org := b.org("Northwind Labs", false)
	f := b.charged(org)
	key := b.keyOf(org, b.member(org, identity.Engineer, identity.Owner), identity.ScopeWallet, identity.ScopeRead)

	var s apiv1.Statement
	b.do(request{method: get, path: "/v1/statements" + today(), bearer: key}).is(http.StatusOK).decode(&s)
	if s.Totals.Charges.BaseUnits != "316666" || s.Totals.Deposits.Text != "5.000000" || s.Closing.Total.BaseUnits != "4683334" || s.Closing.Held.BaseUnits != "1583334" ||
		!s.Open || len(s.Clusters) != 1 || s.Clusters[0].ClusterID != f.cluster || s.Clusters[0].GPUHours != "0.166666667" || s.Name != "Northwind Labs" {
		t.Errorf("the statement is %+v", s)
	}
	var o apiv1.EarningsStatement
	b.do(request{method: get, path: "/v1/earnings/statement" + today(), bearer: key}).is(http.StatusOK).decode(&o)
	if o.Totals.Gross.BaseUnits != "316666" || o.Totals.Fee.BaseUnits != "15833" || o.Closing.Total.BaseUnits != "300833" || len(o.Hosts) != 1 || o.Hosts[0].HostID != f.host {
		t.Errorf("the earnings are %+v", o)
	}

	plain := b.do(request{method: get, path: "/v1/statements" + today() + "&format=csv", bearer: key}).is(http.StatusOK)
	accepted := b.do(request{method: get, path: "/v1/statements" + today(), bearer: key, header: map[string]string{"Accept": "text/csv;q=0.9, */*"}}).is(http.StatusOK)
	if !bytes.Equal(plain.body, accepted.body) || !strings.HasPrefix(plain.Header.Get("Content-Type"), "text/csv") ||
		!strings.Contains(plain.Header.Get("Content-Disposition"), "statement_2") {
		t.Errorf("%v\n%s\n%s", plain.Header, plain.body, accepted.body)
	}
	for path, rows := range map[string]int{"/v1/statements": 5, "/v1/earnings/statement": 3} {
		table := b.do(request{method: get, path: path + today() + "&format=csv", bearer: key}).is(http.StatusOK)
		if lines, err := csv.NewReader(strings.NewReader(string(table.body))).ReadAll(); err != nil || len(lines) != rows+1 {
			t.Errorf("%s has %d rows, %v:\n%s", path, len(lines)-1, err, table.body)
		}
	}
	focus := b.do(request{method: get, path: "/v1/statements/focus" + today(), bearer: key}).is(http.StatusOK)
	lines, err := csv.NewReader(strings.NewReader(string(focus.body))).ReadAll()
	if err != nil || len(lines) != 2 || lines[1][slices.Index(lines[0], "BilledCost")] != "0.316666" || !strings.HasPrefix(focus.Header.Get("Content-Type"), "text/csv") {
		t.Errorf("the export is %v\n%s", err, focus.body)
	}
}

func TestStatementsWantTheRoleAndAPeriod(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	org := b.org("Northwind Labs", false)
	engineer, owner, money := b.member(org, identity.Engineer), b.member(org, identity.Owner), b.member(org, identity.Finance)
	for path, allowed := range map[string][]*person{
		"/v1/statements": {engineer, money}, "/v1/statements/focus": {engineer, money}, "/v1/earnings/statement": {owner, money},
	} {
		for _, p := range []*person{engineer, owner, money} {
			want := http.StatusForbidden
			if slices.Contains(allowed, p) {
				want = http.StatusOK
			}
			b.do(request{method: get, path: path, cookie: p.cookie}).is(want)
		}
		for query, field := range map[string]string{
			"?from=2026-13-01": "query.from", "?from=2026-11-02&to=2026-11-01": "query.to", "?from=2020-01-01&to=2026-01-01": "query.to", "?from=yesterday": "query.from",
		} {
			refused := b.do(request{method: get, path: path + query, cookie: money.cookie})
			if refused.StatusCode != http.StatusBadRequest && refused.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(string(refused.body), field) {
				t.Errorf("%s%s gave %d: %s", path, query, refused.StatusCode, refused.body)
			}
		}
	}
}

func TestFinanceChangesTheFee(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	platform, other := b.org("Muster", true), b.org("Northwind Labs", false)
	finance, stranger := b.member(platform, identity.Finance), b.member(other, identity.Finance)
	b.do(request{method: get, path: "/v1/finance/fees", cookie: stranger.cookie}).is(http.StatusForbidden)
	b.do(request{method: post, path: "/v1/finance/fees", cookie: stranger.cookie, body: apiv1.FeeCreate{FeeBps: 1}}).is(http.StatusForbidden)

	var rate apiv1.FeeRate
	b.do(request{method: post, path: "/v1/finance/fees", cookie: finance.cookie, body: apiv1.FeeCreate{FeeBps: 225, Note: "announced"}}).is(http.StatusCreated).decode(&rate)
	if rate.State != "current" || rate.Percent != "2.25" || rate.CreatedBy == "" {
		t.Errorf("the fee is %+v", rate)
	}
	coming, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	b.do(request{method: post, path: "/v1/finance/fees", cookie: finance.cookie, body: apiv1.FeeCreate{OrgID: &other, ValidFrom: &coming}}).is(http.StatusCreated).decode(&rate)
	if rate.Organisation != "Northwind Labs" || rate.State != "coming" || rate.FeeBps != 0 {
		t.Errorf("the fee is %+v", rate)
	}
	refused := b.do(request{method: post, path: "/v1/finance/fees", cookie: finance.cookie, body: apiv1.FeeCreate{FeeBps: 1, ValidFrom: &past}})
	if refused.StatusCode < http.StatusBadRequest || !strings.Contains(string(refused.body), "body.valid_from") {
		t.Errorf("a fee of the past gave %d: %s", refused.StatusCode, refused.body)
	}
	var list apiv1.List[apiv1.FeeRate]
	b.do(request{method: get, path: "/v1/finance/fees", cookie: finance.cookie}).is(http.StatusOK).decode(&list)
	if len(list.Items) != 2 {
		t.Errorf("the schedule is %+v", list.Items)
	}
}
