package rayproxy_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-gpu/muster/api/rayproxy"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

func TestCredentialsThatOpenNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{})
	other := b.book()
	b.sealRayToken()
	unknown := ids.New[ids.Cluster]()
	good, session := b.token(b.cluster), b.session()
	ticket := ticketCode(b.ticket(b.cluster).URL)
	at := func(cluster ids.Cluster, token string) string {
		return lines("GET /v1/clusters/"+cluster.String()+"/ray/api/version HTTP/1.1", "Host: "+b.address, "Authorization: Bearer "+token)
	}
	for _, request := range []string{at(b.cluster, good), b.page("GET", "/", session)} {
		if got := b.raw(request); got.StatusCode != http.StatusOK {
			t.Fatalf("what is good is refused: %d %s", got.StatusCode, got.body)
		}
	}
	b.reached()
	cases := map[string]string{
		"no token":                   strings.Replace(at(b.cluster, ""), "Authorization: Bearer \r\n", "", 1),
		"an empty token":             at(b.cluster, ""),
		"an unknown token":           at(b.cluster, "mrt_unknown"),
		"Ray's own token":            at(b.cluster, rayToken),
		"another cluster's token":    at(other, good),
		"a cluster that is not":      at(unknown, good),
		"a session as a token":       at(b.cluster, strings.TrimPrefix(session, rayproxy.SessionCookie+"=")),
		"a ticket as a token":        at(b.cluster, ticket),
		"no session":                 lines("GET / HTTP/1.1", "Host: "+b.dashboard()),
		"a token as a session":       b.page("GET", "/", rayproxy.SessionCookie+"="+good),
		"a ticket as a session":      b.page("GET", "/", rayproxy.SessionCookie+"="+ticket),
		"a planted second session":   b.page("GET", "/", rayproxy.SessionCookie+"=planted; "+session),
		"a session elsewhere":        strings.Replace(b.page("GET", "/", session), b.dashboard(), dashboardOf(other), 1),
		"a session in another name":  b.page("GET", "/", strings.TrimPrefix(session, "__Host-")),
		"a token on the dashboard":   lines("GET / HTTP/1.1", "Host: "+b.dashboard(), "Authorization: Bearer "+good),
		"a session for nonexistents": strings.Replace(b.page("GET", "/", session), b.dashboard(), dashboardOf(unknown), 1),
	}
	for name, request := range cases {
		if got := b.raw(request); got.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	// A stranger learns nothing from the difference between a cluster of others and none.
	theirs, none := b.raw(at(other, good)), b.raw(at(unknown, good))
	if strings.ReplaceAll(theirs.body, other.String(), "") != strings.ReplaceAll(none.body, unknown.String(), "") {
		t.Errorf("another's cluster: %s; none: %s", theirs.body, none.body)
	}
	for _, id := range []string{"cl_", "nonsense", "host_" + strings.TrimPrefix(b.cluster.String(), "cl_"), strings.ToUpper(b.cluster.String())} {
		if got := b.raw(strings.Replace(at(b.cluster, good), b.cluster.String(), id, 1)); got.StatusCode != http.StatusNotFound {
			t.Errorf("cluster %q: %d", id, got.StatusCode)
		}
	}
	if reached := b.reached(); len(reached) > 0 {
		t.Errorf("to Ray came %+v", reached)
	}
}

func ticketCode(address string) string {
	_, code, _ := strings.Cut(address, "code=")
	return code
}

func TestCredentialsEndWithTheRightToTheCluster(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*bench){
		"expired":             func(b *bench) { b.Exec(`UPDATE ray_accesses SET expires_at = now()`) },
		"no longer a member":  func(b *bench) { b.Exec(`DELETE FROM memberships`) },
		"no longer engineer":  func(b *bench) { b.Exec(`UPDATE memberships SET roles = '{finance,owner}'`) },
		"another's member":    func(b *bench) { b.Exec(`UPDATE memberships SET org_id = $1`, b.AddOrg("Another")) },
		"cluster is released": (*bench).release,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, options{})
			token, session := b.token(b.cluster), b.session()
			end(b)
			if got := b.raw(b.get("/api/version", token)); got.StatusCode != http.StatusUnauthorized {
				t.Errorf("the token: %d %s", got.StatusCode, got.body)
			}
			if got := b.raw(b.page("GET", "/", session)); got.StatusCode != http.StatusUnauthorized {
				t.Errorf("the session: %d %s", got.StatusCode, got.body)
			}
			if reached := b.reached(); len(reached) > 0 {
				t.Errorf("to Ray came %+v", reached)
			}
		})
	}
}

func TestOnlyTheOrganisationGetsCredentials(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{})
	stranger := b.AddOrg("Stranger")
	_, tokenErr := b.proxy.Token(t.Context(), stranger, b.cluster, b.User)
	_, ticketErr := b.proxy.Ticket(t.Context(), stranger, b.cluster, b.User)
	_, jobsErr := b.proxy.Jobs(t.Context(), stranger, b.cluster)
	for _, err := range []error{tokenErr, ticketErr, jobsErr} {
		if errs.CodeOf(err) != errs.NotFound {
			t.Errorf("a stranger got %v", err)
		}
	}
	b.release()
	if _, err := b.proxy.Token(t.Context(), b.Customer, b.cluster, b.User); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("after the release: %v", err)
	}
}

func TestRefusalsAsRaysClientShowsThem(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{})
	asRay := b.raw(b.get("/api/version", "mrt_unknown", "Accept: */*", "User-Agent: python-requests/2"))
	if kind := asRay.Header.Get("Content-Type"); kind != "text/plain; charset=utf-8" || asRay.Header.Get("Www-Authenticate") != "Bearer" {
		t.Errorf("headers %v", asRay.Header)
	}
	for _, part := range []string{"does not open cluster " + b.cluster.String(), "has expired", "`muster cluster env " + b.cluster.String() + "`"} {
		if !strings.Contains(asRay.body, part) {
			t.Errorf("%q does not say %q", asRay.body, part)
		}
	}
	if strings.Contains(asRay.body, "mrt_") {
		t.Errorf("%q repeats the token", asRay.body)
	}
	asProgram := b.raw(b.get("/api/version", "mrt_unknown", "Accept: application/json"))
	if p := asProgram.problem(t); p.Code != "unauthenticated" || asProgram.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%v %+v", asProgram.Header, p)
	}
	asBrowser := b.raw(b.page("GET", "/", "a=b", "Accept: text/html,*/*"))
	if !strings.HasPrefix(asBrowser.body, "Open this dashboard from the console") {
		t.Errorf("a browser shows %q", asBrowser.body)
	}
}

func TestATicketBuysOneSession(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{})
	ticket := b.ticket(b.cluster)
	if !strings.HasPrefix(ticket.URL, "http://"+b.dashboard()+"/.muster/enter?code=") {
		t.Fatalf("address %s", ticket.URL)
	}
	if lifetime := time.Until(ticket.ExpiresAt); lifetime > rayproxy.TicketLifetime || lifetime < rayproxy.TicketLifetime-bound {
		t.Errorf("it is good for %s", lifetime)
	}
	if got := b.raw(lines("HEAD /.muster/enter?code="+ticketCode(ticket.URL)+" HTTP/1.1", "Host: "+b.dashboard(), "Connection: close")); got.StatusCode != http.StatusBadRequest {
		t.Errorf("HEAD: %d", got.StatusCode)
	}
	if got := b.enter(strings.Replace(ticket.URL, b.dashboard(), dashboardOf(b.book()), 1)); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("on another cluster's name: %d", got.StatusCode)
	}
	var mu sync.Mutex
	var sessions []*http.Cookie
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			got := b.enter(ticket.URL)
			mu.Lock()
			defer mu.Unlock()
			if got.StatusCode == http.StatusSeeOther && got.Header.Get("Location") == "/" && got.Header.Get("Cache-Control") == "no-store" {
				sessions = append(sessions, got.Cookies()...)
			} else if got.StatusCode != http.StatusUnauthorized || len(got.Cookies()) > 0 {
				t.Errorf("%d %v %s", got.StatusCode, got.Header, got.body)
			}
		})
	}
	wait.Wait()
	if len(sessions) != 1 {
		t.Fatalf("sessions %v, want one", sessions)
	}
	c := sessions[0]
	if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" ||
		c.MaxAge != int(rayproxy.SessionLifetime.Seconds()) || len(c.Value) < 43 {
		t.Errorf("cookie %s", c.Raw)
	}
	late := b.ticket(b.cluster)
	b.Exec(`UPDATE ray_accesses SET expires_at = now() WHERE kind = 'ticket'`)
	if got := b.enter(late.URL); got.StatusCode != http.StatusUnauthorized || !strings.Contains(got.body, "30 seconds") {
		t.Errorf("after its time: %d %s", got.StatusCode, got.body)
	}
	if got := b.enter("http://" + b.dashboard() + "/.muster/enter"); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a code: %d", got.StatusCode)
	}
}

func TestSecretsAreStoredHashed(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{})
	for _, secret := range []string{b.token(b.cluster), ticketCode(b.ticket(b.cluster).URL)} {
		if n := b.Count(`SELECT count(*) FROM ray_accesses WHERE position($1::bytea in secret_hash) > 0 OR length(secret_hash) <> 32`, []byte(secret)); n != 0 {
			t.Errorf("%d rows hold a secret", n)
		}
	}
	b.Exec(`UPDATE ray_accesses SET expires_at = now() - interval '25 hours' WHERE kind = 'ticket'`)
	fatal(t, b.proxy.Purge(t.Context()))
	if n := b.Count(`SELECT count(*) FROM ray_accesses`); n != 1 {
		t.Errorf("%d credentials are left, want the token", n)
	}
}

func TestDashboardHostNames(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{})
	label := strings.TrimSuffix(b.dashboard(), "--ray."+suffix)
	for host, want := range map[string]bool{
		b.dashboard(): true, dashboardOf(ids.New[ids.Cluster]()): true,
		"": false, suffix: false, "--ray." + suffix: false, "cl---ray." + suffix: false, b.dashboard() + ".": false, b.dashboard() + ":80": false,
		label + "--ray.elsewhere.test": false, label + "." + suffix: false, "x." + b.dashboard(): false, b.dashboard() + ".evil.test": false,
		strings.Replace(b.dashboard(), "cl-", "cl_", 1):   true, // not a name that DNS gives, and the same cluster
		strings.Replace(b.dashboard(), "cl-", "host-", 1): false, "cl-" + strings.Repeat("z", 26) + "--ray." + suffix: false,
	} {
		if got := b.proxy.IsDashboard(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

func TestDashboardKeepsWhatRaysOwnGuardNeeds(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{})
	session := b.session()
	kept := []string{
		"User-Agent: Mozilla/5.0", "Origin: http://" + b.dashboard(), "Referer: http://" + b.dashboard() + "/", "Sec-Fetch-Site: same-origin",
		"Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Content-Type: application/json",
	}
	got := b.raw(b.page("PUT", "/api/x?y=1", session+"; ray-authentication-token=guess", append(kept, "Content-Length: 2", "X-Forwarded-For: 1", "Authorization: Basic eDp5")...) + "{}")
	reached := b.reached()
	if got.StatusCode != http.StatusOK || len(reached) != 1 {
		t.Fatalf("status %d %s, to Ray came %+v", got.StatusCode, got.body, reached)
	}
	r := reached[0]
	if wrong := own(r, strings.TrimPrefix(session, rayproxy.SessionCookie+"=")); wrong != "" {
		t.Errorf("Ray got %s", wrong)
	}
	if r.Host != b.dashboard() || r.URI != "/api/x?y=1" || r.Body != "{}" {
		t.Errorf("Ray got %+v", r)
	}
	for _, line := range kept {
		name, value, _ := strings.Cut(line, ": ")
		if r.Header.Get(name) != value {
			t.Errorf("%s is %q at Ray, want %q", name, r.Header.Get(name), value)
		}
	}
}

func TestDashboardAnswersItsOwnPagesOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{})
	session := b.session()
	link := []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket"}
	for name, c := range map[string]struct {
		method, path string
		headers      []string
		status       int
	}{
		"own page":                       {"GET", "/api/jobs/", []string{"Sec-Fetch-Site: same-origin"}, 200},
		"typed":                          {"GET", "/logs/x", append(link, "Sec-Fetch-Site: none"), 200},
		"link from the console":          {"GET", "/", append(link, "Sec-Fetch-Site: cross-site"), 200},
		"link to more than the start":    {"GET", "/api/actors/kill?actor_id=1", append(link, "Sec-Fetch-Site: cross-site"), 403},
		"posted form":                    {"POST", "/", append(link, "Sec-Fetch-Site: cross-site", "Origin: null"), 403},
		"another cluster's page reads":   {"GET", "/api/jobs/", []string{"Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors"}, 403},
		"another site's image":           {"GET", "/", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"}, 403},
		"an old browser's write":         {"POST", "/", []string{"Origin: http://" + dashboardOf(ids.New[ids.Cluster]())}, 403},
		"an old browser's own write":     {"POST", "/", []string{"Origin: http://" + b.dashboard()}, 200},
		"websocket from another origin":  {"GET", "/", append(upgrade, "Origin: http://evil.test"), 403},
		"websocket from another cluster": {"GET", "/", append(upgrade, "Origin: http://"+dashboardOf(ids.New[ids.Cluster]())), 403},
		"websocket over https":           {"GET", "/", append(upgrade, "Origin: https://"+b.dashboard()), 403},
		"websocket from a null origin":   {"GET", "/", append(upgrade, "Origin: null"), 403},
		"websocket without an origin":    {"GET", "/", upgrade, 403},
		"websocket by a link":            {"GET", "/", append(append(upgrade, link...), "Sec-Fetch-Site: cross-site", "Origin: http://"+b.dashboard()), 403},
	} {
		b.reached()
		got := b.raw(b.page(c.method, c.path, session, append(c.headers, "Connection: close")...))
		if reached := len(b.reached()) > 0; got.StatusCode != c.status || reached != (c.status == http.StatusOK) {
			t.Errorf("%s: %d, came to Ray: %v: %s", name, got.StatusCode, reached, got.body)
		}
	}
}
