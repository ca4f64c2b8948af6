package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// serve answers every request with handler and returns a client for it.
func serve(t *testing.T, org string, handler http.HandlerFunc) *client.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := client.New(server.URL, "mk_secret", org, server.Client().Transport)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestACallCarriesCredentialsOrganisationAndBody(t *testing.T) {
	t.Parallel()
	var seen *http.Request
	var body []byte
	c := serve(t, "org_1", func(w http.ResponseWriter, r *http.Request) {
		seen = r
		body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, `{"title":"done"}`)
	})
	var out apiv1.Problem
	err := c.Do(t.Context(), http.MethodPost, "/v1/quotes", url.Values{"limit": {"5"}}, http.Header{"Idempotency-Key": {"k"}},
		map[string]int{"node_count": 2}, &out)
	if err != nil || out.Title != "done" {
		t.Fatalf("answer %+v, %v", out, err)
	}
	if seen.Method != http.MethodPost || seen.URL.Path != "/v1/quotes" || seen.URL.Query().Encode() != "limit=5&org=org_1" {
		t.Errorf("asked %s %s", seen.Method, seen.URL)
	}
	if seen.Header.Get("Authorization") != "Bearer mk_secret" || seen.Header.Get("Idempotency-Key") != "k" ||
		seen.Header.Get("Content-Type") != "application/json" || string(body) != `{"node_count":2}` {
		t.Errorf("sent %q with %v", body, seen.Header)
	}
}

func TestTheOrganisationOfACallComesBeforeTheClients(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		org   string
		query url.Values
		want  string
	}{
		"none":       {"", nil, ""},
		"client's":   {"org_1", nil, "org=org_1"},
		"call's own": {"org_1", url.Values{"org": {"org_2"}}, "org=org_2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var query string
			api := serve(t, c.org, func(w http.ResponseWriter, r *http.Request) {
				query = r.URL.RawQuery
				w.WriteHeader(http.StatusNoContent)
			})
			if err := api.Get(t.Context(), "/v1/clusters", c.query, nil); err != nil {
				t.Fatal(err)
			}
			if query != c.want {
				t.Errorf("query is %q, want %q", query, c.want)
			}
		})
	}
}

func TestACallersQueryIsNotChanged(t *testing.T) {
	t.Parallel()
	api := serve(t, "org_1", answer(http.StatusOK, `{}`))
	query := url.Values{"limit": {"5"}}
	if err := api.Get(t.Context(), "/v1/clusters", query, nil); err != nil {
		t.Fatal(err)
	}
	if query.Encode() != "limit=5" {
		t.Errorf("it became %q", query.Encode())
	}
}

func TestProblemDocuments(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body string
		want string
	}{
		"detail": {`{"status":409,"title":"Conflict","code":"conflict","detail":"It is taken."}`, "It is taken."},
		"title":  {`{"status":409,"title":"Conflict","code":"conflict"}`, "Conflict"},
		"inputs": {
			`{"status":409,"code":"conflict","detail":"Two inputs are wrong.","errors":[{"path":"a","message":"is odd"},{"path":"b","message":"is old"}]}`,
			"Two inputs are wrong.\n  a: is odd\n  b: is old",
		},
		"the detail says it already": {
			`{"status":409,"code":"conflict","detail":"a is odd","errors":[{"path":"a","message":"a is odd"}]}`, "a is odd",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := serve(t, "", answer(http.StatusConflict, c.body)).Post(t.Context(), "/v1/quotes", nil, nil)
			if err == nil || err.Error() != c.want || client.CodeOf(err) != "conflict" {
				t.Errorf("got %q with code %q, want %q", err, client.CodeOf(err), c.want)
			}
			var problem *client.Error
			if !errors.As(err, &problem) || problem.Status != http.StatusConflict {
				t.Errorf("the document is %+v", problem)
			}
		})
	}
}

func TestAnswersThatAreNotOfTheAPI(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"a proxy's error page":   {http.StatusBadGateway, "<html>Bad Gateway</html>", "is not an answer of Muster's API"},
		"JSON of something else": {http.StatusNotFound, `{"error":"no"}`, "is not an answer of Muster's API"},
		"an empty error":         {http.StatusForbidden, "", "is not an answer of Muster's API"},
		"a page instead of data": {http.StatusOK, "<html>Welcome</html>", "is not what this version expects"},
		"nothing instead":        {http.StatusOK, "", "is not what this version expects"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out struct{ Items []string }
			err := serve(t, "", answer(c.status, c.body)).Get(t.Context(), "/v1/clusters", nil, &out)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestAnEndlessAnswerIsRefused(t *testing.T) {
	t.Parallel()
	api := serve(t, "", func(w http.ResponseWriter, r *http.Request) {
		chunk := []byte(strings.Repeat("x", 1<<16))
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	var out any
	if err := api.Get(t.Context(), "/v1/clusters", nil, &out); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("got %v", err)
	}
}

func TestAnUnreachableAPIIsNamed(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + listener.Addr().String()
	_ = listener.Close()
	api, err := client.New(address, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	err = api.Get(t.Context(), "/v1/clusters", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "cannot reach Muster at "+address) {
		t.Errorf("got %v", err)
	}
	if code := client.CodeOf(err); code != "" {
		t.Errorf("it has the code %q, which only the API's answers have", code)
	}
}

func TestACancelledCallEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	api := serve(t, "", func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if err := api.Get(ctx, "/v1/clusters", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "muster.example", "https://", "ftp://muster.example", "http://\x7f"} {
		if _, err := client.New(address, "", "", nil); err == nil || !strings.Contains(err.Error(), "https://muster.example") {
			t.Errorf("%q: %v", address, err)
		}
	}
	api, err := client.New("https://muster.example/behind/a/prefix/", "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	request, err := api.Request(t.Context(), http.MethodGet, "/v1/network", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := request.URL.String(); got != "https://muster.example/behind/a/prefix/v1/network" {
		t.Errorf("asked %s", got)
	}
	if header := request.Header.Get("Authorization"); header != "" {
		t.Errorf("without a key it sends %q", header)
	}
}

func TestAnAnswerReplacesTheOneBefore(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"name": "rack-7"}`)) }))
	t.Cleanup(server.Close)
	api, err := client.New(server.URL, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	host := apiv1.Host{Name: "rack-8", Site: "oslo-1", GPUs: []apiv1.GPU{{}}}
	if err := api.Get(t.Context(), "/v1/hosts", nil, &host); err != nil {
		t.Fatal(err)
	}
	if host.Name != "rack-7" || host.Site != "" || host.GPUs != nil {
		t.Errorf("read %+v, with parts of what was there", host)
	}
}
