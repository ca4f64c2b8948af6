package chain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/rpc"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// highestTransactionVersion is sent with every read of transactions: without it endpoints hide version 1.
	highestTransactionVersion uint64 = 1

	maxAccountsPerRead  = 100    // a limit of getMultipleAccounts
	maxStatusesPerRead  = 256    // a limit of getSignatureStatuses
	maxTokenAccounts    = 10_000 // of one wallet
	tokenAccountSize    = 165
	mintSize            = 82
	accountTypeOffset   = tokenAccountSize // Token-2022 marks accounts with extensions here
	accountTypeAccount  = 2
	accountStateOffset  = 108
	accountStateFrozen  = 2
	accountStateNothing = 0
)

// Config says which endpoint to use.
type Config struct {
	URL          string        // JSON-RPC over HTTP
	WebsocketURL string        // empty: derived from URL as Solana's tools do
	Timeout      time.Duration // of one exchange; 0 means DefaultTimeout
}

// Client talks to one RPC endpoint.
type Client struct {
	rpc          *rpc.Client
	websocketURL string
	pageSize     int // of an account's history
	failures     *prometheus.CounterVec
}

// New makes a client. It does not connect; the error is about the configuration.
func New(config Config) (*Client, error) {
	endpoint, err := url.Parse(config.URL)
	if err != nil || endpoint.Host == "" || (endpoint.Scheme != "http" && endpoint.Scheme != "https") {
		return nil, errors.New("the Solana RPC endpoint must be an http or https URL")
	}
	if config.WebsocketURL == "" {
		config.WebsocketURL = websocketURL(*endpoint)
	}
	if config.Timeout == 0 {
		config.Timeout = DefaultTimeout
	}
	failures := newFailures()
	return &Client{
		failures:     failures,
		rpc:          rpc.NewWithCustomRPCClient(newCaller(config.URL, config.Timeout, failures)),
		websocketURL: config.WebsocketURL,
		pageSize:     signaturesPerPage,
	}, nil
}

// Close closes idle connections.
func (c *Client) Close() error { return c.rpc.Close() }

// GenesisHash names the cluster.
func (c *Client) GenesisHash(ctx context.Context) (Hash, error) { return c.rpc.GetGenesisHash(ctx) }

// Slot returns the newest slot at a commitment.
func (c *Client) Slot(ctx context.Context, commitment Commitment) (Slot, error) {
	slot, err := c.rpc.GetSlot(ctx, rpc.CommitmentType(commitment))
	return Slot(slot), err
}

// BlockHeight returns how many blocks there are at a commitment.
func (c *Client) BlockHeight(ctx context.Context, commitment Commitment) (Height, error) {
	height, err := c.rpc.GetBlockHeight(ctx, rpc.CommitmentType(commitment))
	return Height(height), err
}

// LatestBlockhash returns a blockhash at a commitment and the last block height at which a transaction that names it can land.
func (c *Client) LatestBlockhash(ctx context.Context, commitment Commitment) (Hash, Height, error) {
	result, err := c.rpc.GetLatestBlockhash(ctx, rpc.CommitmentType(commitment))
	if err != nil {
		return Hash{}, 0, err
	}
	return result.Value.Blockhash, Height(result.Value.LastValidBlockHeight), nil
}

// RentExempt returns the lamports that an account of size bytes must hold. The cluster changes it: ask each time.
func (c *Client) RentExempt(ctx context.Context, size uint64) (uint64, error) {
	return c.rpc.GetMinimumBalanceForRentExemption(ctx, size, rpc.CommitmentFinalized)
}

// Lamports returns an address's SOL at finalized, 0 if there is no such account.
func (c *Client) Lamports(ctx context.Context, address Address) (uint64, error) {
	result, err := c.rpc.GetBalance(ctx, address, rpc.CommitmentFinalized)
	if err != nil {
		return 0, err
	}
	return result.Value, nil
}

// Accounts reads accounts at one commitment from a state not older than minSlot. A missing account is nil in its place. Up to
// 100 addresses are read from one state; more are read in several.
func (c *Client) Accounts(ctx context.Context, commitment Commitment, minSlot Slot, addresses ...Address) ([]*Account, error) {
	accounts := make([]*Account, 0, len(addresses))
	for len(addresses) > 0 {
		part := addresses[:min(len(addresses), maxAccountsPerRead)]
		addresses = addresses[len(part):]
		result, err := c.rpc.GetMultipleAccountsWithOpts(ctx, part, &rpc.GetMultipleAccountsOpts{
			Encoding: solana.EncodingBase64, Commitment: rpc.CommitmentType(commitment), MinContextSlot: slotOption(minSlot),
		})
		if err != nil {
			return nil, err
		}
		if len(result.Value) != len(part) {
			return nil, fmt.Errorf("getMultipleAccounts: asked for %d accounts, got %d", len(part), len(result.Value))
		}
		for i, value := range result.Value {
			accounts = append(accounts, accountOf(part[i], value, result.Context.Slot))
		}
	}
	return accounts, nil
}

// Account reads one account, or returns ErrNotFound.
func (c *Client) Account(ctx context.Context, commitment Commitment, minSlot Slot, address Address) (*Account, error) {
	accounts, err := c.Accounts(ctx, commitment, minSlot, address)
	if err != nil {
		return nil, err
	}
	if accounts[0] == nil {
		return nil, fmt.Errorf("account %s: %w", address, ErrNotFound)
	}
	return accounts[0], nil
}

// TokenBalance returns the finalized balance of a token account and the slot it was read at, which is at least minSlot. An
// account that does not exist is ErrNotFound.
func (c *Client) TokenBalance(ctx context.Context, tokenAccount Address, minSlot Slot) (Balance, error) {
	account, err := c.Account(ctx, Finalized, minSlot, tokenAccount)
	if err != nil {
		return Balance{}, err
	}
	token, err := DecodeTokenAccount(account)
	if err != nil {
		return Balance{}, err
	}
	return Balance{Amount: token.Amount, Slot: account.Slot}, nil
}

// TokenAccounts lists a wallet's token accounts at finalized: of any mint and of both token programs.
func (c *Client) TokenAccounts(ctx context.Context, owner Address) ([]TokenAccount, error) {
	var accounts []TokenAccount
	for _, program := range []Address{TokenProgram, Token2022Program} {
		result, err := c.rpc.GetTokenAccountsByOwner(ctx, owner, &rpc.GetTokenAccountsConfig{ProgramId: &program},
			&rpc.GetTokenAccountsOpts{Commitment: rpc.CommitmentFinalized, Encoding: solana.EncodingBase64})
		if err != nil {
			return nil, err
		}
		if len(accounts)+len(result.Value) > maxTokenAccounts {
			return nil, fmt.Errorf("wallet %s has more than %d token accounts", owner, maxTokenAccounts)
		}
		for _, value := range result.Value {
			account, err := DecodeTokenAccount(accountOf(value.Pubkey, &value.Account, result.Context.Slot))
			if err != nil {
				return nil, err
			}
			accounts = append(accounts, account)
		}
	}
	return accounts, nil
}

// Mint describes a token at finalized.
func (c *Client) Mint(ctx context.Context, mint Address) (Mint, error) {
	account, err := c.Account(ctx, Finalized, 0, mint)
	if err != nil {
		return Mint{}, err
	}
	if !isTokenProgram(account.Owner) || len(account.Data) < mintSize || account.Data[45] != 1 {
		return Mint{}, fmt.Errorf("account %s is not an initialized mint of a token program", mint)
	}
	return Mint{
		Address: mint, Program: account.Owner, Supply: binary.LittleEndian.Uint64(account.Data[36:]),
		Decimals: int(account.Data[44]), Extensions: len(account.Data) > mintSize,
	}, nil
}

// Nonce reads a durable nonce account.
func (c *Client) Nonce(ctx context.Context, commitment Commitment, minSlot Slot, address Address) (Nonce, error) {
	account, err := c.Account(ctx, commitment, minSlot, address)
	if err != nil {
		return Nonce{}, err
	}
	versions, err := solana.DecodeNonceVersions(account.Data)
	if err != nil || account.Owner != solana.SystemProgramID || !versions.State.IsInitialized() ||
		versions.Version != solana.NonceVersionCurrent {
		return Nonce{}, fmt.Errorf("account %s is not an initialized durable nonce", address)
	}
	data := versions.State.Data
	return Nonce{Authority: data.Authority, Value: data.Blockhash(), Slot: account.Slot}, nil
}

// Simulate runs a transaction without its signatures being checked, against a state not older than minSlot. A lifetime that is
// a nonce is used as it stands.
func (c *Client) Simulate(ctx context.Context, commitment Commitment, minSlot Slot, wire []byte) (Simulation, error) {
	result, err := c.rpc.SimulateRawTransactionWithOpts(ctx, wire, &rpc.SimulateTransactionOpts{
		Commitment: rpc.CommitmentType(commitment), MinContextSlot: slotOption(minSlot),
	})
	if err != nil {
		return Simulation{}, err
	}
	if result == nil || result.Value == nil {
		return Simulation{}, fmt.Errorf("simulateTransaction: %w: empty answer", ErrUnavailable)
	}
	simulation := Simulation{Err: jsonText(result.Value.Err), Logs: result.Value.Logs}
	if result.Value.UnitsConsumed != nil {
		simulation.Units = *result.Value.UnitsConsumed
	}
	if result.Value.LoadedAccountsDataSize != nil {
		simulation.LoadedDataSize = *result.Value.LoadedAccountsDataSize
	}
	return simulation, nil
}

// Send hands signed bytes to the cluster once, without a trial run: a transaction that would fail must land and consume its
// nonce, so that its end is known. The endpoint is told not to rebroadcast; the caller does. An error does not mean that the
// bytes were not accepted.
func (c *Client) Send(ctx context.Context, wire []byte) (Signature, error) {
	var none uint
	return c.rpc.SendRawTransactionWithOpts(ctx, wire, rpc.TransactionOpts{SkipPreflight: true, MaxRetries: &none})
}

// Airdrop asks a development cluster for SOL. Public clusters refuse it.
func (c *Client) Airdrop(ctx context.Context, address Address, lamports uint64) (Signature, error) {
	return c.rpc.RequestAirdrop(ctx, address, lamports, rpc.CommitmentConfirmed)
}

// DecodeTokenAccount reads an account of a token program.
func DecodeTokenAccount(account *Account) (TokenAccount, error) {
	data := account.Data
	if !isTokenProgram(account.Owner) || len(data) < tokenAccountSize || data[accountStateOffset] == accountStateNothing ||
		(len(data) > tokenAccountSize && data[accountTypeOffset] != accountTypeAccount) {
		return TokenAccount{}, fmt.Errorf("account %s is not an initialized token account", account.Address)
	}
	return TokenAccount{
		Address: account.Address, Mint: Address(data[0:32]), Owner: Address(data[32:64]), Program: account.Owner,
		Amount: binary.LittleEndian.Uint64(data[64:72]), Frozen: data[accountStateOffset] == accountStateFrozen,
		Slot: account.Slot,
	}, nil
}

// AssociatedTokenAccount derives the address of a wallet's own account for a mint of a token program.
func AssociatedTokenAccount(wallet, mint, program Address) (Address, error) {
	address, _, err := solana.FindAssociatedTokenAddressWithProgram(wallet, mint, program)
	if err != nil {
		return Address{}, fmt.Errorf("derive the token account of %s: %w", wallet, err)
	}
	return address, nil
}

// ParseAddress reads an address's base58 text.
func ParseAddress(text string) (Address, error) {
	address, err := solana.PublicKeyFromBase58(text)
	if err != nil {
		return Address{}, fmt.Errorf("%q is not a Solana address", text)
	}
	return address, nil
}

func accountOf(address Address, value *rpc.Account, slot uint64) *Account {
	if value == nil {
		return nil
	}
	return &Account{
		Address: address, Lamports: value.Lamports, Owner: value.Owner, Data: value.Data.GetBinary(), Slot: Slot(slot),
	}
}

func isTokenProgram(program Address) bool {
	return program == TokenProgram || program == Token2022Program
}

func slotOption(slot Slot) *uint64 {
	if slot == 0 {
		return nil
	}
	value := uint64(slot)
	return &value
}

// ParseSignature reads a signature's base58 text.
func ParseSignature(text string) (Signature, error) {
	signature, err := solana.SignatureFromBase58(text)
	if err != nil {
		return Signature{}, fmt.Errorf("%q is not a Solana signature", text)
	}
	return signature, nil
}
