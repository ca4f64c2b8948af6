package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/muster-gpu/muster/api/identity"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

// accessRule says who may call one operation. The zero rule admits any signed-in member of the organisation, by session only.
type accessRule struct {
	public   bool            // anyone; credentials are not looked at
	personal bool            // of the person, not of an organisation
	roles    []identity.Role // one of these, in the organisation; empty: any
	scope    identity.Scope  // what an API key needs; empty: API keys are refused
	anyKey   bool            // any API key will do
	platform bool            // only in the organisation that runs this Muster
	fresh    bool            // only soon after a wallet signature
}

var (
	engineer        = []identity.Role{identity.Engineer}
	engineerFinance = []identity.Role{identity.Engineer, identity.Finance}
	owner           = []identity.Role{identity.Owner, identity.Operator}
	ownerFinance    = []identity.Role{identity.Owner, identity.Finance}
	finance         = []identity.Role{identity.Finance}
	admin           = []identity.Role{identity.Admin}

	platformFinance = accessRule{roles: finance, scope: identity.ScopeFinance, platform: true}
)

// accessRules is the whole authorisation of the API: one row an operation. An operation without a row does not register.
var accessRules = map[string]accessRule{
	"get-network":         {public: true},
	"create-nonce":        {public: true},
	"sign-in":             {public: true},
	"sign-out":            {personal: true},
	"get-me":              {personal: true, anyKey: true},
	"create-organisation": {personal: true},
	"set-payout-address":  {roles: ownerFinance, fresh: true},
	"list-members":        {roles: admin},
	"put-member":          {roles: admin},
	"list-keys":           {},
	"create-key":          {},
	"revoke-key":          {},

	"list-offers":        {public: true},
	"get-market-history": {public: true},
	"explain":            {public: true},
	"create-quote":       {roles: engineer, scope: identity.ScopeBook},
	"get-quote":          {roles: engineer, scope: identity.ScopeBook},
	"list-bids":          {roles: engineer, scope: identity.ScopeBook},
	"list-bookings":      {roles: engineer, scope: identity.ScopeRead},
	"cancel-booking":     {roles: engineer, scope: identity.ScopeBook},
	"create-booking":     {roles: engineer, scope: identity.ScopeBook},
	"get-booking":        {roles: engineer, scope: identity.ScopeRead},

	"list-clusters":           {roles: engineerFinance, scope: identity.ScopeRead},
	"get-cluster":             {roles: engineerFinance, scope: identity.ScopeRead},
	"release-cluster":         {roles: engineer, scope: identity.ScopeBook},
	"quote-extension":         {roles: engineer, scope: identity.ScopeBook},
	"quote-addition":          {roles: engineer, scope: identity.ScopeBook},
	"remove-node":             {roles: engineer, scope: identity.ScopeBook},
	"set-auto-stop":           {roles: engineer, scope: identity.ScopeBook},
	"resume-cluster":          {roles: engineer, scope: identity.ScopeBook},
	"list-cluster-events":     {roles: engineer, scope: identity.ScopeRead},
	"get-cluster-cost":        {roles: engineerFinance, scope: identity.ScopeRead},
	"create-ray-token":        {roles: engineer, scope: identity.ScopeJobs},
	"create-dashboard-ticket": {roles: engineer},
	"list-jobs":               {roles: engineer, scope: identity.ScopeRead},
	"get-job-logs":            {roles: engineer, scope: identity.ScopeRead},
	"stop-job":                {roles: engineer, scope: identity.ScopeJobs},
	"stream":                  {scope: identity.ScopeRead},

	"list-hosts":         {roles: owner, scope: identity.ScopeRead},
	"get-host":           {roles: owner, scope: identity.ScopeRead},
	"set-ask":            {roles: owner, scope: identity.ScopeHosts},
	"preview-ask":        {roles: owner, scope: identity.ScopeRead},
	"check-earning":      {roles: owner, scope: identity.ScopeRead},
	"list-maintenance":   {roles: owner, scope: identity.ScopeHosts},
	"plan-maintenance":   {roles: owner, scope: identity.ScopeHosts},
	"cancel-maintenance": {roles: owner, scope: identity.ScopeHosts},
	"recheck-host":       {roles: owner, scope: identity.ScopeHosts},
	"drain-host":         {roles: owner, scope: identity.ScopeHosts},
	"undrain-host":       {roles: owner, scope: identity.ScopeHosts},
	"retire-host":        {roles: owner, scope: identity.ScopeHosts},
	"list-join-tokens":   {roles: owner, scope: identity.ScopeHosts},
	"create-join-token":  {roles: owner, scope: identity.ScopeHosts},
	"revoke-join-token":  {roles: owner, scope: identity.ScopeHosts},
	"get-earnings":       {roles: ownerFinance, scope: identity.ScopeRead},
	"list-payouts":       {roles: ownerFinance, scope: identity.ScopeRead},

	"get-wallet":        {roles: engineerFinance, scope: identity.ScopeWallet},
	"get-runway":        {roles: engineerFinance, scope: identity.ScopeRead},
	"list-wallet-lines": {roles: engineerFinance, scope: identity.ScopeWallet},
	"list-deposits":     {roles: engineerFinance, scope: identity.ScopeWallet},
	"list-withdrawals":  {roles: engineerFinance, scope: identity.ScopeWallet},
	"create-withdrawal": {roles: finance, scope: identity.ScopeWallet},
	"cancel-withdrawal": {roles: finance, scope: identity.ScopeWallet},
	"use-faucet":        {roles: engineer, scope: identity.ScopeWallet},

	"get-payable":            platformFinance,
	"list-batches":           platformFinance,
	"draft-batches":          platformFinance,
	"get-batch":              platformFinance,
	"approve-batch":          platformFinance,
	"cancel-batch":           platformFinance,
	"resolve-batch":          platformFinance,
	"list-payout-runs":       platformFinance,
	"start-payout-run":       platformFinance,
	"get-payout-run":         platformFinance,
	"list-run-payees":        platformFinance,
	"approve-payout-run":     platformFinance,
	"get-payout-schedule":    platformFinance,
	"set-payout-schedule":    platformFinance,
	"list-nonces":            platformFinance,
	"list-reconciliations":   platformFinance,
	"run-reconciliation":     platformFinance,
	"get-reconciliation":     platformFinance,
	"get-sol-journal":        platformFinance,
	"list-sol-journal-lines": platformFinance,
	"get-sol-journal-file":   platformFinance,
	"list-differences":       platformFinance,
	"list-holdings":          platformFinance,
	"get-difference":         platformFinance,
	"update-difference":      platformFinance,
	"list-periods":           platformFinance,
	"close-period":           platformFinance,
	"get-period":             platformFinance,
	"reopen-period":          platformFinance,
	"get-period-report":      platformFinance,
	"get-period-file":        platformFinance,
	"list-audit-log":         platformFinance,
	"get-audit-file":         platformFinance,
	"list-suspense":          platformFinance,
	"decide-suspense":        platformFinance,
	"list-sweeps":            platformFinance,

	"get-statement":          {roles: engineerFinance, scope: identity.ScopeWallet},
	"get-focus-export":       {roles: engineerFinance, scope: identity.ScopeWallet},
	"get-earnings-statement": {roles: ownerFinance, scope: identity.ScopeRead},
	"list-fees":              platformFinance,
	"create-fee":             platformFinance,

	"list-manifests":   {public: true},
	"get-manifest":     {public: true},
	"get-payout-proof": {roles: ownerFinance, scope: identity.ScopeRead},
}

func (r accessRule) security() []map[string][]string {
	switch {
	case r.public:
		return nil
	case r.anyKey || r.scope != "":
		return []map[string][]string{{sessionScheme: {}}, {keyScheme: {}}}
	default:
		return []map[string][]string{{sessionScheme: {}}}
	}
}

// caller is who calls, and for which organisation.
type caller struct {
	identity.Principal
	org identity.Membership // zero for personal operations
}

type callerKey struct{}

// callerOf returns the caller that authorise put there. Calling it from a public operation is a defect.
func callerOf(ctx context.Context) caller {
	who, ok := ctx.Value(callerKey{}).(caller)
	if !ok {
		panic("api: no caller in a public operation")
	}
	return who
}

// authorise admits or refuses before anything of the request is parsed.
func (s *Server) authorise(rule accessRule) func(huma.Context, func(huma.Context)) {
	return func(hctx huma.Context, next func(huma.Context)) {
		ctx := hctx.Context()
		if rule.public {
			next(hctx)
			return
		}
		who, err := s.admit(hctx, rule)
		if err == nil && !s.countPrincipal(hctx, who) {
			err = errTooMany
		}
		if err != nil {
			s.writeProblem(hctx, s.problem(ctx, err))
			return
		}
		next(huma.WithValue(hctx, callerKey{}, who))
	}
}

func (s *Server) countPrincipal(hctx huma.Context, who caller) bool {
	key := who.User.String()
	if who.IsKey() {
		key = who.Key.String()
	}
	header := http.Header{}
	allowed := s.limits.principal.allow(header, key)
	for name, values := range header {
		hctx.SetHeader(name, values[0])
	}
	return allowed
}

func (s *Server) admit(hctx huma.Context, rule accessRule) (caller, error) {
	principal, err := s.authenticate(hctx.Context(), hctx.Header("Authorization"), cookieIn(hctx.Header("Cookie"), s.cookies.session))
	if err != nil {
		return caller{}, err
	}
	return rule.check(principal, hctx.Query("org"))
}

// authenticate finds who a bearer key or a session cookie belongs to. A request with a bearer key is judged by it alone.
func (s *Server) authenticate(ctx context.Context, authorization, session string) (identity.Principal, error) {
	if authorization != "" {
		scheme, secret, _ := strings.Cut(authorization, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return identity.Principal{}, errs.New(errs.Unauthenticated, "send the API key as: Authorization: Bearer mst_...")
		}
		return s.Identity.AuthenticateKey(ctx, strings.TrimSpace(secret))
	}
	if session == "" {
		return identity.Principal{}, errs.New(errs.Unauthenticated, "sign in first, or send an API key")
	}
	return s.Identity.AuthenticateSession(ctx, session)
}

// check is the decision itself, free of anything but its arguments.
func (r accessRule) check(p identity.Principal, orgText string) (caller, error) {
	if err := r.checkCredential(p); err != nil {
		return caller{}, err
	}
	if r.personal {
		return caller{Principal: p}, nil
	}
	membership, err := actingFor(p, orgText)
	if err != nil {
		return caller{}, err
	}
	if r.platform && !membership.Platform {
		return caller{}, errs.New(errs.Forbidden, "this is for the organisation that runs this Muster")
	}
	if len(r.roles) > 0 && !slices.ContainsFunc(r.roles, membership.Has) {
		return caller{}, errs.New(errs.Forbidden, "this needs the role %s in %s: ask one of its admins", identity.JoinRoles(r.roles), membership.Name)
	}
	return caller{Principal: p, org: membership}, nil
}

func (r accessRule) checkCredential(p identity.Principal) error {
	if p.IsKey() {
		switch {
		case r.anyKey:
		case r.scope == "":
			return errs.New(errs.Forbidden, "API keys cannot do this: sign in with the wallet")
		case !p.HasScope(r.scope):
			return errs.New(errs.Forbidden, "this API key lacks the scope %s", r.scope)
		}
	}
	if r.fresh && p.SignedAgo > freshSignature {
		return errs.New(errs.Forbidden, "this needs a wallet signature of the last %s: sign in again first", freshSignature)
	}
	return nil
}

// actingFor resolves the org parameter. An organisation that the caller does not belong to does not exist for them.
func actingFor(p identity.Principal, text string) (identity.Membership, error) {
	if text == "" {
		if len(p.Memberships) == 1 {
			return p.Memberships[0], nil
		}
		if len(p.Memberships) == 0 {
			return identity.Membership{}, errs.New(errs.Forbidden, "you belong to no organisation: found one, or ask an admin to add you")
		}
		return identity.Membership{}, errs.InvalidField("query.org", "you belong to several organisations: name one")
	}
	var org ids.Org
	if err := org.UnmarshalText([]byte(text)); err != nil {
		return identity.Membership{}, errs.InvalidField("query.org", "%s", err.Error())
	}
	for _, m := range p.Memberships {
		if m.Org == org {
			return m, nil
		}
	}
	return identity.Membership{}, errs.New(errs.NotFound, "there is no organisation %s that you belong to", text)
}

// describe says in words who may call an operation.
func (r accessRule) describe() string {
	if r.public {
		return "Anyone."
	}
	text := "Signed in"
	if len(r.roles) > 0 {
		text = "The role " + identity.JoinRoles(r.roles)
	}
	if r.platform {
		text += " in the organisation that runs this Muster"
	}
	switch {
	case r.anyKey:
		text += "; any API key"
	case r.scope != "":
		text += "; API keys with the scope " + string(r.scope)
	default:
		text += "; no API keys"
	}
	if r.fresh {
		text += "; a wallet signature of the last five minutes"
	}
	return text + "."
}
