package devstack

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/mr-tron/base58"

	"github.com/muster-gpu/muster/api/client"
	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/localchain"
)

// The stack's organisations. The owner works for both owners, so that a payout has two payees.
const (
	platformName = "Muster (local)"
	customerName = "Northwind Labs"
	ridgeName    = "Ridge Compute"
	fjordName    = "Fjord Systems"
)

// Names of the burner wallets' people, as the console shows them.
const (
	engineerName = "Ada, ML engineer"
	ownerName    = "Olaf, GPU owner"
	financeName  = "Fin, finance"
)

const (
	keyDays               = 90
	firstDepositBaseUnits = 1_000_000_000 // 1,000 test tokens
)

// People are the three whom the stack is for.
type People struct{ Engineer, Owner, Finance Person }

// Person is one of them: a wallet, a home organisation and an API key for it.
type Person struct {
	Name    string
	User    ids.User
	Org     ids.Org
	Address string
	KeyFile string // the wallet's, in the format of solana-keygen
	APIKey  string
}

// Client calls the API as a person.
func (s *Stack) Client(p Person) (*client.Client, error) {
	return client.New(s.ConsoleURL(), p.APIKey, "", nil)
}

type organisations struct{ platform, customer, ridge, fjord ids.Org }

func (s *Stack) signIn() identity.SignInConfig {
	return identity.SignInConfig{
		Domain: strings.TrimPrefix(s.ConsoleURL(), "http://"), URI: s.ConsoleURL(), ChainID: "solana:localnet", Statement: "Sign in to Muster.",
	}
}

// seedPeople makes organisations and people, or finds those of an earlier start.
func (s *Stack) seedPeople(ctx context.Context) error {
	service, err := identity.New(s.pool, s.signIn())
	if err != nil {
		return err
	}
	orgs, err := s.seedOrganisations(ctx, service)
	if err != nil {
		return err
	}
	for _, p := range []struct {
		person *Person
		wallet localchain.Wallet
		name   string
		home   ids.Org
		seeds  []identity.Seed
	}{
		{&s.people.Engineer, s.chain.Engineer, engineerName, orgs.customer, []identity.Seed{
			{Org: orgs.customer, Roles: []identity.Role{identity.Engineer, identity.Finance, identity.Admin}},
		}},
		{&s.people.Owner, s.chain.Owner, ownerName, orgs.ridge, []identity.Seed{
			{Org: orgs.ridge, Roles: []identity.Role{identity.Owner, identity.Finance, identity.Admin}},
			{Org: orgs.fjord, Roles: []identity.Role{identity.Owner, identity.Finance, identity.Admin}},
		}},
		{&s.people.Finance, s.chain.Finance, financeName, orgs.platform, []identity.Seed{
			{Org: orgs.platform, Roles: []identity.Role{identity.Finance, identity.Owner, identity.Operator, identity.Admin}},
		}},
	} {
		user, err := service.SeedUser(ctx, p.wallet.Address.String(), p.name, p.seeds)
		if err != nil {
			return err
		}
		*p.person = Person{Name: p.name, User: user, Org: p.home, Address: p.wallet.Address.String(), KeyFile: p.wallet.KeyFile}
		if p.person.APIKey, err = s.apiKey(ctx, service, *p.person, p.wallet.Name); err != nil {
			return err
		}
	}
	s.orgs = orgs
	return nil
}

func (s *Stack) seedOrganisations(ctx context.Context, service *identity.Service) (orgs organisations, err error) {
	fjordWallet, err := s.wallet("fjord")
	if err != nil {
		return organisations{}, err
	}
	for _, o := range []struct {
		org      *ids.Org
		name     string
		platform bool
		payout   string
	}{
		{&orgs.platform, platformName, true, ""},
		{&orgs.customer, customerName, false, ""},
		{&orgs.ridge, ridgeName, false, s.chain.Owner.Address.String()},
		{&orgs.fjord, fjordName, false, fjordWallet},
	} {
		if *o.org, err = service.SeedOrg(ctx, o.name, o.platform, o.payout); err != nil {
			return organisations{}, fmt.Errorf("seed %s: %w", o.name, err)
		}
	}
	return orgs, nil
}

// apiKey returns a person's key of an earlier start while it is good, or a new one.
func (s *Stack) apiKey(ctx context.Context, service *identity.Service, p Person, name string) (string, error) {
	path := s.path("keys", name+".apikey")
	if stored, err := os.ReadFile(path); err == nil {
		if _, err := service.AuthenticateKey(ctx, string(stored)); err == nil {
			return string(stored), nil
		}
	}
	secret, err := service.MintKey(ctx, p.Org, p.User, identity.KeySpec{Name: "local stack", Scopes: identity.Scopes, Days: keyDays})
	if err != nil {
		return "", fmt.Errorf("make a key for %s: %w", p.Name, err)
	}
	return secret, os.WriteFile(path, []byte(secret), 0o600)
}

// wallet returns the address of a development wallet of the stack's own, made when it is first asked for and kept in the format
// of solana-keygen: the 64 bytes of the key as a JSON array of numbers.
func (s *Stack) wallet(name string) (string, error) {
	path := s.path("chain-keys", name+".json")
	encoded, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if encoded, err = newKeygenFile(path); err != nil {
			return "", err
		}
	}
	if err != nil {
		return "", err
	}
	var numbers []int
	if err := json.Unmarshal(encoded, &numbers); err != nil || len(numbers) != ed25519.PrivateKeySize {
		return "", fmt.Errorf("%s is not a key of %d bytes", path, ed25519.PrivateKeySize)
	}
	key := make([]byte, len(numbers))
	for i, n := range numbers {
		key[i] = byte(n)
	}
	return base58.Encode(key[ed25519.SeedSize:]), nil
}

func newKeygenFile(path string) ([]byte, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	numbers := make([]int, len(key)) // json would write bytes as base64
	for i, b := range key {
		numbers[i] = int(b)
	}
	encoded, err := json.Marshal(numbers)
	if err != nil {
		return nil, err
	}
	return encoded, os.WriteFile(path, encoded, 0o600)
}

// firstDeposit gives the customer test tokens, once in the life of the stack's state: a real transfer on the local chain, which
// the control plane credits when it is final.
func (s *Stack) firstDeposit(ctx context.Context) error {
	marker := s.path("keys", "first-deposit")
	if _, err := os.Stat(marker); err == nil {
		return nil
	}
	api, err := s.Client(s.people.Engineer)
	if err != nil {
		return err
	}
	var wallet apiv1.Wallet
	if err := api.Get(ctx, "/v1/wallet", nil, &wallet); err != nil {
		return fmt.Errorf("read the customer's deposit address: %w", err)
	}
	address, err := chain.ParseAddress(wallet.DepositAddress)
	if err != nil {
		return err
	}
	if _, err := s.chain.MintTo(ctx, address, firstDepositBaseUnits); err != nil {
		return err
	}
	err = waitFor(ctx, "the first deposit is not credited", startBound, func(ctx context.Context) error {
		if err := api.Get(ctx, "/v1/wallet", nil, &wallet); err != nil {
			return err
		}
		if strings.Trim(wallet.Available.BaseUnits, "0") == "" {
			return errors.New("the balance is still zero")
		}
		return nil
	})
	if err != nil {
		return err
	}
	return os.WriteFile(marker, []byte(time.Now().UTC().Format(time.RFC3339)), 0o600)
}
