package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

// TestForeignIdsAreNotFound: what another organisation has does not exist, whoever asks and whatever for; its own does.
func TestForeignIdsAreNotFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	mine, theirs := b.fixture(b.org("Mine", false)), b.fixture(b.org("Theirs", false))
	me, they := b.member(mine.org, identity.Roles...), b.member(theirs.org, identity.Roles...)
	ask := apiv1.AskPut{PricePerGPUHour: "2.50", Active: true}
	token := b.do(request{method: post, path: "/v1/join-tokens", cookie: they.cookie, body: apiv1.JoinTokenCreate{Region: "eu-west"}}).is(http.StatusCreated)
	var joinToken apiv1.JoinTokenCreated
	token.decode(&joinToken)
	key := b.do(request{method: post, path: "/v1/keys", cookie: they.cookie, body: apiv1.KeyCreate{Name: "k", Scopes: []string{"read"}, Days: 1}}).is(http.StatusCreated)
	var created apiv1.KeyCreated
	key.decode(&created)
	var planned apiv1.Maintenance
	b.do(request{method: post, path: "/v1/hosts/" + theirs.host.String() + "/maintenance", cookie: they.cookie, body: window(3*time.Hour, 4*time.Hour)}).
		is(http.StatusCreated).decode(&planned)
	for _, r := range []request{
		{method: get, path: "/v1/quotes/" + theirs.booking.String()},
		{method: get, path: "/v1/bookings/" + theirs.booking.String()},
		{method: get, path: "/v1/quotes/" + theirs.booking.String() + "/bids"},
		{method: post, path: "/v1/bookings/" + theirs.booking.String() + "/cancel"},
		{method: post, path: "/v1/clusters/" + theirs.cluster.String() + "/extension-quote", body: apiv1.ExtensionCreate{Duration: "1h"}},
		{method: post, path: "/v1/clusters/" + theirs.cluster.String() + "/addition-quote", body: apiv1.AdditionCreate{NodeCount: 1}},
		{method: post, path: "/v1/hosts/" + theirs.host.String() + "/ask/preview", body: ask},
		{method: get, path: "/v1/clusters/" + theirs.cluster.String()},
		{method: get, path: "/v1/clusters/" + theirs.cluster.String() + "/events"},
		{method: get, path: "/v1/clusters/" + theirs.cluster.String() + "/cost"},
		{method: get, path: "/v1/clusters/" + theirs.cluster.String() + "/jobs"},
		{method: get, path: "/v1/clusters/" + theirs.cluster.String() + "/jobs/raysubmit_1/logs"},
		{method: get, path: "/v1/hosts/" + theirs.host.String()},
		{method: put, path: "/v1/hosts/" + theirs.host.String() + "/ask", body: ask},
		{method: post, path: "/v1/hosts/" + theirs.host.String() + "/drain"},
		{method: post, path: "/v1/hosts/" + theirs.host.String() + "/undrain"},
		{method: post, path: "/v1/hosts/" + theirs.host.String() + "/retire"},
		{method: post, path: "/v1/hosts/" + theirs.host.String() + "/recheck"},
		{method: get, path: "/v1/hosts/" + theirs.host.String() + "/earning-check"},
		{method: get, path: "/v1/hosts/" + theirs.host.String() + "/maintenance"},
		{method: post, path: "/v1/hosts/" + theirs.host.String() + "/maintenance", body: window(time.Hour, 2*time.Hour)},
		{method: post, path: "/v1/hosts/" + theirs.host.String() + "/maintenance/" + planned.ID.String() + "/cancel"},
		{method: del, path: "/v1/join-tokens/" + joinToken.ID.String()},
		{method: del, path: "/v1/keys/" + created.ID.String()},
		{method: post, path: "/v1/clusters/" + theirs.cluster.String() + "/ray-token"},
		{method: post, path: "/v1/clusters/" + theirs.cluster.String() + "/dashboard-ticket"},
		{method: post, path: "/v1/clusters/" + theirs.cluster.String() + "/jobs/raysubmit_1/stop"},
		{method: del, path: "/v1/clusters/" + theirs.cluster.String() + "/nodes/" + theirs.node.String()},
		{method: put, path: "/v1/clusters/" + theirs.cluster.String() + "/auto-stop", body: apiv1.AutoStop{ParkAfter: "30m"}},
		{method: post, path: "/v1/clusters/" + theirs.cluster.String() + "/resume"},
		{method: post, path: "/v1/clusters/" + theirs.cluster.String() + "/release"},
		{method: post, path: "/v1/bookings", body: apiv1.BookingCreate{QuoteID: theirs.booking}},
	} {
		r.cookie = me.cookie
		b.do(r).problem(http.StatusNotFound, "not_found")
		r.cookie = they.cookie
		if got := b.do(r); got.StatusCode == http.StatusNotFound || got.StatusCode == http.StatusInternalServerError {
			t.Errorf("%s %s by its own organisation: %d %s", r.method, r.path, got.StatusCode, got.body)
		}
	}
	var clusters apiv1.List[apiv1.Cluster]
	b.do(request{method: get, path: "/v1/clusters", cookie: me.cookie}).is(http.StatusOK).decode(&clusters)
	if len(clusters.Items) != 1 || clusters.Items[0].ID != mine.cluster {
		t.Errorf("listed %+v, want only %s", clusters.Items, mine.cluster)
	}
}

func TestClusterIsShownWithEverything(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Customer", false))
	p := b.member(f.org, identity.Engineer)
	var c apiv1.Cluster
	b.do(request{method: get, path: "/v1/clusters/" + f.cluster.String(), cookie: p.cookie}).is(http.StatusOK).decode(&c)
	if c.Name != "train" || c.Version != 2 || len(c.Nodes) != 1 || c.Nodes[0].ID != f.node || len(c.Phases) != 1 || c.Cost == nil || c.Cost.Hold.Text != "1.900000" || c.Billing {
		t.Errorf("cluster %+v", c)
	}
	var events apiv1.List[apiv1.ClusterEvent]
	b.do(request{method: get, path: "/v1/clusters/" + f.cluster.String() + "/events?after=0", cookie: p.cookie}).is(http.StatusOK).decode(&events)
	if len(events.Items) != 1 || events.Items[0].Message != "The cluster is reserved." {
		t.Errorf("events %+v", events)
	}
	for state, want := range map[string]int{"live": 1, "reserved": 1, "ready": 0} {
		var list apiv1.List[apiv1.Cluster]
		b.do(request{method: get, path: "/v1/clusters?state=" + state, cookie: p.cookie}).is(http.StatusOK).decode(&list)
		if len(list.Items) != want {
			t.Errorf("state %s: %d clusters, want %d", state, len(list.Items), want)
		}
	}
	b.do(request{method: post, path: "/v1/clusters/" + f.cluster.String() + "/release", cookie: p.cookie}).is(http.StatusOK)
	b.do(request{method: post, path: "/v1/clusters/" + f.cluster.String() + "/release", cookie: p.cookie}).is(http.StatusOK)
}

func TestListsArePagedToTheEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	org := b.org("Customer", false)
	want := map[ids.Cluster]bool{}
	for range 5 {
		want[b.fixture(org).cluster] = true
	}
	p := b.member(org, identity.Engineer)
	path := "/v1/clusters?limit=2"
	for pages := 0; path != ""; pages++ {
		if pages > 5 {
			t.Fatal("the pages do not end")
		}
		var list apiv1.List[apiv1.Cluster]
		b.do(request{method: get, path: path, cookie: p.cookie}).is(http.StatusOK).decode(&list)
		for _, c := range list.Items {
			if !want[c.ID] {
				t.Errorf("%s came twice", c.ID)
			}
			delete(want, c.ID)
		}
		if path = ""; list.NextCursor != "" {
			path = "/v1/clusters?limit=2&cursor=" + list.NextCursor
		}
	}
	if len(want) != 0 {
		t.Errorf("%d clusters were on no page", len(want))
	}
}

func TestQuoteAndBookingWithoutFunds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owner, customer := b.fixture(b.org("Owner", false)), b.org("Customer", false)
	p := b.member(customer, identity.Engineer)
	spec := apiv1.BookingSpec{GPUModel: "h100", NodeCount: 1, GPUsPerNode: 1, Duration: "1h30m"}
	var offers apiv1.List[apiv1.Offer]
	b.do(request{method: get, path: "/v1/offers"}).is(http.StatusOK).decode(&offers)
	if len(offers.Items) != 1 || offers.Items[0].PriceFrom.Text != "1.900000" {
		t.Fatalf("offers %+v", offers)
	}
	var quote apiv1.Quote
	b.do(request{method: post, path: "/v1/quotes", cookie: p.cookie, body: spec}).is(http.StatusCreated).decode(&quote)
	if quote.Hold.Text != "2.850000" || quote.PlatformFee.Text != "0.142500" || quote.OwnersReceive.Text != "2.707500" ||
		quote.RefundHalfway.Text != "1.425000" || quote.Spec.Duration != "1h30m" || quote.Lines[0].HostID != owner.host || quote.Available.Text != "0.000000" {
		t.Errorf("quote %+v", quote)
	}
	spec.NodeCount = 3
	refused := b.do(request{method: post, path: "/v1/quotes", cookie: p.cookie, body: spec}).problem(http.StatusConflict, "no_capacity")
	if details, ok := refused.Details.(map[string]any); !ok || details["blocking"] == "" || details["funnel"] == nil {
		t.Errorf("details %v, want an Explanation", refused.Details)
	}
	var explanation apiv1.Explanation
	b.do(request{method: post, path: "/v1/explain", body: spec}).is(http.StatusOK).decode(&explanation)
	if explanation.Blocking == "" || len(explanation.Funnel) == 0 {
		t.Errorf("explanation %+v", explanation)
	}
	// As the applier stores a hold that failed.
	b.exec(`UPDATE bookings SET state = 'refused', requested_at = now(), decided_at = now(), refusal_code = 'insufficient_funds', refusal = 'short',
	        refusal_details = '{"account": "customer_available", "needed": 2850000, "available": 0, "short": 2850000}' WHERE id = $1`, quote.ID)
	short := b.do(request{method: post, path: "/v1/bookings", cookie: p.cookie, body: apiv1.BookingCreate{QuoteID: quote.ID}}).problem(http.StatusPaymentRequired, "insufficient_funds")
	details, ok := short.Details.(map[string]any)
	if needed, _ := details["short"].(map[string]any); !ok || needed["text"] != "2.850000" {
		t.Errorf("details %v, want a Shortfall", short.Details)
	}
}

func TestOwnersHostsAndJoinTokens(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Owner", false))
	p := b.member(f.org, identity.Owner)
	var host apiv1.Host
	b.do(request{method: put, path: "/v1/hosts/" + f.host.String() + "/ask", cookie: p.cookie, body: apiv1.AskPut{PricePerGPUHour: "2.5"}}).is(http.StatusOK).decode(&host)
	if host.Ask == nil || host.Ask.PricePerGPUHour.Text != "2.500000" || host.WhyNotEarning != "Its offer is switched off." || host.CPUs != 8 || host.DriverVersion != "580.1" {
		t.Errorf("host %+v", host)
	}
	b.do(request{method: put, path: "/v1/hosts/" + f.host.String() + "/ask", cookie: p.cookie, body: apiv1.AskPut{PricePerGPUHour: "-1"}}).problem(http.StatusUnprocessableEntity, "invalid")
	b.do(request{method: post, path: "/v1/hosts/" + f.host.String() + "/drain", cookie: p.cookie}).is(http.StatusOK).decode(&host)
	if host.State != "draining" {
		t.Errorf("state %s, want draining", host.State)
	}
	var token apiv1.JoinTokenCreated
	b.do(request{method: post, path: "/v1/join-tokens", cookie: p.cookie, body: apiv1.JoinTokenCreate{Region: "eu-west"}}).is(http.StatusCreated).decode(&token)
	if token.Kind != "gpu" || token.State != "open" || !strings.Contains(token.Command, token.Secret) || !strings.Contains(token.Command, "gateway.test:7443") {
		t.Errorf("token %+v", token)
	}
	b.do(request{method: post, path: "/v1/join-tokens", cookie: p.cookie, body: apiv1.JoinTokenCreate{Region: "eu-west", Kind: "head"}}).problem(http.StatusForbidden, "forbidden")
	b.do(request{method: del, path: "/v1/join-tokens/" + token.ID.String(), cookie: p.cookie}).is(http.StatusNoContent)
	var list apiv1.List[apiv1.JoinToken]
	b.do(request{method: get, path: "/v1/join-tokens", cookie: p.cookie}).is(http.StatusOK).decode(&list)
	if len(list.Items) != 1 || list.Items[0].State != "revoked" {
		t.Errorf("tokens %+v", list.Items)
	}
	if strings.Contains(string(b.do(request{method: get, path: "/v1/earnings", cookie: p.cookie}).is(http.StatusOK).body), "null") {
		t.Error("an empty list is null")
	}
}

func TestPayoutAddressWantsAFreshSignature(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.signIn(newPerson())
	set := request{method: put, path: "/v1/organisation/payout-address", cookie: p.cookie, body: apiv1.PayoutAddressSet{Address: newPerson().address}}
	b.do(set).is(http.StatusOK)
	b.exec(`UPDATE sessions SET signed_at = now() - interval '6 minutes'`)
	b.do(set).problem(http.StatusForbidden, "forbidden")
	set.cookie = b.signIn(p).cookie
	b.do(set).is(http.StatusOK)
}

func TestWalletOfANewOrganisation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.signIn(newPerson())
	var w apiv1.Wallet
	b.do(request{method: get, path: "/v1/wallet", cookie: p.cookie}).is(http.StatusOK).decode(&w)
	if w.Available.BaseUnits != "0" || w.DepositAddress == "" || !strings.HasPrefix(w.SolanaPayURL, "solana:"+w.DepositAddress+"?") || !strings.Contains(w.SolanaPayURL, "spl-token=") {
		t.Errorf("wallet %+v", w)
	}
	for _, path := range []string{"/v1/wallet/lines", "/v1/wallet/deposits", "/v1/payouts", "/v1/hosts", "/v1/keys", "/v1/members"} {
		if got := b.do(request{method: get, path: path, cookie: p.cookie}).is(http.StatusOK); !strings.Contains(string(got.body), `"items":[`) {
			t.Errorf("%s: %s", path, got.body)
		}
	}
	b.do(request{method: post, path: "/v1/local/faucet", cookie: p.cookie, body: apiv1.FaucetRequest{Amount: "10000.000001"}}).problem(http.StatusUnprocessableEntity, "invalid")
	b.do(request{method: post, path: "/v1/local/faucet", cookie: p.cookie, body: apiv1.FaucetRequest{Amount: "100"}}).is(http.StatusOK)
}

func TestHoursAreExact(t *testing.T) {
	t.Parallel()
	for milliseconds, want := range map[int64]string{0: "0.0000", 359: "0.0000", 360: "0.0001", 3_600_000: "1.0000", 45_000_000: "12.5000", 3_599_999: "0.9999"} {
		if got := hours(milliseconds); got != want {
			t.Errorf("%d ms are %s hours, want %s", milliseconds, got, want)
		}
	}
}
