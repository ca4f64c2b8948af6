package payouts

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
)

// The states of nonces.
const (
	nonceFree     = "free"
	nonceHeld     = "held"
	nonceUnusable = "unusable"
)

const (
	nonceInterval = time.Minute // between two looks at the pool while nothing is drafted
	maxNonces     = 65_536      // shown
	spendingDays  = 30

	fewLamports    = 100_000_000 // a fee payer with less is warned of: about 49 new token accounts
	lamportsPerSOL = 1_000_000_000
)

// NoncePool is the durable nonces of the signer's policy as they were last seen. Each live batch holds one.
type NoncePool struct {
	Free, Held, Unusable int
	Rent                 int64  // lamports on the nonce accounts
	Warning              string // what is wrong with the pool and what to do, empty if nothing is
	Nonces               []Nonce
}

// FeePayer is the treasury's wallet, which pays in SOL for every transaction and for the token accounts that they make.
type FeePayer struct {
	Address  string // empty while the signer does not answer
	Lamports *int64 // nil while the signer or the chain does not answer
	Days     int    // that Fees and Rent cover
	Fees     int64  // paid for payouts and cancellations
	Rent     int64  // paid for token accounts of payees
	Warning  string // empty if it has enough
}

// Nonce is one durable nonce account.
type Nonce struct {
	Account   string
	State     string
	Batch     ids.Batch // that holds it; zero: none, or a sweep of a deposit does
	Value     string
	Problem   string // why it cannot be used
	CheckedAt *time.Time
}

// heldNonce is true of the batches that hold a nonce, and heldBySweep of the sweeps of deposits. A frozen one does until a person has
// decided.
const (
	heldNonce   = `state IN ('draft', 'approved', 'signed', 'sent', 'cancelling', 'frozen')`
	heldBySweep = `state IN ('planned', 'signed', 'frozen')`
)

// Nonces shows the pool.
func (s *Service) Nonces(ctx context.Context) (NoncePool, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT n.account, CASE WHEN b.id IS NOT NULL OR s.id IS NOT NULL THEN 'held' WHEN n.problem <> '' THEN 'unusable' ELSE 'free' END,
		       b.id, n.value, n.problem, n.checked_at
		FROM payout_nonces n LEFT JOIN payout_batches b ON b.nonce_account = n.account AND b.`+heldNonce+`
		LEFT JOIN deposit_sweeps s ON s.nonce_account = n.account AND s.`+heldBySweep+`
		ORDER BY n.account LIMIT $1`, maxNonces)
	if err != nil {
		return NoncePool{}, fmt.Errorf("read nonces: %w", err)
	}
	var pool NoncePool
	if pool.Nonces, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Nonce]); err != nil {
		return NoncePool{}, fmt.Errorf("read nonces: %w", err)
	}
	for _, n := range pool.Nonces {
		switch n.State {
		case nonceFree:
			pool.Free++
		case nonceHeld:
			pool.Held++
		case nonceUnusable:
			pool.Unusable++
		}
	}
	if err := s.pool.QueryRow(ctx, `SELECT coalesce(sum(lamports), 0)::bigint FROM payout_nonces`).Scan(&pool.Rent); err != nil {
		return NoncePool{}, fmt.Errorf("read nonces: %w", err)
	}
	pool.Warning = s.poolWarning(pool.Free, pool.Held, pool.Unusable)
	return pool, nil
}

// FeePayer shows what the fee payer has and has spent.
func (s *Service) FeePayer(ctx context.Context) (FeePayer, error) {
	payer := FeePayer{Days: spendingDays}
	err := s.pool.QueryRow(ctx, `
		SELECT coalesce(sum(fee), 0)::bigint, coalesce(sum(rent), 0)::bigint FROM (
			SELECT t.fee_lamports AS fee, t.rent_lamports AS rent FROM payout_transactions t WHERE t.first_sent_at > now() - make_interval(days => $1)
			UNION ALL SELECT c.fee_lamports, 0 FROM payout_cancellations c WHERE c.first_sent_at > now() - make_interval(days => $1)) spent`, spendingDays).
		Scan(&payer.Fees, &payer.Rent)
	if err != nil {
		return FeePayer{}, fmt.Errorf("read what was spent on fees: %w", err)
	}
	keys, err := s.signer.Addresses(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "fee payer is not known", "error", err)
		return payer, nil
	}
	payer.Address = keys.Treasury.String()
	accounts, err := s.chain.Accounts(ctx, chain.Finalized, 0, keys.Treasury)
	if err != nil || len(accounts) != 1 {
		s.log.WarnContext(ctx, "fee payer's balance is not known", "error", err)
		return payer, nil
	}
	var lamports int64
	if accounts[0] != nil {
		lamports = int64(min(accounts[0].Lamports, math.MaxInt64))
	}
	payer.Lamports, payer.Warning = &lamports, feeWarning(lamports)
	return payer, nil
}

func feeWarning(lamports int64) string {
	if lamports >= fewLamports {
		return ""
	}
	return fmt.Sprintf("the treasury's wallet has %.4f SOL left for fees and token accounts: send it some, or payouts stop", float64(lamports)/lamportsPerSOL)
}

func (s *Service) poolWarning(free, held, unusable int) string {
	switch {
	case unusable > 0:
		return fmt.Sprintf("%d of the policy's nonces cannot be used: look at each one's problem", unusable)
	case free+held > 0 && free < s.options.FewNonces:
		return fmt.Sprintf("%d nonces are free and %d are held by batches that have not ended: finish those, or make more and add them to the signer's policy", free, held)
	default:
		return ""
	}
}

// watchNonces refreshes the pool from the chain, and warns.
func (s *Service) watchNonces(ctx context.Context) error {
	keys, err := s.signer.Addresses(ctx)
	if err != nil {
		return err
	}
	if _, err := s.freeNonces(ctx, keys); err != nil {
		return err
	}
	pool, err := s.Nonces(ctx)
	if err == nil && pool.Warning != "" {
		s.log.WarnContext(ctx, "nonce pool", "warning", pool.Warning, "free", pool.Free, "held", pool.Held, "unusable", pool.Unusable)
	}
	return err
}

// freeNonces reads the nonces that no live batch holds and whose present value was never pinned, and notes the state of all.
func (s *Service) freeNonces(ctx context.Context, keys signer.Addresses) ([]pin, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT nonce_account FROM payout_batches WHERE `+heldNonce+`
		UNION SELECT nonce_account FROM deposit_sweeps WHERE state IN ('planned', 'signed', 'frozen')`)
	if err != nil {
		return nil, fmt.Errorf("read held nonces: %w", err)
	}
	held := map[string]bool{}
	var account string
	if _, err = pgx.ForEachRow(rows, []any{&account}, func() error {
		held[account] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read held nonces: %w", err)
	}
	seen, err := s.readNonces(ctx, keys.Nonces)
	if err != nil {
		return nil, err
	}
	var pins []pin
	for i := range seen {
		n := &seen[i]
		if n.problem == "" && n.authority != keys.Treasury {
			n.problem = fmt.Sprintf("its authority is %s, not the treasury", n.authority)
		}
		if n.problem != "" {
			s.log.WarnContext(ctx, "nonce cannot be used", "nonce_account", n.account, "problem", n.problem)
		} else if !held[n.account.String()] {
			pins = append(pins, pin{account: n.account, value: n.value})
		}
	}
	return s.unpinned(ctx, pins, seen)
}

// unpinned keeps the pins whose value no batch has had, and notes what was seen.
func (s *Service) unpinned(ctx context.Context, pins []pin, seen []seenNonce) ([]pin, error) {
	n := len(seen)
	accounts, values, problems, lamports := make([]string, n), make([]string, n), make([]string, n), make([]int64, n)
	for i, one := range seen {
		accounts[i], problems[i], lamports[i] = one.account.String(), one.problem, int64(one.lamports)
		if one.problem == "" {
			values[i] = one.value.String()
		}
	}
	rows, err := s.pool.Query(ctx, `
		WITH n AS (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS n (account, value, problem, lamports)),
		gone AS (DELETE FROM payout_nonces WHERE account <> ALL ($1)),
		noted AS (
			INSERT INTO payout_nonces (account, value, problem, lamports) SELECT account, value, problem, lamports FROM n ORDER BY account
			ON CONFLICT (account) DO UPDATE SET value = EXCLUDED.value, problem = EXCLUDED.problem, lamports = EXCLUDED.lamports, checked_at = now())
		SELECT b.nonce_account, b.nonce_value FROM n JOIN payout_batches b ON b.nonce_account = n.account AND b.nonce_value = n.value
		WHERE b.state <> 'cancelled' OR b.voided_by IS NOT NULL
		UNION ALL
		SELECT s.nonce_account, s.nonce_value FROM n JOIN deposit_sweeps s ON s.nonce_account = n.account AND s.nonce_value = n.value
		WHERE s.signature IS NOT NULL`, accounts, values, problems, lamports)
	if err != nil {
		return nil, fmt.Errorf("note nonces: %w", err)
	}
	used := map[[2]string]bool{}
	var pair [2]string
	if _, err = pgx.ForEachRow(rows, []any{&pair[0], &pair[1]}, func() error {
		used[pair] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("note nonces: %w", err)
	}
	var free []pin
	for _, p := range pins {
		if !used[[2]string{p.account.String(), p.value.String()}] {
			free = append(free, p)
		}
	}
	return free, nil
}

// seenNonce is a nonce account as the chain has it.
type seenNonce struct {
	account   chain.Address
	authority chain.Address
	value     chain.Hash
	lamports  uint64
	slot      chain.Slot
	problem   string
}

// readNonces reads many nonce accounts at finalized, in their order.
func (s *Service) readNonces(ctx context.Context, addresses []chain.Address) ([]seenNonce, error) {
	accounts, err := s.accounts(ctx, chain.Finalized, addresses)
	if err != nil {
		return nil, fmt.Errorf("read nonces: %w", err)
	}
	seen := make([]seenNonce, len(accounts))
	for i, account := range accounts {
		seen[i] = decodeNonce(addresses[i], account)
	}
	return seen, nil
}

func decodeNonce(address chain.Address, account *chain.Account) seenNonce {
	if account == nil {
		return seenNonce{account: address, problem: "there is no such account"}
	}
	versions, err := solana.DecodeNonceVersions(account.Data)
	if err != nil || account.Owner != solana.SystemProgramID || !versions.State.IsInitialized() || versions.Version != solana.NonceVersionCurrent {
		return seenNonce{account: address, lamports: account.Lamports, problem: "the account is no initialized durable nonce"}
	}
	data := versions.State.Data
	return seenNonce{account: address, authority: data.Authority, value: data.Blockhash(), lamports: account.Lamports, slot: account.Slot}
}
