package command

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	reconciliationFailed = "failed"
	reconciliationBehind = "behind"
)

func (a *App) reconcile() *cobra.Command {
	full := false
	run := &cobra.Command{
		Use: "run", Short: "Compare ledger and chain now", Example: "muster reconcile run", Args: cobra.NoArgs,
		Long: "Walks the platform's token accounts on the chain and compares them with the ledger. Exits with 1 if they differ.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var run apiv1.Reconciliation
			query := url.Values{}
			if full {
				query.Set("full", "true")
			}
			if err := api.Do(cmd.Context(), http.MethodPost, "/v1/finance/reconciliations", query, nil, nil, &run); err != nil {
				return err
			}
			return a.printReconciliation(run, true)
		},
	}
	run.Flags().BoolVar(&full, "full", false, "from every account's first transaction on, not from what was found equal before")
	ls := &cobra.Command{
		Use: "ls", Short: "List comparisons, newest first", Example: "muster reconcile ls", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			runs, err := list[apiv1.Reconciliation](cmd.Context(), api, "/v1/finance/reconciliations", nil)
			if err != nil {
				return err
			}
			return a.printReconciliations(runs)
		},
	}
	get := &cobra.Command{
		Use: "get RECONCILIATION", Short: "Show a comparison, account by account", Example: "muster reconcile get rec_01jd8xk4s3f5rtkq9m2v6w7x8y",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeReconciliations(),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			run, err := getReconciliation(cmd.Context(), api, arguments[0])
			if err != nil {
				return err
			}
			return a.printReconciliation(run, false)
		},
	}
	return noun("reconcile", groupFinance, "Compare the ledger with the chain", run, ls, get,
		a.reconcileDifferences(), a.reconcileResolve(), a.reconcileHoldings(), a.reconcileSOL(), a.reconcileClose(), a.reconcileExport(), a.reconcileAudit())
}

func reconciliationKey(r apiv1.Reconciliation) string { return r.ID.String() }

func getReconciliation(ctx context.Context, api *client.Client, argument string) (run apiv1.Reconciliation, err error) {
	var id ids.Reconciliation
	if id.UnmarshalText([]byte(argument)) != nil || id.IsZero() {
		runs, err := list[apiv1.Reconciliation](ctx, api, "/v1/finance/reconciliations", nil)
		if err != nil {
			return run, err
		}
		found, err := pick("reconciliation", "reconcile ls", argument, runs, reconciliationKey, func(apiv1.Reconciliation) string { return "" }, func(apiv1.Reconciliation) bool { return true })
		if err != nil {
			return run, err
		}
		id = found.ID
	}
	err = api.Get(ctx, "/v1/finance/reconciliations/"+id.String(), nil, &run)
	return run, err
}

func (a *App) printReconciliations(runs []apiv1.Reconciliation) error {
	printer := a.printer()
	rows := make([][]output.Cell, len(runs))
	for i, r := range runs {
		rows[i] = []output.Cell{
			output.Text(r.ID.String()), output.State(r.State), output.Text(strconv.Itoa(r.Matched)), output.Text(strconv.Itoa(r.DifferenceCount)),
			output.Text(strconv.FormatInt(r.Slot, 10)), output.Text(printer.Age(r.StartedAt)), output.Text(r.Reason),
		}
	}
	return printer.Print(runs, namesOf(runs, reconciliationKey), func(p *output.Page) {
		if len(runs) == 0 {
			a.say("Nothing was compared yet: `muster reconcile run` does.")
			return
		}
		p.Table([]output.Column{
			{Head: "RECONCILIATION"},
			{Head: "STATE"},
			{Head: "MATCHED", Right: true},
			{Head: "DIFFERENCES", Right: true},
			{Head: "UP TO SLOT", Right: true},
			{Head: "AGE", Right: true},
			{Head: "NOTE", Shrink: true},
		}, rows)
	})
}

// printReconciliation shows a comparison; judged makes its outcome the exit code.
func (a *App) printReconciliation(r apiv1.Reconciliation, judged bool) error {
	printer := a.printer()
	started := r.StartedAt
	err := printer.Print(r, []string{reconciliationKey(r)}, func(p *output.Page) {
		p.Facts(
			output.Fact{Label: "Reconciliation", Value: output.Text(r.ID.String())}, output.Fact{Label: "State", Value: output.State(r.State)},
			output.Fact{Label: "Because", Value: output.Text(r.Reason)}, output.Fact{Label: "Started", Value: output.Text(printer.When(&started))},
			output.Fact{Label: "Chain read up to slot", Value: output.Text(strconv.FormatInt(r.Slot, 10))},
			output.Fact{Label: "Transfers that match", Value: output.Text(strconv.Itoa(r.Matched))},
			output.Fact{Label: "Differences", Value: output.Text(strconv.Itoa(r.DifferenceCount))},
		)
		accountTable(p, r.Accounts)
		walletTable(p, r.Wallets)
		surveyTable(p, r.Holdings)
		differenceTable(p, r.Differences)
	})
	switch {
	case err != nil || !judged:
		return err
	case r.State == reconciliationFailed:
		return fail(exitFailed, "the comparison could not be made: %s", r.Reason)
	case r.DifferenceCount > 0:
		return fail(exitFailed, "ledger and chain differ in %d places", r.DifferenceCount)
	case r.State == reconciliationBehind:
		return fail(exitFailed, "the comparison has not come to the present: %s", r.Reason)
	}
	return nil
}

func accountTable(p *output.Page, accounts []apiv1.ReconciledAccount) {
	if len(accounts) == 0 {
		return
	}
	rows := make([][]output.Cell, len(accounts))
	for i, account := range accounts {
		rows[i] = []output.Cell{
			output.Text(account.Name), output.Text(output.Money(account.In)), output.Text(output.Money(account.Out)), output.Text(output.Money(account.ChainClosing)),
			output.Text(output.Money(account.LedgerClosing)), output.Text(strconv.Itoa(account.Transactions)), gapless(account.Continuous), output.Text(account.Address),
		}
	}
	p.Title("Accounts")
	p.Table([]output.Column{
		{Head: "ACCOUNT"},
		{Head: "IN", Right: true},
		{Head: "OUT", Right: true},
		{Head: "CHAIN", Right: true},
		{Head: "LEDGER", Right: true},
		{Head: "TRANSACTIONS", Right: true},
		{Head: "GAPLESS"},
		{Head: "ADDRESS", Wide: true},
	}, rows)
}

func walletTable(p *output.Page, wallets []apiv1.ReconciledWallet) {
	if len(wallets) == 0 {
		return
	}
	rows := make([][]output.Cell, len(wallets))
	for i, w := range wallets {
		rows[i] = []output.Cell{
			output.Text(w.Name), output.Text(output.Money(w.Balance)), output.Text(output.Money(w.Journal)), output.Text(strconv.FormatInt(w.Transactions, 10)),
			walked(w), output.Text(w.Address),
		}
	}
	p.Title("SOL")
	p.Table([]output.Column{
		{Head: "WALLET"},
		{Head: "CHAIN", Right: true},
		{Head: "JOURNAL", Right: true},
		{Head: "TRANSACTIONS", Right: true},
		{Head: "GAPLESS"},
		{Head: "ADDRESS", Wide: true},
	}, rows)
}

// walked is what a walk says of a wallet so far.
func walked(w apiv1.ReconciledWallet) output.Cell {
	if w.Behind {
		return output.State(reconciliationBehind)
	}
	return gapless(w.Continuous)
}

func gapless(continuous bool) output.Cell {
	if continuous {
		return output.Cell{Text: "yes", Tone: output.Good}
	}
	return output.Cell{Text: "NO", Tone: output.Bad}
}

func differenceTable(p *output.Page, differences []apiv1.Difference) {
	if len(differences) == 0 {
		return
	}
	rows := make([][]output.Cell, len(differences))
	for i, d := range differences {
		rows[i] = []output.Cell{
			{Text: strings.ReplaceAll(d.Class, "_", " "), Tone: output.Bad},
			output.Text(first(output.OptionalMoney(d.Ledger), "-")), output.Text(first(output.OptionalMoney(d.Chain), "-")),
			output.Text(output.Time(&d.At)), output.Text(d.Text), output.Text(d.Account), output.Text(first(d.Signature, "-")),
		}
	}
	p.Title("Differences")
	p.Table([]output.Column{
		{Head: "CLASS"},
		{Head: "LEDGER", Right: true},
		{Head: "CHAIN", Right: true},
		{Head: "AT"},
		{Head: "WHAT", Shrink: true},
		{Head: "ACCOUNT", Wide: true},
		{Head: "SIGNATURE", Wide: true},
	}, rows)
}
