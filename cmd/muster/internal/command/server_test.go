package command

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/contexts"
)

var update = flag.Bool("update", false, "write the golden files and docs/cli.md anew")

var testNow = time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)

// server answers with recorded documents, and holds every request to the API's OpenAPI document: a path, method or query
// parameter that the API does not have fails the test.
type server struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	answers  map[string]any // "GET /v1/clusters" to a document, problem or http.HandlerFunc
	requests []request
}

type request struct {
	route string
	query string
	auth  string
	body  string
}

func newServer(t *testing.T) *server {
	s := &server{t: t, answers: documents()}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// on sets what a route answers.
func (s *server) on(route string, answer any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[route] = answer
}

func (s *server) made(route string) []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.requests), func(r request) bool { return r.route != route })
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	route := r.Method + " " + r.URL.Path
	if !strings.Contains(r.URL.Path, "/ray/") {
		checkContract(s.t, r)
	}
	s.mu.Lock()
	s.requests = append(s.requests, request{route, r.URL.RawQuery, r.Header.Get("Authorization"), string(body)})
	answer, found := s.answers[route]
	s.mu.Unlock()
	if !found {
		answer = problem(http.StatusNotFound, codeNotFound, "there is no such thing")
	}
	switch answer := answer.(type) {
	case http.HandlerFunc:
		answer(w, r)
	case apiv1.Problem:
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(answer.Status)
		_ = json.NewEncoder(w).Encode(answer)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}
}

func problem(status int, code, detail string) apiv1.Problem {
	return apiv1.Problem{Title: http.StatusText(status), Status: status, Code: code, Detail: detail, RequestID: "req_test"}
}

type operation struct {
	Parameters []struct{ Name, In string }
}

var contract = sync.OnceValues(func() (map[string]map[string]operation, error) {
	content, err := os.ReadFile("../../../../api/openapi.json")
	if err != nil {
		return nil, err
	}
	var document struct {
		Paths map[string]map[string]operation
	}
	return document.Paths, json.Unmarshal(content, &document)
})

var placeholder = regexp.MustCompile(`\\\{[a-z]+\\\}`)

func checkContract(t *testing.T, r *http.Request) {
	paths, err := contract()
	if err != nil {
		t.Errorf("read the OpenAPI document: %v", err)
		return
	}
	for template, methods := range paths {
		expression := placeholder.ReplaceAllString(regexp.QuoteMeta(template), "[^/]+")
		op, found := methods[strings.ToLower(r.Method)]
		if !found || !regexp.MustCompile("^"+expression+"$").MatchString(r.URL.Path) {
			continue
		}
		for name := range r.URL.Query() {
			if !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool { return p.In == "query" && p.Name == name }) {
				t.Errorf("%s %s takes no query parameter %q", r.Method, template, name)
			}
		}
		return
	}
	t.Errorf("the API has no %s %s", r.Method, r.URL.Path)
}

// shell is somebody at a prompt, logged in to a server.
type shell struct {
	t      *testing.T
	app    App
	ctx    context.Context
	config string
	env    map[string]string
}

type result struct {
	out, err string
	code     int
}

func newShell(t *testing.T, server string) *shell {
	config := t.TempDir()
	s := &shell{t: t, ctx: t.Context(), config: config, env: map[string]string{"XDG_CONFIG_HOME": config}}
	if server != "" {
		file := contexts.File{}
		file.Set("test", contexts.Context{
			Server: server, Org: testOrg.String(), OrgName: "Northwind Labs", Person: "Ada, ML engineer", Key: "mst_test",
		})
		if err := file.Save(filepath.Join(config, "muster", "config.yaml")); err != nil {
			t.Fatal(err)
		}
	}
	s.app = App{
		In: strings.NewReader(""), Getenv: func(name string) string { return s.env[name] }, Now: func() time.Time { return testNow },
		Transport: http.DefaultTransport, Hostname: "laptop", Version: "1.2.3", Poll: time.Millisecond,
	}
	return s
}

func (s *shell) run(arguments ...string) result {
	s.t.Helper()
	var out, errs bytes.Buffer
	app := s.app
	app.Out, app.Err = &out, &errs
	code := Run(s.ctx, app, arguments)
	return result{out.String(), errs.String(), code}
}

func (r result) has(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.err, text) {
			t.Errorf("the output lacks %q", text)
		}
	}
	if t.Failed() {
		t.Logf("stdout:\n%s\nstderr:\n%s", r.out, r.err)
	}
}

// golden compares text with a file of testdata, or writes it with -update.
func golden(t *testing.T, path, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run the test with -update", err)
	}
	if text != string(want) {
		t.Errorf("%s differs; -update writes it anew. Got:\n%s\nWant:\n%s", path, text, want)
	}
}
