package payouts

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/gagliardetto/solana-go"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
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
	accounts, err := s.accounts(ctx, chain.Confirmed, addresses)
	if err != nil {
		return fmt.Errorf("look at the payees' accounts: %w", err)
	}
	var missing []*candidate
	for i, c := range asked {
		if c.judge(accounts[2*i], accounts[2*i+1], keys); c.createAccount {
			missing = append(missing, c)
		}
	}
	return s.refuseReopened(ctx, missing)
}

// Questions about accounts are asked in pieces of what one call reads, a few at a time.
const (
	accountsAtOnce = 100
	accountCallers = 8
)

// accounts reads many accounts. A missing one is nil in its place.
func (s *Service) accounts(ctx context.Context, commitment chain.Commitment, addresses []chain.Address) ([]*chain.Account, error) {
	found := make([]*chain.Account, len(addresses))
	callers, callersCtx := errgroup.WithContext(ctx)
	callers.SetLimit(accountCallers)
	for from := 0; from < len(addresses); from += accountsAtOnce {
		to := min(from+accountsAtOnce, len(addresses))
		callers.Go(func() error {
			part, err := s.chain.Accounts(callersCtx, commitment, 0, addresses[from:to]...)
			if err == nil && len(part) != to-from {
				err = fmt.Errorf("asked for %d accounts, got %d", to-from, len(part))
			}
			copy(found[from:to], part)
			return err
		})
	}
	return found, callers.Wait()
}

// judgeMint refuses a payout token that is not the one of the policy any more, or that may keep a part of what is sent.
func (s *Service) judgeMint(ctx context.Context, keys signer.Addresses) error {
	accounts, err := s.chain.Accounts(ctx, chain.Confirmed, 0, keys.Mint)
	if err != nil {
		return fmt.Errorf("look at the token: %w", err)
	}
	mint := accounts[0]
	switch {
	case mint == nil || mint.Owner != keys.TokenProgram || len(mint.Data) < mintSize || mint.Data[mintInitializedAt] != 1:
		return errs.New(errs.Conflict, "the payout token %s is no mint of the signer's token program: nothing can be paid in it", keys.Mint)
	case mint.Data[mintDecimalsAt] != keys.Decimals:
		return errs.New(errs.Conflict, "the payout token %s has %d decimals, the signer's policy says %d", keys.Mint, mint.Data[mintDecimalsAt], keys.Decimals)
	case len(mint.Data) > mintSize:
		return errs.New(errs.Conflict, "the payout token %s has extensions, which may keep a part of each transfer or stop it: nothing is paid in it", keys.Mint)
	}
	return nil
}

// Where a mint's account has what.
const (
	mintSize          = 82
	mintDecimalsAt    = 44
	mintInitializedAt = 45
)

// refuseReopened notes an obstacle for each payee whose missing token account a batch has paid before. Making it again would pay its rent
// again: whoever closes an account gets its rent, so that would be a way to draw SOL from the treasury.
func (s *Service) refuseReopened(ctx context.Context, missing []*candidate) error {
	if len(missing) == 0 {
		return nil
	}
	accounts := make([]string, len(missing))
	for i, c := range missing {
		accounts[i] = c.tokenAccount.String()
	}
	// The limit keeps this to the index: for many accounts Postgres would rather read all payouts, each time.
	rows, err := s.pool.Query(ctx, `
		SELECT n.ordinal - 1 FROM unnest($1::text[]) WITH ORDINALITY AS n (token_account, ordinal)
		CROSS JOIN LATERAL (
			SELECT 1 FROM payouts p JOIN payout_batches b ON b.id = p.batch_id
			WHERE p.token_account = n.token_account AND b.state = 'finalized' LIMIT 1
		) AS paid`, accounts)
	if err != nil {
		return fmt.Errorf("read earlier payouts: %w", err)
	}
	var i int64
	_, err = pgx.ForEachRow(rows, []any{&i}, func() error {
		c := missing[i]
		c.createAccount, c.obstacle = false, fmt.Sprintf("the token account %s was closed after it was paid: the payee must open it again", c.tokenAccount)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read earlier payouts: %w", err)
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
	if c.tooLarge(keys) {
		return errors.New("the amount is above the signer's limit for a batch: it must be given up, and asked for in parts")
	}
	c.amount = min(c.amount, batchLimit(keys)) // the rest of what was earned is paid by later runs
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
	case !plain(account.Data):
		c.obstacle = fmt.Sprintf("the token account %s has extensions, which may refuse a payment", account.Address)
	case token.Frozen:
		c.obstacle = fmt.Sprintf("the token account %s is frozen by the token's issuer", account.Address)
	}
}

// Where a Token-2022 account has its extensions, each a type and a length of two bytes, and its content.
const (
	extensionsAt            = 166
	extensionHead           = 4
	extensionPadding        = 0
	extensionImmutableOwner = 7 // every associated account of Token-2022 has it
)

// plain reports whether a token account has no extension that could refuse a payment.
func plain(data []byte) bool {
	for rest := data[min(len(data), extensionsAt):]; len(rest) >= extensionHead; {
		kind, length := binary.LittleEndian.Uint16(rest), int(binary.LittleEndian.Uint16(rest[2:]))
		if kind == extensionPadding {
			return true
		}
		if kind != extensionImmutableOwner || len(rest) < extensionHead+length {
			return false
		}
		rest = rest[extensionHead+length:]
	}
	return true
}

// payable keeps the candidates without an obstacle, and of an organisation the first, because the signer counts its payouts: the others
// follow. What cannot be paid holds nothing else up. Those that were kept before are in taken.
func payable(candidates []candidate, taken map[ids.Org]bool) []candidate {
	free := make([]candidate, 0, len(candidates))
	for _, c := range candidates {
		if c.obstacle == "" && !taken[c.org] {
			taken[c.org] = true
			free = append(free, c)
		}
	}
	return free
}
