package deposits

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
)

const (
	// DefaultInterval is how often the chain is asked, woken or not.
	DefaultInterval = 2 * time.Second

	maxForeign    = 100 // accounts of foreign tokens that are followed of one wallet: anybody can open more
	discoverEvery = 10  // polls between looking for token accounts that others opened for our wallets
	pollTimeout   = 2 * time.Minute
	pollers       = 8
	namesPerMint  = 4 // characters of a foreign mint's address that stand for its symbol
)

// Chain is what deposits need of the chain; *chain.Client is one.
type Chain interface {
	Movements(ctx context.Context, tokenAccount chain.Address, since chain.Cursor) ([]chain.Movement, error)
	TokenAccounts(ctx context.Context, owner chain.Address) ([]chain.TokenAccount, error)
	TokenAccountsOf(ctx context.Context, owner, mint chain.Address) ([]chain.TokenAccount, chain.Slot, error)
	Mints(ctx context.Context, mints ...chain.Address) (map[chain.Address]chain.Mint, error)
	Mint(ctx context.Context, mint chain.Address) (chain.Mint, error)
	Wakeups(ctx context.Context, accounts []chain.Address) <-chan struct{}
}

// AddressSource gives each organisation a wallet, always the same; the signer is one.
type AddressSource interface {
	DepositAddress(ctx context.Context, org ids.Org) (chain.Address, error)
}

// Config says what is watched.
type Config struct {
	TokenProgram chain.Address // of the platform's mint
	Treasury     chain.Address // the treasury's wallet
	Minimum      money.Amount  // less is dust
	Interval     time.Duration
	Refunds      Refunds // nil: nothing can be refunded
}

// MinimumOf is the usual minimum of a currency: a hundredth of a token, or one base unit.
func MinimumOf(c money.Currency) money.Amount {
	minimum := money.Amount(1)
	for range c.Decimals - 2 {
		minimum *= 10
	}
	return minimum
}

// Service watches the chain for one currency. Make it with New; it is safe for concurrent use.
type Service struct {
	pool    *pgxpool.Pool
	ledger  *ledger.Ledger
	chain   Chain
	source  AddressSource
	config  Config
	log     *slog.Logger
	mint    chain.Address
	account chain.Address          // the treasury's token account of the mint
	judged  atomic.Pointer[string] // why arrivals of the mint are not credited, empty if they are; nil before the mint was looked at

	arrivals *prometheus.CounterVec
}

// New makes a service. The error is about the configuration.
func New(pool *pgxpool.Pool, book *ledger.Ledger, client Chain, source AddressSource, config Config, log *slog.Logger) (*Service, error) {
	mint, err := chain.ParseAddress(book.Currency().Mint)
	if err != nil {
		return nil, err
	}
	if config.Minimum <= 0 || config.Interval <= 0 {
		return nil, errors.New("deposits need a positive minimum and a positive interval")
	}
	account, err := chain.AssociatedTokenAccount(config.Treasury, mint, config.TokenProgram)
	if err != nil {
		return nil, err
	}
	return &Service{
		pool: pool, ledger: book, chain: client, source: source, config: config, log: log, mint: mint, account: account, arrivals: newArrivals(),
	}, nil
}

// Minimum is the least that is credited; less is dust.
func (s *Service) Minimum() money.Amount { return s.config.Minimum }

// Address is where an organisation sends tokens to.
type Address struct {
	Wallet       string
	TokenAccount string // the wallet's own for the platform's mint
}

// Address returns an organisation's deposit address, and on the first call assigns it and begins to watch it.
func (s *Service) Address(ctx context.Context, org ids.Org) (Address, error) {
	var a Address
	err := s.pool.QueryRow(ctx, `SELECT wallet, token_account FROM deposit_addresses WHERE org_id = $1`, org).Scan(&a.Wallet, &a.TokenAccount)
	if err == nil || !errors.Is(err, pgx.ErrNoRows) {
		return a, err
	}
	wallet, err := s.source.DepositAddress(ctx, org)
	if err != nil {
		return Address{}, fmt.Errorf("derive deposit address: %w", err)
	}
	account, err := chain.AssociatedTokenAccount(wallet, s.mint, s.config.TokenProgram)
	if err != nil {
		return Address{}, err
	}
	a = Address{Wallet: wallet.String(), TokenAccount: account.String()}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO deposit_addresses (org_id, wallet, token_account) VALUES ($1, $2, $3) ON CONFLICT (org_id) DO NOTHING`,
			org, a.Wallet, a.TokenAccount)
		if err != nil {
			return fmt.Errorf("assign deposit address: %w", err)
		}
		return watch(ctx, tx, watched{account: account, wallet: wallet, org: org, mint: s.mint, program: s.config.TokenProgram, decimals: s.ledger.Currency().Decimals})
	})
	return a, err
}

// Run polls, as the settlement leader of a term, until ctx ends or the term has passed. Failures are logged and the next poll
// tries again, so the error is always nil; it is there for leader.Elector.
func (s *Service) Run(ctx context.Context, term int64) error {
	fence := fence{term: term}
	ticker := time.NewTicker(s.config.Interval)
	defer ticker.Stop()
	bell := newBell(s.chain)
	defer bell.stop()
	for round := 0; ; round++ {
		accounts, err := s.poll(ctx, fence, round%discoverEvery == 0)
		switch {
		case ctx.Err() != nil:
			return nil
		case leader.TermPassed(err):
			s.log.WarnContext(ctx, "stop watching deposits: another process leads", "term", term)
			return nil
		case err != nil:
			s.log.ErrorContext(ctx, "watch deposits", "error", err, "alarm", chain.IsAlarm(err))
		}
		bell.watch(ctx, accounts)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-bell.rings():
		}
	}
}

// Poll reads everything that is final now, on any process.
func (s *Service) Poll(ctx context.Context) error {
	_, err := s.poll(ctx, fence{}, true)
	return err
}

// fence keeps a former leader from writing; the zero fence lets everybody.
type fence struct{ term int64 }

func (f fence) check(ctx context.Context, tx pgx.Tx) error {
	if f.term == 0 {
		return nil
	}
	return leader.Assert(ctx, tx, leader.RoleSettlement, f.term)
}
