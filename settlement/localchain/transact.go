package localchain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/settlement/chain"
)

const (
	finalizeTimeout = 60 * time.Second
	pollInterval    = 50 * time.Millisecond
	attempts        = 3 // a blockhash may expire on a chain that was paused
)

// Instruction codes of the system and token programs.
const (
	systemCreateAccount   = 0
	systemInitializeNonce = 6
	tokenTransferChecked  = 12
	tokenMintTo           = 7
	tokenCloseAccount     = 9
	tokenFreezeAccount    = 10
	tokenInitializeMint2  = 20
	tokenSetAuthority     = 6
	authorityAccountOwner = 2
	ataCreateIdempotent   = 1
)

// MintTo makes test tokens in a wallet's token account, which it creates if needed, and waits until that is final.
func (c *Chain) MintTo(ctx context.Context, wallet chain.Address, amount uint64) (chain.Signature, error) {
	return c.MintOther(ctx, c.Mint, wallet, amount)
}

// MintOther is MintTo for a token of CreateToken.
func (c *Chain) MintOther(ctx context.Context, mint, wallet chain.Address, amount uint64) (chain.Signature, error) {
	if amount == 0 {
		return chain.Signature{}, errs.New(errs.Invalid, "nothing to mint: the amount is zero")
	}
	token, err := c.client.Mint(ctx, mint)
	if err != nil {
		return chain.Signature{}, err
	}
	instructions, err := c.issue(wallet, token, amount)
	if err != nil {
		return chain.Signature{}, err
	}
	return c.execute(ctx, instructions, c.authority)
}

// issue makes tokens in a wallet's account, which it creates if needed.
func (c *Chain) issue(wallet chain.Address, token chain.Mint, amount uint64) ([]solana.Instruction, error) {
	create, account, err := c.createTokenAccount(wallet, token)
	if err != nil {
		return nil, err
	}
	return []solana.Instruction{create, solana.NewInstruction(token.Program, solana.AccountMetaSlice{
		solana.Meta(token.Address).WRITE(), solana.Meta(account).WRITE(), solana.Meta(c.authority.PublicKey()).SIGNER(),
	}, binary.LittleEndian.AppendUint64([]byte{tokenMintTo}, amount))}, nil
}

// CreateToken makes another token, of either token program, whose units MintOther makes.
func (c *Chain) CreateToken(ctx context.Context, program chain.Address, decimals uint8) (chain.Address, error) {
	key, err := solana.NewRandomPrivateKey()
	if err != nil {
		return chain.Address{}, fmt.Errorf("create token: %w", err)
	}
	instructions, err := c.createMint(ctx, key.PublicKey(), program, decimals)
	if err != nil {
		return chain.Address{}, err
	}
	_, err = c.execute(ctx, instructions, key)
	return key.PublicKey(), err
}

// CreateTokenAccount makes a wallet's empty account of the test token.
func (c *Chain) CreateTokenAccount(ctx context.Context, wallet chain.Address) (chain.Address, error) {
	create, account, err := c.createTokenAccount(wallet, chain.Mint{Address: c.Mint, Program: chain.TokenProgram})
	if err != nil {
		return chain.Address{}, err
	}
	_, err = c.execute(ctx, []solana.Instruction{create})
	return account, err
}

// Transfer sends test tokens from a wallet's token account to another wallet's, which it creates if needed.
func (c *Chain) Transfer(ctx context.Context, from solana.PrivateKey, to chain.Address, amount uint64) (chain.Signature, error) {
	token := chain.Mint{Address: c.Mint, Program: chain.TokenProgram}
	create, destination, err := c.createTokenAccount(to, token)
	if err != nil {
		return chain.Signature{}, err
	}
	source, err := chain.AssociatedTokenAccount(from.PublicKey(), c.Mint, chain.TokenProgram)
	if err != nil {
		return chain.Signature{}, err
	}
	data := append(binary.LittleEndian.AppendUint64([]byte{tokenTransferChecked}, amount), Decimals)
	transfer := solana.NewInstruction(chain.TokenProgram, solana.AccountMetaSlice{
		solana.Meta(source).WRITE(), solana.Meta(c.Mint), solana.Meta(destination).WRITE(), solana.Meta(from.PublicKey()).SIGNER(),
	}, data)
	return c.execute(ctx, []solana.Instruction{create, transfer}, from)
}

// Freeze stops a test token account, as a token's issuer can.
func (c *Chain) Freeze(ctx context.Context, account chain.Address) error {
	_, err := c.execute(ctx, []solana.Instruction{solana.NewInstruction(chain.TokenProgram, solana.AccountMetaSlice{
		solana.Meta(account).WRITE(), solana.Meta(c.Mint), solana.Meta(c.authority.PublicKey()).SIGNER(),
	}, []byte{tokenFreezeAccount})}, c.authority)
	return err
}

// Leave sends all that a wallet's token account holds to another wallet's, and closes it. Its rent goes to the wallet.
func (c *Chain) Leave(ctx context.Context, from solana.PrivateKey, to chain.Address, amount uint64) error {
	if _, err := c.Transfer(ctx, from, to, amount); err != nil {
		return err
	}
	account, err := chain.AssociatedTokenAccount(from.PublicKey(), c.Mint, chain.TokenProgram)
	if err != nil {
		return err
	}
	_, err = c.execute(ctx, []solana.Instruction{solana.NewInstruction(chain.TokenProgram, solana.AccountMetaSlice{
		solana.Meta(account).WRITE(), solana.Meta(from.PublicKey()).WRITE(), solana.Meta(from.PublicKey()).SIGNER(),
	}, []byte{tokenCloseAccount})}, from)
	return err
}

// HandOver gives a wallet's token account to another owner, which the token program allows.
func (c *Chain) HandOver(ctx context.Context, wallet solana.PrivateKey, newOwner chain.Address) error {
	account, err := chain.AssociatedTokenAccount(wallet.PublicKey(), c.Mint, chain.TokenProgram)
	if err != nil {
		return err
	}
	_, err = c.execute(ctx, []solana.Instruction{solana.NewInstruction(chain.TokenProgram, solana.AccountMetaSlice{
		solana.Meta(account).WRITE(), solana.Meta(wallet.PublicKey()).SIGNER(),
	}, append([]byte{tokenSetAuthority, authorityAccountOwner, 1}, newOwner[:]...))}, wallet)
	return err
}

// Key reads a wallet's private key.
func (w Wallet) Key() (solana.PrivateKey, error) { return loadKey(w.KeyFile) }

func (c *Chain) createTokenAccount(wallet chain.Address, token chain.Mint) (solana.Instruction, chain.Address, error) {
	account, err := chain.AssociatedTokenAccount(wallet, token.Address, token.Program)
	if err != nil {
		return nil, chain.Address{}, err
	}
	return solana.NewInstruction(solana.SPLAssociatedTokenAccountProgramID, solana.AccountMetaSlice{
		solana.Meta(c.bootstrap.PublicKey()).WRITE().SIGNER(), solana.Meta(account).WRITE(), solana.Meta(wallet),
		solana.Meta(token.Address), solana.Meta(solana.SystemProgramID), solana.Meta(token.Program),
	}, []byte{ataCreateIdempotent}), account, nil
}

func (c *Chain) createMint(ctx context.Context, mint, program chain.Address, decimals uint8) ([]solana.Instruction, error) {
	create, err := c.createAccount(ctx, mint, mintAccountSize, program)
	if err != nil {
		return nil, err
	}
	authority := c.authority.PublicKey()
	data := append([]byte{tokenInitializeMint2, decimals}, authority[:]...)
	data = append(append(data, 1), authority[:]...) // 1: there is a freeze authority
	return []solana.Instruction{create, solana.NewInstruction(program, solana.AccountMetaSlice{solana.Meta(mint).WRITE()}, data)}, nil
}

func (c *Chain) createNonce(ctx context.Context, account chain.Address) ([]solana.Instruction, error) {
	create, err := c.createAccount(ctx, account, nonceAccountSize, solana.SystemProgramID)
	if err != nil {
		return nil, err
	}
	data := append(binary.LittleEndian.AppendUint32(nil, systemInitializeNonce), c.Treasury[:]...)
	return []solana.Instruction{create, solana.NewInstruction(solana.SystemProgramID, solana.AccountMetaSlice{
		solana.Meta(account).WRITE(), solana.Meta(solana.SysVarRecentBlockHashesPubkey), solana.Meta(solana.SysVarRentPubkey),
	}, data)}, nil
}

func (c *Chain) createAccount(ctx context.Context, account chain.Address, size uint64, program chain.Address) (solana.Instruction, error) {
	rent, err := c.client.RentExempt(ctx, size)
	if err != nil {
		return nil, err
	}
	data := binary.LittleEndian.AppendUint32(nil, systemCreateAccount)
	data = binary.LittleEndian.AppendUint64(data, rent)
	data = append(binary.LittleEndian.AppendUint64(data, size), program[:]...)
	return solana.NewInstruction(solana.SystemProgramID, solana.AccountMetaSlice{
		solana.Meta(c.bootstrap.PublicKey()).WRITE().SIGNER(), solana.Meta(account).WRITE().SIGNER(),
	}, data), nil
}

// execute signs with the bootstrap key, which pays, and others, sends, and waits until the transaction is final.
func (c *Chain) execute(ctx context.Context, instructions []solana.Instruction, signers ...solana.PrivateKey) (chain.Signature, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, finalizeTimeout, errors.New("the local chain did not finalize in time"))
	defer cancel()
	var err error
	for range attempts {
		var signature chain.Signature
		signature, err = c.send(ctx, instructions, signers)
		if err == nil {
			err = c.finalize(ctx, signature)
		}
		if !errors.Is(err, errExpired) {
			return signature, err
		}
	}
	return chain.Signature{}, err
}

var errExpired = errors.New("the transaction expired before it landed")

func (c *Chain) send(ctx context.Context, instructions []solana.Instruction, signers []solana.PrivateKey) (chain.Signature, error) {
	blockhash, _, err := c.client.LatestBlockhash(ctx, chain.Confirmed)
	if err != nil {
		return chain.Signature{}, err
	}
	transaction, err := solana.NewTransaction(instructions, blockhash, solana.TransactionPayer(c.bootstrap.PublicKey()))
	if err != nil {
		return chain.Signature{}, fmt.Errorf("build transaction: %w", err)
	}
	_, err = transaction.Sign(func(key solana.PublicKey) *solana.PrivateKey {
		for _, candidate := range append(signers, c.bootstrap) {
			if candidate.PublicKey() == key {
				return &candidate
			}
		}
		return nil
	})
	if err != nil {
		return chain.Signature{}, fmt.Errorf("sign transaction: %w", err)
	}
	wire, err := transaction.MarshalBinary()
	if err != nil {
		return chain.Signature{}, fmt.Errorf("encode transaction: %w", err)
	}
	return c.client.Send(ctx, wire)
}

// finalize waits until a transaction is final and returns its error, if it has one.
func (c *Chain) finalize(ctx context.Context, signature chain.Signature) error {
	_, expires, err := c.client.LatestBlockhash(ctx, chain.Confirmed)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		ended, err := c.client.Finalized(ctx, signature)
		if err != nil {
			return err
		}
		if failure, found := ended[signature]; found {
			if failure != "" {
				return fmt.Errorf("transaction %s failed: %s", signature, failure)
			}
			return nil
		}
		if height, err := c.client.BlockHeight(ctx, chain.Finalized); err == nil && height > expires {
			return errExpired
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for transaction %s: %w", signature, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}
