package localchain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
)

// The test token.
const (
	Symbol   = "USDC"
	Decimals = 6
)

// Amounts that Setup hands out.
const (
	lamportsPerSOL    uint64 = 1_000_000_000
	bootstrapLamports        = 100 * lamportsPerSOL
	treasuryLamports         = 10 * lamportsPerSOL
	walletLamports           = 2 * lamportsPerSOL
	DefaultCapital           = 1_000_000 * 1_000_000 // base units: a million tokens
	DefaultNonces            = 4
	maxNonces                = 64
	policyBatchLimit         = 100_000 * 1_000_000
	policyDayLimit           = 10 * policyBatchLimit
	policyPriorityFee        = 10_000
	policyMaxPayouts         = 56
	nonceAccountSize  uint64 = 80
	mintAccountSize   uint64 = 82
)

// publicClusters are the genesis hashes of clusters where money is real or shared.
var publicClusters = map[string]string{
	"5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d": "mainnet",
	"4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY": "testnet",
	"EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG": "devnet",
}

// Config says what to furnish.
type Config struct {
	URL      string        // of the development chain
	Dir      string        // where keys are kept, readable by this user only
	Treasury chain.Address // the signer's
	Capital  uint64        // base units that a fresh treasury gets; 0 means DefaultCapital
	Nonces   int           // 0 means DefaultNonces
	Log      *slog.Logger
}

// Wallet is a person's burner wallet.
type Wallet struct {
	Name    string // owner, engineer or finance
	Address chain.Address
	KeyFile string // in the format of solana-keygen
}

// Chain is a furnished development chain.
type Chain struct {
	Mint                 chain.Address
	Treasury             chain.Address
	TreasuryTokenAccount chain.Address
	Nonces               []chain.Address
	Owner                Wallet
	Engineer             Wallet
	Finance              Wallet

	client    *chain.Client
	bootstrap solana.PrivateKey // pays for everything
	authority solana.PrivateKey // makes and freezes test tokens
}

// Setup furnishes the chain and returns what is on it.
func Setup(ctx context.Context, config Config) (*Chain, error) {
	setDefaults(&config)
	client, err := chain.New(chain.Config{URL: config.URL})
	if err != nil {
		return nil, err
	}
	if err := refusePublic(ctx, client); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	c := &Chain{client: client, Treasury: config.Treasury}
	if err := c.furnish(ctx, config); err != nil {
		return nil, errors.Join(fmt.Errorf("set up the local chain: %w", err), client.Close())
	}
	config.Log.InfoContext(ctx, "local chain ready", "mint", c.Mint, "treasury", c.Treasury, "nonces", len(c.Nonces))
	return c, nil
}

// Close closes connections.
func (c *Chain) Close() error { return c.client.Close() }

// Client is a client of the chain.
func (c *Chain) Client() *chain.Client { return c.client }

// Currency is the test token.
func (c *Chain) Currency() money.Currency {
	return money.Currency{Symbol: Symbol, Mint: c.Mint.String(), Decimals: Decimals}
}

// Policy is a signer's policy for this chain.
func (c *Chain) Policy() signer.Policy {
	return signer.Policy{
		Mint: c.Mint, TokenProgram: chain.TokenProgram, Decimals: Decimals, Nonces: c.Nonces,
		MaxPayoutsPerBatch: policyMaxPayouts, MaxBaseUnitsPerBatch: policyBatchLimit, MaxBaseUnitsPerDay: policyDayLimit,
		MaxPriorityFee: policyPriorityFee,
	}
}

func setDefaults(config *Config) {
	if config.Capital == 0 {
		config.Capital = DefaultCapital
	}
	if config.Nonces == 0 {
		config.Nonces = DefaultNonces
	}
	config.Nonces = min(config.Nonces, maxNonces)
}

func refusePublic(ctx context.Context, client *chain.Client) error {
	genesis, err := client.GenesisHash(ctx)
	if err != nil {
		return fmt.Errorf("ask the local chain which one it is: %w", err)
	}
	if name, public := publicClusters[genesis.String()]; public {
		return errs.New(errs.Invalid, "this is Solana's %s, not a local chain: test tokens are made on local chains only", name)
	}
	return nil
}

func (c *Chain) furnish(ctx context.Context, config Config) (err error) {
	if c.bootstrap, err = loadKey(filepath.Join(config.Dir, "bootstrap.json")); err != nil {
		return err
	}
	if c.authority, err = loadKey(filepath.Join(config.Dir, "mint-authority.json")); err != nil {
		return err
	}
	if err := c.fund(ctx, c.bootstrap.PublicKey(), bootstrapLamports); err != nil {
		return err
	}
	if err := c.fund(ctx, c.Treasury, treasuryLamports); err != nil {
		return err
	}
	if err := c.furnishToken(ctx, config); err != nil {
		return err
	}
	if err := c.furnishNonces(ctx, config); err != nil {
		return err
	}
	for name, wallet := range map[string]*Wallet{"owner": &c.Owner, "engineer": &c.Engineer, "finance": &c.Finance} {
		path := filepath.Join(config.Dir, "wallets", name+".json")
		key, err := loadKey(path)
		if err != nil {
			return err
		}
		*wallet = Wallet{Name: name, Address: key.PublicKey(), KeyFile: path}
		if err := c.fund(ctx, wallet.Address, walletLamports); err != nil {
			return err
		}
	}
	return nil
}

// fund gives an address SOL if it has less than a quarter of the amount.
func (c *Chain) fund(ctx context.Context, address chain.Address, lamports uint64) error {
	balance, err := c.client.Lamports(ctx, address)
	if err != nil {
		return err
	}
	if balance >= lamports/4 {
		return nil
	}
	signature, err := c.client.Airdrop(ctx, address, lamports)
	if err != nil {
		return fmt.Errorf("airdrop to %s: %w", address, err)
	}
	return c.finalize(ctx, signature)
}

func (c *Chain) furnishToken(ctx context.Context, config Config) (err error) {
	mint, err := loadKey(filepath.Join(config.Dir, "mint.json"))
	if err != nil {
		return err
	}
	c.Mint = mint.PublicKey()
	if c.TreasuryTokenAccount, err = chain.AssociatedTokenAccount(c.Treasury, c.Mint, chain.TokenProgram); err != nil {
		return err
	}
	if err := c.ensureMint(ctx, mint); err != nil {
		return err
	}
	_, err = c.client.Account(ctx, chain.Finalized, 0, c.TreasuryTokenAccount)
	if errors.Is(err, chain.ErrNotFound) {
		// The account and its capital come together, so that a crash leaves both or neither.
		_, err = c.MintTo(ctx, c.Treasury, config.Capital)
	}
	return err
}

func (c *Chain) ensureMint(ctx context.Context, mint solana.PrivateKey) error {
	_, err := c.client.Mint(ctx, mint.PublicKey())
	if !errors.Is(err, chain.ErrNotFound) {
		return err
	}
	instructions, err := c.createMint(ctx, mint.PublicKey(), chain.TokenProgram, Decimals)
	if err != nil {
		return err
	}
	_, err = c.execute(ctx, instructions, mint)
	return err
}

func (c *Chain) furnishNonces(ctx context.Context, config Config) error {
	for i := range config.Nonces {
		key, err := loadKey(filepath.Join(config.Dir, "nonces", fmt.Sprintf("%02d.json", i)))
		if err != nil {
			return err
		}
		c.Nonces = append(c.Nonces, key.PublicKey())
		_, err = c.client.Nonce(ctx, chain.Finalized, 0, key.PublicKey())
		if err == nil {
			continue
		}
		if !errors.Is(err, chain.ErrNotFound) {
			return err
		}
		instructions, err := c.createNonce(ctx, key.PublicKey())
		if err != nil {
			return err
		}
		if _, err := c.execute(ctx, instructions, key); err != nil {
			return fmt.Errorf("create nonce account: %w", err)
		}
	}
	return nil
}
