package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	maxNameLength  = 80
	maxMemberships = 100
	// MaxMembers is how many people an organisation may have.
	MaxMembers = 500
)

// Member is somebody of an organisation.
type Member struct {
	User   ids.User
	Name   string
	Wallet string
	Roles  []Role
	Since  time.Time
}

// Found makes an organisation in which the user has every role of a customer and owner.
func (s *Service) Found(ctx context.Context, user ids.User, name string) (Membership, error) {
	name, err := checkedName(name)
	if err != nil {
		return Membership{}, err
	}
	var founded Membership
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		// The user's row is the lock under which memberships are counted.
		if _, err := s.queries.LockUser(ctx, tx, user); err != nil {
			return fmt.Errorf("lock user: %w", err)
		}
		present, err := s.memberships(ctx, tx, user)
		if err != nil {
			return err
		}
		if len(present) >= maxMemberships {
			return errs.New(errs.Conflict, "you belong to %d organisations, the most there can be", len(present))
		}
		founded, err = s.found(ctx, tx, user, name, nil)
		return err
	})
	return founded, err
}

func (s *Service) found(ctx context.Context, tx pgx.Tx, user ids.User, name string, payoutAddress *string) (Membership, error) {
	m := Membership{Org: ids.New[ids.Org](), Name: name, Roles: slices.Clone(founderRoles)}
	if payoutAddress != nil {
		m.PayoutAddress = *payoutAddress
	}
	if err := s.queries.InsertOrganisation(ctx, tx, m.Org, name, false, payoutAddress); err != nil {
		return Membership{}, fmt.Errorf("insert organisation: %w", err)
	}
	if err := s.queries.PutMembership(ctx, tx, m.Org, user, fromRoles(m.Roles)); err != nil {
		return Membership{}, fmt.Errorf("insert membership: %w", err)
	}
	return m, nil
}

// SetPayoutAddress changes where an organisation's earnings are paid to. That the caller may, and has signed lately, is the
// caller's business.
func (s *Service) SetPayoutAddress(ctx context.Context, org ids.Org, address string) error {
	if _, err := ParseWallet("body.address", address); err != nil {
		return err
	}
	if err := s.queries.SetPayoutAddress(ctx, s.db, &address, org); err != nil {
		return fmt.Errorf("set payout address: %w", err)
	}
	return nil
}

// Members lists an organisation's members, the latest user first, those before a place.
func (s *Service) Members(ctx context.Context, org ids.Org, before ids.User, limit int) ([]Member, error) {
	rows, err := s.queries.Members(ctx, s.db, org, optionalUUID(before), int32(limit))
	if err != nil {
		return nil, fmt.Errorf("list members: %w", err)
	}
	members := make([]Member, len(rows))
	for i, r := range rows {
		members[i] = Member{User: r.ID, Name: r.Name, Wallet: r.WalletAddress, Roles: toRoles(r.Roles), Since: r.CreatedAt}
	}
	return members, nil
}

// PutMember gives a wallet these roles in an organisation; none removes it. A wallet that was never seen becomes a user. An
// organisation keeps at least one admin.
func (s *Service) PutMember(ctx context.Context, org ids.Org, wallet, name string, roles []Role) error {
	if _, err := ParseWallet("body.wallet_address", wallet); err != nil {
		return err
	}
	roles, err := checkedRoles(roles)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		locked, err := s.queries.LockOrganisation(ctx, tx, org)
		if err != nil {
			return fmt.Errorf("lock organisation: %w", err)
		}
		if slices.Contains(roles, Operator) && !locked.Platform {
			return errs.InvalidField("body.roles", "operator is a role of the organisation that runs this Muster only")
		}
		if err := s.putMember(ctx, tx, org, wallet, strings.TrimSpace(name), roles); err != nil {
			return err
		}
		return s.checkMembers(ctx, tx, org)
	})
}

func (s *Service) putMember(ctx context.Context, tx pgx.Tx, org ids.Org, wallet, name string, roles []Role) error {
	user, err := s.queries.UpsertUser(ctx, tx, ids.New[ids.User](), wallet, name)
	if err != nil {
		return fmt.Errorf("upsert user: %w", err)
	}
	if len(roles) == 0 {
		err = s.queries.DeleteMembership(ctx, tx, org, user.ID)
	} else {
		err = s.queries.PutMembership(ctx, tx, org, user.ID, fromRoles(roles))
	}
	if err != nil {
		return fmt.Errorf("put membership: %w", err)
	}
	return nil
}

func (s *Service) checkMembers(ctx context.Context, tx pgx.Tx, org ids.Org) error {
	count, err := s.queries.CountMembers(ctx, tx, org)
	if err != nil {
		return fmt.Errorf("count members: %w", err)
	}
	if count.Admins == 0 {
		return errs.New(errs.Conflict, "an organisation needs an admin: give the role to somebody else first")
	}
	if count.Members > MaxMembers {
		return errs.New(errs.Conflict, "an organisation has at most %d members", MaxMembers)
	}
	return nil
}

func checkedName(name string) (string, error) {
	name = strings.TrimSpace(name)
	if name == "" || len([]rune(name)) > maxNameLength {
		return "", errs.InvalidField("body.name", "the name must have 1 to %d characters", maxNameLength)
	}
	return name, nil
}

func checkedRoles(roles []Role) ([]Role, error) {
	for _, role := range roles {
		if !slices.Contains(Roles, role) {
			return nil, errs.InvalidField("body.roles", "%q is not a role: there are %s", role, strings.Join(fromRoles(Roles), ", "))
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(roles))), nil
}

func toRoles(texts []string) []Role {
	roles := make([]Role, len(texts))
	for i, t := range texts {
		roles[i] = Role(t)
	}
	return roles
}

func fromRoles(roles []Role) []string {
	texts := make([]string, len(roles))
	for i, r := range roles {
		texts[i] = string(r)
	}
	return texts
}

// isMissing reports whether a query found no row.
func isMissing(err error) bool { return errors.Is(err, pgx.ErrNoRows) }

// Names says what to call some users: by their name or, without one, their wallet. Unknown ones are absent.
func (s *Service) Names(ctx context.Context, users []ids.User) (map[ids.User]string, error) {
	wanted := make([]uuid.UUID, 0, len(users))
	for _, user := range users {
		if !user.IsZero() {
			wanted = append(wanted, uuid.UUID(user))
		}
	}
	rows, err := s.queries.UserNames(ctx, s.db, wanted)
	if err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	names := make(map[ids.User]string, len(rows))
	for _, row := range rows {
		names[row.ID] = cmp.Or(row.Name, row.WalletAddress)
	}
	return names, nil
}
