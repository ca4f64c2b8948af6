package ledger

import (
	"fmt"

	"github.com/muster-gpu/muster/internal/ids"
)

// Kind says what an account holds. The package comment lists the kinds.
type Kind string

// The kinds.
const (
	ChainTreasury     Kind = "chain_treasury"
	ChainDeposits     Kind = "chain_deposits"
	ChainSuspense     Kind = "chain_suspense"
	CustomerAvailable Kind = "customer_available"
	CustomerHeld      Kind = "customer_held"
	OwnerPayable      Kind = "owner_payable"
	PayoutInFlight    Kind = "payout_in_flight"
	Suspense          Kind = "suspense"
	PlatformFees      Kind = "platform_fees"
	PlatformCapital   Kind = "platform_capital"
)

type rule struct {
	asset       bool   // debits add
	perOrg      bool   // one account an organisation
	mayOverdraw bool   // may fall below zero
	inWords     string // for people who read a refusal
}

var rules = map[Kind]rule{
	ChainTreasury:     {asset: true, mayOverdraw: true, inWords: "the treasury"},
	ChainDeposits:     {asset: true, perOrg: true, inWords: "the deposit account"},
	ChainSuspense:     {asset: true, inWords: "the suspended tokens"},
	CustomerAvailable: {perOrg: true, inWords: "the available balance"},
	CustomerHeld:      {perOrg: true, inWords: "the held balance"},
	OwnerPayable:      {perOrg: true, inWords: "the payable earnings"},
	PayoutInFlight:    {perOrg: true, inWords: "the payouts in flight"},
	Suspense:          {inWords: "the suspense balance"},
	PlatformFees:      {inWords: "the platform's fees"},
	PlatformCapital:   {mayOverdraw: true, inWords: "the platform's capital"},
}

// Account names an account: its kind and, for the kinds that are kept per organisation, whose it is.
type Account struct {
	Kind Kind
	Org  ids.Org
}

// Of names an organisation's account.
func Of(kind Kind, org ids.Org) Account { return Account{Kind: kind, Org: org} }

// Platform names an account that is kept once, not per organisation.
func Platform(kind Kind) Account { return Account{Kind: kind} }

// asset reports whether debits add to the account; they take from all others.
func (a Account) asset() bool { return rules[a.Kind].asset }

func (a Account) validate() error {
	r, known := rules[a.Kind]
	switch {
	case !known:
		return fmt.Errorf("%q is not a kind of account", a.Kind)
	case r.perOrg && a.Org.IsZero():
		return fmt.Errorf("a %s account needs an organisation", a.Kind)
	case !r.perOrg && !a.Org.IsZero():
		return fmt.Errorf("a %s account has no organisation", a.Kind)
	}
	return nil
}
