package command

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
)

const solJournalPath = "/v1/finance/sol-journal"

func (a *App) reconcileSOL() *cobra.Command {
	month, kind, signature, lines := "", "", "", false
	cmd := &cobra.Command{
		Use: "sol", Short: "Show what the treasury spent in SOL: fees, rent and top-ups", Example: "muster reconcile sol --month 2026-11", Args: cobra.NoArgs,
		Long: "Shows the journal of the treasury wallet's SOL, which is read from the chain with each reconciliation: what it had, what it has, and each\n" +
			"kind of expense. With --lines, --kind or --transaction it lists the journal itself. `muster reconcile export MONTH sol` writes it as CSV.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			query := url.Values{}
			for name, value := range map[string]string{"month": month, "kind": kind, "signature": signature} {
				if value != "" {
					query.Set(name, value)
				}
			}
			if lines || kind != "" || signature != "" {
				found, err := list[apiv1.SOLLine](cmd.Context(), api, solJournalPath+"/lines", query)
				if err != nil {
					return err
				}
				return a.printSOLLines(found)
			}
			var journal apiv1.SOLJournal
			if err := api.Get(cmd.Context(), solJournalPath, query, &journal); err != nil {
				return err
			}
			return a.printSOLJournal(journal)
		},
	}
	cmd.Flags().StringVar(&month, "month", "", "only this month, such as 2026-11")
	cmd.Flags().BoolVar(&lines, "lines", false, "list the journal, newest first")
	cmd.Flags().StringVar(&kind, "kind", "", "only base_fee, priority_fee, rent_out, rent_back, top_up or sent")
	cmd.Flags().StringVar(&signature, "transaction", "", "only the transaction of this signature")
	return cmd
}

func (a *App) printSOLJournal(j apiv1.SOLJournal) error {
	rows := make([][]output.Cell, len(j.Totals))
	for i, t := range j.Totals {
		rows[i] = []output.Cell{output.Text(plainKind(t.Kind)), output.Text(output.Money(t.Amount)), output.Text(strconv.FormatInt(t.Lines, 10))}
	}
	return a.printer().Print(j, []string{j.Wallet}, func(p *output.Page) {
		p.Facts(
			output.Fact{Label: "Wallet", Value: output.Text(j.Wallet)}, output.Fact{Label: "Month", Value: output.Text(first(j.Month, "all"))},
			output.Fact{Label: "Opening", Value: output.Text(output.Money(j.Opening))}, output.Fact{Label: "Closing", Value: output.Text(output.Money(j.Closing))},
			output.Fact{Label: "Transactions", Value: output.Text(strconv.FormatInt(j.Transactions, 10))},
			output.Fact{Label: "Failed", Value: output.Text(strconv.FormatInt(j.Failed, 10))},
		)
		if len(rows) > 0 {
			p.Title("From opening to closing")
			p.Table([]output.Column{{Head: "KIND"}, {Head: "AMOUNT", Right: true}, {Head: "LINES", Right: true}}, rows)
		}
	})
}

func (a *App) printSOLLines(lines []apiv1.SOLLine) error {
	rows := make([][]output.Cell, len(lines))
	for i, l := range lines {
		kind := output.Text(plainKind(l.Kind))
		if l.Failed {
			kind = output.Cell{Text: kind.Text + ", failed", Tone: output.Bad}
		}
		rows[i] = []output.Cell{
			output.Text(output.Time(&l.At)), kind, output.Text(output.Money(l.Amount)), output.Text(output.Money(l.Balance)), output.Text(solPurpose(l)),
			output.Text(first(l.Account, "-")), output.Text(l.Signature),
		}
	}
	return a.printer().Print(lines, namesOf(lines, func(l apiv1.SOLLine) string { return l.Signature }), func(p *output.Page) {
		if len(lines) == 0 {
			a.say("The journal has no such lines. It is written with each reconciliation: `muster reconcile run` makes one.")
			return
		}
		p.Table([]output.Column{
			{Head: "AT"},
			{Head: "KIND"},
			{Head: "AMOUNT", Right: true},
			{Head: "LEFT", Right: true},
			{Head: "FOR", Shrink: true},
			{Head: "ACCOUNT", Wide: true},
			{Head: "SIGNATURE", Wide: true},
		}, rows)
	})
}

func plainKind(kind string) string { return strings.ReplaceAll(kind, "_", " ") }

// solPurpose is what a line's transaction was for.
func solPurpose(l apiv1.SOLLine) string {
	switch {
	case l.SweepID != nil:
		return l.SweepID.String()
	case l.BatchID != nil && l.Purpose == "cancellation":
		return "cancellation of " + l.BatchID.String()
	case l.BatchID != nil:
		return l.BatchID.String()
	}
	return "-"
}
