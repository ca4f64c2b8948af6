package fleet

import (
	"context"
	"errors"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/jointoken"
	"github.com/muster-gpu/muster/scheduler/fleet/fleetdb"
)

const (
	// JoinTokenLifetime is how long a join token can be spent.
	JoinTokenLifetime = 15 * time.Minute

	maxJoinTokensListed = 200
	maxSiteLength       = 80
)

// Kinds of hosts.
const (
	KindGPU  = "gpu"
	KindHead = "head"
)

var regionPattern = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

// Tokens makes and lists join tokens. It is safe for concurrent use.
type Tokens struct {
	pool    *pgxpool.Pool
	pin     jointoken.Pin
	queries *fleetdb.Queries
}

// NewTokens makes join tokens that carry the authority's pin.
func NewTokens(pool *pgxpool.Pool, authority *Authority) *Tokens {
	return &Tokens{pool: pool, pin: authority.Pin(), queries: fleetdb.New()}
}

// JoinToken is a permission to enrol one host, without its secret.
type JoinToken struct {
	ID        ids.JoinToken
	State     string // open, used, expired or revoked
	Kind      string
	Region    string
	Site      string
	CreatedAt time.Time
	ExpiresAt time.Time
	HostID    ids.Host // zero until used
}

// Create makes a token and returns its text, which is not kept. Errors: Invalid for a bad kind, region or site, Forbidden for a head
// host of an organisation that does not run the platform, NotFound for an unknown organisation.
func (t *Tokens) Create(ctx context.Context, org ids.Org, user ids.User, kind, region, site string) (JoinToken, string, error) {
	if err := checkToken(kind, region, site); err != nil {
		return JoinToken{}, "", err
	}
	if kind == KindHead {
		if err := t.requirePlatform(ctx, org); err != nil {
			return JoinToken{}, "", err
		}
	}
	token := jointoken.New(t.pin)
	hash := token.Hash()
	made := JoinToken{ID: ids.New[ids.JoinToken](), State: "open", Kind: kind, Region: region, Site: site}
	row, err := t.queries.InsertJoinToken(ctx, t.pool, fleetdb.InsertJoinTokenParams{
		ID: made.ID, OrgID: org, TokenHash: hash[:], HostKind: kind, Region: region, Site: site, CreatedBy: user, Lifetime: JoinTokenLifetime,
	})
	if err != nil {
		return JoinToken{}, "", err
	}
	made.CreatedAt, made.ExpiresAt = row.CreatedAt, row.ExpiresAt
	return made, token.Text(), nil
}

func checkToken(kind, region, site string) error {
	if kind != KindGPU && kind != KindHead {
		return errs.InvalidField("kind", "%q is not a kind of host: choose %s or %s", kind, KindGPU, KindHead)
	}
	if !regionPattern.MatchString(region) {
		return errs.InvalidField("region", "%q is not a region: use up to 40 lower-case letters, digits and hyphens", region)
	}
	if len(site) > maxSiteLength {
		return errs.InvalidField("site", "the site's name is longer than %d characters", maxSiteLength)
	}
	return nil
}

func (t *Tokens) requirePlatform(ctx context.Context, org ids.Org) error {
	platform, err := t.queries.OrganisationIsPlatform(ctx, t.pool, org)
	if errors.Is(err, pgx.ErrNoRows) {
		return errs.New(errs.NotFound, "there is no such organisation")
	}
	if err != nil {
		return err
	}
	if !platform {
		return errs.New(errs.Forbidden, "only the organisation that runs this Muster may enrol hosts for Ray heads")
	}
	return nil
}

// List returns an organisation's newest tokens.
func (t *Tokens) List(ctx context.Context, org ids.Org) ([]JoinToken, error) {
	rows, err := t.queries.ListJoinTokens(ctx, t.pool, org, maxJoinTokensListed)
	if err != nil {
		return nil, err
	}
	tokens := make([]JoinToken, 0, len(rows))
	for _, row := range rows {
		tokens = append(tokens, JoinToken{
			ID: row.ID, State: tokenState(row), Kind: row.HostKind, Region: row.Region, Site: row.Site,
			CreatedAt: row.CreatedAt, ExpiresAt: row.ExpiresAt, HostID: row.HostID,
		})
	}
	return tokens, nil
}

func tokenState(row fleetdb.ListJoinTokensRow) string {
	switch {
	case row.UsedAt != nil:
		return "used"
	case row.RevokedAt != nil:
		return "revoked"
	case row.Expired:
		return "expired"
	default:
		return "open"
	}
}

// Revoke makes a token worthless; revoking twice is not an error. Errors: NotFound, Conflict if the token has been used.
func (t *Tokens) Revoke(ctx context.Context, org ids.Org, id ids.JoinToken) error {
	used, err := t.queries.RevokeJoinToken(ctx, t.pool, id, org)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errs.New(errs.NotFound, "there is no join token %s", id)
	case err != nil:
		return err
	case used:
		return errs.New(errs.Conflict, "the join token %s has enrolled a host already: retire that host instead", id)
	}
	return nil
}
