package sweeps

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/signer"
	"github.com/muster-gpu/muster/settlement/txn"
)

const uniqueViolation = "23505"

// Budgets of a trial run and of the message that follows it.
const (
	trialUnits    = 1_400_000
	trialLoaded   = 64 << 20
	spareUnits    = 1_000
	minLoadedData = 2 << 20
)

// source is a deposit token account that is worth a sweep.
type source struct {
	org     ids.Org
	wallet  chain.Address
	account chain.Address
	amount  money.Amount
}

// plan makes sweeps of what is worth one, as far as there are free nonces.
func (s *Service) plan(ctx context.Context, term int64) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	room, err := s.room(ctx)
	if err != nil || room <= 0 {
		return err
	}
	sources, err := s.sources(ctx)
	if err != nil || len(sources) == 0 {
		return err
	}
	keys, err := s.signer.Addresses(ctx)
	if err != nil {
		return fmt.Errorf("ask the signer for its addresses: %w", err)
	}
	treasury, err := txn.New(txn.Keys{
		Treasury: keys.Treasury, TokenAccount: keys.TreasuryTokenAccount, Mint: keys.Mint, TokenProgram: keys.TokenProgram, Decimals: keys.Decimals,
	}, nil)
	if err != nil {
		return err
	}
	var failed error
	for _, from := range sources {
		if room == 0 {
			break
		}
		from.amount = min(from.amount, money.Amount(min(keys.MaxBaseUnitsPerSweep, math.MaxInt64)))
		nonce, found, err := s.freeNonce(ctx, keys)
		if err != nil {
			return errors.Join(failed, err)
		}
		if !found {
			break // payouts have them all: later
		}
		err = s.planOne(ctx, term, treasury, keys, from, nonce)
		if killed(err) {
			return err
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("plan a sweep of %s: %w", from.account, err))
			continue
		}
		room--
	}
	return failed
}

// room is how many more sweeps may live.
func (s *Service) room(ctx context.Context) (int, error) {
	var live int
	err := s.pool.QueryRow(ctx, `SELECT count(*) FROM deposit_sweeps WHERE state IN ('planned', 'signed')`).Scan(&live)
	if err != nil {
		return 0, fmt.Errorf("count live sweeps: %w", err)
	}
	return MaxLive - live, nil
}

// sources are the deposit accounts with most in them, by the ledger, that have no live sweep and none that has just failed.
func (s *Service) sources(ctx context.Context) ([]source, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT a.org_id, d.wallet, d.token_account, a.balance
		FROM ledger_accounts a JOIN deposit_addresses d ON d.org_id = a.org_id
		WHERE a.kind = $1 AND a.mint = $2 AND a.balance >= $3
		  AND NOT EXISTS (SELECT 1 FROM deposit_sweeps s WHERE s.token_account = d.token_account
		      AND (s.state IN ('planned', 'signed', 'frozen') OR (s.state = 'failed' AND s.ended_at > now() - $5::interval)))
		ORDER BY a.balance DESC, a.org_id
		LIMIT $4`, ledger.ChainDeposits, s.ledger.Currency().Mint, s.options.Minimum, maxSources, retryAfter)
	if err != nil {
		return nil, fmt.Errorf("look for deposits to sweep: %w", err)
	}
	sources, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (from source, err error) {
		var wallet, account string
		if err := row.Scan(&from.org, &wallet, &account, &from.amount); err != nil {
			return from, err
		}
		if from.wallet, err = chain.ParseAddress(wallet); err != nil {
			return from, err
		}
		from.account, err = chain.ParseAddress(account)
		return from, err
	})
	if err != nil {
		return nil, fmt.Errorf("look for deposits to sweep: %w", err)
	}
	return sources, nil
}

// freeNonce takes from the end of the policy's list; payouts take from its beginning.
func (s *Service) freeNonce(ctx context.Context, keys signer.Addresses) (nonce txn.Nonce, found bool, err error) {
	rows, err := s.pool.Query(ctx, `
		SELECT nonce_account FROM payout_batches WHERE state NOT IN ('finalized', 'failed', 'cancelled')
		UNION SELECT nonce_account FROM deposit_sweeps WHERE state IN ('planned', 'signed', 'frozen')`)
	if err != nil {
		return nonce, false, fmt.Errorf("read held nonces: %w", err)
	}
	held, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nonce, false, fmt.Errorf("read held nonces: %w", err)
	}
	for _, account := range slices.Backward(keys.Nonces) {
		if slices.Contains(held, account.String()) {
			continue
		}
		now, err := s.chain.Nonce(ctx, chain.Finalized, 0, account)
		if err != nil || now.Authority != keys.Treasury {
			s.log.WarnContext(ctx, "nonce cannot be used", "nonce_account", account, "authority", now.Authority, "error", err)
			continue
		}
		return txn.Nonce{Account: account, Value: now.Value}, true, nil
	}
	return nonce, false, nil
}

// planOne stores a sweep whose message would succeed now.
func (s *Service) planOne(ctx context.Context, term int64, treasury *txn.Treasury, keys signer.Addresses, from source, nonce txn.Nonce) error {
	live, err := s.chain.TokenBalance(ctx, from.account, 0)
	if err != nil {
		return err
	}
	if live.Amount < uint64(from.amount) {
		return fmt.Errorf("the ledger says that it has %d base units, the chain %d: reconcile", from.amount, live.Amount)
	}
	id := ids.New[ids.Sweep]()
	message, err := s.message(ctx, treasury, &txn.Sweep{
		Nonce: nonce, Wallet: from.wallet, Source: from.account, Amount: uint64(from.amount), Memo: id.String(),
		Budget: txn.Budget{Units: trialUnits, LoadedData: trialLoaded, PriorityFee: min(priorityFee, keys.MaxPriorityFee)},
	})
	if err != nil {
		return err
	}
	if err := s.failpoint(stepTried); err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := leader.Assert(ctx, tx, leader.RoleSettlement, term); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			INSERT INTO deposit_sweeps (id, org_id, token_account, mint, amount, nonce_account, nonce_value, message)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			id, from.org, from.account.String(), s.ledger.Currency().Mint, from.amount, nonce.Account.String(), nonce.Value.String(), message)
		return err
	})
	if isUniqueViolation(err) {
		return nil // payouts were faster with the nonce, or another process with the account: later
	}
	if err != nil {
		return err
	}
	s.log.InfoContext(ctx, "sweep planned", "sweep_id", id, "org_id", from.org, "amount", from.amount)
	return s.failpoint(stepPlanned)
}

// message tries a sweep and lays it out with the budget that it needs, in the newest format that the chain accepts.
func (s *Service) message(ctx context.Context, treasury *txn.Treasury, sweep *txn.Sweep) ([]byte, error) {
	var refused error
	for _, format := range []txn.Format{txn.V1, txn.Legacy} {
		trial, err := s.try(ctx, treasury, format, sweep)
		if err != nil {
			refused = errors.Join(refused, fmt.Errorf("%s: %w", format, err))
			continue
		}
		sweep.Budget.Units = uint32(min(trial.Units+trial.Units/5+spareUnits, trialUnits))
		sweep.Budget.LoadedData = min(max(trial.LoadedDataSize+trial.LoadedDataSize/5, minLoadedData), trialLoaded)
		return treasury.Sweep(format, sweep)
	}
	return nil, refused
}

func (s *Service) try(ctx context.Context, treasury *txn.Treasury, format txn.Format, sweep *txn.Sweep) (chain.Simulation, error) {
	message, err := treasury.Sweep(format, sweep)
	if err != nil {
		return chain.Simulation{}, err
	}
	wire, err := txn.Unsigned(message)
	if err != nil {
		return chain.Simulation{}, err
	}
	trial, err := s.chain.Simulate(ctx, chain.Confirmed, 0, wire)
	if err != nil {
		return chain.Simulation{}, fmt.Errorf("try the sweep: %w", err)
	}
	if trial.Err != "" {
		return chain.Simulation{}, fmt.Errorf("the sweep would fail on the chain now: %s", trial.Err)
	}
	return trial, nil
}

func isUniqueViolation(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == uniqueViolation
}
