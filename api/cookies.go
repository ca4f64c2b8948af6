package api

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/muster-gpu/muster/api/identity"
)

const (
	sessionCookie = "__Host-muster_session"
	browserCookie = "__Host-muster_sign_in"
	hostPrefix    = "__Host-"
)

// cookies are their names and attributes. The __Host- prefix, which ties a cookie to one origin, wants Secure, and browsers
// accept that over https and for localhost. Over plain http anywhere else the names go without it.
type cookies struct {
	session string
	browser string
	secure  bool
	https   bool
}

func cookiesFor(public *url.URL) cookies {
	c := cookies{session: sessionCookie, browser: browserCookie, https: public.Scheme == "https"}
	c.secure = c.https || isLoopbackName(public.Hostname())
	if !c.secure {
		c.session, c.browser = strings.TrimPrefix(c.session, hostPrefix), strings.TrimPrefix(c.browser, hostPrefix)
	}
	return c
}

func isLoopbackName(name string) bool {
	ip := net.ParseIP(name)
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || ip != nil && ip.IsLoopback()
}

func (c cookies) make(name, value string, lifetime time.Duration) http.Cookie {
	return http.Cookie{ //nolint:gosec // Secure is off for loopback addresses alone
		Name: name, Value: value, Path: "/", MaxAge: int(lifetime.Seconds()), Secure: c.secure, HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
	}
}

func (c cookies) newSession(token string) http.Cookie {
	return c.make(c.session, token, identity.SessionLifetime)
}

func (c cookies) newBrowser(secret string) http.Cookie {
	return c.make(c.browser, secret, identity.NonceLifetime)
}

func (c cookies) drop(name string) http.Cookie { return c.make(name, "", -time.Second) }

// cookieIn takes a cookie's value from a Cookie header, "" without it. Of several with one name none is taken: another host of
// the domain may have planted one.
func cookieIn(header, name string) string {
	all, err := http.ParseCookie(header)
	if err != nil {
		return ""
	}
	value, seen := "", 0
	for _, cookie := range all {
		if cookie.Name == name {
			value = cookie.Value
			seen++
		}
	}
	if seen != 1 {
		return ""
	}
	return value
}
