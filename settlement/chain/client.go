package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/rpc"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

const (
	// highestTransactionVersion is sent with every read of transactions: without it endpoints hide version 1.
	highestTransactionVersion uint64 = 1

	maxAccountsPerRead  = 100     // a limit of getMultipleAccounts
	maxStatusesPerRead  = 256     // a limit of getSignatureStatuses
	maxTokenAccounts    = 100_000 // of one wallet; an endpoint's answer may be too long before
	tokenAccountSize    = 165
	mintSize            = 82
	accountTypeOffset   = tokenAccountSize // Token-2022 marks accounts with extensions here
	accountTypeAccount  = 2
	accountStateOffset  = 108
	accountStateFrozen  = 2
	accountStateNothing = 0

	// sendGrace is how long a sending waits for the other endpoints once one has taken it.
	sendGrace = 500 * time.Millisecond
)

// Config says which endpoints to use.
type Config struct {
	URL          string        // JSON-RPC over HTTP of the only endpoint
	URLs         []string      // of several providers' endpoints, which are compared; URL is not used then
	WebsocketURL string        // of the first endpoint; empty: derived from its URL as Solana's tools do
	Timeout      time.Duration // of one exchange; 0 means DefaultTimeout

	RequestsPerSecond float64 // to each endpoint; 0 means no limit but what the endpoint itself asks for
}

// Client talks to one RPC endpoint, or compares several.
type Client struct {
	endpoints     []*endpoint
	seen          atomic.Uint64 // the newest finalized slot that was seen
	confirmed     atomic.Uint64 // the newest that two endpoints had passed
	pageSize      int           // of an account's history
	failures      *prometheus.CounterVec
	disagreements prometheus.Counter
}

// New makes a client. It does not connect; the error is about the configuration.
func New(config Config) (*Client, error) {
	if config.Timeout == 0 {
		config.Timeout = DefaultTimeout
	}
	failures := newFailures()
	endpoints, err := newEndpoints(config, failures)
	if err != nil {
		return nil, err
	}
	return &Client{endpoints: endpoints, pageSize: signaturesPerPage, failures: failures, disagreements: newDisagreements()}, nil
}

// Compares reports whether there are two endpoints or more, whose answers are compared.
func (c *Client) Compares() bool { return len(c.endpoints) > 1 }

// Close closes idle connections.
func (c *Client) Close() error {
	var failed error
	for _, e := range c.endpoints {
		failed = errors.Join(failed, e.rpc.Close())
	}
	return failed
}

// GenesisHash names the cluster.
func (c *Client) GenesisHash(ctx context.Context) (Hash, error) {
	return first(ctx, c, func(e *endpoint) (Hash, error) { return e.rpc.GetGenesisHash(ctx) })
}

// Slot returns the newest slot at a commitment.
func (c *Client) Slot(ctx context.Context, commitment Commitment) (Slot, error) {
	return first(ctx, c, func(e *endpoint) (Slot, error) {
		slot, err := e.rpc.GetSlot(ctx, rpc.CommitmentType(commitment))
		return Slot(slot), err
	})
}

func (e *endpoint) finalizedSlot(ctx context.Context) (Slot, error) {
	slot, err := e.rpc.GetSlot(ctx, rpc.CommitmentFinalized)
	return Slot(slot), err
}

// BlockHeight returns how many blocks there are at a commitment.
func (c *Client) BlockHeight(ctx context.Context, commitment Commitment) (Height, error) {
	return first(ctx, c, func(e *endpoint) (Height, error) {
		height, err := e.rpc.GetBlockHeight(ctx, rpc.CommitmentType(commitment))
		return Height(height), err
	})
}

// LatestBlockhash returns a blockhash at a commitment and the last block height at which a transaction that names it can land.
func (c *Client) LatestBlockhash(ctx context.Context, commitment Commitment) (Hash, Height, error) {
	result, err := first(ctx, c, func(e *endpoint) (*rpc.GetLatestBlockhashResult, error) {
		return e.rpc.GetLatestBlockhash(ctx, rpc.CommitmentType(commitment))
	})
	if err != nil {
		return Hash{}, 0, err
	}
	return result.Value.Blockhash, Height(result.Value.LastValidBlockHeight), nil
}

// RentExempt returns the lamports that an account of size bytes must hold. The cluster changes it: ask each time.
func (c *Client) RentExempt(ctx context.Context, size uint64) (uint64, error) {
	return first(ctx, c, func(e *endpoint) (uint64, error) {
		return e.rpc.GetMinimumBalanceForRentExemption(ctx, size, rpc.CommitmentFinalized)
	})
}

// Lamports returns an address's SOL at finalized, 0 if there is no such account.
func (c *Client) Lamports(ctx context.Context, address Address) (uint64, error) {
	ask := func(ctx context.Context, e *endpoint, _ Slot) (uint64, Slot, error) {
		result, err := e.rpc.GetBalance(ctx, address, rpc.CommitmentFinalized)
		if err != nil {
			return 0, 0, err
		}
		return result.Value, Slot(result.Context.Slot), nil
	}
	lamports, _, err := agree(ctx, c, 0, ask, func(a, b uint64) string {
		if a != b {
			return "the balance of " + address.String()
		}
		return ""
	})
	return lamports, err
}

// Accounts reads accounts at one commitment from states not older than minSlot; each says which slot it is from. A missing account
// is nil in its place. A call reads 100 at a time, and some calls run at once. What is read at finalized, two endpoints must agree on.
func (c *Client) Accounts(ctx context.Context, commitment Commitment, minSlot Slot, addresses ...Address) ([]*Account, error) {
	accounts := make([]*Account, len(addresses))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(fetchers)
	for begin := 0; begin < len(addresses); begin += maxAccountsPerRead {
		end := min(begin+maxAccountsPerRead, len(addresses))
		group.Go(func() error {
			part, err := c.accounts(groupCtx, commitment, minSlot, addresses[begin:end])
			copy(accounts[begin:], part)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return accounts, nil
}

// accounts is Accounts for what one call reads.
func (c *Client) accounts(ctx context.Context, commitment Commitment, minSlot Slot, addresses []Address) ([]*Account, error) {
	ask := func(ctx context.Context, e *endpoint, minSlot Slot) ([]*Account, Slot, error) {
		return e.accounts(ctx, commitment, minSlot, addresses)
	}
	if commitment != Finalized {
		minSlot = max(minSlot, c.seenSlot())
		return first(ctx, c, func(e *endpoint) ([]*Account, error) {
			accounts, _, err := ask(ctx, e, minSlot)
			return accounts, err
		})
	}
	if !c.Compares() || len(addresses) == 1 {
		accounts, _, err := agree(ctx, c, minSlot, ask, differentAccount(addresses))
		return accounts, err
	}
	return c.accountsOneByOne(ctx, minSlot, addresses, ask)
}

// accountsOneByOne compares two answers account by account. Of many accounts some always change between two readings; those alone
// are asked for anew.
func (c *Client) accountsOneByOne(ctx context.Context, minSlot Slot, addresses []Address,
	ask func(ctx context.Context, e *endpoint, minSlot Slot) ([]*Account, Slot, error),
) ([]*Account, error) {
	older, newer, err := freshPair(ctx, c, minSlot, ask)
	if err != nil {
		return nil, err
	}
	accounts := newer.value
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(fetchers)
	for i, address := range addresses {
		if sameAccount(older.value[i], accounts[i]) {
			continue
		}
		group.Go(func() error {
			again, err := c.accounts(groupCtx, Finalized, newer.slot, []Address{address})
			if err == nil {
				accounts[i] = again[0]
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	c.saw(older.slot, newer.slot)
	return accounts, nil
}

func (e *endpoint) accounts(ctx context.Context, commitment Commitment, minSlot Slot, addresses []Address) ([]*Account, Slot, error) {
	result, err := e.rpc.GetMultipleAccountsWithOpts(ctx, addresses, &rpc.GetMultipleAccountsOpts{
		Encoding: solana.EncodingBase64, Commitment: rpc.CommitmentType(commitment), MinContextSlot: slotOption(minSlot),
	})
	if err != nil {
		return nil, 0, err
	}
	if len(result.Value) != len(addresses) {
		return nil, 0, fmt.Errorf("getMultipleAccounts: asked for %d accounts, got %d", len(addresses), len(result.Value))
	}
	accounts := make([]*Account, len(addresses))
	for i, value := range result.Value {
		accounts[i] = accountOf(addresses[i], value, result.Context.Slot)
	}
	return accounts, Slot(result.Context.Slot), nil
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

// TokenAccounts lists a wallet's token accounts at finalized: of any mint and of both token programs. Two endpoints must agree on which
// accounts there are; what they hold is the newer answer's word, which is enough to know what to look at. More than can be read is
// ErrTooLong: anybody can open accounts for a wallet.
func (c *Client) TokenAccounts(ctx context.Context, owner Address) ([]TokenAccount, error) {
	var all []TokenAccount
	for _, program := range []Address{TokenProgram, Token2022Program} {
		ask := func(ctx context.Context, e *endpoint, minSlot Slot) ([]TokenAccount, Slot, error) {
			return e.tokenAccounts(ctx, owner, ofProgram(program), minSlot)
		}
		accounts, _, err := agree(ctx, c, 0, ask, func(a, b []TokenAccount) string {
			if !sameHoldings(a, b) {
				return "the token accounts of " + owner.String()
			}
			return ""
		})
		if err != nil {
			return nil, err
		}
		if len(all)+len(accounts) > maxTokenAccounts {
			return nil, fmt.Errorf("wallet %s has more than %d token accounts: %w", owner, maxTokenAccounts, ErrTooLong)
		}
		all = append(all, accounts...)
	}
	return all, nil
}

func ofProgram(program Address) *rpc.GetTokenAccountsConfig {
	return &rpc.GetTokenAccountsConfig{ProgramId: &program}
}

func ofMint(mint Address) *rpc.GetTokenAccountsConfig {
	return &rpc.GetTokenAccountsConfig{Mint: &mint}
}

func (e *endpoint) tokenAccounts(ctx context.Context, owner Address, which *rpc.GetTokenAccountsConfig, minSlot Slot) ([]TokenAccount, Slot, error) {
	result, err := e.rpc.GetTokenAccountsByOwner(ctx, owner, which, &rpc.GetTokenAccountsOpts{
		Commitment: rpc.CommitmentFinalized, Encoding: solana.EncodingBase64, MinContextSlot: slotOption(minSlot),
	})
	if err != nil {
		return nil, 0, err
	}
	accounts := make([]TokenAccount, len(result.Value))
	for i, value := range result.Value {
		if accounts[i], err = DecodeTokenAccount(accountOf(value.Pubkey, &value.Account, result.Context.Slot)); err != nil {
			return nil, 0, err
		}
	}
	slices.SortFunc(accounts, func(a, b TokenAccount) int { return bytes.Compare(a.Address[:], b.Address[:]) })
	return accounts, Slot(result.Context.Slot), nil
}

// sameTokenAccounts compares lists in the order of addresses, whatever slots they are from.
func sameTokenAccounts(a, b []TokenAccount) bool {
	return slices.EqualFunc(a, b, func(a, b TokenAccount) bool {
		a.Slot = b.Slot
		return a == b
	})
}

// Mint describes a token at finalized.
func (c *Client) Mint(ctx context.Context, mint Address) (Mint, error) {
	account, err := c.Account(ctx, Finalized, 0, mint)
	if err != nil {
		return Mint{}, err
	}
	if described := mintOf(account); described != nil {
		return *described, nil
	}
	return Mint{}, fmt.Errorf("account %s is not an initialized mint of a token program", mint)
}

// mintOf reads a mint, nil if the account is none.
func mintOf(account *Account) *Mint {
	if account == nil || !isTokenProgram(account.Owner) || len(account.Data) < mintSize || account.Data[45] != 1 {
		return nil
	}
	return &Mint{
		Address: account.Address, Program: account.Owner, Supply: binary.LittleEndian.Uint64(account.Data[36:]),
		Decimals: int(account.Data[44]), Extensions: extensionsOf(account.Data),
	}
}

// Nonce reads a durable nonce account.
func (c *Client) Nonce(ctx context.Context, commitment Commitment, minSlot Slot, address Address) (Nonce, error) {
	account, err := c.Account(ctx, commitment, minSlot, address)
	if err != nil {
		return Nonce{}, err
	}
	return decodeNonce(account)
}

// Nonces reads many durable nonce accounts in few calls. What is no initialized nonce is absent from the answer.
func (c *Client) Nonces(ctx context.Context, commitment Commitment, minSlot Slot, addresses ...Address) (map[Address]Nonce, error) {
	accounts, err := c.Accounts(ctx, commitment, minSlot, addresses...)
	if err != nil {
		return nil, err
	}
	nonces := make(map[Address]Nonce, len(accounts))
	for _, account := range accounts {
		if account == nil {
			continue
		}
		if nonce, err := decodeNonce(account); err == nil {
			nonces[account.Address] = nonce
		}
	}
	return nonces, nil
}

func decodeNonce(account *Account) (Nonce, error) {
	versions, err := solana.DecodeNonceVersions(account.Data)
	if err != nil || account.Owner != solana.SystemProgramID || !versions.State.IsInitialized() ||
		versions.Version != solana.NonceVersionCurrent {
		return Nonce{}, fmt.Errorf("account %s is not an initialized durable nonce", account.Address)
	}
	data := versions.State.Data
	return Nonce{Authority: data.Authority, Value: data.Blockhash(), Slot: account.Slot}, nil
}

// Simulate runs a transaction without its signatures being checked, against a state not older than minSlot. A lifetime that is
// a nonce is used as it stands.
func (c *Client) Simulate(ctx context.Context, commitment Commitment, minSlot Slot, wire []byte) (Simulation, error) {
	minSlot = max(minSlot, c.seenSlot())
	result, err := first(ctx, c, func(e *endpoint) (*rpc.SimulateTransactionResponse, error) {
		result, err := e.rpc.SimulateRawTransactionWithOpts(ctx, wire, &rpc.SimulateTransactionOpts{
			Commitment: rpc.CommitmentType(commitment), MinContextSlot: slotOption(minSlot),
		})
		if err == nil && (result == nil || result.Value == nil) {
			err = fmt.Errorf("simulateTransaction: %w: empty answer", ErrUnavailable)
		}
		return result, err
	})
	if err != nil {
		return Simulation{}, err
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

// Send hands signed bytes to every endpoint once, without a trial run: a transaction that would fail must land and consume its
// nonce, so that its end is known. Endpoints are told not to rebroadcast; the caller does. It succeeds when one endpoint takes
// the bytes, and then gives the others a moment. An error does not mean that the bytes were not accepted.
func (c *Client) Send(ctx context.Context, wire []byte) (Signature, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sent := make(chan answer[Signature], len(c.endpoints))
	for _, e := range c.endpoints {
		go func() {
			var none uint
			signature, err := e.rpc.SendRawTransactionWithOpts(ctx, wire, rpc.TransactionOpts{SkipPreflight: true, MaxRetries: &none})
			sent <- answer[Signature]{from: e, value: signature, err: err}
		}()
	}
	var grace <-chan time.Time
	var accepted *answer[Signature]
	var failed error
	for range c.endpoints {
		select {
		case got := <-sent:
			switch {
			case got.err != nil:
				failed = errors.Join(failed, got.err)
			case accepted == nil:
				accepted = &got
				grace = time.After(sendGrace)
			case got.value != accepted.value:
				return Signature{}, c.disagree("the signature of what was sent", accepted.from, got.from)
			}
		case <-grace:
			return accepted.value, nil
		}
	}
	if accepted == nil {
		return Signature{}, failed
	}
	return accepted.value, nil
}

// Airdrop asks a development cluster for SOL. Public clusters refuse it.
func (c *Client) Airdrop(ctx context.Context, address Address, lamports uint64) (Signature, error) {
	return c.endpoints[0].rpc.RequestAirdrop(ctx, address, lamports, rpc.CommitmentConfirmed)
}

// DecodeTokenAccount reads an account of a token program.
func DecodeTokenAccount(account *Account) (TokenAccount, error) {
	data := account.Data
	if !isTokenProgram(account.Owner) || len(data) < tokenAccountSize || data[accountStateOffset] == accountStateNothing ||
		(len(data) > tokenAccountSize && data[accountTypeOffset] != accountTypeAccount) {
		return TokenAccount{}, fmt.Errorf("account %s is not an initialized token account", account.Address)
	}
	token := TokenAccount{
		Address: account.Address, Mint: Address(data[0:32]), Owner: Address(data[32:64]), Program: account.Owner,
		Amount: binary.LittleEndian.Uint64(data[64:72]), Frozen: data[accountStateOffset] == accountStateFrozen,
		Delegate: option(data[delegateOffset:]), CloseAuthority: option(data[closeAuthorityOffset:]), Slot: account.Slot,
	}
	if !token.Delegate.IsZero() {
		token.Delegated = binary.LittleEndian.Uint64(data[delegatedOffset:])
	}
	return token, nil
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
