package sweeps

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/signer"
)

// Defaults and bounds.
const (
	DefaultPoll        = time.Second
	DefaultPlanEvery   = 15 * time.Second
	DefaultRebroadcast = 3 * time.Second
	DefaultFreezeAfter = time.Minute
	MaxLive            = 4  // sweeps at once, so that payouts find nonces
	maxSources         = 32 // looked at in one pass, so that accounts that cannot be swept do not keep the others from it
	stepTimeout        = 30 * time.Second
	retryAfter         = time.Hour // of an account whose sweep failed or was refused
	historyDepth       = 1_000
	maxReason          = 500
	priorityFee        = 800 // lamports, also bounded by the signer's policy
)

// The states.
const (
	StatePlanned   = "planned"
	StateSigned    = "signed"
	StateFinalized = "finalized"
	StateFailed    = "failed"
	StateFrozen    = "frozen"
)

// KindSweep is the kind of the ledger's entry: chain_deposits -> chain_treasury.
const KindSweep = "sweep"

// Chain is what sweeps need of the cluster; *chain.Client is one.
type Chain interface {
	TokenBalance(ctx context.Context, tokenAccount chain.Address, minSlot chain.Slot) (chain.Balance, error)
	Nonce(ctx context.Context, commitment chain.Commitment, minSlot chain.Slot, account chain.Address) (chain.Nonce, error)
	Simulate(ctx context.Context, commitment chain.Commitment, minSlot chain.Slot, wire []byte) (chain.Simulation, error)
	Send(ctx context.Context, wire []byte) (chain.Signature, error)
	Finalized(ctx context.Context, signatures ...chain.Signature) (map[chain.Signature]string, error)
	SignaturesFor(ctx context.Context, address chain.Address, minSlot chain.Slot, limit int) ([]chain.SignatureInfo, error)
	Transaction(ctx context.Context, signature chain.Signature) (*chain.Transaction, error)
}

// Signer has the keys; *signer.Client is one.
type Signer interface {
	Addresses(ctx context.Context) (signer.Addresses, error)
	Sweep(ctx context.Context, message []byte, sweep signer.Sweep) ([2]solana.Signature, error)
}

// Ledger is what sweeps need of the books; *ledger.Ledger is one.
type Ledger interface {
	Currency() money.Currency
	Post(ctx context.Context, tx pgx.Tx, entry ledger.Entry) (ids.Entry, error)
}

// Options are the settings of sweeps. Zero values mean the defaults; Minimum has none.
type Options struct {
	Minimum     money.Amount // less stays in the deposit account
	Poll        time.Duration
	PlanEvery   time.Duration
	Rebroadcast time.Duration
	FreezeAfter time.Duration // how long a consumed nonce may lack its transaction in the endpoint's history
	Log         *slog.Logger

	// Failpoint is called at each of Steps, in tests only: its error stops the service as a kill would. May be nil.
	Failpoint func(step string) error
}

// Service plans and drives sweeps. Make it with New; it is safe for concurrent use.
type Service struct {
	pool    *pgxpool.Pool
	ledger  Ledger
	chain   Chain
	signer  Signer
	options Options
	log     *slog.Logger
}

// New makes a service. The error is about the options.
func New(pool *pgxpool.Pool, book Ledger, cluster Chain, keys Signer, options Options) (*Service, error) {
	if options.Minimum <= 0 {
		return nil, errors.New("sweeps need a positive minimum")
	}
	for field, fallback := range map[*time.Duration]time.Duration{
		&options.Poll: DefaultPoll, &options.PlanEvery: DefaultPlanEvery, &options.Rebroadcast: DefaultRebroadcast, &options.FreezeAfter: DefaultFreezeAfter,
	} {
		if *field == 0 {
			*field = fallback
		}
	}
	return &Service{pool: pool, ledger: book, chain: cluster, signer: keys, options: options, log: options.Log}, nil
}

// Run plans and drives sweeps, as the settlement leader of a term, until ctx ends or the term has passed. Failures are logged and
// tried again, so the error is nil unless Options.Failpoint stops it.
func (s *Service) Run(ctx context.Context, term int64) error {
	ticker := time.NewTicker(s.options.Poll)
	defer ticker.Stop()
	var planned time.Time
	for {
		var err error
		if time.Since(planned) >= s.options.PlanEvery {
			planned = time.Now()
			err = s.plan(ctx, term)
		}
		if !killed(err) {
			err = errors.Join(err, s.drive(ctx, term))
		}
		switch {
		case killed(err):
			return err
		case ctx.Err() != nil:
			return nil
		case leader.TermPassed(err):
			s.log.WarnContext(ctx, "stop sweeping deposits: another process leads", "term", term)
			return nil
		case err != nil:
			s.log.ErrorContext(ctx, "sweep deposits", "error", err, "alarm", chain.IsAlarm(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// errMoved says that another process has moved the sweep on meanwhile.
var errMoved = errors.New("the sweep has moved on")

// step moves a sweep on from the state that it was loaded in, in one transaction with what else it writes.
func (s *Service) step(ctx context.Context, term int64, w *work, write func(tx pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := leader.Assert(ctx, tx, leader.RoleSettlement, term); err != nil {
			return err
		}
		var state string
		if err := tx.QueryRow(ctx, `SELECT state FROM deposit_sweeps WHERE id = $1 FOR UPDATE`, w.id).Scan(&state); err != nil {
			return err
		}
		if state != w.state {
			return errMoved
		}
		return write(tx)
	})
	if err != nil {
		return fmt.Errorf("move it on: %w", err)
	}
	return nil
}
