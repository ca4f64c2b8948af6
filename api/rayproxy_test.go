package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/api/identity"
	"github.com/muster-gpu/muster/api/rayproxy"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/seal"
	"github.com/muster-gpu/muster/scheduler/cluster"
)

// rayHead is a stand-in for the head of a cluster, behind the whole server.
type rayHead struct {
	*bench
	fixture fixture
	person  *person
}

type toBackend string

// DialNode connects to the backend whatever the node.
func (d toBackend) DialNode(ctx context.Context, _ ids.Host, _ ids.Node, _ int) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", string(d))
}

func newRayHead(t *testing.T, ray http.HandlerFunc) *rayHead {
	t.Helper()
	backend := httptest.NewServer(ray)
	t.Cleanup(backend.Close)
	box, err := seal.New(seal.NewKey())
	fatal(t, err)
	h := &rayHead{bench: newBench(t, func(o *Options) {
		proxy := rayproxy.New(rayproxy.Options{
			Pool: o.Pool, Dialer: toBackend(backend.Listener.Addr().String()), Unsealer: box, Sessions: cluster.NewService(o.Pool), PublicURL: o.PublicURL,
			DashboardSuffix: "dashboards.test", Log: slog.New(slog.DiscardHandler),
		})
		o.Ray, o.RayProxy, o.Dashboards, o.IsDashboard = proxy, proxy.Programs(), proxy.Dashboards(), proxy.IsDashboard
	})}
	org := h.org("Customer", false)
	h.person, h.fixture = h.member(org, identity.Engineer), h.bench.fixture(org)
	h.exec(`UPDATE clusters SET ray_token_sealed = $1`, box.Seal("rays-own-token"))
	h.exec(`UPDATE nodes SET role = 'head', gpus = 0`)
	return h
}

func (h *rayHead) path(rest string) string {
	return "/v1/clusters/" + h.fixture.cluster.String() + rest
}

func (h *rayHead) token() string {
	h.t.Helper()
	var token apiv1.RayToken
	h.do(request{method: post, path: h.path("/ray-token"), cookie: h.person.cookie}).is(http.StatusCreated).decode(&token)
	return token.Token
}

func TestRayBehindTheServerHasLimitsOfItsOwn(t *testing.T) {
	t.Parallel()
	h := newRayHead(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintf(w, "%d %v %s", n, err, r.RequestURI)
	})
	token := h.token()
	got := h.do(request{method: "PUT", path: h.path("/ray/api/packages/gcs/a.zip"), bearer: token, body: strings.Repeat("m", 2*maxBodyBytes)}).is(http.StatusOK)
	if want := fmt.Sprintf("%d <nil> /api/packages/gcs/a.zip", 2*maxBodyBytes); string(got.body) != want {
		t.Errorf("Ray says %q, want %q", got.body, want)
	}
	if got.Header.Get("X-Request-Id") == "" {
		t.Error("the answer has no request id")
	}
	refused := request{method: get, path: h.path("/ray/api/version"), bearer: "mrt_unknown", header: map[string]string{"Accept": "application/json"}}
	h.do(refused).problem(http.StatusUnauthorized, "unauthenticated")
	// The token opens the cluster's Ray and nothing of ours, and our own keys do not open Ray.
	h.do(request{method: get, path: "/v1/me", bearer: token}).problem(http.StatusUnauthorized, "unauthenticated")
	refused.bearer = h.keyOf(h.fixture.org, h.person, identity.Scopes...)
	h.do(refused).problem(http.StatusUnauthorized, "unauthenticated")
}

func TestWebsocketsAndLinesPassTheWholeServer(t *testing.T) {
	t.Parallel()
	h := newRayHead(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if r.Header.Get("Upgrade") == "" {
			_, _ = io.WriteString(w, "first\n")
			_ = control.Flush()
			<-r.Context().Done() // the line must not wait for the end
			return
		}
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, buffered, err := control.Hijack()
		if err != nil {
			return
		}
		_, _ = io.Copy(conn, buffered) // an echo until the client closes its half
		_ = conn.Close()
	})
	ask := func(more ...string) (*net.TCPConn, *bufio.Reader, *http.Response) {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", h.host)
		fatal(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		fatal(t, conn.SetDeadline(time.Now().Add(testTimeout)))
		head := append([]string{"GET " + h.path("/ray/api/jobs/x/logs/tail") + " HTTP/1.1", "Host: " + h.host, "Authorization: Bearer " + h.token()}, more...)
		_, err = io.WriteString(conn, strings.Join(head, "\r\n")+"\r\n\r\n")
		fatal(t, err)
		reader := bufio.NewReader(conn)
		response, err := http.ReadResponse(reader, nil)
		fatal(t, err)
		return conn.(*net.TCPConn), reader, response
	}
	conn, reader, response := ask("Connection: Upgrade", "Upgrade: websocket")
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status %d", response.StatusCode)
	}
	_, err := io.WriteString(conn, "there and back")
	fatal(t, err)
	fatal(t, conn.CloseWrite())
	if echo, err := io.ReadAll(reader); string(echo) != "there and back" || err != nil {
		t.Errorf("%q came back, %v", echo, err)
	}
	_, _, response = ask()
	if line, err := bufio.NewReader(response.Body).ReadString('\n'); line != "first\n" || err != nil {
		t.Errorf("%q, %v", line, err)
	}
	_ = response.Body.Close()
}

func TestDashboardsHaveTheirOwnNamesAtTheServer(t *testing.T) {
	t.Parallel()
	h := newRayHead(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "dashboard of "+r.Host) })
	var ticket apiv1.DashboardTicket
	h.do(request{method: post, path: h.path("/dashboard-ticket"), cookie: h.person.cookie}).is(http.StatusCreated).decode(&ticket)
	host, path, _ := strings.Cut(strings.TrimPrefix(ticket.URL, "http://"), "/")
	h.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	entered := h.do(request{method: get, path: "/" + path, header: map[string]string{"Host": host}}).is(http.StatusSeeOther)
	session := entered.cookie("__Host-muster-ray")
	shown := h.do(request{method: get, path: "/", cookie: session, header: map[string]string{"Host": host}}).is(http.StatusOK)
	if string(shown.body) != "dashboard of "+host {
		t.Errorf("it shows %s", shown.body)
	}
	// Neither name takes the other's session, and a dashboard has nothing of the API.
	h.do(request{method: get, path: "/v1/me", cookie: session}).problem(http.StatusUnauthorized, "unauthenticated")
	if mine := h.do(request{method: get, path: "/v1/me", cookie: h.person.cookie, header: map[string]string{"Host": host}}); mine.StatusCode != http.StatusUnauthorized {
		t.Errorf("the console's session on the dashboard: %d %s", mine.StatusCode, mine.body)
	}
	for _, name := range []string{"cl-nonsense--ray.dashboards.test", "dashboards.test", host + ".evil.test", "x--ray.dashboards.test"} {
		h.do(request{method: get, path: "/", cookie: session, header: map[string]string{"Host": name}}).problem(http.StatusMisdirectedRequest, "not_found")
	}
}
