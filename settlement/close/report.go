package close

import (
	_ "embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

//go:embed report.tmpl.html
var reportText string

// reportPage writes names and reasons of people's: html/template escapes them.
var reportPage = template.Must(template.New("report").Parse(reportText))

type reportAccount struct {
	Name, Code, Org                  string
	Opening, Debits, Credits, Closed string
}

type reportChain struct {
	Name, TokenAccount, Balance string
	Transactions, Slot          int64
}

type reportData struct {
	Month, Currency, Mint, ClosedBy, ClosedAt, Run, Sum string
	Entries                                             int64
	Debits, Credits                                     string
	Intact                                              bool
	Accounts                                            []reportAccount
	Chain                                               []reportChain
	Holdings                                            *reportHoldings
	SOL                                                 []reportSOL
}

// Report writes a closed month as a page to print. Names are those of the people, intact is what Check said.
func (s *Service) Report(w io.Writer, c Closing, names map[ids.User]string, intact bool) error {
	format := func(a money.Amount) string { return s.options.Currency.Format(a) }
	data := reportData{
		Month: c.Month.Format("January 2006"), Currency: s.options.Currency.Symbol, Mint: c.Figures.Mint, ClosedBy: names[c.ClosedBy],
		ClosedAt: c.ClosedAt.UTC().Format(time.RFC3339), Run: c.Reconciliation.String(), Sum: hex.EncodeToString(c.SHA256), Entries: c.Figures.Entries,
		Debits: format(c.Figures.Debits), Credits: format(c.Figures.Credits), Intact: intact,
	}
	for _, a := range c.Figures.Accounts {
		name, code := chartOf(a.Kind)
		data.Accounts = append(data.Accounts, reportAccount{
			Name: name, Code: code, Org: a.Org, Opening: format(a.Opening), Debits: format(a.Debits), Credits: format(a.Credits), Closed: format(a.Closing),
		})
	}
	for _, a := range c.Figures.Chain {
		data.Chain = append(data.Chain, reportChain{
			Name: a.Name, TokenAccount: a.TokenAccount, Balance: format(a.Balance), Transactions: a.Transactions, Slot: a.Slot,
		})
	}
	data.Holdings, data.SOL = newReportHoldings(c.Figures.Holdings), newReportSOL(c.Figures.SOL)
	if err := reportPage.Execute(w, data); err != nil {
		return fmt.Errorf("write the report of %s: %w", c.Month, err)
	}
	return nil
}
