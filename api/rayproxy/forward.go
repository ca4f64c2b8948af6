package rayproxy

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	headerAuthorization = "Authorization"
	headerRay           = "X-Ray-Authorization"
	headerMuster        = "X-Muster-Token"
	programsRoot        = "/v1/clusters/"
	programsPolicy      = "default-src 'none'; sandbox; frame-ancestors 'none'" // what Ray serves is no page of the console's origin
)

// forwarding is what a request that has been let through needs on its way.
type forwarding struct {
	target target
	path   string // below Ray's root, escaped
	root   string // what Ray's root is in our names, without a slash at the end
}

type forwardingKey struct{}

func forwardingOf(ctx context.Context) forwarding {
	f, _ := ctx.Value(forwardingKey{}).(forwarding)
	return f
}

// Programs serves /v1/clusters/{id}/ray/ to Ray's command line, its job client and the like.
func (p *Proxy) Programs() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", programsPolicy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		p.expectBody(w, r)
		f, err := p.admit(r)
		if err != nil {
			p.refuse(w, r, err)
			return
		}
		p.forward(w, r, f)
	})
}

// admit checks a program's request.
func (p *Proxy) admit(r *http.Request) (forwarding, error) {
	cluster, path, err := programPath(r)
	if err != nil {
		return forwarding{}, err
	}
	if err := refuseBrowsers(r); err != nil {
		return forwarding{}, err
	}
	if err := checkRequest(r); err != nil {
		return forwarding{}, err
	}
	token, err := programToken(r.Header)
	if err != nil {
		return forwarding{}, err
	}
	if token == "" {
		return forwarding{}, errs.New(errs.Unauthenticated,
			"The request carries no cluster token: `muster cluster env %s` prints the settings that make Ray send one.", cluster)
	}
	target, err := p.authorise(r.Context(), cluster, kindToken, token)
	if errors.Is(err, errNoAccess) {
		err = errs.New(errs.Unauthenticated,
			"This token does not open cluster %s: it is unknown or has expired, or the cluster has ended. `muster cluster env %s` prints a new one.", cluster, cluster)
	}
	return forwarding{target: target, path: path, root: programsRoot + cluster.String() + "/ray"}, err
}

// programPath splits /v1/clusters/{id}/ray/rest.
func programPath(r *http.Request) (ids.Cluster, string, error) {
	var cluster ids.Cluster
	id, rest, found := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), programsRoot), "/ray")
	if !found || cluster.UnmarshalText([]byte(id)) != nil || cluster.IsZero() || rest != "" && rest[0] != '/' {
		return cluster, "", errs.New(errs.NotFound, "there is no such address: Ray is at /v1/clusters/{id}/ray/")
	}
	return cluster, rest, nil
}

// refuseBrowsers keeps pages from using a token that they came by: what only browsers send is refused.
func refuseBrowsers(r *http.Request) error {
	for name := range r.Header {
		if name == "Cookie" || name == "Origin" || strings.HasPrefix(name, "Sec-Fetch-") {
			return errs.New(errs.Forbidden, "This address is for programs; it does not take the header %s. Open the dashboard from the console instead.", name)
		}
	}
	return nil
}

// methods are those that Ray knows. CONNECT and TRACE are for proxies, and PRI begins HTTP/2.
var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// checkRequest refuses what two readers could understand differently.
func checkRequest(r *http.Request) error {
	if !slices.Contains(methods, r.Method) {
		return errs.New(errs.Invalid, "%s is not possible here", r.Method)
	}
	if err := checkPath(r.URL.EscapedPath()); err != nil {
		return err
	}
	if upgrade := r.Header.Values("Upgrade"); len(upgrade) > 1 || len(upgrade) == 1 && !strings.EqualFold(upgrade[0], "websocket") {
		return errs.New(errs.Invalid, "the only upgrade is websocket")
	}
	if r.ContentLength > maxUpload {
		return errTooLarge
	}
	return nil
}

// checkPath looks at each segment as a reader that decodes it would: no dot segments, nothing that separates or ends, nothing
// that would decode once more.
func checkPath(escaped string) error {
	if !strings.HasPrefix(escaped, "/") {
		return errs.New(errs.Invalid, "the path must begin with /")
	}
	for segment := range strings.SplitSeq(escaped, "/") {
		plain, err := url.PathUnescape(segment)
		if err != nil || strings.ContainsAny(plain, `/\%`) || strings.ContainsFunc(plain, unicode.IsControl) {
			return errs.New(errs.Invalid, "the path may not contain encoded slashes, percent signs, backslashes or control characters")
		}
		if plain == "." || plain == ".." {
			return errs.New(errs.Invalid, "the path may not contain dot segments")
		}
	}
	return nil
}

// programToken finds the cluster token, "" if there is none. Our own header comes first, because a .netrc replaces Authorization.
// Of a header that is there twice, other readers might take the other one.
func programToken(header http.Header) (string, error) {
	token := ""
	for _, name := range []string{headerMuster, headerAuthorization, headerRay} {
		values := header.Values(name)
		if len(values) > 1 {
			return "", errs.New(errs.Invalid, "the header %s is there %d times", name, len(values))
		}
		if len(values) == 0 || token != "" {
			continue
		}
		value := values[0]
		if scheme, rest, found := strings.Cut(value, " "); found && strings.EqualFold(scheme, "Bearer") {
			value = strings.TrimSpace(rest)
		}
		if strings.HasPrefix(value, tokenPrefix) {
			token = value
		}
	}
	return token, nil
}

// expectBody bounds how long a client may take to begin its body, also when nobody asks for it any more.
func (p *Proxy) expectBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(p.timing.stall))
	}
}

// forward sends a request on and brings back the answer, for as long as it takes and its user may use the cluster.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, f forwarding) {
	leave, err := p.running.enter(f.target.cluster)
	if err != nil {
		p.refuse(w, r, err)
		return
	}
	defer leave()
	ctx, end := context.WithCancel(context.WithValue(r.Context(), forwardingKey{}, f))
	defer end()
	go p.watch(ctx, end, f.target)
	answer := newAnswer(ctx, end, w, p.timing)
	if r.ContentLength != 0 {
		r.Body = http.MaxBytesReader(w, &steadyBody{r.Body, answer.control, p.timing.stall}, maxUpload)
	}
	p.reverse.ServeHTTP(answer, r.WithContext(ctx))
}

// rewrite makes the request to Ray. It runs after hop-by-hop headers have been removed.
func (p *Proxy) rewrite(r *httputil.ProxyRequest) {
	f := forwardingOf(r.In.Context())
	path, rawPath := "/", ""
	if f.path != "" {
		path, _ = url.PathUnescape(f.path) // checkPath has done it before
		rawPath = f.path
	}
	r.Out.URL = &url.URL{Scheme: "http", Host: f.target.authority(), Path: path, RawPath: rawPath, RawQuery: r.Out.URL.RawQuery}
	r.Out.Host = r.In.Host
	r.Out.Trailer = nil
	for name := range r.Out.Header {
		if strings.HasPrefix(name, "X-Forwarded-") || slices.Contains(notForRay, name) {
			r.Out.Header.Del(name)
		}
	}
	r.Out.Header.Set(headerAuthorization, "Bearer "+f.target.token)
}

// notForRay are our credentials, and what says who asked.
var notForRay = []string{headerMuster, headerRay, "Cookie", "Proxy-Authorization", "Forwarded", "X-Real-Ip", "Http2-Settings"}

// notForClients is what Ray must not set in our names: cookies (Ray's own token is in one), rights for other pages, and what
// outlives the cluster in a browser.
var notForClients = []string{
	"Set-Cookie", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Strict-Transport-Security", "Alt-Svc",
	"Service-Worker-Allowed", "Www-Authenticate", "Proxy-Authenticate",
}

// cleanResponse takes away what must not come back, Ray's own token before all.
func cleanResponse(response *http.Response) error {
	f := forwardingOf(response.Request.Context())
	for name, values := range response.Header {
		if slices.Contains(notForClients, name) || slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, f.target.token) }) {
			response.Header.Del(name)
		}
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		response.Body = &bodyOnly{response.Body, response}
	}
	response.Trailer = nil
	relocate(response, f)
	return nil
}

// bodyOnly is an answer's body without the trailers, which come when it has been read.
type bodyOnly struct {
	io.ReadCloser
	response *http.Response
}

// Close implements io.Closer.
func (b *bodyOnly) Close() error {
	err := b.ReadCloser.Close()
	b.response.Trailer = nil
	return err
}

// relocate puts a redirect within Ray into our names.
func relocate(response *http.Response, f forwarding) {
	if response.Header.Get("Location") == "" {
		return
	}
	location, err := response.Location()
	if err != nil {
		response.Header.Del("Location")
		return
	}
	if location.Host == response.Request.URL.Host || location.Host == response.Request.Host {
		response.Header.Set("Location", f.root+(&url.URL{Path: location.Path, RawPath: location.RawPath, RawQuery: location.RawQuery, Fragment: location.Fragment}).String())
	}
}

var (
	errTooLarge    = errs.New(errs.TooLarge, "a package may have at most %d MiB: keep data in storage and code in the package", maxUpload>>20)
	errUnreachable = errs.New(errs.Unavailable, "The cluster's Ray head cannot be reached now: try again in a few seconds.")
)

// unreachable answers when Ray could not be reached or broke off.
func (p *Proxy) unreachable(w http.ResponseWriter, r *http.Request, err error) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		writeProblem(w, r, errTooLarge)
	case errors.Is(err, os.ErrDeadlineExceeded):
		writeProblem(w, r, errs.New(errs.Invalid, "the body did not come: nothing for %d seconds", int(p.timing.stall.Seconds())))
	case r.Context().Err() != nil: // the client has gone, or its right has
		panic(http.ErrAbortHandler)
	default:
		p.options.Log.WarnContext(r.Context(), "Ray not reached", "cluster_id", forwardingOf(r.Context()).target.cluster, "error", err)
		writeProblem(w, r, errUnreachable)
	}
}

func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if errs.CodeOf(err) == errs.Internal {
		p.options.Log.ErrorContext(r.Context(), "Ray access failed", "error", err)
		err = errs.New(errs.Unavailable, "The request could not be checked: try again.")
	}
	writeProblem(w, r, err)
}

var statusOf = map[errs.Code]int{
	errs.Invalid: http.StatusBadRequest, errs.Unauthenticated: http.StatusUnauthorized, errs.Forbidden: http.StatusForbidden,
	errs.NotFound: http.StatusNotFound, errs.TooLarge: http.StatusRequestEntityTooLarge, errs.RateLimited: http.StatusTooManyRequests,
	errs.Unavailable: http.StatusServiceUnavailable,
}

// writeProblem answers with a problem document, or with just its text to who would show the document as it is.
func writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	status, header := statusOf[errs.CodeOf(err)], w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	switch status {
	case http.StatusUnauthorized:
		header.Set("WWW-Authenticate", "Bearer")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		header.Set("Retry-After", "1")
	case http.StatusRequestEntityTooLarge:
		header.Set("Connection", "close") // nobody reads the rest
	}
	if readsText(r, status) {
		header.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, err.Error()+"\n") //nolint:gosec // text/plain, and nosniff says so
		return
	}
	header.Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(apiv1.Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Code: string(errs.CodeOf(err)), Detail: err.Error(),
		RequestID: header.Get("X-Request-Id"),
	})
}

// readsText reports whether a client shows the answer to a person as it is: browsers do, and Ray's client with a 401 and 403.
func readsText(r *http.Request, status int) bool {
	accept := r.Header.Get("Accept")
	if strings.Contains(accept, "json") {
		return false
	}
	return strings.Contains(accept, "text/html") || status == http.StatusUnauthorized || status == http.StatusForbidden
}
