package rayproxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-gpu/muster/api/rayproxy"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/seal"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/cluster"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	rayToken = "ray-own-token-0123456789abcdef"
	bound    = 20 * time.Second
	suffix   = "dashboards.test"
)

// seen is a request as Ray got it.
type seen struct {
	Method, URI, Host string
	Header            http.Header
	Trailer           http.Header
	Body              string
}

// bench is a proxy between raw sockets and a server that stands in for a cluster's Ray head.
type bench struct {
	*schedulertest.World
	t       *testing.T
	proxy   *rayproxy.Proxy
	address string
	cluster ids.Cluster

	sealRayToken func()           // gives every cluster the same token
	ray          http.HandlerFunc // answers instead of the echo, if set before the first request

	mu   sync.Mutex
	seen []seen
}

// options of a bench; the zero value is right for most tests.
type options struct {
	ray    http.HandlerFunc
	adjust func(*rayproxy.Proxy)
	server func(*http.Server)
}

func newBench(t *testing.T, o options) *bench {
	t.Helper()
	b := &bench{World: schedulertest.New(t), t: t, ray: o.ray}
	box, err := seal.New(seal.NewKey())
	fatal(t, err)
	backend := httptest.NewServer(http.HandlerFunc(b.serveRay))
	t.Cleanup(backend.Close)
	front := httptest.NewUnstartedServer(nil)
	b.address = front.Listener.Addr().String()
	b.proxy = rayproxy.New(rayproxy.Options{
		Pool: b.Pool, Dialer: dialer{b, backend.Listener.Addr().String()}, Unsealer: box, Sessions: cluster.NewService(b.Pool), PublicURL: "http://" + b.address,
		DashboardSuffix: suffix, Log: slog.New(slog.DiscardHandler),
	})
	if o.adjust != nil {
		o.adjust(b.proxy)
	}
	front.Config = &http.Server{Handler: http.HandlerFunc(b.serve), ReadHeaderTimeout: bound}
	if o.server != nil {
		o.server(front.Config)
	}
	front.Start()
	t.Cleanup(front.Close)
	t.Cleanup(b.proxy.CloseIdle)
	b.AddHead()
	b.cluster = b.book()
	b.sealRayToken = func() { b.Exec(`UPDATE clusters SET ray_token_sealed = $1`, box.Seal(rayToken)) }
	b.sealRayToken()
	b.Exec(`INSERT INTO memberships (org_id, user_id, roles) VALUES ($1, $2, '{engineer}')`, b.Customer, b.User)
	return b
}

// book makes a cluster that is ready.
func (b *bench) book() ids.Cluster {
	b.t.Helper()
	b.AddHost("H100", 1, 1_000_000, "eu")
	return b.Ready(schedulertest.Spec(1, 1))
}

// release ends all clusters.
func (b *bench) release() {
	b.t.Helper()
	b.Exec(`UPDATE clusters SET state = 'draining', fault_party = 'customer'`)
	b.Exec(`UPDATE clusters SET state = 'released', ended_at = now()`)
}

// serve mounts the proxy as the API does.
func (b *bench) serve(w http.ResponseWriter, r *http.Request) {
	if b.proxy.IsDashboard(r.Host) {
		b.proxy.Dashboards().ServeHTTP(w, r)
		return
	}
	b.proxy.Programs().ServeHTTP(w, r)
}

// serveRay remembers a request and answers with it.
func (b *bench) serveRay(w http.ResponseWriter, r *http.Request) {
	if b.ray != nil {
		b.ray(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	b.seen = append(b.seen, seen{r.Method, r.RequestURI, r.Host, r.Header.Clone(), r.Trailer.Clone(), string(body)})
	b.mu.Unlock()
	_, _ = io.WriteString(w, "from Ray")
}

// reached returns what has come to Ray since the last call.
func (b *bench) reached() []seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.seen
	b.seen = nil
	return all
}

// dialer connects to the stand-in, for the head of a live cluster alone.
type dialer struct {
	bench *bench
	ray   string
}

func (d dialer) DialNode(ctx context.Context, host ids.Host, node ids.Node, port int) (net.Conn, error) {
	var slot int
	err := d.bench.Pool.QueryRow(ctx, `SELECT slot FROM nodes WHERE id = $1 AND host_id = $2 AND role = 'head' AND ended_at IS NULL`, node, host).Scan(&slot)
	if err != nil || port != 10_001+100*slot {
		return nil, fmt.Errorf("dial %s on %s, port %d: not a head's dashboard: %w", node, host, port, err)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", d.ray)
}

func (b *bench) token(cluster ids.Cluster) string {
	b.t.Helper()
	token, err := b.proxy.Token(b.t.Context(), b.Customer, cluster, b.User)
	fatal(b.t, err)
	return token.Token
}

func (b *bench) ticket(cluster ids.Cluster) apiv1.DashboardTicket {
	b.t.Helper()
	ticket, err := b.proxy.Ticket(b.t.Context(), b.Customer, cluster, b.User)
	fatal(b.t, err)
	return ticket
}

// path is an address below a cluster's Ray, for programs.
func (b *bench) path(rest string) string { return "/v1/clusters/" + b.cluster.String() + "/ray" + rest }

// dashboard is the cluster's host name.
func (b *bench) dashboard() string { return dashboardOf(b.cluster) }

func dashboardOf(cluster ids.Cluster) string {
	return strings.Replace(cluster.String(), "_", "-", 1) + "--ray." + suffix
}

// session enters the cluster's dashboard and returns the cookie.
func (b *bench) session() string {
	b.t.Helper()
	entered := b.enter(b.ticket(b.cluster).URL)
	if entered.StatusCode != http.StatusSeeOther {
		b.t.Fatalf("enter: %d %s", entered.StatusCode, entered.body)
	}
	for _, cookie := range entered.Cookies() {
		if cookie.Name == rayproxy.SessionCookie {
			return cookie.Name + "=" + cookie.Value
		}
	}
	b.t.Fatal("no session cookie")
	return ""
}

// enter opens a ticket's address.
func (b *bench) enter(address string) reply {
	b.t.Helper()
	host, path, _ := strings.Cut(strings.TrimPrefix(address, "http://"), "/")
	return b.raw(lines("GET /"+path+" HTTP/1.1", "Host: "+host, "Connection: close"))
}

// lines is a request's head.
func lines(head ...string) string {
	return strings.Join(slices.DeleteFunc(head, func(l string) bool { return l == "" }), "\r\n") + "\r\n\r\n"
}

// get is a program's GET with more headers.
func (b *bench) get(rest, token string, more ...string) string {
	return lines(append([]string{"GET " + b.path(rest) + " HTTP/1.1", "Host: " + b.address, "Authorization: Bearer " + token}, more...)...)
}

// page is a browser's request to the dashboard.
func (b *bench) page(method, path, cookie string, more ...string) string {
	return lines(append([]string{method + " " + path + " HTTP/1.1", "Host: " + b.dashboard(), "Cookie: " + cookie}, more...)...)
}

type reply struct {
	*http.Response
	body string
}

func (r reply) problem(t *testing.T) apiv1.Problem {
	t.Helper()
	var p apiv1.Problem
	if err := json.Unmarshal([]byte(r.body), &p); err != nil || p.Status != r.StatusCode || p.Detail == "" {
		t.Fatalf("%d is no problem document: %s", r.StatusCode, r.body)
	}
	return p
}

// raw sends bytes on a connection of their own and reads one answer.
func (b *bench) raw(request string) reply {
	b.t.Helper()
	conn := b.dial()
	_, err := io.WriteString(conn, request)
	fatal(b.t, err)
	method, _, _ := strings.Cut(request, " ")
	return b.read(bufio.NewReader(conn), method)
}

func (b *bench) read(reader *bufio.Reader, method string) reply {
	b.t.Helper()
	response, err := http.ReadResponse(reader, &http.Request{Method: method})
	fatal(b.t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	fatal(b.t, err)
	return reply{response, string(body)}
}

func (b *bench) dial() *net.TCPConn {
	b.t.Helper()
	conn, err := new(net.Dialer).DialContext(b.t.Context(), "tcp", b.address)
	fatal(b.t, err)
	b.t.Cleanup(func() { _ = conn.Close() })
	fatal(b.t, conn.SetDeadline(time.Now().Add(bound)))
	return conn.(*net.TCPConn)
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// letters is an endless body.
type letters struct{}

func (letters) Read(data []byte) (int, error) {
	return copy(data, bytes.Repeat([]byte("m"), len(data))), nil
}
