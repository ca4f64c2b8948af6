package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash/crc32"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/api/identity/identitydb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	keyPrefix    = "mst_"
	base62Digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	randomLength = 43 // 256 bits in base62
	sumLength    = 6  // 32 bits in base62
	hintLength   = len(keyPrefix) + 3

	// MaxKeyDays is how long an API key may last.
	MaxKeyDays = 90
	// MaxKeys is how many live API keys one member may have in one organisation.
	MaxKeys = 50
)

// Key is an API key without its secret.
type Key struct {
	ID         ids.Key
	Name       string
	Hint       string
	Scopes     []Scope
	CreatedAt  time.Time
	ExpiresAt  time.Time
	LastUsedAt *time.Time
}

// KeySpec asks for an API key.
type KeySpec struct {
	Name   string
	Scopes []Scope
	Days   int // 1 to MaxKeyDays
}

// newKeySecret makes the text of an API key: a prefix that scanners know, 256 random bits and a checksum that tells a mistyped
// key from an unknown one without asking the database.
func newKeySecret() string {
	raw := make([]byte, secretBytes)
	_, _ = rand.Read(raw) // never fails, by its documentation
	body := keyPrefix + base62(new(big.Int).SetBytes(raw), randomLength)
	return body + checksum(body)
}

func checksum(body string) string {
	return base62(new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(body)))), sumLength)
}

func base62(value *big.Int, length int) string {
	text, base, digit := make([]byte, length), big.NewInt(62), new(big.Int)
	for i := length - 1; i >= 0; i-- {
		value.DivMod(value, base, digit)
		text[i] = base62Digits[digit.Int64()]
	}
	return string(text)
}

func wellFormedKey(secret string) bool {
	body, sum, ok := cutLast(secret, sumLength)
	return ok && len(secret) == len(keyPrefix)+randomLength+sumLength && strings.HasPrefix(secret, keyPrefix) && checksum(body) == sum
}

func cutLast(text string, length int) (head, tail string, ok bool) {
	if len(text) < length {
		return "", "", false
	}
	return text[:len(text)-length], text[len(text)-length:], true
}

// AuthenticateKey finds the principal of an API key. Its membership is that of the key's organisation only, with its person's
// present roles.
func (s *Service) AuthenticateKey(ctx context.Context, secret string) (Principal, error) {
	if !wellFormedKey(secret) {
		return Principal{}, errs.New(errs.Unauthenticated, "this is not an API key: it is mistyped or cut off")
	}
	hash := hashOf(secret)
	row, err := s.queries.UseKey(ctx, s.db, hash)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && subtle.ConstantTimeCompare(row.SecretHash, hash) != 1 {
		return Principal{}, errs.New(errs.Unauthenticated, "this API key is unknown, expired or revoked")
	}
	if err != nil {
		return Principal{}, fmt.Errorf("use key: %w", err)
	}
	all, err := s.memberships(ctx, s.db, row.UserID)
	if err != nil {
		return Principal{}, err
	}
	return Principal{
		User: row.UserID, Name: row.Name, Wallet: row.WalletAddress, Key: row.ID, Scopes: toScopes(row.Scopes),
		Memberships: onlyOrg(all, []Membership{{Org: row.OrgID}}),
	}, nil
}

// onlyOrg keeps those memberships whose organisation is among the wanted.
func onlyOrg(all, wanted []Membership) []Membership {
	return slices.DeleteFunc(all, func(m Membership) bool {
		return !slices.ContainsFunc(wanted, func(w Membership) bool { return w.Org == m.Org })
	})
}

// Keys lists a member's keys that are not revoked, newest first, those before a place.
func (s *Service) Keys(ctx context.Context, org ids.Org, user ids.User, before ids.Key, limit int) ([]Key, error) {
	rows, err := s.queries.Keys(ctx, s.db, org, user, optionalUUID(before), int32(limit))
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	keys := make([]Key, len(rows))
	for i, r := range rows {
		keys[i] = Key{
			ID: r.ID, Name: r.Name, Hint: r.Hint, Scopes: toScopes(r.Scopes),
			CreatedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt, LastUsedAt: r.LastUsedAt,
		}
	}
	return keys, nil
}

// CreateKey makes an API key of a member and returns its secret, which is not kept.
func (s *Service) CreateKey(ctx context.Context, org ids.Org, user ids.User, spec KeySpec) (Key, string, error) {
	spec, err := spec.checked()
	if err != nil {
		return Key{}, "", err
	}
	secret := newKeySecret()
	key := Key{ID: ids.New[ids.Key](), Name: spec.Name, Hint: secret[:hintLength], Scopes: spec.Scopes}
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		// The user's row is the lock under which keys are counted.
		if _, err := s.queries.LockUser(ctx, tx, user); err != nil {
			return fmt.Errorf("lock user: %w", err)
		}
		live, err := s.queries.CountLiveKeys(ctx, tx, org, user)
		if err != nil {
			return fmt.Errorf("count keys: %w", err)
		}
		if live >= MaxKeys {
			return errs.New(errs.Conflict, "you have %d API keys here, the most there can be: revoke one first", live)
		}
		row, err := s.queries.InsertKey(ctx, tx, identitydb.InsertKeyParams{
			ID: key.ID, OrgID: org, UserID: user, Name: key.Name, SecretHash: hashOf(secret), Hint: key.Hint,
			Scopes: fromScopes(key.Scopes), Lifetime: time.Duration(spec.Days) * 24 * time.Hour,
		})
		if err != nil {
			return fmt.Errorf("insert key: %w", err)
		}
		key.CreatedAt, key.ExpiresAt = row.CreatedAt, row.ExpiresAt
		return nil
	})
	if err != nil {
		return Key{}, "", err
	}
	return key, secret, nil
}

func (k KeySpec) checked() (KeySpec, error) {
	k.Name = strings.TrimSpace(k.Name)
	if k.Name == "" || len([]rune(k.Name)) > maxNameLength {
		return k, errs.InvalidField("body.name", "the name must have 1 to %d characters", maxNameLength)
	}
	if k.Days < 1 || k.Days > MaxKeyDays {
		return k, errs.InvalidField("body.days", "a key lasts 1 to %d days, not %d", MaxKeyDays, k.Days)
	}
	if len(k.Scopes) == 0 {
		return k, errs.InvalidField("body.scopes", "name at least one scope of: %s", joinScopes())
	}
	for _, scope := range k.Scopes {
		if !slices.Contains(Scopes, scope) {
			return k, errs.InvalidField("body.scopes", "%q is not a scope: there are %s", scope, joinScopes())
		}
	}
	k.Scopes = slices.Compact(slices.Sorted(slices.Values(k.Scopes)))
	return k, nil
}

// RevokeKey ends a member's own key. Revoking it again changes nothing.
func (s *Service) RevokeKey(ctx context.Context, org ids.Org, user ids.User, id ids.Key) error {
	_, err := s.queries.RevokeKey(ctx, s.db, id, org, user)
	if errors.Is(err, pgx.ErrNoRows) {
		return errs.New(errs.NotFound, "you have no API key %s here", id)
	}
	if err != nil {
		return fmt.Errorf("revoke key: %w", err)
	}
	return nil
}

func hashOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

func optionalUUID[K ids.Kind](id ids.ID[K]) uuid.NullUUID {
	return uuid.NullUUID{UUID: uuid.UUID(id), Valid: !id.IsZero()}
}

func joinScopes() string { return strings.Join(fromScopes(Scopes), ", ") }

func toScopes(texts []string) []Scope {
	scopes := make([]Scope, len(texts))
	for i, t := range texts {
		scopes[i] = Scope(t)
	}
	return scopes
}

func fromScopes(scopes []Scope) []string {
	texts := make([]string, len(scopes))
	for i, s := range scopes {
		texts[i] = string(s)
	}
	return texts
}
