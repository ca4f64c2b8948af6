package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/lifecycle"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/seal"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/applier"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/cluster"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/metering"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// testPlane has every role's metrics, and none of its parts run.
func testPlane(t *testing.T) *plane {
	t.Helper()
	log, pool := slog.New(slog.DiscardHandler), testkit.DB(t)
	box, err := seal.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	// An endpoint that nobody serves: a call to it is a failure to count.
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	client, err := chain.New(chain.Config{URL: server.URL, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	mint := chain.Address{1}
	book := ledger.New(money.Currency{Symbol: "USDX", Mint: mint.String(), Decimals: 6})
	arrivals, err := deposits.New(pool, book, client, nil, deposits.Config{
		TokenProgram: chain.TokenProgram, Treasury: chain.Address{2}, Minimum: 1, Interval: time.Second,
	}, log)
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{
		log: log, registry: prometheus.NewRegistry(), pool: pool, hub: pgnotify.New(pool, log), box: box, ledger: book, chain: client,
		meter: metering.New(pool, book, time.Second, log), deposits: arrivals, parts: lifecycle.New(log),
	}
	p.showShared()
	clusters := applier.New(pool, p.hub, census.New(pool, log), book, box, "2.60.0", log)
	p.showScheduler(clusters, cluster.NewLifecycle(pool, p.hub, clusters, balances{}, log))
	p.showSettlement()
	return p
}

func TestMetricsFollowTheRules(t *testing.T) {
	t.Parallel()
	p := testPlane(t)
	ctx := t.Context()
	execute := func(sql string, args ...any) {
		t.Helper()
		if _, err := p.pool.Exec(ctx, sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	execute(`INSERT INTO leadership (role, holder, term, expires_at) VALUES ($1, $2, 7, now() + interval '1 hour')`, leader.RoleScheduler, holder())
	execute(`INSERT INTO leadership (role, holder, term, expires_at) VALUES ($1, 'another', 3, now() + interval '1 hour')`, leader.RoleSettlement)
	execute(`INSERT INTO reconciliations (id, state, mint, finished_at) VALUES ($1, 'clean', 'm', now() - interval '1 hour')`,
		ids.New[ids.Reconciliation]())
	execute(`INSERT INTO reconciliations (id, state, mint, finished_at, difference_count) VALUES ($1, 'differences', 'm', now(), 2)`,
		ids.New[ids.Reconciliation]())
	if _, err := p.chain.GenesisHash(ctx); err == nil {
		t.Fatal("an endpoint that nobody serves has answered")
	}
	problems, err := testutil.GatherAndLint(p.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
	text := scrape(t, p.registry)
	for _, line := range []string{
		`muster_leader_term{role="scheduler"} 7`,
		`muster_leader_leading{role="scheduler"} 1`,
		`muster_leader_leading{role="settlement"} 0`,
		`muster_scheduler_clusters{state="ready"} 0`,
		`muster_scheduler_bookings_waiting 0`,
		`muster_scheduler_booking_decision_seconds_count 0`,
		`muster_scheduler_cluster_assembly_seconds_count 0`,
		`muster_scheduler_node_replacements_total 0`,
		`muster_settlement_charges_posted_total 0`,
		`muster_settlement_unsettled_clusters 0`,
		`muster_settlement_payout_batches{state="frozen"} 0`,
		`muster_settlement_payout_batches_held_up 0`,
		`muster_settlement_reconciliation_result{outcome="clean"} 0`,
		`muster_settlement_reconciliation_result{outcome="differences"} 1`,
		`muster_settlement_reconciliation_result{outcome="behind"} 0`,
		`muster_settlement_reconciliation_differences 2`,
		`muster_database_gauges_up{collector="leader"} 1`,
		`muster_database_gauges_up{collector="scheduler"} 1`,
		`muster_database_gauges_up{collector="settlement"} 1`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("there is no line %q", line)
		}
	}
	for _, start := range []string{`muster_chain_rpc_errors_total{kind="unavailable"} `, `muster_settlement_reconciliation_clean_age_seconds 36`} {
		if !strings.Contains(text, "\n"+start) {
			t.Errorf("no line begins with %q", start)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestScrapeSucceedsWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	p := testPlane(t)
	p.pool.Close()
	text := scrape(t, p.registry)
	for _, collector := range []string{"leader", "scheduler", "settlement"} {
		if !strings.Contains(text, `muster_database_gauges_up{collector="`+collector+`"} 0`) {
			t.Errorf("the gauges of %s count as read", collector)
		}
	}
	if strings.Contains(text, "muster_scheduler_clusters{") {
		t.Error("a gauge is shown that was not read")
	}
}

func scrape(t *testing.T, registry *prometheus.Registry) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body, err := io.ReadAll(recorder.Body)
	if err != nil || recorder.Code != http.StatusOK {
		t.Fatalf("%d: %s, %v", recorder.Code, body, err)
	}
	return string(body)
}
