package api

import (
	"context"
	"encoding/base64"
	"net/http"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

type nonceOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
	Body      apiv1.SignInInput
}

type signInInput struct {
	Cookies string `header:"Cookie" hidden:"true"`
	Body    apiv1.SignInRequest
}

type signInOutput struct {
	SetCookie []http.Cookie `header:"Set-Cookie"`
	Body      apiv1.Me
}

type signOutOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
}

func (s *Server) getNetwork(context.Context, *noInput) (*output[apiv1.Network], error) {
	return answer(s.Network), nil
}

func (s *Server) createNonce(ctx context.Context, in *plainBody[apiv1.NonceRequest]) (*nonceOutput, error) {
	message, browser, err := s.Identity.Nonce(ctx, in.Body.Address)
	if err != nil {
		return nil, err
	}
	return &nonceOutput{SetCookie: s.cookies.newBrowser(browser), Body: apiv1.SignInInput{
		Domain: message.Domain, Address: message.Address, Statement: message.Statement, URI: message.URI, Version: "1",
		ChainID: message.ChainID, Nonce: message.Nonce, IssuedAt: message.IssuedAt.UTC(), ExpirationTime: message.ExpiresAt.UTC(),
		Message: message.Text(),
	}}, nil
}

func (s *Server) signIn(ctx context.Context, in *signInInput) (*signInOutput, error) {
	signed, err := base64.StdEncoding.DecodeString(in.Body.SignedMessage)
	if err != nil {
		return nil, errs.InvalidField("body.signed_message", "the signed message is not base64")
	}
	signature, err := base64.StdEncoding.DecodeString(in.Body.Signature)
	if err != nil {
		return nil, errs.InvalidField("body.signature", "the signature is not base64")
	}
	who, token, err := s.Identity.SignIn(ctx, identity.Proof{
		Address: in.Body.Address, SignedMessage: signed, Signature: signature, Browser: cookieIn(in.Cookies, s.cookies.browser),
	})
	if err != nil {
		return nil, err
	}
	return &signInOutput{
		SetCookie: []http.Cookie{s.cookies.newSession(token), s.cookies.drop(s.cookies.browser)}, Body: wireMe(who),
	}, nil
}

func (s *Server) signOut(ctx context.Context, _ *noInput) (*signOutOutput, error) {
	if err := s.Identity.SignOut(ctx, callerOf(ctx).Session); err != nil {
		return nil, err
	}
	return &signOutOutput{SetCookie: s.cookies.drop(s.cookies.session)}, nil
}

func (s *Server) getMe(ctx context.Context, _ *noInput) (*output[apiv1.Me], error) {
	return answer(wireMe(callerOf(ctx).Principal)), nil
}

func (s *Server) createOrganisation(ctx context.Context, in *foundInput) (*output[apiv1.Membership], error) {
	founded, err := s.Identity.Found(ctx, callerOf(ctx).User, in.Body.Name)
	if err != nil {
		return nil, err
	}
	return answer(wireMembership(founded)), nil
}

func (s *Server) setPayoutAddress(ctx context.Context, in *orgBody[apiv1.PayoutAddressSet]) (*output[apiv1.Membership], error) {
	org := callerOf(ctx).org
	if err := s.Identity.SetPayoutAddress(ctx, org.Org, in.Body.Address); err != nil {
		return nil, err
	}
	org.PayoutAddress = in.Body.Address
	return answer(wireMembership(org)), nil
}

func (s *Server) listMembers(ctx context.Context, in *orgListInput) (*output[apiv1.List[apiv1.Member]], error) {
	from, err := readCursor(ids.User{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	return s.members(ctx, callerOf(ctx).org.Org, from, in.Limit)
}

func (s *Server) putMember(ctx context.Context, in *orgBody[apiv1.MemberPut]) (*output[apiv1.List[apiv1.Member]], error) {
	org := callerOf(ctx).org.Org
	roles := convert(in.Body.Roles, func(r string) identity.Role { return identity.Role(r) })
	if err := s.Identity.PutMember(ctx, org, in.Body.WalletAddress, in.Body.Name, roles); err != nil {
		return nil, err
	}
	return s.members(ctx, org, ids.User{}, maxPage)
}

func (s *Server) members(ctx context.Context, org ids.Org, from ids.User, limit int) (*output[apiv1.List[apiv1.Member]], error) {
	rows, err := s.Identity.Members(ctx, org, from, limit)
	if err != nil {
		return nil, err
	}
	return page(rows, limit, func(m identity.Member) ids.User { return m.User }, func(m identity.Member) apiv1.Member {
		return apiv1.Member{UserID: m.User, Name: m.Name, WalletAddress: m.Wallet, Roles: texts(m.Roles), Since: m.Since}
	}), nil
}

func (s *Server) listKeys(ctx context.Context, in *orgListInput) (*output[apiv1.List[apiv1.Key]], error) {
	from, err := readCursor(ids.Key{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	who := callerOf(ctx)
	rows, err := s.Identity.Keys(ctx, who.org.Org, who.User, from, in.Limit)
	if err != nil {
		return nil, err
	}
	return page(rows, in.Limit, func(k identity.Key) ids.Key { return k.ID }, wireKey), nil
}

func (s *Server) createKey(ctx context.Context, in *orgBody[apiv1.KeyCreate]) (*output[apiv1.KeyCreated], error) {
	who := callerOf(ctx)
	key, secret, err := s.Identity.CreateKey(ctx, who.org.Org, who.User, identity.KeySpec{
		Name: in.Body.Name, Days: in.Body.Days, Scopes: convert(in.Body.Scopes, func(t string) identity.Scope { return identity.Scope(t) }),
	})
	if err != nil {
		return nil, err
	}
	return answer(apiv1.KeyCreated{Key: wireKey(key), Secret: secret}), nil
}

func (s *Server) revokeKey(ctx context.Context, in *keyInput) (*nothing, error) {
	who := callerOf(ctx)
	return &nothing{}, s.Identity.RevokeKey(ctx, who.org.Org, who.User, in.ID)
}

func wireMe(p identity.Principal) apiv1.Me {
	me := apiv1.Me{UserID: p.User, Name: p.Name, WalletAddress: p.Wallet, Organisations: convert(p.Memberships, wireMembership)}
	if p.IsKey() {
		me.KeyScopes = texts(p.Scopes)
	}
	return me
}

func wireMembership(m identity.Membership) apiv1.Membership {
	return apiv1.Membership{OrgID: m.Org, Name: m.Name, Platform: m.Platform, Roles: texts(m.Roles), PayoutAddress: m.PayoutAddress}
}

func wireKey(k identity.Key) apiv1.Key {
	return apiv1.Key{
		ID: k.ID, Name: k.Name, Hint: k.Hint, Scopes: texts(k.Scopes), CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt, LastUsedAt: k.LastUsedAt,
	}
}

func texts[T ~string](values []T) []string {
	return convert(values, func(v T) string { return string(v) })
}
