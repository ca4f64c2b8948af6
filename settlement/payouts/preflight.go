package payouts

import (
	"context"
	"errors"
	"fmt"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
)

// preflight looks at each payee's accounts on the chain and notes what stands against paying it, so that one bad payee does not
// fail the transaction of all.
func (s *Service) preflight(ctx context.Context, candidates []candidate, keys signer.Addresses) error {
	addresses := make([]chain.Address, 0, 2*len(candidates))
	asked := make([]*candidate, 0, len(candidates))
	for i := range candidates {
		c := &candidates[i]
		if err := c.derive(keys); err != nil {
			c.obstacle = err.Error()
			continue
		}
		addresses = append(addresses, c.wallet, c.tokenAccount)
		asked = append(asked, c)
	}
	if len(asked) == 0 {
		return nil
	}
	accounts, err := s.chain.Accounts(ctx, chain.Confirmed, 0, addresses...)
	if err != nil {
		return fmt.Errorf("look at the payees' accounts: %w", err)
	}
	for i, c := range asked {
		c.judge(accounts[2*i], accounts[2*i+1], keys)
	}
	return nil
}

// derive finds the payee's token account.
func (c *candidate) derive(keys signer.Addresses) (err error) {
	if c.wallet, err = chain.ParseAddress(c.address); err != nil {
		return errors.New("the payout address is not a Solana address")
	}
	if c.wallet == keys.Treasury {
		return errors.New("the payout address is the treasury itself")
	}
	if uint64(c.amount) > keys.MaxBaseUnitsPerBatch {
		return errors.New("the amount is above the signer's limit for a batch")
	}
	c.tokenAccount, err = chain.AssociatedTokenAccount(c.wallet, keys.Mint, keys.TokenProgram)
	return err
}

// judge notes what the payee's accounts say; nil is an account that does not exist.
func (c *candidate) judge(wallet, account *chain.Account, keys signer.Addresses) {
	switch {
	case wallet != nil && (wallet.Owner == chain.TokenProgram || wallet.Owner == chain.Token2022Program):
		c.obstacle = "the payout address is a token account or a mint; it must be the wallet that owns the tokens"
	case account == nil || (account.Owner == solana.SystemProgramID && len(account.Data) == 0):
		c.createAccount = true // somebody may have sent SOL to the address before the account was made
	default:
		c.judgeTokenAccount(account, keys)
	}
}

func (c *candidate) judgeTokenAccount(account *chain.Account, keys signer.Addresses) {
	token, err := chain.DecodeTokenAccount(account)
	switch {
	case err != nil || token.Program != keys.TokenProgram || token.Mint != keys.Mint:
		c.obstacle = fmt.Sprintf("the account %s is not a token account of the payout token", account.Address)
	case token.Owner != c.wallet:
		c.obstacle = fmt.Sprintf("the token account %s was handed over to another owner, %s", account.Address, token.Owner)
	case token.Frozen:
		c.obstacle = fmt.Sprintf("the token account %s is frozen by the token's issuer", account.Address)
	}
}

// payable keeps the candidates without an obstacle.
func payable(candidates []candidate) (free []candidate, total money.Amount) {
	for _, c := range candidates {
		if c.obstacle == "" {
			free = append(free, c)
			total += c.amount
		}
	}
	return free, total
}
