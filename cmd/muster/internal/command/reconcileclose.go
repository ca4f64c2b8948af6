package command

import (
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
)

const differencesPath = "/v1/finance/differences"

func differenceKey(d apiv1.DifferenceItem) string { return d.ID.String() }

func (a *App) reconcileDifferences() *cobra.Command {
	state := ""
	cmd := &cobra.Command{
		Use: "differences", Short: "List differences, and who looks into them", Example: "muster reconcile differences --state open", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			query := url.Values{}
			if state != "" {
				query.Set("state", state)
			}
			items, err := list[apiv1.DifferenceItem](cmd.Context(), api, differencesPath, query)
			if err != nil {
				return err
			}
			return a.printItems(items)
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "only those that are open, resolved or gone")
	return cmd
}

func (a *App) printItems(items []apiv1.DifferenceItem) error {
	rows := make([][]output.Cell, len(items))
	for i, d := range items {
		rows[i] = []output.Cell{
			output.Text(differenceKey(d)), output.Text(d.State), output.Text(d.Class), output.Text(first(output.OptionalMoney(d.Ledger), "-")),
			output.Text(first(output.OptionalMoney(d.Chain), "-")), output.Text(first(d.Owner, "-")), output.Text(d.Text),
		}
	}
	return a.printer().Print(items, namesOf(items, differenceKey), func(p *output.Page) {
		if len(items) == 0 {
			a.say("There are no such differences.")
			return
		}
		p.Table([]output.Column{
			{Head: "DIFFERENCE"},
			{Head: "STATE"},
			{Head: "CLASS"},
			{Head: "LEDGER", Right: true},
			{Head: "CHAIN", Right: true},
			{Head: "OWNER"},
			{Head: "WHAT", Shrink: true},
		}, rows)
	})
}

func (a *App) reconcileResolve() *cobra.Command {
	kind, reason := "", ""
	cmd := &cobra.Command{
		Use: "resolve DIFFERENCE", Short: "Say what came of a difference", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Example: `muster reconcile resolve dif_01jd8xk4s3f5rtkq9m2v6w7x8y --as waived --reason "dust"`,
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var item apiv1.DifferenceItem
			update := apiv1.DifferenceUpdate{Resolution: &kind, Reason: reason}
			if err := api.Do(cmd.Context(), http.MethodPatch, differencesPath+"/"+url.PathEscape(arguments[0]), nil, nil, update, &item); err != nil {
				return err
			}
			return a.printItems([]apiv1.DifferenceItem{item})
		},
	}
	cmd.Flags().StringVar(&kind, "as", "", "posted_correction, chain_explained or waived")
	cmd.Flags().StringVar(&reason, "reason", "", "why")
	_ = cmd.MarkFlagRequired("as")
	_ = cmd.MarkFlagRequired("reason")
	return cmd
}

func (a *App) reconcileClose() *cobra.Command {
	return &cobra.Command{
		Use: "close MONTH", Short: "Close a month and freeze its figures", Example: "muster reconcile close 2026-11", Args: cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var period apiv1.ClosedPeriod
			if err := api.Post(cmd.Context(), "/v1/finance/periods", apiv1.PeriodClose{Month: arguments[0]}, &period); err != nil {
				return err
			}
			return a.printer().Print(period, []string{period.Month}, func(p *output.Page) {
				p.Facts(
					output.Fact{Label: "Month", Value: output.Text(period.Month)}, output.Fact{Label: "Debits", Value: output.Text(output.OptionalMoney(&period.Debits))},
					output.Fact{Label: "Credits", Value: output.Text(output.OptionalMoney(&period.Credits))}, output.Fact{Label: "SHA-256", Value: output.Text(period.SHA256)},
				)
			})
		},
	}
}

func (a *App) reconcileExport() *cobra.Command {
	file := ""
	cmd := &cobra.Command{
		Use: "export MONTH FORMAT", Short: "Write a month for accounting tools, or as a report to print", Args: cobra.ExactArgs(2),
		Long: "Writes a month in the columns of cryptio, quickbooks or xero, the journal of the treasury's SOL as quickbooks-sol, xero-sol or, with each\n" +
			"transaction, sol, or a closed month as a report to print.",
		Example: "muster reconcile export 2026-11 xero --file journal.csv", ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, arguments []string) error {
			month, format := arguments[0], arguments[1]
			path := "/v1/finance/periods/" + url.PathEscape(month)
			switch format {
			case "sol":
				return a.export(cmd.Context(), solJournalPath+"/file", url.Values{"month": {month}}, file)
			case "report":
				path += "/report"
			default:
				path += "/files/" + url.PathEscape(format)
			}
			return a.export(cmd.Context(), path, nil, file)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "where to write it, a file that is not there yet; standard output when nothing is said")
	return cmd
}
