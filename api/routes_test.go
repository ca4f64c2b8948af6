package api

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
)

// route is one operation as ROUTES.md, the contract, has it.
type route struct {
	method, path string
	query        []string // the names of its parameters, sorted
	what         string   // the column of what goes in and out
	who          string   // the last column, up to a semicolon
}

func readRoutes(t *testing.T) []route {
	t.Helper()
	text, err := os.ReadFile("v1/ROUTES.md")
	fatal(t, err)
	var routes []route
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 5 || !strings.Contains(cells[1], "/") || strings.Contains(cells[1], "method and path") {
			continue
		}
		who, _, _ := strings.Cut(strings.TrimSpace(cells[3]), ";")
		for part := range strings.SplitSeq(cells[1], ";") {
			at := strings.Index(part, "/")
			path, query, _ := strings.Cut(strings.TrimSpace(part[at:]), "?")
			names := strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == '=' })
			slices.Sort(names)
			for method := range strings.SplitSeq(part[:at], ",") {
				routes = append(routes, route{strings.TrimSpace(method), path, names, cells[2], who})
			}
		}
	}
	if len(routes) < 50 {
		t.Fatalf("only %d routes found in ROUTES.md", len(routes))
	}
	return routes
}

func testOperations(t *testing.T) map[string]*huma.Operation {
	t.Helper()
	s := new(Server)
	_, _, err := s.describe(true)
	fatal(t, err)
	operations := map[string]*huma.Operation{}
	for path, item := range s.huma.OpenAPI().Paths {
		for _, op := range operationsOf(item) {
			operations[op.Method+" "+path] = op
		}
	}
	return operations
}

var (
	ginParameter = regexp.MustCompile(`:([a-z]+)`)
	words        = regexp.MustCompile(`[a-z-]+`)
)

func TestRoutesAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	s := new(Server)
	_, _, err := s.describe(true)
	fatal(t, err)
	served := map[string]bool{"ANY /v1/clusters/{id}/ray/*": true}
	for _, r := range s.engine.Routes() {
		served[r.Method+" "+ginParameter.ReplaceAllString(r.Path, "{$1}")] = true
	}
	contract := map[string]bool{}
	for _, r := range readRoutes(t) {
		contract[r.method+" "+r.path] = true
	}
	for name := range contract {
		if !served[name] {
			t.Errorf("%s is in ROUTES.md and not served", name)
		}
	}
	for name := range served {
		if !contract[name] {
			t.Errorf("%s is served and not in ROUTES.md", name)
		}
	}
	for name := range testOperations(t) {
		if !served[name] {
			t.Errorf("%s is described and not served", name)
		}
	}
}

// TestParametersAreThoseOfTheContract leaves out org, cursor and limit, which the contract names for all.
func TestParametersAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	operations := testOperations(t)
	for _, r := range readRoutes(t) {
		op := operations[r.method+" "+r.path]
		if op == nil {
			continue
		}
		var query []string
		for _, p := range op.Parameters {
			switch {
			case p.In == "query" && !slices.Contains([]string{"org", "cursor", "limit"}, p.Name):
				query = append(query, p.Name)
			case p.In == "path":
				for _, value := range p.Schema.Enum {
					if !slices.Contains(words.FindAllString(r.what, -1), fmt.Sprint(value)) {
						t.Errorf("%s %s: ROUTES.md does not say what it gives for %v", r.method, r.path, value)
					}
				}
			}
		}
		if slices.Sort(query); !slices.Equal(query, r.query) {
			t.Errorf("%s %s takes %v, and %v in ROUTES.md", r.method, r.path, query, r.query)
		}
	}
}

func TestEveryOperationHasOneRule(t *testing.T) {
	t.Parallel()
	rules := maps.Clone(accessRules)
	for name, op := range testOperations(t) {
		if _, ok := rules[op.OperationID]; !ok {
			t.Errorf("%s (%s) has no access rule", name, op.OperationID)
		}
		delete(rules, op.OperationID)
	}
	for id := range rules {
		t.Errorf("the access rule %s is no operation's", id)
	}
}

func TestCommittedDescriptionIsCurrent(t *testing.T) {
	t.Parallel()
	want, err := Spec()
	fatal(t, err)
	have, err := os.ReadFile("openapi.json")
	fatal(t, err)
	if !bytes.Equal(have, want) {
		t.Fatal("openapi.json is not what the operations describe: run `make generate`")
	}
}

func TestFaucetIsAbsentWithoutALocalNetwork(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) { o.Faucet = nil })
	b.do(request{method: post, path: "/v1/local/faucet", body: map[string]string{"amount": "1"}}).problem(http.StatusNotFound, "not_found")
	if bytes.Contains(b.do(request{method: get, path: "/openapi.json"}).body, []byte("faucet")) {
		t.Error("the description offers a faucet that is not there")
	}
}

func TestDocumentationHasEveryOperationAndNoScript(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	page := b.do(request{method: get, path: "/docs"}).is(http.StatusOK)
	for name, op := range testOperations(t) {
		if !bytes.Contains(page.body, []byte(`<section id="`+op.OperationID+`"`)) {
			t.Errorf("the documentation lacks %s", name)
		}
	}
	for _, foreign := range []string{"<script", "http://", "https://", "style=", "onclick"} {
		if bytes.Contains(page.body, []byte(foreign)) {
			t.Errorf("the documentation contains %q", foreign)
		}
	}
	if policy := page.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	if !slices.Contains(b.do(request{method: get, path: "/docs/style.css"}).is(http.StatusOK).Header["Content-Type"], "text/css; charset=utf-8") {
		t.Error("the style sheet is not served as one")
	}
	anchors := regexp.MustCompile(`href="#([^"]+)"`).FindAllSubmatch(page.body, -1)
	for _, a := range anchors {
		if !bytes.Contains(page.body, []byte(`id="`+string(a[1])+`"`)) {
			t.Errorf("a link leads to #%s, which is not there", a[1])
		}
	}
}
