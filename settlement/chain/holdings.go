package chain

import (
	"context"
	"fmt"
	"slices"

	"github.com/gagliardetto/solana-go"
)

// Where a token account says who else may do what with it. Each address follows a tag of four bytes, which is zero if there is none.
const (
	delegateOffset       = 72
	delegatedOffset      = 121
	closeAuthorityOffset = 129
	optionTagSize        = 4
)

// TokenAccountsOf lists a wallet's accounts of one mint at finalized, and the slot of that. Two endpoints must agree on all of it.
func (c *Client) TokenAccountsOf(ctx context.Context, owner, mint Address) ([]TokenAccount, Slot, error) {
	ask := func(ctx context.Context, e *endpoint, minSlot Slot) ([]TokenAccount, Slot, error) {
		return e.tokenAccounts(ctx, owner, ofMint(mint), minSlot)
	}
	accounts, slot, err := agree(ctx, c, 0, ask, func(a, b []TokenAccount) string {
		if !sameTokenAccounts(a, b) {
			return "the token accounts of " + owner.String()
		}
		return ""
	})
	if err == nil && len(accounts) > maxTokenAccounts {
		err = fmt.Errorf("wallet %s has more than %d accounts of the token %s: %w", owner, maxTokenAccounts, mint, ErrTooLong)
	}
	return accounts, slot, err
}

// Mints describes tokens at finalized. What is no initialized mint is absent from the answer. Two endpoints must agree on all but the
// supply, which of a token in use is never the same for long.
func (c *Client) Mints(ctx context.Context, mints ...Address) (map[Address]Mint, error) {
	found := make(map[Address]Mint, len(mints))
	for part := range slices.Chunk(mints, maxAccountsPerRead) {
		ask := func(ctx context.Context, e *endpoint, minSlot Slot) ([]*Mint, Slot, error) {
			accounts, slot, err := e.accounts(ctx, Finalized, minSlot, part)
			read := make([]*Mint, len(accounts))
			for i, account := range accounts {
				read[i] = mintOf(account)
			}
			return read, slot, err
		}
		read, _, err := agree(ctx, c, 0, ask, differentMint(part))
		if err != nil {
			return nil, err
		}
		for _, mint := range read {
			if mint != nil {
				found[mint.Address] = *mint
			}
		}
	}
	return found, nil
}

func differentMint(mints []Address) func(a, b []*Mint) string {
	return func(a, b []*Mint) string {
		for i, mint := range mints {
			if !sameMint(a[i], b[i]) {
				return "the mint " + mint.String()
			}
		}
		return ""
	}
}

func sameMint(a, b *Mint) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Program == b.Program && a.Decimals == b.Decimals && slices.Equal(a.Extensions, b.Extensions)
}

// sameHoldings compares lists by which accounts there are. Anybody can change what foreign ones hold, with every block.
func sameHoldings(a, b []TokenAccount) bool {
	return slices.EqualFunc(a, b, func(a, b TokenAccount) bool { return a.Address == b.Address && a.Mint == b.Mint && a.Owner == b.Owner })
}

// option reads an address that may be absent; the zero address is none.
func option(data []byte) Address {
	if !slices.ContainsFunc(data[:optionTagSize], func(b byte) bool { return b != 0 }) {
		return Address{}
	}
	return Address(data[optionTagSize : optionTagSize+solana.PublicKeyLength])
}
