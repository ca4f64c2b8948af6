package rayproxy

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	headerRay    = "X-Ray-Authorization"
	headerMuster = "X-Muster-Token"
	programsRoot = "/v1/clusters/"
)

// forwarding is what rewrite needs of a request that has been let through.
type forwarding struct {
	target target
	path   string // below Ray's root, escaped
}

type forwardingKey struct{}

// Programs serves /v1/clusters/{id}/ray/ to Ray's command line, its job client and the like.
func (p *Proxy) Programs() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cluster, path, err := programPath(r)
		if err == nil {
			err = refuseBrowsers(r)
		}
		if err == nil {
			err = checkRequest(r)
		}
		if err != nil {
			writeProblem(w, err)
			return
		}
		target, err := p.authorise(r.Context(), cluster, kindToken, programToken(r))
		if err != nil {
			p.refuse(w, r, err)
			return
		}
		p.forward(w, r, target, path)
	})
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

// checkRequest refuses what two readers could understand differently.
func checkRequest(r *http.Request) error {
	path := strings.ToLower(r.URL.EscapedPath())
	for _, bad := range []string{"%2f", "%5c", "%2e", "\\", "%00"} {
		if strings.Contains(path, bad) {
			return errs.New(errs.Invalid, "the path may not contain %s", bad)
		}
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return errs.New(errs.Invalid, "the path may not contain dot segments")
		}
	}
	if upgrade := r.Header.Get("Upgrade"); upgrade != "" && !strings.EqualFold(upgrade, "websocket") {
		return errs.New(errs.Invalid, "the only upgrade is websocket")
	}
	if r.ContentLength > maxUpload {
		return errs.New(errs.TooLarge, "a package may have at most %d MiB: keep data in storage and code in the package", maxUpload>>20)
	}
	return nil
}

// programToken finds the cluster token. Our own header comes first, because a .netrc replaces Authorization.
func programToken(r *http.Request) string {
	for _, header := range []string{headerMuster, "Authorization", headerRay} {
		if value := r.Header.Get(header); strings.HasPrefix(strings.TrimPrefix(value, "Bearer "), tokenPrefix) {
			return strings.TrimPrefix(value, "Bearer ")
		}
	}
	return ""
}

// forward sends a request on. Uploads and streams may take longer than the server's other answers, so its deadlines are lifted.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, t target, path string) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Time{})
	r.Body = http.MaxBytesReader(w, r.Body, maxUpload)
	p.reverse.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), forwardingKey{}, forwarding{t, path})))
}

// rewrite makes the request to Ray. It runs after hop-by-hop headers have been removed.
func (p *Proxy) rewrite(r *httputil.ProxyRequest) {
	f, _ := r.In.Context().Value(forwardingKey{}).(forwarding)
	r.Out.URL.Scheme, r.Out.URL.Host = "http", f.target.authority()
	r.Out.URL.RawPath = f.path
	r.Out.URL.Path, _ = url.PathUnescape(f.path) // it was parsed once already
	if f.path == "" {
		r.Out.URL.Path, r.Out.URL.RawPath = "/", ""
	}
	r.Out.Host = r.In.Host
	for name := range r.Out.Header {
		if strings.HasPrefix(name, "X-Forwarded-") || name == "Forwarded" || name == "X-Real-Ip" {
			r.Out.Header.Del(name)
		}
	}
	for _, name := range []string{headerRay, headerMuster, "Cookie", "Proxy-Authorization"} {
		r.Out.Header.Del(name)
	}
	r.Out.Header.Set("Authorization", "Bearer "+f.target.token)
}

// cleanResponse takes away what Ray must not set in our names.
func cleanResponse(response *http.Response) error {
	response.Header.Del("Set-Cookie")
	response.Header.Del("Access-Control-Allow-Origin")
	response.Header.Del("Access-Control-Allow-Credentials")
	if location, err := response.Location(); err == nil && location.Host == response.Request.URL.Host {
		location.Scheme, location.Host = "", ""
		response.Header.Set("Location", location.String())
	}
	return nil
}

// unreachable answers when Ray could not be reached or broke off.
func (p *Proxy) unreachable(w http.ResponseWriter, r *http.Request, err error) {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		writeProblem(w, errs.New(errs.TooLarge, "a package may have at most %d MiB", maxUpload>>20))
		return
	}
	if r.Context().Err() != nil {
		return // the client has gone
	}
	p.options.Log.WarnContext(r.Context(), "Ray not reached", "error", err)
	writeProblem(w, errs.New(errs.Unavailable, "The cluster's Ray head cannot be reached now: try again in a few seconds."))
}

func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if errs.CodeOf(err) == errs.Internal {
		p.options.Log.ErrorContext(r.Context(), "Ray access failed", "error", err)
		err = errs.New(errs.Unavailable, "The request could not be checked: try again.")
	}
	writeProblem(w, err)
}

// writeProblem answers with a problem document. Ray's client shows the text of a 401 and 403 as it is.
func writeProblem(w http.ResponseWriter, err error) {
	status := map[errs.Code]int{
		errs.Invalid: http.StatusBadRequest, errs.Unauthenticated: http.StatusUnauthorized, errs.Forbidden: http.StatusForbidden,
		errs.NotFound: http.StatusNotFound, errs.TooLarge: http.StatusRequestEntityTooLarge, errs.Expired: http.StatusGone,
		errs.Unavailable: http.StatusServiceUnavailable, errs.Conflict: http.StatusConflict,
	}[errs.CodeOf(err)]
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"type": "about:blank", "title": http.StatusText(status), "status": status, "code": errs.CodeOf(err), "detail": err.Error(),
	})
}
