package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/testkit"
)

func TestBadInputIsAProblemThatSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.member(b.org("Customer", false), identity.Engineer)
	spec := func(change string) string {
		return `{"gpu_model":"H100","node_count":2,"gpus_per_node":1,"duration":"1h"` + change + `}`
	}
	cases := map[string]struct {
		request
		status int
		code   string
		says   string // in the detail or a field
		path   string // of the wrong input
	}{
		"malformed JSON":   {request{method: post, path: "/v1/quotes", body: `{"gpu_model":`}, 400, "invalid", "not valid JSON", ""},
		"two documents":    {request{method: post, path: "/v1/quotes", body: spec("") + spec("")}, 400, "invalid", "not valid JSON", ""},
		"no body":          {request{method: post, path: "/v1/quotes"}, 400, "invalid", "body", ""},
		"a list":           {request{method: post, path: "/v1/quotes", body: `[]`}, 422, "invalid", "object", "body"},
		"unknown field":    {request{method: post, path: "/v1/quotes", body: spec(`,"gpus":3`)}, 422, "invalid", "unexpected property", "body.gpus"},
		"missing field":    {request{method: post, path: "/v1/quotes", body: `{"gpu_model":"H100","node_count":2,"gpus_per_node":1}`}, 422, "invalid", "duration", "body"},
		"text for number":  {request{method: post, path: "/v1/quotes", body: strings.Replace(spec(""), "2", `"2"`, 1)}, 422, "invalid", "integer", "body.node_count"},
		"no nodes":         {request{method: post, path: "/v1/quotes", body: strings.Replace(spec(""), ":2", ":0", 1)}, 422, "invalid", "between 1 and", "body.node_count"},
		"negative time":    {request{method: post, path: "/v1/quotes", body: strings.Replace(spec(""), "1h", "-1h", 1)}, 422, "invalid", "between", "body.duration"},
		"endless time":     {request{method: post, path: "/v1/quotes", body: strings.Replace(spec(""), "1h", "9999h", 1)}, 422, "invalid", "between", "body.duration"},
		"no duration":      {request{method: post, path: "/v1/quotes", body: strings.Replace(spec(""), "1h", "soon", 1)}, 422, "invalid", "2h30m", "body.duration"},
		"too many digits":  {request{method: post, path: "/v1/quotes", body: spec(`,"max_price_per_gpu_hour":"1.0000001"`)}, 422, "invalid", "only 6", "body.max_price_per_gpu_hour"},
		"unknown model":    {request{method: post, path: "/v1/quotes", body: spec("")}, 422, "invalid", "no GPU model", "body.gpu_model"},
		"wrong kind of id": {request{method: get, path: "/v1/clusters/host_01jd8xk4s3f5rtkq9m2v6w7x8y"}, 422, "invalid", "cl_", "path.id"},
		"cut-off id":       {request{method: get, path: "/v1/clusters/cl_01jd8"}, 422, "invalid", "cl_", "path.id"},
		"unknown id":       {request{method: get, path: "/v1/clusters/cl_01jd8xk4s3f5rtkq9m2v6w7x8y"}, 404, "not_found", "cl_01jd8xk4s3f5rtkq9m2v6w7x8y", ""},
		"unknown query":    {request{method: get, path: "/v1/clusters?sort=name"}, 422, "invalid", "unknown query parameter", "query.sort"},
		"limit too high":   {request{method: get, path: "/v1/clusters?limit=201"}, 422, "invalid", "200", "query.limit"},
		"foreign cursor":   {request{method: get, path: "/v1/clusters?cursor=abc"}, 422, "invalid", "cursor", "query.cursor"},
		"unknown path":     {request{method: get, path: "/v1/nothing"}, 404, "not_found", "/docs", ""},
		"wrong method":     {request{method: "PATCH", path: "/v1/clusters"}, 405, "invalid", "PATCH", ""},
		"wrong media type": {request{method: post, path: "/v1/quotes", body: "a=b", header: map[string]string{"Content-Type": "text/plain"}}, 415, "invalid", "application/json", ""},
		"wrong bearer":     {request{method: get, path: "/v1/me", header: map[string]string{"Authorization": "Basic abc"}}, 401, "unauthenticated", "Bearer", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.cookie = p.cookie
			got := b.do(c.request).problem(c.status, c.code)
			said := got.Detail
			for _, f := range got.Errors {
				said += " " + f.Path + ": " + f.Message
			}
			if !strings.Contains(said, c.says) {
				t.Errorf("it says %q, want %q in it", said, c.says)
			}
			if c.path != "" && (len(got.Errors) == 0 || got.Errors[0].Path != c.path) {
				t.Errorf("fields %+v, want %s", got.Errors, c.path)
			}
		})
	}
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.member(b.org("Customer", false), identity.Engineer)
	b.do(request{method: post, path: "/v1/quotes", cookie: p.cookie, body: strings.Repeat(" ", 10<<20)}).problem(http.StatusRequestEntityTooLarge, "too_large")
	// Without a length there is nothing to refuse in advance: it is cut off at the limit.
	req, err := http.NewRequestWithContext(t.Context(), post, b.url+"/v1/quotes", io.LimitReader(zeros{}, 10<<20))
	fatal(t, err)
	req.Header.Set("Cookie", p.cookie)
	resp, err := b.client.Do(req)
	if err != nil {
		return // the server hung up before the client had sent everything
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Fatalf("status %d, want 413", resp.StatusCode)
	}
}

func TestHostNamesThatAreNotOursAreMisdirected(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) { o.HostNames = []string{"muster.example", "other.example:8443"} })
	_, port, err := net.SplitHostPort(b.host)
	fatal(t, err)
	for host, status := range map[string]int{
		b.host: 200, "muster.example": 200, "MUSTER.example:1234": 200, "other.example:8443": 200,
		"other.example": 421, "evil.example": 421, "evil.example:" + port: 421, "127.0.0.1": 421, "127.0.0.1.evil.example": 421, "localhost:" + port: 421,
	} {
		for _, path := range []string{"/v1/network", "/", "/docs", "/healthz", "/v1/clusters/cl_01jd8xk4s3f5rtkq9m2v6w7x8y/ray/api/version"} {
			got := b.do(request{method: get, path: path, header: map[string]string{"Host": host}})
			if (got.StatusCode == http.StatusMisdirectedRequest) != (status == 421) {
				t.Errorf("Host %s, %s: %d, want %d", host, path, got.StatusCode, status)
			}
		}
	}
}

func TestAnotherSitesPageCannotMutate(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.signIn(newPerson())
	found := request{method: post, path: "/v1/organisations", cookie: p.cookie, body: apiv1.OrgCreate{Name: "Mine"}}
	for _, header := range []map[string]string{
		{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil.example"},
	} {
		found.header = header
		b.do(found).problem(http.StatusForbidden, "forbidden")
	}
	found.header = map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": b.url}
	b.do(found).is(http.StatusCreated)
}

func TestSessionCookieCannotBeReadOrOverruled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := newPerson()
	asked := b.do(request{method: post, path: "/v1/auth/nonce", body: apiv1.NonceRequest{Address: p.address}}).is(http.StatusOK)
	for _, c := range asked.Cookies() {
		if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || !strings.HasPrefix(c.Name, "__Host-") {
			t.Errorf("cookie %v", c)
		}
	}
	b.signIn(p)
	b.do(request{method: get, path: "/v1/me", cookie: p.cookie}).is(http.StatusOK)
	// A second cookie of the name, planted by another host of the domain, makes neither of them count.
	b.do(request{method: get, path: "/v1/me", cookie: sessionCookie + "=planted; " + p.cookie}).problem(http.StatusUnauthorized, "unauthenticated")
}

func TestSignOutEndsTheSession(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.signIn(newPerson())
	out := b.do(request{method: post, path: "/v1/auth/sign-out", cookie: p.cookie}).is(http.StatusNoContent)
	if dropped := out.Cookies(); len(dropped) != 1 || dropped[0].MaxAge >= 0 {
		t.Errorf("cookies %v, want the session's dropped", dropped)
	}
	b.do(request{method: get, path: "/v1/me", cookie: p.cookie}).problem(http.StatusUnauthorized, "unauthenticated")
}

func TestRequestsAreLimitedPerAddressAndPerPerson(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) {
		o.Limits = Limits{SignIn: Limit{0.001, 4}, Address: Limit{0.001, 30}, Principal: Limit{0.001, 3}}
	})
	p := b.signIn(newPerson()) // two of the sign-in's four
	for range 3 {
		got := b.do(request{method: get, path: "/v1/me", cookie: p.cookie}).is(http.StatusOK)
		if got.Header.Get("RateLimit") == "" || got.Header.Get("RateLimit-Policy") == "" {
			t.Fatalf("headers %v say nothing of the limit", got.Header)
		}
	}
	refused := b.do(request{method: get, path: "/v1/me", cookie: p.cookie})
	refused.problem(http.StatusTooManyRequests, "rate_limited")
	if refused.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	for range 2 {
		b.do(request{method: post, path: "/v1/auth/nonce", body: apiv1.NonceRequest{Address: p.address}}).is(http.StatusOK)
	}
	b.do(request{method: post, path: "/v1/auth/nonce", body: apiv1.NonceRequest{Address: p.address}}).problem(http.StatusTooManyRequests, "rate_limited")
	b.do(request{method: get, path: "/v1/network"}).is(http.StatusOK)
	testkit.Eventually(t, testTimeout, func() (bool, string) {
		return b.do(request{method: get, path: "/v1/network"}).StatusCode == http.StatusTooManyRequests, "the address is not limited"
	})
}

func TestLimiterMemoryIsBounded(t *testing.T) {
	t.Parallel()
	l := newLimiter("test", Limit{1, 1})
	for i := range maxLimited + 1000 {
		l.allow(http.Header{}, fmt.Sprint(i))
	}
	if len(l.byKey) != maxLimited || l.order.Len() != maxLimited {
		t.Fatalf("%d keys in the map and %d in the list, want %d", len(l.byKey), l.order.Len(), maxLimited)
	}
	if l.allow(http.Header{}, fmt.Sprint(maxLimited+999)) {
		t.Error("the latest key was forgotten")
	}
}

func TestHeadersAreBoundedInSizeAndTime(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	got := b.do(request{method: get, path: "/v1/network", header: map[string]string{"X-Long": strings.Repeat("x", 64<<10)}})
	if got.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d, want 431", got.StatusCode)
	}
	conn, err := net.Dial("tcp", b.host)
	fatal(t, err)
	defer func() { _ = conn.Close() }()
	begin := time.Now()
	_, err = io.WriteString(conn, "GET /v1/network HTTP/1.1\r\nHost: "+b.host+"\r\nX-Slow: ")
	fatal(t, err)
	fatal(t, conn.SetReadDeadline(time.Now().Add(testTimeout)))
	if _, err := io.ReadAll(bufio.NewReader(conn)); err != nil {
		t.Fatalf("the connection was not closed: %v", err)
	}
	if took := time.Since(begin); took > headerTimeout+5*time.Second {
		t.Errorf("unfinished headers were waited for %s", took)
	}
}

func TestPanicIsAHiddenInternalError(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) { o.Market = panicking{} })
	got := b.do(request{method: get, path: "/v1/offers"}).problem(http.StatusInternalServerError, "internal")
	if got.Detail != internalDetail || strings.Contains(got.Detail, "nil pointer") {
		t.Errorf("the detail %q tells the cause", got.Detail)
	}
}

// panicking calls through a nil market.
type panicking struct{ Market }

func TestConsoleFiles(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	index := b.do(request{method: get, path: "/clusters/cl_x/overview"}).is(http.StatusOK)
	if !strings.Contains(string(index.body), "<title>Muster") || index.Header.Get("Cache-Control") != revalidate {
		t.Errorf("a page of the console: %q, %v", index.body, index.Header)
	}
	policy := index.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "script-src 'self'") || strings.Contains(policy, "unsafe") || !strings.Contains(policy, "frame-ancestors 'none'") {
		t.Errorf("policy %q", policy)
	}
	for accept, want := range map[string][2]string{
		"": {"", "console.log('plain')"}, "gzip": {"gzip", "gzip bytes"}, "gzip, br": {"br", "brotli bytes"}, "br;q=0, gzip": {"gzip", "gzip bytes"},
	} {
		got := b.do(request{method: get, path: "/assets/index-Ab3dEf9h.js", header: map[string]string{"Accept-Encoding": accept}}).is(http.StatusOK)
		if got.Header.Get("Content-Encoding") != want[0] || string(got.body) != want[1] {
			t.Errorf("accepting %q: %q %q", accept, got.Header.Get("Content-Encoding"), got.body)
		}
		if got.Header.Get("Cache-Control") != immutable || !strings.HasPrefix(got.Header.Get("Content-Type"), "text/javascript") {
			t.Errorf("headers %v", got.Header)
		}
	}
	b.do(request{method: get, path: "/assets/gone-00000000.js"}).problem(http.StatusNotFound, "not_found")
	b.do(request{method: get, path: "/../../etc/passwd"}).is(http.StatusOK)
	b.do(request{method: post, path: "/clusters"}).problem(http.StatusMethodNotAllowed, "invalid")
	for _, header := range []string{"X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy"} {
		if index.Header.Get(header) == "" {
			t.Errorf("no %s", header)
		}
	}
}

func TestOpsListener(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.do(request{method: get, path: "/v1/network"}).is(http.StatusOK)
	ops := b.server.HTTPServer(b.server.OpsHandler())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	go func() { _ = ops.Serve(listener) }()
	t.Cleanup(func() { _ = ops.Close() })
	o := *b
	o.url = "http://" + listener.Addr().String()
	if text := string(o.do(request{method: get, path: "/metrics"}).is(http.StatusOK).body); !strings.Contains(text, `muster_http_requests_total{method="GET",route="/v1/network",status="200"} 1`) {
		t.Errorf("metrics lack the request: %s", text)
	}
	o.do(request{method: get, path: "/readyz"}).is(http.StatusOK)
	o.do(request{method: get, path: "/healthz", header: map[string]string{"Host": "evil.example"}}).problem(http.StatusMisdirectedRequest, "not_found")
	if got := b.do(request{method: get, path: "/metrics"}); strings.Contains(string(got.body), "muster_http") {
		t.Error("metrics are on the public listener")
	}
}
