// Package identity knows who people are and where they may act: organisations, members and their roles, wallet sign-in,
// browser sessions and API keys.
//
// # Proof
//
// A person is a Solana wallet. Sign in with Solana is one exchange: Nonce hands out the fields of a message and a browser
// secret; SignIn takes the signed bytes back. The server never believes the text that comes back: it rebuilds the message from
// the fields that it stored and its own configuration, and compares byte for byte. A nonce is good for five minutes, once, and
// only together with the browser secret that was set with it.
//
// # Secrets
//
// Session tokens, browser secrets, nonces and API keys are 256 random bits (a nonce 128). Only their SHA-256 is stored, so a
// copy of the database opens nothing. A session ends twelve hours after its last use and seven days after it began; an API key
// after at most ninety days. An API key can do what both its scopes and its person's present roles allow: a role taken away is
// taken from the keys too.
//
// # Errors and locking
//
// Methods answer *errs.Error for what a caller did, any other error for what broke. All state is in Postgres, all times are
// the database's; Service holds nothing that needs a lock.
package identity

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/api/identity/identitydb"
	"github.com/muster-gpu/muster/internal/ids"
)

// Role is what a member may do in one organisation.
type Role string

// The roles.
const (
	Engineer Role = "engineer" // books clusters and runs jobs
	Owner    Role = "owner"    // has hosts, asks and earnings
	Finance  Role = "finance"  // reads money; in the platform's organisation pays and reconciles
	Admin    Role = "admin"    // manages members
	Operator Role = "operator" // runs the platform's own hosts
)

// Roles lists all roles.
var Roles = []Role{Engineer, Owner, Finance, Admin, Operator}

// founderRoles are those of whoever founds an organisation.
var founderRoles = []Role{Engineer, Owner, Finance, Admin}

// Scope is what an API key may do.
type Scope string

// The scopes.
const (
	ScopeRead    Scope = "read"
	ScopeBook    Scope = "book"
	ScopeJobs    Scope = "jobs"
	ScopeWallet  Scope = "wallet"
	ScopeHosts   Scope = "hosts"
	ScopeFinance Scope = "finance"
)

// Scopes lists all scopes.
var Scopes = []Scope{ScopeRead, ScopeBook, ScopeJobs, ScopeWallet, ScopeHosts, ScopeFinance}

// Principal is who calls: a person, by a session or by an API key.
type Principal struct {
	User        ids.User
	Name        string
	Wallet      string
	Session     ids.Session   // zero for a key
	SignedAgo   time.Duration // since the session's wallet signature; zero for a key
	Key         ids.Key       // zero for a session
	Scopes      []Scope       // a key's
	Memberships []Membership
}

// Membership is a person's place in one organisation.
type Membership struct {
	Org           ids.Org
	Name          string
	Platform      bool
	Roles         []Role
	PayoutAddress string
}

// IsKey reports whether the principal came by an API key.
func (p Principal) IsKey() bool { return !p.Key.IsZero() }

// HasScope reports whether the principal is a key with this scope.
func (p Principal) HasScope(s Scope) bool { return p.IsKey() && slices.Contains(p.Scopes, s) }

// Has reports whether the member holds a role.
func (m Membership) Has(r Role) bool { return slices.Contains(m.Roles, r) }

// JoinRoles writes roles for people: "engineer or finance".
func JoinRoles(roles []Role) string {
	words := make([]string, len(roles))
	for i, r := range roles {
		words[i] = string(r)
	}
	return strings.Join(words, " or ")
}

// Service is the identity of one Muster. Make it with New. It is safe for concurrent use.
type Service struct {
	db      *pgxpool.Pool
	queries *identitydb.Queries
	signIn  SignInConfig
}

const purgeInterval = time.Hour

// New makes the service over a database. Every field of config is needed.
func New(db *pgxpool.Pool, config SignInConfig) (*Service, error) {
	for name, value := range map[string]string{
		"domain": config.Domain, "URI": config.URI, "chain": config.ChainID, "statement": config.Statement,
	} {
		if value == "" || strings.ContainsAny(value, "\r\n") {
			return nil, fmt.Errorf("sign-in %s is %q: it must be one line of text", name, value)
		}
	}
	return &Service{db: db, queries: identitydb.New(), signIn: config}, nil
}

// Run deletes what has ended long ago, once an hour until ctx ends. It is a lifecycle.Func.
func (s *Service) Run(ctx context.Context, ready func()) error {
	ready()
	ticker := time.NewTicker(purgeInterval)
	defer ticker.Stop()
	for {
		if err := s.Purge(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "identity not purged", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Purge deletes nonces and sessions that ended long ago.
func (s *Service) Purge(ctx context.Context) error {
	if err := s.queries.PurgeIdentity(ctx, s.db); err != nil {
		return fmt.Errorf("purge identity: %w", err)
	}
	return nil
}
