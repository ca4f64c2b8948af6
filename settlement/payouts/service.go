package payouts

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/signer"
)

// ErrDeposed means that another process leads settlement now.
var ErrDeposed = errors.New("the settlement lead's term has passed")

// Chain is what payouts need of the cluster. *chain.Client is one.
type Chain interface {
	Accounts(ctx context.Context, commitment chain.Commitment, minSlot chain.Slot, addresses ...chain.Address) ([]*chain.Account, error)
	TokenBalance(ctx context.Context, tokenAccount chain.Address, minSlot chain.Slot) (chain.Balance, error)
	Nonce(ctx context.Context, commitment chain.Commitment, minSlot chain.Slot, account chain.Address) (chain.Nonce, error)
	Simulate(ctx context.Context, commitment chain.Commitment, minSlot chain.Slot, wire []byte) (chain.Simulation, error)
	Send(ctx context.Context, wire []byte) (chain.Signature, error)
	Finalized(ctx context.Context, signatures ...chain.Signature) (map[chain.Signature]string, error)
	SignaturesFor(ctx context.Context, address chain.Address, minSlot chain.Slot, limit int) ([]chain.SignatureInfo, error)
	Transaction(ctx context.Context, signature chain.Signature) (*chain.Transaction, error)
	PriorityFees(ctx context.Context, accounts ...chain.Address) ([]uint64, error)
}

// Signer holds the treasury's key. *signer.Client is one.
type Signer interface {
	Addresses(ctx context.Context) (signer.Addresses, error)
	SignAll(ctx context.Context, orders []signer.Order) ([]signer.Answer, error)
	Cancel(ctx context.Context, message []byte, batch ids.Batch) (chain.Signature, error)
}

// Manifests says what each batch pays for. Package proof has one.
type Manifests interface {
	// Seal stores the manifest of a batch whose payouts and ledger entry are in tx, and returns the memo of its transaction.
	Seal(ctx context.Context, tx pgx.Tx, batch ids.Batch) (memo string, err error)
}

// Ledger is what payouts need of the books. *ledger.Ledger is one.
type Ledger interface {
	Currency() money.Currency
	Post(ctx context.Context, tx pgx.Tx, entry ledger.Entry) (ids.Entry, error)
	PostAll(ctx context.Context, tx pgx.Tx, entries []ledger.Entry) ([]ids.Entry, error)
}

// Defaults and bounds.
const (
	DefaultMinimum        money.Amount = 1_000_000 // 1 USDC: below it fees and rent weigh too much
	DefaultPriorityFee    uint64       = 800       // lamports a transaction, also when the chain is idle
	DefaultMaxPriorityFee uint64       = 100_000   // lamports a transaction, however busy the chain is
	DefaultFewNonces                   = 1
	DefaultConcurrency                 = 16
	DefaultRebroadcast                 = 3 * time.Second
	DefaultPoll                        = 500 * time.Millisecond
	DefaultRetry                       = 10 * time.Second
	DefaultFreezeAfter                 = time.Minute
	MaxPayees                          = 56 // a version 1 transaction lists at most 64 accounts
	MaxNewAccounts                     = 8  // token accounts that one transaction creates
	MaxBatchesPerRound                 = 2_048
	MaxConcurrency                     = 256
	stepTimeout                        = 30 * time.Second
	claimTime                          = 2 * stepTimeout // a step ends long before another worker may take the batch
	historyDepth                       = 1_000           // signatures of a nonce account that are searched for the one that consumed it
	maxCandidates                      = MaxBatchesPerRound * MaxPayees
	maxPayableShown                    = 3_584
	draftLock                          = 7_283_004 // advisory lock under which obstacles are noted
	maxReason                          = 500
)

// Options are the settings of payouts. Zero values mean the defaults.
type Options struct {
	Minimum        money.Amount  // smaller balances wait
	DualAbove      money.Amount  // batches of more need two approvers beside the drafter; zero: never
	PriorityFee    uint64        // the least, in lamports
	MaxPriorityFee uint64        // the most, also bounded by the signer's policy
	FewNonces      int           // fewer free ones than this are warned of
	Concurrency    int           // of how many batches the chain is asked at the same time by each part of the worker
	Rebroadcast    time.Duration // between two sendings of the same bytes
	Poll           time.Duration // how often the worker looks for due batches
	Retry          time.Duration // how long a batch waits after a step that could not be done
	FreezeAfter    time.Duration // how long a consumed nonce may lack its transaction in the endpoint's history
	SelfApproval   bool          // who drafted a batch may approve it: for local networks, where one person is everybody
	Manifests      Manifests     // nil: the memo is the batch's id alone
	Wake           <-chan string // signals that a batch may be due; may be nil
	Log            *slog.Logger

	// Failpoint is called at each of Steps, in tests only: its error stops the worker as a kill would. May be nil.
	Failpoint func(step string) error
}

// Service drafts, approves, pays and shows batches. It is safe for concurrent use, in any number of processes.
type Service struct {
	pool    *pgxpool.Pool
	ledger  Ledger
	chain   Chain
	signer  Signer
	options Options
	log     *slog.Logger
	self    uuid.UUID // names this process in claims

	failpoint func(step string) error // Options.Failpoint, never nil

	formats formats
	budgets budgets
	layout  layout
	recent  recent
	fees    fees
}

// New makes a service.
func New(pool *pgxpool.Pool, book Ledger, cluster Chain, keys Signer, options Options) *Service {
	setDefault(&options.Minimum, DefaultMinimum)
	setDefault(&options.PriorityFee, DefaultPriorityFee)
	setDefault(&options.MaxPriorityFee, DefaultMaxPriorityFee)
	setDefault(&options.FewNonces, DefaultFewNonces)
	setDefault(&options.Concurrency, DefaultConcurrency)
	options.Concurrency = min(options.Concurrency, MaxConcurrency)
	setDefault(&options.Rebroadcast, DefaultRebroadcast)
	setDefault(&options.Poll, DefaultPoll)
	setDefault(&options.Retry, DefaultRetry)
	setDefault(&options.FreezeAfter, DefaultFreezeAfter)
	if options.Failpoint == nil {
		options.Failpoint = func(string) error { return nil }
	}
	return &Service{
		pool: pool, ledger: book, chain: cluster, signer: keys, options: options, log: options.Log, self: uuid.New(),
		failpoint: options.Failpoint,
	}
}

func setDefault[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}
