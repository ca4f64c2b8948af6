package proof

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/settlement/chain"
)

// Place says where everything is that a verification reads.
type Place struct {
	RPC       string       // a Solana JSON-RPC endpoint
	Treasury  string       // the treasury's token account, or its wallet if that has only one
	Manifests string       // the address of a Muster, or a directory of manifests
	HTTP      *http.Client // for the manifests
}

// Connection is a place that can be verified. Close it.
type Connection struct {
	Treasury chain.TokenAccount
	Decimals int // of the token

	cluster *chain.Client
	source  Source
}

// Connect finds the treasury's token account and its token. What is wrong with the place is errs.Invalid.
func Connect(ctx context.Context, place Place) (*Connection, error) {
	source, err := place.source()
	if err != nil {
		return nil, err
	}
	address, err := chain.ParseAddress(place.Treasury)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%q is not the address of a treasury", place.Treasury)
	}
	cluster, err := chain.New(chain.Config{URL: place.RPC})
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s", err.Error())
	}
	c := &Connection{cluster: cluster, source: source}
	if c.Treasury, err = c.find(ctx, address); err == nil {
		var mint chain.Mint
		mint, err = cluster.Mint(ctx, c.Treasury.Mint)
		c.Decimals = mint.Decimals
	}
	if err != nil {
		return nil, errors.Join(err, cluster.Close())
	}
	return c, nil
}

func (p Place) source() (Source, error) {
	if !strings.Contains(p.Manifests, "://") {
		return Directory(p.Manifests), nil
	}
	server, err := NewServer(p.Manifests, p.HTTP)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s", err.Error())
	}
	return server, nil
}

// find takes a token account as it is, and of a wallet the only one that it has.
func (c *Connection) find(ctx context.Context, address chain.Address) (chain.TokenAccount, error) {
	account, err := c.cluster.Account(ctx, chain.Finalized, 0, address)
	if err == nil && (account.Owner == chain.TokenProgram || account.Owner == chain.Token2022Program) {
		found, err := chain.DecodeTokenAccount(account)
		if err != nil {
			return chain.TokenAccount{}, errs.New(errs.Invalid, "%s is no token account: give the treasury's", address)
		}
		return found, nil
	}
	if err != nil && !errors.Is(err, chain.ErrNotFound) {
		return chain.TokenAccount{}, fmt.Errorf("read the treasury: %w", err)
	}
	accounts, err := c.cluster.TokenAccounts(ctx, address)
	if err != nil {
		return chain.TokenAccount{}, fmt.Errorf("read the treasury: %w", err)
	}
	if len(accounts) != 1 {
		return chain.TokenAccount{}, errs.New(errs.Invalid, "the wallet %s has %d token accounts: name the one that pays", address, len(accounts))
	}
	return accounts[0], nil
}

// Verify compares the treasury's transactions in a period with the manifests, as the function of this name does.
func (c *Connection) Verify(ctx context.Context, span chain.Span, progress func(Checked)) (Report, error) {
	return Verify(ctx, c.cluster, c.source, Options{Treasury: c.Treasury.Address, Span: span, Progress: progress})
}

// Close closes connections.
func (c *Connection) Close() error { return c.cluster.Close() }
