package identity

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

func (b bundle) seed(t *testing.T, org ids.Org, roles ...Role) (ids.User, string) {
	t.Helper()
	_, wallet := newWallet(t)
	user, err := b.SeedUser(t.Context(), wallet, "", []Seed{{org, roles}})
	fatal(t, err)
	return user, wallet
}

func TestSeedingTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, payout := newWallet(t)
	_, wallet := newWallet(t)
	var orgs, users []string
	for range 2 {
		platform, err := b.SeedOrg(t.Context(), "Platform", true, "")
		fatal(t, err)
		owner, err := b.SeedOrg(t.Context(), "Owner", false, payout)
		fatal(t, err)
		user, err := b.SeedUser(t.Context(), wallet, "Ada", []Seed{{platform, []Role{Finance}}, {owner, []Role{Owner, Admin}}})
		fatal(t, err)
		orgs, users = append(orgs, platform.String()+owner.String()), append(users, user.String())
	}
	if orgs[0] != orgs[1] || users[0] != users[1] {
		t.Fatalf("seeded %v and %v", orgs, users)
	}
	var members int
	fatal(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FROM memberships`).Scan(&members))
	if members != 2 {
		t.Fatalf("%d memberships, want 2", members)
	}
}

func TestAnOrganisationKeepsAnAdmin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	org, err := b.SeedOrg(t.Context(), "Customer", false, "")
	fatal(t, err)
	_, wallet := b.seed(t, org, Admin, Engineer)
	wantCode(t, b.PutMember(t.Context(), org, wallet, "", []Role{Engineer}), errs.Conflict)
	wantCode(t, b.PutMember(t.Context(), org, wallet, "", nil), errs.Conflict)
	_, second := newWallet(t)
	fatal(t, b.PutMember(t.Context(), org, second, "Bob", []Role{Admin}))
	fatal(t, b.PutMember(t.Context(), org, wallet, "", nil))
	members, err := b.Members(t.Context(), org, ids.User{}, 10)
	fatal(t, err)
	if len(members) != 1 || members[0].Wallet != second || members[0].Name != "Bob" {
		t.Fatalf("members %+v", members)
	}
}

func TestMembersAreCheckedBeforeTheyAreStored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	org, err := b.SeedOrg(t.Context(), "Customer", false, "")
	fatal(t, err)
	b.seed(t, org, Admin)
	_, wallet := newWallet(t)
	wantCode(t, b.PutMember(t.Context(), org, "not a wallet", "", []Role{Engineer}), errs.Invalid)
	wantCode(t, b.PutMember(t.Context(), org, wallet, "", []Role{"emperor"}), errs.Invalid)
	wantCode(t, b.PutMember(t.Context(), org, wallet, "", []Role{Operator}), errs.Invalid)
	platform, err := b.SeedOrg(t.Context(), "Platform", true, "")
	fatal(t, err)
	b.seed(t, platform, Admin)
	fatal(t, b.PutMember(t.Context(), platform, wallet, "", []Role{Operator}))
}

func TestKeyIsTiedToPersonAndOrganisation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	org, err := b.SeedOrg(t.Context(), "Customer", false, "")
	fatal(t, err)
	other, err := b.SeedOrg(t.Context(), "Other", false, "")
	fatal(t, err)
	user, wallet := b.seed(t, org, Engineer, Admin)
	_, err = b.SeedUser(t.Context(), wallet, "", []Seed{{other, []Role{Owner}}})
	fatal(t, err)
	secret, err := b.MintKey(t.Context(), org, user, KeySpec{Name: "ci", Scopes: []Scope{ScopeBook, ScopeRead, ScopeBook}, Days: 90})
	fatal(t, err)
	p, err := b.AuthenticateKey(t.Context(), secret)
	fatal(t, err)
	if len(p.Memberships) != 1 || p.Memberships[0].Org != org || !slices.Equal(p.Scopes, []Scope{ScopeBook, ScopeRead}) {
		t.Fatalf("the key is %+v", p)
	}
	stranger, _ := b.seed(t, other, Admin)
	_, err = b.MintKey(t.Context(), org, stranger, KeySpec{Name: "ci", Scopes: []Scope{ScopeRead}, Days: 1})
	wantCode(t, err, errs.NotFound)
	wantCode(t, b.RevokeKey(t.Context(), org, stranger, p.Key), errs.NotFound)
	fatal(t, b.RevokeKey(t.Context(), org, user, p.Key))
	fatal(t, b.RevokeKey(t.Context(), org, user, p.Key))
	_, err = b.AuthenticateKey(t.Context(), secret)
	wantCode(t, err, errs.Unauthenticated)
}

func TestKeySpecIsChecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	org, err := b.SeedOrg(t.Context(), "Customer", false, "")
	fatal(t, err)
	user, _ := b.seed(t, org, Engineer)
	for _, spec := range []KeySpec{
		{Name: " ", Scopes: []Scope{ScopeRead}, Days: 1},
		{Name: strings.Repeat("x", 81), Scopes: []Scope{ScopeRead}, Days: 1},
		{Name: "k", Days: 1},
		{Name: "k", Scopes: []Scope{"root"}, Days: 1},
		{Name: "k", Scopes: []Scope{ScopeRead}, Days: 0},
		{Name: "k", Scopes: []Scope{ScopeRead}, Days: 91},
	} {
		_, _, err := b.CreateKey(t.Context(), org, user, spec)
		wantCode(t, err, errs.Invalid)
	}
}

func TestExpiredKeyIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	org, err := b.SeedOrg(t.Context(), "Customer", false, "")
	fatal(t, err)
	user, _ := b.seed(t, org, Engineer)
	secret, err := b.MintKey(t.Context(), org, user, KeySpec{Name: "k", Scopes: []Scope{ScopeRead}, Days: 1})
	fatal(t, err)
	_, err = b.pool.Exec(t.Context(), `UPDATE api_keys SET expires_at = now()`)
	fatal(t, err)
	_, err = b.AuthenticateKey(t.Context(), secret)
	wantCode(t, err, errs.Unauthenticated)
}

func TestKeyChecksumNoticesAnyWrongCharacter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		secret := []byte(newKeySecret())
		if !wellFormedKey(string(secret)) {
			t.Fatalf("a fresh key is not well formed")
		}
		at := rapid.IntRange(0, len(secret)-1).Draw(t, "place")
		wrong := base62Digits[rapid.IntRange(0, 61).Draw(t, "digit")]
		if secret[at] == wrong {
			return
		}
		secret[at] = wrong
		if wellFormedKey(string(secret)) {
			t.Fatalf("a key with a wrong character at %d is well formed", at)
		}
	})
}

func TestBase58RoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "bytes")
		for i := range rapid.IntRange(0, 4).Draw(t, "zeros") {
			raw[i] = 0
		}
		back, ok := decodeBase58(encodeBase58(raw))
		if !ok || !slices.Equal(back, raw) {
			t.Fatalf("%x came back as %x", raw, back)
		}
	})
}
