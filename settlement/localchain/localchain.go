package localchain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/gagliardetto/solana-go"
	"golang.org/x/sync/errgroup"

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

// The people.
const (
	ownerName    = "owner"
	engineerName = "engineer"
	financeName  = "finance"
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
	atOnce                   = 8 // transactions that Setup waits for at the same time
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
	URL          string        // of the development chain
	WebsocketURL string        // empty: derived from URL
	Dir          string        // where keys are kept, readable by this user only
	Treasury     chain.Address // the signer's
	Capital      uint64        // base units that a fresh treasury gets; 0 means DefaultCapital
	Nonces       int           // 0 means DefaultNonces
	Log          *slog.Logger
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
	client, err := chain.New(chain.Config{URL: config.URL, WebsocketURL: config.WebsocketURL})
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
		MaxPriorityFee: policyPriorityFee, MaxBaseUnitsPerSweep: policyBatchLimit, MaxBaseUnitsSweptPerDay: policyDayLimit,
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

// furnish works in two rounds, since whatever costs SOL waits for the SOL; within a round everything lands at the same time.
func (c *Chain) furnish(ctx context.Context, config Config) error {
	nonces, mint, err := c.loadKeys(config)
	if err != nil {
		return err
	}
	round, roundCtx := errgroup.WithContext(ctx)
	for address, lamports := range map[chain.Address]uint64{
		c.bootstrap.PublicKey(): bootstrapLamports, c.Treasury: treasuryLamports,
		c.Owner.Address: walletLamports, c.Engineer.Address: walletLamports, c.Finance.Address: walletLamports,
	} {
		round.Go(func() error { return c.fund(roundCtx, address, lamports) })
	}
	if err := round.Wait(); err != nil {
		return err
	}
	round, roundCtx = errgroup.WithContext(ctx)
	round.SetLimit(atOnce)
	round.Go(func() error { return c.ensureToken(roundCtx, mint, config.Capital) })
	for _, nonce := range nonces {
		round.Go(func() error { return c.ensureNonce(roundCtx, nonce) })
	}
	return round.Wait()
}

// loadKeys reads all keys, making those that are missing, and the addresses that follow from them.
func (c *Chain) loadKeys(config Config) (nonces []solana.PrivateKey, mint solana.PrivateKey, err error) {
	load := func(name ...string) (key solana.PrivateKey) {
		if err == nil {
			key, err = loadKey(filepath.Join(append([]string{config.Dir}, name...)...))
		}
		return key
	}
	c.bootstrap, c.authority, mint = load("bootstrap.json"), load("mint-authority.json"), load("mint.json")
	for i := range config.Nonces {
		nonces = append(nonces, load("nonces", fmt.Sprintf("%02d.json", i)))
	}
	wallets := map[string]solana.PrivateKey{}
	for _, name := range []string{ownerName, engineerName, financeName} {
		wallets[name] = load("wallets", name+".json")
	}
	if err != nil {
		return nil, nil, err
	}
	for _, nonce := range nonces {
		c.Nonces = append(c.Nonces, nonce.PublicKey())
	}
	wallet := func(name string) Wallet {
		return Wallet{Name: name, Address: wallets[name].PublicKey(), KeyFile: filepath.Join(config.Dir, "wallets", name+".json")}
	}
	c.Owner, c.Engineer, c.Finance = wallet(ownerName), wallet(engineerName), wallet(financeName)
	c.Mint = mint.PublicKey()
	c.TreasuryTokenAccount, err = chain.AssociatedTokenAccount(c.Treasury, c.Mint, chain.TokenProgram)
	return nonces, mint, err
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

// ensureToken makes the mint, and the treasury's account together with its capital, so that a crash leaves both or neither.
func (c *Chain) ensureToken(ctx context.Context, mint solana.PrivateKey, capital uint64) error {
	_, mintErr := c.client.Mint(ctx, c.Mint)
	_, accountErr := c.client.Account(ctx, chain.Finalized, 0, c.TreasuryTokenAccount)
	var instructions []solana.Instruction
	var signers []solana.PrivateKey
	for _, err := range []error{mintErr, accountErr} {
		if err != nil && !errors.Is(err, chain.ErrNotFound) {
			return err
		}
	}
	if mintErr != nil {
		create, err := c.createMint(ctx, c.Mint, chain.TokenProgram, Decimals)
		if err != nil {
			return err
		}
		instructions, signers = append(instructions, create...), append(signers, mint)
	}
	if accountErr != nil {
		issue, err := c.issue(c.Treasury, chain.Mint{Address: c.Mint, Program: chain.TokenProgram}, capital)
		if err != nil {
			return err
		}
		instructions, signers = append(instructions, issue...), append(signers, c.authority)
	}
	if len(instructions) == 0 {
		return nil
	}
	_, err := c.execute(ctx, instructions, signers...)
	return err
}

func (c *Chain) ensureNonce(ctx context.Context, key solana.PrivateKey) error {
	_, err := c.client.Nonce(ctx, chain.Finalized, 0, key.PublicKey())
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
	return nil
}
