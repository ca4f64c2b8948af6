package rayproxy

import (
	"errors"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	enterPath       = "/.muster/enter"
	sessionCookie   = "__Host-muster-ray"
	dashboardMarker = "--ray."
	dashboardPolicy = "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)

// dashboardHost is a cluster's own host name. An underscore has no place in one.
func (p *Proxy) dashboardHost(cluster ids.Cluster) string {
	return strings.Replace(cluster.String(), "_", "-", 1) + dashboardMarker + p.options.DashboardSuffix
}

// IsDashboard reports whether a request's Host is one of a dashboard.
func (p *Proxy) IsDashboard(host string) bool {
	_, ok := p.clusterOf(host)
	return ok
}

func (p *Proxy) clusterOf(host string) (ids.Cluster, bool) {
	var cluster ids.Cluster
	label, suffix, found := strings.Cut(host, dashboardMarker)
	ok := found && suffix == p.options.DashboardSuffix && cluster.UnmarshalText([]byte(strings.Replace(label, "-", "_", 1))) == nil
	return cluster, ok && !cluster.IsZero()
}

// Dashboards serves the dashboards' host names to browsers.
func (p *Proxy) Dashboards() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", dashboardPolicy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "same-origin")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		cluster, ok := p.clusterOf(r.Host)
		switch {
		case !ok:
			writeProblem(w, r, errs.New(errs.NotFound, "there is no such dashboard"))
		case r.URL.Path == enterPath:
			p.enter(w, r, cluster)
		default:
			p.dashboard(w, r, cluster)
		}
	})
}

// enter spends a ticket for a session.
func (p *Proxy) enter(w http.ResponseWriter, r *http.Request, cluster ids.Cluster) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet { // a HEAD that only looks must not spend it
		writeProblem(w, r, errs.New(errs.Invalid, "a dashboard's address is opened with GET"))
		return
	}
	user, err := p.queries.SpendTicket(r.Context(), p.options.Pool, hash(r.URL.Query().Get("code")), cluster)
	if errors.Is(err, pgx.ErrNoRows) {
		writeProblem(w, r, errs.New(errs.Unauthenticated, "This address has been used or is older than %d seconds: open the dashboard from the console again.", int(ticketLifetime.Seconds())))
		return
	}
	if err != nil {
		p.refuse(w, r, err)
		return
	}
	session, err := p.issue(r.Context(), user, cluster, kindSession, "", sessionLifetime)
	if err != nil {
		p.refuse(w, r, err)
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: session.secret, Path: "/", MaxAge: int(sessionLifetime.Seconds()), Secure: true, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, // Strict would not be sent after the redirect from the console
	})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// dashboard forwards to Ray what comes with a session, from its own pages.
func (p *Proxy) dashboard(w http.ResponseWriter, r *http.Request, cluster ids.Cluster) {
	p.expectBody(w, r)
	if err := checkRequest(r); err != nil {
		writeProblem(w, r, err)
		return
	}
	if err := p.checkOrigin(r); err != nil {
		writeProblem(w, r, err)
		return
	}
	cookies := r.CookiesNamed(sessionCookie)
	if len(cookies) != 1 { // of two, one was planted
		writeProblem(w, r, errs.New(errs.Unauthenticated, "Open this dashboard from the console: its address alone opens nothing."))
		return
	}
	target, err := p.authorise(r.Context(), cluster, kindSession, cookies[0].Value)
	if errors.Is(err, errNoAccess) {
		err = errs.New(errs.Unauthenticated, "This session has ended, or its cluster has: open the dashboard from the console again.")
	}
	if err != nil {
		p.refuse(w, r, err)
		return
	}
	p.forward(w, r, forwarding{target: target, path: r.URL.EscapedPath()})
}

// checkOrigin refuses what other pages make a browser send, reading included: some of Ray's GETs act, and other clusters'
// dashboards are of the same site, so that its cookie comes along. Other pages may link to the dashboard's start, no further.
func (p *Proxy) checkOrigin(r *http.Request) error {
	link := r.Method == http.MethodGet && r.URL.Path == "/" && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Upgrade") == ""
	switch site := r.Header.Get("Sec-Fetch-Site"); {
	case site == "" || site == "same-origin" || site == "none" || link:
	default:
		return errs.New(errs.Forbidden, "another page sent this request: the dashboard answers its own pages only")
	}
	if p.origins.Check(r) != nil { // of browsers that send no Sec-Fetch-Site
		return errs.New(errs.Forbidden, "another page sent this request: the dashboard answers its own pages only")
	}
	if r.Header.Get("Upgrade") == "" {
		return nil
	}
	// A websocket's GET is no write to the check above, so its Origin must be exactly ours.
	scheme := "http"
	if p.secure {
		scheme = "https"
	}
	if origin := r.Header.Get("Origin"); origin != scheme+"://"+r.Host {
		return errs.New(errs.Forbidden, "a websocket from %q is not allowed", origin)
	}
	return nil
}
