package close

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/soljournal"
)

// SOLTotal is a wallet's part of a month in SOL, from its journal. Amounts are lamports. Opening and the kinds add up to Closing.
type SOLTotal struct {
	Wallet       string         `json:"wallet"`
	Opening      money.Amount   `json:"opening,string"`
	Kinds        []SOLKindTotal `json:"kinds"`
	Closing      money.Amount   `json:"closing,string"`
	Transactions int64          `json:"transactions"`
	Failed       int64          `json:"failed"`
}

// SOLKindTotal is the sum of a kind's lines; negative: the wallet has less for it.
type SOLKindTotal struct {
	Kind     string       `json:"kind"`
	Lamports money.Amount `json:"lamports,string"`
}

// sol is what the SOL journal says of a month.
func (s *Service) sol(ctx context.Context, tx pgx.Tx, month Month) ([]SOLTotal, error) {
	wallets, err := soljournal.TotalsOf(ctx, tx, month.Span())
	if err != nil {
		return nil, err
	}
	var totals []SOLTotal
	for _, w := range wallets {
		total := SOLTotal{Wallet: w.Wallet, Opening: w.Opening, Kinds: []SOLKindTotal{}, Closing: w.Closing, Transactions: w.Transactions, Failed: w.Failed}
		for _, k := range w.Kinds {
			total.Kinds = append(total.Kinds, SOLKindTotal{Kind: k.Kind, Lamports: k.Lamports})
		}
		totals = append(totals, total)
	}
	return totals, nil
}

// solAccount is where the SOL of the treasury's wallet stands in the chart of accounts.
const solAccount = "sol_wallet"

// solChart names the SOL journal's kinds as a chart of accounts does. Rent of payees' token accounts is spent: it is theirs who close them.
var solChart = map[string]struct{ name, code string }{
	solAccount:             {"SOL in the treasury's wallet", "1040"},
	soljournal.BaseFee:     {"Network fees", "5110"},
	soljournal.PriorityFee: {"Network fees", "5110"},
	soljournal.RentOut:     {"Rent of accounts on the chain", "5120"},
	soljournal.RentBack:    {"Rent of accounts on the chain", "5120"},
	soljournal.TopUp:       {"SOL put in and taken out", "3020"},
	soljournal.Sent:        {"SOL put in and taken out", "3020"},
}

// solJournal visits both sides of each line of a month's SOL journal, oldest first.
func (s *Service) solJournal(ctx context.Context, month Month, visit func(posting) error) error {
	rows, err := s.pool.Query(ctx, `
		SELECT t.signature, t.at, l.kind, l.other, l.lamports
		FROM sol_lines l JOIN sol_transactions t ON t.wallet = l.wallet AND t.seq = l.seq
		WHERE t.at >= $1 AND t.at < $2 ORDER BY t.wallet, t.seq, l.ordinal`, month.Time, month.end())
	if err != nil {
		return fmt.Errorf("read the SOL journal of %s: %w", month, err)
	}
	var signature, kind, other string
	var at time.Time
	var lamports money.Amount
	_, err = pgx.ForEachRow(rows, []any{&signature, &at, &kind, &other, &lamports}, func() error {
		wallet := posting{entry: signature, at: at, kind: kind, memo: other, account: solAccount, debit: lamports > 0, amount: max(lamports, -lamports)}
		against := wallet
		against.account, against.debit = kind, !wallet.debit
		if err := visit(wallet); err != nil {
			return err
		}
		return visit(against)
	})
	return err
}

// QuickBooksSOL writes a month's SOL journal in QuickBooks' columns; its amounts are SOL.
func (s *Service) QuickBooksSOL(ctx context.Context, w io.Writer, month Month) error {
	t, err := newTable(w, quickBooksColumns)
	if err != nil {
		return err
	}
	return t.end(s.solJournal(ctx, month, func(p posting) error { return t.Write(p.quickBooks(soljournal.Currency)) }))
}

// XeroSOL writes a month's SOL journal in Xero's columns; its amounts are SOL.
func (s *Service) XeroSOL(ctx context.Context, w io.Writer, month Month) error {
	t, err := newTable(w, xeroColumns)
	if err != nil {
		return err
	}
	return t.end(s.solJournal(ctx, month, func(p posting) error { return t.Write(p.xero(soljournal.Currency)) }))
}

type reportSOLKind struct{ Name, Code, Amount string }

type reportSOL struct {
	Wallet, Opening, Closing string
	Transactions, Failed     int64
	Kinds                    []reportSOLKind
}

func newReportSOL(totals []SOLTotal) []reportSOL {
	var page []reportSOL
	for _, t := range totals {
		wallet := reportSOL{
			Wallet: t.Wallet, Opening: soljournal.Currency.Format(t.Opening), Closing: soljournal.Currency.Format(t.Closing), Transactions: t.Transactions, Failed: t.Failed,
		}
		for _, k := range t.Kinds {
			wallet.Kinds = append(wallet.Kinds, reportSOLKind{Name: solKindNames[k.Kind], Code: solChart[k.Kind].code, Amount: soljournal.Currency.Format(k.Lamports)})
		}
		page = append(page, wallet)
	}
	return page
}

// solKindNames are the kinds as the page calls them.
var solKindNames = map[string]string{
	soljournal.BaseFee: "Base fees", soljournal.PriorityFee: "Priority fees", soljournal.RentOut: "Rent for accounts that were made",
	soljournal.RentBack: "Rent from accounts that were given up", soljournal.TopUp: "Put in", soljournal.Sent: "Taken out",
}
