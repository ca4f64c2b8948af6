package close

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/soljournal"
	"github.com/muster-gpu/muster/settlement/statements"
)

// The columns that accounting tools read.
var (
	cryptioColumns = []string{
		"transactionDate", "orderType", "txhash", "incomingAsset", "incomingVolume", "incomingUnitRate", "incomingTransactionValue",
		"outgoingAsset", "outgoingVolume", "outgoingUnitRate", "outgoingTransactionValue", "feeAsset", "feeVolume", "feeUnitRate",
		"feeTransactionValue", "otherParties", "note",
	}
	quickBooksColumns = []string{"JournalNo", "JournalDate", "AccountName", "Debits", "Credits", "Description", "Name"}
	xeroColumns       = []string{"Narration", "Date", "Description", "AccountCode", "TaxRate", "Amount"}
)

const (
	cryptioTime    = "2006-01-02 15:04:05"
	quickBooksDate = "01/02/2006"
	xeroDate       = "02/01/2006"
	xeroTaxRate    = "Tax Exempt"
)

// chart names the ledger's kinds of account as a chart of accounts does.
var chart = map[string]struct{ name, code string }{
	"chain_treasury":     {"Tokens in the treasury", "1010"},
	"chain_deposits":     {"Tokens in deposit accounts", "1020"},
	"chain_suspense":     {"Tokens in suspense", "1030"},
	"customer_available": {"Customer balances", "2010"},
	"customer_held":      {"Customer balances held", "2020"},
	"owner_payable":      {"Payable to owners", "2110"},
	"payout_in_flight":   {"Payouts in flight", "2120"},
	"suspense":           {"Suspense", "2900"},
	"platform_capital":   {"Platform capital", "3010"},
	"platform_fees":      {"Platform fees", "4010"},
}

// chartOf is a kind's place in the chart, the ledger's or that of SOL; one that is in neither goes under its own name.
func chartOf(kind string) (name, code string) {
	if place, known := chart[kind]; known {
		return place.name, place.code
	}
	if place, known := solChart[kind]; known {
		return place.name, place.code
	}
	return kind, kind
}

// table writes rows of text. Whatever people may have written is to pass statements.Cell first.
type table struct{ *csv.Writer }

func newTable(w io.Writer, columns []string) (table, error) {
	t := table{csv.NewWriter(w)}
	err := t.Write(columns)
	return t, err
}

func (t table) end(err error) error {
	t.Flush()
	if err == nil {
		err = t.Error()
	}
	return err
}

// Cryptio writes a month's movements of tokens over the platform's border in Cryptio's columns: a row for each ledger entry that changed
// what the platform holds on the chain, and one for each line of the SOL journal that is not a fee. A transaction's fee is on its first
// row; that of a transaction without any has a row of its own.
func (s *Service) Cryptio(ctx context.Context, w io.Writer, month Month) error {
	rows, err := s.pool.Query(ctx, `
		WITH moved AS (
			SELECT e.id, e.posted_at, coalesce(e.signature, '') AS signature, e.kind, e.memo,
			       sum(CASE WHEN ledger_is_asset(d.kind) THEN t.amount ELSE 0 END - CASE WHEN ledger_is_asset(c.kind) THEN t.amount ELSE 0 END)::bigint AS amount,
			       coalesce(string_agg(DISTINCT o.name, '; ' ORDER BY o.name), '') AS parties
			FROM ledger_transfers t JOIN ledger_entries e ON e.id = t.entry_id
			JOIN ledger_accounts d ON d.id = t.debit_account JOIN ledger_accounts c ON c.id = t.credit_account
			LEFT JOIN organisations o ON o.id IN (d.org_id, c.org_id)
			WHERE t.mint = $1 AND t.posted_at >= $2 AND t.posted_at < $3
			  AND ledger_is_asset(d.kind) <> ledger_is_asset(c.kind)
			GROUP BY e.id
		), sol AS (
			SELECT t.at, t.signature, l.kind, l.ordinal, l.other, l.lamports, l.kind IN ('base_fee', 'priority_fee') AS fee
			FROM sol_lines l JOIN sol_transactions t ON t.wallet = l.wallet AND t.seq = l.seq
		), fees AS (
			SELECT signature, min(at) AS at, -sum(lamports)::bigint AS lamports FROM sol WHERE fee GROUP BY signature
		), tokens AS (
			SELECT m.posted_at AS at, m.signature, m.kind, m.memo, m.amount, m.parties, CASE WHEN m.signature <> ''
			       AND row_number() OVER (PARTITION BY m.signature ORDER BY m.id) = 1 THEN coalesce(f.lamports, b.fee_lamports) END AS fee, false AS sol
			FROM moved m LEFT JOIN fees f ON f.signature = m.signature LEFT JOIN payout_transactions b ON b.signature = m.signature WHERE m.amount <> 0
		)
		SELECT * FROM tokens
		UNION ALL
		SELECT at, signature, kind, '', lamports, other, NULL, true FROM sol WHERE NOT fee AND at >= $2 AND at < $3
		UNION ALL
		SELECT f.at, f.signature, 'network_fee', '', 0, '', f.lamports, true FROM fees f WHERE f.at >= $2 AND f.at < $3
			AND NOT EXISTS (SELECT 1 FROM ledger_entries e JOIN ledger_transfers t ON t.entry_id = e.id
				JOIN ledger_accounts d ON d.id = t.debit_account JOIN ledger_accounts c ON c.id = t.credit_account
				WHERE e.signature = f.signature AND t.mint = $1 AND ledger_is_asset(d.kind) <> ledger_is_asset(c.kind))
		ORDER BY at, signature, sol, kind`,
		s.options.Currency.Mint, month.Time, month.end())
	if err != nil {
		return fmt.Errorf("read the movements of %s: %w", month, err)
	}
	t, err := newTable(w, cryptioColumns)
	if err != nil {
		rows.Close()
		return err
	}
	var m movement
	_, err = pgx.ForEachRow(rows, []any{&m.at, &m.signature, &m.kind, &m.memo, &m.amount, &m.parties, &m.fee, &m.sol}, func() error {
		return t.Write(m.cryptio(s.options.Currency))
	})
	return t.end(err)
}

// movement is a change of what the platform holds on the chain.
type movement struct {
	at                             time.Time
	signature, kind, memo, parties string
	amount                         money.Amount
	fee                            *int64 // lamports
	sol                            bool   // the amount is SOL
}

func (m movement) cryptio(currency money.Currency) []string {
	row := make([]string, len(cryptioColumns))
	row[0], row[1], row[2] = m.at.UTC().Format(cryptioTime), "deposit", statements.Cell(m.signature)
	if m.sol {
		currency = soljournal.Currency
	}
	asset, volume := 3, m.amount
	if m.amount < 0 || (m.amount == 0 && m.fee != nil) {
		row[1], asset, volume = "withdraw", 7, -m.amount
	}
	row[asset], row[asset+1] = statements.Cell(currency.Symbol), currency.Format(volume)
	if m.fee != nil {
		row[11], row[12] = soljournal.Currency.Symbol, soljournal.Currency.Format(money.Amount(*m.fee))
	}
	row[15], row[16] = statements.Cell(m.parties), statements.Cell(describe(m.kind, m.memo))
	return row
}

func describe(kind, memo string) string {
	if memo == "" {
		return kind
	}
	return kind + ": " + memo
}

// posting is one side of a transfer.
type posting struct {
	entry   string
	at      time.Time
	kind    string // of the entry
	memo    string
	account string
	party   string
	debit   bool
	amount  money.Amount
}

// journal visits both sides of each of a month's transfers, in the order of posting.
func (s *Service) journal(ctx context.Context, month Month, visit func(posting) error) error {
	rows, err := s.pool.Query(ctx, `
		SELECT e.id::text, t.posted_at, e.kind, e.memo, a.kind, coalesce(o.name, ''), side.debit, t.amount
		FROM ledger_transfers t JOIN ledger_entries e ON e.id = t.entry_id
		CROSS JOIN LATERAL (VALUES (true, t.debit_account), (false, t.credit_account)) AS side (debit, account)
		JOIN ledger_accounts a ON a.id = side.account LEFT JOIN organisations o ON o.id = a.org_id
		WHERE t.mint = $1 AND t.posted_at >= $2 AND t.posted_at < $3
		ORDER BY t.posted_at, e.id, t.ordinal, side.debit DESC`, s.options.Currency.Mint, month.Time, month.end())
	if err != nil {
		return fmt.Errorf("read the journal of %s: %w", month, err)
	}
	var p posting
	_, err = pgx.ForEachRow(rows, []any{&p.entry, &p.at, &p.kind, &p.memo, &p.account, &p.party, &p.debit, &p.amount}, func() error { return visit(p) })
	return err
}

// QuickBooks writes a month's journal in QuickBooks' columns.
func (s *Service) QuickBooks(ctx context.Context, w io.Writer, month Month) error {
	t, err := newTable(w, quickBooksColumns)
	if err != nil {
		return err
	}
	return t.end(s.journal(ctx, month, func(p posting) error { return t.Write(p.quickBooks(s.options.Currency)) }))
}

func (p posting) quickBooks(currency money.Currency) []string {
	name, _ := chartOf(p.account)
	debit, credit := currency.Format(p.amount), ""
	if !p.debit {
		debit, credit = credit, debit
	}
	return []string{p.entry, p.at.UTC().Format(quickBooksDate), name, debit, credit, statements.Cell(describe(p.kind, p.memo)), statements.Cell(p.party)}
}

// Xero writes a month's journal in Xero's columns: debits are positive, credits negative.
func (s *Service) Xero(ctx context.Context, w io.Writer, month Month) error {
	t, err := newTable(w, xeroColumns)
	if err != nil {
		return err
	}
	return t.end(s.journal(ctx, month, func(p posting) error { return t.Write(p.xero(s.options.Currency)) }))
}

func (p posting) xero(currency money.Currency) []string {
	_, code := chartOf(p.account)
	amount := p.amount
	if !p.debit {
		amount = -amount
	}
	return []string{
		p.entry, p.at.UTC().Format(xeroDate), statements.Cell(describe(p.kind, p.memo)), code, xeroTaxRate, currency.Format(amount),
	}
}
