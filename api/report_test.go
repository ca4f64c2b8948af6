package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2/humatest"
)

// TestAReportOpensInTheBrowser: as a page and not as a download, with its own style and nothing else.
func TestAReportOpensInTheBrowser(t *testing.T) {
	t.Parallel()
	const page = `<style>h1 { color: red }</style><h1>2026-03</h1><style>h1 { color: blue }</style>`
	answer := httptest.NewRecorder()
	report("muster_2026-03.html", []byte(page)).Body(humatest.NewContext(nil, httptest.NewRequest(http.MethodGet, "/", http.NoBody), answer))
	if answer.Body.String() != page || answer.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("the page is %q, a %s", answer.Body, answer.Header().Get("Content-Type"))
	}
	if kept := answer.Header().Get("Content-Disposition"); kept != `inline; filename="muster_2026-03.html"` {
		t.Errorf("its disposition is %s", kept)
	}
	// printf 'h1 { color: red }' | openssl dgst -sha256 -binary | base64
	policy := answer.Header().Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-tTSm1OckW5h6W6ygQhQ4J51f9En6kC/x9O18pXFX6KM='; ") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %s", policy)
	}
}
