package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/soljournal"
)

const (
	// DefaultInterval is how often a run is made by the clock.
	DefaultInterval = time.Hour

	runTimeout   = 5 * time.Minute
	storeTimeout = 10 * time.Second
	// MaxDifferences bounds what one run stores; the count tells of the rest.
	MaxDifferences = 10_000
)

// Chain is what reconciliation needs of the chain; *chain.Client is one.
type Chain interface {
	Movements(ctx context.Context, tokenAccount chain.Address, since chain.Cursor) ([]chain.Movement, error)
	Walk(ctx context.Context, tokenAccount chain.Address, span chain.Span, visit func(chain.Movement) error) error
	TokenBalance(ctx context.Context, tokenAccount chain.Address, minSlot chain.Slot) (chain.Balance, error)
	Slot(ctx context.Context, commitment chain.Commitment) (chain.Slot, error)
	Transaction(ctx context.Context, signature chain.Signature) (*chain.Transaction, error)
}

// Journal keeps the journal of the treasury wallet's SOL; *soljournal.Service does.
type Journal interface {
	Advance(ctx context.Context, fully bool) (soljournal.State, error)
}

// Config says what is compared.
type Config struct {
	Treasury chain.Address                   // the treasury's token account
	SOL      Journal                         // nil: SOL is not looked at
	Wallet   chain.Address                   // the treasury's
	Tokens   Tokens                          // nil: token accounts beside the mirrored ones are not looked for
	CatchUp  func(ctx context.Context) error // records what arrived meanwhile: deposits.Service.Poll
	Interval time.Duration
}

// Service compares the accounts of one currency. Make it with New; it is safe for concurrent use.
type Service struct {
	pool   *pgxpool.Pool
	ledger *ledger.Ledger
	chain  Chain
	config Config
	log    *slog.Logger
}

// New makes a service.
func New(pool *pgxpool.Pool, book *ledger.Ledger, client Chain, config Config, log *slog.Logger) *Service {
	return &Service{pool: pool, ledger: book, chain: client, config: config, log: log}
}

// Run reconciles every interval until ctx ends. The error is always nil; it is there for leader.Elector. The term is not needed:
// a run writes nothing but its own result, and the schema lets one go at a time.
func (s *Service) Run(ctx context.Context, _ int64) error {
	ticker := time.NewTicker(s.config.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		result, err := s.Reconcile(ctx, ids.User{})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.ErrorContext(ctx, "reconcile", "error", err)
		case result.State != StateClean:
			s.log.ErrorContext(ctx, "reconciliation is not clean", "reconciliation_id", result.ID, "state", result.State,
				"differences", result.DifferenceCount, "reason", result.Reason)
		}
	}
}

// Reconcile makes a run and returns its stored result, whether it is clean, shows differences, or failed to read the chain. It goes
// on from what runs before found equal. The user may be zero.
func (s *Service) Reconcile(ctx context.Context, by ids.User) (Reconciliation, error) {
	return s.run(ctx, by, false)
}

// ReconcileFully is Reconcile from every account's first transaction on.
func (s *Service) ReconcileFully(ctx context.Context, by ids.User) (Reconciliation, error) {
	return s.run(ctx, by, true)
}

func (s *Service) run(ctx context.Context, by ids.User, fully bool) (Reconciliation, error) {
	id, err := s.begin(ctx, by)
	if err != nil {
		return Reconciliation{}, err
	}
	runCtx, cancel := context.WithTimeoutCause(ctx, runTimeout, errors.New("it took longer than "+runTimeout.String()))
	found, err := s.compareAll(runCtx, fully)
	if err != nil && runCtx.Err() != nil {
		err = context.Cause(runCtx)
	}
	cancel()
	// The result is stored even if the caller has gone, so that no run stays open.
	storeCtx, cancelStore := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancelStore()
	if err != nil {
		s.log.ErrorContext(ctx, "reconciliation failed", "reconciliation_id", id, "error", err, "alarm", chain.IsAlarm(err))
		err = s.fail(storeCtx, id, err)
	} else {
		err = s.finish(storeCtx, id, found)
	}
	if err != nil {
		return Reconciliation{}, err
	}
	return s.Get(storeCtx, id)
}

// account is a ledger account and the token account that it mirrors.
type account struct {
	ledger.Account
	name         string
	tokenAccount chain.Address
}

// outcome is one account's part of a run.
type outcome struct {
	account
	walk
	comparison
	ledgerClosing money.Amount
	seq           int64 // of the last transfer that was compared
	later         bool  // the ledger knows more than the walk
}

// cursor is where the next walk may go on, if this one was clean.
func (o outcome) cursor() cursor {
	return cursor{
		slot: o.lastSlot, signature: o.last.signature, balance: o.balance, seq: o.seq, ledgerBalance: o.ledgerClosing, totalIn: o.totalIn,
		totalOut: o.totalOut, transactions: o.transactions(), matched: o.allMatched(), fees: o.fees,
	}
}

func (o outcome) transactions() int { return o.from.transactions + len(o.movements) }

func (o outcome) allMatched() int { return o.from.matched + o.matched }

// clean reports whether both sides are wholly equal, so that nothing before has to be looked at again.
func (o outcome) clean() bool {
	return o.waiting == 0 && len(o.differences) == 0 && !o.later && o.last.signature != "" && o.balance == o.ledgerClosing
}

// findings are what a run has found.
type findings struct {
	accounts []outcome
	wallet   *soljournal.State // nil if SOL is not looked at, or could not be
	failed   error             // why SOL could not be; what else was found holds all the same
	survey   *Survey           // nil if there was none
	holdings []difference      // of token accounts that the ledger does not mirror
}

// differences are all that a run has found.
func (f findings) differences() []difference {
	var all []difference
	for _, o := range f.accounts {
		all = append(all, o.differences...)
	}
	all = append(all, f.holdings...)
	if f.wallet == nil {
		return all
	}
	for _, d := range f.wallet.Differences {
		all = append(all, difference{
			class: d.Class, mint: soljournal.Currency.Mint, account: f.wallet.Wallet, signature: d.Signature, ledger: d.Noted, chain: d.Chain, at: d.At, text: d.Text,
		})
	}
	return all
}

func (s *Service) compareAll(ctx context.Context, fully bool) (found findings, err error) {
	var seen survey
	if s.config.Tokens != nil { // first, so that what is there is in the ledger when that is read
		if seen, err = s.survey(ctx, fully); err != nil {
			return found, err
		}
	}
	if found.accounts, err = s.compareAccounts(ctx, fully); err != nil {
		return found, err
	}
	if s.config.Tokens != nil {
		var how Survey
		if found.holdings, how, err = s.noteHoldings(ctx, seen); err != nil {
			return found, err
		}
		found.survey = &how
	}
	if s.config.SOL == nil {
		return found, nil
	}
	wallet, err := s.config.SOL.Advance(ctx, fully)
	if err != nil {
		found.failed = cmp.Or(context.Cause(ctx), err)
		s.log.ErrorContext(ctx, "the SOL journal could not be brought up to date", "error", err, "alarm", chain.IsAlarm(err))
		return found, nil
	}
	found.wallet = &wallet
	return found, nil
}

func (s *Service) compareAccounts(ctx context.Context, fully bool) ([]outcome, error) {
	accounts, err := s.accounts(ctx)
	if err != nil {
		return nil, err
	}
	cursors := map[string]cursor{}
	if !fully {
		if cursors, err = s.cursors(ctx); err != nil {
			return nil, err
		}
	}
	outcomes := make([]outcome, len(accounts))
	for i, a := range accounts {
		outcomes[i].account = a
		if outcomes[i].walk, err = s.walkAccount(ctx, a.tokenAccount, cursors[a.tokenAccount.String()]); err != nil {
			return nil, err
		}
	}
	if err := s.config.CatchUp(ctx); err != nil {
		return nil, fmt.Errorf("record what arrived meanwhile: %w", err)
	}
	if err := s.ledger.Check(ctx, s.pool); err != nil {
		return nil, err
	}
	unresolved, batches, err := s.unresolved(ctx)
	if err != nil {
		return nil, err
	}
	for i := range outcomes {
		if err := s.match(ctx, &outcomes[i], unresolved); err != nil {
			return nil, err
		}
	}
	outcomes[0].differences = append(outcomes[0].differences, batches...) // the treasury's, which is the first
	return outcomes, nil
}

// match compares one account's walk with the ledger.
func (s *Service) match(ctx context.Context, o *outcome, unresolved map[string]bool) error {
	m := merge{account: o.tokenAccount.String(), moves: o.movements, unresolved: unresolved}
	o.ledgerClosing, o.seq = o.from.ledgerBalance, o.from.seq
	err := s.entries(ctx, o.Account, o.from.seq, func(e booked) {
		o.ledgerClosing += e.amount
		o.seq = max(o.seq, e.seq)
		m.take(e)
	})
	if err != nil {
		return err
	}
	o.comparison = m.end()
	o.differences = append(o.differences, o.gaps...)
	for _, e := range o.unmatched {
		if err := s.judge(ctx, o, e); err != nil {
			return err
		}
	}
	return nil
}

// judge says what an entry is that the walk did not come to: one of a transaction that an entry before the cursor records already, one
// that is beyond the walk's end, or one that the chain has not.
func (s *Service) judge(ctx context.Context, o *outcome, e booked) error {
	first, err := s.recordedBefore(ctx, o.Account, e.signature, o.from.seq)
	if err != nil {
		return err
	}
	if first != "" {
		o.differences = append(o.differences, duplicate(o.tokenAccount.String(), first, e))
		return nil
	}
	later, err := s.isLater(ctx, e, o.slot)
	if err != nil {
		return err
	}
	if later {
		o.later = true
		return nil
	}
	o.differences = append(o.differences, ledgerOnly(o.tokenAccount.String(), e))
	return nil
}

// isLater reports whether an entry's transaction is beyond the walk's end.
func (s *Service) isLater(ctx context.Context, e booked, end chain.Slot) (bool, error) {
	signature, err := parseSignature(e.signature)
	if err != nil {
		return false, nil //nolint:nilerr // what is no signature is on no chain
	}
	transaction, err := s.chain.Transaction(ctx, signature)
	if errors.Is(err, chain.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for transaction %s: %w", e.signature, err)
	}
	return transaction.Slot > end, nil
}
