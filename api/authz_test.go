package api

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/muster-gpu/muster/api/identity"
	"github.com/muster-gpu/muster/internal/ids"
)

// expected is who ROUTES.md admits to an operation. It is read from the contract, not from the table under test.
type expected struct {
	anyone, personal, platform, keys bool
	roles                            []identity.Role
	scope                            identity.Scope
}

var scopeInWho = regexp.MustCompile(`\(([a-z]+)\)`)

func readExpected(t *testing.T, r route) expected {
	t.Helper()
	e := expected{}
	if found := scopeInWho.FindStringSubmatch(r.who); found != nil {
		e.scope = identity.Scope(found[1])
		if !slices.Contains(identity.Scopes, e.scope) {
			t.Fatalf("%s %s: %q is not a scope", r.method, r.path, found[1])
		}
	}
	for word := range strings.SplitSeq(scopeInWho.ReplaceAllString(r.who, ""), ",") {
		word = strings.TrimSpace(word)
		word, e.platform = strings.TrimPrefix(word, "platform "), e.platform || strings.HasPrefix(word, "platform ")
		switch word {
		case "anyone":
			e.anyone = true
		case "key":
			e.keys = true
		case "signed in", "session", "own keys", "fresh signature":
		default:
			if !slices.Contains(identity.Roles, identity.Role(word)) {
				t.Fatalf("%s %s: %q is not a role", r.method, r.path, word)
			}
			e.roles = append(e.roles, identity.Role(word))
		}
	}
	e.personal = slices.Contains([]string{"/v1/me", "/v1/auth/sign-out", "/v1/organisations"}, r.path)
	return e
}

// caller is one way to come: what is sent, and the status it is refused with, 0 to be admitted.
type visitor struct {
	name   string
	cookie string
	bearer string
	org    ids.Org
	refuse func(expected) int
}

func (e expected) byRole(role identity.Role, platform bool) int {
	switch {
	case e.anyone || e.personal:
		return 0
	case e.platform && !platform, len(e.roles) > 0 && !slices.Contains(e.roles, role):
		return http.StatusForbidden
	}
	return 0
}

func (e expected) byScopes(platform bool, scopes ...identity.Scope) int {
	switch {
	case e.anyone || e.keys:
		return 0
	case e.scope == "" || !slices.Contains(scopes, e.scope) || e.platform && !platform:
		return http.StatusForbidden
	}
	return 0
}

func (e expected) unless(refusal int, admitted bool) int {
	if admitted {
		return 0
	}
	return refusal
}

// AuthzMatrix: every operation, by every kind of caller.
func TestAuthzMatrix(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	visitors := b.visitors()
	for _, r := range readRoutes(t) {
		op := testOperations(t)[r.method+" "+r.path]
		if op == nil {
			continue // not of the API: held to the contract by TestRoutesAreThoseOfTheContract
		}
		want := readExpected(t, r)
		for _, v := range visitors {
			refusal := v.refuse(want)
			if op.OperationID == "sign-out" && refusal == 0 && v.cookie != "" {
				continue // it would end the visitor's session: TestSignOutEndsTheSession
			}
			b.visit(t, r, v, refusal)
		}
	}
}

func (b *bench) visitors() []visitor {
	customer, platform, other := b.org("Customer", false), b.org("Platform", true), b.org("Other", false)
	visitors := []visitor{{name: "anonymous", refuse: func(e expected) int { return e.unless(http.StatusUnauthorized, e.anyone) }}}
	for _, role := range identity.Roles {
		for org, isPlatform := range map[ids.Org]bool{customer: false, platform: true} {
			visitors = append(visitors, visitor{
				name: fmt.Sprintf("%s, platform %t", role, isPlatform), cookie: b.member(org, role).cookie, org: org,
				refuse: func(e expected) int { return e.byRole(role, isPlatform) },
			})
		}
	}
	visitors = append(visitors, visitor{
		name: "other organisation", cookie: b.member(other, identity.Roles...).cookie, org: customer,
		refuse: func(e expected) int { return e.unless(http.StatusNotFound, e.anyone || e.personal) },
	})
	return append(visitors, b.keyVisitors(customer, platform)...)
}

func (b *bench) keyVisitors(customer, platform ids.Org) []visitor {
	everybody, platformer := b.member(customer, identity.Roles...), b.member(platform, identity.Roles...)
	revoked := b.keyOf(customer, everybody, identity.Scopes...)
	_, err := b.pool.Exec(b.t.Context(), `UPDATE api_keys SET revoked_at = now()`)
	fatal(b.t, err)
	unauthenticated := func(e expected) int { return e.unless(http.StatusUnauthorized, e.anyone) }
	stripped := b.member(customer, identity.Roles...)
	strippedKey := b.keyOf(customer, stripped, identity.Scopes...)
	_, err = b.identity.SeedUser(b.t.Context(), stripped.address, "", []identity.Seed{{Org: customer, Roles: []identity.Role{identity.Admin}}})
	fatal(b.t, err)
	visitors := []visitor{
		{name: "revoked key", bearer: revoked, refuse: unauthenticated},
		{name: "mistyped key", bearer: revoked[:len(revoked)-1], refuse: unauthenticated},
		{name: "ended session", cookie: sessionCookie + "=" + strings.Repeat("A", 43), refuse: unauthenticated},
		{name: "key of a person who lost the roles", bearer: strippedKey, refuse: func(e expected) int {
			return max(e.byScopes(false, identity.Scopes...), e.byRole(identity.Admin, false)*btoi(!e.keys))
		}},
		{name: "full key", bearer: b.keyOf(customer, everybody, identity.Scopes...), refuse: func(e expected) int {
			return e.byScopes(false, identity.Scopes...)
		}},
		{name: "full key of the platform", bearer: b.keyOf(platform, platformer, identity.Scopes...), refuse: func(e expected) int {
			return e.byScopes(true, identity.Scopes...)
		}},
		{name: "full key, naming another organisation", bearer: b.keyOf(platform, platformer, identity.Scopes...), org: customer, refuse: func(e expected) int {
			if refusal := e.byScopes(true, identity.Scopes...); refusal != 0 || e.anyone || e.personal {
				return refusal
			}
			return http.StatusNotFound
		}},
	}
	for _, scope := range identity.Scopes {
		visitors = append(visitors, visitor{
			name: "key with only " + string(scope), bearer: b.keyOf(platform, platformer, scope),
			refuse: func(e expected) int { return e.byScopes(true, scope) },
		})
	}
	return visitors
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// visit sends one request with ids that nobody has and no body: whoever is admitted gets some other complaint.
func (b *bench) visit(t *testing.T, r route, v visitor, refusal int) {
	t.Helper()
	path := r.path
	for marker, id := range map[string]string{
		"/quotes/{id}": ids.New[ids.Booking]().String(), "/bookings/{id}": ids.New[ids.Booking]().String(),
		"/clusters/{id}": ids.New[ids.Cluster]().String(), "/hosts/{id}": ids.New[ids.Host]().String(),
		"/keys/{id}": ids.New[ids.Key]().String(), "/join-tokens/{id}": ids.New[ids.JoinToken]().String(),
		"/batches/{id}": ids.New[ids.Batch]().String(), "/reconciliations/{id}": ids.New[ids.Reconciliation]().String(),
	} {
		path = strings.ReplaceAll(path, marker, strings.ReplaceAll(marker, "{id}", id))
	}
	path = strings.NewReplacer("{job}", "raysubmit_1", "{node}", ids.New[ids.Node]().String(), "{window}", ids.New[ids.Maintenance]().String()).Replace(path)
	if !v.org.IsZero() && refusal != 0 || strings.HasPrefix(v.name, "full key, naming") {
		path += "?org=" + v.org.String()
	}
	got := b.do(request{method: r.method, path: path, cookie: v.cookie, bearer: v.bearer, header: map[string]string{"Last-Event-ID": "none"}})
	switch {
	case refusal == 0 && (got.StatusCode == http.StatusUnauthorized || got.StatusCode == http.StatusForbidden || got.StatusCode == http.StatusInternalServerError):
		t.Errorf("%s %s by %s: refused with %s", r.method, path, v.name, got.body)
	case refusal == http.StatusNotFound && !strings.Contains(string(got.body), "there is no organisation"):
		t.Errorf("%s %s by %s: %d %s, want no such organisation", r.method, path, v.name, got.StatusCode, got.body)
	case refusal != 0 && got.StatusCode != refusal:
		t.Errorf("%s %s by %s: %d %s, want %d", r.method, path, v.name, got.StatusCode, got.body, refusal)
	}
}
