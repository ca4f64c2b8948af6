package rayproxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/muster-gpu/muster/api/rayproxy"
)

// own reports what is wrong with the credentials that a request came to Ray with.
func own(r seen, ours string) string {
	if got := r.Header["Authorization"]; !slices.Equal(got, []string{"Bearer " + rayToken}) {
		return fmt.Sprintf("Authorization %q", got)
	}
	all := fmt.Sprint(r)
	for _, secret := range []string{ours, "mrt_", "X-Ray-Authorization", "X-Muster-Token", "X-Forwarded", "X-Real-Ip", "Forwarded", "Cookie", "Proxy-Authorization"} {
		if strings.Contains(all, secret) {
			return fmt.Sprintf("%s in %s", secret, all)
		}
	}
	return ""
}

func TestNothingInARequestChangesWhatRayIsTold(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{})
	token := b.token(b.cluster)
	for name, headers := range map[string][]string{
		"plain":                       {"Authorization: Bearer " + token},
		"another scheme's case":       {"Authorization: bearer " + token},
		"Connection names ours":       {"Authorization: Bearer " + token, "Connection: Authorization, X-Ray-Authorization, X-Muster-Token"},
		"Connection twice":            {"Authorization: Bearer " + token, "Connection: keep-alive", "Connection: Authorization"},
		"Ray's other header":          {"X-Ray-Authorization: Bearer " + token},
		"our own header":              {"X-Muster-Token: " + token, "Authorization: Basic bmV0cmM6c2VjcmV0"},
		"a guess at Ray's token":      {"Authorization: Bearer " + token, "X-Ray-Authorization: Bearer guess", "Proxy-Authorization: Basic eDp5"},
		"forwarding headers":          {"Authorization: Bearer " + token, "X-Forwarded-For: 127.0.0.1", "X-Forwarded-User: root", "Forwarded: for=127.0.0.1", "X-Real-IP: 127.0.0.1"},
		"trailers":                    {"Authorization: Bearer " + token, "Transfer-Encoding: chunked", "Trailer: Authorization"},
		"hop-by-hop of another's":     {"Authorization: Bearer " + token, "Keep-Alive: timeout=9", "TE: trailers", "Proxy-Connection: close"},
		"user in the target's credit": {"Authorization: Bearer " + token, "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"},
	} {
		body := ""
		if name == "trailers" {
			body = "2\r\nok\r\n0\r\nAuthorization: Bearer guess\r\n\r\n"
		}
		got := b.raw(lines(append([]string{"POST " + b.path("/api/jobs/") + " HTTP/1.1", "Host: " + b.address, "User-Agent: python-requests/2"}, headers...)...) + body)
		reached := b.reached()
		if got.StatusCode != http.StatusOK || len(reached) != 1 {
			t.Errorf("%s: status %d, %d requests came to Ray: %s", name, got.StatusCode, len(reached), got.body)
			continue
		}
		if wrong := own(reached[0], token); wrong != "" {
			t.Errorf("%s: Ray got %s", name, wrong)
		}
		if r := reached[0]; r.URI != "/api/jobs/" || r.Host != b.address || r.Header.Get("User-Agent") != "python-requests/2" || r.Header.Get("Http2-Settings") != "" {
			t.Errorf("%s: Ray got %+v", name, r)
		}
	}
}

func TestAmbiguousRequestsAreRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{})
	token, cookie := b.token(b.cluster), b.session()
	program := func(method, path string, more ...string) string {
		return lines(append([]string{method + " " + b.path(path) + " HTTP/1.1", "Host: " + b.address, "Authorization: Bearer " + token}, more...)...)
	}
	cases := map[string]string{
		"h2c":                     program("GET", "/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
		"h2c without Connection":  program("GET", "/", "Upgrade: h2c"),
		"websocket and h2c":       program("GET", "/", "Connection: Upgrade", "Upgrade: websocket, h2c"),
		"websocket, then h2c":     program("GET", "/", "Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"),
		"Authorization twice":     program("GET", "/", "Authorization: Bearer "+token),
		"another token's twice":   program("GET", "/", "X-Ray-Authorization: a", "X-Ray-Authorization: b"),
		"TRACE":                   program("TRACE", "/"),
		"CONNECT to a dashboard":  b.page("CONNECT", "/", cookie),
		"a method of one's own":   program("SPLICE", "/"),
		"header with a space":     program("GET", "/", "X-Forwarded-For : 1"),
		"two lengths":             program("POST", "/", "Content-Length: 1", "Content-Length: 2") + "ab",
		"a negative length":       program("POST", "/", "Content-Length: -1"),
		"chunked not at the end":  program("POST", "/", "Transfer-Encoding: chunked, identity") + "0\r\n\r\n",
		"another coding":          program("POST", "/", "Transfer-Encoding: gzip, chunked") + "0\r\n\r\n",
		"no host":                 lines("GET "+b.path("/")+" HTTP/1.1", "Authorization: Bearer "+token),
		"two hosts":               program("GET", "/", "Host: elsewhere"),
		"encoded dots, dashboard": b.page("GET", "/%2e%2e/", cookie),
	}
	for _, path := range []string{
		"/..", "/../", "/api/../../..", "/.", "/./api", "/%2e%2e/", "/%2E./x", "/.%2e", "/..%2f", "/api%2fjobs", "/api%2Fjobs", "/%2f", "/..%5c..", `/..\..`,
		`/a\b`, "/%5C", "/a%00b", "/%00", "/a%0d%0aX-Ray-Authorization:%20x", "/a%7f", "/%252e%252e/", "/a%252fb", "/a%25", "/a%2", "/a%zz",
	} {
		cases["path "+path] = program("GET", path)
		cases["dashboard's path "+path] = b.page("GET", path, cookie)
	}
	b.reached()
	for name, request := range cases {
		got := b.raw(request)
		if reached := b.reached(); got.StatusCode < 400 || got.StatusCode > http.StatusNotImplemented || got.StatusCode == http.StatusUnauthorized || len(reached) > 0 {
			t.Errorf("%s: status %d %s, and to Ray came %+v", name, got.StatusCode, got.body, reached)
		}
	}
	if got := b.raw(program("GET", "/api/packages/gcs/a%20b.zip?x=%2F..%2F")); got.StatusCode != http.StatusOK {
		t.Errorf("a path that is well is refused: %d %s", got.StatusCode, got.body)
	}
	if reached := b.reached(); len(reached) != 1 || reached[0].URI != "/api/packages/gcs/a%20b.zip?x=%2F..%2F" {
		t.Errorf("Ray got %+v", reached)
	}
}

// A request with both lengths is read by its chunks and goes on with one of them, so that no second request hides in it.
func TestTwoLengthsSmuggleNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{})
	token := b.token(b.cluster)
	hidden := "GET /api/actors/kill HTTP/1.1\r\nHost: x\r\n\r\n"
	conn := b.dial()
	_, err := io.WriteString(conn, lines("POST "+b.path("/api/jobs/")+" HTTP/1.1", "Host: "+b.address, "Authorization: Bearer "+token,
		fmt.Sprintf("Content-Length: %d", len("0\r\n\r\n")+len(hidden)), "Transfer-Encoding: chunked")+"0\r\n\r\n"+hidden)
	fatal(t, err)
	reader := bufio.NewReader(conn)
	if got := b.read(reader, http.MethodPost); got.StatusCode != http.StatusOK {
		t.Fatalf("status %d %s", got.StatusCode, got.body)
	}
	// What follows the chunks is a request of its own, with no credential of ours: it must end here.
	if response, err := http.ReadResponse(reader, nil); err == nil {
		_ = response.Body.Close()
		if response.StatusCode < 400 {
			t.Errorf("the hidden request was answered with %d", response.StatusCode)
		}
	}
	reached := b.reached()
	if len(reached) != 1 || reached[0].Body != "" || reached[0].Header.Get("Content-Length") != "" {
		t.Errorf("Ray got %+v", reached)
	}
}

func TestRaysTokenNeverComesBack(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{ray: func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		h := w.Header()
		h.Set("Set-Cookie", "early="+token)
		h.Set("Link", "</x>; token="+token)
		w.WriteHeader(http.StatusEarlyHints)
		h.Set("Set-Cookie", "ray-authentication-token="+token+"; Path=/; HttpOnly")
		h.Add("Set-Cookie", "__Host-muster-ray=planted; Secure; Path=/")
		h.Add("Set-Cookie", "wide=1; Domain="+suffix)
		h.Set("X-Echo", "You sent Bearer "+token)
		h.Set("WWW-Authenticate", "Bearer realm="+token)
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Strict-Transport-Security", "max-age=1; includeSubDomains")
		h.Set("Content-Security-Policy", "default-src *")
		h.Set("X-Content-Type-Options", "sniff")
		h.Set("X-Ray", "kept")
		h.Set("Trailer", "Set-Cookie, X-Late")
		_, _ = io.WriteString(w, "authenticated")
		h.Set("Set-Cookie", "late="+token)
		h.Set("X-Late", token)
	}})
	for name, request := range map[string]string{
		"program":   b.get("/api/authenticate", b.token(b.cluster), "Connection: close", "TE: trailers"),
		"dashboard": b.page("GET", "/api/authenticate", b.session(), "Connection: close", "TE: trailers"),
	} {
		conn := b.dial()
		_, err := io.WriteString(conn, request)
		fatal(t, err)
		everything, err := io.ReadAll(conn)
		fatal(t, err)
		text := string(everything)
		for _, forbidden := range []string{rayToken, "Set-Cookie", "planted", "Domain=", "Early Hints", "Access-Control", "Strict-Transport", "X-Late", "default-src *", ": sniff"} {
			if strings.Contains(text, forbidden) {
				t.Errorf("%s: %q in %s", name, forbidden, text)
			}
		}
		for _, wanted := range []string{"HTTP/1.1 200 OK", "X-Ray: kept", "authenticated", "Content-Security-Policy: ", "frame-ancestors 'none'", "X-Content-Type-Options: nosniff"} {
			if !strings.Contains(text, wanted) {
				t.Errorf("%s: no %q in %s", name, wanted, text)
			}
		}
	}
}

func TestRedirectsWithinRayStayWithinTheirNames(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{ray: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", strings.ReplaceAll(r.URL.Query().Get("to"), "HOST", r.Host))
		w.WriteHeader(http.StatusFound)
	}})
	token, cookie := b.token(b.cluster), b.session()
	for to, want := range map[string]string{
		"/logs/": "/logs/", "logs?a=%2520#b": "/logs?a=%20#b", "http://HOST/x": "/x", "https://docs.ray.io/x": "https://docs.ray.io/x",
	} {
		escaped := strings.NewReplacer("#", "%23", "?", "%3F", " ", "%20").Replace(to)
		program, page := b.raw(b.get("/?to="+escaped, token)), b.raw(b.page("GET", "/?to="+escaped, cookie))
		root := b.path("")
		if strings.HasPrefix(want, "https:") {
			root = ""
		}
		if got := program.Header.Get("Location"); got != root+want {
			t.Errorf("%s leads a program to %s, want %s", to, got, root+want)
		}
		if got := page.Header.Get("Location"); got != want {
			t.Errorf("%s leads a page to %s, want %s", to, got, want)
		}
	}
}

func TestProgramsAddressRefusesBrowsers(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{})
	token := b.token(b.cluster)
	for _, header := range []string{"Cookie: a=b", "cookie: " + rayproxy.SessionCookie + "=x", "Origin: null", "Origin: http://" + b.address, "Sec-Fetch-Site: same-origin", "sec-fetch-mode: cors", "Sec-Fetch-Dest: empty"} {
		got := b.raw(b.get("/api/version", token, header, "Accept: application/json"))
		name, _, _ := strings.Cut(http.CanonicalHeaderKey(header), ":")
		if got.StatusCode != http.StatusForbidden || !strings.Contains(strings.ToLower(got.problem(t).Detail), strings.ToLower(name)) {
			t.Errorf("%s: %d %s", header, got.StatusCode, got.body)
		}
	}
	if reached := b.reached(); len(reached) > 0 {
		t.Errorf("to Ray came %+v", reached)
	}
}
