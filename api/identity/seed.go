package identity

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

// The operations here are for whoever runs this Muster, on its own machine. None of them is reachable over the API.

// Seed is a membership to be there.
type Seed struct {
	Org   ids.Org
	Roles []Role
}

// SeedOrg makes sure that an organisation of this name exists: for platform, the one that runs this Muster, whatever it was
// called before. An empty payout address leaves the present one. Repeating it changes nothing.
func (s *Service) SeedOrg(ctx context.Context, name string, platform bool, payoutAddress string) (ids.Org, error) {
	name, err := checkedName(name)
	if err != nil {
		return ids.Org{}, err
	}
	var address *string
	if payoutAddress != "" {
		if _, err := ParseWallet("payout address", payoutAddress); err != nil {
			return ids.Org{}, err
		}
		address = &payoutAddress
	}
	var org ids.Org
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.queries.LockSeeds(ctx, tx); err != nil {
			return fmt.Errorf("lock seeds: %w", err)
		}
		org, err = s.queries.FindOrganisation(ctx, tx, platform, name)
		if isMissing(err) {
			org = ids.New[ids.Org]()
			return s.queries.InsertOrganisation(ctx, tx, org, name, platform, address)
		}
		if err != nil {
			return err
		}
		return s.queries.UpdateOrganisation(ctx, tx, name, address, org)
	})
	if err != nil {
		return ids.Org{}, fmt.Errorf("seed organisation %s: %w", name, err)
	}
	return org, nil
}

// SeedUser makes sure that a wallet is a user of this name with exactly these roles in the organisations named. Other
// memberships stay. Repeating it changes nothing.
func (s *Service) SeedUser(ctx context.Context, wallet, name string, memberships []Seed) (ids.User, error) {
	if _, err := ParseWallet("wallet", wallet); err != nil {
		return ids.User{}, err
	}
	var user ids.User
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		row, err := s.queries.UpsertUser(ctx, tx, ids.New[ids.User](), wallet, name)
		if err != nil {
			return err
		}
		user = row.ID
		for _, m := range memberships {
			roles, err := checkedRoles(m.Roles)
			if err != nil {
				return err
			}
			if err := s.queries.PutMembership(ctx, tx, m.Org, user, fromRoles(roles)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return ids.User{}, fmt.Errorf("seed user %s: %w", wallet, err)
	}
	return user, nil
}

// MintKey makes an API key of a member without a browser, for headless use.
func (s *Service) MintKey(ctx context.Context, org ids.Org, user ids.User, spec KeySpec) (secret string, err error) {
	all, err := s.memberships(ctx, s.db, user)
	if err != nil {
		return "", err
	}
	if len(onlyOrg(all, []Membership{{Org: org}})) == 0 {
		return "", errs.New(errs.NotFound, "user %s is not a member of %s", user, org)
	}
	_, secret, err = s.CreateKey(ctx, org, user, spec)
	return secret, err
}
