// Package rayproxy lets customers reach their clusters' Ray, and nobody else.
//
// Two ways lead to the same place, the HTTP port of the cluster's Ray head, which is dialled through a tunnel that the head
// host's agent opens:
//
//   - Programs use /v1/clusters/{id}/ray/ with a short-lived cluster token in Authorization (stock Ray's RAY_AUTH_TOKEN), in
//     X-Ray-Authorization, or in X-Muster-Token, which survives a .netrc. Anything that a browser adds by itself is refused
//     there: cookies, Origin, Sec-Fetch-*.
//   - Browsers use one host name a cluster, cl-ID--ray.SUFFIX, on another domain than the console, because what runs there is
//     the customer's code. A ticket, good for 30 seconds and once, buys a session in a __Host- cookie.
//
// Ray's own token never leaves: every credential in a request is dropped and Ray's put in its place, after hop-by-hop headers
// have been removed, so that a Connection header cannot name it; and no Set-Cookie of Ray's comes back. Websocket is the only
// upgrade, and paths with dot segments or encoded slashes are refused before they can mean different things to different
// readers. User-Agent, Origin, Referer and Sec-Fetch-* do pass: Ray's own guard against hostile pages needs them.
//
// A credential is looked up with every request, together with its user's role and the cluster's state, so that a revoked one
// stops working at once; streams are looked at again while they run. Errors are answered as problem documents, or as plain text
// where people read them as they are: in a browser, and in Ray's client, which prints the body of a 401 and 403.
//
// Bodies and answers are streamed, never held. What one client or cluster can tie up is bounded: see the limits in stream.go.
package rayproxy

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/api/rayproxy/raydb"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/rayaddr"
)

// Lifetimes of our credentials.
const (
	TokenLifetime   = time.Hour
	ticketLifetime  = 30 * time.Second
	sessionLifetime = 8 * time.Hour
)

const (
	kindToken   = "token"
	kindTicket  = "ticket"
	kindSession = "dashboard"

	tokenPrefix   = "mrt_"
	maxUpload     = 100 << 20 // Ray's own limit for a package
	maxIdleTunnel = 8         // per head
	idleTunnel    = 30 * time.Second
	headerTimeout = 2 * time.Minute // Ray's profiles and state queries take their time before they answer
	maxRayHeader  = 64 << 10
)

// Dialer opens a connection to one of a node's ports; the agent gateway does.
type Dialer interface {
	DialNode(ctx context.Context, host ids.Host, node ids.Node, port int) (net.Conn, error)
}

// Unsealer reads what the applier sealed.
type Unsealer interface {
	Unseal(sealed []byte) (string, error)
}

// Options are a proxy's surroundings; all are required.
type Options struct {
	Pool            *pgxpool.Pool
	Dialer          Dialer
	Unsealer        Unsealer
	Sessions        Sessions
	PublicURL       string // of the API
	DashboardSuffix string // host[:port] below which every dashboard has its name
	Log             *slog.Logger
}

// Proxy reaches clusters' Ray. Make it with New; it is safe for concurrent use.
type Proxy struct {
	options   Options
	queries   *raydb.Queries
	transport *http.Transport
	reverse   *httputil.ReverseProxy
	origins   *http.CrossOriginProtection
	secure    bool // dashboards are reached over https
	running   inFlight
	touched   touches
	timing    timing
}

// New makes a proxy.
func New(options Options) *Proxy {
	p := &Proxy{
		options: options, queries: raydb.New(), origins: http.NewCrossOriginProtection(),
		secure: strings.HasPrefix(options.PublicURL, "https://"), running: inFlight{count: map[ids.Cluster]int{}},
		touched: touches{last: map[ids.Cluster]time.Time{}}, timing: defaultTiming,
	}
	p.transport = &http.Transport{
		DialContext: p.dial, MaxIdleConnsPerHost: maxIdleTunnel, IdleConnTimeout: idleTunnel, ResponseHeaderTimeout: headerTimeout,
		MaxResponseHeaderBytes: maxRayHeader, DisableCompression: true,
	}
	p.reverse = &httputil.ReverseProxy{
		Transport: p.transport, Rewrite: p.rewrite, ModifyResponse: cleanResponse, ErrorHandler: p.unreachable,
		FlushInterval: -1, // logs are followed live
		ErrorLog:      slog.NewLogLogger(options.Log.Handler(), slog.LevelWarn),
	}
	return p
}

// target is a cluster's head and what opens it.
type target struct {
	cluster ids.Cluster
	node    ids.Node
	host    ids.Host
	port    int
	token   string   // Ray's own
	user    ids.User // whose credential it was; none for the API's own calls
}

func (p *Proxy) target(row raydb.TargetRow) (target, error) {
	token, err := p.options.Unsealer.Unseal(row.RayTokenSealed)
	if err != nil {
		return target{}, err
	}
	if token == "" {
		return target{}, fmt.Errorf("cluster %s has no Ray token", row.ID)
	}
	ports := rayaddr.PortsFrom(rayaddr.PortBase(int(row.Slot)), rayaddr.PortCount)
	return target{cluster: row.ID, node: row.NodeID, host: row.HostID, port: ports.Dashboard, token: token}, nil
}

// authority names the head in a URL; the transport keeps its connections by it, and dial reads it back.
func (t target) authority() string { return fmt.Sprintf("%s.%s:%d", t.node, t.host, t.port) }

func (p *Proxy) dial(ctx context.Context, _, address string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	nodeText, hostText, _ := strings.Cut(name, ".")
	var node ids.Node
	var host ids.Host
	var number int
	if _, scanErr := fmt.Sscan(port, &number); errors.Join(scanErr, node.UnmarshalText([]byte(nodeText)), host.UnmarshalText([]byte(hostText))) != nil {
		return nil, fmt.Errorf("dial %s: not a node's address", address)
	}
	return p.options.Dialer.DialNode(ctx, host, node, number)
}

// runtimeSimulated is of hosts that play a node's life and run none.
const runtimeSimulated = "simulated"

// lookup finds an organisation's cluster for the API's own calls to Ray.
func (p *Proxy) lookup(ctx context.Context, org ids.Org, cluster ids.Cluster) (target, error) {
	row, err := p.queries.Target(ctx, p.options.Pool, cluster, org)
	if errors.Is(err, pgx.ErrNoRows) {
		state, err := p.queries.ClusterState(ctx, p.options.Pool, cluster, org)
		if errors.Is(err, pgx.ErrNoRows) {
			return target{}, errs.New(errs.NotFound, "there is no cluster %s", cluster)
		}
		if err != nil {
			return target{}, fmt.Errorf("read cluster: %w", err)
		}
		return target{}, errs.New(errs.Conflict, "cluster %s is %s: its Ray does not run", cluster, state)
	}
	if err != nil {
		return target{}, fmt.Errorf("read cluster: %w", err)
	}
	if row.Runtime == runtimeSimulated {
		return target{}, errs.New(errs.Conflict, "cluster %s is on simulated hosts: it can be booked, watched and released, but no Ray runs on it", cluster)
	}
	return p.target(row)
}

// errNoAccess is of a credential that opens nothing. It does not say why: that would tell strangers about other people's clusters.
var errNoAccess = errors.New("the credential does not open the cluster")

// authorise finds the cluster that a credential of ours opens, or errNoAccess.
func (p *Proxy) authorise(ctx context.Context, cluster ids.Cluster, kind, secret string) (target, error) {
	row, err := p.queries.TargetByAccess(ctx, p.options.Pool, hash(secret), kind, cluster)
	if errors.Is(err, pgx.ErrNoRows) {
		return target{}, errNoAccess
	}
	if err != nil {
		return target{}, fmt.Errorf("check credential: %w", err)
	}
	t, err := p.target(raydb.TargetRow{ID: row.ID, RayTokenSealed: row.RayTokenSealed, NodeID: row.NodeID, HostID: row.HostID, Slot: row.Slot})
	t.user = row.UserID
	return t, err
}

// Token makes a short-lived token for programs, with what stock Ray wants in its environment. The cluster's Ray must be running
// or about to.
func (p *Proxy) Token(ctx context.Context, org ids.Org, cluster ids.Cluster, user ids.User) (apiv1.RayToken, error) {
	if _, err := p.lookup(ctx, org, cluster); err != nil {
		return apiv1.RayToken{}, err
	}
	token, err := p.issue(ctx, user, cluster, kindToken, tokenPrefix, TokenLifetime)
	if err != nil {
		return apiv1.RayToken{}, err
	}
	return apiv1.RayToken{Token: token.secret, ExpiresAt: token.expires, Env: map[string]string{
		"RAY_API_SERVER_ADDRESS": p.options.PublicURL + "/v1/clusters/" + cluster.String() + "/ray",
		"RAY_AUTH_MODE":          "token",
		"RAY_AUTH_TOKEN":         token.secret,
	}}, nil
}

// Ticket makes the one-time address that opens a cluster's dashboard in a browser.
func (p *Proxy) Ticket(ctx context.Context, org ids.Org, cluster ids.Cluster, user ids.User) (apiv1.DashboardTicket, error) {
	if _, err := p.lookup(ctx, org, cluster); err != nil {
		return apiv1.DashboardTicket{}, err
	}
	ticket, err := p.issue(ctx, user, cluster, kindTicket, "", ticketLifetime)
	if err != nil {
		return apiv1.DashboardTicket{}, err
	}
	scheme, _, _ := strings.Cut(p.options.PublicURL, ":")
	address := url.URL{
		Scheme: scheme, Host: p.dashboardHost(cluster), Path: enterPath, RawQuery: url.Values{"code": {ticket.secret}}.Encode(),
	}
	return apiv1.DashboardTicket{URL: address.String(), ExpiresAt: ticket.expires}, nil
}

type credential struct {
	secret  string
	expires time.Time
}

func (p *Proxy) issue(ctx context.Context, user ids.User, cluster ids.Cluster, kind, prefix string, lifetime time.Duration) (credential, error) {
	secret := prefix + rand.Text() + rand.Text()
	expires, err := p.queries.InsertAccess(ctx, p.options.Pool, raydb.InsertAccessParams{
		ID: ids.New[ids.RayAccess](), ClusterID: cluster, UserID: user, Kind: kind, SecretHash: hash(secret), Lifetime: lifetime,
	})
	if err != nil {
		return credential{}, fmt.Errorf("store credential: %w", err)
	}
	return credential{secret, expires}, nil
}

// Purge forgets credentials that expired long ago.
func (p *Proxy) Purge(ctx context.Context) error { return p.queries.PurgeAccesses(ctx, p.options.Pool) }

func hash(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
