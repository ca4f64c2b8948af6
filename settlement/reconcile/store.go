package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/soljournal"
)

// The states of a run.
const (
	StateRunning     = "running"
	StateClean       = "clean"
	StateDifferences = "differences"
	StateBehind      = "behind" // all else was compared, but the SOL journal has not come to the present yet
	StateFailed      = "failed"
)

// MaxPage bounds a page of runs.
const MaxPage = 200

// Reconciliation is a stored run. Lists leave out Accounts and Differences.
type Reconciliation struct {
	ID              ids.Reconciliation
	State           string
	Reason          string // why it failed or is behind
	RequestedBy     ids.User
	Slot            int64
	Matched         int
	DifferenceCount int
	StartedAt       time.Time
	FinishedAt      *time.Time
	Accounts        []Account
	Wallets         []Wallet
	Survey          *Survey // of token accounts beside the mirrored ones; nil if there was none
	Differences     []Difference
}

// Wallet is a wallet's part of a run: its SOL, in lamports.
type Wallet struct {
	Address      string
	Name         string
	Lamports     money.Amount // live
	Journal      money.Amount // that the journal's newest transaction left
	Transactions int64        // in the journal
	Continuous   bool         // the journal leads to the live balance without a gap
	Slot         int64
	Behind       bool // the history was not read to its end yet
}

// Account is one token account's part of a run.
type Account struct {
	TokenAccount  string
	Name          string // treasury, or whose deposit account
	Opening       money.Amount
	In, Out       money.Amount
	ChainClosing  money.Amount
	LedgerClosing money.Amount
	Transactions  int
	Matched       int
	Continuous    bool
	FeeLamports   int64 // of the transactions that moved tokens out, or tried to; rent and top-ups are not among them
	Slot          int64
}

// Difference is one disagreement. Amounts are signed: negative left the account.
type Difference struct {
	Class        string
	Mint         string // of the amounts: SOL's differences count lamports
	TokenAccount string
	Signature    string
	Ledger       *money.Amount
	Chain        *money.Amount
	At           time.Time
	Age          time.Duration // until the run
	Text         string
}

// begin opens a run. One that a crash left open is closed as failed once it must be over.
func (s *Service) begin(ctx context.Context, by ids.User) (ids.Reconciliation, error) {
	id := ids.New[ids.Reconciliation]()
	_, err := s.pool.Exec(ctx, `
		UPDATE reconciliations SET state = 'failed', reason = 'it was interrupted', finished_at = now()
		WHERE state = 'running' AND started_at < now() - $1::interval`, runTimeout+storeTimeout)
	if err != nil {
		return id, fmt.Errorf("close interrupted reconciliations: %w", err)
	}
	_, err = s.pool.Exec(ctx, `INSERT INTO reconciliations (id, requested_by, mint) VALUES ($1, $2, $3)`, id, by, s.ledger.Currency().Mint)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.ConstraintName == "reconciliations_one_running" {
		return id, errs.New(errs.Conflict, "a reconciliation is running already: wait for its result")
	}
	if err != nil {
		return id, fmt.Errorf("begin reconciliation: %w", err)
	}
	return id, nil
}

func (s *Service) fail(ctx context.Context, id ids.Reconciliation, cause error) error {
	_, err := s.pool.Exec(ctx, `UPDATE reconciliations SET state = 'failed', reason = $2, finished_at = now() WHERE id = $1 AND state = 'running'`,
		id, reasonOf(cause))
	if err != nil {
		return fmt.Errorf("store reconciliation: %w", err)
	}
	return nil
}

// reasonOf says why a run could not read something, without internals.
func reasonOf(cause error) string {
	var unsound *ledger.ProblemsError
	switch {
	case errors.As(cause, &unsound):
		return fmt.Sprintf("the ledger does not agree with itself in %d places; the first: %s", len(unsound.Problems), unsound.Problems[0].Text)
	case errors.Is(cause, chain.ErrDisagree):
		return "the RPC endpoints disagree: find out which one is wrong, and replace it"
	case chain.IsAlarm(cause):
		return "the RPC endpoint hides transactions of a newer version: use another endpoint"
	case errors.Is(cause, chain.ErrUnavailable), errors.Is(cause, chain.ErrBehind):
		return "the RPC endpoint does not answer or is behind: try again later"
	case errors.Is(cause, chain.ErrHistoryTooLong):
		return "an account's history is longer than one run reads"
	}
	return "the chain or the ledger could not be read to the end"
}

// verdict is a run's state, and the reason if it needs one.
func (f findings) verdict(count int) (state, reason string) {
	switch {
	case f.failed != nil:
		return StateFailed, "the tokens were compared, but the SOL of the treasury's wallet could not be read: " + reasonOf(f.failed)
	case f.wallet != nil && f.wallet.Behind:
		return StateBehind, fmt.Sprintf("the history of the treasury's wallet is longer than one run reads: its SOL was read up to slot %d, and the next runs go on",
			f.wallet.Slot)
	case count > 0:
		return StateDifferences, ""
	}
	return StateClean, ""
}

func (s *Service) finish(ctx context.Context, id ids.Reconciliation, found findings) error {
	batch := &pgx.Batch{}
	slot, matched := found.accounts[0].slot, 0
	for _, o := range found.accounts {
		slot, matched = min(slot, o.slot), matched+o.allMatched()
		batch.Queue(`
			INSERT INTO reconciliation_accounts (reconciliation_id, token_account, name, opening, total_in, total_out, chain_closing, ledger_closing,
			                                     transactions, matched, continuous, fee_lamports, slot)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
			id, o.tokenAccount.String(), o.name, money.Amount(0), o.totalIn, o.totalOut, o.balance, o.ledgerClosing,
			o.transactions(), o.allMatched(), len(o.gaps) == 0, int64(o.fees), int64(o.slot))
		if o.clean() {
			s.queueCursor(batch, o.tokenAccount, o.cursor())
		}
	}
	if w := found.wallet; w != nil {
		batch.Queue(`
			INSERT INTO reconciliation_wallets (reconciliation_id, wallet, name, lamports, journal_lamports, transactions, continuous, slot, behind)
			VALUES ($1, $2, 'treasury', $3, $4, $5, $6, $7, $8)`, id, w.Wallet, w.Lamports, w.Journal, w.Transactions, w.Continuous, int64(w.Slot), w.Behind)
	}
	if found.survey != nil {
		queueSurvey(batch, id, *found.survey)
	}
	differences := found.differences()
	for _, d := range differences[:min(len(differences), MaxDifferences)] {
		batch.Queue(`
			INSERT INTO reconciliation_differences (reconciliation_id, class, token_account, signature, ledger_amount, chain_amount, occurred_at, explanation, mint)
			VALUES ($1, $2, $3, $4, $5, $6, coalesce($7, now()), $8, $9)`,
			id, d.class, d.account, d.signature, d.ledger, d.chain, timeOf(d.at), d.text, s.mintOf(d))
	}
	count := len(differences)
	state, reason := found.verdict(count)
	batch.Queue(`
		UPDATE reconciliations SET state = $2, slot = $3, matched = $4, difference_count = $5, reason = $6, finished_at = now()
		WHERE id = $1 AND state = 'running'`, id, state, int64(slot), matched, count, reason)
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		return s.updateItems(ctx, tx, id, differences, found.wallet)
	})
	if err != nil {
		return fmt.Errorf("store reconciliation: %w", err)
	}
	return nil
}

// mintOf is whose base units a difference counts.
func (s *Service) mintOf(d difference) string {
	if d.mint != "" {
		return d.mint
	}
	return s.ledger.Currency().Mint
}

// timeOf is a time as a parameter; zero is NULL.
func timeOf(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

// mints are those of whose differences this service knows.
func (s *Service) mints() []string {
	return []string{s.ledger.Currency().Mint, soljournal.Currency.Mint}
}

// accounts are the treasury, first, and every deposit account.
func (s *Service) accounts(ctx context.Context) ([]account, error) {
	accounts := []account{{Account: ledger.Platform(ledger.ChainTreasury), name: "treasury", tokenAccount: s.config.Treasury}}
	rows, err := s.pool.Query(ctx, `
		SELECT d.org_id, d.token_account, o.name FROM deposit_addresses d JOIN organisations o ON o.id = d.org_id ORDER BY o.name, o.id`)
	if err != nil {
		return nil, fmt.Errorf("list deposit accounts: %w", err)
	}
	var org ids.Org
	var text, name string
	_, err = pgx.ForEachRow(rows, []any{&org, &text, &name}, func() error {
		address, err := chain.ParseAddress(text)
		accounts = append(accounts, account{Account: ledger.Of(ledger.ChainDeposits, org), name: "deposits of " + name, tokenAccount: address})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list deposit accounts: %w", err)
	}
	return accounts, nil
}

// ledgerAccount is an account's id, NULL while nobody has posted to it. Its parameters are the first three.
const ledgerAccount = `(SELECT id FROM ledger_accounts WHERE kind = $1 AND org_id IS NOT DISTINCT FROM $2::uuid AND mint = $3)`

// entries visits what the ledger has on an asset account after a place in its history, added up by entry, in the bytewise order of
// their signatures.
func (s *Service) entries(ctx context.Context, a ledger.Account, since int64, visit func(booked)) error {
	rows, err := s.pool.Query(ctx, `
		SELECT e.key, coalesce(e.signature, ''), t.amount, e.posted_at, t.seq
		FROM (SELECT entry_id, sum(amount)::bigint AS amount, max(seq) AS seq
		      FROM (SELECT entry_id, amount, debit_seq AS seq FROM ledger_transfers WHERE debit_account = `+ledgerAccount+` AND debit_seq > $4
		            UNION ALL
		            SELECT entry_id, -amount, credit_seq FROM ledger_transfers WHERE credit_account = `+ledgerAccount+` AND credit_seq > $4) p
		      GROUP BY entry_id) t
		JOIN ledger_entries e ON e.id = t.entry_id
		ORDER BY coalesce(e.signature, '') COLLATE "C", e.id`, a.Kind, a.Org, s.ledger.Currency().Mint, since)
	if err != nil {
		return fmt.Errorf("read ledger entries: %w", err)
	}
	var e booked
	_, err = pgx.ForEachRow(rows, []any{&e.key, &e.signature, &e.amount, &e.at, &e.seq}, func() error {
		visit(e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read ledger entries: %w", err)
	}
	return nil
}

// recordedBefore is the key of an entry that records a transaction at or before a place in an account's history, or nothing.
func (s *Service) recordedBefore(ctx context.Context, a ledger.Account, signature string, seq int64) (key string, err error) {
	if signature == "" || seq == 0 {
		return "", nil
	}
	err = s.pool.QueryRow(ctx, `
		SELECT e.key FROM ledger_entries e JOIN ledger_transfers t ON t.entry_id = e.id
		WHERE e.signature = $4 AND ((t.debit_account = `+ledgerAccount+` AND t.debit_seq <= $5)
		                         OR (t.credit_account = `+ledgerAccount+` AND t.credit_seq <= $5))
		ORDER BY e.id LIMIT 1`, a.Kind, a.Org, s.ledger.Currency().Mint, signature, seq).Scan(&key)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("look for an entry of %s: %w", signature, err)
	}
	return key, nil
}

// cursors are where walks may go on, by token account.
func (s *Service) cursors(ctx context.Context) (map[string]cursor, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT token_account, slot, signature, chain_balance, ledger_seq, ledger_balance, total_in, total_out, transactions, matched, fee_lamports
		FROM reconciliation_cursors WHERE mint = $1`, s.ledger.Currency().Mint)
	if err != nil {
		return nil, fmt.Errorf("read cursors: %w", err)
	}
	cursors := map[string]cursor{}
	var account string
	var slot, fees int64
	var c cursor
	_, err = pgx.ForEachRow(rows, []any{
		&account, &slot, &c.signature, &c.balance, &c.seq, &c.ledgerBalance, &c.totalIn, &c.totalOut, &c.transactions, &c.matched, &fees,
	}, func() error {
		c.slot, c.fees = chain.Slot(slot), uint64(fees)
		cursors[account] = c
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read cursors: %w", err)
	}
	return cursors, nil
}

// queueCursor stores where the next walk of an account goes on.
func (s *Service) queueCursor(batch *pgx.Batch, account chain.Address, c cursor) {
	batch.Queue(`
		INSERT INTO reconciliation_cursors (token_account, mint, slot, signature, chain_balance, ledger_seq, ledger_balance, total_in, total_out,
		                                    transactions, matched, fee_lamports)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (token_account) DO UPDATE SET
			mint = excluded.mint, slot = excluded.slot, signature = excluded.signature, chain_balance = excluded.chain_balance,
			ledger_seq = excluded.ledger_seq, ledger_balance = excluded.ledger_balance, total_in = excluded.total_in,
			total_out = excluded.total_out, transactions = excluded.transactions, matched = excluded.matched,
			fee_lamports = excluded.fee_lamports, verified_at = now()`,
		account.String(), s.ledger.Currency().Mint, int64(c.slot), c.signature, c.balance, c.seq, c.ledgerBalance, c.totalIn, c.totalOut,
		c.transactions, c.matched, int64(c.fees))
}

// unresolved are the signed batches and sweeps whose end is not known: their signatures, and a difference for each batch and each
// frozen sweep. Other sweeps end by themselves, in seconds, and move nobody's balance.
func (s *Service) unresolved(ctx context.Context) (map[string]bool, []difference, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT b.id, b.state, b.nonce_account, b.total, b.signing_started_at, coalesce(t.signature, '')
		FROM payout_batches b LEFT JOIN payout_transactions t ON t.batch_id = b.id
		WHERE b.mint = $1 AND b.signing_started_at IS NOT NULL AND b.state NOT IN ('finalized', 'failed', 'cancelled')
		ORDER BY b.id`, s.ledger.Currency().Mint)
	if err != nil {
		return nil, nil, fmt.Errorf("list unresolved batches: %w", err)
	}
	signatures := map[string]bool{}
	var found []difference
	var id ids.Batch
	var state, nonce, signature string
	var total money.Amount
	var since time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &state, &nonce, &total, &since, &signature}, func() error {
		signatures[signature] = true
		amount := -total
		found = append(found, difference{
			class: UnresolvedNonce, account: s.config.Treasury.String(), signature: signature, ledger: &amount, at: since,
			text: fmt.Sprintf("the batch %s is %s: its nonce %s is not resolved yet", id, state, nonce),
		})
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list unresolved batches: %w", err)
	}
	sweeps, err := s.unresolvedSweeps(ctx, signatures)
	if err != nil {
		return nil, nil, err
	}
	delete(signatures, "")
	return signatures, append(found, sweeps...), nil
}

func (s *Service) unresolvedSweeps(ctx context.Context, signatures map[string]bool) (frozen []difference, err error) {
	rows, err := s.pool.Query(ctx, `
		SELECT id, state, nonce_account, amount, planned_at, coalesce(signature, '')
		FROM deposit_sweeps WHERE mint = $1 AND state IN ('planned', 'signed', 'frozen') ORDER BY id`, s.ledger.Currency().Mint)
	if err != nil {
		return nil, fmt.Errorf("list unresolved sweeps: %w", err)
	}
	var id ids.Sweep
	var state, nonce, signature string
	var amount money.Amount
	var since time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &state, &nonce, &amount, &since, &signature}, func() error {
		signatures[signature] = true
		if state == "frozen" {
			swept := amount
			frozen = append(frozen, difference{
				class: UnresolvedNonce, account: s.config.Treasury.String(), signature: signature, ledger: &swept, at: since,
				text: fmt.Sprintf("the sweep %s is frozen: its nonce %s was consumed by something else", id, nonce),
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list unresolved sweeps: %w", err)
	}
	return frozen, nil
}

const runColumns = `id, state, reason, requested_by, slot, matched, difference_count, started_at, finished_at`

func scanRun(row pgx.CollectableRow) (r Reconciliation, err error) {
	err = row.Scan(&r.ID, &r.State, &r.Reason, &r.RequestedBy, &r.Slot, &r.Matched, &r.DifferenceCount, &r.StartedAt, &r.FinishedAt)
	return r, err
}

// List is a page of runs, newest first: those before a cursor, which may be zero.
func (s *Service) List(ctx context.Context, before ids.Reconciliation, limit int) ([]Reconciliation, error) {
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	rows, err := s.pool.Query(ctx, `
		SELECT `+runColumns+` FROM reconciliations WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2`, before, limit)
	if err != nil {
		return nil, fmt.Errorf("list reconciliations: %w", err)
	}
	runs, err := pgx.CollectRows(rows, scanRun)
	if err != nil {
		return nil, fmt.Errorf("list reconciliations: %w", err)
	}
	return runs, nil
}

// Get is one run with its accounts and differences, or errs.NotFound.
func (s *Service) Get(ctx context.Context, id ids.Reconciliation) (Reconciliation, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+runColumns+` FROM reconciliations WHERE id = $1`, id)
	if err != nil {
		return Reconciliation{}, fmt.Errorf("read reconciliation: %w", err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, scanRun)
	if errors.Is(err, pgx.ErrNoRows) {
		return Reconciliation{}, errs.New(errs.NotFound, "there is no reconciliation %s", id)
	}
	if err != nil {
		return Reconciliation{}, fmt.Errorf("read reconciliation: %w", err)
	}
	rows, err = s.pool.Query(ctx, `
		SELECT token_account, name, opening, total_in, total_out, chain_closing, ledger_closing, transactions, matched, continuous, fee_lamports, slot
		FROM reconciliation_accounts WHERE reconciliation_id = $1 ORDER BY name <> 'treasury', name, token_account`, id)
	if err != nil {
		return Reconciliation{}, fmt.Errorf("read reconciliation: %w", err)
	}
	if r.Accounts, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Account]); err != nil {
		return Reconciliation{}, fmt.Errorf("read reconciliation: %w", err)
	}
	rows, err = s.pool.Query(ctx, `
		SELECT wallet, name, lamports, journal_lamports, transactions, continuous, slot, behind
		FROM reconciliation_wallets WHERE reconciliation_id = $1 ORDER BY wallet`, id)
	if err != nil {
		return Reconciliation{}, fmt.Errorf("read reconciliation: %w", err)
	}
	if r.Wallets, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Wallet]); err != nil {
		return Reconciliation{}, fmt.Errorf("read reconciliation: %w", err)
	}
	if r.Survey, err = s.readSurvey(ctx, id); err != nil {
		return Reconciliation{}, err
	}
	r.Differences, err = s.differences(ctx, r)
	return r, err
}

func (s *Service) differences(ctx context.Context, r Reconciliation) ([]Difference, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT class, coalesce(mint, $2), token_account, signature, ledger_amount, chain_amount, occurred_at, explanation
		FROM reconciliation_differences WHERE reconciliation_id = $1 ORDER BY id`, r.ID, s.ledger.Currency().Mint)
	if err != nil {
		return nil, fmt.Errorf("read differences: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d Difference, err error) {
		err = row.Scan(&d.Class, &d.Mint, &d.TokenAccount, &d.Signature, &d.Ledger, &d.Chain, &d.At, &d.Text)
		d.Age = max(0, r.StartedAt.Sub(d.At))
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("read differences: %w", err)
	}
	return list, nil
}

func parseSignature(text string) (chain.Signature, error) { return solana.SignatureFromBase58(text) }
