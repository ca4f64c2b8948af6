package rayproxy_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/testkit"
)

// TestUseOfRayKeepsAClusterFromBeingIdle: a request of a user's counts as a session, what the API asks by itself does not.
func TestUseOfRayKeepsAClusterFromBeingIdle(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{})
	forget := func() { b.Exec(`UPDATE clusters SET active_at = '2020-01-01'`) }
	activeAt := func() (at time.Time) {
		t.Helper()
		fatal(t, b.Pool.QueryRow(t.Context(), `SELECT active_at FROM clusters WHERE id = $1`, b.cluster).Scan(&at))
		return at
	}
	forget()
	_, _ = b.proxy.Jobs(t.Context(), b.Customer, b.cluster)
	if activeAt().Year() != 2020 {
		t.Error("the API's own question counts as a session")
	}
	if got := b.raw(b.get("/api/version", b.token(b.cluster))); got.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	testkit.Eventually(t, bound, func() (bool, string) { return activeAt().Year() != 2020, "the request does not count as a session" })
	forget()
	if got := b.raw(b.get("/api/version", b.token(b.cluster))); got.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	if activeAt().Year() != 2020 {
		t.Error("each request writes")
	}
}
